"""`call.wav`: left the caller, right the agent, each sample where it was heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.audio import read_wav_channels
from voicectl.call_wav import CallWav
from voicectl.errors import StorageError

RATE = 8_000
FRAME = 160


def frame(value: int, samples: int = FRAME) -> bytes:
    return np.full(samples, value, "<i2").tobytes()


def test_both_sides_are_where_they_were_heard(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    wav = CallWav(path, RATE)
    for index in range(100):
        wav.caller(frame(index + 1))
        if 30 <= index < 60:
            wav.agent(frame(1000 + index), (index + 1) * 0.02)
    wav.close()
    rate, (left, right) = read_wav_channels(path)
    assert rate == RATE
    assert np.array_equal(left, np.repeat(np.arange(1, 101), FRAME))
    assert np.array_equal(
        right, np.concatenate([np.zeros(31 * FRAME), np.repeat(np.arange(1030, 1060), FRAME), np.zeros(39 * FRAME)])
    )


def test_a_late_frame_is_written_where_it_was_heard_to_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    wav = CallWav(path, RATE)
    for index in range(20):
        wav.caller(frame(1))
        if index == 5:
            wav.agent(frame(7), 0.1234)
    wav.close()
    _, (left, right) = read_wav_channels(path)
    assert (len(left), len(right)) == (20 * FRAME, 20 * FRAME)
    assert np.flatnonzero(right).tolist() == list(range(987, 987 + FRAME))


def test_a_frame_that_began_before_its_tick_keeps_its_head(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    wav = CallWav(path, RATE)
    for index in range(60):
        wav.caller(frame(1))
        wav.agent(frame(7), (index + 1) * 0.02 - 0.015)
    wav.close()
    _, (_, right) = read_wav_channels(path)
    assert np.flatnonzero(right != 7).tolist() == list(range(40))


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_line_that_runs_ahead_of_the_caller_keeps_its_place(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Frames of the caller and of the agent come in any rush, the agent's never before their time."""
    path = tmp_path_factory.mktemp("call") / "call.wav"
    wav = CallWav(path, RATE)
    expected = np.zeros(400 * FRAME, np.int16)
    until = 0
    for index in range(1, 61):
        wav.caller(frame(1))
        if data.draw(st.booleans()):
            first = max(until, index * FRAME + data.draw(st.integers(0, 3 * FRAME)))
            wav.agent(frame(index), first / RATE)
            expected[first : first + FRAME] = index
            until = first + FRAME
    wav.close()
    _, (left, right) = read_wav_channels(path)
    assert len(left) == 60 * FRAME
    assert np.array_equal(right, expected[: 60 * FRAME])


def test_the_file_opens_while_the_call_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    wav = CallWav(path, RATE)
    for index in range(55):
        wav.caller(frame(index + 1))
    _, (left, _) = read_wav_channels(path)
    assert np.array_equal(left, np.repeat(np.arange(1, 51), FRAME)), "a fifth of a second at a time"
    wav.close()


def test_a_call_of_no_frame_is_a_file_of_no_sample(tmp_path: Path) -> None:
    wav = CallWav(tmp_path / "call.wav", RATE)
    wav.close()
    wav.close()
    assert [len(channel) for channel in read_wav_channels(tmp_path / "call.wav")[1]] == [0, 0]


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write: no such file or directory"):
        CallWav(tmp_path / "nowhere" / "call.wav", RATE)
