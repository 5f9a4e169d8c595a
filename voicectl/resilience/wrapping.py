"""What the wrappers share: whom they speak of, and how one is put around an LLM or a TTS.

Both answer a request with a stream, so most wrappers are one function of it, an `Around`. An STT
hears and answers at once, so each wrapper has a stream of its own for it (`heard` helps).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import (
    Llm,
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    Stt,
    SttStream,
    Transcript,
    Tts,
    TtsRequest,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Whose decisions are noted: `stage` and the provider's name."""

    stage: str
    name: str

    @property
    def where(self) -> str:
        return f"{self.stage}:{self.name}"


Ask = Callable[[], AsyncGenerator[T, None]]
"""Asks the wrapped provider once, and gives its stream."""


class Around(Protocol):
    """A wrapper of one request."""

    def __call__(self, ask: Ask[T]) -> AsyncGenerator[T, None]: ...


class Wrapper:
    """A provider around others, made for one call: starting and closing those is their owner's business."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def start(self, progress: Progress) -> None:
        """The wrapped provider was started by its owner."""

    async def aclose(self) -> None:
        """The wrapped provider is closed by its owner."""


class WrappedLlm(Wrapper):
    def __init__(self, inner: Llm, around: Around) -> None:
        super().__init__(inner.name)
        self._inner = inner
        self._around = around

    async def warm(self, messages: tuple[Message, ...]) -> None:
        await self._inner.warm(messages)

    def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        return self._around(lambda: self._inner.generate(request))


class WrappedTts(Wrapper):
    def __init__(self, inner: Tts, around: Around) -> None:
        super().__init__(inner.name)
        self._inner = inner
        self._around = around
        self.rate = inner.rate

    def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        return self._around(lambda: self._inner.synthesize(request))


class WrappedStt(Wrapper):
    def __init__(self, inner: Stt, around: Callable[[float], SttStream]) -> None:
        super().__init__(inner.name)
        self._around = around

    def open(self, start: float) -> SttStream:
        return self._around(start)


@asynccontextmanager
async def heard(stream: SttStream) -> AsyncGenerator[AsyncIterator[Transcript]]:
    """The transcripts of a stream, whose generator (where it is one) is closed afterwards."""
    transcripts = aiter(stream)
    try:
        yield transcripts
    finally:
        if isinstance(transcripts, AsyncGenerator):
            await transcripts.aclose()


def short(error: ProviderError) -> str:
    """Why, for an event: without the place, which the event has, and the hint, which is for people."""
    return error.message
