"""The first difference between what happened and what happens now. Pure: events in, one difference out.

Three comparisons:

`first_difference`  of two traces that must be equal to the byte: a replay against the accepted one,
                    or against a call that ran on the virtual clock itself.
`first_departure`   of a replay from a call that ran on the wall clock. What the machine's jitter can
                    change is no difference: stamps, and whether a speculative reply, which nobody
                    heard, was begun in time. What a rule decides is: when the caller is taken to
                    speak, pause and finish, what was heard of them, and what they heard.
`first_other`       of two calls that were made apart, each on its own wall clock: the same, but for
                    all times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest

from voicectl.events import (
    AgentInterrupted,
    Event,
    FrameLate,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TurnDropped,
    TurnEnded,
)
from voicectl.replay.tell import quoted
from voicectl.trace import event_line

JITTER_S = 0.06
"""How far a stamp of the wall clock may be from the modelled one."""

_JUST_S = 0.1
SHOWN_BEFORE = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two traces part.

    Args:
        before: what they have in common, last.
        was: what happened then (None: nothing more).
        now: what happens now (None: nothing more).
        what: the fields that differ, in words.
        line: of `was` in its file, from 1; where it is None, of the end.
    """

    before: tuple[Event, ...]
    was: Event | None
    now: Event | None
    what: str
    line: int


def first_difference(was: Sequence[Event], now: Sequence[Event], until: float | None = None) -> Difference | None:
    """The first event that is not the same to the microsecond.

    Args:
        until: leave out what was noted from here on.
    """
    was, now = _before(was, until), _before(now, until)
    for index, (old, new) in enumerate(zip_longest(was, now)):
        if old is None or new is None or not _equal(old, new):
            old, new = _counterparts(was[index:], now[index:])
            line = (was.index(old) if old else index) + 2
            return Difference(tuple(was[max(0, index - SHOWN_BEFORE) : index]), old, new, _what(old, new), line)
    return None


def _equal(old: Event, new: Event) -> bool:
    return old == new or event_line(old) == event_line(new)


def _counterparts(was: Sequence[Event], now: Sequence[Event]) -> tuple[Event | None, Event | None]:
    """What differs first, and what has become of it: one of the two may be found later than the other."""
    old, new = next(iter(was), None), next(iter(now), None)
    for first, others in ((old, now), (new, was)):
        found = next((other for other in others if first and _same_thing(first, other)), None)
        if first and found and not _equal(first, found):
            return (first, found) if first is old else (found, first)
    return old, new


def _same_thing(one: Event, other: Event) -> bool:
    names = ("turn", "reply", "index", "final")
    same = all(getattr(one, name, None) == getattr(other, name, None) for name in names)
    return type(one) is type(other) and same


def _before(events: Sequence[Event], until: float | None) -> Sequence[Event]:
    if until is None:
        return events
    end = next((index for index, event in enumerate(events) if known_at(event) >= until - 1e-9), len(events))
    return events[:end]


def known_at(event: Event) -> float:
    """When the pipeline knew."""
    return event.at if event.noted_at is None else event.noted_at


# Against the wall clock ------------------------------------------------------------------------

_ReplyEvent = ReplyStarted | AgentInterrupted | PlayoutFinished


def first_departure(was: Sequence[Event], now: Sequence[Event], until: float | None = None) -> Difference | None:
    """The first thing that was decided otherwise, in the order of the call."""
    return _first_in_lanes(_before(was, until), _before(now, until), until=until, slack_s=JITTER_S, exact_s=1e-6)


def first_other(was: Sequence[Event], now: Sequence[Event]) -> Difference | None:
    """The first thing that went otherwise, whenever it did."""
    return _first_in_lanes(was, now, until=None, slack_s=math.inf, exact_s=math.inf)


def _first_in_lanes(
    was: Sequence[Event], now: Sequence[Event], *, until: float | None, slack_s: float, exact_s: float
) -> Difference | None:
    agree = _Agree(was, slack_s, exact_s)
    departures = (_departure(list(lane(was)), list(lane(now)), agree, until) for lane in _LANES)
    found = [departure for departure in departures if departure]
    first = min(found, key=lambda pair: min(known_at(event) for event in pair if event), default=None)
    if first is None:
        return None
    old, new = first
    at = was.index(old) if old else sum(known_at(event) < known_at(new) for event in was) if new else len(was)
    before = [event for lane in _LANES for event in lane(was[:at])]
    before.sort(key=was.index)
    return Difference(tuple(before[-SHOWN_BEFORE:]), old, new, _what(old, new), at + 2)


def _departure(
    was: Sequence[Event], now: Sequence[Event], agree: _Agree, until: float | None
) -> tuple[Event | None, Event | None] | None:
    for old, new in zip_longest(was, now):
        if old is None or new is None:
            extra = old or new
            if extra and until is not None and known_at(extra) > until - 2 * JITTER_S:
                return None  # what jitter put on one side of the cut or the other
            return old, new
        if not agree(old, new):
            return old, new
    return None


def _caller(events: Sequence[Event]) -> Iterator[Event]:
    return (event for event in events if isinstance(event, SpeechStarted | SpeechPaused | TurnEnded))


def _text(events: Sequence[Event]) -> Iterator[Event]:
    """Of each turn the last text: an earlier one may have been overtaken. And what became of it."""
    finals = [event for event in events if isinstance(event, TranscriptUpdated) and event.final]
    last = {event.turn: event for event in finals}
    return (event for event in events if isinstance(event, TurnDropped) or last.get(getattr(event, "turn", 0)) is event)


def _agent(events: Sequence[Event]) -> Iterator[Event]:
    """Of the replies that were heard, what they answer and how they ended."""
    heard = {event.reply for event in events if isinstance(event, PlayoutStarted)}
    return (event for event in events if isinstance(event, _ReplyEvent) and event.reply in heard)


def _failures(events: Sequence[Event]) -> Iterator[Event]:
    return (event for event in events if isinstance(event, ProviderFailed))


_LANES = (_caller, _text, _agent, _failures)
"""What follows in a fixed order: within a lane jitter changes no order, between two it may."""


class _Agree:
    """Whether two events of a lane are the same fact.

    Args:
        was: the whole trace they are held against, which knows how late its machine was.
        slack_s: how far a stamp of the wall clock may be off.
        exact_s: how far a time that the sound decides may be off.
    """

    def __init__(self, was: Sequence[Event], slack_s: float, exact_s: float) -> None:
        self._late = [event for event in was if isinstance(event, FrameLate)]
        self._slack_s = slack_s
        self._exact_s = exact_s

    def __call__(self, old: Event, new: Event) -> bool:
        match old, new:
            case TurnEnded(), TurnEnded():
                same = (old.turn, old.reason) == (new.turn, new.reason)
                near = abs(old.at - new.at) <= self._slack_s + self._lateness(old.at)
                return same and near and self._same(old.speech_end, new.speech_end)
            case (SpeechStarted(), SpeechStarted()) | (SpeechPaused(), SpeechPaused()):
                return old.turn == new.turn and self._same(old.at, new.at)
            case TranscriptUpdated(), TranscriptUpdated():
                return (old.turn, old.text) == (new.turn, new.text)
            case TurnDropped(), TurnDropped():
                return (old.turn, old.reason) == (new.turn, new.reason)
            case ReplyStarted(), ReplyStarted():
                return (old.turn, old.prompt) == (new.turn, new.prompt)
            case PlayoutFinished(), PlayoutFinished():
                return old.heard == new.heard
            case AgentInterrupted(), AgentInterrupted():
                # It stopped at the same word, or a frame later at the next.
                less, more = sorted([old.heard.split(), new.heard.split()], key=len)
                near = len(more) - len(less) <= 1 and more[: len(less)] == less
                return near and old.turn == new.turn and self._same(old.speech_at, new.speech_at)
            case ProviderFailed(), ProviderFailed():
                return (old.stage, old.message) == (new.stage, new.message)
            case _:
                return False

    def _same(self, one: float, other: float) -> bool:
        return abs(one - other) <= self._exact_s

    def _lateness(self, at: float) -> float:
        """How late the machine was just then, by its own account."""
        return max((event.late for event in self._late if abs(event.at + event.late - at) < _JUST_S), default=0.0)


# One turn --------------------------------------------------------------------------------------


def of_turn(events: Sequence[Event], turn: int) -> list[Event]:
    """What belongs to one turn of the caller, with the replies to it."""
    replies = {event.reply for event in events if isinstance(event, ReplyStarted) and event.turn == turn}
    return [one for one in events if getattr(one, "turn", None) == turn or getattr(one, "reply", None) in replies]


# In words --------------------------------------------------------------------------------------


def _what(old: Event | None, new: Event | None) -> str:
    if old is None:
        return "nothing more had happened"
    if new is None:
        return "nothing more happens"
    if type(old) is not type(new):
        return "another event"
    differing = [
        (field.name, before, after)
        for field in fields(old)
        if (before := getattr(old, field.name)) != (after := getattr(new, field.name))
    ]
    return "; ".join(f"{_NAMES.get(name, name)} was {_value(old)} and is {_value(new)}" for name, old, new in differing)


_NAMES = {"noted_at": "noticed at", "speech_end": "end of speech"}


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return quoted(value) if isinstance(value, str) else str(value)
