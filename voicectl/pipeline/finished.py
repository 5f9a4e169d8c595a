"""Does a transcript look finished? Pure: words in, a score and its reason out.

English only; of other languages nothing is known (0.5). The transcript is that of the turn so far,
as an STT writes it at a pause: it likes to end whatever it heard with a full stop, so that a full
stop says little, while a comma or dots say more. `question` is what the agent said last: it tells
what to expect. Rules are tried from the surest on; the first that fits decides.

A score is a rough probability, in a few steps only, so that nobody mistakes it for a measurement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finish:
    """How finished a text looks: 0 surely not, 0.5 no idea, 1 surely."""

    score: float
    reason: str


_NO_IDEA = 0.5
_SURE, _LIKELY, _RATHER = 0.95, 0.85, 0.7
_RATHER_NOT, _HARDLY, _SURELY_NOT = 0.3, 0.15, 0.05


def judge(text: str, question: str = "", language: str = "en") -> Finish:
    """Whether who says `text`, asked `question`, has finished."""
    if language.split("-")[0] != "en":
        return Finish(_NO_IDEA, "no rules for this language")
    said = _Said(text, question)
    if not said.words:
        return Finish(_NO_IDEA, "no words")
    for rule in _RULES:
        if found := rule(said):
            return found
    return Finish(_NO_IDEA, "nothing tells")


class _Said:
    """A text, taken apart once for all rules."""

    def __init__(self, text: str, question: str) -> None:
        self.text = text.strip().lower().replace("’", "'")
        self.words: list[str] = _WORD.findall(self.text)
        self.last = self.words[-1] if self.words else ""
        self.tail = " ".join(self.words[-4:])
        self.question = question.strip().lower()
        self.asked = self.question.endswith("?")

    def ends(self, phrases: frozenset[str]) -> str | None:
        """The phrase that the text ends with, whole words only."""
        for count in (4, 3, 2, 1):
            if (phrase := " ".join(self.words[-count:])) in phrases and len(self.words) >= count:
                return phrase
        return None


_WORD = re.compile(r"[a-z0-9@][a-z0-9@'.:/$%_-]*[a-z0-9]|[a-z0-9]")


def _phrases(text: str) -> frozenset[str]:
    return frozenset(phrase.strip() for phrase in text.split(",") if phrase.strip())


# The caller is thinking --------------------------------------------------------------------------

_HESITATIONS = _phrases("um, umm, uh, uhh, uhm, er, erm, hm, hmm, ah, well, let's see, let me see, let me think")
_ASIDES = _phrases(
    "hold on, hang on, one second, one sec, just a second, just a sec, one moment, just a moment, wait, let me check, "
    "let me look, let me find it, let me get it, give me a second, give me a moment"
)


def _hesitates(said: _Said) -> Finish | None:
    if phrase := said.ends(_HESITATIONS):
        return Finish(_SURELY_NOT, f"hesitates: '{phrase}'")
    if phrase := said.ends(_ASIDES):
        return Finish(_HARDLY, f"asks for time: '{phrase}'")
    return None


# Numbers, letters, addresses ---------------------------------------------------------------------

_DIGITS = _phrases("zero, oh, one, two, three, four, five, six, seven, eight, nine")
_PAIRS = _phrases(
    "ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen, "
    "twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety"
)
_TENS = _phrases("twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety")
_TIMES = {"double": 2, "triple": 3}
_LENGTHS: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"\b(card)\b", (15, 16)),
    (r"\b(zip|post ?code|postal)\b", (5,)),
    (r"\b(phone|mobile|cell|telephone|call (you|me)( back)?|reach (you|me))\b", (10, 11)),
    (r"\bnumber\b", (7, 10, 11)),
)
"""What a number is for, and how many digits it then has."""
_IS_A_NUMBER = 3  # fewer digits in a row are a quantity: "two lattes"


def _reads_a_number(said: _Said) -> Finish | None:
    digits = _trailing_digits(said.words)
    if not digits:
        return None
    for pattern, lengths in _LENGTHS:
        if re.search(pattern, said.question) or re.search(pattern, said.text):
            if digits in lengths:
                return Finish(_SURE if digits == max(lengths) else _LIKELY, f"a whole number of {digits} digits")
            if digits < max(lengths):
                return Finish(_SURELY_NOT, f"{digits} digits of {' or '.join(map(str, lengths))}")
            return Finish(_RATHER, f"{digits} digits")
    if digits < _IS_A_NUMBER:
        return None
    if digits in (10, 11):
        return Finish(_SURE, f"a whole number of {digits} digits")
    if digits in (5, 7, 15, 16):
        return Finish(_NO_IDEA, f"{digits} digits, perhaps all")
    return Finish(_HARDLY, f"a number of only {digits} digits")


def _trailing_digits(words: list[str]) -> int:
    """How many digits in a row the text ends with, spoken or written; of a time or price, none."""
    count = 0
    for place in range(len(words) - 1, -1, -1):
        word = words[place]
        times = _TIMES.get(words[place - 1], 1) if place else 1
        if word in _DIGITS:
            # "twenty one" is two digits, not three
            count += 0 if place and words[place - 1] in _TENS and word not in ("zero", "oh") else times
        elif word in _PAIRS:
            count += 2
        elif re.fullmatch(r"[0-9][0-9-]*(\.[0-9-]+)*", word) and not re.fullmatch(r"[0-9]+\.[0-9]{2}", word):
            count += times * sum(char.isdigit() for char in word)
        elif word not in _TIMES:
            break
    return count


_SPELLING = re.compile(r"\b(spell|spelled|spelling|letters?)\b")
_SPELLED = re.compile(r"[a-z](-[a-z])+|[a-z]")


def _spells(said: _Said) -> Finish | None:
    if re.search(r"(^| )([a-z] as in|[b-hj-z] (like|for))( [\w'-]+)?$", " ".join(said.words)):
        return Finish(_HARDLY, "explains a letter")
    count = 0
    for word in reversed(said.words):
        if not _SPELLED.fullmatch(word):
            break
        count += len(word.replace("-", ""))
    if count >= 2 or (count and _SPELLING.search(said.question)):
        return Finish(_HARDLY, f"spells: {count} letter{'s' * (count > 1)}")
    return None


_MAIL = re.compile(r"\be-?mail")
_ASIDE = re.compile(r"(no|i don't|i do not|i'd rather|sorry|why|what|can|do|is)\b")  # no answer to "your e-mail?"
_WHOLE_MAIL = re.compile(r"(@| at )\S*.*(\.| dot )(com|org|net|edu|gov|io|co|uk|de|info|me)\W*$")


def _reads_mail(said: _Said) -> Finish | None:
    if _WHOLE_MAIL.search(said.text):
        return Finish(_SURE, "a whole e-mail address")
    asked = _MAIL.search(said.question)
    begun = "@" in said.text or said.last == "dot" or (said.last == "at" and _MAIL.search(said.text))
    if begun or (asked and not (_ASIDE.match(said.text) or said.ends(_CLOSINGS) or _is_short_answer(said))):
        return Finish(_HARDLY, "an e-mail address in progress")
    return None


_PLACE = re.compile(r"\b(address|where do you live|street|deliver(ed)? (it )?to|where should we)\b")
_STREETS = _phrases(
    "street, st, avenue, ave, road, rd, lane, ln, drive, dr, court, ct, boulevard, blvd, way, place, square, circle, "
    "terrace, highway, parkway"
)


def _reads_an_address(said: _Said) -> Finish | None:
    if not _PLACE.search(said.question) or _MAIL.search(said.question):
        return None
    if not any(char.isdigit() for char in said.text) and not set(said.words) & (_DIGITS | _PAIRS):
        return None
    if not set(said.words) & _STREETS:
        return Finish(_HARDLY, "an address without its street")
    if said.last in _STREETS or _trailing_digits(said.words) in (1, 2, 3, 4):
        return Finish(_NO_IDEA, "an address, perhaps without its town")
    return Finish(_RATHER, "an address")


# The sentence's end ------------------------------------------------------------------------------

_OPEN = _phrases(
    "and, or, but, so, because, if, when, while, which, who, whose, than, then, plus, also, as well as, like, "
    "of, for, to, from, at, with, without, into, between, until, near, instead of, extra, just, only, very, really, "
    "a, an, the, my, your, our, their, every"
)
"""Words that nothing ends with."""
_LOOSE = _phrases(
    "in, on, by, about, after, before, around, over, under, this, these, some, any, another, her, his, "
    "two, three, four, five, six, ten"
)
"""Words that a sentence seldom ends with."""
_STARTS = _phrases(
    "i'd like, i would like, i want, i need, i'll have, i'll take, can i get, can i have, could i get, could i have, "
    "may i have, can you, could you, do you, are you, is there, i think, i was, i am, i'm, it's, it is, is, are, was, "
    "i have, i'd, i'll, i, we, my name is, my number is, the number is, and i'd like, you know, i mean, i guess, "
    "i was wondering, does, can, could, would, let me, i'd like to, going to, want to, need to, give me, get me"
)
_WHOLE = _phrases(
    "think so, hope so, guess so, like that, come in, log in, sign in, drop in, later on, i think, i guess, i was, "
    "i am, it is, it was, we are, they are, really, not really, yes really, and so"
)
"""Ends like something open, and is none: "half past three, I think." """
_QUESTION = re.compile(r"^(and |so |okay |ok |but )?(what|where|who|when|which|why|how|do|does|is|are|can|could)\b")


def _is_open(said: _Said) -> Finish | None:
    if said.text.endswith(("...", "…", "-", "–", "—")):
        return Finish(_HARDLY, "trails off")
    if len(said.words) > 2 and said.ends(_WHOLE):
        return None
    if phrase := said.ends(_STARTS):
        return Finish(_SURELY_NOT, f"only begins: '{phrase}'")
    if phrase := said.ends(_OPEN):
        if _QUESTION.match(said.text) and said.text.endswith("?"):
            return Finish(_NO_IDEA, f"a question that ends with '{phrase}'")
        return Finish(_SURELY_NOT, f"ends with '{phrase}'")
    if said.text.endswith(","):
        return Finish(_RATHER_NOT, "ends with a comma")
    if said.last in _LOOSE and not said.asked:
        return Finish(_RATHER_NOT, f"ends with '{said.last}'")
    return None


_ANSWERS = _phrases(
    "yes, yeah, yep, yup, yes please, yeah please, no, nope, nah, no thanks, no thank you, sure, okay, ok, alright, "
    "all right, right, correct, exactly, absolutely, definitely, of course, fine, good, great, perfect, mhm, mm-hmm, "
    "uh-huh, sounds good, that's right, that's fine, that works, please do, not really, i do, i don't, it is, i am"
)
_CLOSINGS = _phrases(
    "please, thanks, thank you, thank you very much, thanks a lot, that's all, that is all, that's it, that is it, "
    "that's everything, that'll be all, that will be all, that will be it, nothing else, goodbye, bye, bye bye, "
    "have a good day, have a nice day, i'm done, that would be all, that would be it"
)
_OPENINGS = _phrases(
    "hi, hello, hey, hi there, hello there, good morning, good afternoon, good evening, excuse me, okay so"
)
_SHORT_ANSWER = 3  # words; more may be the beginning of something


def _closes(said: _Said) -> Finish | None:
    if phrase := said.ends(_CLOSINGS):
        return Finish(_SURE, f"closes: '{phrase}'")
    return None


def _is_short_answer(said: _Said) -> bool:
    return " ".join(said.words) in _ANSWERS


def _answers(said: _Said) -> Finish | None:
    if _is_short_answer(said):
        return Finish(_SURE if said.asked else _RATHER, "a whole answer" if said.asked else "a word of agreement")
    if " ".join(said.words) in _OPENINGS:
        return Finish(_NO_IDEA, "a greeting")
    return None


def _answers_briefly(said: _Said) -> Finish | None:
    if said.asked and len(said.words) <= _SHORT_ANSWER:
        return Finish(_LIKELY, "answers the question")
    return None


def _is_a_sentence(said: _Said) -> Finish | None:
    if said.text.endswith("?"):
        return Finish(_LIKELY, "a question")
    if said.text.endswith(("!", ".")) and len(said.words) > _SHORT_ANSWER:
        return Finish(_RATHER, "a sentence")
    return None


_RULES = (
    _hesitates,
    _reads_mail,
    _reads_a_number,
    _spells,
    _reads_an_address,
    _closes,
    _answers,
    _is_open,
    _answers_briefly,
    _is_a_sentence,
)
