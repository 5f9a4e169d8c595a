"""`voicectl replay`: recorded calls run again; exit 1 when one is not what it was, or was to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from voicectl.cli import console
from voicectl.cli.options import AGENTS_FILE, JsonOption, ProfileOption, SetOption
from voicectl.cli.runs import RECORDINGS, PathsArgument, check_writable, recordings_of, write_text
from voicectl.errors import UsageError

if TYPE_CHECKING:
    from voicectl.replay.check import Options, Outcome
    from voicectl.replay.sets import SetVerdict


def replay(
    paths: PathsArgument = None,
    on_miss: Annotated[
        Literal["fail", "nearest", "live"],
        typer.Option(
            help="What was not recorded: fail names the nearest request and what differs, nearest plays it, "
            "live asks the real provider, in real time."
        ),
    ] = "fail",
    only: Annotated[
        str | None, typer.Option("--only", metavar="turn=N", help="Look at one turn of the caller, and show it.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Take the agent from this file, as it is today.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", metavar="NAME", help="With --file: which one. Default: the recorded.")
    ] = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Show how today's behaviour differs, and make it the expectation.")
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="KEY=A..B:STEP", help="What if? Try these values. Several make a grid."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="How many processes. Default: one a core.")
    ] = None,
    json: JsonOption = False,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")] = None,
    annotations: Annotated[
        bool | None,
        typer.Option(help="Print GitHub annotations. Default: where GITHUB_ACTIONS is set."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, and only what is not ok.")] = False,
) -> int:
    """Run recorded calls again, faster than real time, and compare.

    A call is held against its expect.yaml, or else against the call as it was.
    The providers answer with what they said and the time they took; everything
    else is today's code. No key, no network.

    Example: voicectl replay recordings/ --set turn.endpointing.silence_ms=300
    """
    if profile is not None or agent is not None:
        file = file or AGENTS_FILE
    if junit is not None:
        check_writable(junit)
    folders = recordings_of(paths)
    if sweep:
        from voicectl.cli.sweep import sweep_recordings

        if accept or only or junit or file or on_miss != "fail":
            raise UsageError("--sweep goes with --set, --jobs and --json only")
        return sweep_recordings(folders, sweep, set_ or [], jobs, json=json, quiet=quiet)
    from voicectl.replay.sets import exit_code, judge_sets
    from voicectl.replay.show import as_annotations, as_case, as_json
    from voicectl.report.junit import junit_xml

    options = _options(on_miss, only, file, agent, profile, set_ or [], accept)
    begun = console.seconds()
    outcomes = _replay(folders, options, jobs, quiet=quiet)
    if accept:
        outcomes = _accept(outcomes, options)
    verdicts = judge_sets(paths or [RECORDINGS], outcomes)
    code = exit_code(outcomes, verdicts)
    if json:
        console.out_json(as_json(outcomes, verdicts, code))
    else:
        _print(outcomes, verdicts, console.seconds() - begun, quiet=quiet)
    if junit is not None:
        write_text(junit, junit_xml("replay", [as_case(outcome) for outcome in outcomes]))
    if annotations or (annotations is None and console.env().get("GITHUB_ACTIONS")):
        for line in (line for outcome in outcomes for line in as_annotations(outcome)):
            console.err(line)
    return code


def _options(
    on_miss: Literal["fail", "nearest", "live"],
    only: str | None,
    file: Path | None,
    agent: str | None,
    profile: str | None,
    overrides: Sequence[str],
    accept: bool,
) -> Options:
    from voicectl.replay.check import Options, OtherSpec
    from voicectl.replay.sweep import check_has_effect

    if on_miss != "live":
        for override in overrides:
            check_has_effect(override.partition("=")[0].strip())
    if accept and (only or on_miss == "live"):
        raise UsageError("--accept takes whole calls, replayed without --only and without --on-miss live")
    return Options(
        on_miss=on_miss,
        overrides=tuple(overrides),
        other=OtherSpec(file=file, agent=agent, profile=profile) if file else None,
        env=dict(console.env()),
        turn=_turn(only) if only else None,
        accept=accept,
    )


def _turn(only: str) -> int:
    key, _, number = only.partition("=")
    if key.strip() != "turn" or not number.strip().isdecimal() or int(number) < 1:
        raise UsageError(f"cannot read --only {only}", hint="Write it like: --only turn=3")
    return int(number)


def _replay(folders: Sequence[Path], options: Options, jobs: int | None, *, quiet: bool) -> list[Outcome]:
    from functools import partial

    from voicectl.replay.check import check
    from voicectl.replay.pool import cores, on_all_cores

    progress = console.ProgressLine(quiet=quiet, after_s=2.0)
    outcomes: list[Outcome] = []
    try:
        if options.on_miss == "live":
            return [check(folder, options, console.ProgressLine(quiet=quiet)) for folder in folders]
        work = partial(check, options=options)
        for outcome in on_all_cores(work, folders, audio_s=_audio_s(folders), processes=jobs or cores()):
            outcomes.append(outcome)
            progress(f"{len(outcomes)} of {len(folders)} calls replayed")
    finally:
        progress.done()
    return outcomes


def _audio_s(folders: Sequence[Path]) -> float:
    """About how long the calls are, by the size of their sound."""
    sounds = [folder / "call.wav" for folder in folders]
    return sum(sound.stat().st_size for sound in sounds if sound.is_file()) / 64_000


# Accepting -------------------------------------------------------------------------------------


def _accept(outcomes: Sequence[Outcome], options: Options) -> list[Outcome]:
    """Show and write what has changed; the outcome is then what is left."""
    from dataclasses import replace

    from voicectl.replay.check import check
    from voicectl.replay.expect import EXPECT_NAME, EXPECT_TRACE_NAME
    from voicectl.replay.show import text_diff, trace_diff

    left: list[Outcome] = []
    for outcome in outcomes:
        acceptance = outcome.acceptance
        if acceptance is None or not (acceptance.expect or acceptance.trace):
            left.append(outcome)
            continue
        for name, new, diff in (
            (EXPECT_NAME, acceptance.expect, text_diff),
            (EXPECT_TRACE_NAME, acceptance.trace, trace_diff),
        ):
            if new is not None:
                path = outcome.path / name
                old = path.read_text(encoding="utf-8") if path.is_file() else ""
                for line in diff(str(path), old, new):
                    console.out(_coloured(line))
                write_text(path, new)
        left.append(check(outcome.path, replace(options, accept=False)))
    return left


# Telling ---------------------------------------------------------------------------------------


def _print(outcomes: Sequence[Outcome], verdicts: Sequence[SetVerdict], wall_s: float, *, quiet: bool) -> None:
    from voicectl.replay.show import STATE_WORDS, VERDICT_WORDS, details, headline, summary, verdict_in_words

    for outcome in outcomes:
        if outcome.state == "ok" and quiet and not outcome.timeline:
            continue
        console.out(f"{_word(STATE_WORDS[outcome.state])} {outcome.path}  {console.styled(headline(outcome), 'dim')}")
        for line in details(outcome):
            console.out("        " + _coloured(line))
    for one in verdicts:
        console.out(f"{_word(VERDICT_WORDS[one.verdict.outcome])} {one.path}: {verdict_in_words(one.verdict)}")
    console.out(summary(outcomes, wall_s))


def _word(word: str) -> str:
    styles: dict[str, console.Style] = {"ok": "green", "?": "yellow"}
    return console.styled(word.ljust(5), styles.get(word, "red"))


def _coloured(line: str) -> str:
    """A line of a diff."""
    styles: dict[str, console.Style] = {"+": "green", "-": "red", "@": "dim"}
    return console.styled(line, styles[line[0]]) if line[:1] in styles else line
