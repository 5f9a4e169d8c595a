"""What a stand-in hears in a caller's audio. No recognition: it knows what it is going to hear.

An ear is fed PCM as it comes and says which words were in it.

- `SampleEar`: 100 ms of samples around 500 are the word "w5", samples of 0 are silence. For tests,
  which see in a transcript what audio it was made of.
- `Library.ear`: knows certain audio beforehand (`Known`), wherever and in whatever pieces it comes,
  through noise and a telephone as well; the words come as the audio goes on. Beside that it hears
  words of `tones`, and gives, where it has them, lines in order for speech that it does not know.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voicectl.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voicectl.standin import tones

RATE = 16_000
WORD_S = 0.1

_BLOCK_S = 0.02
_LOW_RATE = 4_000  # where most of what tells one voice's sound from another is, at little cost
_LOW_BLOCK = round(_BLOCK_S * _LOW_RATE)
_WINDOW = round(0.3 * _LOW_RATE)  # what is searched for
_CHECK = round(0.12 * _LOW_RATE)  # what must go on being alike
_LOUD = 100.0  # root mean square, of 32768: -50 dBFS
_FOUND = 0.7  # likeness, 0..1, of what is found ...
_ALIKE = 0.4  # ... and of what goes on
_MISSES = 4  # blocks in a row
_TELLING = 0.3  # of its mean level: softer sound is too like noise to be held against it
_UNSURE_S = 0.16  # so long the exact search, which costs next to nothing, is alone
_SEARCH_S, _SEARCH_MAX_S = 0.08, 0.48
_EARLY_S = 0.06  # a word counts as heard so long before its share of the speech is over
_LINE_WORD_S = 0.3
_LINE_PAUSE_S = 0.2  # after which a line is over
_NEXT_LINE_S = 0.7  # of silence, and what follows is the next line
_HALF = 0.5


class Ear:
    """Words of what was heard since the last `take`. This is the base of every ear, and deaf."""

    def __init__(self) -> None:
        self.words: list[str] = []
        """Since the last `take`."""
        self.silence_s = 0.0
        """Since the last sound of speech."""
        self.until = 0.0
        """How much audio was heard at all."""

    def hear(self, pcm: bytes) -> Iterator[bool]:
        """One step for each block that this completes, in order: whether it was speech. `words`,
        `silence_s` and `until` follow the steps, so look at them within the loop."""
        raise NotImplementedError

    def flush(self) -> None:
        """Hear what is left of a block, too."""

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def take(self) -> str:
        """The text, and from now on only what comes after it."""
        text, self.words = self.text, []
        return text


MakeEar = Callable[[int], Ear]
"""A new ear for audio of this rate."""


class SampleEar(Ear):
    """Amplitudes are words."""

    def __init__(self, rate: int = RATE) -> None:
        super().__init__()
        self._rate = rate
        self._samples = array("h")

    def hear(self, pcm: bytes) -> Iterator[bool]:
        self._samples.frombytes(pcm)
        size = round(WORD_S * self._rate)
        while len(self._samples) >= size:
            block, self._samples = self._samples[:size], self._samples[size:]
            self.until += WORD_S
            yield self._add(block)

    def flush(self) -> None:
        if self._samples:
            self._add(self._samples)
            self.until += len(self._samples) / self._rate
            self._samples = array("h")

    def _add(self, block: array[int]) -> bool:
        word = round(sum(map(abs, block)) / len(block) / 100)
        self.silence_s = 0.0 if word else self.silence_s + WORD_S
        if word and (not self.words or self.words[-1] != f"w{word}"):
            self.words.append(f"w{word}")
        return word > 0


# Known audio -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What is said in some audio (16 kHz, 16-bit mono), and from when to when; measured where that is not said."""

    pcm: bytes
    text: str
    voiced: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """One known audio in the library: where it is, in samples of `_LOW_RATE`, and what it says."""

    start: int
    end: int
    first: int
    last: int
    level: float
    words: tuple[str, ...]

    def heard_at(self, position: float) -> int:
        """How many words were said until there."""
        share = (position - self.first + _EARLY_S * _LOW_RATE) / max(1, self.last - self.first)
        return max(0, min(len(self.words), int(share * len(self.words))))


class Library:
    """All that the ears of a stand-in know.

    Args:
        known: audio that they recognise.
        vocabulary: texts whose words they hear when they are said in `tones`.
        lines: what unknown speech says, one after the other and then from the first.
    """

    def __init__(
        self, known: Sequence[Known] = (), *, vocabulary: Sequence[str] = (), lines: Sequence[str] = ()
    ) -> None:
        import numpy as np

        self.vocabulary = tuple(vocabulary)
        self.lines = tuple(lines)
        self.pieces: list[_Piece] = []
        self._next_line = 0
        exact: list[bytes] = []
        low: list[NDArray[np.float64]] = []
        at = 0
        gap = np.zeros(_WINDOW)
        for one in known:
            factor = RATE // _LOW_RATE
            pcm = one.pcm[: len(one.pcm) // (2 * factor) * 2 * factor]
            lowered = _lowered(pcm, factor)
            low += [gap, lowered]
            exact += [bytes(2 * factor * _WINDOW), pcm]
            at += _WINDOW
            first, last = _span(lowered)
            if one.voiced is not None:
                first, last = (round(seconds * _LOW_RATE) for seconds in one.voiced)
            level = float(np.sqrt(np.mean(lowered[first:last] ** 2))) if last > first else 0.0
            self.pieces.append(_Piece(at, at + len(lowered), at + first, at + last, level, tuple(one.text.split())))
            at += len(lowered)
        self.low = np.concatenate([*low, gap])
        self._exact = b"".join(exact)
        self._starts = [piece.start for piece in self.pieces]
        self._size = 1 << (len(self.low) + _WINDOW).bit_length()
        self._spectrum = np.fft.rfft(self.low, self._size) if known else None
        squares = np.concatenate(([0.0], np.cumsum(self.low**2)))
        energy = squares[_WINDOW:] - squares[:-_WINDOW]
        # Where there is next to nothing, nothing is alike.
        self._scale = np.sqrt(np.maximum(energy, _WINDOW * (_LOUD / 4) ** 2))

    def ear(self, rate: int = RATE) -> Ear:
        """Raises:
        UsageError: nobody hears at that rate."""
        if rate % _LOW_RATE:
            raise UsageError(f"the stand-in cannot hear audio of {rate} Hz", hint="Send 8, 16, 24 or 48 kHz")
        return _LibraryEar(self, rate)

    def line(self) -> tuple[str, ...]:
        """The words of the next line."""
        if not self.lines:
            return ()
        words = tuple(self.lines[self._next_line % len(self.lines)].split())
        self._next_line += 1
        return words

    def piece_at(self, position: float) -> _Piece | None:
        index = bisect_right(self._starts, position) - 1
        piece = self.pieces[index] if index >= 0 else None
        return piece if piece and position <= piece.end else None

    def find_exact(self, block: bytes) -> float | None:
        """Where these samples of 16 kHz end; None where they are not, or are in several places."""
        at = self._exact.find(block)
        while at >= 0 and at % 2:  # between two samples
            at = self._exact.find(block, at + 1)
        return (at + len(block)) / 2 / (RATE // _LOW_RATE) if at >= 0 else None

    def find_alike(self, window: NDArray[np.float64]) -> float | None:
        """Where sound like this ends."""
        import numpy as np

        own = float(np.sqrt(np.sum(window**2)))
        if self._spectrum is None or own == 0:
            return None
        shift = np.fft.irfft(self._spectrum * np.conj(np.fft.rfft(window, self._size)), self._size)
        likeness = shift[: len(self._scale)] / self._scale / own
        best = int(np.argmax(likeness))
        return float(best + _WINDOW) if likeness[best] >= _FOUND else None


def _lowered(pcm: bytes, factor: int) -> NDArray[np.float64]:
    """At a rate that many times lower."""
    import numpy as np

    samples: NDArray[np.float64] = np.frombuffer(pcm, "<i2").astype(np.float64)
    return samples.reshape(-1, factor).mean(axis=1)


def _span(low: NDArray[np.float64]) -> tuple[int, int]:
    """First and last sample of speech, to a block."""
    import numpy as np

    count = len(low) // _LOW_BLOCK
    if count == 0:
        return 0, len(low)
    levels = np.sqrt(np.mean(low[: count * _LOW_BLOCK].reshape(count, _LOW_BLOCK) ** 2, axis=1))
    loud = np.flatnonzero(levels >= max(_LOUD / 2, levels.max() / 50))
    return (int(loud[0]) * _LOW_BLOCK, (int(loud[-1]) + 1) * _LOW_BLOCK) if len(loud) else (0, len(low))


class _LibraryEar(Ear):
    """Follows known audio; else hears tones; else takes lines."""

    def __init__(self, library: Library, rate: int) -> None:
        import numpy as np

        super().__init__()
        self._library = library
        self._rate = rate
        self._size = 2 * round(_BLOCK_S * rate)
        self._rest = b""
        self._recent: NDArray[np.float64] = np.zeros(_WINDOW)
        self._tones = _tone_ear(rate, library.vocabulary)
        self._tones_told = 0
        # Following known audio
        self._position = 0.0
        self._piece: _Piece | None = None
        self._lost: _Piece | None = None  # what was followed last
        self._told = 0
        self._misses = 0
        # Looking for it
        self._unknown_s = 0.0
        self._next_search_s = _UNSURE_S
        self._search_s = _SEARCH_S
        # Taking lines
        self._line: tuple[str, ...] = ()
        self._line_told = 0
        self._line_s = 0.0

    def hear(self, pcm: bytes) -> Iterator[bool]:
        data = self._rest + pcm
        whole = len(data) // self._size * self._size
        self._rest = data[whole:]
        for start in range(0, whole, self._size):
            yield self._step(data[start : start + self._size])

    def flush(self) -> None:
        factor = 2 * self._rate // _LOW_RATE
        rest, self._rest = self._rest[: len(self._rest) // factor * factor], b""
        if rest:
            self._step(rest)
        if self._tones:
            self._tones.finish()
            self._hear_tones(least=_HALF)
        self._finish_line()

    def _step(self, block: bytes) -> bool:
        import numpy as np

        seconds = len(block) / 2 / self._rate
        self.until += seconds
        low = _lowered(block, self._rate // _LOW_RATE)
        self._recent = np.concatenate((self._recent[len(low) :], low))
        loud = float(np.sqrt(np.mean(low**2))) >= _LOUD
        voiced = self._follow(len(low)) or self._look(block, seconds, loud)
        if self._piece is None:
            voiced = self._hear_tones(block) or voiced
            voiced = self._take_line(seconds, loud) or voiced
        self.silence_s = 0.0 if voiced else self.silence_s + seconds
        return voiced

    # Known audio -------------------------------------------------------------------------------

    def _follow(self, count: int) -> bool:
        """It goes on where it was, or not any more."""
        import numpy as np

        piece = self._piece
        if piece is None:
            return False
        self._position += count
        end = round(self._position)
        expected = self._library.low[max(0, end - _CHECK) : end]
        level = float(np.sqrt(np.mean(expected**2))) if len(expected) == _CHECK else 0.0
        if level >= max(_LOUD / 2, _TELLING * piece.level):
            recent = self._recent[-_CHECK:]
            both = float(np.sqrt(np.sum(expected**2) * np.sum(recent**2)))
            alike = both > 0 and float(np.dot(expected, recent)) / both >= _ALIKE
            self._misses = 0 if alike else self._misses + 1
        if self._misses >= _MISSES or self._position >= piece.end:
            self._piece, self._lost = None, piece
            self._forget_search()
            return False
        return self._say_known(piece)

    def _say_known(self, piece: _Piece) -> bool:
        told = piece.heard_at(self._position)
        self.words += piece.words[self._told : told]
        self._told = max(told, self._told)
        inside = piece.first <= self._position <= piece.last + _LOW_BLOCK
        now = self._library.low[max(0, round(self._position) - _LOW_BLOCK) : round(self._position)]
        return inside and len(now) > 0 and float((now**2).mean()) ** 0.5 >= _LOUD / 4

    def _look(self, block: bytes, seconds: float, loud: bool) -> bool:
        """Is this known audio?"""
        library = self._library
        if self._piece or not library.pieces:
            return False
        if not loud:
            self._forget_search()
            return False
        self._unknown_s += seconds
        found = library.find_exact(block) if self._rate == RATE else None
        if found is None and self._unknown_s >= self._next_search_s:
            self._search_s = min(2 * self._search_s, _SEARCH_MAX_S)
            self._next_search_s = self._unknown_s + self._search_s
            found = library.find_alike(self._recent)
        piece = None if found is None else library.piece_at(found)
        if found is None or piece is None:
            return False
        begun = found - self._unknown_s * _LOW_RATE
        again = piece is self._lost and begun >= self._position - _WINDOW  # what was said is not said twice
        if not again:
            self._told = piece.heard_at(begun) if begun > piece.first + _WINDOW else 0
        self._piece, self._position, self._misses = piece, found, 0
        return self._say_known(piece)

    def _forget_search(self) -> None:
        self._unknown_s, self._next_search_s, self._search_s = 0.0, _UNSURE_S, _SEARCH_S

    # Tones -------------------------------------------------------------------------------------

    def _hear_tones(self, block: bytes = b"", least: float = 1.0) -> bool:
        """Words that are over; and, from `least` of its length on, the one that has begun."""
        ear = self._tones
        if ear is None:
            return False
        if block:
            ear.hear(block)
        while self._tones_told < len(ear.heard):
            one = ear.heard[self._tones_told]
            certain = one.whole or self._tones_told + 1 < len(ear.heard) or ear.until - one.until > WORD_S
            if not certain and one.share < least:
                break
            self._tones_told += 1
            if one.share >= _HALF:
                self.words.append(one.word)
        return ear.saying is not None

    # Lines -------------------------------------------------------------------------------------

    def _take_line(self, seconds: float, loud: bool) -> bool:
        if not self._library.lines or (self._tones and self._tones.saying):
            return False
        if not loud:
            if self.silence_s >= _LINE_PAUSE_S:
                self._finish_line()
            return False
        if not self._line or (self._line_told == len(self._line) and self.silence_s >= _NEXT_LINE_S):
            self._line, self._line_told, self._line_s = self._library.line(), 0, 0.0
        self._line_s += seconds
        told = min(len(self._line), int(self._line_s / _LINE_WORD_S))
        if told > self._line_told:
            self.words += self._line[self._line_told : told]
            self._line_told = told
        return True

    def _finish_line(self) -> None:
        self.words += self._line[self._line_told :]
        self._line_told = len(self._line)


def _tone_ear(rate: int, vocabulary: Sequence[str]) -> tones.Ear | None:
    if not vocabulary:
        return None
    from voicectl.standin import tones

    return tones.Ear(rate, vocabulary)
