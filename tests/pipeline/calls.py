"""Whole calls on the virtual clock: a caller who says tones, scripted providers, and the story they make.

`Call(...)` is told who says what when, and what each provider takes; `run()` gives the trace and
what the LLM was asked. `story(trace, Kind, ...)` writes the events of those kinds out, one line
each, at the time they were known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH, Pcm
from voicectl.call_wav import CallWav
from voicectl.clock import Clock, ClockKind, run_on
from voicectl.events import Event, UtterancePlayed
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.protocols import (
    Frame,
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    Providers,
    SttStream,
    TextDelta,
    Transcript,
    Transport,
    TtsRequest,
    Usage,
)
from voicectl.pipeline.session import AgentRules, Session
from voicectl.providers.scripted import ScriptedTts, ScriptedVad, TtsOptions, VadOptions
from voicectl.trace import Trace
from voicectl.transports.caller import AfterAgent, At, Caller, DuringAgent, Start, Utterance
from voicectl.transports.wav import WavTransport

Anything = BaseException | None


def says(
    text: str, start: Start | float, seconds: float = 1.0, *, rate: int = 16_000, backchannel: bool = False
) -> Utterance:
    """An utterance that is one tone, `seconds` long; `start` may be a time of the call."""
    samples = np.arange(round(seconds * rate))
    sound = (6000 * np.sin(2 * np.pi * 330 / rate * samples)).astype("<i2").tobytes()
    when = At(start) if isinstance(start, int | float) else start
    return Utterance(Pcm(sound, rate), f"{text}.wav", 0.0, seconds, text, start=when, backchannel=backchannel)


def after(gap_s: float = 0.5) -> AfterAgent:
    return AfterAgent(gap_s)


def during(after_s: float) -> DuringAgent:
    return DuringAgent(after_s)


class _Fake:
    name = "fake"

    async def start(self, progress: Progress) -> None: ...

    async def aclose(self) -> None: ...


class FakeStt(_Fake):
    """Hears what was said since the stream's start, `final_s` after it is asked."""

    def __init__(
        self,
        clock: Clock,
        trace: Trace,
        final_s: float,
        fails: Callable[[int], Anything],
        breaks: Callable[[int], Anything],
    ) -> None:
        self.clock = clock
        self.trace = trace
        self.final_s = final_s
        self.fails = fails
        self.breaks = breaks
        self.streams: list[_FakeStream] = []

    def open(self, start: float) -> SttStream:
        self.streams.append(_FakeStream(self, start, len(self.streams)))
        return self.streams[-1]


class _FakeStream:
    def __init__(self, stt: FakeStt, start: float, number: int) -> None:
        self.stt = stt
        self.start = start
        self.number = number
        self.pcm = b""
        self.flushes = 0
        self.closed = 0
        self.due: asyncio.Queue[tuple[float, str] | None] = asyncio.Queue()

    def push(self, pcm: bytes) -> None:
        self.pcm += pcm

    def flush(self) -> None:
        self.flushes += 1
        end = self.start + len(self.pcm) / SAMPLE_WIDTH / PIPELINE_RATE
        played = [one for one in self.stt.trace.of(UtterancePlayed) if one.voiced_until > self.start]
        text = " ".join(one.text or "" for one in played if one.voiced_from < end)
        self.due.put_nowait((self.stt.clock.now() + self.stt.final_s, text))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        number = 0
        while (due := await self.due.get()) is not None:
            number += 1
            await self.stt.clock.sleep_until(due[0])
            if error := self.stt.fails(self.number):
                raise error
            yield Transcript(due[1], number)
            if error := self.stt.breaks(self.number):
                raise error

    async def aclose(self) -> None:
        self.closed += 1
        self.due.put_nowait(None)


class FakeLlm(_Fake):
    """Says the next of its replies, a word a token, and keeps what it was asked."""

    def __init__(
        self, clock: Clock, replies: Sequence[str], ttft_s: float, per_second: float, fails: Callable[[int], Anything]
    ) -> None:
        self.clock = clock
        self.replies = replies
        self.ttft_s = ttft_s
        self.per_second = per_second
        self.fails = fails
        self.requests: list[tuple[Message, ...]] = []
        self.running = 0

    async def warm(self, messages: tuple[Message, ...]) -> None: ...

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        number = len(self.requests)
        self.requests.append(request.messages)
        reply = self.replies[number % len(self.replies)]
        begin = self.clock.now() + self.ttft_s
        self.running += 1
        try:
            words = reply.split(" ")
            for index, word in enumerate(words):
                await self.clock.sleep_until(begin + index / self.per_second)
                if index == len(words) // 2 and (error := self.fails(number)):
                    raise error
                yield TextDelta(f" {word}" if index else word)
            yield Usage(completion_tokens=len(words))
        finally:
            self.running -= 1


class FakeTts(ScriptedTts):
    """The scripted tone, which may fail."""

    def __init__(
        self, clock: Clock, options: TtsOptions, fails: Callable[[str], Anything], fails_to_stop: Anything
    ) -> None:
        super().__init__(options, None, clock)
        self.fails = fails
        self.fails_to_stop = fails_to_stop
        self.running = 0

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        self.running += 1
        try:
            async for pcm in super().synthesize(request):
                if error := self.fails(request.text):
                    raise error
                yield pcm
        except asyncio.CancelledError:
            if self.fails_to_stop:
                raise self.fails_to_stop from None
            raise
        finally:
            self.running -= 1


def never(_: object) -> None:
    """Does not fail."""


@dataclass(kw_only=True)
class Call:
    """A call to be made. Times in seconds."""

    caller: Sequence[Utterance]
    replies: Sequence[str] = ("Sure, one latte. Anything else for you today?",)
    rules: AgentRules = field(
        default_factory=lambda: AgentRules("coffee", "Take orders.", "", EndpointingRules(pause_s=0.13))
    )
    rate: int = 16_000
    stt_final: float = 0.1
    llm_ttft: float = 0.15
    llm_per_second: float = 50.0
    tts: dict[str, float] = field(default_factory=dict[str, float])
    stt_fails: Callable[[int], Anything] = never
    stt_breaks: Callable[[int], Anything] = never
    llm_fails: Callable[[int], Anything] = never
    tts_fails: Callable[[str], Anything] = never
    tts_fails_to_stop: Anything = None
    wav: CallWav | None = None
    line: Callable[[WavTransport, Clock], Transport] = lambda line, clock: line
    hang_up_at: float | None = None
    begins_at: float = 0.0  # on the clock
    trace: Trace = field(default_factory=Trace)

    def run(self, kind: ClockKind = "virtual") -> Call:
        """Make the call; what it left behind is in `trace`, `requests` and the like."""
        run_on(kind, self.made)
        return self

    async def made(self, clock: Clock) -> None:
        self.clock = clock
        await clock.sleep_until(self.begins_at)
        self.stt = FakeStt(clock, self.trace, self.stt_final, self.stt_fails, self.stt_breaks)
        self.llm = FakeLlm(clock, self.replies, self.llm_ttft, self.llm_per_second, self.llm_fails)
        self.voice = FakeTts(clock, TtsOptions.model_validate(self.tts), self.tts_fails, self.tts_fails_to_stop)
        caller = Caller("ann", tuple(self.caller))
        greeted = bool(self.rules.greeting)
        wav = WavTransport(caller, rate=self.rate, greeted=greeted, clock=clock, trace=self.trace)
        line = self.line(wav, clock)
        if self.hang_up_at is not None:
            line = HangsUp(line, self.hang_up_at)
        vad = ScriptedVad(VadOptions.model_validate({}), None, clock)
        providers = Providers(vad, self.stt, self.llm, self.voice)
        try:
            await Session(self.rules, providers, line, clock, self.trace, self.wav).run()
        finally:
            self.left = sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())

    @property
    def requests(self) -> list[list[str]]:
        """What the LLM was asked, each message as "role: content", without the system prompt."""
        return [[f"{one.role}: {one.content}" for one in messages[1:]] for messages in self.llm.requests]


class HangsUp:
    """A line that is cut at a time of the call."""

    def __init__(self, inner: Transport, at: float) -> None:
        self.inner = inner
        self.at = at
        self.rate = inner.rate
        self.caller = inner.caller

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        async for frame in self.inner.frames(start):
            if frame.at >= self.at - 1e-9:
                return
            yield frame

    def send(self, pcm: bytes) -> float:
        return self.inner.send(pcm)

    async def aclose(self) -> None:
        await self.inner.aclose()


_SHOWN = {"turn", "reply", "index", "text", "prompt", "heard", "reason", "stage", "message", "held"}


def story(trace: Trace, *kinds: type[Event]) -> list[str]:
    """The events of these kinds, one line each: when it was known, what, and its main values."""
    lines: list[str] = []
    for event in trace.events:
        if not kinds or isinstance(event, kinds):
            known = event.at if event.noted_at is None else event.noted_at
            names = [name for name in type(event).__dataclass_fields__ if name in _SHOWN]
            values = [repr(getattr(event, name)) for name in names]
            lines.append(f"{known:.2f} {type(event).__name__} {' '.join(values)}".rstrip())
    return lines
