"""How a drill is told: table, summary, JSON, the written record."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from voicectl.drill.cells import HEALTHY, Cell
from voicectl.drill.listen import Words
from voicectl.drill.outcome import Outcome
from voicectl.drill.tell import header, passes, record, report, rows, summary, summary_line, troubles

WELL = Outcome(cell=HEALTHY[0], fallbacks=True, words=Words(40), worst_gap_ms=400)
CUT = Outcome(
    cell=Cell("cut", "tts", "mid-call"), fallbacks=True, struck=1, words=Words(80, 1, 0, 2), worst_gap_ms=912.4
)
BARE = replace(CUT, fallbacks=False, lost="turn 2 not answered", words=Words(40, 21), worst_gap_ms=10_000)
IDLE = Outcome(cell=Cell("429", "stt", "barge-in"), fallbacks=True, struck=1, words=Words(40), worst_gap_ms=390)
QUIET = replace(IDLE, struck=0)
ABOUT = {
    "agent": "coffee",
    "date": "2026-11-21T16:00:00+00:00",
    "profile": "cloud",
    "providers": {"stt": "deepgram nova-3 (retry) then cartesia"},
    "versions": {"voicectl": "0.1.0"},
}


def test_a_row_is_a_fault_and_a_stage_with_and_without_help_side_by_side() -> None:
    outcomes = [CUT, BARE, QUIET, WELL]
    assert header(outcomes) == ["fault", "stage", "mid-call", "barge-in", "bare: mid-call"]
    assert rows(outcomes) == [
        ["none", "", "400", "", ""],
        ["429", "stt", "", "390 ·", ""],
        ["cut", "tts", "912 -1 ~2", "", "LOST"],
    ]


def test_a_summary_leaves_out_the_calls_in_which_nothing_goes_wrong() -> None:
    found = summary([WELL, CUT, QUIET, IDLE])
    assert (found.n, found.survived, found.max_ms) == (2, 2, 912.4)
    assert found.p50_ms == pytest.approx(651.2)
    assert found.words == Words(120, 1, 0, 2)


def test_a_p95_of_few_cells_is_refused_and_the_longest_gap_stands_for_it() -> None:
    assert summary([CUT]).p95_ms is None
    assert "longest 912 ms (P95 takes 20 cells)" in summary_line([CUT], fallbacks=True)
    assert passes([WELL, CUT], 1000)
    assert not passes([WELL, CUT], 900)
    many = [replace(IDLE, worst_gap_ms=100.0 + number) for number in range(99)] + [CUT]
    assert summary(many).p95_ms == pytest.approx(194.05)
    assert passes(many, 200)


@pytest.mark.parametrize(
    "bad",
    [
        replace(CUT, lost="turn 1 not answered"),
        replace(CUT, words=Words(40, repeated=1)),
        replace(CUT, words=Words(40, lost=2)),
        replace(WELL, lost="x"),
        QUIET,
    ],
)
def test_a_lost_call_lost_words_or_a_repeated_one_does_not_pass_nor_does_a_fault_that_struck_nobody(
    bad: Outcome,
) -> None:
    assert not passes([WELL, bad], 5000)


def test_what_happens_without_help_decides_nothing() -> None:
    assert passes([WELL, CUT, BARE], 1000)


def test_what_went_badly_is_told_with_its_reason() -> None:
    lost = replace(CUT, lost="turn 2 not answered", failures=("tts:cartesia: it is gone",))
    assert troubles([lost, IDLE]) == [
        "cut tts mid-call: turn 2 not answered, 2 words broken (tts:cartesia: it is gone)"
    ]


def test_the_report_is_plain_json() -> None:
    told = json.loads(json.dumps(report([WELL, CUT, BARE], ABOUT, 1500, planned=3)))
    assert told["voicectl_drill"] == 1
    assert told["passed"] is True
    assert told["summary"]["without_fallbacks"]["survived"] == 0
    assert [cell["fault"] for cell in told["cells"]] == ["none", "cut", "cut"]
    assert told["cells"][1]["words"] == {"said": 80, "lost": 1, "repeated": 0, "broken": 2}


def test_the_record_says_what_was_drilled_when_and_what_came_of_it() -> None:
    cut = replace(CUT, deeds=("tts cartesia replaced by deepgram",))
    text = record([WELL, cut, BARE], ABOUT, 1500, planned=3)
    assert text.startswith("# Drill of coffee, 2026-11-21T16:00:00+00:00\n")
    assert "- providers: stt deepgram nova-3 (retry) then cartesia\n" in text
    assert "- result: **passed**" in text
    assert "| cut | tts | 912 -1 ~2 | LOST |" in text
    assert "- cut tts mid-call: tts cartesia replaced by deepgram\n" in text
    assert "Without fallbacks: 0 of 1 calls survived" in text


def test_an_interrupted_drill_has_not_passed() -> None:
    text = record([WELL, CUT], ABOUT, 1500, planned=12)
    assert "- result: **not passed**" in text
    assert "2 of 12 calls were made" in text
