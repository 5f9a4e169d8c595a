"""`call.wav`: both sides of a call as they were heard, left caller, right agent, sample-aligned.

Sample 0 is the beginning of the call. The caller's frames come in order without gaps; the agent's
are placed where they were heard, with silence between. The file only grows, a fifth of a second
at a time, and opens after `kill -9` at any instant.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from voicectl.audio import FRAME_S, WavWriter
from voicectl.trace import storage_error

Samples = npt.NDArray[np.int16]
_BLOCK_S = 0.2


class CallWav:
    """Writer of one call's two channels.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self._path = path
        self._rate = rate
        self._block = round(rate * _BLOCK_S)
        self._latest = round(rate * FRAME_S)  # the agent's frame of a tick may have begun before it
        self._left = bytearray()
        self._right = np.zeros(self._block * 4, dtype=np.int16)
        self._start = 0  # sample of the call that self._right[0] and self._left[0] are
        try:
            self._writer = WavWriter(path, rate, 2)
        except OSError as error:
            raise storage_error(path, error) from error

    def caller(self, pcm: bytes) -> None:
        """The caller's next frame (s16le mono)."""
        self._left += pcm
        ready = len(self._left) // 2 - self._latest
        if ready >= self._block:
            self._write(ready)

    def agent(self, pcm: bytes, at: float) -> None:
        """A frame of the agent whose first sample is heard `at` seconds into the call."""
        samples = np.frombuffer(pcm, dtype="<i2")
        first = round(at * self._rate) - self._start
        if first < 0:
            samples = samples[-first:]
            first = 0
        last = first + len(samples)
        if last > len(self._right):
            self._right = np.concatenate([self._right, np.zeros(last, dtype=np.int16)])
        self._right[first:last] = samples

    def close(self) -> None:
        """Write what is left and the final header. Idempotent."""
        if self._left:
            self._write(len(self._left) // 2)
        try:
            self._writer.close()
        except OSError as error:
            raise storage_error(self._path, error) from error

    def _write(self, count: int) -> None:
        both = np.empty((count, 2), dtype="<i2")
        both[:, 0] = np.frombuffer(bytes(self._left[: count * 2]), dtype="<i2")
        if count > len(self._right):
            self._right = np.concatenate([self._right, np.zeros(count, dtype=np.int16)])
        both[:, 1] = self._right[:count]
        try:
            self._writer.write(both.tobytes())
        except OSError as error:
            raise storage_error(self._path, error) from error
        del self._left[: count * 2]
        rest = self._right[count:]
        self._right = np.concatenate([rest, np.zeros(max(0, self._block * 4 - len(rest)), dtype=np.int16)])
        self._start += count
