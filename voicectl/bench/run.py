"""Running the calls of a bench: one after the other, or several at once.

What is measured is read from the recordings afterwards; here calls are only made. Being
interrupted is a result: the calls that were made are kept, the one under way is closed properly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from voicectl.clock import Clock
from voicectl.trace import Trace
from voicectl.transports.caller import Caller


@dataclass(frozen=True, slots=True)
class Plan:
    """`calls` calls, `concurrency` at once; the callers take turns."""

    callers: Sequence[Caller]
    calls: int
    concurrency: int = 1


MakeCall = Callable[[Caller, Path], Coroutine[None, None, Trace]]
"""Make one call and keep it in that folder."""

Admit = Callable[[Caller], MakeCall | None]
"""How to make a call from this caller; None: no further call is to be made."""

OnCall = Callable[[int, Caller, Trace], None]
"""Told the number of a call, from 1, when it has ended."""


async def run(
    plan: Plan, make_call: MakeCall, out: Path, clock: Clock, on_call: OnCall, admit: Admit | None = None
) -> bool:
    """Make the calls of the plan; each is kept in a folder of its own below `out`.

    Args:
        admit: asked before each call; its way to make the call goes before `make_call`.

    Returns:
        Whether all of them were made; False when interrupted, or not admitted.

    Raises:
        VoicectlError: a call failed for a reason that would fail the next one too.
    """
    numbers = iter(range(1, plan.calls + 1))
    refused = False

    async def line() -> None:
        nonlocal refused
        for number in numbers:
            caller = plan.callers[(number - 1) % len(plan.callers)]
            make = admit(caller) if admit else make_call
            if make is None:
                refused = True
                return
            trace = await make(caller, out / f"{number:04}-{caller.name}")
            on_call(number, caller, trace)

    lines = [clock.spawn(line(), name=f"line {index}") for index in range(min(plan.concurrency, plan.calls))]
    try:
        await asyncio.gather(*lines)
    except asyncio.CancelledError:
        await _stop(lines)
        task = asyncio.current_task()
        if task:
            task.uncancel()
        return False
    except BaseException:
        await _stop(lines)
        raise
    return not refused


async def _stop(lines: Sequence[asyncio.Task[None]]) -> None:
    for task in lines:
        task.cancel()
    await asyncio.wait(lines)
