"""What counts as sound, to the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voicectl.analysis.audible import (
    Segment,
    active_dbfs,
    first_audible,
    last_voiced,
    segments,
    speech_threshold_dbfs,
    steady_noise_dbfs,
)
from voicectl.audio import read_wav

RATE = 16_000
RECORDINGS = Path(__file__).resolve().parents[2] / "recordings"


def line(*parts: tuple[float, float], rate: int = RATE, floor_dbfs: float | None = -75.0) -> NDArray[np.int16]:
    """A line of 200 Hz sound in `(dbfs, seconds)` parts; a level of -inf is silence with a little noise."""
    draw = np.random.default_rng(1)
    made: list[NDArray[np.float64]] = []
    for dbfs, seconds in parts:
        at = np.arange(round(seconds * rate)) / rate
        made.append(np.sqrt(2) * 32768 * 10 ** (dbfs / 20) * np.cos(2 * np.pi * 200 * at))
    x = np.concatenate(made)
    if floor_dbfs is not None:
        x = x + draw.standard_normal(len(x)) * 32768 * 10 ** (floor_dbfs / 20)
    return np.rint(x).astype(np.int16)


SILENT = -np.inf


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("floor_dbfs", [None, -75.0])
def test_both_ends_are_found_to_a_millisecond(rate: int, floor_dbfs: float | None) -> None:
    x = line((SILENT, 0.3), (-20, 0.5), (SILENT, 0.4), rate=rate, floor_dbfs=floor_dbfs)
    first, last = first_audible(x, rate), last_voiced(x, rate)
    assert first is not None
    assert last is not None
    assert 0.3 * rate <= first < 0.301 * rate
    assert 0.799 * rate < last < 0.8 * rate


def test_silence_holds_nothing() -> None:
    for x in (np.zeros(RATE, np.int16), line((SILENT, 1.0)), np.zeros(0, np.int16), np.full(40, 9_000, np.int16)):
        assert first_audible(x, RATE) is None
        assert last_voiced(x, RATE) is None
        assert segments(x, RATE) == []
        assert active_dbfs(x, RATE) == -np.inf


def test_neither_an_offset_nor_rumble_is_sound() -> None:
    at = np.arange(RATE) / RATE
    rumble = np.rint(1_000 + 150 * np.sin(2 * np.pi * 15 * at)).astype(np.int16)
    assert segments(rumble, RATE) == []
    # The offset may jump when the line opens.
    assert segments(np.repeat(np.array([0, 3_000], np.int16), RATE), RATE) == []


def test_a_soft_final_stop_belongs_to_the_word() -> None:
    x = line((SILENT, 0.2), (-20, 0.4), (SILENT, 0.08), (-45, 0.02), (SILENT, 0.5))
    assert last_voiced(x, RATE) == pytest.approx(0.7 * RATE, abs=32)


def test_a_click_is_not_sound_and_two_are_not_either() -> None:
    x = line((SILENT, 0.5), (-15, 0.005), (SILENT, 0.1), (-15, 0.005), (SILENT, 0.5))
    assert segments(x, RATE) == []
    spoken = line((SILENT, 0.2), (-20, 0.4), (SILENT, 0.4), (-10, 0.008), (SILENT, 0.2))
    assert last_voiced(spoken, RATE) == pytest.approx(0.6 * RATE, abs=16)


def test_the_gap_that_parts_two_stretches_can_be_chosen() -> None:
    x = line((SILENT, 0.1), (-20, 0.3), (SILENT, 0.25), (-20, 0.3), (SILENT, 0.1), floor_dbfs=None)
    assert len(segments(x, RATE)) == 2
    (whole,) = segments(x, RATE, 0.3)
    assert (whole.first, whole.last) == (first_audible(x, RATE), last_voiced(x, RATE))


def test_only_the_part_asked_for_is_looked_at_and_counted_from_the_start() -> None:
    x = line((-20, 0.5), (SILENT, 0.5), (-20, 0.5), floor_dbfs=None)
    assert first_audible(x, RATE, 6_000) == 6_000
    assert first_audible(x, RATE, 9_000) == pytest.approx(RATE, abs=4)
    assert first_audible(x, RATE, 9_000, 15_000) is None
    assert last_voiced(x, RATE, 0, 12_000) == pytest.approx(8_000, abs=16)
    assert segments(x, RATE, start=9_000, end=RATE + 1_600)[0].first >= RATE


@given(
    lead=st.integers(400, 4_000), length=st.integers(640, 6_000), tail=st.integers(400, 4_000), level=st.floats(-45, -6)
)
@settings(max_examples=60)
def test_a_cut_anywhere_is_found_where_it_is(lead: int, length: int, tail: int, level: float) -> None:
    noise = np.random.default_rng(length).standard_normal(length) * 32768 * 10 ** (level / 20)
    x = np.concatenate([np.zeros(lead), np.clip(noise, -32768, 32767), np.zeros(tail)]).astype(np.int16)
    (found,) = segments(x, RATE)
    assert lead <= found.first < lead + 32
    assert lead + length - 32 <= found.last < lead + length


@given(
    st.lists(st.tuples(st.sampled_from([-90.0, -55.0, -48.0, -30.0, -12.0]), st.integers(1, 400)), max_size=12),
    st.sampled_from([8_000, 16_000, 22_050]),
)
@settings(max_examples=60)
def test_the_docstring_says_enough_to_measure_again(parts: list[tuple[float, int]], rate: int) -> None:
    draw = np.random.default_rng(len(parts))
    x = np.concatenate(
        [np.zeros(1), *(draw.standard_normal(n * rate // 1_000) * 32768 * 10 ** (dbfs / 20) for dbfs, n in parts)]
    )
    x = np.clip(x, -32768, 32767).astype(np.int16)
    assert segments(x, rate) == again(x, rate)


def again(x: NDArray[np.int16], rate: int) -> list[Segment]:
    """The definition, block by block, as slow as it reads."""
    length, hop = round(0.010 * rate), round(0.001 * rate)
    limit = 32768 * 10 ** (-50 / 20)
    runs: list[tuple[int, int]] = []
    heads: list[int] = []
    for start in [*range(0, len(x) - length + 1, hop), None]:
        block = x[start : start + length] if start is not None else None
        if start is not None and block is not None and block.std(dtype=np.float64) > limit:
            heads.append(start)
        elif heads:
            far = [
                [at for at in range(head, head + length) if abs(x[at] - np.median(x[head : head + length])) >= limit]
                for head in (heads[0], heads[-1])
            ]
            runs.append((far[0][0], far[1][-1]))
            heads = []
    groups: list[list[tuple[int, int]]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] < 0.200 * rate:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [
        Segment(group[0][0], group[-1][1])
        for group in groups
        if sum(last - first + 1 for first, last in group) >= 0.030 * rate
    ]


def test_a_faint_recording_is_measured_by_its_own_level() -> None:
    x = line((SILENT, 0.3), (-48, 0.02), (-40, 0.5), (-60, 0.1), (SILENT, 0.3), floor_dbfs=-85)
    threshold = speech_threshold_dbfs(x, RATE)
    assert threshold == pytest.approx(-70, abs=0.5)
    assert last_voiced(x, RATE, threshold_dbfs=threshold) == pytest.approx(0.92 * RATE, abs=32)
    assert speech_threshold_dbfs(line((-12, 1.0), (SILENT, 1.0)), RATE) == -50
    assert speech_threshold_dbfs(np.zeros(RATE, np.int16), RATE) == -70
    assert speech_threshold_dbfs(np.zeros(3, np.int16), RATE) == -50


def test_noise_that_hides_the_end_of_speech_is_noticed() -> None:
    draw = np.random.default_rng(5)
    spoken = read_wav(RECORDINGS / "coffee-order" / "01.wav").array()
    padded = np.concatenate([np.zeros(RATE // 2), spoken, np.zeros(RATE)])
    room = draw.standard_normal(len(padded)) * 32768
    assert steady_noise_dbfs((padded + room * 10 ** (-75 / 20)).astype(np.int16), RATE) is None
    level = steady_noise_dbfs((padded + room * 10 ** (-45 / 20)).astype(np.int16), RATE)
    assert level == pytest.approx(-45, abs=3)
    # Speech that was cut out tightly has no quiet around it, and needs none.
    assert steady_noise_dbfs(spoken[1_600:-2_400], RATE) is None
    assert steady_noise_dbfs(np.zeros(RATE, np.int16), RATE) is None
    assert steady_noise_dbfs(np.zeros(0, np.int16), RATE) is None


def test_pauses_do_not_count_for_the_level_of_speech() -> None:
    assert active_dbfs(line((-20, 0.5), (SILENT, 5.0)), RATE) == pytest.approx(-20, abs=0.2)


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*/caller.yaml")), ids=lambda path: path.parent.name)
def test_the_truth_beside_the_recordings_is_what_is_measured(path: Path) -> None:
    for said in yaml.safe_load(path.read_text("utf-8"))["utterances"]:
        pcm = read_wav(path.parent / said["file"])
        # A telephone line takes away what is soft or low at the ends; the truth is from before it.
        slack = round((0.060 if pcm.rate == 8_000 else 0.0) * pcm.rate)
        assert first_audible(pcm.array(), pcm.rate) == pytest.approx(said["first_voiced_sample"], abs=slack)
        assert last_voiced(pcm.array(), pcm.rate) == pytest.approx(said["last_voiced_sample"], abs=slack)
