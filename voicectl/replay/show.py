"""Outcomes for people and for programs: lines, JSON, test cases, annotations. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from voicectl.analysis.verdict import Outcome as VerdictOutcome
from voicectl.analysis.verdict import Verdict, takes, value_in_words
from voicectl.events import Event
from voicectl.replay.check import Outcome, State
from voicectl.replay.compare import Difference
from voicectl.replay.sets import SetVerdict
from voicectl.replay.tell import tell
from voicectl.report.junit import Case, CaseOutcome, annotation
from voicectl.trace import event_from, event_line

REPLAY_VERSION = 1
_DIFF_LINES = 60

STATE_WORDS: dict[State, str] = {"ok": "ok", "differs": "FAIL", "undecided": "?", "refused": "ERROR"}
VERDICT_WORDS: dict[VerdictOutcome, str] = {"pass": "ok", "fail": "FAIL", "undecided": "?"}


def headline(outcome: Outcome) -> str:
    """After the state and the path: what there is to say in a few words."""
    if outcome.state == "refused":
        return "cannot be replayed"
    call = outcome.call
    turns = len(call.measures.exchanges) if call else 0
    facts = [f"{turns} turn{'s' * (turns != 1)}", f"{outcome.seconds:.1f} s"]
    if outcome.difference:
        facts.append(f"differs from {outcome.against}")
    elif outcome.problems:
        facts.append("not as expected")
    elif outcome.against:
        facts.append("as accepted" if outcome.against.startswith("expect") else "as recorded")
    if outcome.nearest:
        facts.append(f"{len(outcome.nearest)} answered by the nearest that was recorded")
    if outcome.live:
        facts.append(f"{len(outcome.live)} answered live, on the wall clock")
    if outcome.cut:
        facts.append(outcome.cut)
    return " · ".join(facts)


def details(outcome: Outcome) -> list[str]:
    """The lines below it."""
    lines = [tell(event) for event in outcome.timeline]
    if outcome.difference:
        lines += difference_lines(outcome.difference)
    lines += [str(problem).removeprefix(f"{outcome.path}: ") for problem in outcome.problems]
    lines += [f"undecided: {text}" for text in outcome.undecided]
    return lines + [f"nearest: {text}" for text in outcome.nearest] + [f"live: {text}" for text in outcome.live]


def difference_lines(difference: Difference) -> list[str]:
    """The three events before, what was, what is, and how they differ."""
    lines = [f"  {tell(event)}" for event in difference.before]
    lines.append(f"- {tell(difference.was)}" if difference.was else "- nothing more")
    lines.append(f"+ {tell(difference.now)}" if difference.now else "+ nothing more")
    if difference.was and difference.now and type(difference.was) is type(difference.now):
        lines.append(f"  {difference.what}")
    return lines


def verdict_in_words(verdict: Verdict) -> str:
    """A threshold of a set, and what it came to."""
    if verdict.value is None:
        return f"{verdict.threshold}: {takes(verdict)}"
    return f"{verdict.threshold}: {'at least ' * verdict.at_least}{value_in_words(verdict)}"


def summary(outcomes: Sequence[Outcome], wall_s: float) -> str:
    """The last line: how many calls, what became of them, how fast that was."""
    names = {"ok": "ok", "differs": "failed", "undecided": "undecided", "refused": "cannot be replayed"}
    counts = ((name, sum(outcome.state == state for outcome in outcomes)) for state, name in names.items())
    states = ", ".join(f"{count} {name}" for name, count in counts if count)
    seconds = sum(outcome.seconds for outcome in outcomes)
    calls = f"{len(outcomes)} call{'s' * (len(outcomes) != 1)}"
    live = any(outcome.live for outcome in outcomes)
    times = "" if live or not seconds else f", {seconds / max(wall_s, 1e-3):.0f} times real time"
    return f"{calls}: {states} · {seconds / 60:.1f} min of audio in {wall_s:.1f} s{times}"


def reason(outcome: Outcome) -> str:
    """One line: why it is not ok."""
    if outcome.difference:
        was, now = outcome.difference.was, outcome.difference.now
        return f"was: {tell(was) if was else 'nothing more'}; is: {tell(now) if now else 'nothing more'}"
    if outcome.problems:
        return str(outcome.problems[0])
    return f"undecided: {outcome.undecided[0]}" if outcome.undecided else ""


# For programs ----------------------------------------------------------------------------------


def as_json(outcomes: Sequence[Outcome], verdicts: Sequence[SetVerdict], exit_code: int) -> dict[str, Any]:
    """`voicectl replay --json`."""
    return {
        "voicectl_replay": REPLAY_VERSION,
        "calls": [_call_json(outcome) for outcome in outcomes],
        "thresholds": [
            {
                "file": str(one.path),
                "threshold": str(one.verdict.threshold),
                "outcome": one.verdict.outcome,
                "value": one.verdict.value,
                "needs": one.verdict.needs,
            }
            for one in verdicts
        ],
        "exit_code": exit_code,
    }


def _call_json(outcome: Outcome) -> dict[str, Any]:
    difference = outcome.difference
    return {
        "recording": str(outcome.path),
        "state": outcome.state,
        "agent": outcome.agent,
        "seconds": round(outcome.seconds, 3),
        "turns": len(outcome.call.measures.exchanges) if outcome.call else None,
        "cut": outcome.cut,
        "against": outcome.against or None,
        "difference": difference
        and {
            "line": difference.line,
            "before": [event_json(event) for event in difference.before],
            "was": event_json(difference.was),
            "now": event_json(difference.now),
            "what": difference.what,
            "told": difference_lines(difference),
        },
        "problems": [{"where": one.where, "message": one.message, "hint": one.hint} for one in outcome.problems],
        "undecided": list(outcome.undecided),
        "nearest": list(outcome.nearest),
        "live": list(outcome.live),
        "timeline": [event_json(event) for event in outcome.timeline],
    }


def event_json(event: Event | None) -> Any:
    """As the trace spells it."""
    return json.loads(event_line(event)) if event else None


_CASES: dict[State, CaseOutcome] = {
    "ok": "passed",
    "differs": "failed",
    "undecided": "skipped",
    "refused": "broken",
}


def as_case(outcome: Outcome) -> Case:
    """The recording as a test case."""
    lines = "\n".join(details(outcome))
    group = str(outcome.path.parent).replace("/", ".").strip(".") or "recordings"
    return Case(outcome.path.name, group, _CASES[outcome.state], reason(outcome), lines)


def as_annotations(outcome: Outcome) -> list[str]:
    """What GitHub shows at the files of a change."""
    lines: list[str] = []
    title = f"replay of {outcome.path.name}"
    if outcome.difference:
        where = f"{outcome.path / outcome.against}:{outcome.difference.line}"
        lines.append(annotation("error", where, title, "\n".join(difference_lines(outcome.difference))))
    lines += [
        annotation("error", problem.where, title, problem.message + (f". {problem.hint}" if problem.hint else ""))
        for problem in outcome.problems
    ]
    return lines + [annotation("warning", str(outcome.path), title, text) for text in outcome.undecided]


# What accepting changes ------------------------------------------------------------------------


def text_diff(name: str, old: str, new: str) -> list[str]:
    """How a file changes."""
    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, n=1, lineterm=""))


def trace_diff(name: str, old: str, new: str) -> list[str]:
    """How a trace changes, in words."""
    if not old:
        return [f"+ {name}: new, {len(_told(new))} events"]
    diff = text_diff(name, "\n".join(_told(old)), "\n".join(_told(new)))
    if len(diff) > _DIFF_LINES:
        diff[_DIFF_LINES:] = [f"  … and {len(diff) - _DIFF_LINES} lines more"]
    return diff


def _told(trace: str) -> Sequence[str]:
    return [tell(event_from(json.loads(line))) for line in trace.splitlines()[1:]]
