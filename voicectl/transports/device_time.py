"""Where a device's sound lies in the time of the call. Pure: blocks and times in, frames out.

A device counts its own samples, says now and then how far they are from the air, loses some, and its
clock is not ours. `DeviceTime` says when its sample n is spoken or heard; `Tape` puts what a microphone
gives on the call's timeline, so that sample i of the call is what was spoken i samples after its start:
silence where sound was lost, a few samples more or less where clocks drift apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voicectl.audio import FRAME_S, SAMPLE_WIDTH, Resampler

_LOOKS = 9  # so many blocks tell a gap: a late call back or a single wild figure does not
_LONG_LOOKS = 151  # so many of theirs, half a minute, tell drift: what a sound server claims sways by 10 ms
_LEAST_LOOKS = 51
_DRIFT_S = 0.008  # what clocks may be apart before it is put right, in a quiet place
_GAP_S = 0.015
_QUIET_PEAK = 330  # of 32768, -40 dBFS


class DeviceTime:
    """When each second of a device's stream is spoken or heard, on our clock."""

    def __init__(self) -> None:
        self._looks: deque[float] = deque(maxlen=_LOOKS)
        self._medians: deque[float] = deque(maxlen=_LONG_LOOKS)
        self._since = 0
        self._offset = 0.0

    @property
    def known(self) -> bool:
        return bool(self._looks)

    @property
    def sure(self) -> bool:
        """Whether it has been seen long enough to tell drift from what claims sway."""
        return len(self._medians) >= _LEAST_LOOKS

    def saw(self, stream_s: float, at: float) -> None:
        """Second `stream_s` of the stream is in the air at `at`."""
        self._looks.append(at - stream_s)
        now = _median(self._looks)
        if self._medians and abs(now - self._offset) > _GAP_S:  # another place: no swaying
            self._medians.clear()
        self._since += 1
        if self._since >= _LOOKS or not self.sure:
            self._since = 0
            self._medians.append(now)
        self._offset = _median(self._medians)

    def at(self, stream_s: float) -> float:
        return stream_s + self._offset


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


@dataclass(frozen=True, slots=True)
class Correction:
    """`seconds` of silence put in (or of sound left out, negative) at `at`, because of a "gap" or "drift"."""

    at: float
    seconds: float
    why: Literal["gap", "drift"]


class Tape:
    """What was spoken from `start` (on our clock) on, at `rate`."""

    def __init__(self, rate: int, start: float) -> None:
        self._rate = rate
        self._start = start
        self._frame_bytes = round(rate * FRAME_S) * SAMPLE_WIDTH
        self._ready = bytearray()
        self._samples = 0  # of the call, given out or ready
        self.plug_in(rate)

    def plug_in(self, device_rate: int) -> None:
        """What comes next is another stream, or the same device anew."""
        self._device_rate = device_rate
        self._resampler = Resampler(device_rate, self._rate)
        self._time = DeviceTime()
        self._in = self._out = 0  # samples of this stream
        self._begun = False

    @property
    def end(self) -> float:
        """On our clock: until here is known what was said."""
        return self._start + self._samples / self._rate

    def push(self, pcm: bytes, at: float) -> Correction | None:
        """The stream's next block, whose first sample was spoken at `at`."""
        self._time.saw(self._in / self._device_rate, at)
        self._in += len(pcm) // SAMPLE_WIDTH
        sound = self._resampler.push(pcm)
        off = self._time.at(self._out / self._rate) - self.end
        self._out += len(sound) // SAMPLE_WIDTH
        correction: Correction | None = None
        if not self._begun:
            sound = self._fit(sound, off)
            self._begun = bool(sound)
        elif abs(off) > _GAP_S or (abs(off) > _DRIFT_S and self._time.sure and _quiet(sound)):
            correction = Correction(self.end, off, "gap" if abs(off) > _GAP_S else "drift")
            sound = self._fit(sound, off)
        self._add(sound)
        return correction

    def silence_until(self, at: float) -> None:
        """Nothing came: it was silent up to then."""
        missing = round((at - self.end) * self._rate)
        if missing > 0:
            self._add(bytes(missing * SAMPLE_WIDTH))

    def frame(self) -> bytes | None:
        """The call's next frame, once it is there."""
        if len(self._ready) < self._frame_bytes:
            return None
        frame = bytes(self._ready[: self._frame_bytes])
        del self._ready[: self._frame_bytes]
        return frame

    def _fit(self, sound: bytes, off: float) -> bytes:
        samples = round(off * self._rate)
        if samples >= 0:
            return bytes(samples * SAMPLE_WIDTH) + sound
        return sound[-samples * SAMPLE_WIDTH :]

    def _add(self, sound: bytes) -> None:
        self._ready += sound
        self._samples += len(sound) // SAMPLE_WIDTH


def peak(pcm: bytes) -> int:
    """The loudest sample's distance from zero."""
    samples = np.frombuffer(pcm, dtype="<i2")
    return max(int(samples.max(initial=0)), -int(samples.min(initial=0)))


def _quiet(pcm: bytes) -> bool:
    return peak(pcm) < _QUIET_PEAK
