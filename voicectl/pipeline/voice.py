"""Where a reply comes from: an LLM and a TTS one after the other, or a model that hears and speaks by itself.

A `Voice` belongs to one call. It makes the replies that the session asks for, and sees to it that whoever
thinks remembers what was said, of the agent's words only those that were heard. What lives elsewhere: when
to speak (`turn_taking`), one reply from its beginning to its end (`agent_turn`), what is heard (`playout`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from voicectl.audio import Resampler
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import Event, ProviderUsed, TranscriptUpdated
from voicectl.pipeline.agent_turn import Clauses, answer, converse, recite, speak
from voicectl.pipeline.history import History
from voicectl.pipeline.playout import Playout
from voicectl.pipeline.protocols import (
    CallerSaid,
    LlmRequest,
    Providers,
    S2s,
    S2sChunk,
    S2sStream,
    S2sUsage,
    TtsRequest,
)

Work = Callable[[], Coroutine[Any, Any, None]]
"""Something to run as a task of the call. To stop it is to cancel it."""


class Call(Protocol):
    """What a voice belongs to."""

    def now(self) -> float: ...
    def note(self, event: Event) -> None: ...
    def failed(self, stage: str, error: ProviderError) -> None: ...


class Voice(Protocol):
    reads: bool
    """Whether it answers text: `read` is of use, and the caller may type."""

    @property
    def last_heard(self) -> str:
        """What the caller last heard the agent say."""
        ...

    def answer(self, reply: int, turn: int, text: str) -> Work:
        """Answer what the caller said in this turn; the work returns when its last sample is on the line."""
        ...

    def recite(self, reply: int, text: str) -> Work:
        """Say a text that answers nobody."""
        ...

    def over(self, reply: int, prompt: str, heard: str, heard_s: float | None = None) -> None:
        """A reply is over: what it answered ("" for nothing) and what of it was heard. `heard_s`: it was
        stopped after so many seconds of its sound; 0.0 when nobody heard any of it."""
        ...

    async def read(self, text: str) -> None:
        """Read ahead what will be asked, as far as it is known."""
        ...

    async def sound(self, text: str) -> bytes:
        """A text by itself, at the line's rate, to be kept for later; b"" from a voice that cannot."""
        ...

    def news(self) -> Work | None:
        """Tell the call what becomes known beside the replies, until the voice is closed."""
        ...

    def close(self) -> Work | None:
        """What is left to do when the call ends."""
        ...


class ChainVoice:
    """An LLM whose answer a TTS speaks, clause by clause."""

    reads = True

    def __init__(
        self, providers: Providers, history: History, first_clause_words: int, playout: Playout, line_rate: int,
        clock: Clock, call: Call,
    ) -> None:  # fmt: skip
        self._providers = providers
        self._history = history
        self._first_clause_words = first_clause_words
        self._playout = playout
        self._line_rate = line_rate
        self._clock = clock
        self._call = call

    @property
    def last_heard(self) -> str:
        return self._history.last_heard

    def answer(self, reply: int, turn: int, text: str) -> Work:
        clauses = answer(
            LlmRequest(self._history.conversation(text)),
            reply=reply,
            llm=self._providers.llm,
            first_clause_words=self._first_clause_words,
            notes=self._call,
        )
        return self._speak(reply, clauses)

    def recite(self, reply: int, text: str) -> Work:
        return self._speak(reply, recite(text, reply=reply, first_clause_words=0, notes=self._call))

    def over(self, reply: int, prompt: str, heard: str, heard_s: float | None = None) -> None:
        self._history.add(prompt, heard)

    async def read(self, text: str) -> None:
        await self._providers.llm.warm(self._history.conversation(text))

    async def sound(self, text: str) -> bytes:
        tts = self._providers.tts
        resampler = Resampler(tts.rate, self._line_rate)
        pcm = bytearray()
        async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
            async for piece in audio:
                pcm += resampler.push(piece)
        return bytes(pcm + resampler.flush())

    def news(self) -> None:
        """Nothing is known but by the replies."""

    def close(self) -> None:
        """Nothing is held open."""

    def _speak(self, reply: int, clauses: Clauses) -> Work:
        return partial(
            speak,
            clauses,
            reply=reply,
            tts=self._providers.tts,
            playout=self._playout,
            line_rate=self._line_rate,
            clock=self._clock,
            notes=self._call,
        )


@dataclass(slots=True)
class _Asked:
    """One answer that the model was asked for."""

    reply: int
    turn: int | None
    unheard: bool = False


class ModelVoice:
    """A speech-to-speech model: it has heard the caller itself, and remembers by itself."""

    reads = False

    def __init__(self, model: S2s, stream: S2sStream, playout: Playout, line_rate: int, call: Call) -> None:
        self._model = model
        self._stream = stream
        self._playout = playout
        self._line_rate = line_rate
        self._call = call
        self._asked: list[_Asked] = []
        self._last_heard = ""

    @property
    def last_heard(self) -> str:
        return self._last_heard

    def answer(self, reply: int, turn: int, text: str) -> Work:
        self._asked.append(_Asked(reply, turn))
        return self._converse(reply, self._stream.respond())

    def recite(self, reply: int, text: str) -> Work:
        self._asked.append(_Asked(reply, None))
        return self._converse(reply, self._stream.say(text))

    def over(self, reply: int, prompt: str, heard: str, heard_s: float | None = None) -> None:
        self._last_heard = heard or self._last_heard
        if heard_s is not None:
            self._asked[-1].unheard = not heard_s
            self._stream.truncate(heard_s)

    async def read(self, text: str) -> None:
        """It hears the caller while they speak."""

    async def sound(self, text: str) -> bytes:
        return b""

    def news(self) -> Work:
        return self._follow

    async def _follow(self) -> None:
        try:
            async for news in self._stream:
                asked = self._asked[news.answer - 1]
                match news:
                    case CallerSaid(text=text) if asked.turn is not None:
                        call = self._call
                        call.note(TranscriptUpdated(at=call.now(), turn=asked.turn, text=text, final=True))
                    case S2sUsage():
                        self._note_usage(news, asked)
                    case _:
                        pass
        except ProviderError as error:
            self._call.failed("s2s", error)

    def close(self) -> Work:
        return self._stream.aclose

    def _converse(self, reply: int, pieces: AsyncGenerator[S2sChunk, None]) -> Work:
        return partial(
            converse,
            pieces,
            reply=reply,
            rate=self._model.rate,
            playout=self._playout,
            line_rate=self._line_rate,
            notes=self._call,
        )

    def _note_usage(self, used: S2sUsage, asked: _Asked) -> None:
        self._call.note(
            ProviderUsed(
                at=self._call.now(),
                stage=used.stage,
                provider=self._model.name,
                model=used.model,
                audio_s=used.audio_s,
                prompt_tokens=used.prompt_tokens,
                cached_tokens=used.cached_tokens,
                completion_tokens=used.completion_tokens,
                audio_in_tokens=used.audio_in_tokens,
                audio_out_tokens=used.audio_out_tokens,
                estimated=used.estimated,
                wasted=asked.unheard,
            )
        )
