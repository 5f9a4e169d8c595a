"""Who is counted where, and what a threshold makes of it."""

from __future__ import annotations

import pytest

from analysis.fabricate import Fabricated
from voicectl.analysis.definitions import STAGES
from voicectl.analysis.metrics import Analysis, Run, analyse
from voicectl.analysis.verdict import Verdict, exit_code
from voicectl.errors import RecordingError
from voicectl.spec.metric_names import ALIASES, METRICS
from voicectl.spec.threshold import Threshold, parse_threshold

RUN = Run(agent="coffee", profile="scripted")


def run(*waits: float, unanswered: int = 0, thresholds: tuple[str, ...] = (), per_call: int = 4) -> Analysis:
    """One call for every four waits; the first wait is the cold one."""
    calls: list[Fabricated] = []
    for start in range(0, len(waits), per_call):
        call, at = Fabricated(name=f"{len(calls) + 1:04}-ada"), 0.0
        for wait in waits[start : start + per_call]:
            at = call.exchange(at + 1.0, wait)
        if unanswered and start == 0:
            for _ in range(unanswered):
                call.say(at + 1.0, at + 2.0)
                at += 12.0
        calls.append(call.end(at + 1.0))
    parsed = [parse_threshold(text) for text in thresholds]
    return analyse([call.recording() for call in calls], RUN, parsed)


def test_the_cold_first_turn_is_apart() -> None:
    analysis = run(3.0, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert analysis.cold is not None
    assert (analysis.cold.call, analysis.cold.wait_ms) == ("0001-ada", 3_000)
    waited = analysis.durations["voice_to_voice_ms"]
    assert (waited.n, waited.max.value, waited.p50.value) == (5, 900, 700)
    assert all(analysis.durations[f"{stage}_ms"].n == 5 for stage in STAGES)


def test_nobody_answering_stays_in_the_percentiles() -> None:
    analysis = run(0.5, *[0.5] * 19, unanswered=2)
    waited = analysis.durations["voice_to_voice_ms"]
    assert (waited.n, waited.censored, analysis.durations["llm_ttft_ms"].n) == (21, 2, 19)
    assert (waited.p50.value, waited.p95.value, waited.p95.at_least) == (500, 10_000, True)
    assert (analysis.shares["no_answer"].count, analysis.shares["no_answer"].total) == (2, 22)


def test_an_early_answer_shortens_no_percentile() -> None:
    call = Fabricated()
    at = call.exchange(1.0, 0.5)
    at = call.exchange(at + 1.0, 0.7)
    call.say(at + 1.0, at + 4.0)
    call.reply(call.turn(at + 1.0, at + 2.0, ended=0.3, final=0.2), at + 2.5, until=at + 3.5)
    analysis = analyse([call.end(at + 6.0).recording()], RUN)
    assert (analysis.durations["voice_to_voice_ms"].n, analysis.durations["voice_to_voice_ms"].min.value) == (1, 700)
    assert (analysis.shares["early_answer"].count, analysis.shares["early_answer"].total) == (1, 3)
    assert [turn.wait_ms for turn in analysis.of("early")] == [-1_450]


def test_stamps_are_held_against_the_sound_turn_by_turn() -> None:
    analysis = run(0.9, 0.5, 0.8)
    # Stamps miss the lead silence (a tenth of the wait) and the 30 ms the VAD is late.
    assert analysis.stamps_minus_sound.min.value == pytest.approx(-110)
    assert analysis.stamps_minus_sound.max.value == pytest.approx(-80)
    assert analysis.by_stamps.max.value == pytest.approx(690)


def test_measured_and_modelled_times_do_not_mix() -> None:
    calls = [Fabricated(name=clock, clock=clock).end(1.0).recording() for clock in ("wall", "virtual")]
    assert analyse(calls[:1], RUN).times == "measured"
    assert analyse(calls[1:], RUN).times == "modelled"
    with pytest.raises(RecordingError, match="virtual: runs on another clock"):
        analyse(calls, RUN)


def test_a_run_without_calls_is_an_analysis_too() -> None:
    analysis = analyse([], RUN)
    assert (analysis.calls, analysis.turns, analysis.durations["voice_to_voice_ms"].n) == ((), (), 0)


def test_every_metric_a_threshold_may_name_is_measured() -> None:
    analysis = run(0.5)
    for metric in METRICS:
        if metric.name.startswith("s2s_"):
            continue  # of agents of another kind
        by_kind = {"duration": analysis.durations, "money": analysis.money}
        measured = by_kind.get(metric.kind, analysis.shares)
        assert ALIASES.get(metric.name, metric.name) in measured


# Verdicts ----------------------------------------------------------------------------------------


def verdict(threshold: str, *waits: float, unanswered: int = 0) -> Verdict:
    return run(*waits, unanswered=unanswered, thresholds=(threshold,)).verdicts[0]


def test_a_threshold_passes_or_fails_by_its_figure() -> None:
    assert verdict("p50(voice_to_voice_ms) < 800", 0.9, 0.7).outcome == "pass"
    failed = verdict("p50(voice_to_voice_ms) < 700", 0.9, 0.7)
    assert (failed.outcome, failed.value) == ("fail", 700)
    assert verdict("mean(endpointing_ms) <= 0.28s", 0.9, 0.7).outcome == "pass"


def test_a_figure_the_sample_cannot_carry_decides_nothing() -> None:
    undecided = verdict("p95(voice_to_voice_ms) < 800", *[0.5] * 20)
    assert (undecided.outcome, undecided.value, undecided.needs) == ("undecided", None, 20)
    assert verdict("p95(voice_to_voice_ms) < 800", *[0.5] * 21).outcome == "pass"


def test_nobody_answering_is_over_any_limit() -> None:
    failed = verdict("max(voice_to_voice_ms) < 60s", *[0.5] * 4, unanswered=1)
    assert (failed.outcome, failed.value, failed.at_least) == ("fail", 10_000, True)


def test_turns_are_counted_and_shared_out() -> None:
    assert verdict("count(no_answer) <= 0", 0.5, unanswered=1).outcome == "fail"
    assert verdict("rate(no_answer) <= 50%", 0.5, unanswered=1).outcome == "pass"
    assert verdict("rate(false_cutoff) < 5%", 0.5).value == 0


def test_a_share_of_nothing_decides_nothing() -> None:
    assert verdict("rate(slot_recall) >= 90%", 0.5).outcome == "undecided"


@pytest.mark.parametrize(
    ("outcomes", "code"), [("", 0), ("p", 0), ("pu", 4), ("u", 4), ("pf", 1), ("fu", 1), ("ppp", 0)]
)
def test_exit_code_is_the_worst_of_the_verdicts(outcomes: str, code: int) -> None:
    threshold = Threshold("max", "voice_to_voice_ms", "<", 800.0)
    names = {"p": "pass", "u": "undecided", "f": "fail"}
    assert exit_code([Verdict(threshold, names[one], None) for one in outcomes]) == code  # type: ignore[arg-type]
