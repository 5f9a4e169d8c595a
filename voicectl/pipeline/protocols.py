"""The contracts: what a VAD, STT, LLM, TTS and a transport are to the pipeline.

Audio is s16le mono `bytes`. Inside the pipeline it has `PIPELINE_RATE` samples per second on the
caller's side; a TTS speaks at its own `rate` and playout converts. Times are seconds of the call.

Providers are built once per run and shared by all its calls, so their state lives in the streams
they open. Rules for each (the contract test in `tests/providers/` runs against every one):

- `start()` loads and warms; afterwards the first answer is as fast as the tenth.
- Streams deliver as they arrive, and stop working soon after `aclose()` / cancellation.
- CPU work goes through `clock.run`, background tasks through `clock.spawn`.
- Own errors are translated to `ProviderError` at the edge; `CancelledError` is never swallowed.
- A generator holds no task group open across a `yield`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Progress = Callable[[str], None]
"""Told what a slow step is doing: "loading qwen2.5-coder-0.5b"."""


class Provider(Protocol):
    """What all providers share."""

    name: str
    """As the spec spells it, `local`."""

    async def start(self, progress: Progress) -> None:
        """Load, connect, warm up. Called once, before the first call.

        Raises:
            MissingExtra, WeightsError, ProviderError: it cannot serve.
        """
        ...

    async def aclose(self) -> None:
        """Free everything. Idempotent."""
        ...


# Voice activity ------------------------------------------------------------------------------


class VadStream(Protocol):
    """The voice activity of one call."""

    def push(self, pcm: bytes) -> list[float]:
        """Take the next samples (PIPELINE_RATE) and return one speech probability for each window
        that they complete: 0..1, rounded to 3 decimals, so that a recording holds it exactly."""
        ...


class Vad(Provider, Protocol):
    window_s: float
    """Length of one window in seconds."""

    def open(self) -> VadStream: ...


# Speech to text ------------------------------------------------------------------------------


TurnEnd = Literal["likely", "resumed", "over"]


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of the whole turn so far (not of the last piece).

    `flush` is the number, from 1, of the `flush()` that it answers, covering everything pushed
    before that; 0 for one that answers none.

    `turn_end` is what a provider with an end-of-turn detector of its own says besides: "likely"
    (the caller has probably finished), "resumed" (that was wrong) or "over" (the turn has ended,
    and this is its text). None from all others.
    """

    text: str
    flush: int = 0
    turn_end: TurnEnd | None = None

    @property
    def final(self) -> bool:
        return self.flush > 0


class SttStream(Protocol):
    """The speech of one caller turn."""

    def push(self, pcm: bytes) -> None:
        """Take the next samples (PIPELINE_RATE). Never blocks."""
        ...

    def flush(self) -> None:
        """Ask for the text of everything pushed so far: answered by one transcript with this
        flush's number. One that is overtaken by the next before its answer may go unanswered."""
        ...

    def __aiter__(self) -> AsyncIterator[Transcript]:
        """Transcripts as they come; ends after `aclose()`."""
        ...

    async def aclose(self) -> None: ...


class Stt(Provider, Protocol):
    def open(self, start: float) -> SttStream:
        """A stream whose first pushed sample was spoken at `start` seconds of the call."""
        ...


# End of turn ---------------------------------------------------------------------------------


class TurnModelStream(Protocol):
    """The audio of one call, as an end-of-turn model hears it."""

    def push(self, pcm: bytes) -> None:
        """Take the next samples (PIPELINE_RATE). Never blocks, never computes."""
        ...

    async def score(self, start: float) -> float:
        """The probability, 0..1 rounded to 3 decimals, that the caller, who speaks since `start`
        seconds of the call and has just paused, has finished. Cancelling it drops the work."""
        ...


class TurnModel(Provider, Protocol):
    def open(self) -> TurnModelStream: ...


# Language model ------------------------------------------------------------------------------

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may ask for. `parameters` is the JSON schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class LlmRequest:
    """The conversation to continue. `messages[0]` is the system prompt."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """Some more of a tool call, of which an answer may make several.

    Each says whose it is: `id` tells the calls of one answer apart, `name` is the tool's. `arguments`
    is the next piece of their JSON; that of all pieces together may be "", which means `{}`. The
    first piece comes as soon as the model has chosen the tool.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the answer cost, as the provider counts. Comes last, where it is known."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


LlmChunk = TextDelta | ToolDelta | Usage


class Llm(Provider, Protocol):
    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Prepare for conversations that begin so (prompt cache, connection). May do nothing."""
        ...

    def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream the answer. Closing the generator stops the work within 50 ms."""
        ...


# Text to speech ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TtsRequest:
    """One clause to speak. `reply` and `index` say whose, for voices that keep a context."""

    text: str
    reply: int = 0
    index: int = 0


class Tts(Provider, Protocol):
    rate: int
    """Samples per second of what `synthesize` yields."""

    def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream the clause's audio in pieces of any even length."""
        ...


# Speech to speech ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """Some more of the answer's sound."""

    pcm: bytes


S2sChunk = AudioDelta | TextDelta


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """What the model has heard of the caller, as text, in the turn that answer number `answer` answers."""

    answer: int
    text: str


@dataclass(frozen=True, slots=True)
class S2sUsage:
    """What answer number `answer` cost, as the provider counts: audio tokens are part of the others.
    `stage` is "stt" for the text of what the caller said, where another model makes that.
    `estimated`: the provider did not say, since it was cut."""

    answer: int
    model: str | None = None
    stage: str = "s2s"
    audio_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    audio_in_tokens: int | None = None
    audio_out_tokens: int | None = None
    estimated: bool = False


S2sNews = CallerSaid | S2sUsage
"""What becomes known besides an answer, often after it. Answers count from 1, in the order they were
asked for."""


class S2sStream(Protocol):
    """One call's conversation with a model that hears and speaks by itself, and remembers."""

    def hear_from(self, start: float) -> None:
        """What is pushed from now on was spoken from `start` seconds of the call on."""
        ...

    def forget(self) -> None:
        """What was pushed and is answered by no `respond` so far is to be answered by none."""
        ...

    def push(self, pcm: bytes) -> None:
        """Take the next samples of the caller (PIPELINE_RATE). Never blocks."""
        ...

    def respond(self) -> AsyncGenerator[S2sChunk, None]:
        """Answer what was pushed. It is taken for the caller's turn at the call, before the first
        chunk is asked for. Closing the generator stops the model."""
        ...

    def say(self, text: str) -> AsyncGenerator[S2sChunk, None]:
        """Speak a text that answers nobody, as nearly word for word as the model will."""
        ...

    def truncate(self, heard_s: float) -> None:
        """Stop the last answer. The caller heard only so many seconds of it, and the model is to remember
        no more."""
        ...

    def __aiter__(self) -> AsyncIterator[S2sNews]:
        """News as they come; ends after `aclose()`, when all that is known has been told."""
        ...

    async def aclose(self) -> None: ...


class S2s(Provider, Protocol):
    rate: int
    """Samples per second of what a stream's answers hold."""

    def open(self, instructions: str) -> S2sStream:
        """A new conversation; `instructions` say who the agent is."""
        ...


# The line ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """20 ms of the caller at the line's rate. `at` is when its first sample was spoken, `delay_s` how
    long the device took to hand it over: it is late only after that."""

    pcm: bytes
    at: float
    delay_s: float = 0.0


class Transport(Protocol):
    """Where audio enters and leaves. For each frame it yields it takes one to send, and now and then
    one between: the first after a silence, so that what follows is up to a frame ahead."""

    rate: int
    caller: str
    """Who is at the other end, for the trace."""

    def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        """The caller's frames from `start` on the clock; ends when the caller hangs up.

        Frame *i* comes at `start + (i + 1) * FRAME_S`, when its last sample has been spoken."""
        ...

    def send(self, pcm: bytes) -> float:
        """Put one frame of the agent on the line (b"" for silence) and return the time of the
        call at which its first sample is heard."""
        ...

    async def aclose(self) -> None: ...


class LineRecorder(Protocol):
    """Keeps both sides of the line as they are heard."""

    def caller(self, pcm: bytes) -> None:
        """The caller's next frame."""
        ...

    def agent(self, pcm: bytes, at: float) -> None:
        """A frame of the agent, heard from `at` seconds of the call on."""
        ...

    def close(self) -> None: ...


# All of an agent's parts ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Providers:
    """The four stages of one agent, and its end-of-turn model where it has one."""

    vad: Vad
    stt: Stt
    llm: Llm
    tts: Tts
    turn_model: TurnModel | None = None


@dataclass(frozen=True, slots=True)
class SpeechProviders:
    """The parts of an agent whose one model hears, thinks and speaks."""

    vad: Vad
    s2s: S2s
    turn_model: TurnModel | None = None


Parts = Providers | SpeechProviders
"""Of one agent, of either kind."""
