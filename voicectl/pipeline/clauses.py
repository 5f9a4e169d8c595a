"""Cutting a stream of text into what the TTS speaks. Pure: text in, clauses out.

The first clause is cut as early as it can be spoken well (any punctuation that ends a phrase, or
a few words), because the caller is waiting for it. So is the next while only a word or two were
handed out, or there would be a hole after them. Later ones are whole sentences, because prosody is
better. A comma after a plain word ends the first clause whatever follows, and nobody waits for
that. Full stops inside numbers, prices, abbreviations, initials, e-mail and web addresses are no
ends. Joined together, the clauses are the text, character for character (but for white space after
its last word), and they do not depend on how the text was cut on its way here.
"""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st ave blvd rd apt dept vs etc approx min max tel ext fig inc ltd co corp "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun e.g i.e a.m p.m u.s u.k".split()
)
_MAY_END = frozenset(
    {"a.m", "p.m", "etc", "inc", "ltd", "co", "corp", "u.s", "u.k", "st", "ave", "rd", "blvd", "jr", "sr"}
)
_LEANS_ON = frozenset(
    "a an the of to with and or in on at for from by your our my is are was be we i you it that this would "
    "can could will do does have has not no dr mr mrs ms about than as if any some per".split()
)
_STARTS_PHRASE = frozenset(
    "with and or but so because for from in at on to is are was will would that which who if when until".split()
)
_TO_DECISION = re.compile(r"[^\s,]*[\s,]|[^\s,]+")
_COMMA = re.compile(r"(?:^|\s)[^\W\d_]+(?:['’-][^\W\d_]+)*,$")
_END = re.compile(r"[.!?…]+[\"')\]”’]*(?=\s)")
_PHRASE_END = re.compile(r"(?:[.!?…]+|[,;:—–])[\"')\]”’]*(?=\s)|\s[-—–](?=\s)")
_CALENDAR = re.compile(
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|june|july|"
    r"august|september|october|november|december",
    re.IGNORECASE,
)
_PATIENCE_WORDS = 3
_PHRASE_WORDS = 3  # fewer are not worth a clause of their own
_LONG_WORDS = 24


class ClauseSplitter:
    """Cuts one reply.

    Args:
        first_clause_words: cut the first clause after this many words at the latest (a few more
            where it would end on "the" or "with"; fewer where the next begins a phrase: "with",
            "and"); 0 waits for punctuation.
        words_ahead: cut the following clauses early too, until so many words were handed out. Four
            take a good second to say, in which the next clause can be thought and spoken.
    """

    def __init__(self, first_clause_words: int = 5, words_ahead: int = 4) -> None:
        self._limit = first_clause_words
        self._words_ahead = max(1, words_ahead)
        self._text = ""
        self._handed_out = 0  # words

    def push(self, text: str) -> list[str]:
        """Take more text and return the clauses that it completed."""
        clauses: list[str] = []
        for part in _TO_DECISION.findall(text):
            self._text += part
            if part[-1] == "," or part[-1].isspace():  # only here anything is decided
                clauses += self._cuts()
        return clauses

    def finish(self) -> list[str]:
        """The text is complete: the clauses that are left."""
        clauses = self._cuts()
        if self._text.strip():
            clauses.append(self._text.rstrip())
        self._text = ""
        return clauses

    def _cuts(self) -> list[str]:
        clauses: list[str] = []
        while (cut := self._cut()) is not None:
            clauses.append(self._text[:cut])
            self._text = self._text[cut:]
            self._handed_out += len(clauses[-1].split())
        return clauses

    def _cut(self) -> int | None:
        early = self._handed_out < self._words_ahead
        pattern = _PHRASE_END if early else _END
        for match in pattern.finditer(self._text):
            if not self._text[: match.start()].strip():
                continue
            ends = self._is_end(match)
            if ends is None:
                return None  # what follows decides
            if ends and self._long_enough(match):
                return match.end()
        if not self._handed_out and _COMMA.search(self._text):
            return len(self._text)
        if early and self._limit:
            return _after_words(self._text, self._limit)
        if not early and len(self._text.split()) > _LONG_WORDS:
            return max((m.end() for m in re.finditer(r"[,;:](?=\s)", self._text)), default=None)
        return None

    def _long_enough(self, end: re.Match[str]) -> bool:
        """Whether what ends here is worth a clause of its own: after the first, two words are not."""
        sentence = end.group()[0] in ".!?…"
        return sentence or not self._handed_out or len(self._text[: end.end()].split()) >= _PHRASE_WORDS

    def _is_end(self, match: re.Match[str]) -> bool | None:
        """Whether the punctuation ends a phrase; None when the next character must be seen."""
        mark = match.group().strip()
        if not mark.startswith(".") or mark.startswith(".."):
            return True
        before = self._text[: match.start()].split()[-1].lstrip("\"'([“‘")
        word = before.lower()
        after = self._text[match.end() :].lstrip()
        if len(before) == 1 and before.isalpha() and before.isupper() and before != "I":
            return False  # an initial
        if re.fullmatch(r"\d+", before) and self._starts_line(match.start(), before):
            return False  # "1. Latte": a list's number
        if word == "no":
            return None if not after else not after[0].isdigit()
        if word not in _ABBREVIATIONS:
            return True
        if word not in _MAY_END:
            return False
        if not after:
            return None
        return after[0].isupper() and not _CALENDAR.match(after)

    def _starts_line(self, end: int, word: str) -> bool:
        line = self._text[:end].rsplit("\n", 1)[-1]
        return line.strip() == word


def _after_words(text: str, limit: int) -> int | None:
    """Where the text can be cut: before a phrase, or after `limit` words, or a few more if the last
    one leans on the next."""
    words = list(re.finditer(r"\S+(?=\s)", text))
    for count in range(min(_PHRASE_WORDS, limit), min(len(words), limit + _PATIENCE_WORDS) + 1):
        if count < limit:
            if count == len(words):
                return None  # what follows decides
            good = _plain(words[count]) in _STARTS_PHRASE and _stands_alone(_plain(words[count - 1]))
        else:
            good = count == limit + _PATIENCE_WORDS or _stands_alone(_plain(words[count - 1]))
        if good:
            return words[count - 1].end()
    return None


def _plain(word: re.Match[str]) -> str:
    return word.group().lower().strip(".,;:!?\"'()")


def _stands_alone(word: str) -> bool:
    return word not in _LEANS_ON and not word[-1:].isdigit() and not word.startswith("$")
