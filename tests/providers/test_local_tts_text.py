"""What the local voice is given to say."""

from __future__ import annotations

import pytest

from voicectl.providers.local_tts import sentences, speakable


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("That is $4.50, please.", "That is 4 dollars and 50 cents, please."),
        ("$1 or $0.99 or $1,200, ok", "1 dollar or 99 cents or 1,200 dollars, ok"),
        ("£3.20, €5 and $2.5 million", "3 pounds and 20 pence, 5 euros and 2.5 million dollars"),
        ("See you at 3:30 pm!", "See you at 3 30 pm!"),
        ("At 3:00 p.m. Then at 12:05 or 9:00.", "At 3 PM. Then at 12 oh 5 or 9 o'clock."),
        ("8-10 am, Mon-Fri", "8 to 10 am, Monday to Friday"),
        ("Dr. Smith and Mrs. Lee, 12 oz. of it", "Doctor Smith and Missis Lee, 12 ounces of it"),
        ("12 Oak St. near St. John. On Main St. We", "12 Oak Street near Saint John. On Main Street. We"),
        ("1 lb, 5kg, 6ft, 72°F, 10%", "1 pound, 5 kilograms, 6 feet, 72 degrees Fahrenheit, 10 percent"),
        ("Call (555) 123-4567 or 911.", "Call 5 5 5, 1 2 3, 4 5 6 7 or 9 1 1."),
        ("Order 482913, No. 5, #7", "Order 4 8 2 9 1 3, number 5, number 7"),
        ("Tea & cake, e.g. scones, etc. Bye", "Tea and cake, for example scones, et cetera. Bye"),
        ("Mail joe@shop.com or see https://www.shop.com", "Mail joe at shop dot com or see shop dot com"),
        ("The U.S. office", "The US office"),
    ],
)
def test_it_is_said_as_people_say_it(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("**Bold**, _it_ and `code`", "Bold, it and code"),
        ("[our menu](https://example.com/x)", "our menu"),
        ("- one\n- two", "one. two"),
        ("# Title\n\n1. first", "Title. 1, first"),
        ("Sure! 😀👍🏽", "Sure!"),
        ("😀", ""),
        ("It’s “fine”", 'It\'s "fine"'),
        ("```python\nprint(1)\n```", ""),
    ],
)
def test_markup_is_not_read_aloud(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


def test_sentences_keep_the_marks_that_the_voice_needs() -> None:
    assert sentences("Yes, we do. Do you? (Maybe.)") == [["Yes", ", ", "we do", "."], ["Do you", "?"], ["Maybe", "."]]
    assert sentences("Hello — world") == [["Hello", ", ", "world", ","]]
    assert sentences("at 3.50 each") == [["at 3.50 each", ","]]


@pytest.mark.parametrize("silent", ["", " ", "...", "?!", "—"])
def test_no_word_is_no_sentence(silent: str) -> None:
    assert sentences(speakable(silent)) == []
