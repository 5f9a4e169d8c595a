"""A provider that fails is left alone for a while: by all calls of an engine, which share its `Breaker`.

    closed      everybody may ask; requests of the last `window_ms` are remembered
    open        nobody asks: a request fails at once with `NobodyAsked`, so that a fallback takes over
                without a wait. It opens when `failures` of those requests failed, and half of them
    half-open   `open_ms` later one request may try: when it is answered the breaker closes, else it
                opens again. One that was cancelled before it was answered has not tried; after one of
                which nothing is heard for `open_ms` another may

A provider that could not be started has an open breaker too; when its time has come it is started
in the background, and nobody waits for that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Literal, TypeVar

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import BreakerChanged
from voicectl.pipeline.protocols import Llm, Stt, SttStream, Transcript, Tts
from voicectl.resilience.notes import CallNotes
from voicectl.resilience.wrapping import Ask, Place, WrappedLlm, WrappedStt, WrappedTts, heard, short
from voicectl.spec.agent import BreakerSpec

T = TypeVar("T")

State = Literal["closed", "open", "half-open"]

_REMEMBERED = 1_000  # requests: a window of many calls need not be counted further


class NobodyAsked(ProviderError):
    """The breaker is open: the provider was not asked."""


class Breaker:
    """What all calls know of one provider.

    Args:
        restart: starts the provider, for one that could not be.
    """

    def __init__(self, place: Place, rules: BreakerSpec, clock: Clock, restart: Callable[[], Awaitable[None]]) -> None:
        self.place = place
        self.state: State = "closed"
        self._rules = rules
        self._clock = clock
        self._restart = restart
        self._lately: deque[tuple[float, bool]] = deque(maxlen=_REMEMBERED)  # when, and whether it worked
        self._until = 0.0
        self._why = ""
        self._started = True
        self._starting: asyncio.Task[None] | None = None

    # Asking ------------------------------------------------------------------------------------

    def admit(self, notes: CallNotes) -> bool:
        """Let a request through. True: it is the one that tries a half-open breaker.

        Raises:
            NobodyAsked: it may not ask.
        """
        if self.state == "closed":
            return False
        if self._clock.now() >= self._until - 1e-9:
            if self._started:
                self._change("half-open", "one may try again", notes)
                return True
            self._start_again()
        raise NobodyAsked(f"is not asked: {self._why}", where=self.place.where, kind="unreachable")

    def worked(self, trial: bool, notes: CallNotes) -> None:
        """A request was answered."""
        self._lately.append((self._clock.now(), True))
        if trial and self.state == "half-open":
            self._lately.clear()
            self._change("closed", "it answers again", notes)

    def failed(self, trial: bool, why: str, notes: CallNotes) -> None:
        now = self._clock.now()
        self._lately.append((now, False))
        while self._lately[0][0] < now - self._rules.window_ms / 1000:
            self._lately.popleft()
        failures = sum(not worked for _, worked in self._lately)
        many = failures >= self._rules.failures and 2 * failures >= len(self._lately)
        if (trial and self.state == "half-open") or (many and self.state == "closed"):
            self._open(why)
            self._note(f"it failed again: {why}" if trial else f"{failures} requests failed, the last: {why}", notes)

    def dropped(self, trial: bool) -> None:
        """A request was cancelled before it was answered: nothing is known. The next may try."""
        if trial and self.state == "half-open":
            self.state, self._until = "open", self._clock.now()

    # Starting ------------------------------------------------------------------------------------

    def did_not_start(self, why: str) -> None:
        """Nobody asks it; it is started again when its time has come."""
        self._started = False
        self._open(f"it did not start: {why}")

    def _start_again(self) -> None:
        if not self._starting or self._starting.done():
            self._starting = self._clock.spawn(self._start(), name=f"starting {self.place.where}")

    async def _start(self) -> None:
        try:
            await self._restart()
        except ProviderError as error:
            self.did_not_start(short(error))
        else:
            self._started = True

    async def aclose(self) -> None:
        if self._starting:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            self._starting = None

    # State ---------------------------------------------------------------------------------------

    def _open(self, why: str) -> None:
        self.state = "open"
        self._why = why
        self._until = self._clock.now() + self._rules.open_ms / 1000

    def _change(self, state: State, why: str, notes: CallNotes) -> None:
        self.state = state
        self._until = self._clock.now() + self._rules.open_ms / 1000  # a trial of which nothing is heard is over
        self._note(why, notes)

    def _note(self, why: str, notes: CallNotes) -> None:
        place = self.place
        notes.note(BreakerChanged(at=notes.now(), stage=place.stage, provider=place.name, state=self.state, why=why))


class Broken:
    """A breaker as one call meets it."""

    def __init__(self, breaker: Breaker, notes: CallNotes) -> None:
        self._breaker = breaker
        self._notes = notes

    def llm(self, inner: Llm) -> Llm:
        return WrappedLlm(inner, self.around)

    def tts(self, inner: Tts) -> Tts:
        return WrappedTts(inner, self.around)

    def stt(self, inner: Stt) -> Stt:
        def open_stream(start: float) -> SttStream:
            try:
                trial = self._breaker.admit(self._notes)
            except NobodyAsked as error:
                return _Refused(error)
            return _SttStream(inner.open(start), _Request(self._breaker, trial, self._notes))

        return WrappedStt(inner, open_stream)

    async def around(self, ask: Ask[T]) -> AsyncGenerator[T, None]:
        request = _Request(self._breaker, self._breaker.admit(self._notes), self._notes)
        try:
            async with aclosing(ask()) as pieces:
                async for piece in pieces:
                    request.answered = True
                    yield piece
            request.answered = True
        except ProviderError as error:
            request.failed(error)
            raise
        finally:
            request.over()


class _Request:
    """One request, whose outcome is told once."""

    def __init__(self, breaker: Breaker, trial: bool, notes: CallNotes) -> None:
        self._breaker = breaker
        self._trial = trial
        self._notes = notes
        self._told = False
        self.answered = False

    def failed(self, error: ProviderError) -> None:
        if not self._told:
            self._told = True
            self._breaker.failed(self._trial, short(error), self._notes)

    def over(self) -> None:
        if self._told:
            return
        self._told = True
        if self.answered:
            self._breaker.worked(self._trial, self._notes)
        else:
            self._breaker.dropped(self._trial)


class _SttStream:
    """Answered when a flush was."""

    def __init__(self, inner: SttStream, request: _Request) -> None:
        self._inner = inner
        self._request = request

    def push(self, pcm: bytes) -> None:
        self._inner.push(pcm)

    def flush(self) -> None:
        self._inner.flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        try:
            async with heard(self._inner) as transcripts:
                async for transcript in transcripts:
                    self._request.answered = self._request.answered or transcript.final
                    yield transcript
        except ProviderError as error:
            self._request.failed(error)
            raise

    async def aclose(self) -> None:
        self._request.over()
        await self._inner.aclose()


class _Refused:
    """The stream of an STT that is not asked."""

    def __init__(self, error: NobodyAsked) -> None:
        self._error = error

    def push(self, pcm: bytes) -> None:
        """Nobody listens."""

    def flush(self) -> None:
        """Nobody listens."""

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        raise self._error
        yield

    async def aclose(self) -> None:
        """Nothing is open."""
