"""Does a text look finished? Each line is a claim: what was asked, what was heard, and which side it is on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.pipeline.finished import judge

ORDER = "What would you like to order?"
PHONE = "What is your phone number?"
MAIL = "And your e-mail address?"
ADDRESS = "What address should we deliver it to?"
NAME = "Could you spell your last name for me?"
HERE = "Is that for here?"


def finished(text: str, question: str = "") -> bool:
    return judge(text, question).score > 0.5


def unfinished(text: str, question: str = "") -> bool:
    return judge(text, question).score < 0.5


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Five five five.",
        "555",
        "It's 555-01",
        "My number is five five five, two oh one",
        "Sure, it's five five five, two oh one, four.",
        "Area code two one two.",
        "double five three",
    ],
)
def test_a_phone_number_with_digits_missing_is_not_finished(text: str) -> None:
    assert unfinished(text, PHONE)


@pytest.mark.parametrize(
    "text",
    [
        "555-201-4993",
        "five five five two oh one four nine nine three",
        "It's five five five, two oh one, four nine nine three.",
        "(555) 201 4993.",
        "one eight hundred... five five five, two oh one, four double nine three",
    ],
)
def test_a_phone_number_with_all_its_digits_is_finished(text: str) -> None:
    assert finished(text, PHONE)


def test_a_number_is_seen_to_be_read_though_nobody_asked() -> None:
    assert unfinished("You can call me at five five five two")
    assert unfinished("My card number is four one one one, one one one one", "")
    assert unfinished("nine four one", "And your zip code?")
    assert finished("nine four one one oh", "And your zip code?")


def test_a_few_digits_may_be_a_quantity_a_time_or_a_price() -> None:
    assert not unfinished("I'd like to book a table for two.", "When and for how many?")
    assert not unfinished("At half past ten.", "When would you like to come?")
    assert not unfinished("Ten thirty would be 10:30.", "")
    assert not unfinished("I think it was $4.50.", "")
    assert not unfinished("Two.", "How many would you like?")


# Letters, e-mail, addresses ---------------------------------------------------------------------


@pytest.mark.parametrize("text", ["S", "S M I", "It's J-O-H", "S-M-I-T.", "B as in boy, R as in"])
def test_a_name_being_spelled_is_not_finished(text: str) -> None:
    assert unfinished(text, NAME)


@pytest.mark.parametrize(
    "text", ["john", "It's john dot", "john dot smith at", "john.smith@", "john dot smith at gmail"]
)
def test_an_email_address_in_progress_is_not_finished(text: str) -> None:
    assert unfinished(text, MAIL)


@pytest.mark.parametrize("text", ["john dot smith at gmail dot com", "It's john@example.org.", "No thanks.", "No."])
def test_a_whole_email_address_or_none_is_finished(text: str) -> None:
    assert finished(text, MAIL)


def test_who_has_no_email_address_has_not_begun_to_read_one() -> None:
    assert not unfinished("I don't have one.", MAIL)
    assert not unfinished("Why do you need it?", MAIL)


def test_a_street_address_without_its_street_is_not_finished() -> None:
    assert unfinished("Forty two", ADDRESS)
    assert unfinished("42 Maple", ADDRESS)
    assert not unfinished("42 Maple Street, Springfield.", ADDRESS)


# The end of a sentence --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'd like a latte and",
        "I'd like a latte and.",
        "A latte with",
        "Can I get a",
        "Can I get the.",
        "I'd like",
        "I want to come in on Tuesday, but",
        "I was wondering if",
        "My name is",
        "I'd like a latte, um",
        "Uh.",
        "Let me see.",
        "Give me a double shot,",
        "I was going to ask...",
        "I need an appointment because",
    ],
)
def test_an_open_end_is_not_finished_whatever_the_punctuation(text: str) -> None:
    assert unfinished(text, ORDER)
    assert unfinished(text)


@pytest.mark.parametrize("text", ["Hold on.", "One second.", "Let me check.", "Wait, just a moment."])
def test_who_asks_for_time_has_not_finished(text: str) -> None:
    assert unfinished(text, PHONE)


@pytest.mark.parametrize(
    "text",
    [
        "I'd like a large latte, please.",
        "That's all, thanks.",
        "No, that's everything. Thank you!",
        "Can I get a light roast, single-shot drip coffee?",
        "Get me a coffee with sweetener.",
        "Lovely, thank you. Goodbye.",
        "How late are you open on that day?",
        "Half past ten would be perfect.",
        "I think so.",
        "Yes, I'd like that.",
    ],
)
def test_a_whole_sentence_or_polite_ending_is_finished(text: str) -> None:
    assert finished(text, ORDER)


# Short answers ----------------------------------------------------------------------------------


def test_yeah_and_yes_and_no_after_a_question_are_finished_and_equally_so() -> None:
    answers = ["Yes.", "Yeah.", "Yeah", "Yep.", "No.", "Nope", "Yes please.", "Sure.", "No thanks.", "Correct"]
    assert {judge(text, HERE).score for text in answers} == {judge("Yes.", HERE).score}
    assert judge("Yes.", HERE).score >= 0.9


@pytest.mark.parametrize("text", ["Large.", "To go.", "Oat milk", "Tuesday.", "Three.", "A large one."])
def test_a_few_words_answer_a_question(text: str) -> None:
    assert finished(text, "Which one would you like?")


def test_a_yes_that_goes_on_is_not_finished() -> None:
    assert unfinished("Yes, and", HERE)
    assert unfinished("Yeah, but", HERE)
    assert unfinished("No, I", HERE)


def test_the_same_words_say_less_when_nobody_asked() -> None:
    assert judge("Large.", "Here you are.").score < judge("Large.", "Which size?").score
    assert judge("Yes.", "").score < judge("Yes.", HERE).score


# Anything ---------------------------------------------------------------------------------------


def test_nothing_is_known_of_no_words_or_of_other_languages() -> None:
    assert judge("").score == judge("...").score == 0.5
    assert judge("Ich hätte gern einen Kaffee und", language="de").score == 0.5
    assert judge("I'd like a coffee and", language="en-GB").score < 0.5


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_text_has_a_score_and_a_reason(text: str, question: str) -> None:
    found = judge(text, question)
    assert 0.0 < found.score < 1.0
    assert found.reason
    assert judge(text, question) == found
