"""What is asked again, when, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.resilience.breaker import NobodyAsked
from voicectl.resilience.retry import SAFE, Retries
from voicectl.resilience.wrapping import Place
from voicectl.spec.agent import RetrySpec

from .support import ASKED, Fake, FakeStt, Notes, Step, failure, on_clock, said, transcripts

RULES = RetrySpec(attempts=2, first_ms=100, most_ms=2000)


def asked(*timelines: list[Step], rules: RetrySpec = RULES, times: int = 1, seed: int = 1) -> tuple[Any, Notes, str]:
    async def main(clock: Clock, notes: Notes) -> tuple[Any, Notes, str]:
        fake = Fake(clock, *timelines)
        llm = Retries(Place("llm", "fake"), rules, clock, notes, np.random.default_rng(seed)).llm(fake)
        texts = [await said(llm.generate(ASKED)) for _ in range(times)]
        return fake, notes, texts[-1]

    return on_clock(main)


@pytest.mark.parametrize("kind", sorted(SAFE))
def test_what_may_pass_is_asked_again(kind: str) -> None:
    fake, notes, text = asked([failure(kind)], ["Sure."])
    assert text == "Sure."
    assert len(fake.asked) == 2
    assert [(one.attempt, one.why) for one in notes.events] == [(1, f"a {kind} failure")]


def test_nobody_waits_to_ask_where_the_breaker_is_open() -> None:
    async def main(clock: Clock, notes: Notes) -> tuple[str, float, list[Any]]:
        fake = Fake(clock, [failure()])
        lots = np.random.default_rng(1)
        llm = Retries(Place("llm", "fake"), RULES, clock, notes, lots, lambda: bool(fake.asked)).llm(fake)
        begun = clock.now()
        return await said(llm.generate(ASKED)), clock.now() - begun, notes.events

    text, waited, events = on_clock(main)
    assert (text, events) == ("... a server failure", [])
    assert waited == pytest.approx(0.0, abs=0.001)


@pytest.mark.parametrize("kind", ["refused", "failed"])
def test_what_will_be_the_same_is_not(kind: str) -> None:
    fake, notes, text = asked([failure(kind)], ["Sure."])
    assert text == f"... a {kind} failure"
    assert (len(fake.asked), notes.events) == (1, [])


def test_nothing_is_asked_again_of_which_the_caller_has_heard() -> None:
    fake, notes, text = asked(["Sure, ", failure()], ["Sure, one latte."])
    assert text == "Sure, ... a server failure"
    assert (len(fake.asked), notes.events) == (1, [])


def test_it_is_given_up_after_so_many_attempts() -> None:
    fake, notes, text = asked([failure()])
    assert text == "... a server failure"
    assert len(fake.asked) == 3
    assert [one.attempt for one in notes.events] == [1, 2]


def test_waits_are_drawn_by_lot_below_a_bound_that_doubles() -> None:
    waits = np.array([[one.wait for one in asked([failure()], seed=seed)[1].events] for seed in range(60)])
    assert (waits[:, 0] < 0.1).all()
    assert (waits[:, 1] < 0.2).all()
    assert waits[:, 1].max() > 0.15
    assert waits.min() < 0.02  # full jitter: from 0 on
    again = [one.wait for one in asked([failure()], seed=3)[1].events]
    assert again == list(waits[3])


def test_what_the_vendor_asks_for_is_kept() -> None:
    fake, notes, text = asked([failure("rate_limited", 1.5)], ["Sure."])
    assert text == "Sure."
    assert [one.wait for one in notes.events] == [1.5]
    assert fake.at == [0.0, 1.5]


def test_and_given_up_when_it_is_too_long() -> None:
    fake, _, text = asked([failure("rate_limited", 2.5)], ["Sure."])
    assert text == "... a rate_limited failure"
    assert len(fake.asked) == 1


def test_a_call_has_a_budget() -> None:
    fake, _, _ = asked([failure()], rules=RetrySpec(attempts=3, per_call=4), times=5)
    assert len(fake.asked) == 5 + 4


def test_an_open_breaker_is_not_asked_again() -> None:
    fake, notes, _ = asked([NobodyAsked("is not asked", kind="unreachable")], ["Sure."])
    assert (len(fake.asked), notes.events) == (1, [])


def test_a_turn_is_told_again_with_all_that_was_said_meanwhile() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = FakeStt(clock, failure("unreachable"), 0.1)
        stt = Retries(Place("stt", "fake"), RULES, clock, notes, np.random.default_rng(1)).stt(fake)
        stream = stt.open(3.0)
        stream.push(b"abcd")
        stream.flush()
        stream.push(b"ef")
        heard = await transcripts(stream)
        assert [(one.text, one.flush) for one in heard] == [("4", 1)]
        first, second = fake.streams
        assert (first.closed, second.start, second.heard) == (True, 3.0, b"abcdef")
        assert [type(event).__name__ for event in notes.events] == ["ProviderRetried"]

    on_clock(main)


def test_a_turn_nobody_hears_raises_the_last_failure() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = FakeStt(clock, failure("unreachable"))
        stt = Retries(Place("stt", "fake"), RULES, clock, notes, np.random.default_rng(1)).stt(fake)
        with pytest.raises(ProviderError, match="unreachable"):
            await transcripts(stt.open(0.0))
        assert len(fake.streams) == 3
        assert all(stream.closed for stream in fake.streams)

    on_clock(main)
