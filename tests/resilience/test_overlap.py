"""A second answer goes on after the first, and no word is said twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.resilience.overlap import Overlap, WholeWords


def whole(said: str, answer: str, size: int = 3) -> str:
    """What has been said in the end, when `answer` comes in pieces of `size`."""
    words, overlap = WholeWords(), Overlap(said)
    text = said
    for at in range(0, len(answer), size):
        text += overlap.push(words.push(answer[at : at + size]))
    return text + overlap.push(words.finish()) + overlap.finish()


@pytest.mark.parametrize(
    ("said", "answer", "want"),
    [
        ("Sure, one large ", "latte. Anything else?", "Sure, one large latte. Anything else?"),
        ("Sure, one large ", "Sure, one large latte. Anything else?", "Sure, one large latte. Anything else?"),
        ("Sure, one large ", "SURE one large latte.", "Sure, one large latte."),
        ("Sure, one large ", "large latte.", "Sure, one large latte."),
        ("Sure, one large latte", ". Anything else?", "Sure, one large latte. Anything else?"),
        ("Sure, one large latte", "large latte. Anything else?", "Sure, one large latte. Anything else?"),
        ("Sure, one large latte. That", "Sure, one large latte. Anything?", "Sure, one large latte. That Anything?"),
        ("No, no, no ", "no worries", "No, no, no worries"),
        ("Sure. ", "Sure.", "Sure. "),
        ("It costs ", "4.50 dollars", "It costs 4.50 dollars"),
        ("You have - ", "- a cat", "You have - - a cat"),
        ("", "Hello there.", "Hello there."),
        ("", " Hello there.", " Hello there."),
        ("Sure,", "one latte.", "Sure, one latte."),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_it_goes_on_where_the_first_stopped(said: str, answer: str, want: str, size: int) -> None:
    assert whole(said, answer, size) == want


WORDS = st.lists(st.sampled_from("one two three four five six".split()), max_size=12)


@given(WORDS, st.integers(0, 12), st.integers(0, 12), st.integers(1, 9))
def test_whatever_is_repeated_of_the_end_is_said_once(words: list[str], cut: int, back: int, size: int) -> None:
    """Each word has its place in the text, so a repetition cannot be taken for anything else."""
    text = [f"{word}{place}" for place, word in enumerate(words)]
    cut = min(cut, len(text))
    said = "".join(f"{word} " for word in text[:cut])
    answer = " ".join(text[max(0, cut - back) :])
    assert whole(said, answer, size).split() == text


@given(st.text(alphabet="ab ,.!", max_size=40), st.integers(1, 9))
def test_without_anything_said_the_text_stays_as_it_is(answer: str, size: int) -> None:
    assert whole("", answer, size).lstrip() == answer.lstrip()


@given(WORDS, WORDS, st.integers(1, 9))
def test_how_it_was_cut_on_its_way_changes_nothing(said: list[str], answer: list[str], size: int) -> None:
    first, second = "".join(f"{word} " for word in said), " ".join(answer)
    assert whole(first, second, size) == whole(first, second, 1000)


@given(st.text(alphabet="ab ,.!", max_size=40), st.integers(1, 9))
def test_whole_words_are_the_text(text: str, size: int) -> None:
    words = WholeWords()
    pieces = [words.push(text[at : at + size]) for at in range(0, len(text), size)]
    assert "".join(pieces) + words.finish() == text
    assert all(not piece or piece[-1] in " ,!" for piece in pieces)
