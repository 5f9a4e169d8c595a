"""Endpointing: a list of speech probabilities in, a list of facts out. No time passes here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.pipeline.endpointing import (
    Ended,
    Endpointer,
    EndpointingRules,
    Fact,
    Judged,
    Noticed,
    Paused,
    Resumed,
    Started,
    Sustained,
)

WINDOW_S = 0.02
RULES = EndpointingRules(min_speech_s=0.1, pause_s=0.14, silence_s=0.5, sustain_s=0.4)


def facts_of(probabilities: Iterable[float], rules: EndpointingRules = RULES, window_s: float = WINDOW_S) -> list[Fact]:
    endpointer = Endpointer(rules, window_s)
    return [rounded(fact) for probability in probabilities for fact in endpointer.feed(probability)]


def rounded(fact: Fact) -> Fact:
    at = round(fact.at, 6)
    match fact:
        case Ended(_, reason, scores):
            return Ended(at, reason, scores)
        case Judged(_, wait_s, scores, reason):
            return Judged(at, wait_s, scores, reason)
        case _:
            return type(fact)(at)


def speech(seconds: float, probability: float = 1.0) -> list[float]:
    return [probability] * round(seconds / WINDOW_S)


def silence(seconds: float) -> list[float]:
    return speech(seconds, 0.0)


ENDED = "500 ms of silence"


def test_a_turn_starts_pauses_and_ends_at_its_last_voiced_window() -> None:
    assert facts_of([*silence(1), *speech(0.3), *silence(1)]) == [Started(1.0), Paused(1.3), Ended(1.3, ENDED)]


def test_silence_has_no_facts() -> None:
    assert facts_of(silence(5)) == []


def test_speech_is_started_in_the_window_that_makes_it_long_enough() -> None:
    endpointer = Endpointer(RULES, WINDOW_S)
    assert [endpointer.feed(1.0) for _ in range(6)] == [[], [], [], [], [Started(0.0)], []]


def test_a_pause_and_the_end_are_noticed_when_their_silence_is_over() -> None:
    endpointer = Endpointer(RULES, WINDOW_S)
    for probability in speech(0.2):
        endpointer.feed(probability)
    noticed = {window: facts for window in range(1, 30) if (facts := endpointer.feed(0.0))}
    assert {window: [type(fact) for fact in facts] for window, facts in noticed.items()} == {7: [Paused], 25: [Ended]}


def test_a_blip_starts_no_turn() -> None:
    assert facts_of([*silence(1), *speech(0.08), *silence(1), *speech(0.08), *silence(1)]) == []


def test_blips_do_not_add_up_to_speech() -> None:
    assert facts_of([*speech(0.08), 0.0] * 20) == []


def test_speech_that_goes_on_after_a_pause_is_the_same_turn() -> None:
    assert facts_of([*speech(0.2), *silence(0.2), *speech(0.2), *silence(1)]) == [
        Started(0.0),
        Paused(0.2),
        Resumed(0.4),
        Paused(0.6),
        Ended(0.6, ENDED),
    ]


def test_a_gap_shorter_than_a_pause_is_part_of_the_speech() -> None:
    assert facts_of([*speech(0.2), *silence(0.12), *speech(0.2), *silence(1)]) == [
        Started(0.0),
        Sustained(0.0),
        Paused(0.52),
        Ended(0.52, ENDED),
    ]


def test_a_blip_in_the_silence_does_not_shorten_it() -> None:
    blip_at_the_end = [*speech(0.2), *silence(0.44), *speech(0.08), *silence(0.1)]
    assert facts_of(blip_at_the_end) == [Started(0.0), Paused(0.2), Ended(0.2, ENDED)]


def test_a_blip_in_the_silence_does_not_lengthen_it() -> None:
    endpointer = Endpointer(RULES, WINDOW_S)
    for probability in [*speech(0.2), *silence(0.3), *speech(0.04), *silence(0.14)]:
        facts = endpointer.feed(probability)
        assert not any(isinstance(fact, Ended) for fact in facts)
    assert [rounded(fact) for fact in endpointer.feed(0.0)] == [Ended(0.2, ENDED)]


def test_speech_is_sustained_once_a_run() -> None:
    assert facts_of([*speech(2), *silence(0.2), *speech(2), *silence(0.2)]) == [
        Started(0.0),
        Sustained(0.0),
        Paused(2.0),
        Resumed(2.2),
        Sustained(2.2),
        Paused(4.2),
    ]


def test_speech_may_be_started_and_sustained_in_one_window() -> None:
    rules = EndpointingRules(min_speech_s=0.2, sustain_s=0.1)
    assert facts_of(speech(1), rules) == [Started(0.0), Sustained(0.0)]


def test_once_speaking_a_doubtful_window_still_is_speech() -> None:
    assert facts_of([*speech(0.2), *speech(0.4, 0.36), *silence(1)]) == [
        Started(0.0),
        Sustained(0.0),
        Paused(0.6),
        Ended(0.6, ENDED),
    ]
    assert facts_of(speech(1, 0.36)) == []


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.15, 0.2, 0.5, 0.95])
def test_silence_ends_a_turn_at_any_threshold(threshold: float) -> None:
    facts = facts_of([*speech(0.2), *silence(1)], EndpointingRules(threshold=threshold))
    assert [type(fact) for fact in facts] == [Started, Paused, Ended]


def test_a_silence_as_short_as_a_pause_ends_the_turn_at_once() -> None:
    rules = EndpointingRules(pause_s=0.2, silence_s=0.2)
    assert facts_of([*speech(0.2), *silence(0.2)], rules) == [
        Started(0.0),
        Paused(0.2),
        Ended(0.2, "200 ms of silence"),
    ]


@pytest.mark.parametrize("window_s", [0.01, 0.02, 0.03, 0.032, 0.064])
def test_windows_of_any_length_give_the_same_facts_to_within_a_window(window_s: float) -> None:
    def voiced(at: float) -> float:
        return 1.0 if 1.0 <= at < 2.5 or 2.8 <= at < 3.6 else 0.0

    facts = facts_of((voiced((index + 0.5) * window_s) for index in range(round(5 / window_s))), RULES, window_s)
    expected = [Started(1.0), Sustained(1.0), Paused(2.5), Resumed(2.8), Sustained(2.8), Paused(3.6), Ended(3.6, ENDED)]
    assert [type(fact) for fact in facts] == [type(fact) for fact in expected]
    assert [fact.at for fact in facts] == pytest.approx([fact.at for fact in expected], abs=window_s)


def test_limits_that_are_whole_windows_are_met_exactly() -> None:
    """0.1 + 0.2 is not 0.3: float dust must not cost a window, however long the call has lasted."""
    for lead in range(0, 400, 7):
        endpointer = Endpointer(RULES, WINDOW_S)
        for _ in range(lead):
            endpointer.feed(0.0)
        assert [bool(endpointer.feed(1.0)) for _ in range(5)] == [False] * 4 + [True], lead


# Noticing ---------------------------------------------------------------------------------------


def test_speech_is_noticed_once_a_run_and_before_it_is_sustained() -> None:
    rules = replace(RULES, notice_s=0.2)
    assert facts_of([*speech(1), *silence(0.2), *speech(1), *silence(0.2)], rules) == [
        Started(0.0),
        Noticed(0.0),
        Sustained(0.0),
        Paused(1.0),
        Resumed(1.2),
        Noticed(1.2),
        Sustained(1.2),
        Paused(2.2),
    ]


def test_speech_shorter_than_that_is_not_noticed() -> None:
    assert facts_of([*speech(0.18), *silence(0.2)], replace(RULES, notice_s=0.2)) == [Started(0.0), Paused(0.18)]


# Evidence ---------------------------------------------------------------------------------------

WAITS = EndpointingRules(min_speech_s=0.1, pause_s=0.1, min_silence_s=0.2, silence_s=0.5, max_silence_s=1.5)
TEXT, AUDIO, BOTH, ADAPTIVE, STT = (
    replace(WAITS, strategies=names)
    for names in (("text",), ("audio",), ("text", "audio"), ("adaptive",), ("provider",))
)


def paused(rules: EndpointingRules) -> Endpointer:
    """A caller who has just paused, after 100 ms of silence."""
    endpointer = Endpointer(rules, WINDOW_S)
    facts = [fact for probability in [*speech(1), *silence(0.1)] for fact in endpointer.feed(probability)]
    assert isinstance(facts[-1], Paused)
    return endpointer


def ends_after(endpointer: Endpointer, silent_s: float = 0.1) -> float:
    """The silence at which the turn ends, from `silent_s` of it on."""
    for window in range(1, 200):
        if any(isinstance(fact, Ended) for fact in endpointer.feed(0.0)):
            return round(silent_s + window * WINDOW_S, 6)
    raise AssertionError("the turn never ends")


def test_a_finished_text_shortens_the_wait_and_an_open_one_lengthens_it() -> None:
    finished, unknown, unfinished = paused(TEXT), paused(TEXT), paused(TEXT)
    [judged] = finished.hear("A large latte, please.")
    assert isinstance(judged, Judged)
    assert 0.2 <= judged.wait_s < 0.25
    assert judged.scores == (("text", 0.95),)
    assert judged.reason == "text 0.95 (closes: 'please')"
    assert unfinished.hear("A large latte and")
    assert unknown.hear("A large latte") == [], "it changes nothing"
    assert ends_after(finished) < ends_after(unknown) == 0.5 < 1.2 < ends_after(unfinished) <= 1.5


def test_the_question_tells_what_an_answer_looks_like() -> None:
    answer, start = paused(TEXT), paused(TEXT)
    answer.hear("Yeah.", "Is that for here?")
    start.hear("Yeah.")
    assert ends_after(answer) < ends_after(start)


def test_the_end_says_what_it_was_made_of() -> None:
    endpointer = paused(BOTH)
    endpointer.hear("A large latte, please.")
    endpointer.score(0.97)
    ended = [fact for _ in range(20) for fact in endpointer.feed(0.0)]
    assert [rounded(fact) for fact in ended] == [
        Ended(
            1.0,
            "220 ms of silence; text 0.95 (closes: 'please'), audio 0.97",
            (("text", 0.95), ("audio", 0.97)),
        )
    ]


def test_what_has_not_come_yet_cannot_end_the_turn_early() -> None:
    endpointer = paused(BOTH)
    assert endpointer.hear("A large latte, please.") == []
    assert ends_after(endpointer) == 0.5


def test_what_never_comes_is_said() -> None:
    endpointer = paused(BOTH)
    endpointer.score(0.9)
    facts = [fact for _ in range(40) for fact in endpointer.feed(0.0)]
    assert [fact.reason for fact in facts if isinstance(fact, Ended)] == ["500 ms of silence; audio 0.90, no text"]


def test_half_of_the_evidence_may_lengthen_the_wait() -> None:
    endpointer = paused(BOTH)
    assert endpointer.hear("A large latte and")
    assert ends_after(endpointer) > 1.0


def test_evidence_that_agrees_is_stronger_and_that_disagrees_cancels_out() -> None:
    waits: list[float] = []
    for score in (0.9, 0.5, 0.15):
        endpointer = paused(BOTH)
        endpointer.hear("How late are you open on that day?")
        endpointer.score(score)
        waits.append(ends_after(endpointer))
    assert waits[0] <= waits[1] < waits[2] == 0.5


def test_late_evidence_ends_the_turn_at_once() -> None:
    endpointer = paused(AUDIO)
    for _ in range(15):
        assert endpointer.feed(0.0) == []
    judged, ended = endpointer.score(0.98)
    assert isinstance(judged, Judged) and isinstance(ended, Ended)
    assert ended.reason.startswith("400 ms of silence; audio 0.98")
    assert endpointer.feed(0.0) == []


def test_evidence_that_comes_during_a_blip_waits_for_what_becomes_of_it() -> None:
    endpointer = paused(AUDIO)
    for probability in [*silence(0.2), 1.0]:
        assert endpointer.feed(probability) == []
    assert [type(fact) for fact in endpointer.score(0.98)] == [Judged]
    assert [type(fact) for fact in endpointer.feed(0.0)] == [Ended]


def test_each_pause_is_judged_on_its_own() -> None:
    endpointer = paused(TEXT)
    endpointer.hear("A large latte and")
    for probability in [*speech(0.5), *silence(0.1)]:
        endpointer.feed(probability)
    assert ends_after(endpointer) == 0.5


@pytest.mark.parametrize("names", [("silence",), ("adaptive",), ("audio",), ("provider",)])
def test_evidence_nobody_asked_for_is_not_looked_at(names: tuple[str, ...]) -> None:
    endpointer = paused(replace(WAITS, strategies=names))
    assert endpointer.hear("A large latte, please.") == []
    assert names == ("audio",) or endpointer.score(0.99) == []
    assert names == ("provider",) or endpointer.provider_said("over") == []


def test_evidence_while_the_caller_speaks_means_nothing() -> None:
    endpointer = Endpointer(BOTH, WINDOW_S)
    assert endpointer.score(0.99) == []
    for probability in speech(1):
        endpointer.feed(probability)
    assert endpointer.hear("A large latte, please.") == endpointer.score(0.99) == []


# The STT's own end of turn ----------------------------------------------------------------------


def test_the_stt_ends_the_turn_even_before_a_pause() -> None:
    endpointer = Endpointer(STT, WINDOW_S)
    for probability in speech(1):
        endpointer.feed(probability)
    assert [rounded(fact) for fact in endpointer.provider_said("over")] == [Ended(1.0, "the STT ended the turn")]
    assert endpointer.provider_said("over") == []
    assert [fact for probability in [*speech(0.08), *silence(2)] for fact in endpointer.feed(probability)] == []


def test_where_the_stt_decides_silence_is_the_last_resort() -> None:
    endpointer = paused(STT)
    endpointer.provider_said("likely")
    assert ends_after(endpointer) == 1.5


def test_beside_others_what_the_stt_thinks_is_evidence() -> None:
    rules = replace(WAITS, strategies=("text", "provider"))
    likely, unlikely = paused(rules), paused(rules)
    for endpointer in (likely, unlikely):
        endpointer.hear("How late are you open on that day?")
    likely.provider_said("likely")
    unlikely.provider_said("resumed")
    assert ends_after(likely) < ends_after(unlikely)
    assert [type(fact) for fact in paused(rules).provider_said("over")] == [Ended]


# A caller's habits ------------------------------------------------------------------------------


def test_who_pauses_long_is_waited_for_longer() -> None:
    first, second = [*speech(1), *silence(0.44), *speech(1)], silence(0.54)
    assert [type(fact) for fact in facts_of([*first, *second], WAITS)][-1] is Ended
    facts = facts_of([*first, *second], ADAPTIVE)
    assert isinstance(facts[-1], Judged)
    assert facts[-1].wait_s == pytest.approx(0.55)
    assert facts[-1].reason == "this caller's pauses 550 ms"


def test_who_was_cut_off_is_waited_for_longer_next_time() -> None:
    facts = facts_of([*speech(1), *silence(0.8), *speech(1), *silence(2)], ADAPTIVE)
    assert [type(fact) for fact in facts if isinstance(fact, Started | Ended)] == [Started, Ended] * 2
    assert "1000 ms of silence" in next(fact.reason for fact in reversed(facts) if isinstance(fact, Ended))


def test_who_never_pauses_is_answered_sooner_turn_by_turn() -> None:
    facts = facts_of([*speech(1), *silence(3)] * 20, ADAPTIVE)
    waits = [float(fact.reason.split()[0]) for fact in facts if isinstance(fact, Ended)]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] == 500
    assert 200 <= waits[-1] <= 240


def test_silence_before_the_first_word_is_no_pause_of_the_caller() -> None:
    assert facts_of([*silence(0.9), *speech(1), *silence(0.5)], ADAPTIVE)[-1] == Ended(
        1.9, "500 ms of silence; this caller's pauses 500 ms"
    )


# Whatever is heard ------------------------------------------------------------------------------

windows_s = st.sampled_from([0.01, 0.02, 0.032])
rules_of_any_kind = st.builds(
    EndpointingRules,
    threshold=st.sampled_from([0.05, 0.15, 0.5, 0.9]),
    min_speech_s=st.floats(0, 0.3),
    pause_s=st.floats(0.02, 0.4),
    silence_s=st.floats(0.02, 0.9),
    sustain_s=st.floats(0.05, 0.8),
)
stretches = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.3, 0.5, 1.0, 1.0]), st.integers(1, 30)), max_size=12).map(
    lambda parts: [probability for probability, count in parts for _ in range(count)]
)

MAY_FOLLOW: dict[type[Fact] | None, tuple[type[Fact], ...]] = {
    None: (Started,),
    Started: (Sustained, Paused),
    Sustained: (Paused,),
    Paused: (Resumed, Ended),
    Resumed: (Sustained, Paused),
    Ended: (Started,),
}


@given(stretches, rules_of_any_kind, windows_s)
@settings(deadline=None, max_examples=150)
def test_facts_come_in_a_legal_order_and_their_times_never_go_back(
    probabilities: Sequence[float], rules: EndpointingRules, window_s: float
) -> None:
    facts = facts_of(probabilities, rules, window_s)
    for before, fact in zip([None, *facts], facts, strict=False):
        assert type(fact) in MAY_FOLLOW[type(before) if before else None]
        if before:
            assert fact.at >= before.at
        if isinstance(fact, Sustained | Ended):
            assert before and fact.at == before.at, "dated to the speech that lasts, to the pause that became the end"


@given(stretches, rules_of_any_kind, windows_s)
@settings(deadline=None, max_examples=100)
def test_facts_are_dated_to_windows_that_have_been_heard(
    probabilities: Sequence[float], rules: EndpointingRules, window_s: float
) -> None:
    endpointer = Endpointer(rules, window_s)
    for index, probability in enumerate(probabilities, 1):
        for fact in endpointer.feed(probability):
            assert 0 <= fact.at <= index * window_s + 1e-9
            assert fact.at / window_s == pytest.approx(round(fact.at / window_s)), "on the edge of a window"


@given(stretches, rules_of_any_kind, windows_s, st.integers(1, 200))
@settings(deadline=None, max_examples=100)
def test_the_same_speech_later_has_the_same_facts_later(
    probabilities: Sequence[float], rules: EndpointingRules, window_s: float, lead: int
) -> None:
    now = facts_of(probabilities, rules, window_s)
    later = facts_of([*[0.0] * lead, *probabilities], rules, window_s)
    assert [type(fact) for fact in later] == [type(fact) for fact in now]
    assert [fact.at - lead * window_s for fact in later] == pytest.approx([fact.at for fact in now], abs=1e-5)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 40)), max_size=15))
@settings(deadline=None, max_examples=100)
def test_blips_shorter_than_the_least_speech_never_start_a_turn(blips: Sequence[tuple[int, int]]) -> None:
    probabilities = [p for loud, quiet in blips for p in [*[1.0] * loud, *[0.0] * quiet]]
    assert facts_of(probabilities) == []


@given(stretches, rules_of_any_kind, windows_s)
@settings(deadline=None, max_examples=100)
def test_a_long_silence_closes_every_turn(
    probabilities: Sequence[float], rules: EndpointingRules, window_s: float
) -> None:
    facts = facts_of([*probabilities, *[0.0] * round(2 / window_s)], rules, window_s)
    assert not facts or isinstance(facts[-1], Ended)
    assert sum(isinstance(fact, Started) for fact in facts) == sum(isinstance(fact, Ended) for fact in facts)


names = st.lists(
    st.sampled_from(["silence", "adaptive", "text", "audio", "provider"]), min_size=1, max_size=5, unique=True
).map(tuple)
judging_rules = st.builds(
    EndpointingRules,
    min_speech_s=st.floats(0, 0.2),
    pause_s=st.floats(0.02, 0.3),
    silence_s=st.floats(0.05, 1.0),
    sustain_s=st.floats(0.05, 0.8),
    notice_s=st.sampled_from([0.0, 0.1, 0.3]),
    strategies=names,
    min_silence_s=st.floats(0.0, 0.6),
    max_silence_s=st.floats(0.3, 1.5),
)
heard = st.sampled_from(["", "A latte, please.", "A latte and", "Yes.", "five five five", "A latte"])
anything = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.tuples(st.sampled_from([0.0, 0.0, 0.4, 1.0, 1.0]), st.integers(1, 30))),
        st.tuples(st.just("hear"), heard),
        st.tuples(st.just("score"), st.floats(0, 1)),
        st.tuples(st.just("said"), st.sampled_from(["likely", "resumed", "over"])),
    ),
    max_size=25,
)
JUDGED_MAY_FOLLOW: dict[type[Fact] | None, tuple[type[Fact], ...]] = {
    None: (Started,),
    Started: (Noticed, Sustained, Paused, Ended),
    Noticed: (Sustained, Paused, Ended),
    Sustained: (Noticed, Paused, Ended),
    Paused: (Judged, Resumed, Ended),
    Judged: (Judged, Resumed, Ended),
    Resumed: (Noticed, Sustained, Paused, Ended),
    Ended: (Started,),
}


def told(endpointer: Endpointer, story: Sequence[tuple[str, Any]]) -> Iterator[tuple[int, Fact]]:
    """The facts, each with how many windows had been heard."""
    windows = 0
    for kind, what in story:
        for _ in range(what[1] if kind == "feed" else 1):
            match kind:
                case "feed":
                    windows += 1
                    facts = endpointer.feed(what[0])
                case "hear":
                    facts = endpointer.hear(what, "Is that all?")
                case "score":
                    facts = endpointer.score(what)
                case _:
                    facts = endpointer.provider_said(what)
            for fact in facts:
                yield windows, fact


@given(anything, judging_rules)
@settings(deadline=None, max_examples=300)
def test_whatever_the_evidence_facts_alternate_and_no_end_is_too_early_or_too_late(
    story: Sequence[tuple[str, Any]], rules: EndpointingRules
) -> None:
    least = rules.pause_s
    if set(rules.strategies) <= {"silence"}:
        most = max(rules.silence_s, rules.pause_s)
    else:
        most = max(rules.max_silence_s, rules.pause_s)
        least = max(least, min(rules.min_silence_s, rules.silence_s, rules.max_silence_s))
    before: Fact | None = None
    quiet = [("feed", (0.0, 100))]
    facts = list(told(Endpointer(rules, WINDOW_S), [*story, *quiet]))
    for windows, fact in facts:
        assert type(fact) in JUDGED_MAY_FOLLOW[type(before) if before else None]
        assert before is None or fact.at >= before.at - 1e-9
        match fact:
            case Judged(at, wait_s):
                assert before and at == before.at
                shortest = min(rules.min_silence_s, rules.silence_s, rules.max_silence_s)
                assert shortest - 1e-3 <= wait_s <= rules.max_silence_s + 1e-3
                assert all(0 <= score <= 1 for _, score in fact.scores)
            case Ended(at, reason) if "STT ended" not in reason:
                silent = windows * WINDOW_S - at
                assert silent >= least - 1e-3
                # A blip is given the time to become speech.
                assert silent <= most + WINDOW_S + rules.min_speech_s + WINDOW_S
            case _:
                pass
        before = fact
    assert before is None or isinstance(before, Ended)
    assert facts == list(told(Endpointer(rules, WINDOW_S), [*story, *quiet])), "the same again"


@given(anything, rules_of_any_kind)
@settings(deadline=None, max_examples=100)
def test_silence_alone_is_deaf_to_evidence(story: Sequence[tuple[str, Any]], rules: EndpointingRules) -> None:
    with_evidence = [fact for _, fact in told(Endpointer(rules, WINDOW_S), story)]
    without = [fact for _, fact in told(Endpointer(rules, WINDOW_S), [one for one in story if one[0] == "feed"])]
    assert with_evidence == without
    assert not any(isinstance(fact, Judged) for fact in with_evidence)
