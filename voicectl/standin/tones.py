"""A language that a program hears exactly: each word is a chord, so what was said can be read from the sound.

What lives here: saying a text, hearing which words, whole or cut, are in a stretch of audio, and an ear
that listens as audio arrives. Pure numbers; no clock, no sockets. What must not: what anybody says.

The language:

1. A text is its words in lower case (`words_of`); punctuation is not heard.
2. A word is `TONES` tones of a grid of 50 Hz between 400 and 3250 Hz, so it passes a telephone; which
   ones, a hash of the word says. A voice adds a pilot tone of its own, and has a tempo of its own.
3. After each word comes a silence of `GAP_S`. Words begin and end with a ramp of 5 ms.

Hearing looks at windows of 20 ms, in which tones 50 Hz apart are orthogonal: a window either belongs to
one word of one voice or to none. Windows in a row are a piece of a word; pieces that a pause tore apart
are one word again where they add up to no more than one. A word of which less than `WHOLE` was heard was
cut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TONES = 4
GAP_S = 0.040
WHOLE = 0.75
"""The share of a word from which a listener takes it for the whole: a lost frame of 20 ms is not noticed."""

_GRID_HZ = 400.0 + 50.0 * np.arange(58)
_PILOTS_HZ = (250.0, 300.0, 350.0)
_LEVEL = 4500.0  # of one tone, of 32768: together about -14 dBFS, and never clipped
_PILOT = 0.5  # of that
_RAMP_S = 0.005
_WINDOW_S, _HOP_S = 0.020, 0.005
_LEAST_POWER = (32768 * 10 ** (-60 / 20)) ** 2
_LIKENESS = 0.80  # of a window's power, in the tones of one word
_LEAST_WINDOWS = 3  # fewer are the edge of something
_ONE_WORD = 1.20  # pieces that add up to more are two; each is seen up to 10 ms too long


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks: told by the pilot (its place in the list of them), and how long a word takes."""

    name: str
    pilot: int
    word_s: float


CALM = Voice("calm", 0, 0.180)
CALLER = Voice("caller", 1, 0.160)
BRISK = Voice("brisk", 2, 0.140)
VOICES = (CALM, CALLER, BRISK)


@dataclass(frozen=True, slots=True)
class Heard:
    """A word, or the piece of one, from `at` to `until` seconds; `share` of its length, 1 for all of it."""

    word: str
    voice: str
    at: float
    until: float
    share: float

    @property
    def whole(self) -> bool:
        return self.share >= WHOLE

    def __str__(self) -> str:
        return self.word if self.whole else f"{self.word}…"


def words_of(text: str) -> list[str]:
    """The words of a text as this language has them."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


# Saying ----------------------------------------------------------------------------------------


def say(text: str, rate: int, voice: Voice = CALM) -> bytes:
    """The text as sound, s16le mono; b"" where there is no word in it."""
    return b"".join(_word(word, rate, voice) for word in words_of(text))


def seconds(text: str, voice: Voice = CALM) -> float:
    """How long `say` takes, to the last sample of the last word's silence."""
    return len(words_of(text)) * (voice.word_s + GAP_S)


@lru_cache(maxsize=2048)
def _word(word: str, rate: int, voice: Voice) -> bytes:
    count = round(voice.word_s * rate)
    at = np.arange(count) / rate
    wave = _PILOT * np.sin(2 * np.pi * _PILOTS_HZ[voice.pilot] * at)
    for number, tone in enumerate(_chord(word)):
        wave += np.sin(2 * np.pi * _GRID_HZ[tone] * at + number * 1.3)
    ramp = max(1, round(_RAMP_S * rate))
    edge = np.minimum(1.0, (np.arange(count) + 1) / ramp)
    wave *= edge * edge[::-1] * _LEVEL
    return np.concatenate((wave, np.zeros(round(GAP_S * rate)))).astype("<i2").tobytes()


@lru_cache(maxsize=2048)
def _chord(word: str) -> tuple[int, ...]:
    """Different tones, in order."""
    digest = hashlib.blake2b(word.encode()).digest()
    order = sorted(range(len(_GRID_HZ)), key=lambda tone: digest[tone])
    return tuple(sorted(order[:TONES]))


# Hearing ---------------------------------------------------------------------------------------


def heard(pcm: bytes, rate: int, vocabulary: Iterable[str]) -> list[str]:
    """The words of `vocabulary` that were said, in order; one that was cut ends in an ellipsis.

    Raises:
        ValueError: two words of the vocabulary sound alike.
    """
    return [str(one) for one in listen(pcm, rate, vocabulary)]


def listen(pcm: bytes, rate: int, vocabulary: Iterable[str]) -> list[Heard]:
    """The same with their times, voices and how much of each was heard."""
    ear = Ear(rate, vocabulary)
    ear.hear(pcm)
    ear.finish()
    return ear.heard


class Ear:
    """Hears words as audio arrives, in pieces of any length.

    `heard` holds what is certain, `saying` the word that may still go on (None: silence).
    """

    def __init__(self, rate: int, vocabulary: Iterable[str]) -> None:
        self._book = _book(rate, tuple(sorted({word for text in vocabulary for word in words_of(text)})))
        self._rest = b""
        self._windows = 0  # looked at
        self._run: tuple[int, int] = (-1, 0)  # the symbol of the last windows, and how many there were
        self.heard: list[Heard] = []

    @property
    def until(self) -> float:
        """How far the audio has been heard, in seconds."""
        return self._windows * _HOP_S + (_WINDOW_S - _HOP_S) * (self._windows > 0)

    @property
    def saying(self) -> Heard | None:
        symbol, count = self._run
        return self._piece(symbol, count) if symbol >= 0 and count >= _LEAST_WINDOWS else None

    @property
    def speaking(self) -> bool:
        """Whether the last window belongs to a word."""
        return self._run[0] >= 0

    def hear(self, pcm: bytes) -> None:
        """The next samples, s16le mono."""
        data = self._rest + pcm
        symbols, used = self._book.read(data)
        self._rest = data[used:]
        for symbol in symbols:
            before, count = self._run
            if symbol == before:
                self._run = (symbol, count + 1)
            else:
                self._close()
                self._run = (symbol, 1)
            self._windows += 1

    def finish(self) -> None:
        """Nothing more will come of the word that is being said."""
        self._close()
        self._run = (-1, 0)

    def _close(self) -> None:
        piece = self.saying
        if piece is None:
            return
        last = self.heard[-1] if self.heard else None
        same = last and (last.word, last.voice) == (piece.word, piece.voice)
        if last and same and last.share + piece.share <= _ONE_WORD:
            self.heard[-1] = replace(last, until=piece.until, share=last.share + piece.share)
        else:
            self.heard.append(piece)

    def _piece(self, symbol: int, count: int) -> Heard:
        word, voice = self._book.symbols[symbol]
        first = self._windows - count
        length = count * _HOP_S + _WINDOW_S - _HOP_S
        at = first * _HOP_S
        return Heard(word, voice.name, at, at + length, min(1.0, length / voice.word_s))


class _Book:
    """What each word sounds like, and which one a window of sound is."""

    def __init__(self, rate: int, vocabulary: Sequence[str]) -> None:
        known: dict[tuple[int, ...], str] = {}
        for word in vocabulary:
            other = known.setdefault(_chord(word), word)
            if other != word:
                raise ValueError(f"'{other}' and '{word}' sound alike")
        self.symbols = [(word, voice) for word in vocabulary for voice in VOICES]
        self._rate = rate
        self._window = round(_WINDOW_S * rate)
        self._hop = round(_HOP_S * rate)
        grid = np.concatenate((np.array(_PILOTS_HZ), _GRID_HZ))
        turns = np.exp(-2j * np.pi * np.outer(np.arange(self._window) / rate, grid))
        self._tones = turns / self._window
        self._members = np.zeros((len(grid), len(self.symbols)))
        pilot_count = len(_PILOTS_HZ)
        for column, (word, voice) in enumerate(self.symbols):
            self._members[[pilot_count + tone for tone in _chord(word)], column] = 1.0
            self._members[voice.pilot, column] = 1.0

    def read(self, data: bytes) -> tuple[list[int], int]:
        """The symbol of each whole window (-1: none), and how many bytes need not be seen again."""
        samples = np.frombuffer(data, "<i2", count=len(data) // 2).astype(np.float64)
        count = (len(samples) - self._window) // self._hop + 1
        if count <= 0:
            return [], 0
        windows = np.lib.stride_tricks.sliding_window_view(samples, self._window)[:: self._hop][:count]
        found: list[int] = []
        for at in range(0, count, 2000):  # so that an hour needs no more memory than a minute
            found += self._classify(windows[at : at + 2000]).tolist()
        return found, count * self._hop * 2

    def _classify(self, windows: NDArray[np.float64]) -> NDArray[np.int64]:
        whole = np.mean(windows * windows, axis=1)
        none = np.full(len(windows), -1, np.int64)
        loud = whole > _LEAST_POWER
        if not self.symbols or not loud.any():
            return none
        part = windows[loud]
        tones = 2 * np.abs(part @ self._tones) ** 2
        shares = tones @ self._members / whole[loud, None]
        best = np.argmax(shares, axis=1)
        none[loud] = np.where(shares[np.arange(len(best)), best] >= _LIKENESS, best, -1)
        return none


@lru_cache(maxsize=16)
def _book(rate: int, vocabulary: tuple[str, ...]) -> _Book:
    return _Book(rate, vocabulary)
