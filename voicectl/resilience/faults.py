"""A provider that fails on plan, for tests and for rehearsals on the virtual clock.

`Faulty` is put around any STT, LLM or TTS and asks its `Plan` at each request what goes wrong. A
plan is drawn from a seeded generator or written down; the wrapped provider works as ever.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from voicectl.clock import Clock
from voicectl.errors import FailureKind, ProviderError
from voicectl.pipeline.protocols import Llm, Stt, SttStream, Transcript, Tts
from voicectl.resilience.wrapping import Ask, Place, WrappedLlm, WrappedStt, WrappedTts, heard

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

Wrong = Literal["error", "slow", "cut", "silent", "drip"]
"""- error: it fails at once
- slow: its first piece comes `seconds` late
- cut: it fails after `pieces` pieces
- silent: after `pieces` pieces nothing comes any more
- drip: each piece comes `seconds` after the one before
"""

_WRONGS: tuple[Wrong, ...] = get_args(Wrong)
_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. For an STT a piece is a transcript."""

    what: Wrong
    kind: FailureKind = "unreachable"
    pieces: int = 0
    seconds: float = 5.0
    retry_after_s: float | None = None

    def error(self, where: str) -> ProviderError:
        return ProviderError(
            f"a planned fault ({self.what}, {self.kind})",
            where=where,
            kind=self.kind,
            retry_after_s=self.retry_after_s,
        )


Plan = Callable[[], Fault | None]
"""Asked at each request. None: all is well."""


def planned(faults: Sequence[Fault | None]) -> Plan:
    """These, one after the other, and none after the last."""
    left = iter(faults)
    return lambda: next(left, None)


def drawn(lots: np.random.Generator, share: float) -> Plan:
    """Any fault, at `share` of the requests."""

    def draw() -> Fault | None:
        if lots.random() >= share:
            return None
        what = _WRONGS[int(lots.integers(len(_WRONGS)))]
        kind = _KINDS[int(lots.integers(len(_KINDS)))]
        return Fault(
            what,
            kind if what == "error" else "unreachable",
            pieces=int(lots.integers(1, 12)) if what == "cut" else int(lots.integers(0, 12)),
            seconds=float(lots.choice([0.3, 1.0, 3.0, 8.0])),
            retry_after_s=float(lots.choice([0.2, 30.0])) if kind == "rate_limited" and lots.random() < 0.5 else None,
        )

    return draw


class Faulty:
    """Puts faults around a provider."""

    def __init__(self, place: Place, plan: Plan, clock: Clock) -> None:
        self.where = place.where
        self.plan = plan
        self.clock = clock

    def llm(self, inner: Llm) -> Llm:
        return WrappedLlm(inner, self.around)

    def tts(self, inner: Tts) -> Tts:
        return WrappedTts(inner, self.around)

    def stt(self, inner: Stt) -> Stt:
        return WrappedStt(inner, lambda start: _SttStream(inner.open(start), self))

    async def around(self, ask: Ask[T]) -> AsyncGenerator[T, None]:
        fault = self.plan()
        if fault and fault.what == "error":
            raise fault.error(self.where)
        async with aclosing(ask()) as pieces:
            if fault:
                pieces = self.spoilt(fault, pieces)
            async for piece in pieces:
                yield piece

    async def spoilt(self, fault: Fault, pieces: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        count = 0
        async for piece in pieces:
            if (count == 0 and fault.what == "slow") or fault.what == "drip":
                await self.clock.sleep_until(self.clock.now() + fault.seconds)
            if fault.what in ("cut", "silent") and count >= fault.pieces:
                break
            yield piece
            count += 1
        if fault.what == "cut":
            raise fault.error(self.where)
        if fault.what == "silent":
            await self.clock.never()


class _SttStream:
    def __init__(self, inner: SttStream, faulty: Faulty) -> None:
        self._inner = inner
        self._faulty = faulty
        self._fault = faulty.plan()

    def push(self, pcm: bytes) -> None:
        self._inner.push(pcm)

    def flush(self) -> None:
        self._inner.flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        fault = self._fault
        if fault and fault.what == "error":
            raise fault.error(self._faulty.where)
        async with heard(self._inner) as transcripts:
            async for transcript in self._faulty.spoilt(fault, transcripts) if fault else transcripts:
                yield transcript

    async def aclose(self) -> None:
        await self._inner.aclose()
