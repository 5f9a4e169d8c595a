"""A recording: the folder one call leaves behind, opened for whoever measures or listens.

    call.wav       16-bit, left the caller, right the agent, sample 0 at 0 s of the trace
    trace.jsonl    what happened (`voicectl.trace`)

A recording whose writer was killed opens as far as it goes, and `cut` says where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voicectl.audio import read_wav_channels
from voicectl.errors import AudioFileError, RecordingError
from voicectl.events import Event
from voicectl.trace import read_trace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOUND_NAME = "call.wav"
TRACE_NAME = "trace.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One call: what happened and what it sounded like.

    Args:
        path: the folder.
        header: first line of the trace.
        events: in the order they were noted.
        cut: for people, where the recording breaks off (None: it is whole).
        rate: samples a second of both channels.
        left: the caller.
        right: the agent, as the caller hears it.
    """

    path: Path
    header: dict[str, Any]
    events: tuple[Event, ...]
    cut: str | None
    rate: int
    left: NDArray[np.int16]
    right: NDArray[np.int16]


def open_recording(path: Path) -> Recording:
    """Read the folder of one call.

    Raises:
        RecordingError: no such folder, no trace or no sound in it, or one of them is not what it
            says it is.
    """
    if not path.is_dir():
        raise RecordingError("no such recording", where=str(path), hint="A recording is a folder.")
    missing = [name for name in (TRACE_NAME, SOUND_NAME) if not (path / name).is_file()]
    if missing:
        raise RecordingError(f"not a recording: it has no {' and no '.join(missing)}", where=str(path))
    trace = read_trace(path / TRACE_NAME)
    try:
        rate, channels = read_wav_channels(path / SOUND_NAME)
    except AudioFileError as error:
        raise RecordingError(error.message, where=error.where) from error
    if len(channels) != 2:
        raise RecordingError(
            f"has {len(channels)} channel{'s' * (len(channels) != 1)}, a call has two (caller, agent)",
            where=str(path / SOUND_NAME),
        )
    return Recording(path, trace.header, trace.events, trace.cut, rate, *channels)
