"""Warnings that teach: what was seen, why it matters, what to do. Pure.

A warning is about the measurement (too few turns, a busy machine, a recording that breaks off), or
about something that failed on the way. How the agent did is the report's matter, not a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from voicectl.analysis.metrics import Analysis
from voicectl.analysis.percentiles import LEAST_N
from voicectl.audio import FRAME_S

FEW_CALLS = 5
BUSY_CPUS = 0.5


@dataclass(frozen=True, slots=True)
class Caution:
    """Three short sentences."""

    seen: str
    why: str
    do: str


def cautions(analysis: Analysis) -> list[Caution]:
    """Everything a reader should know before believing the figures."""
    return [caution for check in _CHECKS for caution in check(analysis)]


def _interrupted(analysis: Analysis) -> Iterator[Caution]:
    if analysis.run.interrupted:
        yield Caution(
            f"The run was interrupted after {_count(len(analysis.calls), 'call')}.",
            "The figures are those of the calls made until then.",
            "Run it again to the end before comparing it with another run.",
        )


def _no_turns(analysis: Analysis) -> Iterator[Caution]:
    if not analysis.turns:
        yield Caution(
            "No caller finished an utterance that expects an answer.",
            "There is nothing to measure.",
            "Listen to call.wav: left is the caller, right the agent.",
        )


def _few_turns(analysis: Analysis) -> Iterator[Caution]:
    n, least = analysis.durations["voice_to_voice_ms"].n, LEAST_N["p95"]
    if 0 < n < least:
        yield Caution(
            f"Only {_count(n, 'turn')} counted.",
            "The P95 of so few turns is the slowest of them under another name.",
            f"Make more calls (--calls), until at least {least} turns count.",
        )


def _few_calls(analysis: Analysis) -> Iterator[Caution]:
    n, calls = analysis.durations["voice_to_voice_ms"].n, len({turn.call for turn in analysis.turns})
    if n >= LEAST_N["p95"] and calls < FEW_CALLS:
        yield Caution(
            f"All {n} turns come from {_count(calls, 'call')}.",
            "Turns of one call are alike, so the intervals are too narrow.",
            "Make more calls (--calls) with more callers (--callers).",
        )


def _late_frames(analysis: Analysis) -> Iterator[Caution]:
    late = [late for call in analysis.calls for late in call.measures.late_frames]
    if late:
        frames = sum(call.measures.timeline.end for call in analysis.calls) / 1e6 / FRAME_S
        yield Caution(
            f"{_count(len(late), 'frame')} of {frames:.0f} began late, the worst by {max(late) / 1000:.0f} ms.",
            "The machine did not keep the line's plan, so a part of the waits is not the agent's.",
            "Leave the machine alone meanwhile, lower --concurrency, or take one with more CPUs.",
        )


def _busy_machine(analysis: Analysis) -> Iterator[Caution]:
    busy = analysis.run.busy_cpus
    if busy is not None and busy >= BUSY_CPUS and analysis.times == "measured":
        yield Caution(
            f"Other programs kept {busy:.1f} CPUs busy during the run.",
            "Local models slow down by more than the share that is taken from them.",
            "Stop the other programs and run again.",
        )


def _cut(analysis: Analysis) -> Iterator[Caution]:
    cut = [call for call in analysis.calls if call.cut]
    if cut and not analysis.run.interrupted:
        unfinished = len(analysis.of("unfinished"))
        yield Caution(
            f"{_count(len(cut), 'recording')} broke off: {cut[0].name} ({cut[0].cut}).",
            f"{_count(unfinished, 'turn')} under way at that moment {'is' if unfinished == 1 else 'are'} not counted.",
            "Make these calls again if they matter.",
        )


def _failures(analysis: Analysis) -> Iterator[Caution]:
    failed = [(call.name, line) for call in analysis.calls for line in call.measures.failures]
    if failed:
        name, line = failed[0]
        yield Caution(
            f"A provider failed {_count(len(failed), 'time')}, first in {name}: {line}",
            "A turn whose provider failed is counted as it was heard: late, or not answered.",
            f"Look for ProviderFailed in {name}/trace.jsonl.",
        )


def _taken_over(analysis: Analysis) -> Iterator[Caution]:
    calls = [call for call in analysis.calls if call.measures.switches]
    if calls:
        yield Caution(
            f"Another provider took over in {len(calls)} of {_count(len(analysis.calls), 'call')}.",
            "A part of the waits is that of the fallback, and of finding out that it was needed.",
            f"Look for ProviderSwitched in {calls[0].name}/trace.jsonl.",
        )


_CHECKS: tuple[Callable[[Analysis], Iterator[Caution]], ...] = (
    _interrupted,
    _no_turns,
    _few_turns,
    _few_calls,
    _late_frames,
    _busy_machine,
    _cut,
    _failures,
    _taken_over,
)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
