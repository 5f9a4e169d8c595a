"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from replay.support import HASTY, ORDER, make_calls
from voicectl.analysis.metrics import Analysis, Run, measured, sum_up
from voicectl.events import Event
from voicectl.recording import open_recording
from voicectl.replay.diff import diff_runs

CALLERS = tuple(replace(caller, name=f"{caller.name}{number}") for number in range(3) for caller in (ORDER, HASTY))


def run_of(paths: Sequence[Path]) -> tuple[Analysis, dict[str, Sequence[Event]]]:
    opened = [open_recording(path) for path in paths]
    return sum_up(map(measured, opened), Run(agent="a", profile="b")), {one.path.name: one.events for one in opened}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Analysis, dict[str, Sequence[Event]]]]:
    root = tmp_path_factory.mktemp("runs")
    return [
        run_of(make_calls(root / silence, f"turn.endpointing.silence_ms={silence}", callers=CALLERS))
        for silence in ("600", "700")
    ]


def test_a_run_does_not_differ_from_itself(runs: list[tuple[Analysis, dict[str, Sequence[Event]]]]) -> None:
    (analysis, events), _ = runs
    result = diff_runs(analysis, analysis, events, events)
    assert result.paired
    assert not any(shift.shown for shift in (*result.durations, *result.shares, result.longer))
    assert result.longer.second == pytest.approx(0.5)
    assert all(call.difference is None for call in result.calls)


def test_a_longer_silence_is_found_with_its_interval(runs: list[tuple[Analysis, dict[str, Sequence[Event]]]]) -> None:
    (first, first_events), (second, second_events) = runs
    result = diff_runs(first, second, first_events, second_events)
    shifts = {shift.name: shift for shift in result.durations}
    for name in ("voice_to_voice_ms P50", "endpointing_ms P50"):
        shift = shifts[name]
        assert shift.shown, name
        assert shift.interval is not None
        assert shift.interval[0] <= 100 <= shift.interval[1] + 25
    assert not shifts["llm_ttft_ms P50"].shown
    assert (result.longer.second or 0) > 0.9
    assert result.longer.shown
    difference = result.calls[0].difference
    assert difference is not None
    assert "700 ms of silence" in str(difference.now)


def test_other_calls_are_told_apart(runs: list[tuple[Analysis, dict[str, Sequence[Event]]]], tmp_path: Path) -> None:
    (first, first_events), _ = runs
    few, few_events = run_of(make_calls(tmp_path / "few", callers=CALLERS[:2]))
    result = diff_runs(first, few, first_events, few_events)
    assert not result.paired
    assert len(result.only_first) == 4
    assert result.only_second == ()
    assert not any(shift.interval for shift in result.durations), "two calls carry no interval"
