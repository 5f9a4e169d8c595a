"""When a provider fails, the next of its chain takes over, and the caller hears every word once.

- An LLM that fails in the middle of an answer: the next is asked to go on after what was said, and
  what it repeats of that is cut away (`overlap`). When nobody can go on the answer ends there, if a
  sentence of it was said.
- A TTS that fails in the middle of a clause: the next speaks the whole clause, and is heard from
  where the first broke off (`align`). It speaks the rest of the reply as well: voices that change
  from clause to clause are worse than another voice.
- An STT that fails in the middle of a turn: the next hears the turn from its beginning (`kept_turn`).

When all have failed the last one's error is raised, as if there were no chain.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from voicectl.audio import SAMPLE_WIDTH, Resampler
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import ProviderSwitched
from voicectl.pipeline.protocols import (
    Llm,
    LlmChunk,
    LlmRequest,
    Message,
    Stt,
    SttStream,
    TextDelta,
    ToolDelta,
    Tts,
    TtsRequest,
)
from voicectl.resilience.kept_turn import KeptTurn
from voicectl.resilience.notes import CallNotes
from voicectl.resilience.overlap import Overlap, WholeWords
from voicectl.resilience.wrapping import Wrapper, short

P = TypeVar("P")

GO_ON = (
    "Your last message was cut off where it ends. Go on from exactly there, in the middle of the sentence if that is "
    "where it ends. Do not repeat anything of it, do not begin again, and do not mention this."
)

_SENTENCE = re.compile(r"[.!?…][\"')\]”’]*(?:\s|$)")
_AHEAD_S = 0.5  # of the second voice's clause, beyond half as long again as was heard, to find the place in
_ALWAYS_HELD_S = 0.010  # of the newest audio: what a cut fades out
_HELD_S = 0.250  # at most: there is a gap between two words in it
_SPARE_S = 0.150  # how far ahead of the listener the audio must be before any is held back for that


@dataclass(frozen=True, slots=True)
class Spare(Generic[P]):
    """One provider of a chain, with its own wrappers around it."""

    provider: P
    resting: Callable[[], bool] = lambda: False
    """Whether its breaker is open: no use in warming it."""


class _Fallback(Wrapper, Generic[P]):
    def __init__(self, stage: str, chain: Sequence[Spare[P]], names: Sequence[str], notes: CallNotes) -> None:
        super().__init__(names[0])
        self._stage = stage
        self._chain = chain
        self._names = names
        self._notes = notes

    def _switch(self, number: int, to: int, error: ProviderError, said: str = "") -> None:
        event = ProviderSwitched(
            at=self._notes.now(),
            stage=self._stage,
            provider=self._names[number],
            to=self._names[to],
            why=short(error),
            said=said,
        )
        self._notes.note(event)


# Hearing -----------------------------------------------------------------------------------------


class FallbackStt(_Fallback[Stt]):
    def open(self, start: float) -> SttStream:
        number = 0

        async def after(error: ProviderError) -> Stt | None:
            nonlocal number
            if number + 1 == len(self._chain):
                return None
            number += 1
            self._switch(number - 1, number, error)
            return self._chain[number].provider

        return KeptTurn(self._chain[0].provider, start, after)


# Thinking ----------------------------------------------------------------------------------------


class FallbackLlm(_Fallback[Llm]):
    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Whoever will be asked. Who cannot be warmed is asked all the same, and that is noted then."""
        for spare in self._chain:
            if spare.resting():
                continue
            try:
                await spare.provider.warm(messages)
                return
            except ProviderError:
                continue

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        said = ""
        called = False  # a tool: what has been asked for cannot be gone on with
        for number, spare in enumerate(self._chain):
            whole, overlap = WholeWords(), Overlap(said)
            try:
                async with aclosing(spare.provider.generate(_going_on(request, said))) as chunks:
                    async for chunk in chunks:
                        if not isinstance(chunk, TextDelta):
                            called = called or isinstance(chunk, ToolDelta)
                            yield chunk
                        elif text := overlap.push(whole.push(chunk.text)):
                            said += text
                            yield TextDelta(text)
                if text := overlap.push(whole.finish()) + overlap.finish():
                    yield TextDelta(text)
                return
            except ProviderError as error:
                if called:
                    raise
                if number + 1 < len(self._chain):
                    self._switch(number, number + 1, error, said.strip())
                elif not _SENTENCE.search(said):
                    raise


def _going_on(request: LlmRequest, said: str) -> LlmRequest:
    if not said.strip():
        return request
    said_so_far = (Message("assistant", said.strip()), Message("system", GO_ON))
    return replace(request, messages=(*request.messages, *said_so_far))


# Speaking ----------------------------------------------------------------------------------------


class FallbackTts(_Fallback[Tts]):
    """Speaks at the first one's `rate`."""

    def __init__(
        self, stage: str, chain: Sequence[Spare[Tts]], names: Sequence[str], notes: CallNotes, clock: Clock
    ) -> None:
        super().__init__(stage, chain, names, notes)
        self.rate = chain[0].provider.rate
        self._clock = clock
        self._reply = -1
        self._voice = 0  # that speaks it

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        if request.reply != self._reply:
            self._reply, self._voice = request.reply, 0
        order = [*range(self._voice, len(self._chain)), *range(self._voice)]
        clause = _Clause(self.rate, self._clock)
        for turn, number in enumerate(order):
            try:
                async with aclosing(self._spoken(number, request, clause)) as audio:
                    async for pcm in audio:
                        if piece := clause.take(pcm):
                            yield piece
                yield clause.rest()
                return
            except ProviderError as error:
                if turn + 1 == len(order):
                    if rest := clause.rest():
                        yield rest
                    raise
                following = order[turn + 1]
                self._switch(number, following, error, request.text if clause.begun else "")
                if request.reply == self._reply:
                    self._voice = following

    async def _spoken(self, number: int, request: TtsRequest, clause: _Clause) -> AsyncGenerator[bytes, None]:
        """The clause in this voice, or what is left of it."""
        tts = self._chain[number].provider
        resampler = Resampler(tts.rate, self.rate)
        beginning = bytearray()  # until there is enough to find the place in
        wanted = clause.wanted()
        async with aclosing(tts.synthesize(request)) as audio:
            async for pcm in audio:
                piece = resampler.push(pcm)
                if not wanted:
                    yield piece
                    continue
                beginning += piece
                if len(beginning) >= wanted:
                    wanted = 0
                    yield await self._clock.run(clause.joined, bytes(beginning))
        last = resampler.flush()
        yield await self._clock.run(clause.joined, bytes(beginning) + last) if wanted else last


class _Clause:
    """The audio of one clause: what was passed on, and the newest of it, which is held back for a cut."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._passed = bytearray()
        self._held = b""
        self._since: float | None = None  # when its first audio was passed on

    @property
    def begun(self) -> bool:
        return bool(self._passed)

    def take(self, pcm: bytes) -> bytes:
        """More of it; returns what is to be passed on."""
        audio = self._held + pcm
        if not audio:
            return b""
        now = self._clock.now()
        since = now if self._since is None else self._since
        ahead_s = (len(self._passed) + len(audio)) / SAMPLE_WIDTH / self._rate - (now - since)
        held_s = min(_HELD_S, max(_ALWAYS_HELD_S, ahead_s - _SPARE_S))
        cut = max(0, len(audio) - self._bytes(held_s))
        self._held = audio[cut:]
        if cut and self._since is None:
            self._since = now
        self._passed += audio[:cut]
        return audio[:cut]

    def rest(self) -> bytes:
        """What was held back."""
        rest, self._held = self._held, b""
        self._passed += rest
        return rest

    def wanted(self) -> int:
        """How many bytes of another rendering it takes to find the place; 0: there is none to find."""
        heard = len(self._passed) + len(self._held)
        return heard + heard // 2 + self._bytes(_AHEAD_S) if heard else 0

    def joined(self, other: bytes) -> bytes:
        """What follows on what was heard, from the other rendering, with the end of what was held back."""
        import numpy as np

        from voicectl.resilience.align import fade, join

        passed = len(self._passed) // SAMPLE_WIDTH
        heard = np.frombuffer(bytes(self._passed) + self._held, "<i2")
        rest = np.frombuffer(other, "<i2")
        place = join(heard, rest, self._rate, fixed=passed)
        self._held = b""
        before = fade(heard[passed : place.keep], self._rate, begins=False)
        after = fade(rest[place.go_on :], self._rate, begins=True)
        return before.tobytes() + after.tobytes()

    def _bytes(self, seconds: float) -> int:
        return round(seconds * self._rate) * SAMPLE_WIDTH
