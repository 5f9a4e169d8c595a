"""Two runs side by side: how far each metric has shifted, and where each call first differs. Pure.

A shift comes with a 95% interval from a bootstrap that resamples whole calls, since turns of a call
are not independent. Where both runs made the same calls, call by call, the same ones are drawn on
both sides: what a caller has of its own is then in neither interval. A shift whose interval holds 0
is not shown; that does not show that there is none.

A slower tail and a slower middle are different things, so P50 and P95 are told apart, and how often
a turn of the second run waits longer than one of the first: that sees the smallest shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.definitions import ALL_STAGES, Share
from voicectl.analysis.metrics import Analysis, Turn
from voicectl.analysis.percentiles import LEAST_N
from voicectl.events import CallStarted, Event
from voicectl.replay.compare import Difference, first_difference, first_other

_RESAMPLES = 1_000
_SEED = 20_251
_LEAST_CALLS = 5  # fewer say nothing about how calls differ

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """A figure of both runs (None: the sample cannot carry it), their difference, its interval."""

    name: str
    first: float | None
    second: float | None
    interval: tuple[float, float] | None = None

    @property
    def shift(self) -> float | None:
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True, slots=True)
class CallDifference:
    """A call of both runs, and where it first differs (None: nowhere)."""

    name: str
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class RunDiff:
    """All there is to tell of two runs.

    Args:
        paired: both made the same calls.
        longer: how often a turn of the second waits longer than one of the first, 0.5 when nothing differs.
        only_first, only_second: calls without a counterpart.
    """

    paired: bool
    durations: tuple[Shift, ...]
    shares: tuple[Shift, ...]
    longer: Shift
    calls: tuple[CallDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def diff_runs(
    first: Analysis,
    second: Analysis,
    first_events: dict[str, Sequence[Event]],
    second_events: dict[str, Sequence[Event]],
) -> RunDiff:
    """Compare two runs.

    Args:
        first_events, second_events: the trace of each call by its name.
    """
    names = [call.name for call in first.calls], [call.name for call in second.calls]
    paired = names[0] == names[1]
    draw = _Draw(len(names[0]), len(names[1]), paired)
    samples = {name: (_sample(first, name), _sample(second, name)) for name in _METRICS}
    durations = tuple(
        draw.quantile(f"{name} {label}", *samples[name], level, least)
        for name in _METRICS
        for label, level, least in (("P50", 0.5, LEAST_N["p50"]), ("P95", 0.95, LEAST_N["p95"]))
    )
    both = [name for name in names[0] if name in second_events]
    return RunDiff(
        paired=paired,
        durations=tuple(shift for shift in durations if shift.first is not None or shift.second is not None),
        shares=tuple(_share(name, first, second, draw) for name in first.shares),
        longer=draw.longer(*samples["voice_to_voice_ms"]),
        calls=tuple(CallDifference(name, _first(first_events[name], second_events[name])) for name in both),
        only_first=tuple(name for name in names[0] if name not in second_events),
        only_second=tuple(name for name in names[1] if name not in first_events),
    )


_METRICS = ("voice_to_voice_ms", *(f"{stage}_ms" for stage in ALL_STAGES), "barge_in_stop_ms")


@dataclass(frozen=True, slots=True)
class _Sample:
    """Values in order, and the number of the call of each."""

    values: Numbers
    calls: NDArray[np.int64]


def _sample(analysis: Analysis, metric: str) -> _Sample:
    number = {call.name: index for index, call in enumerate(analysis.calls)}
    pairs: list[tuple[float, int]] = []
    if metric == "barge_in_stop_ms":
        pairs = [(one.stop / 1000, number[call.name]) for call in analysis.calls for one in call.measures.barge_ins]
    else:
        pairs = [
            (value, number[turn.call])
            for turn in analysis.turns
            if not turn.cold and (value := _value(turn, metric)) is not None
        ]
    pairs.sort()
    return _Sample(np.array([value for value, _ in pairs]), np.array([call for _, call in pairs], np.int64))


def _value(turn: Turn, metric: str) -> float | None:
    """As in `analysis.metrics`; a wait without an end counts with as long as it was waited."""
    exchange = turn.exchange
    if metric == "voice_to_voice_ms":
        return turn.wait_ms if exchange.outcome in ("answered", "no answer") else None
    spans = {f"{stage}_ms": us / 1000 for stage, us in exchange.stages.items()}
    return spans.get(metric) if exchange.outcome == "answered" else None


class _Draw:
    """The resamples: how many times each call of either run is drawn. The same for all metrics."""

    def __init__(self, first: int, second: int, paired: bool) -> None:
        generator = np.random.default_rng(_SEED)
        self._enough = min(first, second) >= _LEAST_CALLS
        self._first = self._times(generator, first)
        self._second = self._first if paired else self._times(generator, second)

    def quantile(self, name: str, first: _Sample, second: _Sample, level: float, least: int) -> Shift:
        was, now = (
            float(np.quantile(one.values, level)) if len(one.values) >= least else None for one in (first, second)
        )
        if was is None or now is None or not self._enough:
            return Shift(name, was, now)
        drawn = _quantiles(second, self._second, level) - _quantiles(first, self._first, level)
        return Shift(name, was, now, _interval(drawn))

    def ratio(self, name: str, first: Sequence[Share], second: Sequence[Share]) -> Shift:
        """Of the shares of each call."""
        was, now = (sum(shares, Share()).ratio for shares in (first, second))
        if was is None or now is None or not self._enough:
            return Shift(name, was, now)
        return Shift(name, was, now, _interval(_ratios(second, self._second) - _ratios(first, self._first)))

    def longer(self, first: _Sample, second: _Sample) -> Shift:
        """How often a turn of the second run waits longer; a tie counts half."""
        name = "waits longer"
        if not len(first.values) or not len(second.values):
            return Shift(name, None, None)
        ones = np.ones((1, len(first.values))), np.ones((1, len(second.values)))
        share = float(_longer(first, second, *ones)[0])
        if not self._enough:
            return Shift(name, 0.5, share)
        drawn = _longer(first, second, self._first[:, first.calls], self._second[:, second.calls])
        return Shift(name, 0.5, share, _interval(drawn - 0.5))

    def _times(self, generator: np.random.Generator, calls: int) -> Numbers:
        if not calls:
            return np.zeros((_RESAMPLES, 0))
        return generator.multinomial(calls, np.full(calls, 1 / calls), size=_RESAMPLES).astype(np.float64)


def _quantiles(sample: _Sample, times: Numbers, level: float) -> Numbers:
    """The quantile of each resample: the first value that so much of its weight lies up to."""
    weight = np.cumsum(times[:, sample.calls], axis=1)
    drawn: Numbers = sample.values[np.argmax(weight >= level * weight[:, -1:], axis=1)]
    return np.where(weight[:, -1] > 0, drawn, np.nan)


def _ratios(shares: Sequence[Share], times: Numbers) -> Numbers:
    counts, totals = (np.array([getattr(share, part) for share in shares], np.float64) for part in ("count", "total"))
    with np.errstate(invalid="ignore"):
        return (times @ counts) / (times @ totals)


def _longer(first: _Sample, second: _Sample, weights: Numbers, others: Numbers) -> Numbers:
    below = np.concatenate((np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)), axis=1)
    less = below[:, np.searchsorted(first.values, second.values, side="left")]
    most = below[:, np.searchsorted(first.values, second.values, side="right")]
    with np.errstate(invalid="ignore"):
        total = weights.sum(axis=1) * others.sum(axis=1)
        result: Numbers = ((less + most) / 2 * others).sum(axis=1) / total
    return result


def _interval(drawn: Numbers) -> tuple[float, float] | None:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _share(name: str, first: Analysis, second: Analysis, draw: _Draw) -> Shift:
    return draw.ratio(name, _shares_of_calls(first, name), _shares_of_calls(second, name))


def _shares_of_calls(analysis: Analysis, name: str) -> list[Share]:
    """The share of each call, in the order of the calls; all exchanges but unfinished ones."""
    shares: list[Share] = []
    for call in analysis.calls:
        finished = [one for one in call.measures.exchanges if one.outcome != "unfinished"]
        if name == "slot_recall":
            shares.append(sum((one.slots for one in finished), Share()))
        elif name == "word_error_rate":
            shares.append(sum((one.word_errors for one in finished), Share()))
        else:
            outcome = {"no_answer": "no answer", "early_answer": "early"}[name]
            shares.append(Share(sum(one.outcome == outcome for one in finished), len(finished)))
    return shares


def _first(first: Sequence[Event], second: Sequence[Event]) -> Difference | None:
    clocks = {event.clock for events in (first, second) for event in events if isinstance(event, CallStarted)}
    return first_difference(first, second) if clocks == {"virtual"} else first_other(first, second)
