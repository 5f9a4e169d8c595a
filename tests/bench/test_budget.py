"""A quote, computed by hand; who may call is decided before a call, and by what is known of the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from voicectl.audio import Pcm
from voicectl.bench.budget import Caps, Purse, Quote, quote
from voicectl.bench.run import Plan, run
from voicectl.clock import Clock, run_on
from voicectl.errors import UsageError
from voicectl.events import Event, ProviderUsed
from voicectl.ledger import Ledger
from voicectl.prices import PriceTable, load_prices
from voicectl.providers import CATALOG
from voicectl.spec import ResolvedAgent, resolve
from voicectl.trace import Trace
from voicectl.transports.caller import Caller, Utterance

AGENTS = """\
agents:
  coffee:
    instructions: "{instructions}"
    greeting: Good morning to you!
    vad: {{provider: scripted}}
    stt: {{provider: scripted}}
    llm: {{provider: scripted}}
    tts: {{provider: scripted}}
    turn: {{speculation: {speculation}}}
"""
PRICES = """\
as_of: 2026-11-21
prices:
  - {provider: scripted, stage: stt, models: [default], minute: 0.60}
  - {provider: scripted, stage: llm, models: [default], prompt: 100, completion: 1000}
  - {provider: scripted, stage: tts, models: [default], characters: 300}
"""
DAY = date(2026, 11, 21)


def agent(folder: Path, *, speculation: bool = False) -> ResolvedAgent:
    path = folder / "agents.yaml"
    path.write_text(AGENTS.format(instructions="x" * 80, speculation=str(speculation).lower()))
    return resolve(None, None, (), env={}, catalog=CATALOG, agents_file=path)


@pytest.fixture
def table(tmp_path: Path) -> PriceTable:
    (tmp_path / "prices.yaml").write_text(PRICES)
    return load_prices(tmp_path / "prices.yaml")


def says(*texts: str, seconds: float = 2.0) -> Caller:
    """Each in so many seconds."""
    pcm = Pcm(bytes(64_000), 16_000)
    return Caller("guest", tuple(Utterance(pcm, f"{text}.wav", 0.0, seconds, text) for text in texts))


def test_a_quote_is_what_it_supposes_times_the_prices(tmp_path: Path, table: PriceTable) -> None:
    quoted = quote(agent(tmp_path), [says("y" * 40, "z" * 20)], table)
    # Twice 3 s of audio. The model reads 80 + 20 + 40 characters, then these, its answer of 120 and 20
    # more: 35 and 70 tokens, and says 30 each time. The voice says the greeting and both answers.
    heard = Decimal("0.06")
    thought = (Decimal(35 + 70) * 100 + 60 * 1000) / 1_000_000
    said = Decimal(20 + 120 + 120) * 300 / 1_000_000
    assert quoted.calls == {"guest": heard + thought + said}
    assert quoted.requests["llm"] == (Decimal(70) * 100 + 30 * 1000) / 1_000_000


def test_thinking_ahead_is_quoted(tmp_path: Path, table: PriceTable) -> None:
    plain = quote(agent(tmp_path), [says("y" * 40)], table).calls["guest"]
    ahead = quote(agent(tmp_path, speculation=True), [says("y" * 40)], table).calls["guest"]
    once_more = (Decimal(35) * 100 + 30 * 1000) / 1_000_000
    assert ahead - plain == once_more + Decimal(60) * 300 / 1_000_000


def test_what_runs_here_is_quoted_at_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(PRICES.replace("scripted", "somebody"))
    assert quote(agent(tmp_path), [says("Hi")], load_prices(tmp_path / "one.yaml")).calls == {"guest": 0}


def test_what_was_learned_goes_before_what_is_supposed() -> None:
    quoted = Quote({"a": Decimal(1), "b": Decimal(1)}, {})
    assert quoted.knowing({"a": [Decimal("0.10"), Decimal("0.20")], "c": [Decimal(9)]}).calls == {
        "a": Decimal("0.24"),
        "b": Decimal(1),
    }


# Who may call ------------------------------------------------------------------------------------


def spend(costs: Mapping[str, str], tmp_path: Path, table: PriceTable, caps: Caps, *, at_once: int = 1) -> Purse:
    """What becomes of a run whose calls, each of 10 s, cost this in four parts, when 12 are planned."""

    async def main(clock: Clock) -> Purse:
        async def answer(caller: Caller, folder: Path, listen: Callable[[Event], None]) -> Trace:
            trace = Trace()
            trace.listen(listen)
            characters = round(Decimal(costs[caller.name]) * 1_000_000 / 300 / 4)
            for part in range(4):
                await clock.sleep_until(clock.now() + 2.5)
                trace.append(
                    ProviderUsed(at=float(part), stage="tts", provider="scripted", model=None, characters=characters)
                )
            return trace

        callers = [Caller(name, ()) for name in costs]
        quoted = Quote(dict.fromkeys(costs, Decimal("0.01")), {"tts": Decimal("0.04")})
        purse = Purse("coffee", caps, quoted, table, clock, Ledger(tmp_path), lambda: DAY, answer)
        await run(Plan(callers, 12, at_once), answer_none, tmp_path, clock, unseen, purse.admit)
        return purse

    return run_on("virtual", main)


def unseen(number: int, caller: Caller, trace: Trace) -> None:
    """Nobody looks."""


async def answer_none(caller: Caller, folder: Path) -> Trace:
    raise AssertionError("only the purse makes calls")


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("cap", ["0.30", "1.00", "2.50"])
def test_no_run_spends_more_than_its_cap_however_wrong_the_quote(
    tmp_path: Path, table: PriceTable, cap: str, at_once: int
) -> None:
    purse = spend({"a": "0.12", "b": "0.30"}, tmp_path, table, Caps(run=Decimal(cap)), at_once=at_once)
    assert Decimal(0) < purse.spent <= Decimal(cap)
    assert purse.why == f"the budget of ${cap} would be exceeded", "twelve calls would cost 2.52"


@pytest.mark.parametrize("at_once", [1, 5])
def test_no_day_costs_more_than_its_cap_however_wrong_the_quote(
    tmp_path: Path, table: PriceTable, at_once: int
) -> None:
    caps = Caps(per_day=Decimal("1.00"))
    purses = [spend({"a": "0.12", "b": "0.30"}, tmp_path, table, caps, at_once=at_once) for _ in range(3)]
    assert Decimal("0.40") < sum(purse.spent for purse in purses) <= Decimal("1.00")
    assert Ledger(tmp_path).spent("coffee", DAY) == sum(purse.spent for purse in purses)


def test_a_call_costs_no_more_than_its_cap_and_the_others_go_on(tmp_path: Path, table: PriceTable) -> None:
    purse = spend({"a": "0.04", "b": "0.40"}, tmp_path, table, Caps(per_call=Decimal("0.25")))
    assert (purse.cut, purse.why) == (6, None)
    assert purse.spent <= 6 * Decimal("0.04") + 6 * Decimal("0.25")


def test_a_fallback_without_a_price_refuses_a_budget_too(tmp_path: Path, table: PriceTable) -> None:
    path = tmp_path / "agents.yaml"
    text = AGENTS.format(instructions="x", speculation="true")
    fallback = "{provider: scripted, fallback: {provider: openai, model: mine}}"
    path.write_text(text.replace("llm: {provider: scripted}", f"llm: {fallback}"))
    with pytest.raises(UsageError, match="llm openai mine has no price"):
        quote(resolve(None, None, (), env={}, catalog=CATALOG, agents_file=path), [says("Hi")], table)
