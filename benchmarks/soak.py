"""Calls that are broken off at any moment: what do they leave behind?

    python benchmarks/soak.py [--clock virtual|wall] [--providers scripted|local] [--calls 200] [--at-once 8]

Makes calls through the whole engine, recording and all, in two batches: the first warms up, the second is
four times as long. On the virtual clock each has a loop and an engine of its own, and those must be gone
too; on the wall clock both share one, so that it is calls that are measured and not the loading of
models. A share of the callers stays to the end; the rest
hang up, or their call's task is cancelled (some twice), a seeded instant after a seeded moment: its very
beginning, the caller speaks, the LLM or the TTS was asked, the agent is heard, has stopped, or is silent.

Afterwards there must be no task of a call, no open or abandoned generator, no thread, no open file, no
unsealed recording, no malformed trace, and between the end of the first batch and the end of the second
no more memory than `BLOCKS_LIMIT` (blocks of CPython's allocator: its objects), `TRACED_LIMIT` (bytes as
tracemalloc counts them, which makes calls three times as slow: `--trace`) and `RSS_LIMIT` (resident,
`--rss-mb`). Exit 1 when something is left.

`tests/pipeline/test_soak.py` runs it with scripted providers on the virtual clock, and proves that each
kind of leak is found.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import os
import sys
import tempfile
import threading
import time
import tracemalloc
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast
from unittest.mock import patch

import numpy as np

from voicectl import assemble
from voicectl.assemble import Engine
from voicectl.audio import Pcm
from voicectl.bench.callers import load_callers
from voicectl.clock import Clock, ClockKind, run_on
from voicectl.errors import VoicectlError
from voicectl.events import (
    AgentInterrupted,
    CallEnded,
    CallStarted,
    Event,
    LlmRequested,
    PlayoutFinished,
    PlayoutStarted,
    ReplyCancelled,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TtsRequested,
    TurnEnded,
)
from voicectl.pipeline.protocols import Frame
from voicectl.providers import CATALOG
from voicectl.recording import TRACE_NAME, check_seal
from voicectl.spec import ResolvedAgent, resolve
from voicectl.trace import Trace, read_trace
from voicectl.transports.caller import AfterAgent, At, Caller, DuringAgent, Utterance
from voicectl.transports.wav import WavTransport

ROOT = Path(__file__).resolve().parents[1]
MB = 1_000_000
BLOCKS_LIMIT = 1_600  # ten a call: the least that a call could leave is a task, its coroutine and a name
TRACED_LIMIT = 200_000
RSS_LIMIT = 24 * MB
WARM_UP_SHARE = 0.2
TO_THE_END_SHARE = 0.25
_LONGEST_DELAY_S = 0.8
_SETTLE_S = 2.0  # what was cancelled twice may need a moment to fall silent

How = Literal["to the end", "hangs up", "cancelled", "cancelled twice", "never begins"]
HOWS: tuple[How, ...] = (
    "hangs up",
    "hangs up",
    "hangs up",
    "cancelled",
    "cancelled",
    "cancelled twice",
    "never begins",
)
MOMENTS: tuple[type[Event], ...] = (
    CallStarted,
    SpeechStarted,
    SpeechPaused,
    TurnEnded,
    LlmRequested,
    TtsRequested,
    PlayoutStarted,
    AgentInterrupted,
    PlayoutFinished,
)


# What is left -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the process holds, once the garbage is collected."""

    threads: tuple[str, ...]
    """The event loop's own pool left out: it grows to its size and stays."""
    foreign_threads: int
    """Those that Python does not know."""
    files: tuple[str, ...]
    blocks: int
    traced: int
    rss: int


def inventory() -> Inventory:
    for _ in range(3):  # a finalizer may free what the next round can collect
        gc.collect()
    threads = [thread.name for thread in threading.enumerate()]
    return Inventory(
        threads=tuple(sorted(name for name in threads if not name.startswith("asyncio_"))),
        foreign_threads=len(list(Path("/proc/self/task").iterdir())) - len(threads),
        files=open_files(),
        blocks=sys.getallocatedblocks(),
        traced=tracemalloc.get_traced_memory()[0],
        rss=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
    )


def open_files() -> tuple[str, ...]:
    """What each descriptor of the process is open on."""
    found: list[str] = []
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208  the folder itself is open meanwhile
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        except OSError:
            continue  # the one the folder was read with
    # A pipe or a socket is told by its kind: its number says nothing.
    return tuple(sorted(name.partition(":")[0] if ":[" in name else name for name in found))


def left_behind(
    before: Inventory, after: Inventory, *, blocks_limit: int = BLOCKS_LIMIT, rss_limit: int = RSS_LIMIT
) -> list[str]:
    """What is there now and was not before, one line each."""
    found = [f"thread '{name}'" for name in _more(before.threads, after.threads)]
    found += [f"open file {name}" for name in _more(before.files, after.files)]
    if (count := after.foreign_threads - before.foreign_threads) > 0:
        found.append(f"{count} threads that Python does not know")
    if (more := after.blocks - before.blocks) > blocks_limit:
        found.append(f"{more} blocks of Python objects (limit {blocks_limit})")
    if (more := after.traced - before.traced) > TRACED_LIMIT:
        found.append(f"{more / MB:.2f} MB of traced memory (limit {TRACED_LIMIT / MB:.2f})")
    if (more := after.rss - before.rss) > rss_limit:
        found.append(f"{more / MB:.1f} MB of resident memory (limit {rss_limit / MB:.1f})")
    return found


def _more(before: Sequence[str], after: Sequence[str]) -> list[str]:
    return sorted((Counter(after) - Counter(before)).elements())


class Generators:
    """The async generators of a loop: which are still open, and which were dropped before their end."""

    def __init__(self) -> None:
        self._begun: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self.abandoned: list[str] = []

    @contextmanager
    def watched(self) -> Generator[None]:
        old = sys.get_asyncgen_hooks()

        def begun(generator: AsyncGenerator[Any, Any]) -> None:
            self._begun.add(generator)
            if old.firstiter:
                old.firstiter(generator)

        def dropped(generator: AsyncGenerator[Any, Any]) -> None:
            self.abandoned.append(_name(generator))
            if old.finalizer:
                old.finalizer(generator)

        sys.set_asyncgen_hooks(begun, dropped)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*old)

    def open(self) -> list[str]:
        return sorted(_name(one) for one in self._begun if cast(Any, one).ag_frame is not None)


def _name(generator: AsyncGenerator[Any, Any]) -> str:
    return str(getattr(generator, "__qualname__", generator))


async def left_in_loop(generators: Generators, clock: Clock) -> list[str]:
    """Tasks and generators of calls that are over."""
    until = clock.now() + _SETTLE_S
    own = asyncio.current_task()
    while (tasks := asyncio.all_tasks() - {own}) and clock.now() < until:
        await clock.sleep_until(clock.now() + 0.01)
    gc.collect()
    found = sorted(f"task '{task.get_name()}'" for task in tasks)
    found += [f"open generator {name}" for name in generators.open()]
    return found + [f"abandoned generator {name}" for name in generators.abandoned]


def malformed(events: Sequence[Event]) -> list[str]:
    """What is wrong with a trace: it has one beginning and one end, and so has each reply."""
    kinds = [type(event) for event in events]
    found: list[str] = []
    if kinds[:1] != [CallStarted] or kinds.count(CallStarted) != 1:
        found.append("CallStarted is not first, once")
    if kinds[-1:] != [CallEnded] or kinds.count(CallEnded) != 1:
        found.append("CallEnded is not last, once")
    begun = [event.reply for event in events if isinstance(event, ReplyStarted)]
    over = Counter(
        event.reply for event in events if isinstance(event, PlayoutFinished | AgentInterrupted | ReplyCancelled)
    )
    found += [f"reply {reply} ends {over[reply]} times" for reply in begun if over[reply] != 1]
    return found + [f"reply {reply} ends and never began" for reply in sorted(set(over) - set(begun))]


# Calls ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """How a call ends: so long after the `nth` event of a kind."""

    how: How
    after: type[Event] = CallStarted
    nth: int = 1
    delay_s: float = 0.0


def cut(draw: np.random.Generator) -> Cut:
    if draw.random() < TO_THE_END_SHARE:
        return Cut("to the end")
    how: How = HOWS[int(draw.integers(len(HOWS)))]
    after = MOMENTS[int(draw.integers(len(MOMENTS)))]
    delay_s = 0.0 if draw.random() < 0.2 else float(draw.uniform(0, _LONGEST_DELAY_S))
    return Cut(how, after, int(draw.integers(1, 3)), delay_s)


class CutLine(WavTransport):
    """A line on which the caller hangs up, or whose call is cancelled, as `cut` says."""

    def __init__(self, caller: Caller, cut: Cut, trace: Trace, **rest: Any) -> None:
        super().__init__(caller, trace=trace, **rest)
        self._cut = cut
        self._left = cut.nth
        self._gone = False
        self._call: asyncio.Task[Any] | None = None
        trace.listen(self._happened)

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        inner: Any = super().frames(start)
        async with aclosing(inner) as frames:
            async for frame in frames:
                if self._gone:
                    return
                yield frame

    def _happened(self, event: Event) -> None:
        if isinstance(event, CallStarted):
            self._call = asyncio.current_task()
        if isinstance(event, self._cut.after) and self._cut.how not in ("to the end", "never begins"):
            self._left -= 1
            if not self._left:
                asyncio.get_running_loop().call_later(self._cut.delay_s, self._end)

    def _end(self) -> None:
        if self._cut.how == "hangs up":
            self._gone = True
        elif self._call and not self._call.done():
            self._call.cancel()
            if self._cut.how == "cancelled twice":
                asyncio.get_running_loop().call_soon(self._call.cancel)


@contextmanager
def cut_lines(cuts: dict[str, Cut]) -> Generator[None]:
    """Every call of the engine is cut as its caller's name says."""
    line = assemble.WavTransport

    @functools.wraps(line)
    def make(caller: Caller, **rest: Any) -> CutLine:
        return CutLine(caller, cuts[caller.name], **rest)

    with patch.object(assemble, "WavTransport", make):
        yield


def scripted_callers() -> list[Caller]:
    """Short calls in which people talk, talk over the agent, nod, and fall silent until it hangs up."""

    def says(text: str, start: AfterAgent | At | DuringAgent, seconds: float, *, nod: bool = False) -> Utterance:
        at = np.arange(round(seconds * 16_000)) / 16_000
        pcm = Pcm((6000 * np.sin(2 * np.pi * 330 * at)).astype("<i2").tobytes(), 16_000)
        return Utterance(pcm, f"{text}.wav", 0.0, seconds, text, start=start, backchannel=nod)

    order = says("A large latte, please.", At(0.4), 0.6)
    bye = says("That's all.", AfterAgent(0.3), 0.4)
    return [
        Caller("orders", (order, bye)),
        Caller("interrupts", (order, says("No, wait, a mocha.", DuringAgent(0.4), 0.7))),
        Caller("nods", (order, says("Mhm.", DuringAgent(0.4), 0.3, nod=True), bye)),
        Caller("goes on", (order, says("With oat milk.", At(1.12), 0.5))),
        Caller("falls silent", (order, replace(says("", At(60.0), 0.1), pcm=Pcm(bytes(640), 16_000)))),
    ]


def scripted_agent(clock: ClockKind) -> ResolvedAgent:
    """Quick, so that a call is short; it prompts and hangs up when nobody speaks."""
    quick = [
        "greeting=Coffee bar, hello.",
        "stt.options.final_ms=30",
        "llm.options.ttft_ms=40",
        "tts.options.ttfb_ms=30",
        "tts.options.words_per_second=10",
        "turn.endpointing.silence_ms=250",
        "turn.no_answer_ms=1000",
        "turn.idle.after_ms=1000",
        "turn.idle.goodbye=Goodbye.",
        f"clock={clock}",
    ]
    return resolve("coffee", "scripted", quick, env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is soaked."""

    agent: ResolvedAgent
    callers: Sequence[Caller]
    clock: ClockKind = "virtual"
    calls: int = 200
    at_once: int = 8
    seed: int = 7
    trace: bool = False
    rss_limit: int = RSS_LIMIT


@dataclass(slots=True)
class Result:
    """What came of it. `problems` is empty when nothing is left."""

    problems: list[str] = field(default_factory=list[str])
    ended: Counter[str] = field(default_factory=Counter[str])
    blocks: int = 0
    traced: int = 0
    rss: int = 0


def soak(plan: Plan, tell: Callable[[str], None]) -> Result:
    """Make the calls in two batches and compare what the process holds after each."""
    result = Result()
    warm_up = max(1, round(plan.calls * WARM_UP_SHARE))
    if plan.trace:
        tracemalloc.start()
    batches = (range(warm_up), range(warm_up, plan.calls))
    found: list[Inventory] = []

    async def make(clock: Clock, numbers: Sequence[range]) -> None:
        engine = Engine(plan.agent, clock)
        await engine.start(tell)
        try:
            for each in numbers:
                await _batch(plan, engine, clock, each, Path(scratch) / f"from {each.start}", result, tell)
                if plan.clock == "wall":
                    found.append(inventory())
        finally:
            await engine.aclose()

    try:
        with tempfile.TemporaryDirectory() as scratch:
            if plan.clock == "wall":
                run_on("wall", functools.partial(make, numbers=batches))
            else:
                for each in batches:
                    run_on("virtual", functools.partial(make, numbers=(each,)))
                    found.append(inventory())
    finally:
        tracemalloc.stop()
    before, after = found
    result.blocks = after.blocks - before.blocks
    result.traced = after.traced - before.traced
    result.rss = after.rss - before.rss
    result.problems += left_behind(before, after, rss_limit=plan.rss_limit)
    return result


async def _batch(
    plan: Plan,
    engine: Engine,
    clock: Clock,
    numbers: range,
    folder: Path,
    result: Result,
    tell: Callable[[str], None],
) -> None:
    callers: dict[int, Caller] = {}
    cuts: dict[str, Cut] = {}
    for number in numbers:
        caller = plan.callers[number % len(plan.callers)]
        callers[number] = replace(caller, name=f"{number:05}-{caller.name}")
        cuts[callers[number].name] = cut(np.random.default_rng((plan.seed, number)))
    generators = Generators()
    queue = iter(numbers)

    async def line() -> None:
        for number in queue:
            if number % 50 == 0:
                tell(f"call {number} of {plan.calls}")
            caller = callers[number]
            task = clock.spawn(engine.answer(caller, folder / caller.name), name=f"call {caller.name}")
            if cuts[caller.name].how == "never begins":
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                result.problems.append(f"{caller.name}, {cuts[caller.name]}: {error!r}")

    with cut_lines(cuts), generators.watched():
        await asyncio.gather(*[clock.spawn(line(), name=f"line {index}") for index in range(plan.at_once)])
        result.problems += await left_in_loop(generators, clock)
    _read_back(folder, cuts, result)


def _read_back(folder: Path, cuts: dict[str, Cut], result: Result) -> None:
    for name, one in cuts.items():
        result.problems += [f"{name}, {one}: {what}" for what in _kept(folder / name, one, result.ended)]
    if hidden := [path.name for path in folder.iterdir() if path.name.startswith(".")]:
        result.problems.append(f"recordings never shown: {hidden}")


def _kept(path: Path, cut: Cut, ended: Counter[str]) -> list[str]:
    """What is wrong with the recording of a call."""
    if not path.is_dir():
        ended["never begun"] += 1
        return [] if cut.how == "never begins" else ["no recording"]
    events = read_trace(path / TRACE_NAME).events
    if events and isinstance(events[-1], CallEnded):
        ended[events[-1].reason] += 1
    # Who cancels the end of a call too may lose its seal, and nothing else.
    sealed = check_seal(path) or cut.how == "cancelled twice"
    return malformed(events) + ([] if sealed else ["not sealed"])


# The command ------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=["virtual", "wall"], default="virtual")
    parser.add_argument("--providers", choices=["scripted", "local"], default="scripted")
    parser.add_argument("--calls", type=int, default=200, choices=range(1, 100_001), metavar="N")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--trace", action="store_true", help="Count bytes with tracemalloc too.")
    parser.add_argument("--rss-mb", type=float, help="Resident memory that may be left (24; with local models 128).")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    kind: ClockKind = asked.clock
    try:
        if asked.providers == "scripted":
            agent, callers, limit = scripted_agent(kind), scripted_callers(), RSS_LIMIT
        else:
            # The local LLM has threads of its own, which the virtual clock refuses.
            overrides = [*asked.overrides, *(["llm.provider=scripted", "llm.model=null"] if kind == "virtual" else [])]
            agent = resolve("coffee", None, overrides, env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")
            callers = [one for one in load_callers(ROOT / "recordings") if one.agent == "coffee"]
            limit = 128 * MB  # arenas of the models' runtimes, which fill up over the first calls
        plan = Plan(
            agent=agent,
            callers=callers,
            clock=kind,
            calls=asked.calls,
            at_once=asked.at_once,
            seed=asked.seed,
            trace=asked.trace,
            rss_limit=limit if asked.rss_mb is None else round(asked.rss_mb * MB),
        )
        begin = time.perf_counter()
        result = soak(plan, tell)
    except VoicectlError as error:
        sys.exit(str(error))
    ended = ", ".join(f"{count} {reason}" for reason, count in result.ended.most_common())
    print(f"{asked.calls} calls ({asked.providers}, {kind} clock) in {time.perf_counter() - begin:.1f} s: {ended}")
    traced = f"{result.traced / MB:+.3f} MB traced, " if asked.trace else ""
    print(f"more after the second batch: {result.blocks:+} blocks, {traced}{result.rss / MB:+.1f} MB resident")
    print("\n".join(result.problems) or "nothing is left behind")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
