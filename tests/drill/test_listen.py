"""What the caller heard, from the words and their times alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.drill.listen import Answered, Asked, Words, turns_heard
from voicectl.drill.script import QUESTIONS, answer, answer_to, caller, vocabulary
from voicectl.resilience.fallback import GO_ON
from voicectl.standin.tones import CALLER, Heard, heard, words_of
from voicectl.transports.caller import DuringAgent

STEP = 0.2


def spoken(text: str, at: float, voice: str = "calm") -> list[Heard]:
    """Said word by word from `at` on; a word that ends in … is half of it, a number a pause in seconds."""
    found: list[Heard] = []
    for word in text.split():
        if word.replace(".", "").isdigit():
            at += float(word)
            continue
        share = 0.5 if word.endswith("…") else 1.0
        found.append(Heard(word.rstrip("…"), voice, at, at + 0.16 * share, share))
        at += STEP
    return found


def hears(asked: Sequence[Asked], *said: Sequence[Heard], greeting: str = "") -> tuple[list[Answered], Words]:
    words = [word for part in said for word in part]
    until = (max(word.until for word in words) if words else asked[-1].over) + 1
    turns, total = turns_heard(asked, words, greeting=greeting, until=until)
    return list(turns), total


TWO = (Asked("one two three four", 1.0, 2.0), Asked("five six seven eight", 6.0, 7.0))


def test_a_good_call_loses_nothing() -> None:
    answers = (*spoken("one two three four", 2.5), *spoken("five six seven eight", 7.8))
    turns, words = hears(TWO, spoken("hello", 0.1), answers, greeting="Hello!")
    assert words == Words(said=9)
    assert [one.answered for one in turns] == [True, True]
    assert [one.gap_s for one in turns] == pytest.approx([0.5, 0.8])
    assert turns[0].silence_s == pytest.approx(0.04)


def test_a_word_left_out_is_lost() -> None:
    turns, words = hears(TWO, spoken("one two four", 2.5), spoken("five six seven eight", 7.5))
    assert words == Words(said=8, lost=1)
    assert turns[0].answered
    assert turns[0].words.lost == 1


def test_an_answer_that_breaks_off_for_good_is_followed_by_silence() -> None:
    turns, words = hears(TWO, spoken("one two three", 2.5), spoken("five six seven eight", 7.5))
    assert words == Words(said=8, lost=1)
    assert turns[0].worst_s == pytest.approx(6.0 - 3.06)


def test_a_word_said_again_is_repeated() -> None:
    _, words = hears(TWO, spoken("one two two three four", 2.5), spoken("five six seven eight", 7.5))
    assert words == Words(said=8, repeated=1)


def test_a_sentence_begun_again_repeats_all_that_was_said() -> None:
    _, words = hears(TWO, spoken("one two three one two three four", 2.5), spoken("five six seven eight", 7.5))
    assert words == Words(said=8, repeated=3)


def test_half_a_word_is_broken_and_not_lost() -> None:
    _, words = hears(TWO, spoken("one two three… four", 2.5), spoken("five six seven eight", 7.5))
    assert words == Words(said=8, broken=1)


def test_half_a_word_and_then_the_word_repeats_none() -> None:
    _, words = hears(TWO, spoken("one two three… three four", 2.5), spoken("five six seven eight", 7.5))
    assert words == Words(said=8, broken=1)


def test_less_than_half_an_answer_is_none() -> None:
    turns, _ = hears(TWO, spoken("one", 2.5), spoken("five six", 7.5))
    assert [one.answered for one in turns] == [False, True]


def test_no_answer_is_as_long_as_the_caller_waited() -> None:
    turns, words = hears(TWO, spoken("five six seven eight", 7.5))
    assert (turns[0].answered, turns[0].gap_s, turns[0].worst_s) == (False, None, 4.0)
    assert words.lost == 4


def test_answers_that_begin_alike_are_told_apart_by_when_they_come() -> None:
    asked = (Asked("you said one", 1.0, 2.0), Asked("you said two", 6.0, 7.0))
    turns, words = hears(asked, spoken("you said two", 7.5))
    assert [one.answered for one in turns] == [False, True]
    assert turns[1].gap_s == pytest.approx(0.5)
    assert words == Words(said=6, lost=3)


def test_an_answer_cannot_come_before_its_question() -> None:
    turns, words = hears(TWO, spoken("five six seven eight", 2.5))
    assert not any(one.answered for one in turns)
    assert words == Words(said=8, lost=8, repeated=4)


def test_an_interrupted_answer_owes_nothing_more() -> None:
    asked = (Asked("one two three four", 1.0, 2.0, interrupted_at=2.9), Asked("five six", 2.9, 4.0))
    turns, words = hears(asked, spoken("one two thr…".replace("thr", "three"), 2.4), spoken("five six", 4.6))
    assert [one.answered for one in turns] == [True, True]
    assert words == Words(said=4)
    assert turns[1].gap_s == pytest.approx(0.6)


def test_an_answer_that_runs_on_over_the_next_turn_is_not_its_answer() -> None:
    asked = (Asked("one two three four", 1.0, 2.0, interrupted_at=2.9), Asked("one five", 2.9, 3.2))
    turns, words = hears(asked, spoken("one two three four", 2.6), spoken("one five", 4.2))
    assert words == Words(said=6)
    assert turns[1].gap_s == pytest.approx(1.0)


def test_a_hole_in_an_answer_is_its_silence_without_what_the_caller_says() -> None:
    turns, _ = hears(TWO, spoken("one two 1.5 three four", 2.5), spoken("five six seven eight", 8.9))
    assert turns[0].silence_s == pytest.approx(1.54)
    asked = (Asked("one two three four", 1.0, 2.0), Asked("five six", 3.0, 4.5))
    turns, _ = hears(asked, spoken("one two 1.8 three four", 2.5), spoken("five six", 6.0))
    assert turns[0].silence_s == pytest.approx(1.84 - 1.5, abs=0.021)


def test_who_spoke_is_told() -> None:
    turns, _ = hears(TWO, spoken("one two", 2.5), spoken("three four", 3.1, "brisk"), spoken("five six", 7.5))
    assert [one.voices for one in turns] == [("calm", "brisk"), ("calm",)]


@given(st.lists(st.sampled_from(["keep", "drop", "twice"]), min_size=12, max_size=12))
def test_every_loss_and_every_repetition_is_counted(fates: list[str]) -> None:
    words = [f"w{number}" for number in range(12)]
    said = " ".join(
        " ".join([word] * {"keep": 1, "drop": 0, "twice": 2}[fate]) for word, fate in zip(words, fates, strict=True)
    )
    _, total = turns_heard([Asked(" ".join(words), 0.0, 1.0)], spoken(said, 2.0), until=20.0)
    assert total == Words(said=12, lost=fates.count("drop"), repeated=fates.count("twice"))


# The script ------------------------------------------------------------------------------------


def test_every_word_of_the_script_can_be_heard() -> None:
    who = caller("x", interrupts=True)
    known = vocabulary("Hello, how can I help you?")
    for utterance, text in zip(who.utterances, QUESTIONS, strict=True):
        assert heard(utterance.pcm.data, utterance.pcm.rate, known) == words_of(text)
        assert utterance.voiced_until_s == pytest.approx(utterance.pcm.seconds - 0.04, abs=0.001)
    assert isinstance(who.utterances[2].start, DuringAgent)
    assert not isinstance(caller("x", interrupts=False).utterances[2].start, DuringAgent)
    assert CALLER.name == "caller"


def test_the_answer_says_the_question_back() -> None:
    assert words_of("i would like a table") == words_of(answer("I would like a table."))[2:7]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Nothing."},
        {"role": "assistant", "content": answer("Nothing.")},
        {"role": "user", "content": [{"type": "text", "text": "A table, please"}]},
    ]
    assert answer_to(messages) == answer("a table please")
    assert answer_to([]) == answer("")


def test_an_answer_that_broke_off_is_gone_on_with_where_it_did() -> None:
    asked = {"role": "user", "content": QUESTIONS[0]}
    said = " ".join(answer(QUESTIONS[0]).split()[:5])
    going_on = [{"role": "system", "content": f"Be brief.\n\n{GO_ON}"}, asked, {"role": "assistant", "content": said}]
    rest = answer_to(going_on)
    assert f"{said} {rest}" == answer(QUESTIONS[0])
    assert answer_to([*going_on, {"role": "user", "content": "(The caller says nothing.)"}]) == rest
