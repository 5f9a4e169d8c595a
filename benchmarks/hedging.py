"""What a second request is worth when a vendor's first byte has a heavy tail, and what it costs.

    python benchmarks/hedging.py [--requests 600] [--at-once 8] [--seed 1]

OpenAI's own SDK asks a stand-in whose first byte takes lognormal times, P50 200 ms and P99 3 s, over
real sockets. Three ways take turns, request by request, on the same stand-in: asked once; hedged as
`hedge: true` does (after the provider's own P95, learned on the way); hedged after 400 ms. Requests that
have to wait for others of this benchmark would measure it and not the vendor: keep `--at-once` small.

Time to the first token from the request on, with the 95% interval; requests made beyond those asked
for; and money: all requests at the price of the model named. What a lost one cost the vendor does not
say; it is estimated, with nothing of its prompt cached, which is the most it can be.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from voicectl.analysis.cost import priced, tally
from voicectl.analysis.percentiles import Figure, Value, summarise
from voicectl.clock import Clock, run_on
from voicectl.events import Event, HedgeStarted
from voicectl.pipeline.protocols import Llm, LlmRequest, Message, TextDelta
from voicectl.prices import list_prices
from voicectl.providers.openai_llm import OpenAiLlm, Options
from voicectl.resilience.hedge import Hedges, Lateness
from voicectl.resilience.metered import metered
from voicectl.resilience.wrapping import Place
from voicectl.spec.agent import HedgeSpec
from voicectl.standin.delays import Draw, Wait, fixed, lognormal
from voicectl.standin.server import StandIn

MODEL = "gpt-6-luna"
P50_S, P99_S = 0.2, 3.0
ASKED = LlmRequest((Message("system", "You take orders. Be brief. " * 20), Message("user", "A latte, please.")))
CALL = 10  # requests that share the wrappers of one call


@dataclass
class Way:
    """One way of asking: its rule, and what came of it."""

    name: str
    rules: HedgeSpec | None
    lateness: Lateness = field(default_factory=Lateness)
    waits_ms: list[float] = field(default_factory=list[float])
    events: list[Event] = field(default_factory=list[Event])

    def now(self) -> float:
        return 0.0

    def note(self, event: Event) -> None:
        self.events.append(event)

    def llm(self, inner: Llm, clock: Clock) -> Llm:
        """As a call has it."""
        paid = metered("llm", "openai", MODEL, inner, self)
        if self.rules is None:
            return paid
        return Hedges(Place("llm", "openai"), self.rules, self.lateness, clock, self).llm(paid)

    @property
    def extra(self) -> int:
        return sum(isinstance(event, HedgeStarted) for event in self.events)


async def first_token_ms(llm: Llm, clock: Clock) -> float:
    """Until the first token; then the rest, so that the connection is free again."""
    asked, first = clock.now(), math.nan
    async with aclosing(llm.generate(ASKED)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta) and math.isnan(first):
                first = clock.now() - asked
    return 1000 * first


def measure(requests: int, at_once: int, seed: int) -> list[Way]:
    ways = [Way("asked once", None), Way("hedge: true", HedgeSpec()), Way("hedge: 400", HedgeSpec(after_ms=400))]

    async def main(clock: Clock) -> None:
        delays: dict[Wait, Draw] = {
            "llm": lognormal(P50_S, P99_S, np.random.default_rng(seed)),
            "llm-gap": fixed(0.005),
        }
        with StandIn(answer=lambda messages: "A latte, sure. Anything else?", delays=delays) as vendor:
            openai = OpenAiLlm(
                Options.model_validate({"base_url": vendor.url + "/v1", "timeout_ms": 120_000}),
                MODEL,
                clock,
                api_key="none",
            )
            await openai.start(lambda text: None)
            numbers = iter(range(-(-requests // CALL)))

            async def line() -> None:
                for _ in numbers:
                    asked = [(way, way.llm(openai, clock)) for way in ways]
                    for _ in range(CALL):
                        for way, llm in asked:
                            way.waits_ms.append(await first_token_ms(llm, clock))

            for task in [clock.spawn(line(), name=f"caller {number}") for number in range(at_once)]:
                await task
            await openai.aclose()

    run_on("wall", main)
    return ways


def shown(figure: Figure) -> str:
    if figure.value is None:
        return f"needs n = {figure.needs}"
    low, high = figure.ci95 or (math.nan, math.nan)
    return f"{figure.value:.0f} [{low:.0f}, {high:.0f}]"


def table(ways: Sequence[Way]) -> list[str]:
    plain = priced(tally(ways[0].events), list_prices()).total
    lines = [f"{'first token, ms':16} {'n':>5} {'P50':>18} {'P95':>22} {'P99':>22} {'extra':>8} {'money':>8}"]
    for way in ways:
        found = summarise([Value(wait, call) for call, wait in enumerate(way.waits_ms)])
        cost = priced(tally(way.events), list_prices())
        extra = f"{way.extra / len(way.waits_ms):+.1%}"
        money = f"{float(cost.total / plain) - 1:+.1%}"
        figures = f"{shown(found.p50):>18} {shown(found.p95):>22} {shown(found.p99):>22}"
        lines.append(f"{way.name:16} {found.n:5} {figures} {extra:>8} {money:>8}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="of each way")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    ways = measure(asked.requests, asked.at_once, asked.seed)
    print("\n".join(table(ways)))
    money = [float(priced(tally(way.events), list_prices()).total) / len(way.waits_ms) * 1000 for way in ways]
    names = ", ".join(f"{way.name} ${dollars:.4f}" for way, dollars in zip(ways, money, strict=True))
    print(f"for 1000 requests to {MODEL} of {len(ASKED.messages[0].content) // 4} prompt tokens: {names}")


if __name__ == "__main__":
    main()
