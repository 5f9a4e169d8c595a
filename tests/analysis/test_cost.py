"""Money: what a call used times what it costs, as one can compute it on paper."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.sample import rendered

from analysis.fabricate import Fabricated
from voicectl.analysis.cost import Amounts, Cost, amounts_of, money, priced, tally
from voicectl.analysis.metrics import Analysis, Run, analyse
from voicectl.events import (
    Event,
    LlmFinished,
    LlmRequested,
    ProviderUsed,
    ReplyCancelled,
    ReplyStarted,
    TtsFinished,
    TtsRequested,
)
from voicectl.prices import PriceTable, list_prices, load_prices
from voicectl.report.json import report_json
from voicectl.spec import parse_threshold

OWN = """\
as_of: 2026-11-01
free: [scripted]
prices:
  - {provider: ear, stage: stt, models: ["*"], minute: 0.006}
  - {provider: brain, stage: llm, models: [big], prompt: 2.50, cached: 0.25, completion: 10}
  - {provider: mouth, stage: tts, models: [clear], characters: 30}
  - {provider: all, stage: s2s, models: [one], prompt: 4, cached: 0.4, completion: 16, audio_in: 32, audio_out: 64}
"""


@pytest.fixture
def table(tmp_path: Path) -> PriceTable:
    path = tmp_path / "prices.yaml"
    path.write_text(OWN)
    return load_prices(path)


def stt(seconds: float, *, wasted: bool = False) -> ProviderUsed:
    return ProviderUsed(at=1.0, stage="stt", provider="ear", model="x", audio_s=seconds, wasted=wasted)


def llm(prompt: int, completion: int, cached: int | None = None, **more: bool) -> ProviderUsed:
    return ProviderUsed(
        at=1.0,
        stage="llm",
        provider="brain",
        model="big",
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        **more,
    )


def tts(characters: int, *, wasted: bool = False) -> ProviderUsed:
    return ProviderUsed(
        at=1.0, stage="tts", provider="mouth", model="clear", characters=characters, audio_s=9.0, wasted=wasted
    )


def cost(table: PriceTable, *events: Event, seconds: float = 60.0) -> Cost:
    return priced(tally(events), table, seconds=seconds)


# By hand -----------------------------------------------------------------------------------------


def call(*used: Event) -> Fabricated:
    """Half a minute of a call with one exchange, in which these were used."""
    one = Fabricated()
    one.reply(None, 0.02, lead=0.08, until=0.8)
    one.exchange(2.0, 0.8, text="A large latte, please.")
    one.note(*used)
    return one.end(30.0)


def run(table: PriceTable, *calls: Fabricated, thresholds: tuple[str, ...] = ()) -> Analysis:
    recordings = [one.recording() for one in calls]
    about = Run(agent="coffee", profile="cloud", prices=table)
    return analyse(recordings, about, [parse_threshold(text) for text in thresholds])


FIXED = (stt(12.5), llm(1_000, 40, cached=800), tts(90), llm(1_200, 10, wasted=True, estimated=True), stt(7.5))


def test_the_reports_figure_is_the_price_table_by_hand(table: PriceTable) -> None:
    analysis = run(table, call(*FIXED))
    # 20 s of audio at $0.006 a minute; (200 x 2.50 + 800 x 0.25 + 40 x 10) and (1200 x 2.50 + 10 x 10)
    # millionths for the LLM, of which the second was thrown away; 90 characters at $30 a million.
    heard, said = Decimal("0.002"), Decimal("0.0027")
    thought, thrown = Decimal("0.0011"), Decimal("0.0031")
    assert analysis.cost
    assert analysis.cost.total == heard + thought + thrown + said == Decimal("0.0089")
    assert analysis.cost.wasted == thrown
    report = report_json(analysis)["cost"]
    assert report
    assert report["total"] == report["per_call"] == 0.0089
    assert report["per_minute"] == pytest.approx(0.0178)  # the call takes half a minute
    assert report["wasted_ratio"] == pytest.approx(0.348315)
    by_stage = {one["stage"]: (one["cost"], one["wasted"], one["requests"]) for one in report["spent"]}
    assert by_stage == {"stt": (0.002, 0.0, 2), "llm": (0.0042, 0.0031, 2), "tts": (0.0027, 0.0, 1)}
    assert report_json(analysis)["calls"][0]["cost"] == 0.0089
    table_text = rendered(analysis, 80)
    assert "0.0089" in table_text and "0.0178" in table_text and "35%" in table_text
    assert max(len(line) for line in table_text.splitlines()) <= 80


def test_money_of_several_calls_is_told_for_all_and_each(table: PriceTable) -> None:
    one, other = call(stt(60.0)), call(stt(60.0), stt(60.0))
    other.name = "0002-bob"
    analysis = run(table, one, other)
    assert analysis.cost
    assert (analysis.cost.total, analysis.cost.per_call) == (Decimal("0.018"), Decimal("0.009"))
    assert analysis.cost.per_minute == Decimal("0.018")  # two calls of half a minute
    assert [each["cost"] for each in report_json(analysis)["calls"]] == [0.006, 0.012]


def test_money_is_a_metric_of_thresholds(table: PriceTable) -> None:
    wanted = ("max(cost_per_call) < 0.01", "mean(cost_per_minute) < 0.01")
    analysis = run(table, call(*FIXED), thresholds=wanted)
    assert [(one.outcome, one.value) for one in analysis.verdicts] == [
        ("pass", pytest.approx(0.0089)),
        ("fail", pytest.approx(0.0178)),
    ]
    assert "$0.0178" in rendered(analysis, 80)


def test_a_run_without_vendors_says_nothing_of_money(table: PriceTable) -> None:
    analysis = run(table, call(), thresholds=("max(cost_per_call) <= 0",))
    assert analysis.cost is None
    assert analysis.verdicts[0].outcome == "pass"
    report = report_json(analysis)
    assert (report["cost"], report["calls"][0]["cost"]) == (None, None)
    assert "Money" not in rendered(analysis, 80)


# What has no price -------------------------------------------------------------------------------


def test_what_has_no_price_is_told_by_name_and_makes_sums_lower_bounds(table: PriceTable) -> None:
    strange = ProviderUsed(at=1.0, stage="llm", provider="brain", model="small", prompt_tokens=10, completion_tokens=1)
    analysis = run(table, call(stt(60.0), strange), thresholds=("max(cost_per_call) < 1",))
    assert analysis.cost
    assert analysis.cost.not_priced == ("llm brain small",)
    assert analysis.cost.total == Decimal("0.006")
    assert (analysis.verdicts[0].outcome, analysis.verdicts[0].at_least) == ("fail", True)
    text = " ".join(rendered(analysis, 80).split())
    assert "llm brain small 1 ?" in text and "Not priced: llm brain small." in text and "> 0.0060" in text
    report = report_json(analysis)["cost"]
    assert report
    assert (report["at_least"], report["not_priced"]) == (True, ["llm brain small"])
    assert report["spent"][1]["cost"] is None


def test_what_is_free_costs_nothing_and_is_priced(table: PriceTable) -> None:
    used = ProviderUsed(at=1.0, stage="tts", provider="scripted", model=None, characters=100)
    spent = cost(table, used)
    assert (spent.total, spent.not_priced, spent.as_of) == (0, (), None)


# Tokens ------------------------------------------------------------------------------------------


def test_tokens_are_told_apart_as_they_are_paid(table: PriceTable) -> None:
    used = ProviderUsed(
        at=1.0,
        stage="s2s",
        provider="all",
        model="one",
        prompt_tokens=1_000,
        cached_tokens=500,
        completion_tokens=300,
        audio_in_tokens=700,
        audio_out_tokens=250,
    )
    # Cached is taken to be text first: the 300 tokens of text, and 200 of the audio, which has no price
    # of its own when cached and costs as much as the rest.
    assert amounts_of(used) == Amounts(cached=300, completion=50, audio_in=500, audio_cached=200, audio_out=250)
    by_hand = Decimal(300) * Decimal("0.4") + 50 * 16 + 700 * 32 + 250 * 64
    assert cost(table, used).total == by_hand / 1_000_000


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
)
def test_no_token_is_paid_twice_or_never(prompt: int, cached: int, out: int, audio_in: int, audio_out: int) -> None:
    used = ProviderUsed(
        at=0.0,
        stage="s2s",
        provider="all",
        model="one",
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=out,
        audio_in_tokens=audio_in,
        audio_out_tokens=audio_out,
    )
    amounts = amounts_of(used)
    assert min(amounts.prompt, amounts.cached, amounts.audio_in, amounts.audio_cached, amounts.completion) >= 0
    assert amounts.prompt + amounts.cached + amounts.audio_in + amounts.audio_cached == max(prompt, audio_in)
    assert amounts.completion + amounts.audio_out == max(out, audio_out)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=20))
def test_a_sum_is_the_sum_of_its_parts_to_the_last_digit(used: list[tuple[int, int]]) -> None:
    events = [
        ProviderUsed(at=0.0, stage="llm", provider="openai", model="gpt-6-luna", prompt_tokens=a, completion_tokens=b)
        for a, b in used
    ]
    price = list_prices().find("llm", "openai", "gpt-6-luna")
    assert price
    parts = [money(price, amounts_of(event)) or Decimal(0) for event in events]
    assert priced(tally(events), list_prices()).total == sum(parts, Decimal(0))


# Wasted ------------------------------------------------------------------------------------------


def test_a_reply_dropped_unheard_wastes_all_that_was_spent_on_it(table: PriceTable) -> None:
    events = (
        ReplyStarted(at=1.0, reply=1, turn=1, prompt="A", held=True),
        LlmRequested(at=1.0, reply=1),
        llm(100, 10),
        LlmFinished(at=1.2, reply=1, text="Sure."),
        TtsRequested(at=1.2, reply=1, index=0),
        tts(5),
        TtsFinished(at=1.3, reply=1, index=0, seconds=0.4),
        ReplyCancelled(at=1.4, reply=1, reason="caller went on"),
        ReplyStarted(at=2.0, reply=2, turn=1, prompt="A, B", held=True),
        LlmRequested(at=2.0, reply=2),
        llm(200, 20),
        LlmFinished(at=2.2, reply=2, text="Sure, B."),
        TtsRequested(at=2.2, reply=2, index=0),
        tts(8),
        TtsFinished(at=2.3, reply=2, index=0, seconds=0.4),
    )
    thought, said = tally(events)
    assert (thought.wasted, thought.used) == (Amounts(prompt=100, completion=10), Amounts(prompt=300, completion=30))
    assert (said.wasted.characters, said.used.characters) == (5, 13)
    assert cost(table, *events).wasted == (Decimal(100) * Decimal("2.5") + 10 * 10 + 5 * 30) / 1_000_000


def test_failed_attempts_and_lost_hedges_are_wasted_and_what_came_of_the_reply_is_not(table: PriceTable) -> None:
    events = (
        LlmRequested(at=1.0, reply=1),
        llm(100, 0, wasted=True),  # failed, tried again
        llm(100, 5, wasted=True, estimated=True),  # the hedge that lost
        llm(100, 10),
        LlmFinished(at=1.2, reply=1, text="Sure."),
    )
    (line,) = cost(table, *events).lines
    assert (line.tally.requests, line.tally.estimated) == (3, 1)
    assert line.wasted == (Decimal(200) * Decimal("2.5") + 5 * 10) / 1_000_000


def test_a_report_of_money_is_json(table: PriceTable) -> None:
    json.dumps(report_json(run(table, call(*FIXED))), allow_nan=False)
