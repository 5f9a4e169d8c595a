"""One recording, replayed and held against what it must do. In: a folder. Out: an `Outcome`.

An outcome is plain and small, so that it can come from another process: no sound, and of the
events only those that are to be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from voicectl.analysis.metrics import Call, Run, measured, sum_up
from voicectl.analysis.verdict import takes, value_in_words
from voicectl.errors import Problem, RecordingError, SpecError, VoicectlError
from voicectl.events import CallStarted, Event
from voicectl.keys import keys_of
from voicectl.pipeline.protocols import Progress
from voicectl.providers import CATALOG
from voicectl.providers.recorded import OnMiss
from voicectl.recording import Recording
from voicectl.replay.call import Kept, missed, open_kept, replay
from voicectl.replay.compare import Difference, first_departure, first_difference, of_turn
from voicectl.replay.expect import EXPECT_TRACE_NAME, Expected, accepted, load_expectation, unmet
from voicectl.replay.live import replay_live
from voicectl.replay.tell import tell
from voicectl.spec import ResolvedAgent, resolve
from voicectl.trace import event_line, read_trace, to_line

State = Literal["ok", "differs", "undecided", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherSpec:
    """An agent of another file instead of the recorded spec."""

    file: Path
    agent: str | None
    profile: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to replay.

    Args:
        overrides: changes to the spec, as `--set` gives them.
        other: take the agent from this file (None: as it was recorded).
        env: where `${NAME}` in that file is looked up, and keys.
        turn: look at this turn of the caller only.
        accept: also tell what would be written to accept today's behaviour.
    """

    on_miss: OnMiss | Literal["live"] = "fail"
    overrides: tuple[str, ...] = ()
    other: OtherSpec | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    turn: int | None = None
    accept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What today's behaviour would be written as (None: the file stays as it is)."""

    expect: str | None
    trace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a replay came to.

    Args:
        path: the folder, as given.
        state: "refused" could not be replayed at all; `problems` says why.
        against: the file it was compared with ("" with none).
        difference: from that, the first.
        problems: what else is not as it must be, each with its place.
        undecided: thresholds that so few turns cannot decide.
        nearest: what was not recorded and answered by the nearest that was.
        live: what was not recorded and answered by the real provider.
        timeline: the events of the one turn that was asked for.
        seconds: how long the call is.
        cut: where the recording breaks off.
    """

    path: Path
    state: State
    against: str = ""
    difference: Difference | None = None
    problems: tuple[Problem, ...] = ()
    undecided: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    timeline: tuple[Event, ...] = ()
    seconds: float = 0.0
    cut: str | None = None
    agent: str = ""
    call: Call | None = None
    acceptance: Acceptance | None = None


def check(path: Path, options: Options, progress: Progress = lambda text: None) -> Outcome:
    """Replay the recording in `path` and hold it against its expectation. Never raises what is
    the recording's own fault: that is an outcome.

    Raises:
        ProviderError: a real provider cannot serve (`on_miss` "live" only).
    """
    try:
        return _check(path, options, progress)
    except SpecError as error:
        return Outcome(path=path, state="refused", problems=error.problems)
    except RecordingError as error:
        return Outcome(path=path, state="refused", problems=(_as_problem(path, error),))


def _as_problem(path: Path, error: VoicectlError) -> Problem:
    return Problem(error.where or str(path), error.message, error.hint)


def _check(path: Path, options: Options, progress: Progress) -> Outcome:
    kept = open_kept(path, () if options.other else options.overrides)
    expected = load_expectation(path)
    agent = _agent(kept, options)
    nearest: list[str] = []
    live: list[str] = []
    now = replay(kept, agent, "nearest" if options.on_miss == "nearest" else "fail", nearest.append)
    if options.on_miss == "live" and missed(now.events):
        now, live = replay_live(kept, agent, keys_of(options.env), progress)
    return judge(kept, now, expected, options, nearest=nearest, live=live)


def _agent(kept: Kept, options: Options) -> ResolvedAgent:
    """The agent to replay with.

    Raises:
        SpecError, UsageError: it cannot be had from the other file.
    """
    other = options.other
    if other is None:
        return kept.agent
    name = other.agent or kept.agent.name
    return resolve(name, other.profile, options.overrides, env=options.env, catalog=CATALOG, agents_file=other.file)


def judge(
    kept: Kept,
    now: Recording,
    expected: Expected | None,
    options: Options,
    *,
    nearest: Sequence[str] = (),
    live: Sequence[str] = (),
) -> Outcome:
    """What a replay came to, held against the recording and what is expected of it.

    Raises:
        RecordingError: the accepted trace cannot be read.
    """
    call = measured(now)
    against, difference = _compare(kept, now, expected, options.turn)
    problems = [Problem(str(kept.path), tell(miss)) for miss in missed(now.events)[:1]]
    if difference and difference.now in missed(now.events):
        problems = []  # told as the difference
    undecided: list[str] = []
    if expected and options.turn is None:
        problems += unmet(expected, call, now.events)
        failed, undecided = _thresholds(expected, call)
        problems += failed
    state: State = "differs" if difference or problems else "undecided" if undecided else "ok"
    return Outcome(
        path=kept.path,
        state=state,
        against=against,
        difference=difference,
        problems=tuple(problems),
        undecided=tuple(undecided),
        nearest=tuple(nearest),
        live=tuple(live),
        timeline=tuple(of_turn(now.events, options.turn)) if options.turn is not None else (),
        seconds=kept.recording.seconds,
        cut=now.cut,
        agent=kept.agent.name,
        call=call,
        acceptance=_acceptance(kept, now, expected, call) if options.accept else None,
    )


def _compare(kept: Kept, now: Recording, expected: Expected | None, turn: int | None) -> tuple[str, Difference | None]:
    rule = expected.spec.trace if expected else "recorded"
    if rule == "any":
        return "", None
    modelled = [_is_modelled(events) for events in (kept.recording.events, now.events)]
    path = kept.path / (EXPECT_TRACE_NAME if rule == "exact" else "trace.jsonl")
    if rule == "exact" and not path.is_file():
        raise RecordingError("is missing", where=str(path), hint="Write it with: voicectl replay --accept")
    was = read_trace(path).events if rule == "exact" else kept.recording.events
    then, today = (was, now.events) if turn is None else (of_turn(was, turn), of_turn(now.events, turn))
    until = kept.until if rule == "recorded" else None
    exact = modelled[1] and (rule == "exact" or modelled[0])
    difference = first_difference(then, today, until) if exact else first_departure(then, today, until)
    if difference and difference.was and turn is not None:
        difference = replace(difference, line=was.index(difference.was) + 2)
    return path.name, difference


def _is_modelled(events: Sequence[Event]) -> bool:
    return any(isinstance(event, CallStarted) and event.clock == "virtual" for event in events)


def _thresholds(expected: Expected, call: Call) -> tuple[list[Problem], list[str]]:
    """Those that fail, and those that cannot be decided."""
    run = Run(agent="", profile="", warm=True)
    verdicts = sum_up([call], run, expected.spec.thresholds).verdicts
    failed: list[Problem] = []
    undecided: list[str] = []
    for index, verdict in enumerate(verdicts):
        if verdict.outcome == "fail":
            where = expected.where("thresholds", index)
            value = value_in_words(verdict)
            failed.append(Problem(where, f"{verdict.threshold} fails: it is {'at least ' * verdict.at_least}{value}"))
        elif verdict.outcome == "undecided":
            undecided.append(f"{verdict.threshold} {takes(verdict)}")
    return failed, undecided


def _acceptance(kept: Kept, now: Recording, expected: Expected | None, call: Call) -> Acceptance:
    trace = to_line({**kept.recording.header}) + "".join(event_line(event) for event in now.events)
    exact = expected is None or expected.spec.trace == "exact"
    old = kept.path / EXPECT_TRACE_NAME
    same = old.is_file() and old.read_text(encoding="utf-8") == trace
    return Acceptance(expect=accepted(expected, call), trace=trace if exact and not same else None)
