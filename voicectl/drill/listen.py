"""What the caller heard of a bad day: read from the sound of a call. Pure.

What lives here: which words of which answer reached the caller and when, gaps, and whether the call
survived. What must not: what went wrong (the trace tells, `outcome`).

**Words.** The agent's channel is decoded (`standin.tones`) and laid over what the agent was to say,
greeting and answers in a row, with as few differences as possible. A word of an answer nobody heard
is *lost*; one heard more than once, or out of its place, *repeated*; one of which only a piece was
heard *broken* (a listener misses it as well, but it was not skipped). What an interrupted answer had
still to say is nobody's loss.

**A gap** is from the last voiced sample of the caller's turn to the first sound of its own answer,
fillers passed over. **A silence** is the longest stretch inside one answer in which nothing is heard,
the caller's own speech left out. What is judged, the *worst gap* of a call, is the longest of both.

**Survived**: the call ended because the caller hung up, and every turn was answered: at least half of
the answer's words were heard, or, where the caller interrupted it, one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from voicectl.standin.tones import Heard, words_of

_GAP, _PIECE, _LATE = 1.0, 0.25, 0.05
"""What it costs in an alignment to leave a word out, to take a piece for the word, and to hear a word
when the next turn is over already."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn of the caller: what it is answered, and when it was said (seconds of the call).

    `interrupted_at`: when the caller's next turn began, where that interrupted this one's answer.
    """

    answer: str
    begun: float
    over: float
    interrupted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """How many words were to be said, and what became of them."""

    said: int = 0
    lost: int = 0
    repeated: int = 0
    broken: int = 0

    def __add__(self, other: Words) -> Words:
        return Words(
            self.said + other.said,
            self.lost + other.lost,
            self.repeated + other.repeated,
            self.broken + other.broken,
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one turn. `gap_s` None: no answer at all; it is at least `waited_s`.

    `voices`: who spoke it, in order; more than one where a fallback took over.
    """

    words: Words
    answered: bool
    gap_s: float | None
    waited_s: float
    silence_s: float = 0.0
    voices: tuple[str, ...] = ()

    @property
    def worst_s(self) -> float:
        return max(self.waited_s if self.gap_s is None else self.gap_s, self.silence_s)


def turns_heard(
    asked: Sequence[Asked], heard: Sequence[Heard], *, greeting: str = "", until: float
) -> tuple[tuple[Answered, ...], Words]:
    """What came of each turn, and the words of the whole call.

    Args:
        asked: the caller's turns in order.
        heard: the agent's words as the caller heard them, without fillers.
        greeting: what the agent says before.
        until: the end of the call.
    """
    wanted = [(word, -1) for word in words_of(greeting)]
    wanted += [(word, turn) for turn, one in enumerate(asked) for word in words_of(one.answer)]
    places = _align(wanted, heard, asked)
    answered = tuple(_turn(turn, asked, wanted, heard, places, until) for turn in range(len(asked)))
    greeted = _count(-1, wanted, heard, places, interrupted=False)
    extra = [piece for piece, place in zip(heard, places, strict=True) if place is None]
    total = Words(repeated=sum(piece.whole for piece in extra), broken=sum(not piece.whole for piece in extra))
    for one in (greeted, *(turn.words for turn in answered)):
        total += one
    return answered, total


def _turn(
    turn: int,
    asked: Sequence[Asked],
    wanted: Sequence[tuple[str, int]],
    heard: Sequence[Heard],
    places: Sequence[int | None],
    until: float,
) -> Answered:
    one = asked[turn]
    interrupted = one.interrupted_at is not None
    words = _count(turn, wanted, heard, places, interrupted=interrupted)
    own = [piece for piece, place in zip(heard, places, strict=True) if place is not None and wanted[place][1] == turn]
    closes = asked[turn + 1].begun if turn + 1 < len(asked) else until
    if not own:
        return Answered(words, False, None, max(0.0, closes - one.over))
    enough = 1 if interrupted else (len(words_of(one.answer)) + 1) // 2
    silences = [_unspoken(before.until, after.at, asked) for before, after in itertools.pairwise(own)]
    last = max(place for place, (_, owner) in enumerate(wanted) if owner == turn)
    if not interrupted and last not in places:  # it broke off, and the caller waited for the rest
        silences.append(_unspoken(own[-1].until, closes, asked))
    return Answered(
        words=words,
        answered=sum(piece.whole for piece in own) >= enough,
        gap_s=own[0].at - one.over,
        waited_s=own[0].at - one.over,
        silence_s=max(silences, default=0.0),
        voices=tuple(dict.fromkeys(piece.voice for piece in own)),
    )


def _count(
    turn: int,
    wanted: Sequence[tuple[str, int]],
    heard: Sequence[Heard],
    places: Sequence[int | None],
    *,
    interrupted: bool,
) -> Words:
    mine = [place for place, (_, owner) in enumerate(wanted) if owner == turn]
    got = {place: piece for piece, place in zip(heard, places, strict=True) if place is not None}
    if interrupted:  # what was still to be said then, and the word it broke off in
        last = max((place for place in mine if place in got), default=None)
        mine = [place for place in mine if last is not None and place <= last]
        if last is not None and not got[last].whole:
            mine.remove(last)
    lost = sum(place not in got for place in mine)
    broken = sum(place in got and not got[place].whole for place in mine)
    return Words(said=len(mine), lost=lost, broken=broken)


def _unspoken(start: float, end: float, asked: Sequence[Asked]) -> float:
    """How long nothing is heard between two words, the caller's speech left out."""
    spoken = sum(max(0.0, min(end, one.over) - max(start, one.begun)) for one in asked)
    return max(0.0, end - start - spoken)


def _align(wanted: Sequence[tuple[str, int]], heard: Sequence[Heard], asked: Sequence[Asked]) -> list[int | None]:
    """The place in `wanted` of each piece heard (None: it has none), in order, at the least cost."""
    rows, columns = len(heard), len(wanted)
    cost = [[column * _GAP for column in range(columns + 1)] for _ in range(rows + 1)]
    for row in range(1, rows + 1):
        cost[row][0] = row * _GAP
        for column in range(1, columns + 1):
            best = min(cost[row - 1][column], cost[row][column - 1]) + _GAP
            match = _match(heard[row - 1], wanted[column - 1], asked)
            cost[row][column] = best if match is None else min(best, cost[row - 1][column - 1] + match)
    places: list[int | None] = [None] * rows
    row, column = rows, columns
    while row and column:
        match = _match(heard[row - 1], wanted[column - 1], asked)
        if match is not None and cost[row][column] == cost[row - 1][column - 1] + match:
            row, column = row - 1, column - 1
            places[row] = column
        elif cost[row][column] == cost[row - 1][column] + _GAP:
            row -= 1
        else:
            column -= 1
    return places


def _match(piece: Heard, wanted: tuple[str, int], asked: Sequence[Asked]) -> float | None:
    word, turn = wanted
    if piece.word != word or (turn >= 0 and piece.at < asked[turn].begun):
        return None
    late = sum(piece.at >= one.over for one in asked[turn + 1 :])
    return (0.0 if piece.whole else _PIECE) + late * _LATE
