"""What if: the grid, and what it would have done to callers."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.errors import SpecError, UsageError
from voicectl.replay.sweep import MOST_SETTINGS, Axis, Sweep, as_json, grid, parse_axis, plot, sweep, table

SILENCE = "turn.endpointing.silence_ms"
numbers = st.decimals(-1000, 1000, places=2, allow_nan=False)
words = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(first=numbers, step=st.decimals("0.01", 100, places=2), count=st.integers(1, 200), rest=st.integers(0, 99))
def test_a_range_holds_every_step_from_its_first_to_its_last(
    first: Decimal, step: Decimal, count: int, rest: int
) -> None:
    last = first + step * (count - 1) + step * rest / 100
    axis = parse_axis(f"{SILENCE}={first}..{last}:{step}")
    assert axis.key == SILENCE
    assert [Decimal(value) for value in axis.values] == [first + step * index for index in range(count)]


@given(st.lists(words, min_size=1, max_size=9, unique=True))
def test_a_list_holds_its_values(values: list[str]) -> None:
    assert parse_axis(f"turn.speculation={','.join(values)}") == Axis("turn.speculation", tuple(values))


@given(st.text(max_size=30))
def test_anything_else_is_one_clear_line(text: str) -> None:
    try:
        axis = parse_axis(f"{SILENCE}={text}")
    except UsageError as error:
        assert "\n" not in error.message or "\n" in text
    else:
        assert axis.values
        assert len(axis.values) <= MOST_SETTINGS


@pytest.mark.parametrize(
    "text",
    ["", "turn", "=1..2:1", f"{SILENCE}=", f"{SILENCE}=200..800", f"{SILENCE}=800..200:100", f"{SILENCE}=1..2:0",
     f"{SILENCE}=1..2:-1", f"{SILENCE}=a..b:c", f"{SILENCE}=1..inf:1", f"{SILENCE}=1,,2", f"{SILENCE}=1,1",
     f"{SILENCE}=1..1000000:1"],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_axis(text)


@pytest.mark.parametrize("key", ["llm.model", "vad.provider", "stt.options.final_ms", "line.rate", "clock"])
def test_a_key_that_changes_nothing_in_a_replay_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="changes nothing"):
        parse_axis(f"{key}=1,2")


def test_several_axes_make_a_grid() -> None:
    axes = [Axis("a", ("1", "2")), Axis("b", ("x", "y", "z"))]
    assert grid(axes) == [("1", "x"), ("1", "y"), ("1", "z"), ("2", "x"), ("2", "y"), ("2", "z")]
    with pytest.raises(UsageError, match="10000 settings"):
        grid([Axis("a", tuple(map(str, range(100))))] * 2)


def _sweep(paths: list[Path], *axes: str) -> Sweep:
    return sweep(paths, [parse_axis(axis) for axis in axes], audio_s=1.0, processes=1, progress=lambda done: None)


def test_a_shorter_silence_cuts_off_the_caller_who_pauses(calls: list[Path]) -> None:
    result = _sweep(calls, f"{SILENCE}=200..800:200")
    early = [row.early.count for row in result.rows]
    waits = [row.waits.p50.value or 0.0 for row in result.rows]
    assert early[0] > early[-1] == 0
    assert waits == sorted(waits)
    assert result.best is not None
    assert result.best.early.count == 0
    assert result.best.cost_ms == min(row.cost_ms for row in result.rows)
    recorded = _sweep(calls, f"{SILENCE}=500,501")
    assert recorded.rows[0].nearest == 0


def test_a_setting_that_cannot_be_is_told_and_left_out(calls: list[Path]) -> None:
    result = _sweep(calls[:1], f"{SILENCE}=100..500:400")
    assert [row.setting for row in result.rows] == [("500",)]
    assert result.impossible[0][0] == ("100",)
    assert "'pause_ms' (130) is longer" in result.impossible[0][1]


def test_a_value_that_is_named_and_cannot_be_is_refused(calls: list[Path]) -> None:
    with pytest.raises(SpecError, match=r"--sweep turn.endpointing.strategy: unknown endpointing strategy 'foo'"):
        _sweep(calls[:1], "turn.endpointing.strategy=silence,foo")


def test_a_value_may_be_a_list() -> None:
    axis = parse_axis("turn.endpointing.strategy=silence,[text, audio],text")
    assert axis.values == ("silence", "[text, audio]", "text")


def test_a_key_that_no_spec_has_is_refused(calls: list[Path]) -> None:
    with pytest.raises(SpecError, match="Did you mean 'silence_ms'"):
        _sweep(calls[:1], "turn.endpointing.silense_ms=300,400")


def test_the_table_and_the_plot_hold_every_setting(calls: list[Path]) -> None:
    result = _sweep(calls, f"{SILENCE}=300..700:200", "turn.speculation=true,false")
    header, rows = table(result)
    assert header[:3] == ("", "silence_ms", "speculation")
    assert [row[1:3] for row in rows] == [row.setting for row in result.rows]
    assert [row[0] for row in rows if row[-1] == "best"] == ["*"]
    drawn = "\n".join(plot(result))
    assert all(row[0] in drawn for row in rows)
    assert json.dumps(as_json(result)).count('"best"') == 6
