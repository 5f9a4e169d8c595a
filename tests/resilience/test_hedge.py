"""Two requests race, one is heard."""

from __future__ import annotations

import asyncio

import numpy as np

from voicectl.clock import Clock
from voicectl.resilience.hedge import Hedges, Lateness
from voicectl.resilience.wrapping import Place
from voicectl.spec.agent import HedgeSpec

from .support import ASKED, Fake, FakeStt, Notes, failure, on_clock, said, transcripts


def hedges(clock: Clock, notes: Notes, rules: HedgeSpec | None = None, stage: str = "llm") -> Hedges:
    return Hedges(Place(stage, "fake"), rules or HedgeSpec(after_ms=400), Lateness(), clock, notes)


def test_who_is_in_time_is_asked_once() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [0.3, "Sure, ", 2.0, "one latte."])
        assert await said(hedges(clock, notes).llm(fake).generate(ASKED)) == "Sure, one latte."
        assert (len(fake.asked), notes.events) == (1, [])

    on_clock(main)


def test_the_second_is_heard_when_it_is_faster_and_the_first_is_cancelled() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [3.0, "Late."], [0.2, "Sure, ", 1.0, "one latte."])
        chunks = hedges(clock, notes).llm(fake).generate(ASKED)
        assert (await anext(chunks)) is not None
        assert (notes.now(), fake.running) == (0.6, 1)
        assert await said(chunks) == "one latte."
        assert notes.lines() == ["0.40 HedgeStarted", "0.60 HedgeDecided"]
        assert notes.of("HedgeDecided")[0].winner == "second"

    on_clock(main)


def test_the_first_may_still_win() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [0.5, "First."], [0.2, "Second."])
        assert await said(hedges(clock, notes).llm(fake).generate(ASKED)) == "First."
        assert notes.of("HedgeDecided")[0].winner == "first"
        assert fake.running == 0

    on_clock(main)


def test_a_second_that_fails_leaves_the_first_alone_and_the_other_way_round() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [1.0, "First."], [failure()])
        assert await said(hedges(clock, notes).llm(fake).generate(ASKED)) == "First."
        other = Fake(clock, [0.5, failure()], [0.5, "Second."])
        assert await said(hedges(clock, notes).llm(other).generate(ASKED)) == "Second."
        both = Fake(clock, [0.5, failure("server")], [0.2, failure("timeout")])
        assert await said(hedges(clock, notes).llm(both).generate(ASKED)) == "... a server failure"

    on_clock(main)


def test_a_failure_before_the_second_was_asked_is_its_own() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [0.1, failure()], ["Second."])
        assert await said(hedges(clock, notes).llm(fake).generate(ASKED)) == "... a server failure"
        assert notes.events == []

    on_clock(main)


def test_who_is_interrupted_leaves_nothing_behind() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [60.0, "Late."])
        task = clock.spawn(said(hedges(clock, notes).llm(fake).generate(ASKED)), name="answer")
        await clock.sleep_until(clock.now() + 1.0)
        assert fake.running == 2
        task.cancel()
        await asyncio.wait([task])
        assert fake.running == 0

    on_clock(main)


def test_a_call_has_a_budget() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [1.0, "Sure."])
        llm = hedges(clock, notes, HedgeSpec(after_ms=400, per_call=2)).llm(fake)
        for _ in range(5):
            await said(llm.generate(ASKED))
        assert len(fake.asked) == 5 + 2

    on_clock(main)


def test_it_learns_when_the_first_is_late() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        lots = np.random.default_rng(5)
        waits = np.exp(lots.normal(np.log(0.2), 0.3, 400))
        fake = Fake(clock, *([float(wait), "Sure."] for wait in waits))
        lateness = Lateness()
        for _ in range(200):
            llm = Hedges(Place("llm", "fake"), HedgeSpec(), lateness, clock, notes).llm(fake)
            await said(llm.generate(ASKED))
        assert abs(lateness.late_s() - 1.1 * np.quantile(waits, 0.95)) < 0.06
        assert 3 <= len(notes.of("HedgeStarted")) <= 25  # about one in twenty

    on_clock(main)


def test_of_one_who_always_takes_the_same_time_nobody_is_late() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [0.2, "Sure."])
        llm = hedges(clock, notes, HedgeSpec()).llm(fake)
        for _ in range(60):
            await said(llm.generate(ASKED))
        assert notes.events == []

    on_clock(main)


def test_a_late_transcript_is_asked_for_a_second_time() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = FakeStt(clock, 3.0, 0.2)
        stream = hedges(clock, notes, stage="stt").stt(fake).open(1.0)
        stream.push(b"abcd")
        stream.flush()
        stream.push(b"ef")
        heard = await transcripts(stream)
        assert [(one.text, one.flush) for one in heard] == [("4", 1)]
        assert notes.lines() == ["0.40 HedgeStarted", "0.60 HedgeDecided"]
        assert [one.closed for one in fake.streams] == [True, True]
        assert fake.streams[1].heard == b"abcdef"

    on_clock(main)


def test_the_winner_hears_the_rest_of_the_turn() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = FakeStt(clock, None, 0.2)
        stream = hedges(clock, notes, stage="stt").stt(fake).open(1.0)
        stream.push(b"abcd")
        stream.flush()

        async def goes_on() -> None:
            await clock.sleep_until(clock.now() + 2.0)
            stream.push(b"ef")
            stream.flush()

        going_on = clock.spawn(goes_on(), name="caller")
        assert [(one.text, one.flush) for one in await transcripts(stream, 2)] == [("4", 1), ("6", 2)]
        await going_on

    on_clock(main)
