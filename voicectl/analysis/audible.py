"""What counts as sound: the first audible and the last voiced sample. Pure numbers.

Every latency starts or ends at a sample found here, so the definition is spelled out for anyone
who wants to measure again with other code:

1. Blocks of 10 ms (`round(0.010 * rate)` samples) start every 1 ms (`round(0.001 * rate)`) from the
   first sample looked at; only whole blocks count. A block's level is its standard deviation, in
   dB of 32768: its own mean is taken off, so neither an offset nor rumble is heard as sound.
2. A block is audible when its level is above the threshold, -50 dBFS. Speech stands around -20,
   its released final stops around -45, the floor of a quiet room below -65.
3. Neighbouring audible blocks make a run. It begins at the first sample of its first block that is
   as far from that block's median as the threshold's amplitude, and ends at the last such sample of
   its last block. (One exists: a standard deviation is never above the largest distance. The median,
   because the first block is mostly what was before the sound.)
4. Runs closer than 200 ms are one segment: a stop's closure inside a word, the burst after it.
5. A segment whose runs are together shorter than 30 ms is a click, not sound.

`first_audible` is the first sample of the first segment, `last_voiced` the last sample of the last.

Level alone cannot tell speech from a noise as loud. Agents are measured on the line before noise is
mixed in, callers on the clean recording; `steady_noise_dbfs` says when a file allows neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUDIBLE_DBFS = -50.0
BLOCK_S = 0.010
HOP_S = 0.001
JOIN_S = 0.200
CLICK_S = 0.030

_FULL_SCALE = 32768.0
_SPEECH_RANGE_DB = 30.0
_QUIETEST_THRESHOLD_DBFS = -70.0
_LOUD_S = 0.100


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of sound, both ends included, in samples of the array looked at."""

    first: int
    last: int


def first_audible(
    x: NDArray[np.int16], rate: int, start: int = 0, end: int | None = None, *, threshold_dbfs: float = AUDIBLE_DBFS
) -> int | None:
    """The first audible sample of `x[start:end]`, counted from the start of `x`; None when silent."""
    found = segments(x, rate, JOIN_S, start, end, threshold_dbfs=threshold_dbfs)
    return found[0].first if found else None


def last_voiced(
    x: NDArray[np.int16], rate: int, start: int = 0, end: int | None = None, *, threshold_dbfs: float = AUDIBLE_DBFS
) -> int | None:
    """The last audible sample of `x[start:end]`, counted from the start of `x`; None when silent."""
    found = segments(x, rate, JOIN_S, start, end, threshold_dbfs=threshold_dbfs)
    return found[-1].last if found else None


def segments(
    x: NDArray[np.int16],
    rate: int,
    min_gap_s: float = JOIN_S,
    start: int = 0,
    end: int | None = None,
    *,
    threshold_dbfs: float = AUDIBLE_DBFS,
) -> list[Segment]:
    """The stretches of sound of `x[start:end]` with at least `min_gap_s` of silence between them."""
    joined: list[tuple[int, int, int]] = []
    for first, last in _runs(x[start:end], rate, threshold_dbfs):
        if joined and first - joined[-1][1] < min_gap_s * rate:
            begin, _, audible = joined.pop()
            joined.append((begin, last, audible + last - first + 1))
        else:
            joined.append((first, last, last - first + 1))
    return [Segment(start + first, start + last) for first, last, audible in joined if audible >= CLICK_S * rate]


def speech_threshold_dbfs(x: NDArray[np.int16], rate: int) -> float:
    """The threshold for a file that is known to hold speech: -50 dBFS, lower for a faint recording.

    30 dB under the level that the loudest 100 blocks reach, never under -70.
    """
    import numpy as np

    levels = _levels(x, rate)
    if not levels.size:
        return AUDIBLE_DBFS
    blocks = min(levels.size, round(_LOUD_S / HOP_S))
    loud = float(np.partition(levels, -blocks)[-blocks])
    return min(AUDIBLE_DBFS, max(_QUIETEST_THRESHOLD_DBFS, loud - _SPEECH_RANGE_DB))


def steady_noise_dbfs(x: NDArray[np.int16], rate: int, *, threshold_dbfs: float = AUDIBLE_DBFS) -> float | None:
    """The level of a background so loud that speech cannot be told from it by level, else None.

    That is when the quietest tenth of the blocks lies within 5 dB (speech falls off faster, also
    where no pause was left around it) and less than 12 dB under the threshold, which is how far
    above its quietest moments a noise peaks.
    """
    import numpy as np

    levels = _levels(x, rate)
    if not levels.size:
        return None
    quietest, quiet = (float(level) for level in np.quantile(levels, (0.01, 0.10), method="lower"))
    steady = math.isfinite(quietest) and quiet - quietest < 5.0
    return quiet if steady and quiet > threshold_dbfs - 12.0 else None


def active_dbfs(x: NDArray[np.int16], rate: int, *, threshold_dbfs: float = AUDIBLE_DBFS) -> float:
    """The level of the sound alone, pauses left out: the mean power of the audible blocks; -inf when silent."""
    import numpy as np

    _, _, power = _blocks(x, rate)
    loud = power[power > _FULL_SCALE**2 * 10 ** (threshold_dbfs / 10)]
    return 10 * math.log10(float(np.mean(loud)) / _FULL_SCALE**2) if loud.size else -math.inf


def _blocks(x: NDArray[np.int16], rate: int) -> tuple[NDArray[np.int64], int, NDArray[np.float64]]:
    """Start of every block, their length, and the power of each around its mean."""
    import numpy as np

    length, hop = round(BLOCK_S * rate), max(1, round(HOP_S * rate))
    starts = np.arange(0, len(x) - length + 1, hop, dtype=np.int64)
    wide = x.astype(np.int64)
    sums = np.concatenate(([0], np.cumsum(wide)))
    squares = np.concatenate(([0], np.cumsum(wide * wide)))
    mean = (sums[starts + length] - sums[starts]) / length
    power = (squares[starts + length] - squares[starts]) / length - mean * mean
    return starts, length, np.maximum(power, 0.0)


def _levels(x: NDArray[np.int16], rate: int) -> NDArray[np.float64]:
    import numpy as np

    _, _, power = _blocks(x, rate)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power / _FULL_SCALE**2)


def _runs(x: NDArray[np.int16], rate: int, threshold_dbfs: float) -> list[tuple[int, int]]:
    import numpy as np

    starts, length, power = _blocks(x, rate)
    amplitude = _FULL_SCALE * 10 ** (threshold_dbfs / 20)
    audible = np.concatenate(([False], power > amplitude * amplitude, [False]))
    edges = np.flatnonzero(audible[1:] != audible[:-1])
    runs: list[tuple[int, int]] = []
    for rise, fall in zip(edges[::2], edges[1::2], strict=True):
        head, tail = int(starts[rise]), int(starts[fall - 1])
        runs.append(
            (
                head + int(_far(x[head : head + length], amplitude)[0]),
                tail + int(_far(x[tail : tail + length], amplitude)[-1]),
            )
        )
    return runs


def _far(block: NDArray[np.int16], amplitude: float) -> NDArray[np.int64]:
    import numpy as np

    return np.flatnonzero(np.abs(block - np.median(block)) >= amplitude)
