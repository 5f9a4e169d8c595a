"""A recording opens as it was kept, and says in one line why it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.fabricate import Fabricated
from voicectl.analysis.definitions import measure
from voicectl.audio import WavWriter
from voicectl.errors import EXIT_USAGE, RecordingError
from voicectl.recording import open_recording


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    call = Fabricated()
    call.exchange(1.0, 0.7)
    return call.end(5.0).write(tmp_path)


def test_what_was_kept_is_what_is_measured(kept: Path) -> None:
    recording = open_recording(kept)
    assert (recording.cut, recording.rate, len(recording.left), len(recording.right)) == (None, 16_000, 80_000, 80_000)
    measures = measure(recording.events, recording.rate, recording.left, recording.right)
    assert [one.wait for one in measures.exchanges] == [700_000]


def test_a_killed_writers_recording_opens_as_far_as_it_goes(kept: Path) -> None:
    trace, sound = kept / "trace.jsonl", kept / "call.wav"
    trace.write_bytes(trace.read_bytes()[:-7])
    sound.write_bytes(sound.read_bytes()[:-1001])
    recording = open_recording(kept)
    assert recording.cut is not None
    assert len(recording.left) == len(recording.right) == 80_000 - 251


def test_a_recording_without_channels_is_refused(kept: Path) -> None:
    with WavWriter(kept / "call.wav", 16_000, 1) as wav:
        wav.write(np.zeros(10, np.int16).tobytes())
    with pytest.raises(RecordingError, match=r"call.wav: has 1 channel, a call has two"):
        open_recording(kept)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("trace.jsonl", None, "it has no trace.jsonl"),
        ("call.wav", None, "it has no call.wav"),
        ("call.wav", b"", "call.wav: is empty"),
        ("call.wav", b"what" * 50, "call.wav: is not a WAV"),
        ("trace.jsonl", b"{}\n", "trace.jsonl: not a voicectl trace"),
        ("trace.jsonl", b"what\n", "trace.jsonl:1: this line is not JSON"),
    ],
)
def test_what_is_no_recording_says_so_in_one_line(kept: Path, name: str, content: bytes | None, says: str) -> None:
    (kept / name).unlink()
    if content is not None:
        (kept / name).write_bytes(content)
    with pytest.raises(RecordingError, match=says) as caught:
        open_recording(kept)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE


def test_no_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such recording"):
        open_recording(tmp_path / "nowhere")
