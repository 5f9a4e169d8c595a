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


def spend(
    costs: Mapping[str, str],
    tmp_path: Path,
    table: PriceTable,
    caps: Caps,
    *,
    at_once: int = 1,
    calls: int = 12,
    quoted: str = "0.01",
    request: str = "0.04",
    made: list[int] | None = None,
) -> Purse:
    """What becomes of a run whose calls, each of 10 s, cost this in four parts.

    Args:
        quoted, request: what each call, and the dearest request in it, is thought to cost.
        made: is given whether all calls were made, and how many `run` counted.
    """

    async def main(clock: Clock) -> Purse:
        counted = 0

        def count(number: int, caller: Caller, trace: Trace) -> None:
            nonlocal counted
            counted += 1

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
        thought = Quote(dict.fromkeys(costs, Decimal(quoted)), {"tts": Decimal(request)})
        purse = Purse("coffee", caps, thought, table, clock, Ledger(tmp_path), lambda: DAY, answer)
        complete = await run(Plan(callers, calls, at_once), answer_none, tmp_path, clock, count, purse.admit)
        if made is not None:
            made.extend([complete, counted])
        return purse

    return run_on("virtual", main)


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


@pytest.mark.parametrize(
    "caps", [Caps(per_call=Decimal(1), per_day=Decimal(5)), Caps(run=Decimal("0.22"))], ids=["a day", "the run"]
)
def test_what_cannot_be_paid_for_yet_waits_until_others_have_cost_less(
    tmp_path: Path, table: PriceTable, caps: Caps
) -> None:
    made: list[int] = []
    purse = spend({"a": "0.012"}, tmp_path, table, caps, at_once=8, calls=12, quoted="0.10", request="0.003", made=made)
    assert (purse.why, purse.cut, made) == (None, 0, [True, 12])
    assert purse.spent == 12 * Decimal("0.012")
    assert Ledger(tmp_path).spent("coffee", DAY) == (purse.spent if caps.per_day else 0)


@pytest.mark.parametrize("calls", [3, 12])
def test_who_waited_in_vain_made_no_call_and_hurt_no_other(tmp_path: Path, table: PriceTable, calls: int) -> None:
    made: list[int] = []
    caps = Caps(per_call=Decimal("0.50"), per_day=Decimal("1.00"))
    purse = spend({"a": "0.324"}, tmp_path, table, caps, at_once=3, calls=calls, request="0.07", made=made)
    assert purse.why == "what 'coffee' may spend in a day, $1.00, would be exceeded"
    assert (purse.cut, made) == (0, [False, 2]), "two calls, whole ones, and a third that never began"
    assert Ledger(tmp_path).spent("coffee", DAY) == purse.spent == 2 * Decimal("0.324")


def test_a_call_that_grows_sets_aside_only_what_it_lacks(tmp_path: Path, table: PriceTable) -> None:
    caps = Caps(per_day=Decimal("1.00"))
    made: list[int] = []
    purse = spend({"a": "0.60"}, tmp_path, table, caps, calls=1, quoted="0.30", request="0.15", made=made)
    assert (purse.why, purse.cut, purse.spent, made) == (None, 0, Decimal("0.60"), [True, 1])


def test_a_call_that_cannot_grow_is_cut_and_the_others_go_on(tmp_path: Path, table: PriceTable) -> None:
    made: list[int] = []
    caps = Caps(per_day=Decimal("0.65"))
    purse = spend({"dear": "0.408", "cheap": "0.036"}, tmp_path, table, caps, at_once=2, calls=2, made=made)
    assert (purse.why, purse.cut, made) == (None, 1, [True, 2])
    assert purse.spent == Decimal("0.342"), "three parts of the dear one, and the whole of the other"


def test_a_cheap_request_makes_those_that_are_open_no_cheaper(tmp_path: Path, table: PriceTable) -> None:
    caps = Caps(per_call=Decimal("0.05"))
    purse = spend({"a": "0.0012"}, tmp_path, table, caps, calls=1, request="0.03")
    assert (purse.cut, purse.spent) == (1, Decimal("0.0003")), "two open ones may still cost 0.06"


def test_no_call_begins_where_one_request_costs_more_than_a_call_may(tmp_path: Path, table: PriceTable) -> None:
    made: list[int] = []
    purse = spend({"a": "0.001"}, tmp_path, table, Caps(per_call=Decimal("0.02")), request="0.03", made=made)
    assert (purse.spent, made) == (0, [False, 0])
    assert purse.why == "what one call may cost, $0.02, would be exceeded by a single request"


def test_a_fallback_without_a_price_refuses_a_budget_too(tmp_path: Path, table: PriceTable) -> None:
    path = tmp_path / "agents.yaml"
    text = AGENTS.format(instructions="x", speculation="true")
    fallback = "{provider: scripted, fallback: {provider: openai, model: mine}}"
    path.write_text(text.replace("llm: {provider: scripted}", f"llm: {fallback}"))
    with pytest.raises(UsageError, match="llm openai mine has no price"):
        quote(resolve(None, None, (), env={}, catalog=CATALOG, agents_file=path), [says("Hi")], table)
