"""An agent as `agents.yaml` holds it: what it says, which providers it uses, how it takes turns.

Models only: shape, defaults, plausible ranges, one description each (it becomes the JSON schema).
Durations are whole milliseconds here (`_ms`) and seconds for everybody else (`_s` properties).
What a provider name or its options mean is checked against the catalogue, in `load`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from voicectl.spec.suggest import did_you_mean
from voicectl.spec.threshold import PATTERN, Threshold, ThresholdError, parse_threshold
from voicectl.spec.validation import fault

BACKCHANNELS = (
    "mhm", "mm", "mmm", "mm-hmm", "mm hmm", "hmm", "uh-huh", "uh huh",
    "yeah", "yep", "right", "okay", "ok", "i see", "sure",
)  # fmt: skip


COMMANDS = tuple("wait stop no nope sorry hold actually hey excuse help cancel but hello".split())


class SpecModel(BaseModel):
    """Base of everything people write: frozen, and every key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _not_a_bool(value: object, info: ValidationInfo) -> object:
    if isinstance(value, bool):
        raise fault(f"'{info.field_name}' must be a whole number, not '{str(value).lower()}'")
    return value


Ms = Annotated[int, BeforeValidator(_not_a_bool)]
"""Whole milliseconds."""

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


def _threshold(value: object) -> Threshold:
    if isinstance(value, Threshold):
        return value
    if not isinstance(value, str):
        raise fault("a threshold is one line of text", "Write it like: p95(voice_to_voice_ms) < 800")
    try:
        return parse_threshold(value)
    except ThresholdError as error:
        raise fault(error.message, error.hint) from None


ThresholdField = Annotated[
    Threshold,
    PlainValidator(_threshold, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": PATTERN,
            "examples": ["p95(voice_to_voice_ms) < 800", "rate(early_answer) < 5%", "count(no_answer) <= 0"],
        }
    ),
]


def _language(value: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}(-[A-Z]{2})?", value):
        raise fault(f"'{value}' is not the code of a language", "Write it like en, de or pt-BR")
    return value


Language = Annotated[str, AfterValidator(_language)]


class StageSpec(SpecModel):
    """Who does one stage: a provider, its model, its options."""

    unknown_key_hint: ClassVar[str] = "What the provider itself can be told goes under 'options:'"

    provider: Text = Field(description="Name of the provider, as `voicectl providers` lists it.")
    model: Text | None = Field(default=None, description="The provider's model. Default: its first.")
    options: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="What this provider can be told; see `voicectl providers`."
    )


def _short(key: str, shape: Any) -> BeforeValidator:
    """One plain value stands for `{key: value}`, `true` for all defaults, `false` for nothing."""

    def long(value: object) -> object:
        if isinstance(value, bool):
            return {} if value else None
        return {key: value} if isinstance(value, int | float | str) else value

    return BeforeValidator(long, json_schema_input_type=shape | int | bool | None)


class RetrySpec(SpecModel):
    """Ask again when asking again can help, after a wait that doubles and is drawn by lot up to its length."""

    attempts: int = Field(default=2, ge=1, le=10, description="How many times it is asked again.")
    first_ms: Ms = Field(default=100, ge=1, le=60_000, description="The longest wait before the first of them.")
    most_ms: Ms = Field(
        default=2000, ge=1, le=60_000, description="The longest wait of all. A vendor who asks for more is given up."
    )
    per_call: int = Field(default=10, ge=1, le=1000, description="How many times in all of one call.")


class TimeoutSpec(SpecModel):
    """How long an answer is waited for."""

    first_ms: Ms = Field(
        default=3000, ge=10, le=120_000, description="For its first piece; from an STT, for the text it was asked for."
    )
    gap_ms: Ms = Field(default=3000, ge=10, le=120_000, description="For each further piece.")


class BreakerSpec(SpecModel):
    """Nobody asks a provider that fails, for a while, in any call."""

    failures: int = Field(
        default=3, ge=1, le=1000, description="So many of the last requests failed, and half of them at least."
    )
    open_ms: Ms = Field(default=10_000, ge=100, le=3_600_000, description="How long before one may try again.")
    window_ms: Ms = Field(default=30_000, ge=100, le=3_600_000, description="How far back requests count.")


class HedgeSpec(SpecModel):
    """Ask a second time when the first answer is late, and take what comes first. Both are paid for."""

    after_ms: Ms | None = Field(
        default=None, ge=10, le=60_000, description="When the second is asked. Default: after the first's own P95."
    )
    per_call: int = Field(default=20, ge=1, le=1000, description="How many times in one call.")


Retry = Annotated[RetrySpec | None, _short("attempts", RetrySpec)]
Timeout = Annotated[TimeoutSpec | None, _short("first_ms", TimeoutSpec)]
Breaker = Annotated[BreakerSpec | None, _short("failures", BreakerSpec)]
Hedge = Annotated[HedgeSpec | None, _short("after_ms", HedgeSpec)]


class FallbackSpec(StageSpec):
    """Who does a stage when those before it fail."""

    retry: Retry = Field(default=None, description="Ask again: `2`, or {attempts: 2, first_ms: 100}.")
    timeout: Timeout = Field(default=None, description="Longest waits: {first_ms: 1500, gap_ms: 2000}.")
    breaker: Breaker = Field(default=None, description="Leave it alone while it fails: `true`, or {failures: 3}.")


def _list(value: object) -> object:
    """One stage is a list of one."""
    return [cast(object, value)] if isinstance(value, dict) else value


Fallbacks = Annotated[
    tuple[FallbackSpec, ...],
    BeforeValidator(_list, json_schema_input_type=tuple[FallbackSpec, ...] | FallbackSpec),
]


class GuardedSpec(FallbackSpec):
    """Who does one stage, and what helps when it fails."""

    hedge: Hedge = Field(
        default=None, description="A second request when the first is late: `true`, or {after_ms: 400}."
    )
    fallback: Fallbacks = Field(default=(), description="Who takes over, one after the other.")


class VadSpec(StageSpec):
    """Who says whether the caller speaks."""

    threshold: float = Field(
        default=0.5, ge=0.05, le=0.95, description="Speech probability from which a window counts as speech."
    )


Strategy = Literal["silence", "adaptive", "text", "audio", "provider"]


STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def _strategies(value: object) -> tuple[Strategy, ...]:
    """One name, or a list of some."""
    if not value or not isinstance(value, str | list | tuple):
        raise fault("a strategy is a name, or a list of some", "Write it like text, or [text, audio]")
    names = [value] if isinstance(value, str) else [*cast("Sequence[object]", value)]
    for name in names:
        if name not in STRATEGIES:
            if "," in str(name):
                raise fault(f"'{name}' is no list", f"Write it like [{', '.join(str(name).split(','))}]")
            hint = did_you_mean(str(name), STRATEGIES, known_as="Strategies")
            raise fault(f"unknown endpointing strategy '{name}'", hint)
    if len(set(names)) < len(names):
        raise fault("a strategy is named twice", "Name each once")
    return cast("tuple[Strategy, ...]", tuple(names))


Strategies = Annotated[
    tuple[Strategy, ...],
    PlainValidator(_strategies, json_schema_input_type=Any),
    PlainSerializer(list, return_type=list[str]),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(STRATEGIES)},
                {"type": "array", "items": {"enum": list(STRATEGIES)}, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]


class EndpointingSpec(SpecModel):
    """How a silence becomes the end of the caller's turn."""

    strategy: Strategies = Field(
        default=("text",),
        description="What decides, one or several: `silence`: always `silence_ms`; `adaptive`: the pauses of this "
        "caller; `text`: whether the words look finished; `audio`: an end-of-turn model; `provider`: the STT says.",
    )
    silence_ms: Ms = Field(
        default=500, ge=50, le=5000, description="A silence this long ends the turn where nothing says otherwise."
    )
    min_silence_ms: Ms = Field(
        default=250, ge=0, le=5000, description="The silence after a turn that is surely finished."
    )
    max_silence_ms: Ms = Field(
        default=1500, ge=50, le=10_000, description="The silence after a turn that is surely not."
    )
    pause_ms: Ms = Field(
        default=96,
        ge=20,
        le=2000,
        description="A pause this long asks for the text so far and, with `speculation`, starts the answer.",
    )
    min_speech_ms: Ms = Field(default=90, ge=0, le=1000, description="Sounds shorter than this are not speech.")
    audio: StageSpec = Field(
        default_factory=lambda: StageSpec(provider="smart-turn"),
        description="The end-of-turn model of the strategy `audio`.",
    )

    @property
    def silence_s(self) -> float:
        return self.silence_ms / 1000

    @property
    def min_silence_s(self) -> float:
        """Never longer than the ordinary one: who shortens that means every turn."""
        return min(self.min_silence_ms, self.silence_ms) / 1000

    @property
    def max_silence_s(self) -> float:
        """Never shorter than the ordinary one."""
        return max(self.max_silence_ms, self.silence_ms) / 1000

    @property
    def pause_s(self) -> float:
        return self.pause_ms / 1000

    @property
    def min_speech_s(self) -> float:
        return self.min_speech_ms / 1000


class InterruptionSpec(SpecModel):
    """What happens when the caller speaks while the agent does."""

    enabled: bool = Field(default=True, description="Whether the caller can interrupt the agent.")
    greeting: bool = Field(default=True, description="Whether the caller can interrupt the greeting.")
    hold_ms: Ms = Field(
        default=128,
        ge=0,
        le=5000,
        description="After speech this long the agent falls quiet; unless words follow, it goes on. 0: it speaks on.",
    )
    min_speech_ms: Ms = Field(
        default=700,
        ge=50,
        le=5000,
        description="Speech this long is looked at for words before its end; with `min_words: 0` it interrupts.",
    )
    min_words: int = Field(
        default=1, ge=0, le=20, description="So many words interrupt. 0: speech that lasts does, with or without words."
    )
    commands: tuple[Text, ...] = Field(
        default=COMMANDS, description="Words that interrupt even when said in a moment, in which others would not."
    )
    backchannels: tuple[Text, ...] = Field(
        default=BACKCHANNELS, description="What listeners say without wanting the turn. It does not interrupt."
    )

    @property
    def hold_s(self) -> float:
        return self.hold_ms / 1000

    @property
    def min_speech_s(self) -> float:
        return self.min_speech_ms / 1000


class IdleSpec(SpecModel):
    """What the agent does when nobody speaks."""

    after_ms: Ms = Field(default=8000, ge=1000, le=600_000, description="A silence this long is too long.")
    prompts: tuple[Text, ...] = Field(
        default=("Are you still there?",), description="What the agent asks then, one after the other."
    )
    goodbye: Text | None = Field(
        default=None, description="What it says last, before it hangs up. Default: it hangs up without a word."
    )


class FillerSpec(SpecModel):
    """What the caller hears while the answer takes long. Reports count it as no answer."""

    after_ms: Ms = Field(default=800, ge=100, le=60_000, description="From the end of the turn, without any sound.")
    texts: tuple[Text, ...] = Field(default=("One moment.",), min_length=1, description="Said in turn.")


class TurnSpec(SpecModel):
    """Who may speak when."""

    endpointing: EndpointingSpec = Field(
        default_factory=EndpointingSpec, description="How a silence becomes the end of the caller's turn."
    )
    speculation: bool = Field(
        default=True, description="Start the answer at a pause already, unheard until the turn has ended."
    )
    interruption: InterruptionSpec = Field(
        default_factory=InterruptionSpec, description="What happens when the caller speaks while the agent does."
    )
    idle: IdleSpec | None = Field(
        default=None, description="What the agent does when nobody speaks. Default: it waits."
    )
    filler: FillerSpec | None = Field(
        default=None, description="What the caller hears while the answer takes long. Default: nothing."
    )
    first_clause_words: int = Field(
        default=5, ge=1, le=40, description="Without punctuation the first clause is spoken after this many words."
    )
    max_history_turns: int | None = Field(
        default=None, ge=1, le=1000, description="How many past turns the model is shown. Default: all."
    )
    no_answer_ms: Ms = Field(
        default=10_000, ge=500, le=120_000, description="A caller who has waited this long is counted as not answered."
    )

    @property
    def no_answer_s(self) -> float:
        return self.no_answer_ms / 1000


class BudgetSpec(SpecModel):
    """What the agent may spend on vendors, in US dollars, by the table of prices."""

    per_call: float | None = Field(default=None, gt=0, le=1_000_000, description="A call that costs more is ended.")
    per_day: float | None = Field(
        default=None, gt=0, le=1_000_000, description="No call begins that could bring the day's sum above this."
    )


class AgentSpec(SpecModel):
    """One agent."""

    description: Text | None = Field(default=None, description="One line for people, shown by `voicectl agents`.")
    language: Language = Field(default="en", description="What it speaks and hears: `en`, `de`, `pt-BR`.")
    instructions: Text = Field(description="The system prompt: who the agent is, what it knows, how it talks.")
    notice: Text | None = Field(
        default=None, description="Said before the greeting and heard to its end, such as that the call is recorded."
    )
    greeting: Text | None = Field(default=None, description="What it says first. Default: it waits for the caller.")
    vad: VadSpec = Field(description="Voice activity: says whether the caller speaks.")
    stt: GuardedSpec | None = Field(default=None, description="Speech to text.")
    llm: GuardedSpec | None = Field(default=None, description="The language model that answers.")
    tts: GuardedSpec | None = Field(default=None, description="Text to speech: the agent's voice.")
    s2s: StageSpec | None = Field(
        default=None, description="Speech to speech: one model that hears, thinks and speaks, instead of the three."
    )
    turn: TurnSpec = Field(default_factory=TurnSpec, description="Who may speak when.")
    thresholds: tuple[ThresholdField, ...] = Field(
        default=(), description="What a run must keep to pass, such as `p95(voice_to_voice_ms) < 800`."
    )
    budget: BudgetSpec | None = Field(
        default=None, description="What it may spend on vendors, in US dollars. Default: any amount."
    )


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", value):
        raise fault(f"'{value}' is not a name", "Use letters, digits, - and _, beginning with a letter")
    return value


AgentName = Annotated[str, AfterValidator(_name)]


class AgentsFile(SpecModel):
    """The whole of `agents.yaml`."""

    version: Literal[1] = Field(default=1, description="Version of this format.")
    agents: dict[AgentName, AgentSpec] = Field(
        min_length=1, description="The agents by name; the first is the default."
    )
