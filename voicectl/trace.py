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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

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
    """The one line for a file that could not be written, by the name it has for people: a recording's
    folder is `.NAME.new` until all its files have begun."""
    folder = path.parent.name
    if folder.startswith(".") and folder.endswith(".new"):
        path = path.parent.with_name(folder[1:].removesuffix(".new")) / path.name
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
        ValueError: an unknown event, an unknown or missing field, or a value of another type.
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
    shape = _SHAPES.get(kind) or _shape(kind)
    given: dict[str, Any] = {}
    for key, part in value.items():
        if key in shape:
            given[key] = shape[key].read(part)
            if given[key] is _MISFIT:
                raise ValueError(f"{name}.{key} is not {shape[key].what}")
        elif key != "event":
            raise ValueError(f"{name} has no field {key!r}")
    try:
        return kind(**given)
    except TypeError:
        missing = next(key for key, field in shape.items() if field.required and key not in given)
        raise ValueError(f"{name} lacks the field {missing!r}") from None


_FIELDS: dict[type[Any], list[tuple[str, Any]]] = {}


def _fields(kind: type[Any]) -> list[tuple[str, Any]]:
    """(name, default) of each field, in the order lines are written."""
    if kind not in _FIELDS:
        _FIELDS[kind] = [(field.name, field.default) for field in fields(kind)]
    return _FIELDS[kind]


# What a field may hold: hours of calls are read, so it is worked out once for each kind of event.

_MISFIT = object()


@dataclass(frozen=True, slots=True)
class _Field:
    """`read` gives the value for the dataclass, or `_MISFIT`; `what` it should have been, for people."""

    read: Callable[[Any], Any]
    what: str
    required: bool


_SHAPES: dict[type[Any], dict[str, _Field]] = {}
_WHAT = {float: "a number", int: "a whole number", str: "text", bool: "true or false", dict: "a mapping"}


def _shape(kind: type[Any]) -> dict[str, _Field]:
    hints = get_type_hints(kind)
    shape = {
        name: _Field(_reader(hints[name]), _what(hints[name]), default is MISSING) for name, default in _fields(kind)
    }
    _SHAPES[kind] = shape
    return shape


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Takes what JSON holds; a number may lose its ".0" there, a tuple becomes a list."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        every = _reader(arguments[0])
        each = None if arguments[-1] is ... else [_reader(argument) for argument in arguments]

        def read_tuple(part: Any) -> Any:
            if type(part) is not list or (each and len(cast("list[Any]", part)) != len(each)):
                return _MISFIT
            items = cast("list[Any]", part)
            read = tuple([one(item) for one, item in zip(each, items, strict=True)] if each else map(every, items))
            return _MISFIT if _MISFIT in read else read

        return read_tuple
    exact = {get_origin(one) or one for one in (arguments if get_origin(hint) is UnionType else (hint,))}
    whole = int if float in exact else None
    return lambda part: part if type(part) in exact else float(part) if type(part) is whole else _MISFIT


def _what(hint: Any) -> str:
    first = get_args(hint)[0] if get_origin(hint) is UnionType else hint
    return _WHAT.get(get_origin(first) or first, "a list")


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
    values = _values(path, lines)
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
        except ValueError as error:
            raise RecordingError(str(error), where=f"{path}:{number}") from error
    return Lines(header, tuple(events), cut)


def _values(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The JSON object of each line: all at once, and one by one where that cannot be, to name the line."""
    try:
        values = cast("list[Any]", _json(b"[" + b",".join(lines) + b"]"))
    except (ValueError, RecursionError):
        values = []
    if len(values) == len(lines) and all(type(value) is dict for value in values):
        return values
    return [_value(path, number, line) for number, line in enumerate(lines, 1)]


def _value(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = _json(line)
    except (ValueError, RecursionError) as error:
        raise RecordingError("this line is not JSON", where=f"{path}:{number}") from error
    if not isinstance(value, dict):
        raise RecordingError("this line is not a JSON object", where=f"{path}:{number}")
    return cast("dict[str, Any]", value)


def _json(text: bytes) -> Any:
    return json.loads(text, parse_constant=_not_json)


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
