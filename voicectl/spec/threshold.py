"""Thresholds: one line of grammar that decides whether a run is good enough. Pure.

    p95(voice_to_voice_ms) < 800        milliseconds; `< 0.8s` and `< 800ms` say the same
    max(barge_in_stop_ms) <= 600        p50 p90 p95 p99 max mean, of a duration
    rate(slot_recall) >= 90%            a ratio, as per cent or as 0.9
    rate(early_answer) < 5%             the share of turns
    count(no_answer) <= 0               how many turns
    mean(cost_per_minute) < 0.05        money, of each call, in US dollars

Statistic and metric are checked against `metric_names` when the file is read, long before a run.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from voicectl.spec.metric_names import ALIASES, BY_NAME, METRICS, MetricKind
from voicectl.spec.suggest import did_you_mean

Statistic = Literal["p50", "p90", "p95", "p99", "max", "mean", "rate", "count"]
Comparison = Literal["<", "<=", ">", ">="]

STATISTICS: dict[MetricKind, tuple[Statistic, ...]] = {
    "duration": ("p50", "p90", "p95", "p99", "max", "mean"),
    "ratio": ("rate",),
    "count": ("count", "rate"),
    "money": ("p50", "p90", "p95", "p99", "max", "mean"),
}
"""What may be asked of each kind of metric."""

_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_GRAMMAR = re.compile(
    r"\s*(?P<statistic>\w+)\s*\(\s*(?P<metric>[\w.-]+)\s*\)"
    r"\s*(?P<comparison>[<>=!]=?|≤|≥)"
    r"\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[a-zA-Zµ%]*)\s*"
)
PATTERN = r"^\s*\w+\s*\(\s*[\w.-]+\s*\)\s*(<|<=|>|>=|≤|≥)\s*[0-9.]+\s*(ms|s|%)?\s*$"
"""The grammar's outline for JSON schema; `parse_threshold` knows the rest."""


class ThresholdError(ValueError):
    """A threshold that says nothing; `hint` says how to."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Threshold:
    """`limit` is in the metric's own unit: milliseconds, a share from 0 to 1, turns, or US dollars."""

    statistic: Statistic
    metric: str
    comparison: Comparison
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a measured value passes."""
        return _COMPARE[self.comparison](value, self.limit)

    def __str__(self) -> str:
        """As people write it; `parse_threshold` reads it back to an equal value."""
        limit = Decimal(repr(self.limit))
        unit = ""
        if self.statistic == "rate":
            limit, unit = limit * 100, "%"
        number = f"{limit:f}"
        number = number.rstrip("0").rstrip(".") if "." in number else number
        return f"{self.statistic}({self.metric}) {self.comparison} {number}{unit}"


def parse_threshold(text: str) -> Threshold:
    """Read one threshold.

    Raises:
        ThresholdError: bad grammar, unknown metric or statistic, wrong unit.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ThresholdError(f"cannot read the threshold '{text}'", "Write it like: p95(voice_to_voice_ms) < 800")
    comparison = _comparison(match["comparison"])
    metric = BY_NAME.get(match["metric"])
    if metric is None:
        names = [known.name for known in METRICS]
        hint = did_you_mean(match["metric"], names, known_as="Metrics")
        raise ThresholdError(f"unknown metric '{match['metric']}'", hint)
    statistic = _statistic(match["statistic"].lower(), metric.name, metric.kind)
    limit = _limit(Decimal(match["number"]), match["unit"], statistic, metric.kind)
    return Threshold(statistic, ALIASES.get(metric.name, metric.name), comparison, limit)


def _comparison(written: str) -> Comparison:
    written = {"≤": "<=", "≥": ">="}.get(written, written)
    if written in _COMPARE:
        return written
    raise ThresholdError(f"unknown comparison '{written}'", "Use <, <=, > or >=")


def _statistic(written: str, metric: str, kind: MetricKind) -> Statistic:
    allowed = STATISTICS[kind]
    for statistic in allowed:
        if statistic == written:
            return statistic
    everywhere = {name for names in STATISTICS.values() for name in names}
    if written in everywhere:
        fits = " or ".join(f"{name}({metric})" for name in (allowed if len(allowed) < 3 else ("p95", "max")))
        raise ThresholdError(f"'{written}' does not fit {metric}, which is a {kind}", f"Use {fits}")
    raise ThresholdError(f"unknown statistic '{written}'", did_you_mean(written, allowed, known_as="Statistics"))


def _limit(number: Decimal, unit: str, statistic: Statistic, kind: MetricKind) -> float:
    if statistic == "rate":
        if unit not in ("", "%"):
            raise ThresholdError(f"'{unit}' does not fit a rate", f"Write a share of turns: {number}%")
        if unit == "" and number > 1:
            raise ThresholdError(f"a rate is at most 1, not {number}", f"Did you mean {number}%?")
        if number > 100:
            raise ThresholdError(f"a rate is at most 100%, not {number}%")
        return float(number / 100 if unit else number)
    if statistic == "count":
        if unit:
            raise ThresholdError(f"'{unit}' does not fit a count", "Write the number of turns alone")
        if number != number.to_integral_value():
            raise ThresholdError(f"a count is a whole number, not {number}")
        return float(number)
    if kind == "money":
        if unit:
            raise ThresholdError(f"'{unit}' does not fit money", f"Write US dollars alone: {number}")
        return float(number)
    scale = {"": 1, "ms": 1, "s": 1000}.get(unit)
    if scale is None or kind != "duration":
        raise ThresholdError(f"'{unit}' does not fit a duration", "Write milliseconds (800) or seconds (0.8s)")
    return float(number * scale)
