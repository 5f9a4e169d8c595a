"""A profile as `profiles/NAME.yaml` holds it: an overlay that an agent runs under.

It may change which providers do the work, on what line and clock, how turns are taken and which
thresholds count. It never changes what the agent says. Laid over the agent key by key; a list
(thresholds, backchannels) replaces the agent's, and so does a stage that names another provider.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from voicectl.spec.agent import (
    AgentSpec,
    Breaker,
    BudgetSpec,
    Fallbacks,
    Hedge,
    Retry,
    SpecModel,
    StageSpec,
    Text,
    ThresholdField,
    Timeout,
    TurnSpec,
)

LineRate = Literal[8000, 16000, 24000, 48000]
ClockName = Literal["wall", "virtual"]


class LineSpec(SpecModel):
    """The line between caller and agent."""

    rate: LineRate = Field(default=16000, description="Samples a second; 8000 is a telephone.")


class StageOverlay(SpecModel):
    """What a profile changes of a stage. Naming another provider drops the agent's model and options."""

    unknown_key_hint: ClassVar[str] = StageSpec.unknown_key_hint

    provider: Text | None = Field(default=None, description="Name of the provider, as `voicectl providers` lists it.")
    model: Text | None = Field(default=None, description="The provider's model. Default: its first.")
    options: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="What this provider can be told; see `voicectl providers`."
    )


class GuardedOverlay(StageOverlay):
    """What a profile changes of a stage that may fail. Naming another provider drops all that the agent said."""

    retry: Retry = Field(default=None, description="Ask again: `2`, or {attempts: 2, first_ms: 100}.")
    timeout: Timeout = Field(default=None, description="Longest waits: {first_ms: 1500, gap_ms: 2000}.")
    breaker: Breaker = Field(default=None, description="Leave it alone while it fails: `true`, or {failures: 3}.")
    hedge: Hedge = Field(
        default=None, description="A second request when the first is late: `true`, or {after_ms: 400}."
    )
    fallback: Fallbacks = Field(default=(), description="Who takes over, one after the other.")


class VadOverlay(StageOverlay):
    """What a profile changes of the voice activity detection."""

    threshold: float = Field(
        default=0.5, ge=0.05, le=0.95, description="Speech probability from which a window counts as speech."
    )


class ProfileSpec(SpecModel):
    """The whole of a profile file."""

    version: Literal[1] = Field(default=1, description="Version of this format.")
    description: Text | None = Field(default=None, description="One line for people.")
    clock: ClockName = Field(
        default="wall", description="`wall` measures in real time; `virtual` models, as fast as it computes."
    )
    line: LineSpec = Field(default_factory=LineSpec, description="The line between caller and agent.")
    vad: VadOverlay = Field(default_factory=VadOverlay, description="Changes to voice activity detection.")
    stt: GuardedOverlay = Field(default_factory=GuardedOverlay, description="Changes to speech to text.")
    llm: GuardedOverlay = Field(default_factory=GuardedOverlay, description="Changes to the language model.")
    tts: GuardedOverlay = Field(default_factory=GuardedOverlay, description="Changes to text to speech.")
    s2s: StageOverlay = Field(
        default_factory=StageOverlay,
        description="Changes to speech to speech. Naming it and not the three makes an agent speech-to-speech.",
    )
    turn: TurnSpec = Field(default_factory=TurnSpec, description="Changes to turn taking.")
    thresholds: tuple[ThresholdField, ...] = Field(
        default=(), description="Replaces the agent's thresholds where given."
    )
    budget: BudgetSpec | None = Field(default=None, description="Changes to what the agent may spend.")


class RunSpec(AgentSpec):
    """An agent with its profile laid over it: what a run needs to know."""

    clock: ClockName = Field(default="wall", description="`wall` or `virtual`.")
    line: LineSpec = Field(default_factory=LineSpec, description="The line between caller and agent.")
