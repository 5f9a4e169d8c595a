"""When nobody asks, and who may try again."""

from __future__ import annotations

import asyncio

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.resilience.breaker import Breaker, Broken
from voicectl.resilience.wrapping import Place
from voicectl.spec.agent import BreakerSpec

from .support import ASKED, Fake, FakeStt, Notes, failure, on_clock, said, transcripts

RULES = BreakerSpec(failures=3, open_ms=10_000, window_ms=30_000)
PLACE = Place("llm", "fake")


def breaker(fake: Fake, clock: Clock, rules: BreakerSpec = RULES) -> Breaker:
    async def restart() -> None:
        await fake.start(lambda text: None)

    return Breaker(PLACE, rules, clock, restart)


async def after(clock: Clock, seconds: float) -> None:
    await clock.sleep_until(clock.now() + seconds)


def test_it_opens_after_so_many_failures_and_then_nobody_waits() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [1.0, failure()])
        llm = Broken(breaker(fake, clock), notes).llm(fake)
        for _ in range(3):
            assert await said(llm.generate(ASKED)) == "... a server failure"
        assert notes.lines("state") == ["3.00 BreakerChanged open"]
        assert await said(llm.generate(ASKED)) == "... is not asked: a server failure"
        assert (notes.now(), len(fake.asked)) == (3.0, 3)

    on_clock(main)


def test_all_calls_share_it() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [failure()])
        shared = breaker(fake, clock)
        for _ in range(3):
            await said(Broken(shared, notes).llm(fake).generate(ASKED))
        other = Notes(clock)
        assert await said(Broken(shared, other).llm(fake).generate(ASKED)) == "... is not asked: a server failure"

    on_clock(main)


def test_one_that_answers_half_of_the_time_stays_closed() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, *([failure()] if number % 3 == 2 else ["Sure."] for number in range(40)))
        llm = Broken(breaker(fake, clock), notes).llm(fake)
        for _ in range(40):
            await said(llm.generate(ASKED))
        assert notes.events == []

    on_clock(main)


def test_failures_of_long_ago_do_not_count() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [failure()])
        llm = Broken(breaker(fake, clock), notes).llm(fake)
        for _ in range(5):
            await said(llm.generate(ASKED))
            await after(clock, 16.0)
        assert notes.events == []

    on_clock(main)


def test_after_a_while_one_may_try_and_closes_it() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, *[[failure()]] * 3, [0.5, "Sure."])
        llm = Broken(breaker(fake, clock), notes).llm(fake)
        for _ in range(3):
            await said(llm.generate(ASKED))
        await after(clock, 10.0)
        trial = clock.spawn(said(llm.generate(ASKED)), name="trial")
        await after(clock, 0.2)
        assert (await said(llm.generate(ASKED))).startswith("... is not asked")  # only one
        assert await trial == "Sure."
        assert await said(llm.generate(ASKED)) == "Sure."
        assert notes.lines("state") == [
            "0.00 BreakerChanged open",
            "10.00 BreakerChanged half-open",
            "10.50 BreakerChanged closed",
        ]

    on_clock(main)


def test_or_opens_it_again() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [failure()])
        llm = Broken(breaker(fake, clock), notes).llm(fake)
        for _ in range(3):
            await said(llm.generate(ASKED))
        await after(clock, 10.0)
        await said(llm.generate(ASKED))
        await after(clock, 9.9)
        assert (await said(llm.generate(ASKED))).startswith("... is not asked")
        assert [one.split()[-1] for one in notes.lines("state")] == ["open", "half-open", "open"]

    on_clock(main)


def test_one_that_was_cancelled_has_not_tried() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, *[[failure()]] * 3, [60.0], ["Sure."])
        llm = Broken(breaker(fake, clock), notes).llm(fake)
        for _ in range(3):
            await said(llm.generate(ASKED))
        await after(clock, 10.0)
        trial = clock.spawn(said(llm.generate(ASKED)), name="trial")
        await after(clock, 0.1)
        trial.cancel()
        await asyncio.wait([trial])
        assert await said(llm.generate(ASKED)) == "Sure."
        assert notes.lines("state")[-1].endswith("closed")

    on_clock(main)


def test_a_provider_that_did_not_start_is_started_in_the_background() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, ["Sure."])
        fake.starts = [failure("unreachable")]
        shared = breaker(fake, clock)
        shared.did_not_start("no key")
        llm = Broken(shared, notes).llm(fake)
        assert await said(llm.generate(ASKED)) == "... is not asked: it did not start: no key"
        for _ in range(2):  # the first attempt fails as well
            await after(clock, 10.0)
            assert (await said(llm.generate(ASKED))).startswith("... is not asked: it did not start")
            await after(clock, 0.1)
        assert await said(llm.generate(ASKED)) == "Sure."
        await shared.aclose()

    on_clock(main)


def test_an_stt_counts_turns() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        last = ""
        fake = FakeStt(clock, *[failure()] * 3, 0.1)
        shared = Breaker(Place("stt", "fake"), RULES, clock, fake_start)
        stt = Broken(shared, notes).stt(fake)
        for _ in range(4):
            stream = stt.open(0.0)
            stream.flush()
            try:
                await transcripts(stream)
            except ProviderError as error:
                last = str(error)
        assert last == "stt:fake: is not asked: a server failure"
        assert len(fake.streams) == 3
        await after(clock, 10.0)
        stream = stt.open(0.0)
        stream.flush()
        assert len(await transcripts(stream)) == 1
        assert [one.split()[-1] for one in notes.lines("state")] == ["open", "half-open", "closed"]

    async def fake_start() -> None: ...

    on_clock(main)
