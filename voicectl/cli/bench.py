"""`voicectl bench`: recorded callers call the agent; the report says how long each one waited."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicectl.cli import console
from voicectl.cli.machine import Usage, settled
from voicectl.cli.options import AGENTS_FILE, AgentArgument, FileOption, PricesOption, ProfileOption, SetOption
from voicectl.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_UNDECIDED, StorageError, UsageError, VoicectlError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from voicectl.assemble import Engine
    from voicectl.bench.budget import Caps, Purse, Quote
    from voicectl.bench.run import Plan
    from voicectl.clock import Clock
    from voicectl.prices import PriceTable
    from voicectl.spec import ResolvedAgent
    from voicectl.trace import Trace
    from voicectl.transports.caller import Caller

RECORDINGS = Path("recordings")
RUNS = Path("runs")
STDOUT = Path("-")
SPEC_NAME = "spec.yaml"
PRICES_NAME = "prices.yaml"


def bench(
    agent: AgentArgument = None,
    file: FileOption = AGENTS_FILE,
    profile: ProfileOption = None,
    callers: Annotated[
        list[Path] | None,
        typer.Option(
            "--callers",
            "-c",
            metavar="PATH",
            help="Who calls: a folder or YAML of utterances, or a folder of such folders. Repeatable. "
            "Default: those in recordings/, beside the agents file, that are meant for the agent.",
        ),
    ] = None,
    calls: Annotated[
        int | None, typer.Option("--calls", "-n", min=1, help="How many calls. Default: one from each caller.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="How many calls at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where calls are kept. Default: below runs/.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON, too; - is stdout.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="USD", min=0, help="Quote first, and stop before more than this is spent."),
    ] = None,
    prices: PricesOption = None,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the report.")] = False,
) -> int:
    """Let recorded callers call, and report how long each waited.

    Every call is kept: call.wav (left caller, right agent), trace.jsonl, and
    every provider's stream. Thresholds decide the exit code; a run that its
    budget stopped ends with 4, undecided, unless one failed.

    Example: voicectl bench coffee --callers recordings/coffee-order --calls 20
    """
    from voicectl.assemble import Engine
    from voicectl.bench.run import Plan
    from voicectl.clock import run_on
    from voicectl.keys import keys_of
    from voicectl.prices import load_prices
    from voicectl.providers import CATALOG
    from voicectl.spec import resolve

    resolved = resolve(agent, profile, set_ or [], env=console.env(), catalog=CATALOG, agents_file=file)
    who = _callers(callers, resolved, file.parent / RECORDINGS)
    if json is not None and json != STDOUT:
        _check_writable(json)
    plan = Plan(who, calls or len(who), concurrency)
    table = load_prices(prices)
    caps = _caps(resolved, budget)
    quoted = _quoted(resolved, plan, table, caps, quiet=quiet) if caps else None
    folder = new_folder(out, resolved, prices)
    progress = console.ProgressLine(quiet=quiet)
    broken: VoicectlError | None = None
    purse: Purse | None = None
    complete = False
    try:
        pull_weights(resolved, progress)
        usage = Usage()

        async def main(clock: Clock) -> bool:
            nonlocal purse
            engine = Engine(resolved, clock, find_key=keys_of(console.env()), prices=table)
            if caps and quoted:
                purse = _purse(resolved, caps, quoted, table, clock, engine)
            return await _make_calls(clock, engine, plan, folder, progress, usage, purse)

        try:
            complete = run_on(resolved.clock, main)
        except VoicectlError as error:
            if not _calls(folder):
                raise
            broken = error  # what was measured until then is told all the same
    finally:
        progress.done()
    code = _report(folder, resolved, usage, json, table, complete=complete, keep=broken is None)
    if broken:
        raise broken
    if not quiet:
        console.err(f"calls kept in {folder}")
    return _ended(code, purse, complete=complete)


def _ended(code: int, purse: Purse | None, *, complete: bool) -> int:
    """The exit code, and what money had to do with it."""
    if purse and purse.cut:
        console.err(f"voicectl: {purse.cut} call{'s' * (purse.cut != 1)} cut, having come to cost too much")
    if purse and purse.why:
        console.err(f"voicectl: stopped, because {purse.why}: ${purse.spent:.4f} spent")
        # Too little was measured to say that all is well, which is what undecided means.
        return EXIT_UNDECIDED if code == EXIT_OK else code
    return code if complete else EXIT_INTERRUPTED


def _caps(agent: ResolvedAgent, budget: float | None) -> Caps | None:
    """What limits the spending; None: nothing does."""
    from decimal import Decimal
    from math import isnan

    from voicectl.bench.budget import Caps

    if budget is not None and isnan(budget):
        raise UsageError("a budget is an amount of US dollars", hint="Write it like: --budget 2.00")
    own = agent.budget
    amounts = (budget, own.per_call if own else None, own.per_day if own else None)
    if all(amount is None for amount in amounts):
        return None
    return Caps(*(None if amount is None else Decimal(str(amount)) for amount in amounts))


def _quoted(agent: ResolvedAgent, plan: Plan, table: PriceTable, caps: Caps, *, quiet: bool) -> Quote:
    """What the run will about cost.

    Raises:
        UsageError: more than its budget, or nobody knows.
    """
    from voicectl.bench.budget import Assumptions, quote

    suppose = Assumptions()
    earlier = _earlier(agent, table)
    quoted = quote(agent, plan.callers, table, suppose).knowing(earlier)
    known = all(caller.name in earlier for caller in plan.callers)
    how = "as earlier runs did, and a fifth more" if known else f"supposing {suppose}"
    total = quoted.of([plan.callers[number % len(plan.callers)] for number in range(plan.calls)])
    calls = f"{plan.calls} call{'s' * (plan.calls != 1)}"
    if caps.run is not None and total > caps.run:
        raise UsageError(
            f"{calls} will about cost ${total:.4f}, more than the budget of ${caps.run} ({how})",
            hint="Make fewer with --calls, or raise --budget",
        )
    if total and not quiet:
        console.err(f"{calls} will about cost ${total:.4f}, {how}")
    return quoted


def _earlier(agent: ResolvedAgent, table: PriceTable) -> dict[str, list[Decimal]]:
    """What whole calls cost in the last run of this very agent, by caller."""
    from voicectl.analysis.cost import total_of
    from voicectl.errors import RecordingError
    from voicectl.events import CallEnded
    from voicectl.trace import read_trace

    costs: dict[str, list[Decimal]] = {}
    same = agent.to_yaml()
    runs = (spec.parent for spec in RUNS.glob(f"*/{SPEC_NAME}") if spec.read_text(encoding="utf-8") == same)
    last = max(runs, key=lambda run: run.name, default=None)
    for call in _calls(last) if last else ():
        try:
            events = read_trace(call / "trace.jsonl").events
        except RecordingError:
            continue
        if any(isinstance(event, CallEnded) and event.reason == "caller hung up" for event in events):
            costs.setdefault(call.name.partition("-")[2], []).append(total_of(events, table))
    return costs


def _purse(agent: ResolvedAgent, caps: Caps, quoted: Quote, table: PriceTable, clock: Clock, engine: Engine) -> Purse:
    from voicectl.bench.budget import Purse
    from voicectl.ledger import Ledger, state_dir

    ledger = Ledger(state_dir(console.env()))
    return Purse(agent.name, caps, quoted, table, clock, ledger, lambda: console.now().date(), engine.answer)


def _callers(paths: Sequence[Path] | None, agent: ResolvedAgent, recordings: Path) -> list[Caller]:
    from voicectl.bench.callers import load_callers

    if paths:
        return [caller for path in paths for caller in load_callers(path)]
    if not recordings.is_dir():
        raise UsageError("there is no such folder of callers", where=str(recordings), hint="Name some: --callers")
    who = [caller for caller in load_callers(recordings) if caller.agent in (None, agent.name)]
    if not who:
        raise UsageError(
            f"no caller in {recordings}/ is meant for the agent '{agent.name}'", hint="Name some: --callers"
        )
    return who


def pull_weights(agent: ResolvedAgent, progress: console.ProgressLine) -> None:
    """Fetch what the agent's models need and is not here yet, saying how much."""
    from voicectl.weights import WEIGHTS, open_store

    every = [one for choice in agent.stages().values() for one in (choice, *choice.fallback)]
    wanted = {one.model for one in every if one.provider in ("local", "smart-turn")}
    store = open_store(console.env())
    missing = [each for each in WEIGHTS if each.name in wanted and store.status(each.name).state != "pulled"]
    if missing:
        total = console.size(sum(each.bytes for each in missing))
        progress(f"fetching {', '.join(each.name for each in missing)}: {total}, once")
        store.pull([each.name for each in missing], progress.bytes)


async def _make_calls(
    clock: Clock,
    engine: Engine,
    plan: Plan,
    folder: Path,
    progress: console.ProgressLine,
    usage: Usage,
    purse: Purse | None,
) -> bool:
    from voicectl.bench.run import run

    try:
        await engine.start(progress)
        progress(_so_far(0, plan))
        done = 0

        def on_call(number: int, caller: Caller, trace: Trace) -> None:
            nonlocal done
            done += 1
            progress(_so_far(done, plan, caller.name))

        with settled():
            return await run(plan, engine.answer, folder, clock, on_call, purse.admit if purse else None)
    finally:
        usage.look()
        await engine.aclose()


def _so_far(done: int, plan: Plan, last: str = "") -> str:
    return f"call {done} of {plan.calls} made" + (f", last: {last}" if last else "")


def _calls(folder: Path) -> list[Path]:
    """The calls of a run, in the order they were begun."""
    return sorted(path.parent for path in folder.glob("*/trace.jsonl") if not path.parent.name.startswith("."))


def _report(
    folder: Path,
    agent: ResolvedAgent,
    usage: Usage,
    json: Path | None,
    prices: PriceTable,
    *,
    complete: bool,
    keep: bool,
) -> int:
    from voicectl.analysis.metrics import Run, analyse
    from voicectl.analysis.verdict import exit_code
    from voicectl.recording import open_recording
    from voicectl.report.json import report_json
    from voicectl.report.table import render_report

    run = Run(
        agent=agent.name,
        profile=agent.profile or "none",
        peak_rss_mb=usage.peak_rss_mb(),
        machine=usage.machine(),
        busy_cpus=usage.busy_cpus(),
        interrupted=not complete,
        prices=prices,
    )
    analysis = analyse((open_recording(path) for path in _calls(folder)), run, agent.thresholds)
    render_report(analysis, console.stderr_console() if json == STDOUT else console.stdout_console())
    report = report_json(analysis)
    if json == STDOUT:
        console.out_json(report)
    elif json is not None:
        write_json(json, report)
    if keep:
        write_json(folder / "report.json", report)
    return exit_code(analysis.verdicts)


def write_json(path: Path, report: object) -> None:
    import json

    from voicectl.trace import storage_error

    try:
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise storage_error(path, error) from error


def _check_writable(path: Path) -> None:
    """Before the run, not after it."""
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot write the report: {why}", where=str(path)) from error


def new_folder(out: Path | None, agent: ResolvedAgent, prices: Path | None = None) -> Path:
    """The folder of this run: empty, writable, and holding the spec as it was resolved, and people's
    own prices, by which it is reported again.

    Raises:
        UsageError: it cannot be made, or already holds calls.
        StorageError: it cannot be written to.
    """
    folder = out or _free(RUNS / f"{console.now():%Y%m%d-%H%M%S}-{agent.name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A run that never began leaves its spec.
        if any(path.name not in (SPEC_NAME, PRICES_NAME) for path in folder.iterdir()):
            raise UsageError("this folder is not empty", where=str(folder), hint="Choose another one with --out")
        (folder / SPEC_NAME).write_text(agent.to_yaml(), encoding="utf-8")
        (folder / PRICES_NAME).unlink(missing_ok=True)
        if prices is not None:
            (folder / PRICES_NAME).write_bytes(prices.read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        if error.errno == errno.ENOSPC:
            raise StorageError(f"cannot write: {why}", where=str(folder), hint="Free some space") from error
        raise UsageError(
            f"cannot keep calls here: {why}", where=str(folder), hint="Choose another one with --out"
        ) from error
    return folder


def _free(folder: Path) -> Path:
    """That folder, or the next free name when two runs start in one second."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in range(2, 1000))
    return next(path for path in (folder, *numbered) if not path.exists())
