"""The vocabulary: every event a call can produce. Facts only, no behaviour.

All times are seconds since the call began (sample 0 of `call.wav`). `at` is when the fact was
true; `noted_at`, where it is later, when the pipeline knew (a pause is dated to the last voiced
sample and noted a few windows afterwards). An event is frozen; its fields are plain values, so
that one line of JSON holds it. Fields are added, never renamed: `trace.TRACE_VERSION` says how.

The life of one exchange, in the usual order:

    UtterancePlayed          the caller's side of the line speaks (known only when we play the caller)
    SpeechStarted            the VAD hears the caller              turn 3
    SpeechPaused             ... and hears a pause: STT is asked   turn 3
    TranscriptUpdated        the text so far
    TurnJudged               how long this pause must last to end the turn, and why
    ReplyStarted             the agent begins to think (held while the turn may go on)
    LlmRequested · LlmFirstToken · ClauseReady · TtsRequested · TtsFirstAudio · ...
    TurnEnded                the endpointer decides the caller has finished
    ReplyCommitted           the answer may be heard
    PlayoutStarted           its first frame is on the line
    PlayoutFinished          its last frame is on the line (or AgentInterrupted)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events: `at` seconds into the call, `noted_at` when we knew (None: at once)."""

    at: float
    noted_at: float | None = None


# The call ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """The line is open. `clock` is "wall" or "virtual"; `rate` the line's samples per second."""

    agent: str
    caller: str
    clock: str
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Event):
    """The line is closed: "caller hung up", "agent hung up", "interrupted", "failed"."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UtterancePlayed(Event):
    """The caller we play began utterance `index` (from 0) at `at`, its first sample.

    `voiced_from` / `voiced_until` are the caller's first and last voiced samples, from the truth
    beside the recording; `ends` is the last sample of the file. `slots` are phrases that a good
    STT must hear. A backchannel expects no answer.
    """

    index: int
    name: str
    voiced_from: float
    voiced_until: float
    ends: float
    text: str | None = None
    slots: dict[str, str] | None = None
    backchannel: bool = False
    during_agent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLate(Event):
    """Frame work began `late` seconds after the plan (only lateness of a frame or more)."""

    late: float


# The caller's turn ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted(Event):
    """The caller speaks (first, or again after a pause of the same turn)."""

    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechPaused(Event):
    """The caller may have finished; `at` is the last voiced sample as the VAD dates it."""

    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptUpdated(Event):
    """What the STT has heard of the turn so far; `final` when it answers a flush."""

    turn: int
    text: str
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnJudged(Event):
    """What is known of the pause that began at `at`: `wait` seconds of silence end the turn.

    `scores` is each strategy's probability, 0..1, that the caller has finished.
    """

    turn: int
    wait: float
    scores: dict[str, float]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnded(Event):
    """The endpointer decided that the caller has finished. `speech_end`: last voiced sample."""

    turn: int
    speech_end: float
    reason: str
    scores: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDropped(Event):
    """The turn gets no answer of its own: "no words", "backchannel", "caller went on"."""

    turn: int
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelHeard(Event):
    """The caller said "mhm" while the agent spoke; the agent went on."""

    turn: int
    text: str


# The agent's turn ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyStarted(Event):
    """An agent turn began. `turn` is None for what answers nobody; `held` while it may not be heard yet.

    `kind`: "answer", or what the agent says unasked: "notice", "greeting", "idle prompt", "goodbye".
    """

    reply: int
    turn: int | None
    prompt: str
    held: bool
    kind: str = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyCommitted(Event):
    """The turn was confirmed: a held reply may be heard from now on."""

    reply: int
    turn: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyCancelled(Event):
    """Dropped before the caller heard any of it: "caller went on", "caller spoke first", "call ended"."""

    reply: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmRequested(Event):
    """The conversation was handed to the LLM."""

    reply: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmFirstToken(Event):
    """The first token of the answer arrived."""

    reply: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmFinished(Event):
    """The whole answer is there, in `chunks` pieces. Token counts as the provider reports them
    (None: it does not)."""

    reply: int
    text: str
    chunks: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCancelled(Event):
    """The answer was cut off after `chunks` pieces of text: paid for, and not said to the end."""

    reply: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClauseReady(Event):
    """Clause `index` of the reply is complete and goes to the TTS."""

    reply: int
    index: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsRequested(Event):
    """The TTS was handed clause `index`."""

    reply: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsFirstAudio(Event):
    """The first audio of clause `index` arrived."""

    reply: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsFinished(Event):
    """Clause `index` is `seconds` of audio long."""

    reply: int
    index: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sRequested(Event):
    """The caller's turn (or a text to say) was handed to the speech-to-speech model."""

    reply: int


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sFirstAudio(Event):
    """The first audio of its answer arrived."""

    reply: int


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sFinished(Event):
    """The whole answer is there: `text` is what it says, `seconds` how long it is."""

    reply: int
    text: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class S2sCancelled(Event):
    """The answer was cut off after `seconds` of audio: paid for, and not said to the end."""

    reply: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayoutStarted(Event):
    """The first frame of the reply went on the line; `at` is where its first sample is heard."""

    reply: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayoutFinished(Event):
    """The last frame of the reply went on the line; `heard` is the whole text."""

    reply: int
    heard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInterrupted(Event):
    """The caller stopped the agent. `heard` is what reached the caller, `speech_at` the caller's start."""

    reply: int
    turn: int
    speech_at: float
    heard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPaused(Event):
    """The agent fell quiet for a caller who speaks since `speech_at`; it is not known yet what for."""

    reply: int
    turn: int
    speech_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResumed(Event):
    """It was no interruption: the agent goes on where it stopped."""

    reply: int
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FillerPlayed(Event):
    """`seconds` of `text` are on the line at the head of the reply, because its answer takes long."""

    reply: int
    text: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFailed(Event):
    """A provider failed; `stage` is vad, stt, llm or tts. The call goes on where it can."""

    stage: str
    provider: str
    message: str


# Surviving providers ---------------------------------------------------------------------------
# `stage` is stt, llm, tts or s2s; `provider` as the spec spells it.


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRetried(Event):
    """Attempt number `attempt` (the first is 1) failed with `why`; the next begins `wait` seconds later."""

    stage: str
    provider: str
    attempt: int
    wait: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderTimedOut(Event):
    """`what` ("first byte" or "next piece") did not come within `after` seconds; the request was dropped."""

    stage: str
    provider: str
    what: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged(Event):
    """The breaker of a provider is now "closed", "open" (nobody asks it) or "half-open" (one may try)."""

    stage: str
    provider: str
    state: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSwitched(Event):
    """A fallback took over from `provider` to `to`; `said` is what the caller was already being given."""

    stage: str
    provider: str
    to: str
    why: str
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeStarted(Event):
    """`provider` had not begun to answer after `after` seconds: `second` was asked as well."""

    stage: str
    provider: str
    second: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeDecided(Event):
    """`winner` ("first" or "second") answered; the other was cancelled, and is paid for."""

    stage: str
    winner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderUsed(Event):
    """What one request to a vendor consumed, whether or not anybody heard it; money is computed from these.

    Of the quantities only those that the stage is paid by are given. `estimated`: the vendor did not
    say, because the request was cut. `wasted`: its result was thrown away (a lost hedge, a failed
    attempt, a cancelled reply).
    """

    stage: str
    provider: str
    model: str | None
    audio_s: float | None = None
    characters: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    audio_in_tokens: int | None = None
    audio_out_tokens: int | None = None
    estimated: bool = False
    wasted: bool = False


# The microphone and the speaker ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOpened(Event):
    """The line is this microphone and this speaker, at their own rates; also when they are back."""

    input: str
    output: str
    input_rate: int
    output_rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDelay(Event):
    """From now on what is spoken reaches us `input` seconds later, and what we send is heard `output`
    seconds later, as the device says: its share of every wait."""

    input: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTroubled(Event):
    """The microphone ("input") or the speaker ("output") lost or repeated `seconds` of sound:

    - "overrun": the microphone's sound was lost, silence stands in its place
    - "underrun": the speaker had nothing to play in the middle of what the agent says
    - "drift": its clock and ours had come apart by so much (negative: sound was left out)
    """

    side: str
    what: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLost(Event):
    """The microphone or the speaker gives no sign of life: unplugged, taken away, its server dead."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerActed(Event):
    """Somebody used a key instead of their voice: "typed" `text`, "interrupted" the agent, asked it to "repeat"."""

    act: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentMarked(Event):
    """Somebody at the terminal wanted this moment remembered."""

    text: str = ""


LINE_EVENTS = (
    UtterancePlayed,
    DeviceOpened,
    DeviceDelay,
    DeviceTroubled,
    DeviceLost,
    CallerActed,
    MomentMarked,
)
"""What does not follow from the sound and the providers: a replay is told it."""

EVENTS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}
"""Every event by its name, as `trace.jsonl` spells it."""
