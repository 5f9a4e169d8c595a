"""Every provider stream of one call with the time of every chunk: what replay plays back.

`streams.jsonl` is written like the trace (one whole line a fact, in the kernel at once), and
`streams.pcm` holds the agent's audio that its lines point into. Facts only; who records is
`providers/recording.py`, who plays back is `providers/recorded.py`. Times are seconds of the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.errors import RecordingError
from voicectl.events import Event
from voicectl.trace import AppendOnly, Lines, event_from, event_line, read_lines, to_line

STREAMS_VERSION = 1
LINES_FILE = "streams.jsonl"
AUDIO_FILE = "streams.pcm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Base of all lines: when it happened."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VadWindows(Chunk):
    """The probabilities of the windows that a frame completed, and the CPU time they took."""

    p: tuple[float, ...]
    cpu_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SttOpened(Chunk):
    """Stream `id` hears the caller from `start` on."""

    id: int
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SttFlushed(Chunk):
    """Flush number `flush` asked for the text up to `end`."""

    id: int
    flush: int
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SttHeard(Chunk):
    """A transcript; `flush` is the number it answers, 0 for a partial."""

    id: int
    text: str
    flush: int = 0
    turn_end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SttClosed(Chunk):
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnModelAsked(Chunk):
    """The end-of-turn model heard the caller's turn, which began at `start`, up to `end`."""

    id: int
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnModelScored(Chunk):
    """How sure it is, 0..1, that the turn is over."""

    id: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmAsked(Chunk):
    """The conversation: as many messages as `same` of the request before this one, and then (role,
    content) of each further one. So a long call is not written down again at each of its turns."""

    id: int
    messages: tuple[tuple[str, str], ...]
    same: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSaid(Chunk):
    """One token, or however much came at once."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCalled(Chunk):
    """Some more of the arguments of call `call` of the tool `name`."""

    id: int
    call: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmUsed(Chunk):
    id: int
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsAsked(Chunk):
    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsSpoke(Chunk):
    """`size` bytes of `streams.pcm` from `offset` on."""

    id: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sAsked(Chunk):
    """The speech-to-speech model was handed the caller's speech, in stretches from..until, or else a
    text to say. Its sound is written as a TTS's is."""

    id: int
    speech: tuple[tuple[float, float], ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sSaid(Chunk):
    """Some more of what its sound says."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sHeard(Chunk):
    """What it heard in the turn that stream `id` answers."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sTruncated(Chunk):
    """Of stream `id` it was to remember so many seconds."""

    id: int
    heard_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sUsed(Chunk):
    """What stream `id` cost, at this stage."""

    id: int
    model: str | None = None
    stage: str = "s2s"
    audio_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    audio_in_tokens: int | None = None
    audio_out_tokens: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded(Chunk):
    """Stream `id` of "llm", "tts" or "s2s" came to its end, or was cut ("cancelled"), or failed (the line).
    Of "stt" only a failure is told. `where` is whose failure it was, where that was known."""

    stage: str
    id: int
    how: str = "complete"
    where: str | None = None


class Stretches:
    """Which stretches of the call a speech-to-speech model has heard and not answered."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, int]] = []  # start, and bytes

    def hear_from(self, start: float) -> None:
        self._heard.append((start, 0))

    def push(self, pcm: bytes) -> None:
        start, size = self._heard[-1]
        self._heard[-1] = start, size + len(pcm)

    def forget(self) -> None:
        self._heard.clear()

    def take(self) -> tuple[tuple[float, float], ...]:
        """Those that are answered now, from..until; what is pushed from now on is not of them."""
        found = tuple((start, start + size / SAMPLE_WIDTH / PIPELINE_RATE) for start, size in self._heard if size)
        self._heard = [(found[-1][1], 0)] if found else self._heard
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Chunk):
    """An event of the call that what serves stream `id` of `stage` noted: a retry, a fallback, what was used.

    Before the line that opens an STT's stream: noted when it was opened; after the one that closes it:
    when it was closed.
    """

    stage: str
    id: int
    what: dict[str, Any]


CHUNKS: dict[str, type[Chunk]] = {kind.__name__: kind for kind in Chunk.__subclasses__()}


_SERVED: ContextVar[tuple[str, int] | None] = ContextVar("served", default=None)
"""Whose stream is being served here: tasks that are started for it inherit it."""


class StreamLog:
    """Writes the streams of one call.

    Args:
        folder: of the recording; must exist.
        header: plain values replay needs (window length, TTS rate, provider names and versions).
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self._lines = AppendOnly(folder / LINES_FILE)
        self._audio = AppendOnly(folder / AUDIO_FILE)
        self._offset = 0
        self._ids = 0
        self.now: Callable[[], float] = lambda: 0.0
        self._lines.append(to_line({"voicectl_streams": STREAMS_VERSION, **header}))

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def serving(self, stage: str, stream: int) -> None:
        """What is noted from now on, in this task and those it starts, is of this stream."""
        _SERVED.set((stage, stream))

    def noted(self, event: Event) -> None:
        """Keep an event with the stream it was noted for."""
        served = _SERVED.get()
        if served and served[0] == getattr(event, "stage", None):
            told = json.loads(event_line(event))
            self.write(Noted(at=self.now(), stage=served[0], id=served[1], what=told))

    def write(self, chunk: Chunk) -> None:
        self._lines.append(event_line(chunk))

    def write_audio(self, stream: int, pcm: bytes) -> None:
        """Audio first, then the line that points to it: a cut leaves no line without its audio."""
        self._audio.append_bytes(pcm)
        self.write(TtsSpoke(at=self.now(), id=stream, offset=self._offset, size=len(pcm)))
        self._offset += len(pcm)

    def close(self) -> None:
        self._lines.close()
        self._audio.close()


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one call, read back."""

    header: Mapping[str, Any]
    chunks: tuple[Chunk, ...]
    audio: bytes
    cut: str | None


def read_streams(folder: Path) -> Streams:
    """Read the streams of a recording.

    Raises:
        RecordingError: a file is missing, of another version, or not what was written.
    """
    path = folder / LINES_FILE
    read: Lines[Chunk] = read_lines(path, what="streams", version=STREAMS_VERSION, kinds=CHUNKS)
    try:
        audio = (folder / AUDIO_FILE).read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RecordingError(f"cannot read the agent's audio: {why}", where=str(folder / AUDIO_FILE)) from error
    for number, chunk in enumerate(read.events, 2):
        if isinstance(chunk, Noted):
            try:
                event_from(chunk.what)
            except ValueError as error:
                raise RecordingError(str(error), where=f"{path}:{number}") from error
        if isinstance(chunk, TtsSpoke) and chunk.offset + chunk.size > len(audio):
            raise RecordingError(
                f"points to audio that is not there: {AUDIO_FILE} ends at byte {len(audio)}", where=f"{path}:{number}"
            )
    return Streams(read.header, read.events, audio, read.cut)
