"""Percentiles that say how far they can be trusted, and refuse where they cannot.

What lives here: numbers in, numbers out, in whatever unit comes in. No events, no audio.

**The value** is numpy's ordinary percentile (linear between neighbours), so that anyone can
recompute it. A tail that the sample cannot carry is refused: a P95 of ten turns is their maximum
under another name. A percentile `q` takes `1 / (1 - q)` values: P90 10, P95 20, P99 100.

**A wait without an end** (`censored`: nobody answered until the timeout) counts as longer than
every wait that ended. A percentile that falls among them is a lower bound, `at_least`.

**The 95% interval** is the wider one, on each side, of two:

- order statistics with exact binomial ranks: assumes no shape of the tail, only that turns are
  independent. Below P50 6, P90 36, P95 72, P99 368 values there is no such interval and none is
  given, for the bootstrap alone covers far less than it promises (62% for P99 at n = 100).
- a bootstrap that resamples whole calls, since turns of a call are not independent: one slow call
  makes all its turns slow. With 25 to 100 calls of 4 turns and 60% of the variance between calls it
  lifts the coverage of the P50 interval from 81-85% to 92-94%, of P95 from 90% to 95-97%. It is
  seeded: same values, same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Statistic = Literal["mean", "min", "p50", "p90", "p95", "p99", "max"]
LEVELS: dict[Statistic, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
LEAST_N: dict[Statistic, int] = {"p50": 1, "p90": 10, "p95": 20, "p99": 100}
LEAST_N_INTERVAL: dict[Statistic, int] = {"p50": 6, "p90": 36, "p95": 72, "p99": 368}

_MISSED = 0.025  # on each side
_RESAMPLES = 1_000
_SEED = 20_251
_CELLS_AT_ONCE = 4_000_000  # resamples x values held in memory at a time


@dataclass(frozen=True, slots=True)
class Value:
    """One measured value, and the number of the call it comes from.

    `censored`: nothing ended it; it is known only to be at least this.
    """

    value: float
    call: int = 0
    censored: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One percentile (or the maximum) of a sample.

    Args:
        value: None where refused.
        at_least: the value is a lower bound.
        needs: how many values it takes where it is refused.
        ci95: low and high (`inf`: not bounded, it falls among the censored ones).
        interval_needs: how many values the interval takes where there is none.
    """

    value: float | None
    at_least: bool = False
    needs: int | None = None
    ci95: tuple[float, float] | None = None
    interval_needs: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A sample in figures. With `n` 0 every figure is refused."""

    n: int
    censored: int
    mean: Figure
    min: Figure
    p50: Figure
    p90: Figure
    p95: Figure
    p99: Figure
    max: Figure

    def figure(self, statistic: Statistic) -> Figure:
        figure: Figure = getattr(self, statistic)
        return figure


def summarise(values: Sequence[Value]) -> Summary:
    """P50, P90, P95, P99 and the maximum of a sample, with intervals."""
    # The ones without an end last, whatever their length: they are longer than all others. As a
    # lower bound each is then worth at least the longest that did end.
    ordered = sorted(values, key=lambda one: (one.censored, one.value))
    ended = sum(not one.censored for one in ordered)
    bounds = np.maximum.accumulate(np.array([one.value for one in ordered], np.float64))
    calls = np.unique(np.array([one.call for one in ordered], np.int64), return_inverse=True)[1]
    n = len(ordered)

    def percentile(statistic: Statistic) -> Figure:
        if n < LEAST_N[statistic]:
            return Figure(None, needs=LEAST_N[statistic], interval_needs=LEAST_N_INTERVAL[statistic])
        value = float(np.quantile(bounds, LEVELS[statistic]))
        at_least = math.ceil((n - 1) * LEVELS[statistic] - 1e-9) >= ended
        if n < LEAST_N_INTERVAL[statistic]:
            return Figure(value, at_least, interval_needs=LEAST_N_INTERVAL[statistic])
        low, high = order_ranks(n, LEVELS[statistic])
        if drawn := resampled[statistic]:
            low, high = min(low, drawn[0]), max(high, drawn[1])
        upper = float(bounds[high]) if high < ended else math.inf
        return Figure(value, at_least, ci95=(float(bounds[low]), upper))

    resampled = call_bootstrap_ranks(calls) if n >= LEAST_N_INTERVAL["p50"] else dict.fromkeys(LEVELS)
    none = Figure(None, needs=1)
    return Summary(
        n,
        n - ended,
        mean=Figure(math.fsum(bounds) / n, at_least=ended < n) if n else none,
        min=Figure(float(bounds[0]), at_least=not ended) if n else none,
        p50=percentile("p50"),
        p90=percentile("p90"),
        p95=percentile("p95"),
        p99=percentile("p99"),
        max=Figure(float(bounds[-1]), at_least=ended < n) if n else none,
    )


@lru_cache(maxsize=256)
def order_ranks(n: int, level: float) -> tuple[int, int]:
    """The ranks, from 0, between which the percentile lies with 95% confidence.

    With B of n values below the percentile, B is binomial: the percentile is under rank `low` with
    at most 2.5% and above rank `high` with at most 2.5%. `n` must carry it (`LEAST_N_INTERVAL`).
    """
    logs = math.log(level), math.log1p(-level)
    below = np.cumsum([math.exp(_log_choose(n, k) + k * logs[0] + (n - k) * logs[1]) for k in range(n + 1)])
    low = int(np.searchsorted(below, _MISSED, side="right")) - 1
    high = int(np.searchsorted(below, 1 - _MISSED, side="left"))
    if low < 0 or high >= n:
        raise ValueError(f"{n} values carry no 95% interval at {level}")
    return low, high


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def call_bootstrap_ranks(calls: NDArray[np.int64]) -> dict[Statistic, tuple[int, int] | None]:
    """Ranks, from 0, between which each percentile lies in 95% of the resamples of whole calls.

    Args:
        calls: whose value each rank is, calls numbered from 0 without gaps.
    """
    count = int(calls.max()) + 1
    if count < 2:
        return dict.fromkeys(LEVELS)
    generator = np.random.default_rng(_SEED)
    block = max(1, _CELLS_AT_ONCE // len(calls))
    drawn: dict[Statistic, list[NDArray[np.int64]]] = {statistic: [] for statistic in LEVELS}
    for start in range(0, _RESAMPLES, block):
        times = generator.multinomial(count, np.full(count, 1 / count), size=min(block, _RESAMPLES - start))
        weight = np.cumsum(times[:, calls], axis=1)  # how many resampled values lie up to each rank
        for statistic, level in LEVELS.items():
            # A resample may miss a call with all its turns, but never all calls: the last weight is > 0.
            drawn[statistic].append(np.argmax(weight >= level * weight[:, -1:], axis=1))
    ranks: dict[Statistic, tuple[int, int] | None] = {}
    for statistic, parts in drawn.items():
        low, high = np.quantile(np.concatenate(parts), [_MISSED, 1 - _MISSED], method="inverted_cdf")
        ranks[statistic] = int(low), int(high)
    return ranks
