"""The providers of one stage, each inside its wrappers, as one provider of a call.

`Link` is what all calls of an engine share of one provider; `chain` puts a call's wrappers around it:

    fallback( retry( hedge( breaker( timeout( metered( provider ))))), the next one's, ...)

From the inside out, and why there:

- metered: next to the provider, so every request that was made is paid for, whatever becomes of it
- timeout: one request's waits; a retry and a hedge start with fresh ones
- breaker: counts requests, not turns. Three failures open it though they were attempts of one turn,
  and the attempts that are left are not made: that is what prevents a storm of retries
- hedge: a race of two such requests is one attempt, which fails when both have. What it learns is how
  late one attempt is, without the waits between attempts
- retry: before anybody else is asked. It gives up at once when the breaker has opened
- fallback: when all that has not helped
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import Llm, Progress, Provider, Stt, Tts
from voicectl.resilience.breaker import Breaker, Broken
from voicectl.resilience.fallback import FallbackLlm, FallbackStt, FallbackTts, Spare
from voicectl.resilience.hedge import Hedges, Lateness
from voicectl.resilience.metered import metered
from voicectl.resilience.notes import CallNotes
from voicectl.resilience.retry import Retries
from voicectl.resilience.timeout import Timeouts
from voicectl.resilience.wrapping import Place, short
from voicectl.spec import Stage
from voicectl.spec.agent import BreakerSpec

if TYPE_CHECKING:
    import numpy as np


class Link:
    """One provider of a stage's chain, and what all calls know of it.

    Args:
        stage: `stt`, `llm` or `tts`.
        told: what the spec says of it.
        provider: built, not started.
        paid: whether what it is asked for is noted (None: by the list prices).
    """

    def __init__(self, stage: str, told: Stage, provider: Provider, clock: Clock, *, paid: bool | None = None) -> None:
        self.place = Place(stage, told.provider)
        self.told = told
        self.provider = provider
        self.lateness = Lateness()
        self.breaker = self._breaker(told.breaker, clock) if told.breaker else None
        self._clock = clock
        self._paid = paid

    async def start(self, progress: Progress) -> ProviderError | None:
        """Load and connect. Where that fails, says why, and leaves it alone until its breaker lets it try
        again: whether the call can do without it is for the others of its chain to say."""
        try:
            await self.provider.start(progress)
        except ProviderError as error:
            self.breaker = self.breaker or self._breaker(BreakerSpec(), self._clock)
            self.breaker.did_not_start(short(error))
            return error
        return None

    async def aclose(self) -> None:
        if self.breaker:
            await self.breaker.aclose()
        await self.provider.aclose()

    def for_call(self, provider: Any, clock: Clock, notes: CallNotes, lots: np.random.Generator) -> Any:
        """The provider with its own wrappers.

        Args:
            provider: this link's, or what stands for it in this call.
            lots: what the waits between attempts are drawn from.
        """
        told, place = self.told, self.place
        provider = metered(place.stage, place.name, told.model, provider, notes, paid=self._paid)
        around = (
            Timeouts(place, told.timeout, clock, notes) if told.timeout else None,
            Broken(self.breaker, notes) if self.breaker else None,
            Hedges(place, told.hedge, self.lateness, clock, notes, self.troubled) if told.hedge else None,
            Retries(place, told.retry, clock, notes, lots, self.resting) if told.retry else None,
        )
        for wrapper in filter(None, around):
            provider = getattr(wrapper, place.stage)(provider)
        return provider

    def troubled(self) -> bool:
        """Whether not everybody may ask it just now."""
        return self.breaker is not None and self.breaker.state != "closed"

    def resting(self) -> bool:
        """Whether nobody asks it just now."""
        return self.breaker is not None and self.breaker.state == "open"

    def _breaker(self, rules: BreakerSpec, clock: Clock) -> Breaker:
        async def restart() -> None:
            await self.provider.start(lambda text: None)

        return Breaker(self.place, rules, clock, restart)


async def start_chain(links: Sequence[Link], progress: Progress) -> None:
    """Start them all: who fails is left alone as long as another of them serves.

    Raises:
        ProviderError: none does; the first one's reason.
    """
    failed = [error for link in links if (error := await link.start(progress))]
    if len(failed) == len(links):
        raise failed[0]
    for error in failed:
        progress(f"did not start, a fallback takes over: {error}")


def chain(
    links: Sequence[Link],
    clock: Clock,
    notes: CallNotes,
    lots: np.random.Generator,
    instead: Sequence[Any] | None = None,
) -> Any:
    """The stage as one provider of one call.

    Args:
        instead: for each link what stands for its provider in this call.
    """
    stage = links[0].place.stage
    names = [link.place.name for link in links]
    providers = instead or [link.provider for link in links]
    spares: list[Spare[Any]] = [
        Spare(link.for_call(provider, clock, notes, lots), link.resting)
        for link, provider in zip(links, providers, strict=True)
    ]
    if len(spares) == 1:
        return spares[0].provider
    match stage:
        case "stt":
            return FallbackStt(stage, cast("list[Spare[Stt]]", spares), names, notes)
        case "llm":
            return FallbackLlm(stage, cast("list[Spare[Llm]]", spares), names, notes)
        case _:
            return FallbackTts(stage, cast("list[Spare[Tts]]", spares), names, notes, clock)
