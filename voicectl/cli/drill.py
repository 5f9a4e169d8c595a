"""`voicectl drill`: an agent's bad days, rehearsed: which calls survive, and what the callers hear."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from voicectl.cli import console
from voicectl.cli.options import AGENTS_FILE, AgentArgument, FileOption, ProfileOption, SetOption
from voicectl.cli.runs import RUNS, check_writable, write_text
from voicectl.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, MissingExtra, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voicectl.clock import Clock
    from voicectl.drill.cells import Cell
    from voicectl.drill.outcome import Outcome
    from voicectl.drill.run import Task
    from voicectl.spec import ResolvedAgent

STDOUT = Path("-")
RECORD_NAME = "drill.md"
REPORT_NAME = "drill.json"
_SDKS = ("openai", "deepgram-sdk", "cartesia", "anthropic", "elevenlabs")


def drill(
    agent: AgentArgument = None,
    file: FileOption = AGENTS_FILE,
    profile: ProfileOption = None,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="KIND", help="What goes wrong, as 429, dns or cut. Repeatable."),
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="STAGE", help="With whom: stt, llm or tts. Repeatable.")
    ] = None,
    moment: Annotated[
        list[str] | None,
        typer.Option("--moment", metavar="MOMENT", help="When: first-turn, mid-call or barge-in. Repeatable."),
    ] = None,
    no_fallback_too: Annotated[
        bool, typer.Option("--no-fallback-too", help="Make each call once more without the agent's fallbacks.")
    ] = False,
    max_gap_ms: Annotated[
        int, typer.Option("--max-gap-ms", min=1, help="The longest that P95 of the worst gaps may be.")
    ] = 1500,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="How many calls at once.")] = 4,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where calls are kept. Default: below runs/.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON, too; - is stdout.")
    ] = None,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the table.")] = False,
) -> int:
    """Let every vendor fail in every way, and tell what callers hear of it.

    Each call is real, over sockets, with the vendors' own SDKs; local stand-ins
    take the vendors' places, so no key is needed and nothing is spent. Exit code
    1 when a call is lost, a word is repeated, or the gaps are too long.

    Example: voicectl drill coffee --profile cloud-survives --no-fallback-too
    """
    from voicectl.drill.cells import HEALTHY, MOMENTS, STAGES, matrix
    from voicectl.providers import CATALOG
    from voicectl.spec import resolve

    _need_standin()
    from voicectl.drill.run import plan, prepared
    from voicectl.standin.faults import KINDS

    kinds, stages, moments = (
        _some("fault", fault, KINDS),
        _some("stage", stage, STAGES),
        _some("moment", moment, MOMENTS),
    )
    resolved = resolve(agent, profile, set_ or [], env=console.env(), catalog=CATALOG, agents_file=file)
    prepared(resolved, fallbacks=True)
    cells = matrix(cast("Any", kinds), cast("Any", stages), cast("Any", moments))
    tasks = plan(cells, resolved, without=no_fallback_too)
    if all(task.cell in HEALTHY for task in tasks):
        raise UsageError("no vendor does any of these stages", hint="Drill others, or under a profile: -p cloud")
    if json is not None and json != STDOUT:
        check_writable(json)
    folder = _new_folder(out, resolved)
    outcomes, complete = _rehearse(tasks, resolved, folder, jobs, console.ProgressLine(quiet=quiet))
    return _report(outcomes, tasks, resolved, folder, max_gap_ms, json, complete=complete, quiet=quiet)


def _need_standin() -> None:
    from importlib.util import find_spec

    for package in ("aiohttp", "trustme"):
        if find_spec(package) is None:
            raise MissingExtra(package, "standin", where="drill")


def _some(what: str, given: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    from voicectl.spec import did_you_mean

    for name in given or ():
        if name not in known:
            raise UsageError(
                f"unknown {what} '{name}'", hint=did_you_mean(name, known, known_as=f"{what.capitalize()}s")
            )
    return [name for name in known if name in given] if given else known


def _new_folder(out: Path | None, agent: ResolvedAgent) -> Path:
    folder = out or RUNS / f"{console.now():%Y%m%d-%H%M%S}-drill-{agent.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError("this folder is not empty", where=str(folder), hint="Choose another one with --out")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"cannot keep calls here: {why}", where=str(folder), hint="Choose another with --out"
        ) from error
    return folder


def _rehearse(
    tasks: Sequence[Task], agent: ResolvedAgent, folder: Path, jobs: int, progress: console.ProgressLine
) -> tuple[list[Outcome], bool]:
    from voicectl.clock import run_on
    from voicectl.drill.run import drill as make_calls

    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        lost = sum(not one.survived for one in outcomes)
        progress(f"{len(outcomes)} of {len(tasks)} calls made, {lost} lost, last: {outcome.cell}")

    async def main(clock: Clock) -> bool:
        return await make_calls(tasks, agent, folder, clock, jobs=jobs, on_outcome=on_outcome)

    progress(f"rehearsing {len(tasks)} calls, {min(jobs, len(tasks))} at once")
    try:
        return outcomes, run_on("wall", main)
    finally:
        progress.done()


def _report(
    outcomes: Sequence[Outcome],
    tasks: Sequence[Task],
    agent: ResolvedAgent,
    folder: Path,
    max_gap_ms: int,
    json: Path | None,
    *,
    complete: bool,
    quiet: bool,
) -> int:
    from json import dumps
    from textwrap import wrap

    from voicectl.drill.tell import LEGEND, header, passes, record, report, rows, summary_line, troubles

    about = _about(agent, [task.cell for task in tasks])
    told = report(outcomes, about, max_gap_ms, planned=len(tasks))
    text = dumps(told, indent=2, ensure_ascii=False) + "\n"
    write_text(folder / REPORT_NAME, text)
    write_text(folder / RECORD_NAME, record(outcomes, about, max_gap_ms, planned=len(tasks)))
    if json == STDOUT:
        console.out_json(told)
    elif json is not None:
        write_text(json, text)
    if json != STDOUT and outcomes:
        console.table(header(outcomes), rows(outcomes))
        console.out()
        for line in wrap(LEGEND, console.width()):
            console.out(console.styled(line, "dim"))
        for line in troubles(outcomes):
            console.out(f"  {line}")
        for fallbacks in (True, False):
            if any(one.fallbacks is fallbacks and one.cell.kind != "none" for one in outcomes):
                console.out(summary_line(outcomes, fallbacks=fallbacks))
    if not quiet:
        console.err(f"calls and {RECORD_NAME} kept in {folder}")
    if not complete:
        return EXIT_INTERRUPTED
    return EXIT_OK if passes(outcomes, max_gap_ms) else EXIT_FAILED


def _about(agent: ResolvedAgent, cells: Sequence[Cell]) -> dict[str, Any]:
    """What was drilled, with what, when."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from voicectl import __version__

    versions: dict[str, str] = {"voicectl": __version__, "python": platform.python_version()}
    for name in _SDKS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    stages = agent.stages()
    return {
        "agent": agent.name,
        "date": console.now().isoformat(timespec="seconds"),
        "profile": agent.profile or "none",
        "providers": {stage: _who(stages[stage]) for stage in ("stt", "llm", "tts")},
        "faults": list(dict.fromkeys(cell.kind for cell in cells if cell.kind != "none")),
        "moments": list(dict.fromkeys(cell.moment for cell in cells)),
        "versions": versions,
    }


def _who(stage: Any) -> str:
    """A provider with what helps it, and who takes over."""
    helps = [name for name in ("retry", "timeout", "breaker", "hedge") if getattr(stage, name)]
    one = " ".join(filter(None, (stage.provider, stage.model))) + (f" ({', '.join(helps)})" if helps else "")
    return " then ".join([one, *(_who(other) for other in stage.fallback)])
