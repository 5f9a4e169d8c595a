"""Endpointing: a list of speech probabilities in, a list of facts out. No time passes here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.pipeline.endpointing import (
    Ended,
    Endpointer,
    EndpointingRules,
    Fact,
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
    return Ended(at, fact.reason) if isinstance(fact, Ended) else type(fact)(at)


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
