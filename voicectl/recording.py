"""A recording: the folder one call leaves behind, begun, sealed, checked and opened.

    call.wav        16-bit, left the caller, right the agent, sample 0 at 0 s of the trace
    trace.jsonl     what happened (`voicectl.trace`)
    streams.jsonl   what every provider did and when (`voicectl.streams`) ...
    streams.pcm     ... and the audio of the TTS
    spec.yaml       the agent and its profile as they were resolved
    seal.json       hashes of all of these, written when the call has ended
    expect.yaml     what a replay must do, and
    expect.jsonl    its trace: written later, by people and by `replay --accept`; not sealed

The files grow as the call goes on. `begin` and `show` keep a folder hidden until each has its first
line, so every folder that can be seen opens. One without a seal was cut (its writer was killed): it
opens as far as it goes. One that does not fit its seal was damaged or edited, and is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from voicectl import __version__
from voicectl.audio import read_wav_channels
from voicectl.errors import AudioFileError, RecordingError
from voicectl.events import Event
from voicectl.trace import read_trace, storage_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORDING_VERSION = 1
SOUND_NAME = "call.wav"
TRACE_NAME = "trace.jsonl"
SPEC_NAME = "spec.yaml"
STREAMS_NAMES = ("streams.jsonl", "streams.pcm")
SEAL_NAME = "seal.json"
EXPECT_NAMES = ("expect.yaml", "expect.jsonl")
SEALED_NAMES = (SOUND_NAME, TRACE_NAME, SPEC_NAME, *STREAMS_NAMES)
FILE_NAMES = (*SEALED_NAMES, SEAL_NAME, *EXPECT_NAMES)
"""All that may be in the folder."""


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
        sealed: its writer came to the end.
    """

    path: Path
    header: dict[str, Any]
    events: tuple[Event, ...]
    cut: str | None
    rate: int
    left: NDArray[np.int16]
    right: NDArray[np.int16]
    sealed: bool = True

    @property
    def seconds(self) -> float:
        """How long its sound is."""
        return len(self.left) / self.rate


# Writing ---------------------------------------------------------------------------------------


def begin(folder: Path) -> Path:
    """A hidden folder to write the recording `folder` in; `show` makes it that one.

    Raises:
        StorageError: it cannot be made, or `folder` exists.
    """
    hidden = folder.with_name(f".{folder.name}.new")
    try:
        if folder.exists():
            raise FileExistsError(17, "a recording is there already", str(folder))
        hidden.mkdir(parents=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return hidden


def show(hidden: Path, folder: Path) -> None:
    """Every file has its first line: from now on whatever happens leaves a recording that opens.

    Raises:
        StorageError: the folder could not be renamed.
    """
    try:
        hidden.rename(folder)
    except OSError as error:
        raise storage_error(folder, error) from error


def seal(folder: Path) -> None:
    """The call has ended and all its files are closed: write down their hashes.

    Raises:
        StorageError: the seal could not be written.
    """
    path = folder / SEAL_NAME
    try:
        files = {name: _hash(folder / name) for name in SEALED_NAMES if (folder / name).is_file()}
        text = json.dumps({"voicectl_recording": RECORDING_VERSION, "voicectl": __version__, "files": files}, indent=2)
        partial = path.with_name(f".{SEAL_NAME}.new")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error


# Checking --------------------------------------------------------------------------------------


def check_seal(folder: Path) -> bool:
    """Whether there is a seal; what it seals is as it was.

    Raises:
        RecordingError: a file is missing or is not what was sealed, or the seal cannot be read.
    """
    path = folder / SEAL_NAME
    if not path.exists():
        return False
    for name, sha256 in _read_seal(path).items():
        try:
            found = _hash(folder / name)
        except FileNotFoundError:
            raise RecordingError(f"{name} is missing, which was sealed", where=str(folder), hint=_CHANGED) from None
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise RecordingError(f"cannot be read: {why}", where=str(folder / name)) from error
        if found != sha256:
            raise RecordingError("is not what was recorded: its hash differs", where=str(folder / name), hint=_CHANGED)
    return True


_CHANGED = "The file was damaged or edited: copy the recording again, or make the call again"


def _read_seal(path: Path) -> dict[str, str]:
    try:
        value: Any = json.loads(path.read_bytes())
        version, files = value["voicectl_recording"], cast("dict[str, str]", value["files"])
        known = set(SEALED_NAMES) >= set(files) >= {SOUND_NAME, TRACE_NAME}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        raise RecordingError("this is not a seal: it cannot be read", where=str(path), hint=_CHANGED) from None
    if version != RECORDING_VERSION:
        raise RecordingError(
            f"recording version {version} cannot be read, this voicectl knows {RECORDING_VERSION}",
            where=str(path),
            hint="Use the voicectl that wrote it, or record again",
        )
    if not known:
        raise RecordingError("this is not a seal: it lists other files", where=str(path), hint=_CHANGED)
    return files


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading ---------------------------------------------------------------------------------------


def is_recording(path: Path) -> bool:
    """Whether this folder is one call (and not a run of several, or something else)."""
    return (path / TRACE_NAME).is_file() or (path / SEAL_NAME).is_file()


def find_recordings(path: Path) -> Iterator[Path]:
    """The recordings in a folder and below it, in order; the folder itself when it is one.

    Raises:
        RecordingError: there is no such folder.
    """
    if not path.is_dir():
        raise RecordingError("no such recording", where=str(path), hint="A recording is a folder.")
    if is_recording(path):
        yield path
        return
    for inner in sorted(path.iterdir()):
        if inner.is_dir() and not inner.name.startswith(".") and not inner.is_symlink():
            yield from find_recordings(inner)


def open_recording(path: Path) -> Recording:
    """Read the folder of one call.

    Raises:
        RecordingError: no such folder, no trace or no sound in it, or one of its files is not what
            was written.
    """
    if not path.is_dir():
        raise RecordingError("no such recording", where=str(path), hint="A recording is a folder.")
    sealed = check_seal(path)
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
    left, right = channels
    return Recording(path, trace.header, trace.events, trace.cut, rate, left, right, sealed)
