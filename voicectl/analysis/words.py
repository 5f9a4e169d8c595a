"""Words: did the STT hear what was said? Slot recall and word error rate.

Two transcripts that a person would read aloud alike should compare alike: case and punctuation do
not count, `12oz` is "twelve ounce", `$4.50` is "four fifty". For slots a plural counts as its
singular ("sugars" is sugar). Nothing else is forgiven: "cappuccino" heard as "cup of chino" is an
error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SIGNS = {"%": "percent", "&": "and", "+": "plus", "@": "at"}
_SHORT = {"oz": "ounce", "ok": "okay"}
_WORD = re.compile(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)*|[%&+@]")
_LONGEST_NUMBER = 6  # digits; longer ones (phone numbers) are read digit by digit


def words(text: str) -> list[str]:
    """The words of a text as one would read them aloud: "A 12-oz latte." is a twelve ounce latte."""
    spoken: list[str] = []
    for token in _WORD.findall(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.lower())):
        if token.isdecimal():
            spoken += _read_number(token)
        else:
            plain = token.replace("’", "'")
            spoken.append(_SIGNS.get(plain) or _SHORT.get(plain) or plain)
    return spoken


def _read_number(digits: str) -> list[str]:
    if len(digits) > _LONGEST_NUMBER or (digits[0] == "0" and len(digits) > 1):
        return [_SMALL[int(digit)] for digit in digits]
    return _cardinal(int(digits))


def _cardinal(number: int) -> list[str]:
    if number < 20:
        return [_SMALL[number]]
    if number < 100:
        return [_TENS[number // 10 - 2], *(_cardinal(number % 10) if number % 10 else [])]
    unit, name = (100, "hundred") if number < 1_000 else (1_000, "thousand")
    rest = number % unit
    return [*_cardinal(number // unit), name, *(_cardinal(rest) if rest else [])]


def singular(word: str) -> str:
    """A simple plural's singular; any other word as it is."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")):
        return word[:-1]
    return word


def slot_words_heard(slots: Iterable[str], transcript: str) -> tuple[int, int]:
    """How many words of the slots' phrases are in the transcript, and how many there are."""
    heard = {singular(word) for word in words(transcript)}
    wanted = [singular(word) for phrase in slots for word in words(phrase)]
    return sum(word in heard for word in wanted), len(wanted)


def word_errors(truth: str, transcript: str) -> tuple[int, int]:
    """Fewest words to change, add or drop to make the truth of the transcript, and the truth's length."""
    said, heard = words(truth), words(transcript)
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1], len(said)
