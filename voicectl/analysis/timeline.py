"""The trace of one call sorted by turn, by reply and by utterance. Finds nothing out by itself.

Times here and in `definitions` are whole microseconds of the call, the resolution of a trace:
differences of whole numbers add up exactly, those of floats do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from voicectl.events import (
    AgentInterrupted,
    CallEnded,
    CallStarted,
    ClauseReady,
    Event,
    FillerPlayed,
    LlmFinished,
    LlmFirstToken,
    LlmRequested,
    PlayoutFinished,
    PlayoutStarted,
    ReplyCancelled,
    ReplyStarted,
    S2sFinished,
    S2sFirstAudio,
    S2sRequested,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TtsFirstAudio,
    TtsRequested,
    TurnDropped,
    TurnEnded,
    UtterancePlayed,
)

E = TypeVar("E", bound=Event)
TurnEvent = SpeechStarted | SpeechPaused | TranscriptUpdated | TurnEnded | TurnDropped
ReplyEvent = (
    LlmRequested
    | LlmFirstToken
    | LlmFinished
    | ClauseReady
    | TtsRequested
    | TtsFirstAudio
    | S2sRequested
    | S2sFirstAudio
    | S2sFinished
    | FillerPlayed
    | PlayoutStarted
    | PlayoutFinished
    | AgentInterrupted
)


def us(seconds: float) -> int:
    """Seconds of the call in whole microseconds."""
    return round(seconds * 1_000_000)


def known_us(event: Event) -> int:
    """When the pipeline knew: what somebody waits for is the knowledge, not the fact."""
    return us(event.at if event.noted_at is None else event.noted_at)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the pipeline took for one turn of the caller.

    Args:
        start: first voiced sample, as the VAD dates it.
        end: last voiced sample, as the VAD dates it.
        ended: when the endpointer decided that it is over (None: never).
        text: the last that the STT made of it.
        expects_answer: it was neither dropped nor continued by the next turn before the agent could answer.
    """

    number: int
    start: int
    end: int
    ended: int | None = None
    text: str = ""
    expects_answer: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn of the agent: when each thing was first known, None for what never was.

    The clause is the first one that gave any audio.

    Args:
        turn: the caller's turn it answers (None: the greeting).
        stt_final: the transcript it answers.
        playout: where its first sample is on the line.
        over: where its last frame ends on the line (None: the call ended first).
        interrupted_by: the caller's turn that stopped it.
        said: what the caller heard of it; while it is unheard, the whole answer.
        filler_until: where the filler before it ends on the line: no part of the answer.
    """

    number: int
    turn: int | None
    stt_final: int | None = None
    llm_requested: int | None = None
    llm_first_token: int | None = None
    clause_ready: int | None = None
    tts_requested: int | None = None
    tts_first_audio: int | None = None
    s2s_requested: int | None = None
    s2s_first_audio: int | None = None
    playout: int | None = None
    over: int | None = None
    interrupted_by: int | None = None
    said: str = ""
    filler_until: int | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """One call. `end` is the end of the call, or of what is left of it; `reason` None when it broke off."""

    agent: str
    caller: str
    clock: str
    start: int
    end: int
    reason: str | None
    utterances: tuple[UtterancePlayed, ...]
    turns: Mapping[int, Turn]
    replies: tuple[Reply, ...]
    """Those that were heard, in the order they were."""


def read_timeline(events: Sequence[Event], sound_end: int) -> Timeline:
    """Sort a trace. Works on a trace that breaks off anywhere, also before its first event.

    Args:
        sound_end: where the sound of the call ends.
    """
    started = _first(events, CallStarted)
    ended = _first(events, CallEnded)
    replies = _replies(events)
    silent = _taken_back(events) | {event.turn for event in events if isinstance(event, TurnDropped)}
    turns = {number: _turn(number, own, number not in silent) for number, own in _by_turn(events).items()}
    return Timeline(
        agent=started.agent if started else "",
        caller=started.caller if started else "",
        clock=started.clock if started else "",
        start=us(started.at) if started else 0,
        end=us(ended.at) if ended else sound_end,
        reason=ended.reason if ended else None,
        utterances=tuple(event for event in events if isinstance(event, UtterancePlayed)),
        turns=turns,
        replies=tuple(sorted((one for one in replies if one.playout is not None), key=lambda one: one.playout or 0)),
    )


def _by_turn(events: Sequence[Event]) -> dict[int, list[TurnEvent]]:
    turns: dict[int, list[TurnEvent]] = {}
    for event in events:
        if isinstance(event, TurnEvent):
            turns.setdefault(event.turn, []).append(event)
    return turns


def _taken_back(events: Sequence[Event]) -> set[int | None]:
    """Turns that had only answers nobody heard."""
    heard = {event.reply for event in events if isinstance(event, PlayoutStarted)}
    cancelled = {event.reply for event in events if isinstance(event, ReplyCancelled)} - heard
    turns = {event.reply: event.turn for event in events if isinstance(event, ReplyStarted)}
    answered = {turn for reply, turn in turns.items() if reply not in cancelled}
    return {turns.get(reply) for reply in cancelled} - answered


def _turn(number: int, events: Sequence[TurnEvent], expects_answer: bool) -> Turn:
    ended = _first(events, TurnEnded)
    voiced = [us(event.at) for event in events if isinstance(event, SpeechStarted | SpeechPaused)]
    voiced += [us(ended.speech_end)] if ended else []
    transcripts = [event for event in events if isinstance(event, TranscriptUpdated)]
    best = [event for event in transcripts if event.final] or transcripts
    dropped = _first(events, TurnDropped)
    if dropped and dropped.reason == "caller went on":
        best = []  # the next turn's transcript begins with these words
    return Turn(
        number,
        start=min(voiced, default=us(events[0].at)),
        end=max(voiced, default=us(events[0].at)),
        ended=known_us(ended) if ended else None,
        text=best[-1].text if best else "",
        expects_answer=expects_answer,
    )


def _replies(events: Sequence[Event]) -> list[Reply]:
    """In one pass: calls may be long."""
    begun: list[tuple[ReplyStarted, TranscriptUpdated | None]] = []
    finals: dict[int | None, TranscriptUpdated] = {}
    own: dict[int, list[ReplyEvent]] = {}
    for event in events:
        if isinstance(event, ReplyStarted):
            begun.append((event, finals.get(event.turn)))
        elif isinstance(event, TranscriptUpdated):
            if event.final:
                finals[event.turn] = event
        elif isinstance(event, ReplyEvent):
            own.setdefault(event.reply, []).append(event)
    return [_reply(event, answered, own.get(event.reply, [])) for event, answered in begun]


def _reply(begun: ReplyStarted, answered: TranscriptUpdated | None, own: Sequence[ReplyEvent]) -> Reply:
    audio = _first(own, TtsFirstAudio)
    clause = [event for event in own if isinstance(event, ClauseReady | TtsRequested)]
    clause = [event for event in clause if event.index == (audio.index if audio else 0)]
    over = _first(own, PlayoutFinished) or _first(own, AgentInterrupted)
    answer = _first(own, LlmFinished) or _first(own, S2sFinished)
    playout = _first(own, PlayoutStarted)
    filler = _first(own, FillerPlayed)
    return Reply(
        number=begun.reply,
        turn=begun.turn,
        stt_final=known_us(answered) if answered else None,
        llm_requested=_known(own, LlmRequested),
        llm_first_token=_known(own, LlmFirstToken),
        clause_ready=_known(clause, ClauseReady),
        tts_requested=_known(clause, TtsRequested),
        tts_first_audio=known_us(audio) if audio else None,
        s2s_requested=_known(own, S2sRequested),
        s2s_first_audio=_known(own, S2sFirstAudio),
        playout=us(playout.at) if playout else None,
        over=us(over.at) if over else None,
        interrupted_by=over.turn if isinstance(over, AgentInterrupted) else None,
        said=over.heard if over else answer.text if answer else "",
        filler_until=us(filler.at + filler.seconds) if filler else None,
    )


def _first(events: Sequence[Event], kind: type[E]) -> E | None:
    return next((event for event in events if isinstance(event, kind)), None)


def _known(events: Sequence[Event], kind: type[Event]) -> int | None:
    event = _first(events, kind)
    return known_us(event) if event else None
