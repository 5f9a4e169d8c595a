"""Noting what each request to a vendor consumes, as `ProviderUsed`, once and whatever becomes of it.

It wraps a provider directly, below retries, fallbacks and hedges, so that every attempt is paid for
that was made. What is noted is quantities; money is computed from them afterwards (`analysis.cost`),
with the prices of whatever day.

- STT: the seconds of audio that were pushed, when the stream is closed. None pushed, nothing used.
- LLM: the tokens as the vendor counts them. Where it did not say, because the request was cut, they
  are estimated at four characters a token.
- TTS: the characters of the request, and the seconds of audio that came.

What was thrown away (cut short, failed) is noted as wasted. A request that a vendor turned away
before it sent anything costs nothing: refused, too many, its own fault, out of reach.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, cast

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.errors import FailureKind, ProviderError
from voicectl.events import ProviderUsed
from voicectl.pipeline.protocols import (
    Llm,
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    Provider,
    Stt,
    SttStream,
    TextDelta,
    Transcript,
    Tts,
    TtsRequest,
    Usage,
)
from voicectl.prices import list_prices

if TYPE_CHECKING:
    from voicectl.resilience.notes import CallNotes

P = TypeVar("P", bound=Provider)

CHARACTERS_A_TOKEN = 4
"""Of English; other languages take more tokens."""

_UNBILLED: frozenset[FailureKind] = frozenset({"refused", "rate_limited", "server", "unreachable"})


def metered(stage: str, name: str, model: str | None, provider: P, notes: CallNotes, *, paid: bool | None = None) -> P:
    """The same provider for one call, with what it consumes noted.

    Args:
        name: the provider as the spec spells it.
        model: as the spec names it (None: it does not).
        paid: whether somebody is paid for it (`PriceTable.bills`; None: by the list prices). What runs
            here costs nothing, and is left as it is.
    """
    if not (list_prices().bills(stage, name) if paid is None else paid):
        return provider
    kinds: dict[str, Callable[[_Meter, Any], Provider]] = {"stt": _Stt, "llm": _Llm, "tts": _Tts}
    kind = kinds.get(stage)
    if kind is None:  # nobody bills a VAD; a speech-to-speech model tells its own usage
        return provider
    model = model if model is not None else getattr(provider, "model", None)
    return cast(P, kind(_Meter(stage, name, model, notes), provider))


def tokens_of(characters: int) -> int:
    """An estimate, rounded up."""
    return -(-characters // CHARACTERS_A_TOKEN)


class _Meter:
    """Writes down what one provider consumes."""

    def __init__(self, stage: str, name: str, model: str | None, notes: CallNotes) -> None:
        self._stage = stage
        self._name = name
        self._model = model
        self._notes = notes

    def note(self, **used: Any) -> None:
        event = ProviderUsed(at=self._notes.now(), stage=self._stage, provider=self._name, model=self._model, **used)
        self._notes.note(event)


class _Metered:
    def __init__(self, meter: _Meter, inner: Provider) -> None:
        self.name = inner.name
        self._meter = meter
        self._own = inner

    async def start(self, progress: Progress) -> None:
        await self._own.start(progress)

    async def aclose(self) -> None:
        await self._own.aclose()


# Speech to text ----------------------------------------------------------------------------------


class _Stt(_Metered):
    def __init__(self, meter: _Meter, inner: Stt) -> None:
        super().__init__(meter, inner)
        self._inner = inner

    def open(self, start: float) -> SttStream:
        return _SttStream(self._meter, self._inner.open(start))


class _SttStream:
    def __init__(self, meter: _Meter, inner: SttStream) -> None:
        self._meter = meter
        self._inner = inner
        self._bytes = 0
        self._failed: FailureKind | None = None
        self._heard = False
        self._asked = self._answered = 0  # flushes
        self._noted = False

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)
        self._inner.push(pcm)

    def flush(self) -> None:
        self._asked += 1
        self._inner.flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        try:
            async for transcript in self._inner:
                self._heard = True
                self._answered = max(self._answered, transcript.flush)
                yield transcript
        except ProviderError as error:
            self._failed = error.kind
            raise

    async def aclose(self) -> None:
        if not self._noted:
            self._noted = True
            turned_away = self._failed in _UNBILLED and not self._heard
            seconds = 0.0 if turned_away else self._bytes / SAMPLE_WIDTH / PIPELINE_RATE
            unanswered = self._asked > self._answered  # whoever waited for it gave up
            if self._bytes:
                self._meter.note(audio_s=round(seconds, 6), wasted=self._failed is not None or unanswered)
        await self._inner.aclose()


# Language model ----------------------------------------------------------------------------------


class _Llm(_Metered):
    def __init__(self, meter: _Meter, inner: Llm) -> None:
        super().__init__(meter, inner)
        self._inner = inner

    async def warm(self, messages: tuple[Message, ...]) -> None:
        await self._inner.warm(messages)

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        said = 0
        usage = Usage()
        whole = turned_away = False
        try:
            async with aclosing(self._inner.generate(request)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, Usage):
                        usage = chunk
                    else:
                        said += len(chunk.text if isinstance(chunk, TextDelta) else chunk.name + chunk.arguments)
                    yield chunk
            whole = True
        except ProviderError as error:
            turned_away = error.kind in _UNBILLED and not said
            raise
        finally:
            self._note(request, usage, said, whole=whole, turned_away=turned_away)

    def _note(self, request: LlmRequest, usage: Usage, said: int, *, whole: bool, turned_away: bool) -> None:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        told = prompt is not None and completion is not None
        if turned_away:
            prompt = completion = 0
        self._meter.note(
            prompt_tokens=_prompt_tokens(request) if prompt is None else prompt,
            cached_tokens=usage.cached_tokens,
            completion_tokens=tokens_of(said) if completion is None else completion,
            estimated=not (told or turned_away),
            wasted=not whole,
        )


def _prompt_tokens(request: LlmRequest) -> int:
    tools = sum(
        len(tool.name) + len(tool.description) + len(json.dumps(dict(tool.parameters))) for tool in request.tools
    )
    return tokens_of(tools + sum(len(message.content) for message in request.messages))


# Text to speech ----------------------------------------------------------------------------------


class _Tts(_Metered):
    def __init__(self, meter: _Meter, inner: Tts) -> None:
        super().__init__(meter, inner)
        self._inner = inner
        self.rate = inner.rate

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        size = 0
        whole = turned_away = False
        try:
            async with aclosing(self._inner.synthesize(request)) as audio:
                async for pcm in audio:
                    size += len(pcm)
                    yield pcm
            whole = True
        except ProviderError as error:
            turned_away = error.kind in _UNBILLED and not size
            raise
        finally:
            seconds = size / SAMPLE_WIDTH / self._inner.rate
            characters = 0 if turned_away else len(request.text)
            self._meter.note(characters=characters, audio_s=round(seconds, 6), wasted=not whole)
