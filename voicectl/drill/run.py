"""Rehearsing: each cell of the matrix is a real call over real sockets, on the wall clock.

What lives here: a call with its stand-ins, setting off the fault at its moment, several calls at once.
What it came to is read from the recording afterwards (`outcome`).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voicectl.assemble import Engine
from voicectl.clock import Clock
from voicectl.drill.cells import HEALTHY, Cell, Fuse, fault_of, service_of
from voicectl.drill.outcome import Outcome, outcome_of
from voicectl.drill.script import caller, vocabulary
from voicectl.drill.vendors import DrillCatalog, Trust, Vendors, import_sdks, resolve_on, without_help
from voicectl.errors import ProviderError, StorageError, UsageError, VoicectlError
from voicectl.events import Event
from voicectl.prices import list_prices
from voicectl.providers import CATALOG
from voicectl.recording import open_recording
from voicectl.spec import ResolvedAgent, Stage
from voicectl.standin.faults import GATE_KINDS, Fault

_CALL_S = 120.0
"""A call that takes longer hangs."""
_AGAIN = 2
"""How often a call is made again when this machine was too busy for it; the others are kept, and do not count."""

OnOutcome = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Task:
    """One call to be made."""

    cell: Cell
    fallbacks: bool

    @property
    def name(self) -> str:
        return f"{self.cell.kind}-{self.cell.stage}-{self.cell.moment}-{'with' if self.fallbacks else 'without'}"


def prepared(agent: ResolvedAgent, *, fallbacks: bool) -> ResolvedAgent:
    """The agent as it is rehearsed: on the wall clock, with a VAD that takes tones for speech, without
    what listens to a voice's melody, and without prompts to a caller who is silent.

    Raises:
        UsageError: there is nobody to stand in for.
    """
    if "s2s" in agent.stages():
        raise UsageError(
            f"the agent '{agent.name}' is one model that hears and speaks: no stage of it can fail alone",
            hint="Drill an agent of stt, llm and tts",
        )
    asked = [service_of(stage, one.provider, one.model) for stage, one in agent.stages().items()]
    if not any(asked):
        raise UsageError(
            f"the agent '{agent.name}' asks no vendor: there is nothing to rehearse",
            hint="Choose a profile with cloud providers: --profile cloud-survives",
        )
    vad = Stage("scripted", None, CATALOG.options("vad", "scripted")())
    endpointing = agent.turn.endpointing
    strategies = tuple(one for one in endpointing.strategy if one != "audio") or ("silence",)
    turn = agent.turn.model_copy(
        update={"idle": None, "endpointing": endpointing.model_copy(update={"strategy": strategies})}
    )
    changed: Mapping[str, Any] = {} if fallbacks else without_help(agent)
    return replace(agent, clock="wall", vad=vad, vad_threshold=0.5, turn=turn, turn_model=None, **changed)


def plan(cells: Sequence[Cell], agent: ResolvedAgent, *, without: bool) -> list[Task]:
    """The calls to be made: two in which nothing goes wrong, then every cell that has a vendor to fail,
    and (`without`) once more without help."""
    stages = agent.stages()
    drilled = [cell for cell in cells if service_of(cell.stage, (one := stages[cell.stage]).provider, one.model)]
    both = (True, False) if without else (True,)
    return [Task(cell, True) for cell in HEALTHY] + [Task(cell, fallbacks) for cell in drilled for fallbacks in both]


async def drill(
    tasks: Sequence[Task], agent: ResolvedAgent, out: Path, clock: Clock, *, jobs: int, on_outcome: OnOutcome
) -> bool:
    """Make the calls, each kept in a folder of its own below `out`.

    Returns:
        Whether all were made; False when interrupted.

    Raises:
        VoicectlError: what would stop every call: a spec that cannot be drilled, a full disk.
    """
    agents = {fallbacks: prepared(agent, fallbacks=fallbacks) for fallbacks in {task.fallbacks for task in tasks}}
    await clock.run(import_sdks, agent)
    world = _World(await clock.run(Trust))
    resolve_on(asyncio.get_running_loop(), world.unknown)

    async def make(task: Task) -> None:
        outcome = await _rehearse(task, agents[task.fallbacks], out / task.name, clock, world)
        for again in range(2, 2 + _AGAIN):
            if not outcome.disturbed:
                break
            folder = out / f"{task.name}-{again}"
            outcome = await _rehearse(task, agents[task.fallbacks], folder, clock, world)
        on_outcome(outcome)

    lines: list[asyncio.Task[None]] = []
    try:
        for some in _batches(tasks, jobs):
            _tidy_up()
            lines = [clock.spawn(make(task), name=f"drill {task.name}") for task in some]
            await asyncio.gather(*lines)
    except asyncio.CancelledError:
        await _stop(lines)
        if task := asyncio.current_task():
            task.uncancel()
        return False
    except BaseException:
        await _stop(lines)
        raise
    finally:
        world.trust.close()
        gc.unfreeze()
        gc.enable()
    return True


def _batches(tasks: Sequence[Task], jobs: int) -> Iterator[Sequence[Task]]:
    """So many calls at once. Those without a fault have the machine to themselves: they say what is normal."""
    healthy = [task for task in tasks if task.cell in HEALTHY]
    others = [task for task in tasks if task.cell not in HEALTHY]
    for some in (healthy, others):
        for first in range(0, len(some), jobs):
            yield some[first : first + jobs]


def _tidy_up() -> None:
    """Collect garbage while nobody is on the line, and none until the next time. The SDKs alone are 200,000
    objects: to look through them takes longer than listeners, or time-outs, fail to notice."""
    gc.collect()
    gc.freeze()
    gc.disable()


class _World:
    """What the calls that are under way share: names, and whom to trust."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.vendors: list[Vendors] = []

    def unknown(self, name: str, port: int) -> bool:
        return any(vendors.unknown(name, port) for vendors in self.vendors)

    @contextmanager
    def holds(self, vendors: Vendors) -> Generator[None]:
        authorities = vendors.authorities()
        self.vendors.append(vendors)
        self.trust.add(authorities)
        try:
            yield
        finally:
            self.vendors.remove(vendors)
            self.trust.remove(authorities)


async def _stop(lines: Sequence[asyncio.Task[None]]) -> None:
    for task in lines:
        task.cancel()
    if lines:
        await asyncio.wait(lines)


async def _rehearse(task: Task, agent: ResolvedAgent, folder: Path, clock: Clock, world: _World) -> Outcome:
    cell = task.cell
    said_first = " ".join(filter(None, (agent.notice, agent.greeting)))
    fillers = agent.turn.filler.texts if agent.turn.filler else ()
    try:
        words = vocabulary(said_first, *fillers)
        vendors = Vendors(agent, cell.kind, words, clock)
    except ValueError as error:
        raise UsageError(
            f"this agent cannot be heard in a drill: {error}", hint="Change a word of its greeting"
        ) from None
    async with vendors:
        with world.holds(vendors):
            problem = await _call(task, agent, folder, clock, vendors)
    if vendors.bugs:
        raise vendors.bugs[0]
    recording = await clock.run(open_recording, folder)
    outcome = await clock.run(
        lambda: outcome_of(
            cell,
            recording.events,
            recording.rate,
            recording.right,
            fallbacks=task.fallbacks,
            prices=list_prices(),
            said_first=said_first,
            fillers=fillers,
            struck=vendors.struck,
            folder=folder.name,
        )
    )
    return replace(outcome, lost=problem) if problem else outcome


async def _call(task: Task, agent: ResolvedAgent, folder: Path, clock: Clock, vendors: Vendors) -> str:
    """Make the call; what ended it other than its caller, "" for nothing."""
    engine = Engine(agent, clock, DrillCatalog(vendors))
    primary = agent.stage(task.cell.stage)
    service = service_of(task.cell.stage, primary.provider, primary.model)
    fault, fuse = fault_of(task.cell, service) if service else None, Fuse(task.cell)

    def watch(event: Event) -> None:
        if fault and fuse.burns(event):
            _set_off(fault, vendors, clock)

    started = False
    try:
        await engine.start(_quiet)  # everybody is well still
        started = True
        async with asyncio.timeout(_CALL_S):
            await engine.answer(caller(str(task.cell), interrupts=task.cell.moment == "barge-in"), folder, watch)
    except TimeoutError:
        return f"the call hung for {_CALL_S:.0f} s"
    except (StorageError, UsageError):
        raise
    except ProviderError as error:
        if not started:
            raise
        return f"the call broke: {error}"
    except VoicectlError:
        raise
    except Exception as error:  # a call that a mistake of ours ends is a lost call
        if task.cell in HEALTHY:
            raise  # nothing was done to it
        return f"the call broke: {type(error).__name__}: {error}"
    finally:
        await engine.aclose()
    return ""


def _set_off(fault: Fault, vendors: Vendors, clock: Clock) -> None:
    if fault.kind in GATE_KINDS:  # closing a port takes a moment, in which nobody should wait
        clock.spawn(clock.run(vendors.fault, fault), name=f"fault {fault.kind}")
    else:
        vendors.fault(fault)


def _quiet(text: str) -> None:
    pass
