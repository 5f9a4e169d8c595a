"""The grammar of thresholds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.spec import METRICS, Threshold, ThresholdError, parse_threshold
from voicectl.spec.metric_names import ALIASES
from voicectl.spec.threshold import PATTERN, STATISTICS


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("p95(voice_to_voice_ms) < 800", Threshold("p95", "voice_to_voice_ms", "<", 800)),
        ("p95(voice_to_voice_ms) < 0.8s", Threshold("p95", "voice_to_voice_ms", "<", 800)),
        ("P50( llm_ttft_ms )<=250 ms", Threshold("p50", "llm_ttft_ms", "<=", 250)),
        ("mean(endpointing_ms) ≤ 600.5", Threshold("mean", "endpointing_ms", "<=", 600.5)),
        ("max(barge_in_stop_ms) <= 600", Threshold("max", "barge_in_stop_ms", "<=", 600)),
        ("rate(early_answer) < 5%", Threshold("rate", "early_answer", "<", 0.05)),
        ("rate(false_cutoff) < 5%", Threshold("rate", "early_answer", "<", 0.05)),
        ("rate(slot_recall) >= 0.9", Threshold("rate", "slot_recall", ">=", 0.9)),
        ("rate(slot_recall) >= 90 %", Threshold("rate", "slot_recall", ">=", 0.9)),
        ("count(no_answer) <= 0", Threshold("count", "no_answer", "<=", 0)),
    ],
)
def test_what_can_be_written(text: str, threshold: Threshold) -> None:
    assert parse_threshold(text) == threshold


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read the threshold ''. Write it like: p95(voice_to_voice_ms) < 800"),
        ("p95 voice_to_voice_ms < 800", "cannot read the threshold 'p95 voice_to_voice_ms < 800'. Write it like"),
        ("p95(voice_to_voice_ms) < fast", "cannot read the threshold 'p95(voice_to_voice_ms) < fast'"),
        ("p95(voice_to_voice_ms) < -3", "cannot read the threshold"),
        ("p95(voice_to_voice) < 800", "unknown metric 'voice_to_voice'. Did you mean 'voice_to_voice_ms'?"),
        ("p95(latency) < 800", "unknown metric 'latency'. Metrics: voice_to_voice_ms, endpointing_ms"),
        ("p96(voice_to_voice_ms) < 800", "unknown statistic 'p96'. Did you mean 'p9"),
        ("median(voice_to_voice_ms) < 800", "unknown statistic 'median'. Did you mean 'mean'?"),
        ("p95(no_answer) < 3", "'p95' does not fit no_answer, which is a count. Use count(no_answer) or rate("),
        ("rate(voice_to_voice_ms) < 3", "'rate' does not fit voice_to_voice_ms, which is a duration. Use p95("),
        ("p95(voice_to_voice_ms) == 800", "unknown comparison '=='. Use <, <=, > or >="),
        ("p95(voice_to_voice_ms) < 5%", "'%' does not fit a duration. Write milliseconds (800) or seconds (0.8s)"),
        ("p95(voice_to_voice_ms) < 5 min", "'min' does not fit a duration"),
        ("rate(early_answer) < 5", "a rate is at most 1, not 5. Did you mean 5%?"),
        ("rate(early_answer) < 101%", "a rate is at most 100%, not 101%"),
        ("rate(early_answer) < 5 ms", "'ms' does not fit a rate. Write a share of turns: 5%"),
        ("count(no_answer) < 5%", "'%' does not fit a count. Write the number of turns alone"),
        ("count(no_answer) < 1.5", "a count is a whole number, not 1.5"),
    ],
)
def test_what_cannot(text: str, message: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse_threshold(text)
    assert f"{caught.value.message}. {caught.value.hint or ''}".startswith(message)


def thresholds() -> st.SearchStrategy[Threshold]:
    def of_metric(index: int) -> st.SearchStrategy[Threshold]:
        metric = METRICS[index]

        def limits(statistic: str) -> st.SearchStrategy[Threshold]:
            limit = {
                "rate": st.floats(0, 1),
                "count": st.integers(0, 10**6).map(float),
            }.get(statistic, st.floats(0, 1e7))
            return st.builds(
                Threshold,
                st.just(statistic),
                st.just(ALIASES.get(metric.name, metric.name)),
                st.sampled_from(["<", "<=", ">", ">="]),
                limit,
            )

        return st.sampled_from(STATISTICS[metric.kind]).flatmap(limits)

    return st.integers(0, len(METRICS) - 1).flatmap(of_metric)


@given(thresholds())
def test_what_is_printed_reads_back_equal(threshold: Threshold) -> None:
    assert parse_threshold(str(threshold)) == threshold


@given(thresholds())
def test_what_is_printed_fits_the_editors_pattern(threshold: Threshold) -> None:
    assert re.search(PATTERN, str(threshold))


@given(thresholds(), st.floats(0, 1e7))
def test_a_value_passes_or_fails_its_opposite(threshold: Threshold, value: float) -> None:
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[threshold.comparison]
    other = parse_threshold(str(threshold).replace(f" {threshold.comparison} ", f" {opposite} "))
    assert threshold.holds(value) is not other.holds(value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_threshold(text)
    except ThresholdError:
        pass
