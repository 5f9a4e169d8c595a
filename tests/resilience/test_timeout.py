"""Waits for the first piece, for the next, and for an answer to a flush."""

from __future__ import annotations

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.resilience.timeout import Timeouts
from voicectl.resilience.wrapping import Place
from voicectl.spec.agent import TimeoutSpec

from .support import ASKED, Fake, FakeStt, Notes, on_clock, said, transcripts

RULES = TimeoutSpec(first_ms=1000, gap_ms=500)


def test_an_answer_in_time_passes_as_it_comes() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [0.9, "Sure, ", 0.4, "one latte."])
        assert await said(Timeouts(Place("llm", "fake"), RULES, clock, notes).llm(fake).generate(ASKED)) == (
            "Sure, one latte."
        )
        assert notes.events == []

    on_clock(main)


def test_a_late_first_piece_drops_the_request_and_says_so() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [1.1, "Sure."])
        llm = Timeouts(Place("llm", "fake"), RULES, clock, notes).llm(fake)
        assert await said(llm.generate(ASKED)) == "... no first byte within 1000 ms"
        assert notes.lines("what") == ["1.00 ProviderTimedOut first byte"]
        assert fake.running == 0

    on_clock(main)


def test_a_gap_drops_it_after_what_was_said() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, [0.2, "Sure, ", 60.0, "one latte."])
        llm = Timeouts(Place("llm", "fake"), RULES, clock, notes).llm(fake)
        assert await said(llm.generate(ASKED)) == "Sure, ... no next piece within 500 ms"
        assert notes.lines("what") == ["0.70 ProviderTimedOut next piece"]

    on_clock(main)


def test_the_time_the_reader_takes_is_nobodys_gap() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        fake = Fake(clock, ["Sure, ", "one ", "latte."])
        chunks = Timeouts(Place("llm", "fake"), RULES, clock, notes).llm(fake).generate(ASKED)
        async for _ in chunks:
            await clock.sleep_until(clock.now() + 2.0)
        assert notes.events == []

    on_clock(main)


def test_an_stt_has_as_long_from_each_flush_on() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        stt = Timeouts(Place("stt", "fake"), RULES, clock, notes).stt(FakeStt(clock, 0.9))
        stream = stt.open(0.0)
        await clock.sleep_until(clock.now() + 30.0)  # nobody asked it anything
        stream.flush()
        assert [one.flush for one in await transcripts(stream)] == [1]
        assert notes.events == []

    on_clock(main)


def test_an_stt_that_does_not_answer_is_given_up_while_it_is_listened_to() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        stream = Timeouts(Place("stt", "fake"), RULES, clock, notes).stt(FakeStt(clock, None)).open(0.0)

        async def ask() -> None:
            await clock.sleep_until(clock.now() + 3.0)
            stream.flush()

        asking = clock.spawn(ask(), name="asking")
        try:
            await transcripts(stream)
            raise AssertionError
        except ProviderError as error:
            assert error.kind == "timeout"
        await asking
        assert notes.lines("what") == ["4.00 ProviderTimedOut first byte"]

    on_clock(main)
