"""Sounds for the interruption benchmark: what must not stop an agent, and what must.

What lives here: making each sound, seeded, and saying what it is. What must not: calls and what came
of them (`interruptions.py`).

Every sound is s16le mono at 16 kHz. Words are spoken by the voices at hand: Piper (the agent's own
engine), espeak-ng in a process of its own, and, where pip and npm can fetch it, Kokoro, which
sounds most like a person. What is spoken is kept in a cache folder, so that the next run is quick.
Coughs, slams and clatter are noise shaped by envelopes and resonances drawn from the seed: they
stand for the class, and are no recordings. Kitchen babble and the orders are recorded from life.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.audible import active_dbfs, first_audible, last_voiced, speech_threshold_dbfs
from voicectl.audio import PIPELINE_RATE, Pcm, WavWriter, read_wav, resample, rms_dbfs
from voicectl.clock import Clock
from voicectl.pipeline.protocols import TtsRequest

RATE = PIPELINE_RATE
TOOLS = Path(__file__).resolve().parents[1] / "tools"
Samples = NDArray[np.float64]
Progress = Callable[[str], None]
Group = Literal["listener", "noise", "echo", "caller"]

# How each engine is made to say a listener's noise: as spelled it would be read out by the letter.
HUMS = {
    "mhm": {"kokoro": "/mhˈm./", "espeak": "[[m@hm]]", "piper": "Mm-hmm."},
    "mm": {"kokoro": "/mˈm./", "espeak": "[[mm]]", "piper": "Mmm."},
    "uh-huh": {"kokoro": "/əhˈʌ./", "espeak": "[[V_h'V]]", "piper": "Uh-huh."},
}
BACKCHANNELS = ("mhm", "mm", "uh-huh", "yeah", "right", "okay", "i see")
SHORT_INTERRUPTIONS = ("wait", "stop", "no, sorry", "hold on", "actually, a small one")
KOKORO_VOICES = ("af_heart", "af_bella", "am_michael", "am_puck", "bf_emma", "bm_george")
ESPEAK_VOICES = ("en-us+m3", "en-us+f2", "en-us+Annie", "en-gb-x-rp+m1")
PIPER_SPEEDS = (0.85, 1.0, 1.2)

SPEECH_DBFS = -21.0
BACKCHANNEL_DBFS = -26.0

ESPEAK_WORKER = r"""
import ctypes, sys
import espeakng_loader
lib = ctypes.CDLL(espeakng_loader.get_library_path())
assert lib.espeak_Initialize(1, 0, espeakng_loader.get_data_path().encode(), 0) == 22050
assert lib.espeak_SetVoiceByName(sys.argv[1].encode()) == 0
sound = bytearray()
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
def keep(samples, count, events):
    if samples and count > 0:
        sound.extend(ctypes.string_at(samples, 2 * count))
    return 0
lib.espeak_SetSynthCallback(keep)
text = sys.argv[2].encode()
lib.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1 | 0x100, None, None)
lib.espeak_Synchronize()
sys.stdout.buffer.write(bytes(sound))
"""
ESPEAK_RATE = 22_050


@dataclass(frozen=True, slots=True)
class Stimulus:
    """Something to be heard by an agent in the middle of an answer.

    Attributes:
        group: "listener" (hums and short words), "noise", "echo" or "caller" (who wants the agent to stop).
        kind: the row of the table that it counts in.
        pcm: the sound; empty for an echo, which is made of the call itself.
        voiced: first and last voiced sample.
        echo_db: how far the agent's own speech comes back below itself (None: not at all).
        echo_s: and how much later.
    """

    group: Group
    kind: str
    name: str
    pcm: bytes = b""
    voiced: tuple[int, int] = (0, 0)
    echo_db: float | None = None
    echo_s: float = 0.0


def stimulus(group: Group, kind: str, name: str, samples: Samples) -> Stimulus:
    pcm = _s16(samples)
    x = np.frombuffer(pcm, "<i2")
    threshold = speech_threshold_dbfs(x, RATE)
    first = first_audible(x, RATE, threshold_dbfs=threshold)
    last = last_voiced(x, RATE, threshold_dbfs=threshold)
    return Stimulus(group, kind, name, pcm, (first or 0, last if last is not None else len(x) - 1))


# Voices -----------------------------------------------------------------------------------------

Speak = Callable[[str], Awaitable[Pcm]]
Engine = Literal["kokoro", "espeak", "piper"]


@dataclass(frozen=True, slots=True)
class Voice:
    """One synthetic speaker; what it says is kept in `cache`."""

    engine: Engine
    name: str
    cache: Path
    speak: Speak

    async def say(self, text: str) -> Samples:
        """The speech at RATE, cut to what can be heard, at full scale 1."""
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{self.name}-{text}".lower())
        path = self.cache / f"{self.engine}-{name}.wav"
        if not path.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            spelled = HUMS[text][self.engine] if text in HUMS else f"{text.capitalize()}."
            pcm = resample(await self.speak(spelled), RATE)
            with WavWriter(path, RATE, 1) as wav:
                wav.write(pcm.data)
        return _trimmed(read_wav(path).array().astype(np.float64) / 32768)


def espeak_voices(cache: Path) -> Iterator[Voice]:
    for name in ESPEAK_VOICES:

        async def speak(text: str, name: str = name) -> Pcm:
            command = [sys.executable, "-c", ESPEAK_WORKER, name, text]
            done = subprocess.run(command, capture_output=True, check=True)  # noqa: ASYNC221  nothing else runs yet
            return Pcm(done.stdout, ESPEAK_RATE)

        yield Voice("espeak", name, cache, speak)


def piper_voices(cache: Path, clock: Clock, speaker: Callable[[float, Clock], Any]) -> Iterator[Voice]:
    """`speaker` makes a TTS that speaks at a rate; it is started when first used."""
    for speed in PIPER_SPEEDS:

        async def speak(text: str, speed: float = speed) -> Pcm:
            tts = speaker(speed, clock)
            await tts.start(_quiet)
            try:
                sound = bytearray()
                async with aclosing(tts.synthesize(TtsRequest(text))) as pieces:
                    async for piece in pieces:
                        sound += piece
            finally:
                await tts.aclose()
            return Pcm(bytes(sound), tts.rate)

        yield Voice("piper", f"joe-{speed}", cache, speak)


def kokoro_voices(cache: Path, weights: Path) -> Iterator[Voice]:
    """The voices of `tools/make_recordings.py`; their weights are fetched into `weights` when first used."""
    sys.path.insert(0, str(TOOLS))
    maker: Any = None

    async def speak(text: str, name: str) -> Pcm:
        nonlocal maker
        if maker is None:
            maker = importlib.import_module("make_recordings")
            maker.fetch(weights)
        spoken = cast("Samples", maker.Voice(weights, name).say(text))
        return Pcm(_s16(spoken / max(1.0, float(np.abs(spoken).max()))), cast("int", maker.MODEL_RATE))

    for name in KOKORO_VOICES:

        async def one(text: str, name: str = name) -> Pcm:
            return await speak(text, name)

        yield Voice("kokoro", name, cache, one)


def _quiet(text: str) -> None:
    """Progress nobody waits for."""


async def spoken(voices: Sequence[Voice], progress: Progress) -> list[Stimulus]:
    """Every backchannel and every short interruption, by every voice."""
    made: list[Stimulus] = []
    for voice in voices:
        progress(f"speaking with {voice.engine} {voice.name}")
        for text in BACKCHANNELS:
            kind = f"{'hum' if text in HUMS else 'backchannel word'}, {voice.engine}"
            made.append(
                stimulus("listener", kind, f"{text} ({voice.name})", leveled(await voice.say(text), BACKCHANNEL_DBFS))
            )
        for text in SHORT_INTERRUPTIONS:
            sound = leveled(await voice.say(text), SPEECH_DBFS)
            made.append(stimulus("caller", f"short words, {voice.engine}", f"{text} ({voice.name})", sound))
    return made


# Noises -----------------------------------------------------------------------------------------


def coughs(draw: np.random.Generator, count: int) -> list[Stimulus]:
    """Alternately single and double."""
    made: list[Stimulus] = []
    for number in range(count):
        parts = [_cough(draw)]
        if number % 2:
            parts += [np.zeros(round(draw.uniform(0.08, 0.3) * RATE)), _cough(draw) * draw.uniform(0.5, 0.9)]
        kind = "cough, double" if number % 2 else "cough"
        made.append(stimulus("noise", kind, f"{kind} {number}", leveled(np.concatenate(parts), draw.uniform(-26, -16))))
    return made


def _cough(draw: np.random.Generator) -> Samples:
    """A burst as the glottis opens, breath through the throat, often a voiced end: 200 to 500 ms."""
    seconds = draw.uniform(0.2, 0.5)
    length = round(seconds * RATE)
    at = np.arange(length) / RATE
    formants = (draw.uniform(450, 800), draw.uniform(1200, 1800), draw.uniform(2400, 3200))
    breath = _resonant(draw.standard_normal(length), formants, width=350.0)
    envelope = np.minimum(at / 0.006, 1) * (np.exp(-at / 0.035) + 0.35 * np.exp(-at / (seconds / 2.5)))
    sound = breath * envelope
    if draw.random() < 0.7:
        begin = round(seconds * draw.uniform(0.45, 0.6) * RATE)
        rest = np.arange(length - begin) / RATE
        pitch = draw.uniform(140, 320) * (1 - 0.5 * rest)
        pulses = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / RATE)) + 0.5 * draw.standard_normal(len(rest))
        voice = _resonant(pulses, formants, width=180.0) * np.minimum(rest / 0.02, 1) * np.exp(-rest / 0.07)
        peak = float(np.abs(sound).max()) / max(1e-9, float(np.abs(voice).max()))
        sound[begin:] += voice * peak * draw.uniform(0.2, 0.5)
    return sound * np.minimum(1, (at[-1] - at) / 0.02 + 1e-3)


def slams(draw: np.random.Generator, count: int) -> list[Stimulus]:
    """A door: the latch's click, then panels that ring low and die away."""
    made: list[Stimulus] = []
    for number in range(count):
        at = np.arange(round(0.8 * RATE)) / RATE
        sound = np.zeros_like(at)
        for _ in range(int(draw.integers(3, 7))):
            ring = np.sin(2 * np.pi * draw.uniform(35, 220) * at + draw.uniform(0, 6.28))
            sound += draw.uniform(0.3, 1.0) * ring * np.exp(-at / draw.uniform(0.04, 0.16))
        click = _resonant(draw.standard_normal(len(at)), (900.0, 2600.0), width=900.0) * np.exp(-at / 0.006)
        sound = sound / np.abs(sound).max() + draw.uniform(0.2, 0.7) * click / np.abs(click).max()
        made.append(stimulus("noise", "door slam", f"slam {number}", sound * 10 ** (draw.uniform(-12, -3) / 20)))
    return made


def clatter(draw: np.random.Generator, count: int) -> list[Stimulus]:
    """Alternately typing and crockery."""
    made: list[Stimulus] = []
    for number in range(count):
        seconds = draw.uniform(0.8, 2.5)
        sound = np.zeros(round((seconds + 0.3) * RATE))
        moment = 0.0
        while moment < seconds:
            hit = _key(draw) if number % 2 == 0 else _plate(draw)
            begin = round(moment * RATE)
            end = min(len(sound), begin + len(hit))
            sound[begin:end] += hit[: end - begin] * draw.uniform(0.4, 1.0)
            moment += draw.uniform(0.06, 0.2) if number % 2 == 0 else draw.uniform(0.1, 0.5)
        kind = "crockery" if number % 2 else "keyboard"
        sound *= 10 ** (draw.uniform(-18, -6) / 20) / np.abs(sound).max()
        made.append(stimulus("noise", kind, f"{kind} {number}", sound))
    return made


def _key(draw: np.random.Generator) -> Samples:
    at = np.arange(round(0.05 * RATE)) / RATE
    tone = (draw.uniform(900, 1800), draw.uniform(2500, 4500))
    down = _resonant(draw.standard_normal(len(at)), tone, width=900.0) * np.exp(-at / 0.004)
    bottom = np.roll(down, round(0.012 * RATE)) * 0.5
    sound = down + bottom
    return sound / np.abs(sound).max()


def _plate(draw: np.random.Generator) -> Samples:
    at = np.arange(round(0.3 * RATE)) / RATE
    rings = [
        np.sin(2 * np.pi * draw.uniform(1500, 6500) * at) * np.exp(-at / draw.uniform(0.02, 0.1)) for _ in range(5)
    ]
    sound = np.sum(rings, axis=0)
    return sound / np.abs(sound).max()


def babble(draw: np.random.Generator, noise: Path, count: int, levels: Sequence[int]) -> list[Stimulus]:
    """Four seconds of a busy kitchen that set in at once, at each level (RMS, dBFS)."""
    x = resample(read_wav(noise), RATE).array().astype(np.float64) / 32768
    length, fade = 4 * RATE, round(0.05 * RATE)
    made: list[Stimulus] = []
    for level in levels:
        for number in range(count):
            begin = int(draw.integers(len(x) - length))
            cut = x[begin : begin + length].copy()
            cut[:fade] *= np.linspace(0, 1, fade)
            cut[-fade:] *= np.linspace(1, 0, fade)
            cut *= 10 ** ((level - rms_dbfs(_s16(cut))) / 20)
            made.append(stimulus("noise", f"kitchen, {level} dBFS", f"kitchen {number}, {level} dBFS", cut))
    return made


def echoes(draw: np.random.Generator, count: int, levels: Sequence[int]) -> list[Stimulus]:
    """The agent's own speech comes back on the caller's side."""
    return [
        Stimulus(
            "echo", f"own echo, {level} dB", f"echo {number}", echo_db=level, echo_s=float(draw.uniform(0.06, 0.25))
        )
        for level in levels
        for number in range(count)
    ]


def orders(draw: np.random.Generator, folder: Path) -> list[Stimulus]:
    """The first 1.5 to 3 s of what real people said when they ordered, from a little before their first sound."""
    made: list[Stimulus] = []
    for path in sorted(folder.glob("*.wav")):
        pcm = resample(read_wav(path), RATE)
        x = pcm.array()
        first = first_audible(x, RATE, threshold_dbfs=speech_threshold_dbfs(x, RATE)) or 0
        begin = max(0, first - round(0.1 * RATE))
        cut = x[begin : first + round(draw.uniform(1.5, 3.0) * RATE)].astype(np.float64) / 32768
        fade = round(0.02 * RATE)
        cut[-fade:] *= np.linspace(1, 0, fade)
        made.append(stimulus("caller", "orders, human", path.stem[:8], cut))
    return made


# Sound ------------------------------------------------------------------------------------------


def leveled(sound: Samples, dbfs: float) -> Samples:
    """The sound at a level, pauses not counted."""
    sound = sound / np.abs(sound).max() * 0.5
    gain = 10 ** ((dbfs - active_dbfs(np.frombuffer(_s16(sound), "<i2"), RATE)) / 20)
    return sound * gain


def _trimmed(sound: Samples) -> Samples:
    """From 50 ms before the first to 50 ms after the last sound."""
    x = np.frombuffer(_s16(sound), "<i2")
    threshold = speech_threshold_dbfs(x, RATE)
    first, last = first_audible(x, RATE, threshold_dbfs=threshold), last_voiced(x, RATE, threshold_dbfs=threshold)
    assert first is not None and last is not None, "a voice that says nothing"
    margin = round(0.05 * RATE)
    return np.pad(sound, margin)[first : last + 1 + 2 * margin]


def _resonant(sound: Samples, peaks: Sequence[float], width: float) -> Samples:
    """Coloured by resonances (Hz, each `width` wide)."""
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    gain = sum((1 / (1 + ((frequency - peak) / width) ** 2) for peak in peaks), np.zeros_like(frequency)) + 0.02
    return np.fft.irfft(spectrum * gain, len(sound))


def _s16(sound: Samples) -> bytes:
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2").tobytes()
