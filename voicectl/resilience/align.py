"""Where one rendering of a text goes on when another has broken off. Pure numbers.

Two voices say the same words with another timbre and at another speed. What they share is the order
of sounds: the energies of some bands, without the mean that is the voice's own, are laid over one
another by dynamic time warping, from the beginning of both to the end of what was heard. Then the
cut is moved to the quietest moment near it, in both: a gap between two words, where there is one.

Nothing here knows the words. On steady or silent sound both are taken to run at the same speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]
    Floats = NDArray[np.float64]

_HOP_S, _WINDOW_S = 0.010, 0.025
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 24, 120.0, 5000.0
_RANGE_DB = 40.0  # below the loudest sounds; what is softer is not speech
_QUIET_DB = 25.0  # below them is a pause
_PAUSE_FRAMES = 3  # of a pause that count: voices differ most in how long they pause
_ONSET_FRAMES = 4  # by which two onsets may be noticed apart
_BEND = 0.08  # what it costs to run at another speed for a frame, against a difference of 1 standard deviation
_LEAST_FRAMES = 6  # of sound; less tells nothing
_NEAR_S = 0.060  # how far a cut may be moved in the other rendering
_LEAD_S = 0.020  # silence that is kept before the word that goes on
_FAR = 1e9


@dataclass(frozen=True, slots=True)
class Join:
    """`keep` samples of what was heard, then the other from sample `go_on`."""

    keep: int
    go_on: int


def join(heard: Samples, other: Samples, rate: int, *, fixed: int = 0) -> Join:
    """Where to leave one rendering for the other.

    Args:
        heard: the beginning of one, as far as it is known.
        other: the other, to beyond that place: half as long again is enough.
        rate: samples a second of both.
        fixed: so many samples of `heard` have been passed on, and cannot be taken back.
    """
    if not fixed:
        return Join(0, 0)
    if not len(other):
        return Join(len(heard), 0)
    fixed = min(fixed, len(heard))
    one, two = _Frames(heard, rate), _Frames(other, rate)
    if one.sounding < _LEAST_FRAMES:
        return Join(fixed, _samples(max(0, two.onset - 2), rate, len(other)) if one.sounding or two.sounding else 0)
    path = _warped(one, two, until=two.onset + round(1.5 * (len(one.level) - one.onset)))
    cut = _quietest(one.level, round(fixed / rate / _HOP_S), len(one.level) - 1)
    place = two.go_on(path[min(cut, len(path) - 1)])
    at_end = cut >= len(one.level) - 1
    keep = len(heard) if at_end else max(fixed, _samples(cut, rate, len(heard)))
    return Join(keep, _samples(place, rate, len(other)))


def fade(samples: Samples, rate: int, *, begins: bool) -> Samples:
    """The same with a ramp of 5 ms at its beginning, or its end, so that a cut does not click."""
    import numpy as np

    count = min(len(samples), round(0.005 * rate))
    if not count:
        return samples
    ramp = np.ones(len(samples))
    ramp[:count] = (np.arange(count) + 0.5) / count
    return np.rint(samples * (ramp if begins else ramp[::-1])).astype("<i2")


# Frames ------------------------------------------------------------------------------------------


class _Frames:
    """A sound, 10 ms by 10 ms: its level, and the shape of its spectrum without the voice's own."""

    def __init__(self, samples: Samples, rate: int) -> None:
        import numpy as np

        size, hop = round(_WINDOW_S * rate), round(_HOP_S * rate)
        count = len(samples) // hop
        padded = np.concatenate((samples.astype(np.float64), np.zeros(size)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
        power = np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2 / size
        bands = 10 * np.log10(power @ _bank(rate, size) + 1e-3)
        self.level: Floats = 10 * np.log10(power.mean(axis=1) + 1e-3)
        loud = float(np.percentile(self.level, 95)) if count else 0.0
        self.quiet = self.level < max(loud - _QUIET_DB, 10.0)
        self.sounding = int((~self.quiet).sum())
        self.onset = int(np.argmin(self.quiet)) if self.sounding else count
        top = float(np.percentile(bands, 99)) if bands.size else 0.0
        self._bands: Floats = np.maximum(bands, top - _RANGE_DB)
        self.kept = self._kept()

    def shape(self, until: int | None = None) -> Floats:
        """Of the frames that count; the voice's own is the mean of those before `until`."""
        shape, sound = self._bands, ~self.quiet
        known = shape[self.onset : until][sound[self.onset : until]]
        if len(known):
            shape = (shape - known.mean(axis=0)) / (known.std() + 1e-6)
            shape[self.quiet] = shape[sound].min(axis=0)
        return shape[self.kept]

    def go_on(self, place: int) -> int:
        """The frame to go on with, when the one before it is about `place`: after a pause, at the word."""
        near = round(_NEAR_S / _HOP_S)
        first, last = max(0, place - near), min(len(self.level) - 1, place + near)
        found = _quietest(self.level, first, last, about=place)
        if not len(self.quiet) or not self.quiet[min(found, len(self.quiet) - 1)]:
            return found
        while found < len(self.quiet) and self.quiet[found]:
            found += 1
        return max(0, found - round(_LEAD_S / _HOP_S))

    def _kept(self) -> NDArray[np.int64]:
        """The frames that count: from the onset on, of each pause the first few."""
        import numpy as np

        kept: list[int] = []
        run = 0
        for index in range(self.onset, len(self.quiet)):
            run = run + 1 if self.quiet[index] else 0
            if run <= _PAUSE_FRAMES:
                kept.append(index)
        return np.array(kept, dtype=np.int64)


@lru_cache(maxsize=8)
def _bank(rate: int, size: int) -> Floats:
    """Triangles, evenly spaced on a logarithmic scale, from the bins of a spectrum to its bands."""
    import numpy as np

    highest = min(_HIGHEST_HZ, 0.45 * rate)
    edges = np.geomspace(_LOWEST_HZ, highest, _BANDS + 2)
    hertz = np.fft.rfftfreq(size, 1 / rate)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    # A low band is narrower than a bin: it takes its nearest.
    width = np.maximum(np.minimum(middle - low, high - middle), rate / size)
    return np.maximum(0.0, 1 - np.abs(hertz - middle) / width)


def _samples(frame: int, rate: int, most: int) -> int:
    return min(most, frame * round(_HOP_S * rate))


def _quietest(level: Floats, first: int, last: int, about: int | None = None) -> int:
    """The frame from `first` to `last` at which a cut is least heard; a pause's middle. Of two alike the
    later, or the one nearer to `about`. The very last frame is cut in any case: it costs nothing."""
    import numpy as np

    if first >= last:
        return last
    frames = np.arange(first, last + 1)
    smooth = np.convolve(np.pad(level, 1, mode="edge"), np.ones(3) / 3, mode="valid")[first : last + 1]
    smooth = np.maximum(smooth, level.max() - 1.5 * _RANGE_DB)
    away = last - frames if about is None else np.abs(frames - about)
    return int(frames[np.argmin(smooth + 0.3 * away)])


# Warping -----------------------------------------------------------------------------------------


def _warped(one: _Frames, two: _Frames, until: int) -> list[int]:
    """For each frame of `one` the frame of `two` that sounds like it; what of `two` they may have in
    common ends before `until`.

    Steps are (1, 1), (1, 2) and (2, 1), so neither runs more than twice as fast as the other; each
    frame of `one` is paid for once. It ends wherever in `two` that costs least.
    """
    import numpy as np

    a, b = one.shape(), two.shape(until)
    if not len(b):
        return [0] * len(one.level)
    square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    cost = np.sqrt(np.maximum(square, 0.0) / a.shape[1])
    rows, columns = cost.shape
    best = np.full((rows, columns), _FAR)
    best[0, :_ONSET_FRAMES] = cost[0, :_ONSET_FRAMES]
    best[:_ONSET_FRAMES, 0] = cost[:_ONSET_FRAMES, 0]
    came = np.zeros((rows, columns), dtype=np.int8)
    ways = np.full((3, columns), _FAR)
    for row in range(1, rows):
        ways[:] = _FAR
        ways[0, 1:] = best[row - 1, :-1]
        ways[1, 2:] = best[row - 1, :-2] + 0.5 * cost[row, 1:-1] + _BEND
        if row > 1:
            ways[2, 1:] = best[row - 2, :-1] + cost[row - 1, 1:] + _BEND
        choice = np.argmin(ways, axis=0)
        reached = ways[choice, np.arange(columns)] + cost[row]
        fresh = best[row] < _FAR  # where a path may begin
        best[row] = np.where(fresh, best[row], reached)
        came[row] = np.where(fresh, 3, choice)
    return _spread(one, two, _way_back(best, came))


def _way_back(best: Floats, came: NDArray[np.int8]) -> list[int]:
    """For each row its column, from where the last row costs least."""
    import numpy as np

    rows = len(best)
    column = int(np.argmin(best[rows - 1]))
    found = [0] * rows
    row = rows - 1
    while row >= 0:
        found[row] = column
        match int(came[row, column]) if row else 3:
            case 0:
                row, column = row - 1, column - 1
            case 1:
                row, column = row - 1, column - 2
            case 2:
                found[row - 1] = column
                row, column = row - 2, column - 1
            case _:
                for before in range(row):
                    found[before] = column
                break
    return found


def _spread(one: _Frames, two: _Frames, found: list[int]) -> list[int]:
    """The same for all frames, those of pauses that did not count as well."""
    import numpy as np

    if not len(one.kept):
        return [0] * len(one.level)
    places = two.kept[np.maximum(found, 0)]
    spread = np.interp(np.arange(len(one.level)), one.kept, places)
    return [round(float(place)) for place in spread]
