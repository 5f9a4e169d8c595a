"""Two hundred calls, most of them broken off at some moment, leave nothing behind; and a leak would be found."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # a benchmark is a program: it is on no path

from benchmarks.soak import (  # noqa: E402
    BLOCKS_LIMIT,
    MB,
    Generators,
    Plan,
    inventory,
    left_behind,
    left_in_loop,
    malformed,
    scripted_agent,
    scripted_callers,
    soak,
)
from voicectl.clock import Clock, ClockKind, run_on  # noqa: E402
from voicectl.events import (  # noqa: E402
    CallEnded,
    CallStarted,
    Event,
    PlayoutFinished,
    ReplyCancelled,
    ReplyStarted,
)


def quiet(text: str) -> None:
    """Nobody waits."""


def plan(clock: ClockKind) -> Plan:
    # Other tests of this process have left room in the heap and may fill it: resident memory says
    # nothing here, allocated blocks do.
    return Plan(agent=scripted_agent(clock), callers=scripted_callers(), clock=clock, rss_limit=200 * MB)


def test_two_hundred_calls_broken_off_at_any_moment_leave_nothing_behind() -> None:
    result = soak(plan("virtual"), quiet)
    assert result.problems == []
    assert set(result.ended) == {"caller hung up", "agent hung up", "interrupted", "never begun"}
    assert min(result.ended.values()) >= 10, "every way to end was tried"


@pytest.mark.wall
def test_many_short_calls_in_real_time_leave_nothing_behind() -> None:
    # Who falls silent takes twice as long as the others.
    short = [one for one in scripted_callers() if one.name != "falls silent"]
    result = soak(replace(plan("wall"), callers=short, calls=40, at_once=40), quiet)
    assert result.problems == []


# A leak is found ----------------------------------------------------------------------------------


def found_in_loop(leak: Callable[[Clock, list[object]], object]) -> list[str]:
    """What the checker says of a loop in which `leak(clock, kept)` was called."""
    kept: list[object] = []

    async def main(clock: Clock) -> list[str]:
        generators = Generators()
        with generators.watched():
            done = leak(clock, kept)
            if asyncio.iscoroutine(done):
                await done
            found = await left_in_loop(generators, clock)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return found

    return run_on("virtual", main)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def numbers() -> AsyncGenerator[int, None]:
    yield 1
    yield 2


async def all_read(clock: Clock, kept: list[object]) -> None:
    async for _ in numbers():
        pass


async def open_kept(clock: Clock, kept: list[object]) -> None:
    generator = numbers()
    await anext(generator)
    kept.append(generator)


async def dropped(clock: Clock, kept: list[object]) -> None:
    await anext(numbers())


def test_a_generator_that_was_read_to_its_end_is_no_leak() -> None:
    assert found_in_loop(all_read) == []


def test_a_task_that_never_ends_is_found() -> None:
    assert found_in_loop(lambda clock, kept: kept.append(clock.spawn(forever(), name="stray"))) == ["task 'stray'"]


def test_a_generator_left_open_is_found() -> None:
    assert found_in_loop(open_kept) == ["open generator numbers"]


def test_a_generator_dropped_before_its_end_is_found() -> None:
    assert found_in_loop(dropped) == ["abandoned generator numbers"]


def test_nothing_is_found_where_nothing_was_left() -> None:
    assert left_behind(inventory(), inventory()) == []


def test_a_thread_is_found() -> None:
    before = inventory()
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="stray")
    thread.start()
    try:
        assert left_behind(before, inventory()) == ["thread 'stray'"]
    finally:
        over.set()
        thread.join()


def test_an_open_file_is_found(tmp_path: Path) -> None:
    before = inventory()
    with (tmp_path / "call.wav").open("wb"):
        assert left_behind(before, inventory()) == [f"open file {tmp_path / 'call.wav'}"]


def test_objects_are_found() -> None:
    before = inventory()
    kept = [object() for _ in range(2 * BLOCKS_LIMIT)]
    (found,) = left_behind(before, inventory())
    assert "blocks of Python objects" in found
    del kept


def test_large_buffers_are_found() -> None:
    before = inventory()
    kept = b"\1" * (64 * MB)
    (found,) = left_behind(before, inventory(), rss_limit=16 * MB)
    assert "MB of resident memory" in found
    del kept


START = CallStarted(at=0.0, agent="coffee", caller="ann", clock="virtual", rate=16_000)
END = CallEnded(at=9.0, reason="caller hung up")
REPLY = ReplyStarted(at=1.0, reply=0, turn=None, prompt="", held=False, kind="greeting")
OVER = PlayoutFinished(at=2.0, reply=0, heard="Hello.")


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([START, REPLY, OVER, END], []),
        ([START, REPLY, END], ["reply 0 ends 0 times"]),
        ([START, REPLY, OVER, ReplyCancelled(at=2.0, reply=0, reason="call ended"), END], ["reply 0 ends 2 times"]),
        ([START, OVER, END], ["reply 0 ends and never began"]),
        ([START, REPLY, OVER], ["CallEnded is not last, once"]),
        ([START, REPLY, END, OVER], ["CallEnded is not last, once"]),
        ([REPLY, OVER, END], ["CallStarted is not first, once"]),
    ],
)
def test_a_malformed_trace_is_told(events: list[Event], wrong: list[str]) -> None:
    assert malformed(events) == wrong


def test_a_call_that_leaks_is_found_by_the_soak_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that keeps a little of every event for ever."""
    from voicectl.pipeline.session import Session

    kept: list[object] = []
    noted = Session.note

    def keeping(self: Session, event: Event) -> None:
        kept.append([event.at] * 20)
        noted(self, event)

    monkeypatch.setattr(Session, "note", keeping)
    result = soak(replace(plan("virtual"), calls=60), quiet)
    assert any("blocks of Python objects" in problem for problem in result.problems)
