"""Providers that record: each wraps another, and writes what came and when to a `StreamLog`.

They are made for one call, around providers that all calls share; starting and closing those is
not their business. What they pass on is what they were given, at the time they were given it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import (
    AudioDelta,
    CallerSaid,
    Llm,
    LlmChunk,
    LlmRequest,
    Message,
    Parts,
    Progress,
    Providers,
    S2s,
    S2sChunk,
    S2sNews,
    S2sStream,
    SpeechProviders,
    Stt,
    SttStream,
    TextDelta,
    ToolDelta,
    Transcript,
    Tts,
    TtsRequest,
    TurnModel,
    TurnModelStream,
    Vad,
    VadStream,
)
from voicectl.streams import (
    LlmAsked,
    LlmCalled,
    LlmSaid,
    LlmUsed,
    S2sAsked,
    S2sHeard,
    S2sSaid,
    S2sTruncated,
    S2sUsed,
    StreamEnded,
    StreamLog,
    Stretches,
    SttClosed,
    SttFlushed,
    SttHeard,
    SttOpened,
    TtsAsked,
    TurnModelAsked,
    TurnModelScored,
    VadWindows,
)


def recorded_to(log: StreamLog, providers: Parts) -> Parts:
    """The same providers for one call, with everything they do written to `log`."""
    if isinstance(providers, SpeechProviders):
        return SpeechProviders(
            RecordingVad(providers.vad, log),
            RecordingS2s(providers.s2s, log),
            RecordingTurnModel(providers.turn_model, log) if providers.turn_model else None,
        )
    return Providers(
        RecordingVad(providers.vad, log),
        RecordingStt(providers.stt, log),
        RecordingLlm(providers.llm, log),
        RecordingTts(providers.tts, log),
        RecordingTurnModel(providers.turn_model, log) if providers.turn_model else None,
    )


class _Recording:
    def __init__(self, name: str, log: StreamLog) -> None:
        self.name = name
        self._log = log

    async def start(self, progress: Progress) -> None:
        """The wrapped provider was started by its owner."""

    async def aclose(self) -> None:
        """The wrapped provider is closed by its owner."""


class RecordingVad(_Recording):
    def __init__(self, inner: Vad, log: StreamLog) -> None:
        super().__init__(inner.name, log)
        self._inner = inner
        self.window_s = inner.window_s

    def open(self) -> VadStream:
        return _VadStream(self._inner.open(), self._log)


class _VadStream:
    def __init__(self, inner: VadStream, log: StreamLog) -> None:
        self._inner = inner
        self._log = log

    def push(self, pcm: bytes) -> list[float]:
        before = self._log.now()
        windows = self._inner.push(pcm)
        if windows:
            after = self._log.now()
            self._log.write(VadWindows(at=after, p=tuple(windows), cpu_us=round((after - before) * 1e6)))
        return windows


class RecordingStt(_Recording):
    def __init__(self, inner: Stt, log: StreamLog) -> None:
        super().__init__(inner.name, log)
        self._inner = inner

    def open(self, start: float) -> SttStream:
        stream = self._log.next_id()
        self._log.serving("stt", stream)
        return _SttStream(self._inner.open(start), self._log, stream, start)


class _SttStream:
    def __init__(self, inner: SttStream, log: StreamLog, stream: int, start: float) -> None:
        self._inner = inner
        self._log = log
        self._id = stream
        self._start = start
        self._bytes = 0
        self._flushes = 0
        self._closed = False
        log.write(SttOpened(at=log.now(), id=self._id, start=start))

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)
        self._inner.push(pcm)

    def flush(self) -> None:
        self._flushes += 1
        end = self._start + self._bytes / SAMPLE_WIDTH / PIPELINE_RATE
        self._log.write(SttFlushed(at=self._log.now(), id=self._id, flush=self._flushes, end=end))
        self._log.serving("stt", self._id)
        self._inner.flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        log = self._log
        log.serving("stt", self._id)
        try:
            async for transcript in self._inner:
                now, end = log.now(), transcript.turn_end
                log.write(SttHeard(at=now, id=self._id, text=transcript.text, flush=transcript.flush, turn_end=end))
                yield transcript
                log.serving("stt", self._id)
        except ProviderError as error:
            log.write(StreamEnded(at=log.now(), stage="stt", id=self._id, how=f"failed: {error}", where=error.where))
            raise

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._log.write(SttClosed(at=self._log.now(), id=self._id))
        self._log.serving("stt", self._id)
        await self._inner.aclose()


class RecordingTurnModel(_Recording):
    def __init__(self, inner: TurnModel, log: StreamLog) -> None:
        super().__init__(inner.name, log)
        self._inner = inner

    def open(self) -> TurnModelStream:
        return _TurnModelStream(self._inner.open(), self._log)


class _TurnModelStream:
    def __init__(self, inner: TurnModelStream, log: StreamLog) -> None:
        self._inner = inner
        self._log = log
        self._bytes = 0

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)
        self._inner.push(pcm)

    async def score(self, start: float) -> float:
        stream = self._log.next_id()
        end = self._bytes / SAMPLE_WIDTH / PIPELINE_RATE
        self._log.write(TurnModelAsked(at=self._log.now(), id=stream, start=start, end=end))
        score = await self._inner.score(start)
        self._log.write(TurnModelScored(at=self._log.now(), id=stream, score=score))
        return score


class RecordingLlm(_Recording):
    def __init__(self, inner: Llm, log: StreamLog) -> None:
        super().__init__(inner.name, log)
        self._inner = inner
        self._asked: tuple[tuple[str, str], ...] = ()  # last

    async def warm(self, messages: tuple[Message, ...]) -> None:
        await self._inner.warm(messages)

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        log = self._log
        stream = log.next_id()
        messages = tuple((message.role, message.content) for message in request.messages)
        pairs = enumerate(zip(messages, self._asked, strict=False))
        same = next((index for index, (new, old) in pairs if new != old), min(len(messages), len(self._asked)))
        self._asked = messages
        log.write(LlmAsked(at=log.now(), id=stream, messages=messages[same:], same=same))
        log.serving("llm", stream)
        how, where = "cancelled", None
        try:
            async with aclosing(self._inner.generate(request)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, TextDelta):
                        log.write(LlmSaid(at=log.now(), id=stream, text=chunk.text))
                    elif isinstance(chunk, ToolDelta):
                        log.write(
                            LlmCalled(
                                at=log.now(), id=stream, call=chunk.id, name=chunk.name, arguments=chunk.arguments
                            )
                        )
                    else:
                        log.write(
                            LlmUsed(
                                at=log.now(),
                                id=stream,
                                prompt_tokens=chunk.prompt_tokens,
                                cached_tokens=chunk.cached_tokens,
                                completion_tokens=chunk.completion_tokens,
                            )
                        )
                    try:
                        yield chunk
                    finally:
                        log.serving("llm", stream)
            how = "complete"
        except ProviderError as error:
            how, where = f"failed: {error}", error.where
            raise
        finally:
            log.write(StreamEnded(at=log.now(), stage="llm", id=stream, how=how, where=where))


class RecordingTts(_Recording):
    def __init__(self, inner: Tts, log: StreamLog) -> None:
        super().__init__(inner.name, log)
        self._inner = inner
        self.rate = inner.rate

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        log = self._log
        stream = log.next_id()
        log.write(TtsAsked(at=log.now(), id=stream, text=request.text))
        log.serving("tts", stream)
        how, where = "cancelled", None
        try:
            async with aclosing(self._inner.synthesize(request)) as audio:
                async for pcm in audio:
                    log.write_audio(stream, pcm)
                    try:
                        yield pcm
                    finally:
                        log.serving("tts", stream)
            how = "complete"
        except ProviderError as error:
            how, where = f"failed: {error}", error.where
            raise
        finally:
            log.write(StreamEnded(at=log.now(), stage="tts", id=stream, how=how, where=where))


class RecordingS2s(_Recording):
    def __init__(self, inner: S2s, log: StreamLog) -> None:
        super().__init__(inner.name, log)
        self._inner = inner
        self.rate = inner.rate

    def open(self, instructions: str) -> S2sStream:
        return _S2sStream(self._inner.open(instructions), self._log)


class _S2sStream:
    def __init__(self, inner: S2sStream, log: StreamLog) -> None:
        self._inner = inner
        self._log = log
        self._heard = Stretches()
        self._asked: list[int] = []  # the id of each answer

    def hear_from(self, start: float) -> None:
        self._heard.hear_from(start)
        self._inner.hear_from(start)

    def forget(self) -> None:
        self._heard.forget()
        self._inner.forget()

    def push(self, pcm: bytes) -> None:
        self._heard.push(pcm)
        self._inner.push(pcm)

    def respond(self) -> AsyncGenerator[S2sChunk, None]:
        self._log.write(S2sAsked(at=self._log.now(), id=self._next(), speech=self._heard.take()))
        return self._written(self._inner.respond(), self._asked[-1])

    def say(self, text: str) -> AsyncGenerator[S2sChunk, None]:
        self._log.write(S2sAsked(at=self._log.now(), id=self._next(), text=text))
        return self._written(self._inner.say(text), self._asked[-1])

    def truncate(self, heard_s: float) -> None:
        self._log.write(S2sTruncated(at=self._log.now(), id=self._asked[-1], heard_s=heard_s))
        self._inner.truncate(heard_s)

    async def __aiter__(self) -> AsyncIterator[S2sNews]:
        async for news in self._inner:
            now, stream = self._log.now(), self._asked[news.answer - 1]
            if isinstance(news, CallerSaid):
                self._log.write(S2sHeard(at=now, id=stream, text=news.text))
            else:
                used = asdict(news)
                del used["answer"]
                self._log.write(S2sUsed(at=now, id=stream, **used))
            yield news

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _next(self) -> int:
        self._asked.append(self._log.next_id())
        return self._asked[-1]

    async def _written(self, chunks: AsyncGenerator[S2sChunk, None], stream: int) -> AsyncGenerator[S2sChunk, None]:
        log = self._log
        how = "cancelled"
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if isinstance(chunk, AudioDelta):
                        log.write_audio(stream, chunk.pcm)
                    else:
                        log.write(S2sSaid(at=log.now(), id=stream, text=chunk.text))
                    yield chunk
            how = "complete"
        except ProviderError as error:
            how = f"failed: {error}"
            raise
        finally:
            log.write(StreamEnded(at=log.now(), stage="s2s", id=stream, how=how))
