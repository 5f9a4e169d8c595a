"""Transcripts that a person would read aloud alike compare alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.analysis.words import singular, slot_words_heard, word_errors, words

plain = st.lists(st.sampled_from("a one two latte with milk please".split()), max_size=8)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A 12-oz latte.", "a twelve ounce latte"),
        ("a twelve ounce Latte", "a twelve ounce latte"),
        ("12oz", "twelve ounce"),
        ("$4.50, please!", "four fifty please"),
        ("50% off", "fifty percent off"),
        ("I'd like it — don't you?", "i'd like it don't you"),
        ("I’d like", "i'd like"),
        ("1,250", "one thousand two hundred fifty"),
        ("21 of 300000", "twenty one of three hundred thousand"),
        ("007", "zero zero seven"),
        ("5551234567", "five five five one two three four five six seven"),
        ("crème brûlée", "crème brûlée"),
        ("", ""),
        ("...", ""),
    ],
)
def test_words_are_read_aloud(text: str, read: str) -> None:
    assert words(text) == read.split()


@pytest.mark.parametrize(
    ("plural", "one"),
    [("shots", "shot"), ("ounces", "ounce"), ("glasses", "glass"), ("cherries", "cherry"), ("boxes", "box")],
)
def test_a_simple_plural_is_its_singular(plural: str, one: str) -> None:
    assert singular(plural) == one
    assert singular(one) == one


def test_slot_words_are_counted_one_by_one() -> None:
    assert slot_words_heard(["12 ounce", "lots of brown sugar"], "Twelve ounces with brown sugars.") == (4, 6)
    assert slot_words_heard([], "anything") == (0, 0)


@pytest.mark.parametrize(
    ("truth", "heard", "errors"),
    [
        ("a large latte", "A large latte.", 0),
        ("a large latte", "a latte", 1),
        ("a large latte", "a very large latte", 1),
        ("a cappuccino", "a cup of chino", 3),
        ("a large latte", "", 3),
    ],
)
def test_word_errors_by_hand(truth: str, heard: str, errors: int) -> None:
    assert word_errors(truth, heard) == (errors, len(words(truth)))


@given(plain, plain)
def test_word_errors_are_a_distance(one: list[str], other: list[str]) -> None:
    there, back = word_errors(" ".join(one), " ".join(other))[0], word_errors(" ".join(other), " ".join(one))[0]
    assert there == back
    assert (there == 0) == (one == other)
    assert abs(len(one) - len(other)) <= there <= max(len(one), len(other))
