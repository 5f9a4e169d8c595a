"""Scripted providers for every stage: no model, no network, delays as written.

They serve the quick start, the tests and CI, and are the file to copy when you write a provider.
With the virtual clock a conversation of minutes takes a fraction of a second, and is the same
every time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.pipeline.protocols import (
    AudioDelta,
    CallerSaid,
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    S2sChunk,
    S2sNews,
    S2sStream,
    S2sUsage,
    SttStream,
    TextDelta,
    Transcript,
    TtsRequest,
    TurnModelStream,
    Usage,
    VadStream,
)
from voicectl.streams import Stretches

MODELS: tuple[str, ...] = ()

REPLIES = (
    "Sure, one large latte with oat milk. Anything else for you today?",
    "Got it. That comes to $4.50, please.",
    "Of course. It will be ready in about five minutes at the end of the bar.",
)


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Scripted:
    """What all four share: nothing to load, nothing to free."""

    name = "scripted"

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def aclose(self) -> None:
        """Nothing to free."""


# VAD -----------------------------------------------------------------------------------------


class VadOptions(_Options):
    """Speech is what is louder than a fixed level."""

    threshold_dbfs: float = Field(-45.0, ge=-90, le=0, description="RMS level from which a window is speech, dBFS.")


class ScriptedVad(_Scripted):
    """Energy VAD: probability 1 for a 20 ms window above the level, else 0."""

    Options = VadOptions
    window_s = 0.02

    def __init__(self, options: VadOptions, model: str | None, clock: Clock) -> None:
        self._power = (32768 * 10 ** (options.threshold_dbfs / 20)) ** 2

    def open(self) -> VadStream:
        return _EnergyStream(self._power, round(self.window_s * PIPELINE_RATE) * SAMPLE_WIDTH)


class _EnergyStream:
    def __init__(self, power: float, window_bytes: int) -> None:
        self._power = power
        self._window_bytes = window_bytes
        self._rest = b""

    def push(self, pcm: bytes) -> list[float]:
        data = self._rest + pcm if self._rest else pcm
        size = self._window_bytes
        whole = len(data) // size
        self._rest = data[whole * size :]
        windows = (data[index * size : (index + 1) * size] for index in range(whole))
        return [1.0 if self._loud(window) else 0.0 for window in windows]

    def _loud(self, window: bytes) -> bool:
        samples = np.frombuffer(window, dtype="<i2").astype(np.float32)
        return float(samples @ samples) >= self._power * len(samples)


# STT -----------------------------------------------------------------------------------------


class SttOptions(_Options):
    """The transcript arrives a fixed time after it was asked for."""

    final_ms: float = Field(100.0, ge=0, le=60_000, description="From the flush to the final transcript, ms.")
    text: str = Field("Hello there.", description="What is heard where the caller's own truth is not known.")


class ScriptedStt(_Scripted):
    """Hears the truth beside the caller's recording, or a fixed text."""

    Options = SttOptions

    def __init__(self, options: SttOptions, model: str | None, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._truth: Callable[[float, float], str | None] = lambda start, end: None

    def for_call(self, truth: Callable[[float, float], str | None]) -> ScriptedStt:
        """The same, for one call: `truth(start, end)` is what the caller said between two times."""
        mine = ScriptedStt(self._options, None, self._clock)
        mine._truth = truth
        return mine

    def open(self, start: float) -> SttStream:
        return _ScriptedSttStream(self._options, self._clock, self._truth, start)


class _ScriptedSttStream:
    def __init__(
        self, options: SttOptions, clock: Clock, truth: Callable[[float, float], str | None], start: float
    ) -> None:
        self._options = options
        self._clock = clock
        self._truth = truth
        self._start = start
        self._bytes = 0
        self._flushes = 0
        self._due: asyncio.Queue[tuple[float, Transcript] | None] = asyncio.Queue()  # a flush a pause: few

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)

    def flush(self) -> None:
        end = self._start + self._bytes / SAMPLE_WIDTH / PIPELINE_RATE
        heard = self._truth(self._start, end)
        text = self._options.text if heard is None else heard
        self._flushes += 1
        self._due.put_nowait((self._clock.now() + self._options.final_ms / 1000, Transcript(text, self._flushes)))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while (due := await self._due.get()) is not None:
            when, transcript = due
            await self._clock.sleep_until(when)
            yield transcript

    async def aclose(self) -> None:
        self._due.put_nowait(None)


# End of turn ---------------------------------------------------------------------------------


class TurnModelOptions(_Options):
    """The same score for every pause, a fixed time after it was asked for."""

    score: float = Field(0.9, ge=0, le=1, description="How sure it is that the caller has finished.")
    score_ms: float = Field(100.0, ge=0, le=60_000, description="From the pause to the score, ms.")


class ScriptedTurnModel(_Scripted):
    """Knows the answer without listening."""

    Options = TurnModelOptions

    def __init__(self, options: TurnModelOptions, model: str | None, clock: Clock) -> None:
        self._options = options
        self._clock = clock

    def open(self) -> TurnModelStream:
        return _ScriptedTurnModelStream(self._options, self._clock)


class _ScriptedTurnModelStream:
    def __init__(self, options: TurnModelOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock

    def push(self, pcm: bytes) -> None:
        """It does not listen."""

    async def score(self, start: float) -> float:
        await self._clock.sleep_until(self._clock.now() + self._options.score_ms / 1000)
        return self._options.score


# LLM -----------------------------------------------------------------------------------------


class LlmOptions(_Options):
    """Answers come from a list, token by token, at a fixed pace."""

    ttft_ms: float = Field(150.0, ge=0, le=60_000, description="Request to first token, ms.")
    tokens_per_second: float = Field(50.0, gt=0, le=10_000, description="Pace of the tokens after the first.")
    replies: tuple[str, ...] = Field(
        REPLIES,
        min_length=1,
        description="The answers, in turn; after the last comes the first again.",
    )


class ScriptedLlm(_Scripted):
    """The n-th answer of the list for the n-th turn of a conversation."""

    Options = LlmOptions

    def __init__(self, options: LlmOptions, model: str | None, clock: Clock) -> None:
        self._options = options
        self._clock = clock

    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Nothing to warm."""

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        turn = sum(message.role == "user" for message in request.messages)
        reply = self._options.replies[(turn - 1) % len(self._options.replies)]
        begin = self._clock.now() + self._options.ttft_ms / 1000
        tokens = reply.replace(" ", "\0 ").split("\0")
        for index, token in enumerate(tokens):
            await self._clock.sleep_until(begin + index / self._options.tokens_per_second)
            yield TextDelta(token)
        yield Usage(completion_tokens=len(tokens))


# TTS -----------------------------------------------------------------------------------------


class TtsOptions(_Options):
    """A tone as long as the words would take."""

    ttfb_ms: float = Field(80.0, ge=0, le=60_000, description="Clause handed over to first audio, ms.")
    words_per_second: float = Field(3.0, gt=0, le=20, description="Speaking rate.")
    speed: float = Field(20.0, gt=0, le=1000, description="How much faster than real time the audio arrives.")


class ScriptedTts(_Scripted):
    """Speaks each clause as a 220 Hz tone, in chunks of 100 ms."""

    Options = TtsOptions
    rate = 24_000
    _CHUNK_S = 0.1

    def __init__(self, options: TtsOptions, model: str | None, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._chunk = _tone(self.rate, self._CHUNK_S)

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        seconds = len(request.text.split()) / self._options.words_per_second
        begin = self._clock.now() + self._options.ttfb_ms / 1000
        for index in range(max(1, round(seconds / self._CHUNK_S))):
            await self._clock.sleep_until(begin + index * self._CHUNK_S / self._options.speed)
            yield self._chunk


def _tone(rate: int, seconds: float) -> bytes:
    samples = np.arange(round(rate * seconds))
    return (8000 * np.sin(2 * math.pi * 220 / rate * samples)).astype("<i2").tobytes()


# Speech to speech ----------------------------------------------------------------------------


class S2sOptions(_Options):
    """Answers come from a list, as a tone as long as the words would take."""

    ttfb_ms: float = Field(300.0, ge=0, le=60_000, description="Turn handed over to first audio, ms.")
    words_per_second: float = Field(3.0, gt=0, le=20, description="Speaking rate.")
    speed: float = Field(20.0, gt=0, le=1000, description="How much faster than real time the audio arrives.")
    heard_ms: float = Field(400.0, ge=0, le=60_000, description="Turn handed over to the text of it, ms.")
    text: str = Field("Hello there.", description="What is heard where the caller's own truth is not known.")
    replies: tuple[str, ...] = Field(
        REPLIES,
        min_length=1,
        description="The answers, in turn; after the last comes the first again.",
    )


class ScriptedS2s(_Scripted):
    """The n-th answer of the list for the n-th turn that it remembers, as a 220 Hz tone."""

    Options = S2sOptions
    rate = 24_000

    def __init__(self, options: S2sOptions, model: str | None, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._truth: Callable[[float, float], str | None] = lambda start, end: None

    def for_call(self, truth: Callable[[float, float], str | None]) -> ScriptedS2s:
        """The same, for one call: `truth(start, end)` is what the caller said between two times."""
        mine = ScriptedS2s(self._options, None, self._clock)
        mine._truth = truth
        return mine

    def open(self, instructions: str) -> S2sStream:
        return ScriptedConversation(self._options, self.rate, self._clock, self._truth)


class ScriptedConversation:
    """`remembers`: what was said in this call, as the model knows it: ("caller" or "agent", text)."""

    _CHUNK_S = 0.1

    def __init__(
        self, options: S2sOptions, rate: int, clock: Clock, truth: Callable[[float, float], str | None]
    ) -> None:
        self._options = options
        self._clock = clock
        self._truth = truth
        self._chunk = _tone(rate, self._CHUNK_S)
        self.remembers: list[tuple[str, str]] = []
        self._heard = Stretches()
        self._asked = 0
        self._news: asyncio.Queue[S2sNews | None] = asyncio.Queue()  # two an answer: few
        self._later: set[asyncio.Task[None]] = set()

    def hear_from(self, start: float) -> None:
        self._heard.hear_from(start)

    def forget(self) -> None:
        self._heard.forget()

    def push(self, pcm: bytes) -> None:
        self._heard.push(pcm)

    def respond(self) -> AsyncGenerator[S2sChunk, None]:
        self._asked += 1
        speech = self._heard.take()
        if speech:
            truth = self._truth(speech[0][0], speech[-1][1])
            text = self._options.text if truth is None else truth
            self.remembers.append(("caller", text))
            later = self._clock.spawn(self._tell(CallerSaid(self._asked, text)), name="scripted transcript")
            self._later.add(later)
            later.add_done_callback(self._later.discard)
        turns = sum(who == "agent" for who, _ in self.remembers)
        reply = self._options.replies[turns % len(self._options.replies)]
        return self._speak(reply, self._asked, sum(end - start for start, end in speech))

    def say(self, text: str) -> AsyncGenerator[S2sChunk, None]:
        self._asked += 1
        return self._speak(text, self._asked, 0.0)

    def truncate(self, heard_s: float) -> None:
        if self.remembers and self.remembers[-1][0] == "agent":
            words = self.remembers.pop()[1].split()
            if heard := " ".join(words[: round(heard_s * self._options.words_per_second)]):
                self.remembers.append(("agent", heard))

    async def __aiter__(self) -> AsyncIterator[S2sNews]:
        while (news := await self._news.get()) is not None:
            yield news

    async def aclose(self) -> None:
        for later in self._later:
            later.cancel()
        self._news.put_nowait(None)

    async def _tell(self, said: CallerSaid) -> None:
        await self._clock.sleep_until(self._clock.now() + self._options.heard_ms / 1000)
        self._news.put_nowait(said)

    async def _speak(self, reply: str, number: int, heard_s: float) -> AsyncGenerator[S2sChunk, None]:
        words = reply.replace(" ", "\0 ").split("\0")
        chunks = max(1, round(len(words) / self._options.words_per_second / self._CHUNK_S))
        begin = self._clock.now() + self._options.ttfb_ms / 1000
        told = made = 0
        try:
            for index in range(chunks):
                await self._clock.sleep_until(begin + index * self._CHUNK_S / self._options.speed)
                if not index:
                    self.remembers.append(("agent", reply))
                made = index + 1
                if text := "".join(words[told : (told := math.ceil(made * len(words) / chunks))]):
                    yield TextDelta(text)
                yield AudioDelta(self._chunk)
        finally:
            usage = S2sUsage(
                number, audio_in_tokens=round(heard_s * 10), audio_out_tokens=round(made * self._CHUNK_S * 20)
            )
            self._news.put_nowait(usage)
