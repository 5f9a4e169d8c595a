"""The tables of prices and of models that end."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from voicectl.errors import SpecError
from voicectl.prices import endings, find_ending, list_prices, load_prices
from voicectl.prices.check import ending_soon
from voicectl.providers import CATALOG
from voicectl.spec import load_yaml


def test_the_package_has_prices_with_their_dates_and_sources() -> None:
    table = list_prices()
    assert all(price.as_of <= table.as_of and "." in price.source for price in table.prices)
    assert {price.stage for price in table.prices} == {"stt", "llm", "tts", "s2s"}


def test_a_model_is_found_by_name_by_snapshot_by_pattern_and_by_default() -> None:
    find = list_prices().find
    plain = find("llm", "openai", "gpt-4o")
    assert plain and plain is find("llm", "openai", "gpt-4o-2024-11-20")
    assert find("llm", "openai", "gpt-4o-audio") is None
    aura2, aura = find("tts", "deepgram", "aura-2-thalia-en"), find("tts", "deepgram", "aura-asteria-en")
    assert aura2 and aura and aura2.characters != aura.characters
    assert find("stt", "deepgram", None) is find("stt", "deepgram", "nova-3")
    assert find("stt", "openai", "gpt-4o") is None


def test_what_runs_here_is_free_until_a_price_is_put_on_it(tmp_path: Path) -> None:
    assert not list_prices().bills("llm", "scripted")
    assert list_prices().bills("llm", "openai")
    own = tmp_path / "own.yaml"
    own.write_text(
        "as_of: 2026-11-21\nprices: [{provider: scripted, stage: llm, models: ['*'], prompt: 1, completion: 2}]"
    )
    table = load_prices(own)
    assert table.bills("llm", "scripted") and not table.bills("tts", "scripted")


def test_own_prices_go_first_and_are_read_as_written(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "as_of: 2027-01-02\nprices: [{provider: openai, stage: llm, models: [gpt-4o], prompt: 0.1, completion: 1e-1}]"
    )
    price = load_prices(own).find("llm", "openai", "gpt-4o")
    assert price and (price.prompt, price.completion, price.as_of) == (Decimal("0.1"), Decimal("0.1"), date(2027, 1, 2))
    assert load_prices(own).find("stt", "deepgram", None), "the others are there still"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prices: [{provider: a, stage: llm, models: [b], prompt: 1, completion: 1}]", ":1:1: missing key 'as_of'"),
        ("as_of: 1. May\nprices: [{provider: a, stage: stt, models: [b], minute: 1}]", "'1. May' is not a date"),
        (
            "as_of: 2026-11-21\nprices:\n  - {provider: a, stage: llm, models: [b], prompt: 1}",
            ":3:5: a price of llm needs 'prompt' and 'completion'",
        ),
        ("as_of: 2026-11-21\nprices: [{provider: a, stage: stt, models: [b], minute: -1}]", ":2:57: 'minute'"),
        ("as_of: 2026-11-21\nprices: [{provider: a, stage: stt, models: [b], minut: 1}]", "Did you mean 'minute'?"),
    ],
)
def test_wrong_prices_are_told_with_their_place(tmp_path: Path, text: str, problem: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_prices(own)
    assert problem in str(caught.value)


# Models that end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "shutdown"),
    [
        ("gpt-5-mini", date(2026, 12, 11)),
        ("tts-1", date(2027, 1, 6)),
        ("gpt-4o-mini-tts", date(2027, 1, 6)),
        ("gpt-4.1-2025-04-14", date(2027, 1, 14)),
        ("gpt-realtime-mini", date(2027, 1, 20)),
        ("whisper-1", date(2027, 2, 26)),
    ],
)
def test_announced_shutdowns_are_known(model: str, shutdown: date) -> None:
    ending = find_ending(model, "openai")
    assert ending and ending.shutdown == shutdown


def test_every_ending_has_a_source_and_no_replacement_ends_before_its_model() -> None:
    for ending in endings():
        assert "." in ending.source
        after = find_ending(ending.replacement, ending.provider) if ending.replacement else None
        assert after is None or after.shutdown > ending.shutdown, ending


SPEC = """\
agents:
  a:
    stt: {provider: deepgram}
    llm:
      provider: openai
      model: gpt-4o
      fallback:
        - {provider: anthropic, model: claude-sonnet-4-5}
        - {provider: openai, model: gpt-4o, options: {base_url: "http://localhost:8000/v1"}}
"""


def test_a_model_that_ends_is_told_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(SPEC)
    root = load_yaml(path, None, name="agents.yaml").root

    def told(day: date) -> list[str]:
        return [str(problem) for problem in ending_soon(root, day, CATALOG)]

    assert told(date(2026, 8, 1)) == []
    assert told(date(2026, 11, 21)) == [
        "agents.yaml:6:14: warning: the model 'gpt-4o' of openai is shut down on 2027-01-14, in 54 days. "
        "Use 'gpt-6-luna'",
        "agents.yaml:8:40: warning: the model 'claude-sonnet-4-5' of anthropic is shut down on 2026-11-30, in 9 days. "
        "Use 'claude-sonnet-5-5'",
    ]
    assert "was shut down on 2027-01-14" in told(date(2027, 1, 14))[0]
    assert "in 1 day." in told(date(2027, 1, 13))[0]
    assert len(told(date(2026, 10, 16))) == 2, "90 days before"
    assert len(told(date(2026, 10, 15))) == 1, "91 days before"
