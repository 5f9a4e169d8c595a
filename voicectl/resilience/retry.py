"""A request that failed is made again, where that can help and nobody has heard of its answer yet.

The wait before attempt n is drawn by lot between 0 and `first_ms * 2**(n - 1)`, at most `most_ms`
("full jitter": callers that failed together do not come back together). What a vendor asks for
(Retry-After) is kept, and given up when it is longer than `most_ms`. A call has a budget, so that a
vendor who is down is not asked several times by every turn.

An LLM or a TTS whose first piece was passed on is not asked again: that is `fallback`'s business. A
turn of an STT can always be asked again, since its audio is kept (`kept_turn`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from voicectl.clock import Clock
from voicectl.errors import FailureKind, ProviderError
from voicectl.events import ProviderRetried
from voicectl.pipeline.protocols import Llm, Stt, SttStream, Tts
from voicectl.resilience.breaker import NobodyAsked
from voicectl.resilience.kept_turn import KeptTurn
from voicectl.resilience.notes import CallNotes
from voicectl.resilience.wrapping import Ask, Place, WrappedLlm, WrappedStt, WrappedTts, short
from voicectl.spec.agent import RetrySpec

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

SAFE: frozenset[FailureKind] = frozenset({"timeout", "unreachable", "rate_limited", "server", "protocol"})
"""What may be otherwise the next time. "refused" will not be, and of "failed" nothing is known."""


class Retries:
    """The attempts of one provider in one call.

    Args:
        lots: what the waits are drawn from.
        resting: whether nobody would be asked now, so that waiting is of no use.
    """

    def __init__(
        self,
        place: Place,
        rules: RetrySpec,
        clock: Clock,
        notes: CallNotes,
        lots: np.random.Generator,
        resting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._place = place
        self._rules = rules
        self._left = rules.per_call
        self._clock = clock
        self._notes = notes
        self._lots = lots
        self._resting = resting

    def llm(self, inner: Llm) -> Llm:
        return WrappedLlm(inner, self.around)

    def tts(self, inner: Tts) -> Tts:
        return WrappedTts(inner, self.around)

    def stt(self, inner: Stt) -> Stt:
        def again(start: float) -> SttStream:
            attempt = 0

            async def after(error: ProviderError) -> Stt | None:
                nonlocal attempt
                attempt += 1
                return inner if await self.wait(attempt, error) else None

            return KeptTurn(inner, start, after)

        return WrappedStt(inner, again)

    async def around(self, ask: Ask[T]) -> AsyncGenerator[T, None]:
        attempt = 0
        while True:
            attempt += 1
            begun = False
            try:
                async with aclosing(ask()) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except ProviderError as error:
                if begun or not await self.wait(attempt, error):
                    raise

    async def wait(self, attempt: int, error: ProviderError) -> bool:
        """Whether to ask again, when it is time to."""
        wait_s = self._wait_s(attempt, error)
        if wait_s is None:
            return False
        self._left -= 1
        place = self._place
        self._notes.note(
            ProviderRetried(
                at=self._notes.now(),
                stage=place.stage,
                provider=place.name,
                attempt=attempt,
                wait=wait_s,
                why=short(error),
            )
        )
        await self._clock.sleep_until(self._clock.now() + wait_s)
        return True

    def _wait_s(self, attempt: int, error: ProviderError) -> float | None:
        """None: it is not asked again."""
        rules = self._rules
        if self._resting():
            return None
        if attempt > rules.attempts or not self._left or error.kind not in SAFE or isinstance(error, NobodyAsked):
            return None
        most_s = rules.most_ms / 1000
        if error.retry_after_s is not None and error.retry_after_s > most_s:
            return None
        longest = min(most_s, rules.first_ms / 1000 * 2 ** (attempt - 1))
        return round(max(float(self._lots.uniform(0, longest)), error.retry_after_s or 0.0), 6)
