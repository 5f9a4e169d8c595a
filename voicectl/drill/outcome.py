"""What came of one cell of a drill: a recording in, an outcome out. Pure.

The sound says what the caller heard (`listen`), the trace what the wrappers did about it and what was
paid for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.cost import priced, tally
from voicectl.drill.cells import Cell
from voicectl.drill.listen import Answered, Asked, Words, turns_heard
from voicectl.drill.script import answer, vocabulary
from voicectl.events import (
    BreakerChanged,
    CallEnded,
    Event,
    FillerPlayed,
    FrameLate,
    HedgeStarted,
    ProviderFailed,
    ProviderRetried,
    ProviderSwitched,
    ProviderTimedOut,
    UtterancePlayed,
)
from voicectl.prices import PriceTable
from voicectl.standin.tones import Heard, listen

DISTURBED_MS = 150.0
"""A frame that much late is heard as a hole, and may end a turn early."""

_SLACK_S = 0.1
_NO_WORDS = Words()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One cell, rehearsed.

    Args:
        fallbacks: with the agent's wrappers, or without.
        struck: how often the fault struck; 0: it found nobody to strike.
        lost: why the call is lost; "" for one that survived.
        worst_gap_ms: the longest that the caller heard nothing.
        breakers: the last state of each that changed, by `stage provider`.
        deeds: what the wrappers did, in order, one short line each.
        failures: what providers could not do, one line each.
        wasted_usd: what was paid for nothing; "at least" where `unpriced` names models.
        unpriced: those that the table of prices does not know.
        late_ms: how late this machine was at worst: what is longer than usual by less says nothing.
        folder: where the call is kept.
    """

    cell: Cell
    fallbacks: bool
    struck: int = 0
    lost: str = ""
    turns: tuple[Answered, ...] = ()
    words: Words = _NO_WORDS
    worst_gap_ms: float = 0.0
    breakers: dict[str, str] = field(default_factory=dict[str, str])
    deeds: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    wasted_usd: float = 0.0
    unpriced: tuple[str, ...] = ()
    late_ms: float = 0.0
    folder: str = ""

    @property
    def disturbed(self) -> bool:
        """Whether the machine was so busy that it, and not the agent, may be what was heard."""
        return self.late_ms > DISTURBED_MS

    @property
    def survived(self) -> bool:
        return not self.lost


def outcome_of(
    cell: Cell,
    events: Sequence[Event],
    rate: int,
    agent: NDArray[np.int16],
    *,
    fallbacks: bool,
    prices: PriceTable,
    said_first: str = "",
    fillers: Iterable[str] = (),
    struck: int = 0,
    folder: str = "",
) -> Outcome:
    """What came of it.

    Args:
        events: the trace.
        rate: samples a second of the agent's channel.
        agent: what the caller heard.
        prices: what vendors charge.
        said_first: notice and greeting.
        fillers: the agent's other texts.
    """
    until = len(agent) / rate
    asked = questions_asked(events)
    heard = listen(agent.tobytes(), rate, vocabulary(said_first, *fillers))
    turns, words = turns_heard(asked, _without_fillers(heard, events), greeting=said_first, until=until)
    cost = priced(tally(events), prices)
    return Outcome(
        cell=cell,
        fallbacks=fallbacks,
        struck=struck,
        lost=_lost(events, turns),
        turns=turns,
        words=words,
        worst_gap_ms=1000 * max((turn.worst_s for turn in turns), default=until),
        breakers={f"{one.stage} {one.provider}": one.state for one in events if isinstance(one, BreakerChanged)},
        deeds=tuple(deed for event in events if (deed := _deed(event))),
        failures=tuple(one.message for one in events if isinstance(one, ProviderFailed)),
        wasted_usd=float(cost.wasted),
        unpriced=cost.not_priced,
        late_ms=1000 * max((event.late for event in events if isinstance(event, FrameLate)), default=0.0),
        folder=folder,
    )


def questions_asked(events: Sequence[Event]) -> list[Asked]:
    """The caller's turns, and what each is to be answered."""
    played = [event for event in events if isinstance(event, UtterancePlayed)]
    following = [*played[1:], None][: len(played)]
    return [
        Asked(
            answer(one.text or ""),
            one.voiced_from,
            one.voiced_until,
            after.voiced_from if after and after.during_agent else None,
        )
        for one, after in zip(played, following, strict=True)
    ]


def _without_fillers(heard: Sequence[Heard], events: Sequence[Event]) -> list[Heard]:
    fillers = [(one.at - _SLACK_S, one.at + one.seconds) for one in events if isinstance(one, FillerPlayed)]
    return [one for one in heard if not any(start <= one.at < end for start, end in fillers)]


def _lost(events: Sequence[Event], turns: Sequence[Answered]) -> str:
    ended = next((event.reason for event in events if isinstance(event, CallEnded)), "never")
    if ended != "caller hung up":
        return f"the call ended: {ended}"
    unanswered = [str(number) for number, turn in enumerate(turns, 1) if not turn.answered]
    if unanswered:
        return f"turn{'s' * (len(unanswered) > 1)} {' and '.join(unanswered)} not answered"
    return ""


def _deed(event: Event) -> str:
    match event:
        case ProviderRetried(stage=stage, provider=provider, attempt=attempt):
            return f"{stage} {provider} retried after attempt {attempt}"
        case ProviderTimedOut(stage=stage, provider=provider, what=what, after=after):
            return f"{stage} {provider} timed out: no {what} within {1000 * after:.0f} ms"
        case BreakerChanged(stage=stage, provider=provider, state=state):
            return f"{stage} {provider} breaker {state}"
        case ProviderSwitched(stage=stage, provider=provider, to=to):
            return f"{stage} {provider} replaced by {to}"
        case HedgeStarted(stage=stage, provider=provider, second=second):
            return f"{stage} {provider} hedged with {second}"
        case _:
            return ""
