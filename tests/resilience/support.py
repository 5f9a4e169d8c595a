"""Providers written down as timelines, and the notes of a call, for wrappers on the virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.events import Event
from voicectl.pipeline.protocols import (
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    SttStream,
    TextDelta,
    Transcript,
    TtsRequest,
)

Step = float | str | bytes | ProviderError
"""A wait in seconds, a piece of the answer, or its failure."""

ASKED = LlmRequest((Message("system", "Take orders."), Message("user", "A latte.")))


def failure(kind: Any = "server", retry_after_s: float | None = None) -> ProviderError:
    return ProviderError(f"a {kind} failure", where="llm:fake", kind=kind, retry_after_s=retry_after_s)


class Notes:
    """What was noted, one line each."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.since = clock.now()
        self.events: list[Any] = []

    def now(self) -> float:
        return self.clock.now() - self.since

    def note(self, event: Event) -> None:
        self.events.append(event)

    def lines(self, *names: str) -> list[str]:
        return [
            " ".join([f"{event.at:.2f}", type(event).__name__, *(str(getattr(event, name)) for name in names)])
            for event in self.events
        ]

    def of(self, name: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == name]


class Fake:
    """Answers request n with timeline n, and the last one again and again. An LLM and a TTS at once."""

    def __init__(self, clock: Clock, *timelines: Sequence[Step], name: str = "fake", rate: int = 16_000) -> None:
        self.name = name
        self.rate = rate
        self.clock = clock
        self.timelines = timelines
        self.asked: list[Any] = []
        self.at: list[float] = []
        self.running = 0
        self.starts: list[ProviderError | None] = []
        self.warmed = 0

    async def start(self, progress: Progress) -> None:
        error = self.starts.pop(0) if self.starts else None
        if error:
            raise error

    async def aclose(self) -> None:
        """Nothing to free."""

    async def warm(self, messages: tuple[Message, ...]) -> None:
        self.warmed += 1

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        async for step in self._played(request):
            yield TextDelta(str(step))

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        async for step in self._played(request):
            assert isinstance(step, bytes)
            yield step

    async def _played(self, request: Any) -> AsyncGenerator[str | bytes, None]:
        timeline = self.timelines[min(len(self.asked), len(self.timelines) - 1)]
        self.asked.append(request)
        self.at.append(round(self.clock.now(), 6))
        self.running += 1
        try:
            for step in timeline:
                match step:
                    case float() | int():
                        await self.clock.sleep_until(self.clock.now() + step)
                    case ProviderError():
                        raise step
                    case _:
                        yield step
        finally:
            self.running -= 1


class FakeStt:
    """Stream n is answered after `waits[n]` seconds (None: never; an error: it fails then); the text
    is how many bytes it has heard."""

    def __init__(self, clock: Clock, *waits: float | ProviderError | None, name: str = "fake") -> None:
        self.name = name
        self.clock = clock
        self.waits = waits
        self.streams: list[FakeStream] = []

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def aclose(self) -> None:
        """Nothing to free."""

    def open(self, start: float) -> SttStream:
        wait = self.waits[min(len(self.streams), len(self.waits) - 1)]
        self.streams.append(FakeStream(self.clock, start, wait))
        return self.streams[-1]


class FakeStream:
    def __init__(self, clock: Clock, start: float, wait: float | ProviderError | None) -> None:
        self.clock = clock
        self.start = start
        self.wait = wait
        self.heard = b""
        self.flushes = 0
        self.closed = False
        self.due: asyncio.Queue[tuple[float, Transcript] | None] = asyncio.Queue()

    def push(self, pcm: bytes) -> None:
        self.heard += pcm

    def flush(self) -> None:
        self.flushes += 1
        if isinstance(self.wait, float):
            said = Transcript(str(len(self.heard)), self.flushes)
            self.due.put_nowait((self.clock.now() + self.wait, said))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        if isinstance(self.wait, ProviderError):
            raise self.wait
        while due := await self.due.get():
            await self.clock.sleep_until(due[0])
            yield due[1]

    async def aclose(self) -> None:
        self.closed = True
        self.due.put_nowait(None)


def on_clock(main: Callable[[Clock, Notes], Coroutine[Any, Any, Any]]) -> Any:
    """Run it on the virtual clock; nothing of it is left afterwards."""

    async def whole(clock: Clock) -> Any:
        result = await main(clock, Notes(clock))
        assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        return result

    return run_on("virtual", whole)


async def said(chunks: AsyncGenerator[LlmChunk, None]) -> str:
    """The whole answer, "..." and the message where it fails."""
    text = ""
    try:
        async for chunk in chunks:
            text += chunk.text if isinstance(chunk, TextDelta) else ""
    except ProviderError as error:
        return f"{text}... {error.message}"
    finally:
        await chunks.aclose()
    return text


async def spoken(audio: AsyncGenerator[bytes, None]) -> bytes:
    pcm = b""
    async for piece in audio:
        pcm += piece
    return pcm


async def transcripts(stream: SttStream, count: int = 1) -> list[Transcript]:
    """The next ones; then the stream is closed."""
    found: list[Transcript] = []
    try:
        async for transcript in stream:
            found.append(transcript)
            if len(found) == count:
                break
    finally:
        await stream.aclose()
    return found
