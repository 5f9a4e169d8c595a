"""A request that is late is made a second time, and what begins first is taken.

Late is `after_ms`, or what 19 of 20 of the provider's answers are faster than (`Lateness`, shared by
all calls and learned from them), so about one request in twenty is paid twice. The loser is
cancelled. A second request that fails leaves the first alone, and the other way round.

An STT's turn is hedged from its flush on: a second stream hears the turn's audio again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import HedgeDecided, HedgeStarted
from voicectl.pipeline.protocols import Llm, Stt, SttStream, Transcript, Tts
from voicectl.resilience.kept_turn import KEPT_BYTES
from voicectl.resilience.notes import CallNotes
from voicectl.resilience.wrapping import Ask, Place, WrappedLlm, WrappedStt, WrappedTts, heard
from voicectl.spec.agent import HedgeSpec

T = TypeVar("T")

_LEARNED_FROM = 20  # answers: fewer do not carry a P95
_REMEMBERED = 200
_UNLEARNED_S = 1.0
_LATER = 1.1  # than the P95: of one who always takes the same time, nobody is late


class Lateness:
    """How long a provider takes to begin its answers."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)

    def waited(self, seconds: float) -> None:
        self._waits.append(seconds)

    def late_s(self) -> float:
        """From when on it is late. A second, until enough is known."""
        if len(self._waits) < _LEARNED_FROM:
            return _UNLEARNED_S
        return _LATER * sorted(self._waits)[int(0.95 * len(self._waits))]


class Hedges:
    """The second requests to one provider in one call."""

    def __init__(
        self,
        place: Place,
        rules: HedgeSpec,
        lateness: Lateness,
        clock: Clock,
        notes: CallNotes,
        troubled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._place = place
        self._rules = rules
        self._left = rules.per_call
        self.lateness = lateness
        self.clock = clock
        self._notes = notes
        self._troubled = troubled  # its breaker would turn a second request away

    def llm(self, inner: Llm) -> Llm:
        return WrappedLlm(inner, self.around)

    def tts(self, inner: Tts) -> Tts:
        return WrappedTts(inner, self.around)

    def stt(self, inner: Stt) -> Stt:
        return WrappedStt(inner, lambda start: _SttStream(inner, start, self))

    async def around(self, ask: Ask[T]) -> AsyncGenerator[T, None]:
        race = _Race(self, ask)
        try:
            begun, rest = await race.run()
            async with aclosing(rest):
                for piece in begun:
                    yield piece
                async for piece in rest:
                    yield piece
        finally:
            await race.aclose()

    def after_s(self) -> float:
        after_ms = self._rules.after_ms
        return self.lateness.late_s() if after_ms is None else after_ms / 1000

    def take(self) -> bool:
        """Whether the call may have one more."""
        if self._troubled():
            return False
        self._left -= 1
        return self._left >= 0

    def started(self, after_s: float) -> None:
        place = self._place
        self._notes.note(
            HedgeStarted(
                at=self._notes.now(),
                stage=place.stage,
                provider=place.name,
                second=place.name,
                after=round(after_s, 3),
            )
        )

    def decided(self, winner: str) -> None:
        self._notes.note(HedgeDecided(at=self._notes.now(), stage=self._place.stage, winner=winner))


class _Race(Generic[T]):
    """One request, and a second one when it is late.

    The first is awaited where it is wanted, so who is in time comes no later than without a hedge.
    """

    def __init__(self, hedges: Hedges, ask: Ask[T]) -> None:
        self._hedges = hedges
        self._clock = hedges.clock
        self._ask = ask
        self._first = ask()
        self._second: AsyncGenerator[T, None] | None = None
        self._task: asyncio.Task[list[T]] | None = None  # the second, on its way to its first piece
        self._wait = asyncio.timeout(None)  # for the first; ended by the second
        self._waiting = False

    async def run(self) -> tuple[list[T], AsyncGenerator[T, None]]:
        """What began first: its first piece (none of an empty answer), and the rest of it."""
        asked_at = self._clock.now()
        after_s = self._hedges.after_s()
        alarm = self._clock.alarm(asked_at + after_s)
        alarm.add_done_callback(lambda alarm: None if alarm.cancelled() else self._late(after_s))
        try:
            begun, winner = await self._began()
        finally:
            alarm.cancel()
        self._hedges.lateness.waited(self._clock.now() - asked_at)  # of the first: at least so long
        if self._second:
            first = winner is self._first
            self._hedges.decided("first" if first else "second")
            await self._drop(first=not first)
        return begun, winner

    async def aclose(self) -> None:
        await self._drop(first=True)
        if self._second:
            await self._drop(first=False)

    async def _began(self) -> tuple[list[T], AsyncGenerator[T, None]]:
        try:
            async with self._wait:
                self._waiting = True
                try:
                    return await _piece(self._first), self._first
                finally:
                    self._waiting = False
        except TimeoutError:
            if not self._wait.expired():
                raise
        except ProviderError:
            if not self._task or not await _succeeds(self._task):
                raise
        assert self._task and self._second
        return self._task.result(), self._second

    def _late(self, after_s: float) -> None:
        """The first has not begun yet: ask a second time."""
        if self._waiting and self._hedges.take():
            self._hedges.started(after_s)
            self._second = self._ask()
            self._task = self._clock.spawn(_piece(self._second), name="second request")
            self._task.add_done_callback(self._second_began)

    def _second_began(self, task: asyncio.Task[list[T]]) -> None:
        if self._waiting and not task.cancelled() and not task.exception():
            self._wait.reschedule(self._clock.now())

    async def _drop(self, *, first: bool) -> None:
        if first:
            await self._first.aclose()
            return
        if self._task and not self._task.done():
            self._task.cancel()
            await _succeeds(self._task)
        if self._second:
            await self._second.aclose()


async def _piece(pieces: AsyncGenerator[T, None]) -> list[T]:
    """The next one, none at the end."""
    async for piece in pieces:
        return [piece]
    return []


async def _succeeds(task: asyncio.Task[Any]) -> bool:
    """Wait for its end, whatever that is."""
    if not task.done():
        await asyncio.wait([task])
    return not task.cancelled() and not task.exception()


# Hearing -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Side:
    """One of the streams of a turn."""

    stream: SttStream
    which: str
    before: int
    """Flushes that it was not asked for."""
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Told:
    """What a side says: a transcript, its end (None), or why it failed."""

    side: _Side
    what: Transcript | ProviderError | None = field(default=None)


class _SttStream:
    """One turn, heard by one stream, or two while an answer is late."""

    def __init__(self, stt: Stt, start: float, hedges: Hedges) -> None:
        self._stt = stt
        self._start = start
        self._hedges = hedges
        self._audio: list[bytes] = []  # of the turn, unless it is longer than anybody speaks
        self._size = 0
        self._flushes = 0
        self._asked_at = 0.0
        self._asked_after = 0  # pieces of audio
        self._answered = True
        self._alarm: asyncio.Future[None] | None = None
        self._told: asyncio.Queue[_Told | None] = asyncio.Queue()  # transcripts of one turn; None: look at the alarm
        self._sides = [_Side(stt.open(start), "first", 0)]

    def push(self, pcm: bytes) -> None:
        self._size += len(pcm)
        if self._size <= KEPT_BYTES:
            self._audio.append(pcm)
        for side in self._sides:
            side.stream.push(pcm)

    def flush(self) -> None:
        self._flushes += 1
        self._asked_at = self._hedges.clock.now()
        self._asked_after = len(self._audio)
        self._answered = False
        for side in self._sides:
            side.stream.flush()
        self._rest()
        if len(self._sides) == 1 and self._size <= KEPT_BYTES:
            after_s = self._hedges.after_s()
            self._alarm = self._hedges.clock.alarm(self._asked_at + after_s)
            self._alarm.add_done_callback(self._rings(after_s))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        for side in self._sides:
            self._listen(side)
        try:
            while told := await self._told.get():
                if told.side not in self._sides:
                    continue
                if isinstance(told.what, Transcript):
                    if transcript := await self._heard(told.side, told.what):
                        yield transcript
                elif len(self._sides) > 1:
                    await self._drop(told.side)
                elif told.what:
                    raise told.what
                else:
                    return
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        self._rest()
        for side in [*self._sides]:
            await self._drop(side)
        self._told.put_nowait(None)

    def _rings(self, after_s: float) -> Callable[[asyncio.Future[None]], None]:
        def ring(alarm: asyncio.Future[None]) -> None:
            if alarm is self._alarm and len(self._sides) == 1 and not self._answered and self._hedges.take():
                self._hedges.started(after_s)
                self._second()

        return ring

    def _second(self) -> None:
        side = _Side(self._stt.open(self._start), "second", self._flushes - 1)
        side.stream.push(b"".join(self._audio[: self._asked_after]))
        side.stream.flush()
        if rest := b"".join(self._audio[self._asked_after :]):
            side.stream.push(rest)
        self._sides.append(side)
        self._listen(side)

    def _listen(self, side: _Side) -> None:
        side.task = self._hedges.clock.spawn(self._pump(side), name=f"{side.which} stream")

    async def _pump(self, side: _Side) -> None:
        try:
            async with heard(side.stream) as transcripts:
                async for transcript in transcripts:
                    self._told.put_nowait(_Told(side, transcript))
            self._told.put_nowait(_Told(side))
        except ProviderError as error:
            self._told.put_nowait(_Told(side, error))

    async def _heard(self, side: _Side, transcript: Transcript) -> Transcript | None:
        """As the turn's own, and who is first with the answer wins; until then only one is heard."""
        if transcript.flush:
            transcript = replace(transcript, flush=transcript.flush + side.before)
        answer = transcript.flush == self._flushes and not self._answered
        if answer:
            self._answered = True
            self._rest()
            self._hedges.lateness.waited(self._hedges.clock.now() - self._asked_at)
        if len(self._sides) == 1:
            return transcript
        if answer:
            self._hedges.decided(side.which)
            for other in [*self._sides]:
                if other is not side:
                    await self._drop(other)
            return transcript
        return transcript if side is self._sides[0] else None

    async def _drop(self, side: _Side) -> None:
        if side in self._sides:
            self._sides.remove(side)
        if side.task:
            side.task.cancel()
            await asyncio.wait([side.task])
        await side.stream.aclose()

    def _rest(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm:
            alarm.cancel()
