"""`voicectl bench`: recorded callers call the agent; the report says how long each one waited."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicectl.cli import console
from voicectl.cli.machine import Usage
from voicectl.cli.options import AGENTS_FILE, AgentArgument, FileOption, ProfileOption, SetOption
from voicectl.errors import EXIT_INTERRUPTED, StorageError, UsageError, VoicectlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voicectl.bench.run import Plan
    from voicectl.clock import Clock
    from voicectl.spec import ResolvedAgent
    from voicectl.trace import Trace
    from voicectl.transports.caller import Caller

RECORDINGS = Path("recordings")
RUNS = Path("runs")
STDOUT = Path("-")
SPEC_NAME = "spec.yaml"


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
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the report.")] = False,
) -> int:
    """Let recorded callers call, and report how long each waited.

    Every call is kept: call.wav (left caller, right agent), trace.jsonl, and
    every provider's stream. Thresholds decide the exit code.

    Example: voicectl bench coffee --callers recordings/coffee-order --calls 20
    """
    from voicectl.bench.run import Plan
    from voicectl.clock import run_on
    from voicectl.providers import CATALOG
    from voicectl.spec import resolve

    resolved = resolve(agent, profile, set_ or [], env=console.env(), catalog=CATALOG, agents_file=file)
    who = _callers(callers, resolved, file.parent / RECORDINGS)
    if json is not None and json != STDOUT:
        _check_writable(json)
    folder = _new_folder(out, resolved)
    plan = Plan(who, calls or len(who), concurrency)
    progress = console.ProgressLine(quiet=quiet)
    broken: VoicectlError | None = None
    complete = False
    try:
        _pull_weights(resolved, progress)
        usage = Usage()

        async def main(clock: Clock) -> bool:
            return await _make_calls(clock, resolved, plan, folder, progress, usage)

        try:
            complete = run_on(resolved.clock, main)
        except VoicectlError as error:
            if not _calls(folder):
                raise
            broken = error  # what was measured until then is told all the same
    finally:
        progress.done()
    code = _report(folder, resolved, usage, json, complete=complete, keep=broken is None)
    if broken:
        raise broken
    if not quiet:
        console.err(f"calls kept in {folder}")
    return code if complete else EXIT_INTERRUPTED


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


def _pull_weights(agent: ResolvedAgent, progress: console.ProgressLine) -> None:
    """Fetch what the agent's models need and is not here yet, saying how much."""
    from voicectl.weights import WEIGHTS, open_store

    wanted = {choice.model for choice in agent.stages().values() if choice.provider in ("local", "smart-turn")}
    store = open_store(console.env())
    missing = [each for each in WEIGHTS if each.name in wanted and store.status(each.name).state != "pulled"]
    if missing:
        total = console.size(sum(each.bytes for each in missing))
        progress(f"fetching {', '.join(each.name for each in missing)}: {total}, once")
        store.pull([each.name for each in missing], progress.bytes)


async def _make_calls(
    clock: Clock, agent: ResolvedAgent, plan: Plan, folder: Path, progress: console.ProgressLine, usage: Usage
) -> bool:
    from voicectl.assemble import Engine
    from voicectl.bench.run import run

    engine = Engine(agent, clock)
    try:
        await engine.start(progress)
        progress(_so_far(0, plan))
        done = 0

        def on_call(number: int, caller: Caller, trace: Trace) -> None:
            nonlocal done
            done += 1
            progress(_so_far(done, plan, caller.name))

        return await run(plan, engine.answer, folder, clock, on_call)
    finally:
        usage.look()
        await engine.aclose()


def _so_far(done: int, plan: Plan, last: str = "") -> str:
    return f"call {done} of {plan.calls} made" + (f", last: {last}" if last else "")


def _calls(folder: Path) -> list[Path]:
    """The calls of a run, in the order they were begun."""
    return sorted(path.parent for path in folder.glob("*/trace.jsonl") if not path.parent.name.startswith("."))


def _report(folder: Path, agent: ResolvedAgent, usage: Usage, json: Path | None, *, complete: bool, keep: bool) -> int:
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
    )
    analysis = analyse((open_recording(path) for path in _calls(folder)), run, agent.thresholds)
    render_report(analysis, console.stderr_console() if json == STDOUT else console.stdout_console())
    report = report_json(analysis)
    if json == STDOUT:
        console.out_json(report)
    elif json is not None:
        _write_json(json, report)
    if keep:
        _write_json(folder / "report.json", report)
    return exit_code(analysis.verdicts)


def _write_json(path: Path, report: object) -> None:
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


def _new_folder(out: Path | None, agent: ResolvedAgent) -> Path:
    """The folder of this run: empty, writable, and holding the spec as it was resolved.

    Raises:
        UsageError: it cannot be made, or already holds calls.
        StorageError: it cannot be written to.
    """
    folder = out or _free(RUNS / f"{console.now():%Y%m%d-%H%M%S}-{agent.name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(path.name != SPEC_NAME for path in folder.iterdir()):  # a run that never began leaves its spec
            raise UsageError("this folder is not empty", where=str(folder), hint="Choose another one with --out")
        (folder / SPEC_NAME).write_text(agent.to_yaml(), encoding="utf-8")
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
