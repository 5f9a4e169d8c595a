"""Every provider stream of one call with the time of every chunk: what replay plays back.

`streams.jsonl` is written like the trace (one whole line a fact, in the kernel at once), and
`streams.pcm` holds the TTS audio that its lines point into. Facts only; who records is
`providers/recording.py`, who plays back is `providers/recorded.py`. Times are seconds of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voicectl.errors import RecordingError
from voicectl.trace import AppendOnly, Lines, event_line, read_lines, to_line

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
class StreamEnded(Chunk):
    """Stream `id` of "llm" or "tts" came to its end, or was cut ("cancelled"), or failed (the line)."""

    stage: str
    id: int
    how: str = "complete"


CHUNKS: dict[str, type[Chunk]] = {kind.__name__: kind for kind in Chunk.__subclasses__()}


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
        if isinstance(chunk, TtsSpoke) and chunk.offset + chunk.size > len(audio):
            raise RecordingError(
                f"points to audio that is not there: {AUDIO_FILE} ends at byte {len(audio)}", where=f"{path}:{number}"
            )
    return Streams(read.header, read.events, audio, read.cut)
