"""What is known of a call while it goes on: who speaks, what was said, how long each wait was.

Pure: events and sound in, a `Talk` to show out. The waits are those of the report, computed from the
same events and the same sound by `analysis.definitions`, so what is seen during the call is what the
report says afterwards. Nothing here draws or prints.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from voicectl.analysis.definitions import STAGES, Exchange, measure
from voicectl.analysis.percentiles import Summary, Value, summarise
from voicectl.audio import FRAME_S, rms_dbfs
from voicectl.events import (
    AgentInterrupted,
    AgentPaused,
    AgentResumed,
    BackchannelHeard,
    BreakerChanged,
    ClauseReady,
    DeviceDelay,
    DeviceLost,
    DeviceOpened,
    DeviceTroubled,
    Event,
    FillerPlayed,
    MomentMarked,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ProviderSwitched,
    ReplyCancelled,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TurnDropped,
    TurnEnded,
)

Who = Literal["caller", "agent", "note", "error"]
_LEVEL_S = 0.3  # how long a level is held
_LINES = 500  # kept to show; the recording has them all
SILENT_DBFS = -90.0


@dataclass(slots=True)
class Line:
    """One turn of one side. `cut` is what an interruption kept from being heard; `open`: it grows."""

    who: Who
    text: str
    at: float
    open: bool = False
    cut: str = ""
    wait_ms: float | None = None
    key: tuple[str, int] | None = None


@dataclass(slots=True)
class Talk:
    """All that a view shows. `waits` are the counted voice-to-voice figures in ms, in order."""

    agent: str
    profile: str
    devices: str = ""
    lines: deque[Line] = field(default_factory=lambda: deque[Line](maxlen=_LINES))
    caller_speaks: bool = False
    agent_speaks: bool = False
    thinking: bool = False
    muted: bool = False
    caller_dbfs: float = SILENT_DBFS
    agent_dbfs: float = SILENT_DBFS
    now: float = 0.0
    waits: list[float] = field(default_factory=list[float])
    early: int = 0
    unanswered: int = 0
    last: Exchange | None = None
    device_s: tuple[float, float] | None = None
    providers: Mapping[str, str] = field(default_factory=dict[str, str])
    breakers: dict[str, str] = field(default_factory=dict[str, str])
    troubles: int = 0
    lost: bool = False
    typing: str | None = None
    """What is being typed; None: nothing."""

    def summary(self) -> Summary:
        return summarise([Value(wait) for wait in self.waits])

    def add(self, line: Line) -> Line:
        self.lines.append(line)
        return line

    def find(self, key: tuple[str, int]) -> Line | None:
        return next((line for line in reversed(self.lines) if line.key == key), None)


class Follow:
    """Keeps a `Talk` up to date with the call's events."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self._said: dict[int, list[str]] = {}  # clauses of each reply under way
        self._turns: dict[int, int | None] = {}  # reply -> caller's turn
        self._greeted = False

    def happened(self, event: Event) -> list[Line]:
        """Returns the lines that are now as they will stay."""
        talk = self.talk
        talk.now = max(talk.now, event.at)
        match event:
            case SpeechStarted():
                talk.caller_speaks = True
            case SpeechPaused():
                talk.caller_speaks = False
            case TranscriptUpdated():
                self._caller(event.turn, event.text, event.at)
            case TurnEnded():
                talk.caller_speaks = False
            case BackchannelHeard():
                line = talk.find(("caller", event.turn))
                if line is not None:
                    line.open = False
                    return [line]
            case TurnDropped():
                talk.caller_speaks = False
                line = talk.find(("caller", event.turn))
                if line is not None and not event.text:
                    talk.lines.remove(line)
            case ReplyStarted():
                talk.thinking = True
                self._said[event.reply] = []
                self._turns[event.reply] = event.turn
            case ClauseReady():
                self._said.setdefault(event.reply, []).append(event.text)
                line = talk.find(("agent", event.reply))
                if line is not None:
                    line.text = "".join(self._said[event.reply]).strip()
            case ReplyCancelled():
                talk.thinking = False
                self._said.pop(event.reply, None)
            case PlayoutStarted():
                return self._begins(event)
            case PlayoutFinished():
                return self._ends(event.reply, event.heard, event.at)
            case AgentInterrupted():
                whole = "".join(self._said.get(event.reply, []))
                return self._ends(event.reply, event.heard, event.at, whole)
            case AgentPaused():
                talk.agent_speaks = False
            case AgentResumed():
                talk.agent_speaks = True
            case _:
                return self._aside(event)
        return []

    def measured(self, exchanges: Sequence[Exchange]) -> Line | None:
        """The exchanges so far. Returns the agent's line whose wait has become known."""
        talk = self.talk
        counted = [one for one in exchanges if one.outcome == "answered"]
        talk.early = sum(one.outcome == "early" for one in exchanges)
        talk.unanswered = sum(one.outcome == "no answer" for one in exchanges)
        if not counted or (talk.last is not None and counted[-1].number == talk.last.number):
            return None
        talk.last = counted[-1]
        # As in the report: the first exchange of a run is cold and shown apart.
        talk.waits = [one.wait / 1000 for one in counted if one.number != 1]
        for line in reversed(talk.lines):
            if line.who == "agent":
                line.wait_ms = talk.last.wait / 1000
                return line
        return None

    def _caller(self, turn: int, text: str, at: float) -> None:
        line = self.talk.find(("caller", turn))
        if line is None and text:
            line = self.talk.add(Line("caller", text, at, open=True, key=("caller", turn)))
        if line is not None:
            line.text = text

    def _begins(self, event: PlayoutStarted) -> list[Line]:
        talk = self.talk
        talk.thinking, talk.agent_speaks = False, True
        whole: list[Line] = []
        for line in talk.lines:
            if line.who == "caller" and line.open:
                line.open = False
                whole.append(line)
        text = "".join(self._said.get(event.reply, [])).strip()
        talk.add(Line("agent", text, event.at, open=True, key=("agent", event.reply)))
        return whole

    def _ends(self, reply: int, heard: str, at: float, whole: str = "") -> list[Line]:
        talk = self.talk
        talk.agent_speaks = talk.thinking = False
        self._said.pop(reply, None)
        line = talk.find(("agent", reply))
        if line is None:
            return []
        line.open = False
        rest = whole.strip()
        line.cut = rest[len(heard) :].strip() if rest.startswith(heard) else ""
        line.text = heard
        return [line]

    def _aside(self, event: Event) -> list[Line]:
        talk = self.talk
        match event:
            case DeviceOpened():
                said = f"{event.input} ({event.input_rate} Hz) in, {event.output} ({event.output_rate} Hz) out"
                if talk.lost:
                    talk.lost = False
                    return [talk.add(Line("note", f"the sound is back: {said}", event.at))]
                talk.devices = said
            case DeviceDelay():
                talk.device_s = event.input, event.output
            case DeviceLost():
                talk.lost = True
                text = f"{event.why}. Unplugged? The call goes on, and listens again when it is back"
                return [talk.add(Line("error", text, event.at))]
            case DeviceTroubled():
                talk.troubles += event.what != "drift"
            case ProviderFailed():
                return [talk.add(Line("error", event.message, event.at))]
            case ProviderSwitched():
                text = f"{event.stage}: {event.to} takes over from {event.provider}: {event.why}"
                return [talk.add(Line("note", text, event.at))]
            case BreakerChanged():
                talk.breakers[f"{event.stage} {event.provider}"] = event.state
                text = f"{event.stage}: {event.provider} is {event.state}: {event.why}"
                return [talk.add(Line("note", text, event.at))]
            case FillerPlayed():
                return [talk.add(Line("note", f"filler: {event.text}", event.at))]
            case MomentMarked():
                return [talk.add(Line("note", f"marked at {event.at:.1f} s {event.text}".strip(), event.at))]
            case _:
                pass
        return []


class Tap:
    """Hears both sides of the line (`pipeline.protocols.LineRecorder`), for levels and for measuring."""

    def __init__(self, rate: int, talk: Talk) -> None:
        self._rate = rate
        self._talk = talk
        self._left = bytearray()
        self._right: list[tuple[int, bytes]] = []
        self._agent_at = -1.0

    def caller(self, pcm: bytes) -> None:
        self._left += pcm
        talk = self._talk
        talk.now = len(self._left) / 2 / self._rate
        talk.caller_dbfs = max(SILENT_DBFS, rms_dbfs(pcm))
        if talk.now > self._agent_at + _LEVEL_S:
            talk.agent_dbfs = SILENT_DBFS

    def agent(self, pcm: bytes, at: float) -> None:
        self._right.append((round(at * self._rate), pcm))
        self._talk.agent_dbfs = max(SILENT_DBFS, rms_dbfs(pcm))
        self._agent_at = at + FRAME_S

    def close(self) -> None:
        """Nothing is held open."""

    def snapshot(self) -> tuple[bytes, list[tuple[int, bytes]]]:
        """Both sides so far, to be measured elsewhere."""
        return bytes(self._left), list(self._right)


def exchanges(events: Sequence[Event], rate: int, sound: tuple[bytes, list[tuple[int, bytes]]]) -> tuple[Exchange, ...]:
    """The exchanges of a call under way, as the report would have them if it broke off now."""
    left = np.frombuffer(sound[0], dtype="<i2")
    right = np.zeros(len(left), dtype=np.int16)
    for first, pcm in sound[1]:
        skip = max(0, -first)
        part = np.frombuffer(pcm, dtype="<i2")[skip : max(0, len(right) - first)]
        right[first + skip : first + skip + len(part)] = part
    return measure(events, rate, left, right, broken_off=True).exchanges


def stage_parts(exchange: Exchange) -> list[tuple[str, float]]:
    """(stage, ms) of the waterfall, those that cost anything."""
    return [(stage, part / 1000) for stage, part in zip(STAGES, exchange.waterfall or (), strict=False) if part >= 500]
