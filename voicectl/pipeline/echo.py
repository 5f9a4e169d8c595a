"""Is what the microphone hears the agent itself? Pure: both sides' frames in, a yes or no out.

The caller's side is laid over what the agent was playing up to half a second before. An echo is the
same wave later and quieter; a person who is louder than the echo is not. This recognises an echo, so
that the agent does not interrupt and answer itself; it removes none from the sound, so a caller who is
hardly louder than the echo is not heard over it: that takes echo cancellation.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from voicectl.audio import SAMPLE_WIDTH

Samples = npt.NDArray[np.float64]

_LOOK_S = 0.25  # of the caller's side
_DELAY_S = 0.5  # the longest echo looked for
_LIKENESS = 0.6  # 1: the same wave. Two people, or noise, reach 0.2
_LEAST_SHARE = 0.0001  # of the loudest stretch's energy: in silence everything is alike
_SILENT = 4.0  # RMS of what is nothing at all


class EchoWatch:
    """Follows one line. Frames are s16le mono at `rate` samples per second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._heard: deque[bytes] = deque()
        self._heard_bytes = 0
        self._played: deque[tuple[float, bytes]] = deque()

    def heard(self, pcm: bytes) -> None:
        """The caller's next frame."""
        self._heard.append(pcm)
        self._heard_bytes += len(pcm)
        while self._heard_bytes - len(self._heard[0]) >= _LOOK_S * self._rate * SAMPLE_WIDTH:
            self._heard_bytes -= len(self._heard.popleft())

    def played(self, pcm: bytes, at: float) -> None:
        """A frame of the agent, heard from `at` seconds of the call on."""
        self._played.append((at, pcm))
        while self._played[0][0] < at - 2 * (_LOOK_S + _DELAY_S):
            self._played.popleft()

    def is_echo(self, now: float) -> bool | None:
        """Whether the caller's last quarter of a second, up to `now`, is what the agent played. None: it is silence."""
        heard = np.frombuffer(b"".join(self._heard), "<i2").astype(np.float64)
        if not len(heard) or float(np.sqrt(np.mean(heard * heard))) < _SILENT:
            return None
        played = self._timeline(now - len(heard) / self._rate - _DELAY_S, now)
        size = 1 << (len(played) + len(heard)).bit_length()
        spectrum = np.fft.rfft(played, size) * np.conj(np.fft.rfft(heard, size))
        products = np.fft.irfft(spectrum, size)[: len(played) - len(heard) + 1]
        energy = np.concatenate(([0.0], np.cumsum(played * played)))
        windows = energy[len(heard) :] - energy[: len(played) - len(heard) + 1]
        loudest = float(windows.max())
        alike = np.abs(products) > _LIKENESS * np.sqrt(windows * float(heard @ heard))
        return bool(np.any(alike & (windows > _LEAST_SHARE * loudest))) if loudest else False

    def _timeline(self, start: float, end: float) -> Samples:
        """What the agent played between two times of the call, with the silences."""
        line = np.zeros(round((end - start) * self._rate), np.float64)
        for at, pcm in self._played:
            samples = np.frombuffer(pcm, "<i2")
            first = round((at - start) * self._rate)
            if first < 0:
                samples, first = samples[-first:], 0
            part = samples[: max(0, len(line) - first)]
            line[first : first + len(part)] = part
        return line
