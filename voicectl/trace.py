"""The trace: events of one call, appended as they happen, read back equal.

`trace.jsonl` is one header line and one line an event. Every line is written whole with one
`write` and reaches the kernel at once, so it survives `kill -9`; a last line that was cut is
noticed, named and left out. Nothing is computed here.

    {"voicectl_trace": 1, "voicectl": "0.1.0", ...}
    {"event": "SpeechStarted", "at": 4.31, "noted_at": 4.42, "turn": 1}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from voicectl.errors import RecordingError, StorageError
from voicectl.events import EVENTS, Event

TRACE_VERSION = 1
E = TypeVar("E", bound=Event)
V = TypeVar("V")


class Trace:
    """The events of one call in the order they were noted.

    Args:
        path: file to append to as events happen (None: memory only).
        header: plain values for the first line; no secrets, and no wall-clock date on the
            virtual clock, where traces are compared byte for byte.
    """

    def __init__(self, path: Path | None = None, header: Mapping[str, Any] | None = None) -> None:
        self.header: dict[str, Any] = {"voicectl_trace": TRACE_VERSION, **(header or {})}
        self.events: list[Event] = []
        self._file = AppendOnly(path) if path else None
        self._listeners: list[Callable[[Event], None]] = []
        if self._file:
            self._file.append(to_line(self.header))

    def append(self, event: Event) -> None:
        """Keep the event; in the file before this returns.

        Raises:
            StorageError: the file could not be written (full disk).
        """
        self.events.append(event)
        if self._file:
            self._file.append(event_line(event))
        for listener in self._listeners:
            listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener(event)` for each event from now on."""
        self._listeners.append(listener)

    def of(self, kind: type[E]) -> list[E]:
        """All events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def lines(self) -> str:
        """The whole trace as `trace.jsonl` holds it."""
        return to_line(self.header) + "".join(event_line(event) for event in self.events)

    def close(self) -> None:
        if self._file:
            self._file.close()


class AppendOnly:
    """A file that only grows, one unbuffered write a line, so that a kill loses at most the last.

    Raises:
        StorageError: it could not be opened or written; names the file and why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise storage_error(path, error) from error

    def append(self, line: str) -> None:
        self.append_bytes(line.encode())

    def append_bytes(self, data: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise storage_error(self._path, error) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one line for a file that could not be written."""
    return StorageError(
        f"cannot write: {(error.strerror or str(error)).lower()}",
        where=str(path),
        hint="Free some space, or choose another folder",
    )


def to_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def event_line(event: object) -> str:
    """One event as a line. Times are rounded to the microsecond; values left at their default are left out."""
    value: dict[str, Any] = {"event": type(event).__name__}
    for name, default in _fields(type(event)):
        part = getattr(event, name)
        if isinstance(part, float):
            part = round(part, 6)
        if part != default or default is MISSING:
            value[name] = part
    return to_line(value)


def event_from(value: Mapping[str, Any]) -> Event:
    """The event that a line's JSON object spells.

    Raises:
        ValueError: an unknown event, an unknown or missing field, or a time that is no number.
    """
    return value_from(value, EVENTS)


def value_from(value: Mapping[str, Any], kinds: Mapping[str, type[V]]) -> V:
    """The dataclass of `kinds` that a line's JSON object spells; lists become tuples.

    Raises:
        ValueError: see `event_from`.
    """
    name = value.get("event")
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown event {name!r}")
    known = dict(_fields(kind))
    given = {key: part for key, part in value.items() if key != "event"}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{name} has no field {unknown[0]!r}")
    if missing := sorted(key for key, default in known.items() if default is MISSING and key not in given):
        raise ValueError(f"{name} lacks the field {missing[0]!r}")
    for key in ("at", "noted_at"):
        if key in given:
            if isinstance(given[key], bool) or not isinstance(given[key], int | float):
                raise ValueError(f"{name}.{key} is not a number")
            given[key] = float(given[key])
    return kind(**{key: _tupled(part) for key, part in given.items()})


def _tupled(part: Any) -> Any:
    return tuple(_tupled(item) for item in cast("list[Any]", part)) if isinstance(part, list) else part


_FIELDS: dict[type[Any], list[tuple[str, Any]]] = {}


def _fields(kind: type[Any]) -> list[tuple[str, Any]]:
    """(name, default) of each field, in the order lines are written."""
    if kind not in _FIELDS:
        _FIELDS[kind] = [(field.name, field.default) for field in fields(kind)]
    return _FIELDS[kind]


@dataclass(frozen=True, slots=True)
class Lines(Generic[V]):
    """What a file of lines holds. `cut` says, for people, where it was cut (None: it is whole)."""

    header: dict[str, Any]
    events: tuple[V, ...]
    cut: str | None = None


TraceFile = Lines[Event]


def read_trace(path: Path) -> TraceFile:
    """Read a trace back.

    Raises:
        RecordingError: no file, no header, another version, or a line that is not what was
            written; `where` is `path:line`.
    """
    read = read_lines(path, what="trace", version=TRACE_VERSION, kinds=EVENTS)
    if read.cut is None and (not read.events or type(read.events[-1]).__name__ != "CallEnded"):
        return Lines(read.header, read.events, f"the call did not end: cut after line {len(read.events) + 1}")
    return read


def read_lines(path: Path, *, what: str, version: int, kinds: Mapping[str, type[V]]) -> Lines[V]:
    """Read a file of one header line and one event a line, `what` being "trace" or "streams".

    Raises:
        RecordingError: as `read_trace`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RecordingError(f"cannot read the {what}: {why}", where=str(path)) from error
    lines = raw.split(b"\n")
    tail = lines.pop()  # b"" when the last line was written whole
    cut = f"cut in the middle of line {len(lines) + 1}" if tail else None
    values = [_value(path, number, line) for number, line in enumerate(lines, 1)]
    key = f"voicectl_{what}"
    if not values or key not in values[0]:
        raise RecordingError(f"not a voicectl {what}: it has no header line", where=str(path))
    header = values[0]
    if header[key] != version:
        raise RecordingError(
            f"{what} version {header[key]} cannot be read, this voicectl knows {version}",
            where=str(path),
            hint="Use the voicectl that wrote it, or record again",
        )
    events: list[V] = []
    for number, value in enumerate(values[1:], 2):
        try:
            events.append(value_from(value, kinds))
        except (ValueError, TypeError) as error:
            raise RecordingError(str(error), where=f"{path}:{number}") from error
    return Lines(header, tuple(events), cut)


def _value(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise RecordingError("this line is not JSON", where=f"{path}:{number}") from error
    if not isinstance(value, dict):
        raise RecordingError("this line is not a JSON object", where=f"{path}:{number}")
    return cast("dict[str, Any]", value)
