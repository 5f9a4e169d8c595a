"""The clocks: virtual time jumps, keeps its order, and refuses what is not on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voicectl.clock import Clock, VirtualLoop, run_on
from voicectl.errors import VirtualTimeError


def test_an_hour_of_virtual_time_needs_no_waiting() -> None:
    async def main(clock: Clock) -> float:
        await clock.sleep_until(3600)
        return clock.now()

    assert run_on("virtual", main) == 3600


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_timers_of_one_instant_fire_in_the_order_they_were_armed(instants: list[int]) -> None:
    async def main(clock: Clock) -> list[tuple[int, int]]:
        fired: list[tuple[int, int]] = []

        async def wait(index: int, at: int) -> None:
            await clock.sleep_until(at)
            fired.append((at, index))

        tasks = [clock.spawn(wait(index, at), name=str(index)) for index, at in enumerate(instants)]
        await asyncio.gather(*tasks)
        return fired

    fired = run_on("virtual", main)
    assert fired == sorted(fired)


def test_timers_armed_at_different_times_for_one_instant_keep_their_order() -> None:
    async def main(clock: Clock) -> list[str]:
        fired: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_at(1.0, fired.append, "armed first")
        await clock.sleep_until(0.5)
        loop.call_at(1.0, fired.append, "armed second")
        await clock.sleep_until(2.0)
        return fired

    assert run_on("virtual", main) == ["armed first", "armed second"]


def test_code_that_rearms_at_now_for_ever_does_not_stop_time() -> None:
    async def main(clock: Clock) -> bool:
        loop = asyncio.get_running_loop()
        stop = False

        def again() -> None:
            if not stop:
                loop.call_at(loop.time(), again)

        again()
        await clock.sleep_until(0.001)
        stop = True
        return True

    assert run_on("virtual", main)


def test_when_nothing_can_happen_the_waiting_tasks_are_named() -> None:
    async def main(clock: Clock) -> None:
        async def stuck() -> None:
            await asyncio.get_running_loop().create_future()

        await clock.spawn(stuck(), name="turn 3 stt")

    with pytest.raises(VirtualTimeError, match="task 'turn 3 stt' waits in stuck"):
        run_on("virtual", main)


def test_a_real_socket_is_refused_on_virtual_time() -> None:
    async def main(clock: Clock) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            server.setblocking(False)
            await asyncio.get_running_loop().sock_accept(server)

    with pytest.raises(VirtualTimeError, match="real socket"):
        run_on("virtual", main)


def test_a_thread_is_refused_on_virtual_time_but_clock_run_works_in_line() -> None:
    async def main(clock: Clock) -> int:
        with pytest.raises(VirtualTimeError, match="thread"):
            await asyncio.to_thread(int)
        return await clock.run(lambda: 42)

    assert run_on("virtual", main) == 42


def test_library_timeouts_obey_virtual_time() -> None:
    async def main(clock: Clock) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.get_running_loop().create_future()
        return clock.now()

    assert run_on("virtual", main) == 30


@pytest.mark.wall
def test_the_wall_clock_waits_and_runs_work_in_a_thread() -> None:
    async def main(clock: Clock) -> tuple[bool, int]:
        start = clock.now()
        await clock.sleep_until(start + 0.02)
        return clock.now() >= start + 0.02, await clock.run(lambda: 42)

    assert run_on("wall", main) == (True, 42)


Steps = list[tuple[int, int]]


def _never(loop: VirtualLoop, when: float) -> bool:
    return False


def _run_steps(tasks: list[Steps], *, skip: bool, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, float]]:
    """What several tasks note that wait, yield and wake one another, in order."""

    async def main(clock: Clock) -> list[tuple[int, int, float]]:
        noted: list[tuple[int, int, float]] = []
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def run(number: int, steps: Steps) -> None:
            for index, (kind, wait) in enumerate(steps):
                if kind == 0:
                    await clock.sleep_until(clock.now() + wait / 100)
                elif kind == 1:
                    await clock.sleep_until(round(clock.now() + wait / 100, 1))
                elif kind == 2:
                    queue.put_nowait(number)
                else:
                    async with asyncio.timeout(wait / 50):
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(queue.get(), wait / 100)
                noted.append((number, index, clock.now()))

        await asyncio.gather(*(clock.spawn(run(*each), name=f"task {each[0]}") for each in enumerate(tasks)))
        return noted

    with monkeypatch.context() as patch:
        if not skip:
            patch.setattr(VirtualLoop, "skip_to", _never)
        return run_on("virtual", main)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), max_size=8), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_skipping_ahead_changes_no_order_and_no_time(monkeypatch: pytest.MonkeyPatch, tasks: list[Steps]) -> None:
    both = [_run_steps(tasks, skip=skip, monkeypatch=monkeypatch) for skip in (True, False)]
    assert both[0] == both[1]


def test_a_task_that_cancelled_itself_hears_it_where_it_waits() -> None:
    async def main(clock: Clock) -> str:
        task = asyncio.current_task()
        assert task
        task.cancel()
        try:
            await clock.sleep_until(1)
        except asyncio.CancelledError:
            task.uncancel()
            return "heard"
        return "missed"

    assert run_on("virtual", main) == "heard"


def test_ctrl_c_stops_a_task_that_sleeps_for_ever() -> None:
    script = """
import signal, threading
from voicectl.clock import run_on

async def main(clock):
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    while True:
        await clock.sleep_until(clock.now() + 1)

try:
    run_on("virtual", main)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "stopped\n", done.stderr
