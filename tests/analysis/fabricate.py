"""Calls made by hand: events and two channels, with answers one can compute on paper.

Sound is a buzz of +-8000 (every other sample), whose first and last samples are exactly where it
begins and ends. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.definitions import Measures, measure
from voicectl.audio import WavWriter
from voicectl.events import (
    AgentInterrupted,
    CallEnded,
    CallStarted,
    ClauseReady,
    Event,
    LlmFinished,
    LlmFirstToken,
    LlmRequested,
    PlayoutFinished,
    PlayoutStarted,
    ReplyCancelled,
    ReplyCommitted,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TtsFirstAudio,
    TtsRequested,
    TurnDropped,
    TurnEnded,
    UtterancePlayed,
)
from voicectl.recording import Recording
from voicectl.trace import Trace

RATE = 16_000
VAD_ERROR = 0.03  # how much later than the truth the fabricated VAD dates the end of speech


@dataclass
class Fabricated:
    """A call under construction. Methods add to the sound and to the trace."""

    name: str = "0001-ada"
    agent: str = "coffee"
    clock: str = "wall"
    events: list[Event] = field(default_factory=list[Event])
    left: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    right: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    replies: int = 0
    turns: int = 0
    utterances: int = 0

    def __post_init__(self) -> None:
        self.note(CallStarted(at=0.0, agent=self.agent, caller="ada", clock=self.clock, rate=RATE))

    def note(self, *events: Event) -> None:
        self.events.extend(events)

    def say(self, begin: float, end: float, *, played: bool = True, **more: Any) -> None:
        """The caller is voiced from `begin` to `end`; the file has 100 ms of silence around it."""
        self.left.append((begin, end))
        if played:
            name = more.pop("name", f"{self.utterances + 1}.wav")
            self.note(
                UtterancePlayed(
                    at=begin - 0.1,
                    index=self.utterances,
                    name=name,
                    voiced_from=begin,
                    voiced_until=end,
                    ends=end + 0.1,
                    **more,
                )
            )
            self.utterances += 1

    def turn(self, begin: float, end: float, *, ended: float | None, final: float | None, text: str = "a latte") -> int:
        """The pipeline takes begin..end for a turn, over `ended` and transcribed `final` after its end."""
        self.turns += 1
        turn, heard_end = self.turns, end + VAD_ERROR
        self.note(
            SpeechStarted(at=begin, noted_at=begin + 0.06, turn=turn),
            SpeechPaused(at=heard_end, noted_at=heard_end + 0.1, turn=turn),
        )
        if final is not None:
            self.note(TranscriptUpdated(at=end + final, turn=turn, text=text, final=True))
        if ended is not None:
            self.note(TurnEnded(at=end + ended, turn=turn, speech_end=heard_end, reason="silence"))
        return turn

    def reply(
        self,
        turn: int | None,
        at: float,
        *,
        until: float,
        begun: float | None = None,
        token: float = 0.0,
        clause: float = 0.0,
        audio: float = 0.0,
        lead: float = 0.05,
        stopped_by: int | None = None,
        text: str = "Here you go.",
        finished: bool = True,
    ) -> int:
        """The agent is on the line from `at` and audible from `at + lead` to `until`.

        `token`, `clause` and `audio` are seconds after `begun`, when it began to think.
        """
        number, begun = self.replies, at - 0.2 if begun is None else begun
        self.replies += 1
        self.note(
            ReplyStarted(at=begun, reply=number, turn=turn, prompt="", held=turn is not None),
            LlmRequested(at=begun, reply=number),
            LlmFirstToken(at=begun + token, reply=number),
            ClauseReady(at=begun + clause, reply=number, index=0, text=text),
            TtsRequested(at=begun + clause, reply=number, index=0),
            TtsFirstAudio(at=begun + audio, reply=number, index=0),
            LlmFinished(at=begun + audio, reply=number, text=text),
            ReplyCommitted(at=at, reply=number, turn=turn),
            PlayoutStarted(at=at, reply=number),
        )
        if at + lead < until:
            self.right.append((at + lead, until))
        if stopped_by is not None:
            self.note(
                AgentInterrupted(at=until, noted_at=until, reply=number, turn=stopped_by, speech_at=at, heard=text)
            )
        elif finished:
            self.note(PlayoutFinished(at=until, noted_at=until, reply=number, heard=text))
        return number

    def cancelled(self, turn: int, at: float) -> None:
        """A reply that nobody heard."""
        number = self.replies
        self.replies += 1
        self.note(
            ReplyStarted(at=at, reply=number, turn=turn, prompt="", held=False),
            ReplyCancelled(at=at + 0.1, reply=number, reason="caller went on"),
        )

    def dropped(self, turn: int, at: float, reason: str = "no words") -> None:
        self.note(TurnDropped(at=at, turn=turn, reason=reason))

    def exchange(self, begin: float, wait: float, *, length: float = 1.0, speak: float = 1.0, **more: Any) -> float:
        """One ordinary exchange, heard `wait` after the caller's last sample. Returns the agent's end.

        Of the wait the endpointer takes 40%, STT 5%, LLM 15% and 10%, TTS 15%, lead silence 10%, playout 5%.
        """
        end = begin + length
        self.say(begin, end, **more)
        turn = self.turn(begin, end, ended=0.4 * wait, final=0.45 * wait, text=more.get("text") or "a latte")
        self.reply(
            turn,
            end + 0.9 * wait,
            until=end + wait + speak,
            begun=end + 0.45 * wait,
            token=0.15 * wait,
            clause=0.25 * wait,
            audio=0.40 * wait,
            lead=0.1 * wait,
        )
        return end + wait + speak

    def end(self, at: float, reason: str | None = "caller hung up") -> Fabricated:
        """The call ends (None: the recording just breaks off)."""
        self.length = at
        if reason is not None:
            self.note(CallEnded(at=at, reason=reason))
        return self

    def channels(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        return self._channel(self.left), self._channel(self.right)

    def measure(self, *, broken_off: bool = False) -> Measures:
        return measure(self.ordered(), RATE, *self.channels(), broken_off=broken_off)

    def ordered(self) -> tuple[Event, ...]:
        """The events as a pipeline would have noted them."""
        return tuple(sorted(self.events, key=lambda event: event.at if event.noted_at is None else event.noted_at))

    def recording(self) -> Recording:
        left, right = self.channels()
        cut = None if isinstance(self.events[-1], CallEnded) else "the call did not end: cut after line 9"
        return Recording(
            path=Path(self.name), header={}, events=self.ordered(), cut=cut, rate=RATE, left=left, right=right
        )

    def write(self, folder: Path) -> Path:
        """Keep the call as a recording below `folder`."""
        path = folder / self.name
        path.mkdir(parents=True)
        trace = Trace(path / "trace.jsonl")
        for event in self.ordered():
            trace.append(event)
        trace.close()
        with WavWriter(path / "call.wav", RATE, 2) as wav:
            wav.write(np.stack(self.channels(), axis=1).astype("<i2").tobytes())
        return path

    def _channel(self, stretches: list[tuple[float, float]]) -> NDArray[np.int16]:
        channel = np.zeros(round(self.length * RATE), np.int16)
        for begin, end in stretches:
            first, last = round(begin * RATE), round(end * RATE)
            channel[first : last + 1] = 8000 * (-1) ** np.arange(last + 1 - first)[: len(channel[first : last + 1])]
        return channel
