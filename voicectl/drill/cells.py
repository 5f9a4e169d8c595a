"""The matrix of a drill: what goes wrong × with which stage × when, and what the stand-in is told for it.

Pure: names and values. When a fault is set off, in terms of the call's events, is here; doing it is
`run`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from voicectl.events import Event, LlmFirstToken, TranscriptUpdated, TtsFirstAudio, TtsRequested, UtterancePlayed
from voicectl.standin.faults import GATE_KINDS, KINDS, Fault, FaultKind, Service

DrillStage = Literal["stt", "llm", "tts"]
Moment = Literal["first-turn", "mid-call", "barge-in"]
"""
- first-turn: as the caller begins to speak for the first time
- mid-call: in the second turn; an STT fails while the caller speaks, an LLM or a TTS in the middle of
  its answer, as far as the fault has a middle
- barge-in: as the caller interrupts the second answer
"""

STAGES: tuple[DrillStage, ...] = get_args(DrillStage)
MOMENTS: tuple[Moment, ...] = get_args(Moment)

_SLOW_S = 6.0  # longer than anybody waits
_DRIP_S = 2.0
_SKEW_S = 90.0
_TIMES: dict[FaultKind, int] = {"429-retry-after": 1}  # who says when to come again keeps the word; the rest stay out
_MIDDLE: dict[DrillStage, int] = {"stt": 1, "llm": 6, "tts": 4}  # pieces that still come

_SERVICES: dict[tuple[str, str], Service] = {
    ("stt", "deepgram"): "deepgram-stt",
    ("stt", "openai"): "openai-stt",
    ("stt", "cartesia"): "cartesia-stt",
    ("llm", "openai"): "openai-llm",
    ("llm", "anthropic"): "anthropic-llm",
    ("tts", "cartesia"): "cartesia-tts",
    ("tts", "deepgram"): "deepgram-tts",
    ("tts", "openai"): "openai-tts",
    ("tts", "elevenlabs"): "elevenlabs-tts",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One rehearsal. Its kind is "none" where nothing goes wrong, to see that all is well but for the fault."""

    kind: FaultKind | Literal["none"]
    stage: DrillStage
    moment: Moment

    def __str__(self) -> str:
        return f"{self.kind} {self.stage} {self.moment}"


HEALTHY = (Cell("none", "llm", "mid-call"), Cell("none", "llm", "barge-in"))
"""Made first: a call in which nothing goes wrong, and one with an interruption."""


def matrix(
    kinds: Sequence[FaultKind] = KINDS,
    stages: Sequence[DrillStage] = STAGES,
    moments: Sequence[Moment] = MOMENTS,
) -> list[Cell]:
    """Every combination, in the order of the table."""
    return [Cell(kind, stage, moment) for kind in kinds for stage in stages for moment in moments]


def service_of(stage: str, provider: str, model: str | None) -> Service | None:
    """What a stand-in calls this; None where there is none, such as for a model on this machine."""
    if (stage, provider) == ("stt", "deepgram") and (model or "").startswith("flux"):
        return "deepgram-flux"
    return _SERVICES.get((stage, provider))


def fault_of(cell: Cell, service: Service) -> Fault | None:
    """What the stand-in of the primary is told when the moment has come."""
    if cell.kind == "none":
        return None
    return Fault(
        service,
        cell.kind,
        times=_TIMES.get(cell.kind),
        seconds={"drip": _DRIP_S, "clock-skew": _SKEW_S}.get(cell.kind, _SLOW_S),
        pieces=0 if cell.moment == "first-turn" else _MIDDLE[cell.stage],
    )


class Fuse:
    """Told the events of a call, says once that the moment of a cell has come.

    Most faults strike the next request; those of a port strike at once, so that in the middle of a
    call they wait until there is something to break off.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._turn = -1
        self._burnt = False

    def burns(self, event: Event) -> bool:
        """Whether this is the moment."""
        if isinstance(event, UtterancePlayed):
            self._turn = event.index
        if self._burnt or not self._is_it(event):
            return False
        self._burnt = True
        return True

    def _is_it(self, event: Event) -> bool:
        cell = self._cell
        if cell.moment == "mid-call" and self._turn == 1 and cell.kind in GATE_KINDS:
            begun = {"stt": TranscriptUpdated, "llm": LlmFirstToken, "tts": TtsFirstAudio}[cell.stage]
            return isinstance(event, begun)
        if cell.moment == "mid-call" and cell.stage == "tts":
            # The clauses after the first: by the time that one is heard, all may have been asked for.
            return isinstance(event, TtsRequested) and event.index == 0 and self._turn == 1
        turn = {"first-turn": 0, "mid-call": 1, "barge-in": 2}[cell.moment]
        return isinstance(event, UtterancePlayed) and event.index == turn
