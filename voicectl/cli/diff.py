"""`voicectl diff`: two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.cli.runs import RunArgument, find_run
from voicectl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from voicectl.analysis.metrics import Analysis
    from voicectl.events import Event
    from voicectl.replay.diff import RunDiff, Shift


def diff(first: RunArgument, second: RunArgument, json: JsonOption = False) -> None:
    """Compare two runs, metric by metric and call by call.

    A shift has a 95% interval: one that holds 0 may be chance.

    Example: voicectl diff runs/20261121-101500-coffee last
    """
    from voicectl.replay.diff import diff_runs

    analyses: list[Analysis] = []
    events: list[dict[str, Sequence[Event]]] = []
    for path in (first, second):
        analysis, traces = _read(find_run(path))
        analyses.append(analysis)
        events.append(traces)
    result = diff_runs(analyses[0], analyses[1], events[0], events[1])
    if json:
        console.out_json(_as_json(result))
    else:
        _print(result, analyses)


def _read(folder: Path) -> tuple[Analysis, dict[str, Sequence[Event]]]:
    from voicectl.analysis.metrics import Call, measured, sum_up
    from voicectl.recording import find_recordings, open_recording
    from voicectl.replay.runs import read_run

    run, thresholds = read_run(folder)
    calls: list[Call] = []
    events: dict[str, Sequence[Event]] = {}
    for path in find_recordings(folder):
        opened = open_recording(path)
        calls.append(measured(opened))
        events[path.name] = opened.events
    if not calls:
        raise UsageError("there is no call in this run", where=str(folder))
    return sum_up(calls, run, thresholds), events


def _print(result: RunDiff, analyses: Sequence[Analysis]) -> None:
    from dataclasses import replace

    from voicectl.replay.show import difference_lines

    for label, analysis in zip("AB", analyses, strict=True):
        run, calls = analysis.run, len(analysis.calls)
        plural = f"{calls} call{'s' * (calls != 1)}"
        console.out(f"{label}: {run.agent} · profile {run.profile} · {analysis.times} · {plural}")
    console.out("Same calls on both sides, compared in pairs." if result.paired else "Other calls on either side.")
    console.out()
    rows = [_row(shift, _ms) for shift in result.durations] + [_row(shift, _percent) for shift in result.shares]
    console.table(("", "A", "B", "shift", "95%", ""), rows)
    console.out()
    longer = result.longer
    if longer.second is not None:
        sure = "" if longer.interval else ", too few calls for an interval"
        low, high = (0.5 + bound for bound in longer.interval or (0.0, 0.0))
        between = f" (95%: {low:.0%} to {high:.0%})" if longer.interval else ""
        console.out(f"A turn of B waits longer than one of A in {longer.second:.0%} of all pairs{between}{sure}.")
    console.out()
    same = [call.name for call in result.calls if call.difference is None]
    for call in result.calls:
        if call.difference:
            console.out(f"{call.name} first differs:")
            for line in difference_lines(replace(call.difference, before=())):
                console.out("    " + line)
    for label, names in (("alike", same), ("only in A", result.only_first), ("only in B", result.only_second)):
        if names:
            console.out(f"{label}: {', '.join(names)}")


def _row(shift: Shift, spelt: Any) -> tuple[str, ...]:
    move = "" if shift.shift is None else spelt(shift.shift, sign=True)
    between = f"{spelt(shift.interval[0], sign=True)} … {spelt(shift.interval[1], sign=True)}" if shift.interval else ""
    figures = ("–" if value is None else spelt(value) for value in (shift.first, shift.second))
    name = shift.name.replace("_ms", "").replace("_", " ")
    mark = "" if not shift.shown else "more" if (shift.shift or 0) > 0 else "less"
    return (name, *figures, move, between, mark)


def _ms(value: float, *, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.0f} ms"


def _percent(value: float, *, sign: bool = False) -> str:
    return f"{value * 100:{'+' if sign else ''}.1f} %"


def _as_json(result: RunDiff) -> dict[str, object]:
    def shift(one: Shift) -> dict[str, object]:
        interval = list(one.interval) if one.interval else None
        return {"a": one.first, "b": one.second, "shift": one.shift, "ci95": interval, "shown": one.shown}

    def call(difference: Any) -> object:
        from voicectl.replay.show import difference_lines

        return difference and difference_lines(difference)

    return {
        "voicectl_diff": 1,
        "paired": result.paired,
        "durations_ms": {one.name: shift(one) for one in result.durations},
        "shares": {one.name: shift(one) for one in result.shares},
        "b_waits_longer": shift(result.longer),
        "calls": {one.name: call(one.difference) for one in result.calls},
        "only_a": list(result.only_first),
        "only_b": list(result.only_second),
    }
