"""Waits end: for the first piece of an answer, and for each further one.

Only waiting counts, not what the reader does between two pieces. From an STT the answer to a flush
is awaited. A request that is late is dropped, and its `ProviderError` has the kind "timeout".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import ProviderTimedOut
from voicectl.pipeline.protocols import Llm, Stt, SttStream, Transcript, Tts
from voicectl.resilience.notes import CallNotes
from voicectl.resilience.wrapping import Ask, Place, WrappedLlm, WrappedStt, WrappedTts, heard
from voicectl.spec.agent import TimeoutSpec

T = TypeVar("T")

_FIRST, _NEXT = "first byte", "next piece"


class Timeouts:
    """The waits for one provider in one call."""

    def __init__(self, place: Place, rules: TimeoutSpec, clock: Clock, notes: CallNotes) -> None:
        self._place = place
        self._first_s = rules.first_ms / 1000
        self._gap_s = rules.gap_ms / 1000
        self._clock = clock
        self._notes = notes

    def llm(self, inner: Llm) -> Llm:
        return WrappedLlm(inner, self.around)

    def tts(self, inner: Tts) -> Tts:
        return WrappedTts(inner, self.around)

    def stt(self, inner: Stt) -> Stt:
        return WrappedStt(inner, lambda start: _SttStream(inner.open(start), self))

    async def around(self, ask: Ask[T]) -> AsyncGenerator[T, None]:
        what, after_s = _FIRST, self._first_s
        async with aclosing(ask()) as pieces:
            while True:
                wait = asyncio.timeout_at(self._clock.now() + after_s)
                try:
                    async with wait:
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not wait.expired():
                        raise
                    raise self.late(what, after_s) from None
                yield piece
                what, after_s = _NEXT, self._gap_s

    def deadline(self) -> float:
        """When a flush that was asked for now must have been answered."""
        return self._clock.now() + self._first_s

    def late(self, what: str = _FIRST, after_s: float | None = None) -> ProviderError:
        """Note it, and say so."""
        after_s = self._first_s if after_s is None else after_s
        place = self._place
        now = self._notes.now()
        self._notes.note(
            ProviderTimedOut(at=now, stage=place.stage, provider=place.name, what=what, after=round(after_s, 3))
        )
        return ProviderError(f"no {what} within {after_s * 1000:.0f} ms", where=place.where, kind="timeout")


class _SttStream:
    """Waits for the answer to the last flush; one that it overtakes may stay unanswered."""

    def __init__(self, inner: SttStream, timeouts: Timeouts) -> None:
        self._inner = inner
        self._timeouts = timeouts
        self._flushes = 0
        self._deadline: float | None = None
        self._wait: asyncio.Timeout | None = None

    def push(self, pcm: bytes) -> None:
        self._inner.push(pcm)

    def flush(self) -> None:
        self._flushes += 1
        self._deadline = self._timeouts.deadline()
        if self._wait and not self._wait.expired():
            self._wait.reschedule(self._deadline)
        self._inner.flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        async with heard(self._inner) as transcripts:
            while True:
                wait = asyncio.timeout_at(self._deadline)
                try:
                    async with wait:
                        self._wait = wait
                        try:
                            transcript = await anext(transcripts)
                        finally:
                            self._wait = None
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not wait.expired():
                        raise
                    raise self._timeouts.late() from None
                if transcript.flush == self._flushes:
                    self._deadline = None
                yield transcript

    async def aclose(self) -> None:
        await self._inner.aclose()
