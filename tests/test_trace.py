"""The trace: whatever is written is read back equal, and a cut is noticed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.errors import RecordingError, StorageError
from voicectl.events import EVENTS, CallEnded, Event, SpeechStarted, TranscriptUpdated
from voicectl.trace import Trace, event_from, event_line, read_trace

times = st.integers(0, 10**9).map(lambda micros: round(micros * 1e-6, 6))
texts = st.text(max_size=40).filter(lambda text: not any(0xD800 <= ord(char) <= 0xDFFF for char in text))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": times,
    "float | None": st.none() | times,
    "int": st.integers(0, 10**6),
    "int | None": st.none() | st.integers(0, 10**6),
    "str": texts,
    "str | None": st.none() | texts,
    "bool": st.booleans(),
    "dict[str, float]": st.dictionaries(texts, times, max_size=3),
    "dict[str, float] | None": st.none() | st.dictionaries(texts, times, max_size=3),
    "dict[str, str] | None": st.none() | st.dictionaries(texts, texts, max_size=3),
}


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(sorted(EVENTS)).map(EVENTS.__getitem__))
    return kind(**{field.name: draw(VALUES[str(field.type)]) for field in dataclasses.fields(kind)})


@given(st.lists(events(), max_size=20))
@settings(deadline=None)
def test_any_sequence_of_events_is_read_back_equal(sequence: list[Event]) -> None:
    lines = [event_line(event) for event in sequence]
    assert [event_from(json.loads(line)) for line in lines] == sequence


@given(st.lists(events(), max_size=8), st.data())
@settings(deadline=None, max_examples=60)
def test_a_trace_cut_anywhere_opens_up_to_its_cut(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[Event], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "trace.jsonl"
    trace = Trace(path)
    for event in sequence:
        trace.append(event)
    trace.close()
    raw = path.read_bytes()
    header = raw.index(b"\n") + 1
    cut = data.draw(st.integers(header, len(raw)))
    path.write_bytes(raw[:cut])
    read = read_trace(path)
    whole_lines = raw[:cut].count(b"\n") - 1
    assert list(read.events) == sequence[:whole_lines]
    ended = whole_lines and isinstance(sequence[whole_lines - 1], CallEnded) and raw[:cut].endswith(b"\n")
    assert (read.cut is None) == bool(ended)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "trace.jsonl:2: this line is not JSON"),
        ("[1]", "trace.jsonl:2: this line is not a JSON object"),
        ('{"event":"SpeechStartd","at":1,"turn":1}', "trace.jsonl:2: unknown event 'SpeechStartd'"),
        ('{"event":"SpeechStarted","at":1}', "trace.jsonl:2: SpeechStarted lacks the field 'turn'"),
        ('{"event":"SpeechStarted","at":1,"turn":1,"x":2}', "trace.jsonl:2: SpeechStarted has no field 'x'"),
        ('{"event":"SpeechStarted","at":"1","turn":1}', "trace.jsonl:2: SpeechStarted.at is not a number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"voicectl_trace":1}\n' + line + "\n")
    with pytest.raises(RecordingError) as caught:
        read_trace(path)
    assert str(caught.value).endswith(message)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"voicectl_trace":99}\n')
    with pytest.raises(RecordingError, match="trace version 99 cannot be read"):
        read_trace(path)


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("")
    with pytest.raises(RecordingError, match="no header"):
        read_trace(path)


def test_an_event_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    trace = Trace(path)
    trace.append(SpeechStarted(at=1.0, turn=1))
    assert read_trace(path).events == (SpeechStarted(at=1.0, turn=1),)
    trace.close()


def test_a_full_disk_is_one_clear_line() -> None:
    trace = Trace()
    trace._file = None
    with pytest.raises(StorageError, match="no space left on device"):
        Trace(Path("/dev/full")).append(TranscriptUpdated(at=0, turn=1, text="", final=True))
