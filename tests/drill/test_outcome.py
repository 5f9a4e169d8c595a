"""From a call's sound and trace to what came of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from voicectl.drill.cells import Cell
from voicectl.drill.listen import Words
from voicectl.drill.outcome import Outcome, outcome_of
from voicectl.drill.script import QUESTIONS, answer
from voicectl.events import (
    BreakerChanged,
    CallEnded,
    Event,
    FillerPlayed,
    ProviderFailed,
    ProviderSwitched,
    ProviderUsed,
    UtterancePlayed,
)
from voicectl.prices import list_prices
from voicectl.standin.tones import BRISK, CALM, say, words_of

RATE = 16_000
ENDED = CallEnded(at=30.0, reason="caller hung up")


def played(index: int, at: float, *, interrupts: bool = False) -> UtterancePlayed:
    return UtterancePlayed(
        at=at,
        index=index,
        name="",
        voiced_from=at,
        voiced_until=at + 1.5,
        ends=at + 1.5,
        text=QUESTIONS[index],
        during_agent=interrupts,
    )


TURNS = [played(0, 1.0), played(1, 8.0), played(2, 16.0)]


def line(*said: tuple[float, bytes]) -> NDArray[np.int16]:
    sound = np.zeros(30 * RATE, np.int16)
    for at, pcm in said:
        first = round(at * RATE)
        sound[first : first + len(pcm) // 2] = np.frombuffer(pcm, "<i2")
    return sound


def outcome(events: list[Event], agent: NDArray[np.int16], *fillers: str) -> Outcome:
    cell = Cell("cut", "tts", "mid-call")
    return outcome_of(
        cell, events, RATE, agent, fallbacks=True, prices=list_prices(), said_first="Hello!", fillers=fillers, struck=1
    )


GREETING = (0.1, say("Hello!", RATE))
ANSWERS = [say(answer(question), RATE) for question in QUESTIONS]
SAID = 1 + sum(len(words_of(answer(question))) for question in QUESTIONS)


def test_a_call_that_nothing_happened_to() -> None:
    agent = line(GREETING, (3.0, ANSWERS[0]), (10.4, ANSWERS[1]), (18.0, ANSWERS[2]))
    found = outcome([*TURNS, ENDED], agent)
    assert (found.survived, found.words) == (True, Words(SAID))
    assert found.worst_gap_ms == pytest.approx(900, abs=21)


def test_a_turn_without_an_answer_loses_the_call() -> None:
    found = outcome([*TURNS, ENDED], line(GREETING, (3.0, ANSWERS[0]), (18.0, ANSWERS[2])))
    assert found.lost == "turn 2 not answered"
    assert found.words.lost == len(words_of(answer(QUESTIONS[1])))


def test_a_call_that_broke_is_lost_whatever_was_heard() -> None:
    agent = line(GREETING, (3.0, ANSWERS[0]), (10.0, ANSWERS[1]), (18.0, ANSWERS[2]))
    assert outcome([*TURNS, CallEnded(at=30.0, reason="failed")], agent).lost == "the call ended: failed"


def test_a_voice_that_takes_over_within_a_word_breaks_it_and_repeats_none() -> None:
    second = words_of(answer(QUESTIONS[1]))
    cut = say(" ".join(second[:4]), RATE, CALM)
    cut = cut[: len(cut) - 2 * round(0.14 * RATE)]
    rest = say(" ".join(second[4:]), RATE, BRISK)
    agent = line(GREETING, (3.0, ANSWERS[0]), (10.0, cut), (12.0, rest), (18.0, ANSWERS[2]))
    found = outcome([*TURNS, ENDED], agent)
    assert found.words == Words(SAID, broken=1)
    assert found.turns[1].voices == ("calm", "brisk")
    assert found.worst_gap_ms == pytest.approx(1260, abs=21)


def test_a_filler_is_neither_an_answer_nor_a_repetition() -> None:
    filler = (10.0, say("I wrote all of that down", RATE))
    agent = line(GREETING, (3.0, ANSWERS[0]), filler, (12.0, ANSWERS[1]), (18.0, ANSWERS[2]))
    note = FillerPlayed(at=10.0, reply=2, text="I wrote all of that down", seconds=1.32)
    found = outcome([*TURNS, note, ENDED], agent, "I wrote all of that down")
    assert found.words == Words(SAID)
    assert found.worst_gap_ms == pytest.approx(2500, abs=21)


def test_what_the_wrappers_did_and_what_was_paid_for_nothing_is_read_from_the_trace() -> None:
    events: list[Event] = [
        *TURNS,
        ProviderUsed(at=9.0, stage="tts", provider="cartesia", model="sonic-3.5", characters=1000, wasted=True),
        BreakerChanged(at=9.0, stage="tts", provider="cartesia", state="open", why="3 of 3 failed"),
        ProviderSwitched(at=9.1, stage="tts", provider="cartesia", to="deepgram", why="cut"),
        ProviderFailed(at=9.2, stage="tts", provider="tts:cartesia", message="tts:cartesia: it is gone"),
        BreakerChanged(at=20.0, stage="tts", provider="cartesia", state="half-open", why="10 s"),
        ENDED,
    ]
    found = outcome(events, line())
    assert found.breakers == {"tts cartesia": "half-open"}
    assert found.deeds == (
        "tts cartesia breaker open",
        "tts cartesia replaced by deepgram",
        "tts cartesia breaker half-open",
    )
    assert found.failures == ("tts:cartesia: it is gone",)
    assert found.wasted_usd == pytest.approx(0.05)
