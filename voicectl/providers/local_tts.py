"""The local TTS: a Piper voice on onnxruntime, its phonemes from an espeak-ng process beside us.

What lives here: making text speakable, phonemes to the voice's ids, the voice, trimming silence.
What was spoken lately is kept: answers begin alike ("Sure,"), and a caller waits for their beginning.
What must not: espeak-ng itself (`espeak_worker.py`, which is under the GPL and therefore another
process), where to cut a reply (`pipeline/clauses.py`).

The voice does not stream: a sentence is spoken whole, some 90 ms for four words. A text of several
sentences is spoken one by one, so the first is out while the second is in the making.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from voicectl.clock import Clock
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import Progress, TtsRequest
from voicectl.weights import Store, default_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MODELS = ("piper-joe-en",)

_WHERE = "tts:local"
_LEAD_S = 0.010  # silence kept before the first sound: enough not to clip its onset
_PAUSES = {".": 0.220, "!": 0.220, "?": 0.220, ":": 0.150, ";": 0.150, ",": 0.100, "": 0.030}
"""Silence after the last sound of a text, by the mark that it ends with."""
_FADE_S = 0.005  # in and out, so that no cut clicks
_RING_S = 0.060  # of the voice's own ending, faded out; what is left of the pause is digital silence
_AUDIBLE = 0.008  # RMS of a 5 ms step, full scale 1: above the voice's own noise, below its softest sound
_STEP_S = 0.005


class Options(BaseModel):
    """How it speaks, and what it may use of the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speed: float = Field(default=1.0, ge=0.5, le=2.0, description="Speaking rate; 1.2 is a fifth faster.")
    threads: int = Field(default=2, ge=1, le=16, description="CPU threads.")
    cache_mb: float = Field(default=8, ge=0, le=1000, description="Megabytes of what was spoken lately; 0: none.")


class LocalTts:
    """Piper's `joe`, American English."""

    name = "local"
    rate = 22_050

    def __init__(self, options: Options, model: str | None, clock: Clock, store: Store | None = None) -> None:
        self._options = options
        self._model_name = model or MODELS[0]
        self._clock = clock
        self._store = store
        self._voice: _Voice | None = None
        self._phonemes: _Phonemes | None = None
        self._spoken = _Spoken(round(options.cache_mb * 1e6))

    async def start(self, progress: Progress) -> None:
        """Load the voice, start the espeak-ng process, and speak to nobody how answers like to begin.

        Raises:
            MissingExtra: onnxruntime or espeakng-loader is not installed.
            WeightsError: the voice is not pulled.
            ProviderError: something cannot be loaded.
        """
        if self._voice:
            return
        onnxruntime = await self._clock.run(_import_onnxruntime)
        if not importlib.util.find_spec("espeakng_loader"):  # only looked for: importing is the worker's business
            raise MissingExtra("espeakng-loader", "local", where=_WHERE)
        store = self._store or default_store()
        config, network = (
            store.path(self._model_name, file.name)
            for file in sorted(store.status(self._model_name).weights.files, key=lambda file: file.bytes)
        )
        progress(f"loading {self._model_name}")
        voice = await self._clock.run(_Voice, onnxruntime, network, config, self._options)
        if voice.rate != self.rate:
            raise ProviderError(f"the voice has {voice.rate} samples a second, not {self.rate}", where=_WHERE)
        self._phonemes = _Phonemes(voice.espeak_voice)
        await self._clock.run(self._phonemes.open)
        self._voice = voice
        for text in _OPENERS:
            async with contextlib.aclosing(self.synthesize(TtsRequest(text))) as audio:
                async for _ in audio:
                    pass

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Speak `request.text`: one piece of audio a sentence, none when nothing in it is a word.

        Raises:
            ProviderError: the voice or espeak-ng failed.
        """
        if self._voice is None or self._phonemes is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        text = speakable(request.text)
        said = sentences(text)
        last_mark = text.rstrip("\"')]")[-1:].replace("…", ".")
        for index, sentence in enumerate(said):
            mark = sentence[-1] if index < len(said) - 1 or last_mark in _PAUSES else ""
            pause_s = _PAUSES[mark]
            kept = (*sentence, mark)
            pcm = self._spoken.get(kept)
            if pcm is None:
                job = _Job()
                try:
                    sound = await self._clock.run(self._speak, self._voice, self._phonemes, sentence, job)
                finally:
                    job.stop()  # when this is cancelled the thread need not go on
                if sound is None:
                    continue
                pcm = _trimmed(sound, self.rate, pause_s)
                self._spoken.keep(kept, pcm)
            yield pcm

    @staticmethod
    def _speak(voice: _Voice, phonemes: _Phonemes, sentence: Sequence[str], job: _Job) -> Samples | None:
        spelled = phonemes.of(sentence[::2])
        marks = sentence[1::2]
        ids = voice.ids("".join(sound + mark for sound, mark in zip(spelled, marks, strict=True)))
        return voice.speak(ids, job)

    async def aclose(self) -> None:
        self._voice = None
        phonemes, self._phonemes = self._phonemes, None
        if phonemes:
            await self._clock.run(phonemes.close)


class _Spoken:
    """What was spoken lately, by its text: at most so many bytes, the longest unused goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._sounds: dict[tuple[str, ...], bytes] = {}

    def get(self, text: tuple[str, ...]) -> bytes | None:
        pcm = self._sounds.pop(text, None)
        if pcm is not None:
            self._sounds[text] = pcm  # now the last to go
        return pcm

    def keep(self, text: tuple[str, ...], pcm: bytes) -> None:
        self._size += len(pcm) - len(self._sounds.pop(text, b""))
        self._sounds[text] = pcm
        while self._size > self._most:
            self._size -= len(self._sounds.pop(next(iter(self._sounds))))


class _Job:
    """One run of the voice, which another thread may stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.run_options: Any = None

    def stop(self) -> None:
        self.stopped = True
        if self.run_options is not None:
            self.run_options.terminate = True


_OPENERS = ("Sure,", "Okay,", "Great,", "Sorry,", "Yes,", "No,", "Of course.", "Thank you,", "Hello.")

# Text ----------------------------------------------------------------------------------------

_WORDS = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missis", "Ms": "Miz", "Prof": "Professor", "Jr": "Junior", "Sr": "Senior",
    "Ave": "Avenue", "Rd": "Road", "Blvd": "Boulevard", "Apt": "apartment", "vs": "versus", "etc": "et cetera",
    "approx": "approximately", "e.g": "for example", "i.e": "that is", "a.m": "AM", "p.m": "PM", "tel": "telephone",
    "ext": "extension", "dept": "department",
}  # fmt: skip
_UNITS = {
    "oz": "ounce", "lb": "pound", "lbs": "pound", "kg": "kilogram", "g": "gram", "mg": "milligram", "ml": "milliliter",
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "mi": "mile", "yd": "yard",
    "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second",
}  # fmt: skip
_FIXED_UNITS = {"mph": "miles an hour", "ft": "feet", "°F": "degrees Fahrenheit", "°C": "degrees Celsius"}
_MONEY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY = "|".join(day[:3] for day in _DAYS)
_NUMBER = r"\d[\d,]*(?:\.\d+)?"


def speakable(text: str) -> str:
    """`text` as words and punctuation: no markdown, no emoji; prices, times, phone numbers, units and
    abbreviations as people say them. Plain numbers stay digits, which espeak-ng reads well."""
    text = _without_markup(text)
    text = re.sub(rf"([$€£])({_NUMBER})(?: (thousand|million|billion))?", _money, text)
    text = re.sub(r"\b(\d{1,2}):(\d{2})(?= ?([ap])\.?m\b)?", _time, text)
    text = re.sub(r"(?:\+?\d[-. ]?)?(?:\(\d{3}\) ?|\b\d{3}[-. ])?\b\d{3}[-.]\d{4}\b", _phone, text)
    text = re.sub(r"(?<![\d.,])(?:[2-9]11|988|\d{5,})(?!\d|[.,]\d| (?:dollar|euro|pound))", _digits, text)
    text = re.sub(r"(?<=\d)\s?[-–](?=\s?\d)", " to ", text)
    text = re.sub(rf"\b({_DAY})\w*\.?\s?[-–]\s?({_DAY})\w*\.?", _days, text)
    text = re.sub(r"\b(?:[A-Z]\.){2,}", lambda match: match[0].replace(".", ""), text)
    text = re.sub(rf"\b({_NUMBER})[ -]?({'|'.join(_UNITS)})\b\.?(?!\w)", _unit, text)
    text = re.sub(
        rf"\b({_NUMBER}) ?({'|'.join(_FIXED_UNITS)})\b\.?", lambda match: f"{match[1]} {_FIXED_UNITS[match[2]]}", text
    )
    text = re.sub(r"\b(?:No\.|#) ?(?=\d)|#(?=\d)", "number ", text)
    text = re.sub(r"\bSt\.? (?=[A-Z])", "Saint ", re.sub(r"\b([A-Z][a-z]+|\d+(?:st|nd|rd|th)) St\b\.?", _street, text))
    text = re.sub(rf"\b({'|'.join(map(re.escape, _WORDS))})\.(?!\w)", _abbreviation, text)
    text = re.sub(r"(?<=\w)@(?=\w)", " at ", text)
    text = re.sub(r"(?<=[a-z])\.(?=[a-z]{2,})", " dot ", text)
    for sign, word in (("&", " and "), ("+", " plus "), ("=", " equals "), ("°", " degrees "), ("%", " percent")):
        text = text.replace(sign, word)
    return re.sub(r"\s+", " ", re.sub(r"\s+([,.;:!?])", r"\1", text)).strip()


def sentences(text: str) -> list[list[str]]:
    """Speakable text as sentences of alternating words and the punctuation after them.

    `"Yes, we do. And"` is `[["Yes", ", ", "we do", "."], ["And", ","]]`: a text that ends without a
    mark is the beginning of a sentence, and a comma keeps its last word in the air.
    """
    found: list[list[str]] = []
    current: list[str] = []
    for piece in re.finditer(r"(.+?)(?:([,.;:!?…]+)[\"')\]]*(?=\s|$)|\s[-–—]+(?=\s)|[—]|$)", text):
        words = piece[1].strip(" \"'()[]-–—,.;:!?…")
        if not re.search(r"\w", words):
            continue
        mark = (piece[2] or ",")[-1].replace("…", ".")
        current += [words, mark + " "]
        if mark in ".!?":
            found.append(current)
            current = []
    if current:
        found.append(current)
    for sentence in found:
        sentence[-1] = sentence[-1].strip()
    return found


def _without_markup(text: str) -> str:
    text = re.sub(r"```.*?(```|$)", " ", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\bhttps?://(?:www\.)?", "", text)
    text = re.sub(r"^\s*(\d+)[.)]\s+(?=\D)", r"\1, ", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*(?:[-*•]|#{1,6}|>)\s+", "", text, flags=re.MULTILINE)
    text = re.sub(r"[*`~|<>\\^]|(?<!\w)_+|_+(?!\w)", "", text).replace("_", " ")
    text = text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0xA0: " ", 0x200D: None})
    text = re.sub(r"[ \t]*\n+\s*", "\n", text.strip())
    text = re.sub(r"(?<![.,;:!?])\n", ". ", text).replace("\n", " ")
    # Emoji and the joints between them; the signs that are read aloud stay.
    return "".join(c for c in text if c == "°" or unicodedata.category(c) not in ("So", "Sk", "Cs", "Co", "Cf", "Mn"))


def _plural(number: str, word: str) -> str:
    return word if number == "1" else {"penny": "pence", "foot": "feet"}.get(word, word + "s")


def _money(match: re.Match[str]) -> str:
    whole, _, part = match[2].rstrip(",").partition(".")
    rest = "," if match[2].endswith(",") else ""
    major, minor = _MONEY[match[1]]
    if match[3]:
        return f"{match[2]} {match[3]} {major}s"
    cents = str(int(part[:2].ljust(2, "0"))) if part else "0"
    spoken = [f"{whole} {_plural(whole, major)}"] if whole != "0" or cents == "0" else []
    if cents != "0":
        spoken.append(f"{cents} {_plural(cents, minor)}")
    return " and ".join(spoken) + rest


def _time(match: re.Match[str]) -> str:
    hour, minute = match[1], match[2]
    if minute == "00":
        return hour if match[3] else f"{hour} o'clock"
    return f"{hour} {'oh ' + minute[1] if minute[0] == '0' else minute}"


def _phone(match: re.Match[str]) -> str:
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", match[0]))


def _digits(match: re.Match[str]) -> str:
    return " ".join(match[0])


def _unit(match: re.Match[str]) -> str:
    return f"{match[1]} {_plural(match[1], _UNITS[match[2]])}"


def _abbreviation(match: re.Match[str]) -> str:
    ends = match[1] in ("etc", "a.m", "p.m", "Jr", "Sr", "Ave", "Rd", "Blvd") and _ends_sentence(match)
    return _WORDS[match[1]] + ("." if ends else "")


def _street(match: re.Match[str]) -> str:
    return f"{match[1]} Street" + ("." if match[0].endswith(".") and _ends_sentence(match) else "")


def _ends_sentence(match: re.Match[str]) -> bool:
    """Whether the abbreviation's full stop is the sentence's too: a new one, or nothing, follows."""
    return bool(re.match(r"\s*$|\s+[A-Z]", match.string[match.end() :]))


def _days(match: re.Match[str]) -> str:
    first, last = (next(day for day in _DAYS if day.startswith(name)) for name in match.groups())
    return f"{first} to {last}"


# Phonemes ------------------------------------------------------------------------------------


class _Phonemes:
    """The espeak-ng process. Its methods block, for some 0.2 ms once it runs."""

    def __init__(self, voice: str) -> None:
        self._voice = voice
        self._lock = threading.Lock()  # several calls may speak at a time
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Start the process.

        Raises:
            ProviderError: it does not start.
        """
        worker = Path(__file__).with_name("espeak_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", str(worker), self._voice],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        said = self._read()
        if said is None or "ready" not in said:
            reason = "it ended at once" if said is None else said.get("error", "no reason given")
            self.close()
            raise ProviderError(f"the espeak-ng process does not start: {reason}", where=_WHERE)

    def of(self, texts: Sequence[str]) -> list[str]:
        """The IPA of each text.

        Raises:
            ProviderError: the process died, and again after it was started anew.
        """
        with self._lock:
            for _ in range(2):
                found = self._ask(texts)
                if found is not None:
                    return [re.sub(r"\(\w+\)", "", sounds) for sounds in found]  # "(fr)": it changed the language
                self.close()
                self.open()
        raise ProviderError("the espeak-ng process keeps dying", where=_WHERE)

    def _ask(self, texts: Sequence[str]) -> list[str] | None:
        if self._process is None or self._process.stdin is None:
            return None
        try:
            self._process.stdin.write(json.dumps(texts) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self._read()

    def _read(self) -> Any:
        assert self._process and self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # what was left to write to a dead process
                    pipe.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# Voice ---------------------------------------------------------------------------------------


class _Voice:
    """The network. `speak` blocks; several threads may call it at a time."""

    def __init__(self, onnxruntime: Any, network: Path, config: Path, options: Options) -> None:
        try:
            described = json.loads(config.read_text("utf-8"))
            self.rate: int = described["audio"]["sample_rate"]
            self.espeak_voice: str = described["espeak"]["voice"]
            self._ids: dict[str, list[int]] = described["phoneme_id_map"]
            inference = described["inference"]
            self._scales = (inference["noise_scale"], inference["length_scale"] / options.speed, inference["noise_w"])
        except (ValueError, KeyError) as error:
            raise ProviderError(f"{config.name} does not describe a voice", where=_WHERE) from error
        self._onnxruntime = onnxruntime
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = options.threads
        session.inter_op_num_threads = 1
        session.log_severity_level = 3
        # Threads that spin while they wait take the LLM's cores from it.
        session.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._network = onnxruntime.InferenceSession(str(network), session, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base
            raise ProviderError(
                f"cannot load {network.name}", where=_WHERE, hint="Check it: voicectl models verify"
            ) from error

    def ids(self, phonemes: str) -> list[int]:
        """The voice's ids: begin, each sound with a filler after it, end. Sounds it lacks are left out."""
        known = self._ids
        filler = known["_"]
        found = [*known["^"], *filler]
        for sound in unicodedata.normalize("NFD", phonemes):
            if sound in known:
                found += [*known[sound], *filler]
        return [*found, *known["$"]]

    def speak(self, ids: list[int], job: _Job) -> Samples | None:
        """The sound, full scale 1; None when `job` was stopped.

        Raises:
            ProviderError: the voice failed.
        """
        import numpy as np

        job.run_options = self._onnxruntime.RunOptions()
        if job.stopped:
            return None
        feed = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array(self._scales, np.float32),
        }
        try:
            [sound] = self._network.run(None, feed, job.run_options)
        except Exception as error:  # onnxruntime's errors share no base; a stopped run is one of them
            if job.stopped:
                return None
            raise ProviderError("the voice failed", where=_WHERE) from error
        return sound.reshape(-1)


def _trimmed(sound: Samples, rate: int, pause_s: float) -> bytes:
    """s16le samples: `_LEAD_S` of silence, the sound, and `pause_s` of silence after it."""
    import numpy as np

    step = round(_STEP_S * rate)
    steps = len(sound) // step
    power = np.mean(np.square(sound[: steps * step].reshape(steps, step)), axis=1) if steps else np.zeros(0)
    loud = np.flatnonzero(power > _AUDIBLE**2)
    if loud.size:
        begin = max(0, int(loud[0]) * step - round(_LEAD_S * rate))
        last = (int(loud[-1]) + 1) * step
        heard = sound[begin : last + round(min(_RING_S, pause_s) * rate)].copy()
        fade = np.linspace(0, 1, round(_FADE_S * rate), dtype=np.float32)
        heard[: len(fade)] *= fade
        heard[-len(fade) :] *= fade[::-1]
        sound = np.concatenate((heard, np.zeros(last - begin + round(pause_s * rate) - len(heard), np.float32)))
    return (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()


def _import_onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra("onnxruntime", "local", where=_WHERE) from error
