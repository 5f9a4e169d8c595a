"""Running ahead: never further than allowed, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.clock import Clock, run_on
from voicectl.pipeline.buffered import buffered


class Source:
    """Counts: an item every `every_s`, and notes how it was closed."""

    def __init__(self, clock: Clock, count: int, every_s: float = 0.0, fails: BaseException | None = None) -> None:
        self.clock = clock
        self.count = count
        self.every_s = every_s
        self.fails = fails
        self.made = 0
        self.closed: str | None = None
        self.closed_at = 0.0
        self.fails_to_close: Exception | None = None

    async def items(self) -> AsyncGenerator[int, None]:
        self.closed = "not yet"
        try:
            for item in range(self.count):
                if self.every_s:
                    await self.clock.sleep_until(self.clock.now() + self.every_s)
                self.made += 1
                yield item
            if self.fails:
                raise self.fails
            self.closed = "at its end"
        except asyncio.CancelledError:
            self.closed = "cancelled"
            raise
        except GeneratorExit:
            self.closed = "closed"
            raise
        finally:
            self.closed_at = self.clock.now()
            if self.fails_to_close:
                raise self.fails_to_close


Test = Callable[[Clock], Coroutine[Any, Any, None]]


def on_virtual_time(test: Test) -> None:
    """Run the test, and find no task but its own afterwards."""

    async def main(clock: Clock) -> list[str]:
        await test(clock)
        return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert run_on("virtual", main) == []


@given(st.integers(1, 4), st.integers(0, 12))
@settings(deadline=None, max_examples=40)
def test_everything_is_read_in_order_and_never_too_far_ahead(size: int, count: int) -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, count)
        read: list[int] = []
        async with buffered(source.items(), size=size, clock=clock, name="source") as items:
            async for item in items:
                await clock.sleep_until(clock.now() + 1.0)
                assert source.made <= len(read) + 1 + size + 1, "what is read, what waits, and one in hand"
                read.append(item)
        assert read == list(range(count))
        assert source.closed == "at its end"

    on_virtual_time(test)


def test_the_source_works_while_the_reader_is_busy() -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 4, every_s=1.0)
        async with buffered(source.items(), size=2, clock=clock, name="source") as items:
            async for _ in items:
                await clock.sleep_until(clock.now() + 1.0)
        assert clock.now() == 5.0, "one second for the first, then both at once"

    on_virtual_time(test)


@given(st.integers(1, 4), st.integers(0, 8))
@settings(deadline=None, max_examples=40)
def test_an_error_of_the_source_is_raised_after_the_items_before_it(size: int, count: int) -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, count, fails=ValueError("broken"))
        read: list[int] = []
        with pytest.raises(ValueError, match="broken"):
            async with buffered(source.items(), size=size, clock=clock, name="source") as items:
                async for item in items:
                    await clock.sleep_until(clock.now() + 1.0)
                    read.append(item)
        assert read == list(range(count))

    on_virtual_time(test)


def test_leaving_early_stops_a_source_that_is_waiting() -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 100, every_s=1.0)
        async with buffered(source.items(), size=2, clock=clock, name="source") as items:
            async for item in items:
                if item == 1:
                    break
            await clock.sleep_until(2.5)
        assert (source.closed, source.closed_at) == ("cancelled", 2.5)

    on_virtual_time(test)


def test_leaving_early_closes_a_source_that_is_too_far_ahead() -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 100)
        async with buffered(source.items(), size=2, clock=clock, name="source"):
            await clock.sleep_until(1.0)
        assert (source.made, source.closed) == (3, "closed")

    on_virtual_time(test)


def test_leaving_at_once_never_starts_the_source() -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 100)
        async with buffered(source.items(), size=2, clock=clock, name="source"):
            pass
        assert (source.made, source.closed) == (0, None)

    on_virtual_time(test)


@pytest.mark.parametrize("reading", [True, False])
def test_cancelling_the_reader_closes_the_source(reading: bool) -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 100, every_s=1.0)

        async def read() -> None:
            async with buffered(source.items(), size=2, clock=clock, name="source") as items:
                async for _ in items:
                    if not reading:
                        await clock.sleep_until(1000)

        task = clock.spawn(read(), name="reader")
        await clock.sleep_until(1.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert (source.closed, source.closed_at) == ("cancelled", 1.5)

    on_virtual_time(test)


def test_an_error_of_the_reader_comes_out_and_closes_the_source() -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 100, every_s=1.0)
        with pytest.raises(KeyError):
            async with buffered(source.items(), size=2, clock=clock, name="source") as items:
                async for _ in items:
                    raise KeyError
        assert source.closed == "cancelled"

    on_virtual_time(test)


@pytest.mark.parametrize("every_s", [0.0, 1.0])
def test_a_source_that_fails_to_close_is_not_waited_for_for_ever(every_s: float) -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 100, every_s=every_s)
        source.fails_to_close = ValueError("cannot close")
        with pytest.raises(ValueError, match="cannot close"):
            async with buffered(source.items(), size=1, clock=clock, name="source"):
                await clock.sleep_until(3.5)

    on_virtual_time(test)


def test_a_source_that_was_cancelled_from_within_does_not_leave_its_reader_waiting() -> None:
    async def test(clock: Clock) -> None:
        source = Source(clock, 1, fails=asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            async with buffered(source.items(), size=2, clock=clock, name="source") as items:
                async for _ in items:
                    pass

    on_virtual_time(test)
