"""The terminal report: the same words on every machine, and readable at 80 columns."""

from __future__ import annotations

import re

import pytest
from analysis.fabricate import Fabricated

from report.sample import WIDTHS, golden, rendered, sample
from voicectl.analysis.metrics import Analysis, Run, analyse

RUN = Run(agent="coffee", profile="scripted")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return sample()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_reads_as_kept(analysis: Analysis, width: int) -> None:
    assert rendered(analysis, width) == golden(width).read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_line_is_longer_than_the_terminal(analysis: Analysis, width: int) -> None:
    assert max(len(line) for line in rendered(analysis, width).splitlines()) <= width


def test_colour_is_for_terminals(analysis: Analysis) -> None:
    assert "\x1b" not in rendered(analysis, 80)
    coloured = rendered(analysis, 80, terminal=True)
    assert "\x1b[" in coloured
    plain = re.sub(r" +$", "", re.sub(r"\x1b\[[0-9;]*m", "", coloured), flags=re.MULTILINE)
    assert plain == rendered(analysis, 80)


def test_a_terminal_without_unicode_gets_ascii(analysis: Analysis) -> None:
    assert "needs n>=100" in rendered(analysis, 80, encoding="ascii")


def test_the_bars_of_a_turn_add_up_in_whole_milliseconds(analysis: Analysis) -> None:
    section = rendered(analysis, 80).split("another adds none\n")[1].split("\n\n")[0]
    turns = re.split(r"^(?=\w)", section, flags=re.MULTILINE)[1:]
    assert len(turns) == 4
    for turn in turns:
        total, *parts = re.findall(r"(?:turn(?: \d)?: | {3,})(\d+) ", turn)
        assert sum(int(part) for part in parts) == int(total)


def one_call(*waits: float) -> Analysis:
    call, at = Fabricated(), 0.0
    for wait in waits:
        at = call.exchange(at + 1.0, wait)
    return analyse([call.end(at + 1.0).recording()], RUN)


@pytest.mark.parametrize("waits", [(), (0.7,), (0.7, 0.0), (0.7, 0.8), (0.7, 0.8, 0.9)])
def test_few_turns_are_a_report_too(waits: tuple[float, ...]) -> None:
    assert "coffee · profile scripted" in rendered(one_call(*waits), 80)


def test_no_calls_are_a_report_too() -> None:
    assert "0 calls" in rendered(analyse([], RUN), 80)


def test_modelled_times_say_so() -> None:
    call = Fabricated(clock="virtual")
    call.exchange(1.0, 0.7)
    assert "modelled (virtual clock)" in rendered(analyse([call.end(5.0).recording()], RUN), 80)


def test_what_callers_say_is_not_taken_for_markup(analysis: Analysis) -> None:
    assert "[oat]" in rendered(analysis, 120)
