"""Percentiles say how far they can be trusted, and refuse where they cannot."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.analysis.percentiles import (
    LEAST_N,
    LEAST_N_INTERVAL,
    LEVELS,
    Statistic,
    Value,
    call_bootstrap_ranks,
    order_ranks,
    summarise,
)

waits = st.lists(st.integers(-500, 5_000).map(float), min_size=1, max_size=400)
samples = st.lists(
    st.builds(Value, st.integers(0, 5_000).map(float), st.integers(0, 9), st.booleans()), min_size=1, max_size=400
)


def of(*values: float) -> list[Value]:
    return [Value(value) for value in values]


@given(waits)
def test_a_percentile_is_numpys(values: list[float]) -> None:
    summary = summarise(of(*values))
    for name, level in LEVELS.items():
        figure = summary.figure(name)
        if len(values) >= LEAST_N[name]:
            assert figure.value == pytest.approx(float(np.percentile(values, level * 100)))
    assert (summary.n, summary.min.value, summary.max.value) == (len(values), min(values), max(values))
    assert summary.mean.value == pytest.approx(sum(values) / len(values))


def test_a_median_by_hand() -> None:
    assert summarise(of(300, 100, 200)).p50.value == 200
    assert summarise(of(100, 200)).p50.value == 150


@pytest.mark.parametrize(("name", "least"), [("p90", 10), ("p95", 20), ("p99", 100)])
def test_a_tail_the_sample_cannot_carry_is_refused(name: Statistic, least: int) -> None:
    short = summarise(of(*range(least - 1))).figure(name)
    assert (short.value, short.needs, short.ci95) == (None, least, None)
    assert summarise(of(*range(least))).figure(name).value is not None


@pytest.mark.parametrize(("name", "least"), [("p50", 6), ("p90", 36), ("p95", 72), ("p99", 368)])
def test_an_interval_the_sample_cannot_carry_is_refused(name: Statistic, least: int) -> None:
    short = summarise(of(*range(least - 1))).figure(name)
    assert (short.ci95, short.interval_needs) == (None, least)
    long = summarise(of(*range(least))).figure(name)
    assert long.ci95 is not None
    assert long.interval_needs is None


def test_nothing_measured_is_all_refused() -> None:
    summary = summarise([])
    assert (summary.n, summary.p50.value, summary.max.value, summary.mean.value) == (0, None, None, None)


@given(samples)
def test_an_interval_holds_its_percentile_and_grows_with_it(values: list[Value]) -> None:
    summary = summarise(values)
    bounds = [figure.ci95 for name in LEVELS if (figure := summary.figure(name)).ci95]
    for name in LEVELS:
        figure = summary.figure(name)
        if figure.ci95 and figure.value is not None:
            assert figure.ci95[0] <= figure.value <= figure.ci95[1]
    assert bounds == sorted(bounds)


@given(samples)
def test_a_wait_without_an_end_is_never_shorter_than_one_that_ended(values: list[Value]) -> None:
    """As bounds go: let every censored wait go on for ever, and no figure may have promised more."""
    summary = summarise(values)
    endless = sorted(math.inf if one.censored else one.value for one in values)
    for name, level in LEVELS.items():
        figure = summary.figure(name)
        if figure.value is None:
            continue
        upper = endless[math.ceil(round((len(endless) - 1) * level, 9))]
        assert figure.at_least == (upper == math.inf)
        assert figure.value <= upper


def test_a_percentile_among_unanswered_waits_is_a_lower_bound() -> None:
    summary = summarise([*of(*range(500, 518)), Value(10_000, censored=True), Value(10_000, censored=True)])
    assert (summary.n, summary.censored) == (20, 2)
    assert (summary.p50.value, summary.p50.at_least) == (509.5, False)
    assert (summary.p95.value, summary.p95.at_least) == (10_000, True)
    assert (summary.max.value, summary.max.at_least) == (10_000, True)


def test_a_caller_who_hung_up_soon_does_not_shorten_the_tail() -> None:
    summary = summarise([*of(*range(500, 519)), Value(40, censored=True)])
    assert (summary.min.value, summary.max.value, summary.max.at_least) == (500, 518, True)


@pytest.mark.parametrize(
    ("name", "n"), [(name, n) for name in LEVELS for n in (6, 36, 72, 100, 368, 1_000) if n >= LEAST_N_INTERVAL[name]]
)
def test_order_ranks_hold_the_percentile_with_95_percent(name: Statistic, n: int) -> None:
    level = LEVELS[name]
    pmf = [math.comb(n, k) * level**k * (1 - level) ** (n - k) for k in range(n + 1)]
    low, high = order_ranks(n, level)
    assert sum(pmf[: low + 1]) <= 0.025 < sum(pmf[: low + 2])  # the percentile under rank `low`
    assert sum(pmf[high + 1 :]) <= 0.025 < sum(pmf[high:])  # the percentile above rank `high`


def test_an_interval_covers_the_truth_also_when_calls_differ() -> None:
    """25 calls of 4 turns, half of the variance between the calls; the promise is 95%."""
    generator = np.random.default_rng(7)
    runs = 200
    hits: dict[Statistic, int] = {"p50": 0, "p90": 0, "p95": 0}
    for _ in range(runs):
        call = np.repeat(generator.normal(size=25), 4)
        waits = math.sqrt(0.5) * (call + generator.normal(size=100))
        summary = summarise([Value(float(wait), turn // 4) for turn, wait in enumerate(waits)])
        for name in hits:
            ci95 = summary.figure(name).ci95
            assert ci95
            hits[name] += ci95[0] <= NormalDist().inv_cdf(LEVELS[name]) <= ci95[1]
    assert all(hit / runs > 0.86 for hit in hits.values()), hits


def test_alike_turns_of_a_call_widen_the_interval() -> None:
    alike = [Value(float(turn // 10 * 100 + turn % 10), turn // 10) for turn in range(100)]
    alone = [Value(one.value, turn) for turn, one in enumerate(alike)]
    width = [ci95[1] - ci95[0] for values in (alike, alone) if (ci95 := summarise(values).p50.ci95)]
    assert width[0] > width[1]


def test_the_same_values_give_the_same_interval() -> None:
    values = [Value(float(turn * 37 % 101), turn // 4) for turn in range(100)]
    assert summarise(values) == summarise(list(values))


def test_one_call_alone_has_nothing_to_resample() -> None:
    assert call_bootstrap_ranks(np.zeros(50, np.int64)) == dict.fromkeys(LEVELS)
