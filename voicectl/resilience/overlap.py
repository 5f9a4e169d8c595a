"""What a second answer repeats of the first is cut away, so that nobody hears a word twice. Pure.

Text goes on in whole words: a word whose end is not known yet is held back (`WholeWords`), so that an
answer never breaks off inside one. Who is asked to go on after it may do just that, or say the last
words once more, or begin again: `Overlap` holds its words back while they may be such a repetition.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\s*\S+")
_OPEN = re.compile(r"[^\s,;:!?…]*$")  # a last word that may go on; "." may be inside a number
_RESTART_WORDS = 3  # so many equal words at the beginning are no accident, whatever follows


class WholeWords:
    """A stream of text, let through up to the last word that is complete."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """What can be passed on."""
        text = self._held + text
        match = _OPEN.search(text)
        cut = match.start() if match else len(text)
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """The text is complete: what is left."""
        held, self._held = self._held, ""
        return held


class Overlap:
    """The answer of who goes on after `said`, without what repeats it.

    `push` takes whole words (see `WholeWords`).
    """

    def __init__(self, said: str) -> None:
        self._said = said
        self._words = [plain for word in said.split() if (plain := _plain(word))]
        self._held: list[str] = []  # words that may repeat something, with the white space before them
        self._space = ""  # after them
        self._count = 0  # of them, without dashes and the like
        self._fits = set(range(len(self._words)))
        """Words of `said` at which a repetition that fits what is held may begin."""
        self._cut = 0  # words of those held that certainly repeat something ...
        self._caught_up = False  # ... to the last that was said
        self._decided = not self._words
        self._joined = not said

    def push(self, text: str) -> str:
        """What of it is new, as far as that is known."""
        if self._decided:
            return self._join(text)
        text = self._space + text
        words = _WORD.findall(text)
        self._space = text[sum(map(len, words)) :]
        for number, word in enumerate(words, 1):
            self._take(word)
            if self._decided:
                return self._release("".join(words[number:]) + self._space)
        return ""

    def finish(self) -> str:
        """The answer is complete: what was held back, and is new after all."""
        if self._decided:
            return ""
        self._decided = True
        if self._fits and self._count:
            self._cut = len(self._held)  # it ended while it repeated
        return self._release("")

    def _take(self, word: str) -> None:
        """One word more that may repeat something: does it?"""
        before = len(self._held)
        self._held.append(word)
        plain = _plain(word)
        if not plain:
            return
        still = {start for start in self._fits if self._at(start + self._count) == plain}
        if 0 in self._fits and 0 not in still and self._count >= _RESTART_WORDS:
            self._cut = max(self._cut, before)  # it began again, and says something else now
        self._count += 1
        whole = {start for start in still if start + self._count == len(self._words)}
        if whole:
            self._cut, self._caught_up = before + 1, True
        self._fits = still - whole
        self._decided = not self._fits

    def _at(self, index: int) -> str | None:
        return self._words[index] if index < len(self._words) else None

    def _release(self, rest: str) -> str:
        """What was held, without what repeats, and what comes after it."""
        held, self._held = self._held, []
        # "latte" was said, and is now the end of a sentence.
        mark = _mark(held[self._cut - 1]) if self._caught_up and not _mark(self._said.rstrip()) else ""
        return mark + self._join("".join(held[self._cut :]) + rest)

    def _join(self, text: str) -> str:
        """With white space before its first word, where there is none."""
        if self._joined or not text:
            return text
        self._joined = True
        if self._said[-1].isspace():
            return text.lstrip()
        return text if text[0].isspace() or text[0] in ",.;:!?…)" else f" {text}"


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word.lower()))


def _mark(word: str) -> str:
    """The punctuation that a word ends with."""
    match = re.search(r"[.,;:!?…]+$", word)
    return match.group() if match else ""
