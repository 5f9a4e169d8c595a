"""The one clock of a run: what time it is, how to wait, where work and tasks start.

The clock *is* the event loop's time, so a library's timeouts obey it too. The wall clock runs on
an ordinary loop. The virtual clock runs on a loop that jumps to the next timer instead of
waiting: ten minutes of conversation take seconds, and the same inputs give the same order of
events, byte for byte.

Rules the virtual loop keeps:

- Time moves on a grid of one microsecond. Timers due at the same instant fire in the order they
  were armed, on any Python version (a heap alone would fire them in any order).
- Code that re-arms a timer "now" for ever is pushed on by one microsecond, so time always moves.
- When every task waits and no timer is due, it raises and names the waiting tasks.
- Real sockets and threads are refused: their timing is not on this clock.

This file is the only door to `asyncio.create_task`, `asyncio.to_thread` and the monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar, cast

from voicectl.errors import VirtualTimeError

T = TypeVar("T")
ClockKind = Literal["wall", "virtual"]

_GRID_S = 1e-6
_FIFO_NUDGE_S = 1e-10
_TIMERS_PER_INSTANT = 2_000  # as many nudges as fit under half a grid step, with room to spare
_ARMED_LIMIT = 10_000
_SKIPS_A_TURN = 1_000
_TURNS_A_POLL = 64  # a Ctrl-C wakes the loop through the pipe, and can wait for so many turns of it


class Clock:
    """Time, waiting, work and tasks. One per run; get it from `run_on`.

    All times are seconds of the loop's clock (`now()`), of no meaning but their differences.
    """

    def __init__(self, kind: ClockKind) -> None:
        self.kind: ClockKind = kind
        self._loop = asyncio.get_running_loop()
        self._virtual = self._loop if isinstance(self._loop, VirtualLoop) else None
        self._tasks: set[asyncio.Task[Any]] = set()

    def now(self) -> float:
        """Seconds on this clock."""
        return self._loop.time()

    async def sleep_until(self, when: float) -> None:
        """Wait until `now() >= when`. On the virtual clock it returns at once (without yielding) when
        that is past, or when nothing else can happen until then; on the wall clock everybody else
        gets a turn, so that who runs late does not keep the others from running at all."""
        if when - self._loop.time() <= 0:
            if not self._virtual:
                await asyncio.sleep(0)
        elif not (self._virtual and self._virtual.skip_to(when)):
            future: asyncio.Future[None] = self._loop.create_future()
            handle = self._loop.call_at(when, _wake, future)
            try:
                await future
            except BaseException:
                handle.cancel()
                raise

    def alarm(self, when: float) -> asyncio.Future[None]:
        """To wait for: done at `when`, or as soon as somebody sets its result."""
        future: asyncio.Future[None] = self._loop.create_future()
        handle = self._loop.call_at(when, _wake, future)
        future.add_done_callback(lambda _: handle.cancel())
        return future

    def never(self) -> asyncio.Future[None]:
        """To wait for: done only when somebody sets its result."""
        return self._loop.create_future()

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Run blocking CPU work: in a thread on the wall clock, in line on the virtual one."""
        if self.kind == "wall":
            return await asyncio.to_thread(work, *args)
        return work(*args)

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task that the clock keeps alive and can name."""
        task = self._loop.create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def run_on(kind: ClockKind, main: Callable[[Clock], Coroutine[Any, Any, T]]) -> T:
    """Run `main(clock)` to its end on a fresh loop of that kind and return its result.

    Raises:
        VirtualTimeError: on the virtual clock, when nothing can happen any more.
        KeyboardInterrupt: when interrupted and `main` did not turn the cancellation into a result.

    SIGTERM, which is how CI ends what takes too long, cancels `main` like Ctrl-C.
    """

    async def entry() -> T:
        task = asyncio.current_task()
        if kind == "wall" and task and threading.current_thread() is threading.main_thread():
            with contextlib.suppress(NotImplementedError):  # Windows has no such signals
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main(Clock(kind))

    factory = VirtualLoop if kind == "virtual" else None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(entry())
    except asyncio.CancelledError:  # by SIGTERM; the runner itself translates Ctrl-C
        raise KeyboardInterrupt from None


class _NoWaitSelector(selectors.DefaultSelector):
    """Never waits: tells the loop to jump instead. Knows only the loop's own wake-up pipe; any
    other socket is real time and refused."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[], None] | None = None
        self._own: int | None = None
        self._turns = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        descriptor: int = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if self._own is None:
            self._own = descriptor
        elif descriptor != self._own:
            raise VirtualTimeError(
                "a real socket cannot run on the virtual clock",
                hint="Use recorded or scripted providers, or the wall clock",
            )
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if self._turns % _TURNS_A_POLL == 0 and (ready := super().select(0)):
            return ready
        if timeout != 0 and self.jump:
            self.jump()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer. See the file's contract."""

    def __init__(self) -> None:
        self._ticks = 0  # microseconds since the loop was made
        self._armed: dict[int, int] = {}  # tick -> timers ever armed for it
        selector = _NoWaitSelector()
        super().__init__(selector)
        selector.jump = self._jump
        self._todo = cast("deque[asyncio.Handle]", vars(self)["_ready"])
        self._skips = 0
        # A timer counts as due up to half a grid step ahead: that is where the nudges live.
        self._clock_resolution = _GRID_S / 2

    def time(self) -> float:
        return self._ticks * _GRID_S

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        ticks = max(round(when / _GRID_S), self._ticks)
        while (count := self._armed.get(ticks, 0)) >= _TIMERS_PER_INSTANT:
            ticks += 1  # so many at one instant: somebody re-arms for ever
        self._armed[ticks] = count + 1
        return super().call_at(ticks * _GRID_S + count * _FIFO_NUDGE_S, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        raise VirtualTimeError(
            "a thread cannot run on the virtual clock",
            hint="Go through Clock.run, which runs the work in line there",
        )

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none: 3.12 and later would arm a 300 s timer here."""

    def skip_to(self, when: float) -> bool:
        """Move on to `when` at once, if nothing is ready and no timer is due before or then: what
        a turn of the loop would do, without the turn. Every so often it declines, so that a Ctrl-C
        is heard."""
        self._skips += 1
        ticks = round(when / _GRID_S)
        if self._todo or self._skips % _SKIPS_A_TURN == 0 or (self._timers and ticks >= self._next_timer()):
            return False
        task = asyncio.current_task(self)
        if task and task.cancelling():
            return False  # it may have cancelled itself, which it hears where it waits
        self._move_to(ticks)
        return True

    def _jump(self) -> None:
        """Nothing is ready: move on to the next timer."""
        if not self._timers:
            raise VirtualTimeError(f"nothing can happen any more: {_waiting(self)}")
        self._move_to(self._next_timer())

    @property
    def _timers(self) -> list[asyncio.TimerHandle]:
        return cast("list[asyncio.TimerHandle]", vars(self)["_scheduled"])

    def _next_timer(self) -> int:
        return int(self._timers[0].when() / _GRID_S + 1e-3)

    def _move_to(self, ticks: int) -> None:
        if ticks > self._ticks:
            self._armed.pop(self._ticks, None)
            self._ticks = ticks
            if len(self._armed) > _ARMED_LIMIT:  # instants whose timers were all cancelled
                self._armed = {tick: count for tick, count in self._armed.items() if tick >= ticks}


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    """Name each waiting task and the line it waits at."""
    lines: list[str] = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        place = "not started"
        with contextlib.suppress(IndexError):
            frame = task.get_stack(limit=1)[-1]
            place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
        lines.append(f"task '{task.get_name()}' waits in {place}")
    return "; ".join(lines) or "no task is left"
