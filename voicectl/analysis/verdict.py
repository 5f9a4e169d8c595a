"""Thresholds against figures: pass, fail or undecided, and the exit code that follows. Pure.

A figure that the sample cannot carry decides nothing: `p95(...)` of ten turns is undecided, and
says how many turns it would take. Where nobody answered, the wait counts as longer than any limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from voicectl.analysis.definitions import Share
from voicectl.analysis.percentiles import Figure, Summary
from voicectl.errors import EXIT_FAILED, EXIT_OK, EXIT_UNDECIDED
from voicectl.spec.metric_names import BY_NAME
from voicectl.spec.threshold import Threshold

Outcome = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one threshold.

    Args:
        value: the figure in the threshold's unit (None: there is none).
        at_least: the value is a lower bound.
        needs: how many values it would take to decide (None where there is a value, or where these
            agents have no such stage).
    """

    threshold: Threshold
    outcome: Outcome
    value: float | None
    at_least: bool = False
    needs: int | None = None


def judge(
    thresholds: Sequence[Threshold], durations: Mapping[str, Summary], shares: Mapping[str, Share]
) -> tuple[Verdict, ...]:
    """Hold each threshold against the run.

    Args:
        durations: in milliseconds, and money in dollars, by the metric's name.
        shares: ratios and counts of turns, by the metric's name.
    """
    return tuple(_judge(threshold, durations, shares) for threshold in thresholds)


def value_in_words(verdict: Verdict) -> str:
    """The figure as people read it: `812`, `4.2%`, `$0.0123`. Call it only where there is one."""
    value = verdict.value or 0.0
    if verdict.threshold.statistic == "rate":
        return f"{value:.1%}"
    return f"${value:.4f}" if BY_NAME[verdict.threshold.metric].kind == "money" else f"{value:.0f}"


def takes(verdict: Verdict) -> str:
    """What an undecided one lacks: `takes 72 turns`."""
    return f"takes {verdict.needs} turns" if verdict.needs else "is not measured: these agents have no such stage"


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """1 when any threshold failed, else 4 when any is undecided, else 0."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return EXIT_FAILED if "fail" in outcomes else EXIT_UNDECIDED if "undecided" in outcomes else EXIT_OK


def _judge(threshold: Threshold, durations: Mapping[str, Summary], shares: Mapping[str, Share]) -> Verdict:
    figure = _figure(threshold, durations, shares)
    if figure.value is None:
        return Verdict(threshold, "undecided", None, needs=figure.needs)
    holds = threshold.holds(math.inf if figure.at_least else figure.value)
    return Verdict(threshold, "pass" if holds else "fail", figure.value, figure.at_least)


def _figure(threshold: Threshold, durations: Mapping[str, Summary], shares: Mapping[str, Share]) -> Figure:
    if threshold.statistic in ("rate", "count"):
        share = shares[threshold.metric]
        if share.ratio is None:
            return Figure(None, needs=1)
        return Figure(share.ratio if threshold.statistic == "rate" else share.count)
    summary = durations.get(threshold.metric)
    return summary.figure(threshold.statistic) if summary else Figure(None)
