"""`voicectl replay`: recorded calls run again; exit 1 when one is not what it was, or was to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from voicectl.cli import console
from voicectl.cli.options import AGENTS_FILE, JsonOption, ProfileOption, SetOption
from voicectl.cli.runs import PathsArgument, check_writable, recordings_of, write_text
from voicectl.errors import EXIT_FAILED, EXIT_OK, EXIT_UNDECIDED, EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from voicectl.replay.check import Options, Outcome

_STYLES: dict[str, console.Style] = {"ok": "green", "differs": "red", "undecided": "yellow", "refused": "red"}


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
    options = _options(on_miss, only, file, agent, profile, set_ or [], accept)
    begun = console.seconds()
    outcomes = _replay(folders, options, jobs, quiet=quiet)
    if accept:
        outcomes = _accept(outcomes, options)
    thresholds = _of_sets(paths, outcomes)
    if json:
        _print_json(outcomes, thresholds)
    else:
        _print(outcomes, thresholds, console.seconds() - begun, quiet=quiet)
    if junit is not None:
        _write_junit(junit, outcomes)
    if annotations or (annotations is None and console.env().get("GITHUB_ACTIONS")):
        _annotate(outcomes)
    return _exit_code(outcomes, thresholds)


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
                    style: console.Style | None = {"+": "green", "-": "red", "@": "dim"}.get(line[:1])  # type: ignore[assignment]
                    console.out(console.styled(line, style) if style else line)
                write_text(path, new)
        left.append(check(outcome.path, replace(options, accept=False)))
    return left


# Sets ------------------------------------------------------------------------------------------


def _of_sets(paths: Sequence[Path] | None, outcomes: Sequence[Outcome]) -> list[tuple[Path, str, str]]:
    """(folder, pass/fail/undecided, in words) of each threshold of a folder of recordings."""
    from dataclasses import replace

    from voicectl.analysis.metrics import Run, sum_up
    from voicectl.recording import is_recording
    from voicectl.replay.expect import EXPECT_NAME, load_set_expectation
    from voicectl.replay.show import verdict_in_words

    found: list[tuple[Path, str, str]] = []
    for path in paths or [Path("recordings")]:
        expected = None if is_recording(path) else load_set_expectation(path)
        if expected:
            mine = [one for one in outcomes if one.call and not one.live and one.path.is_relative_to(path)]
            calls = [replace(one.call, name=str(one.path)) for one in mine if one.call]
            verdicts = sum_up(calls, Run(agent="", profile="", warm=True), expected.thresholds).verdicts
            found += [(path / EXPECT_NAME, verdict.outcome, verdict_in_words(verdict)) for verdict in verdicts]
    return found


# Telling ---------------------------------------------------------------------------------------


def _print(
    outcomes: Sequence[Outcome], thresholds: Sequence[tuple[Path, str, str]], wall_s: float, *, quiet: bool
) -> None:
    from voicectl.replay.show import WORDS, details, headline

    for outcome in outcomes:
        if outcome.state == "ok" and quiet and not outcome.timeline:
            continue
        word = console.styled(WORDS[outcome.state].ljust(5), _STYLES[outcome.state])
        console.out(f"{word} {outcome.path}  {console.styled(headline(outcome), 'dim')}")
        for line in details(outcome):
            mark: dict[str, console.Style] = {"-": "red", "+": "green"}
            console.out("        " + (console.styled(line, mark[line[0]]) if line[:2] in ("- ", "+ ") else line))
    for path, result, text in thresholds:
        style: dict[str, console.Style] = {"pass": "green", "fail": "red", "undecided": "yellow"}
        word = {"pass": "ok", "fail": "FAIL", "undecided": "?"}[result].ljust(5)
        console.out(f"{console.styled(word, style[result])} {path}: {text}")
    console.out(_summary(outcomes, wall_s))


def _summary(outcomes: Sequence[Outcome], wall_s: float) -> str:
    from voicectl.replay.show import WORDS

    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in WORDS}
    names = {"ok": "ok", "differs": "failed", "undecided": "undecided", "refused": "cannot be replayed"}
    states = ", ".join(f"{count} {names[state]}" for state, count in counts.items() if count)
    seconds = sum(outcome.seconds for outcome in outcomes)
    calls = f"{len(outcomes)} call{'s' * (len(outcomes) != 1)}"
    clock = "" if any(outcome.live for outcome in outcomes) else f", {seconds / max(wall_s, 1e-3):.0f} times real time"
    return f"{calls}: {states} · {seconds / 60:.1f} min of audio in {wall_s:.1f} s{clock}"


def _print_json(outcomes: Sequence[Outcome], thresholds: Sequence[tuple[Path, str, str]]) -> None:
    from voicectl.replay.show import REPLAY_VERSION, as_json

    console.out_json(
        {
            "voicectl_replay": REPLAY_VERSION,
            "calls": [as_json(outcome) for outcome in outcomes],
            "thresholds": [{"file": str(path), "outcome": result, "text": text} for path, result, text in thresholds],
            "exit_code": _exit_code(outcomes, thresholds),
        }
    )


def _write_junit(path: Path, outcomes: Sequence[Outcome]) -> None:
    from voicectl.replay.show import as_case
    from voicectl.report.junit import junit_xml

    write_text(path, junit_xml("replay", [as_case(outcome) for outcome in outcomes]))


def _annotate(outcomes: Sequence[Outcome]) -> None:
    from voicectl.replay.show import as_annotations

    for outcome in outcomes:
        for line in as_annotations(outcome):
            console.err(line)


def _exit_code(outcomes: Sequence[Outcome], thresholds: Sequence[tuple[Path, str, str]]) -> int:
    states = {outcome.state for outcome in outcomes}
    results = {result for _, result, _ in thresholds}
    if "refused" in states:
        return EXIT_USAGE
    if "differs" in states or "fail" in results:
        return EXIT_FAILED
    return EXIT_UNDECIDED if "undecided" in states or "undecided" in results else EXIT_OK
