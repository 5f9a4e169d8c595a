"""A caller's turn that outlives its STT stream: its audio is kept, and told again to another one.

Used by `retry` (the same STT once more) and `fallback` (the next one). Pushing never waits; what is
pushed while there is no stream is told to the next. A flush that was not answered is asked again at
the place it was asked at, and its answer has its number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import Stt, SttStream, Transcript
from voicectl.resilience.wrapping import heard

KEPT_S = 60.0
"""How much of a turn is kept: hardly anybody speaks for longer, and of who does the end is kept."""

KEPT_BYTES = round(KEPT_S * PIPELINE_RATE) * SAMPLE_WIDTH

Next = Callable[[ProviderError], Awaitable[Stt | None]]
"""Told why a stream failed, gives whom to ask now (after a wait, perhaps). None: nobody."""


class KeptTurn:
    """One turn, first told to a stream of `first`.

    Args:
        start: where the turn begins, in seconds of the call.
        after: whom to tell it next.
    """

    def __init__(self, first: Stt, start: float, after: Next) -> None:
        self._after = after
        self._start = start
        self._audio: deque[bytes] = deque()  # KEPT_S of it at most
        self._from = 0  # the byte of the turn that the kept audio begins with
        self._end = 0
        self._flushes = 0
        self._asked_at: int | None = None  # byte of the last flush, until it is answered
        self._before = 0  # flushes that the present stream was not asked for
        self._closed = False
        self._stream: SttStream | None = first.open(start)

    def push(self, pcm: bytes) -> None:
        self._audio.append(pcm)
        self._end += len(pcm)
        while self._end - self._from - len(self._audio[0]) >= KEPT_BYTES:
            self._from += len(self._audio.popleft())
        if self._stream:
            self._stream.push(pcm)

    def flush(self) -> None:
        self._flushes += 1
        self._asked_at = self._end
        if self._stream:
            self._stream.flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while (stream := self._stream) and not self._closed:
            try:
                async with heard(stream) as transcripts:
                    async for transcript in transcripts:
                        if transcript.flush:
                            transcript = replace(transcript, flush=transcript.flush + self._before)
                            if transcript.flush == self._flushes:
                                self._asked_at = None
                        yield transcript
                if self._closed:
                    return
                raise ProviderError("stopped listening in the middle of a turn", kind="protocol")
            except ProviderError as error:
                await self._go_on(stream, error)

    async def _go_on(self, failed: SttStream, error: ProviderError) -> None:
        self._stream = None
        await failed.aclose()
        following = await self._after(error)
        if following is None:
            raise error
        if not self._closed:
            self._stream = self._told(following)

    def _told(self, stt: Stt) -> SttStream:
        """A stream that has heard the turn so far, and was asked what is still unanswered."""
        stream = stt.open(self._start + self._from / SAMPLE_WIDTH / PIPELINE_RATE)
        audio = b"".join(self._audio)
        asked = self._asked_at
        self._before = self._flushes
        if asked is None:
            stream.push(audio)
        else:
            self._before -= 1
            cut = max(0, asked - self._from)
            stream.push(audio[:cut])
            stream.flush()
            if audio[cut:]:
                stream.push(audio[cut:])
        return stream

    async def aclose(self) -> None:
        self._closed = True
        if self._stream:
            await self._stream.aclose()
