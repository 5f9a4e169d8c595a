"""Takes the agent's own voice out of what the microphone hears, with WebRTC's audio processing.

Where the agent's sound lies in the call is known to the sample, so both sides are laid beside each other
by the time of the call, whatever the device's delays are; the canceller finds the room's echo from there.
What it costs: somebody who speaks at the same time as the agent is damped a little, too.

The processing comes with the package `livekit` (extra `echo`); nothing else of that package is used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from voicectl.audio import SAMPLE_WIDTH
from voicectl.errors import MissingExtra, UsageError
from voicectl.pipeline.protocols import Frame, Transport

RATES = (8_000, 16_000, 32_000, 48_000)
_STEP_S = 0.01  # what the processing takes at a time
_EARLY_S = 0.02  # the agent's side goes in so much ahead: what devices say of their delays may be off


def available() -> bool:
    """Whether the package is installed."""
    return find_spec("livekit") is not None and find_spec("livekit.rtc") is not None


class EchoCanceller:
    """One line's. Frames are s16le mono at `rate`.

    Raises:
        MissingExtra: the package is not installed.
        UsageError: it cannot work at this rate.
    """

    def __init__(self, rate: int) -> None:
        if rate not in RATES:
            known = ", ".join(map(str, RATES))
            raise UsageError(
                f"echo cannot be cancelled at {rate} samples a second",
                where="line.rate",
                hint=f"Use one of {known}, or --headphones",
            )
        if not available():
            raise MissingExtra("livekit", "echo", where="echo cancellation")
        rtc: Any = import_module("livekit.rtc")
        self._rate = rate
        self._frame: Any = rtc.AudioFrame
        self._apm: Any = rtc.AudioProcessingModule(echo_cancellation=True, high_pass_filter=True)
        self._step = round(rate * _STEP_S)
        self._said = bytearray()  # the agent's side from sample `_said_from` of the call on
        self._said_from = 0

    def said(self, pcm: bytes, at: float) -> None:
        """A frame of the agent, heard from `at` seconds of the call on."""
        first = round(at * self._rate) - self._said_from
        if first < 0:
            pcm, first = pcm[-first * SAMPLE_WIDTH :], 0
        lacks = first * SAMPLE_WIDTH - len(self._said)
        if lacks > 0:
            self._said += bytes(lacks)
        self._said[first * SAMPLE_WIDTH : first * SAMPLE_WIDTH + len(pcm)] = pcm

    def clean(self, pcm: bytes, at: float) -> bytes:
        """The caller's frame, spoken from `at` on, without the agent in it."""
        cleaned = bytearray()
        size = self._step * SAMPLE_WIDTH
        for offset in range(0, len(pcm), size):
            start = round((at + _EARLY_S) * self._rate) + offset // SAMPLE_WIDTH
            self._process("process_reverse_stream", self._piece(start))
            self._apm.set_stream_delay_ms(round(_EARLY_S * 1000))
            cleaned += self._process("process_stream", pcm[offset : offset + size])
        return bytes(cleaned)

    def _piece(self, start: int) -> bytes:
        """A step of the agent's side; what is before it is let go."""
        drop = min(max(0, start - self._said_from) * SAMPLE_WIDTH, len(self._said))
        del self._said[:drop]
        self._said_from = max(self._said_from, start)
        skipped = (self._said_from - start) * SAMPLE_WIDTH
        size = self._step * SAMPLE_WIDTH
        return (bytes(skipped) + bytes(self._said[: max(0, size - skipped)])).ljust(size, b"\0")[:size]

    def _process(self, what: str, pcm: bytes) -> bytes:
        frame = self._frame(bytearray(pcm), self._rate, 1, self._step)
        getattr(self._apm, what)(frame)
        return bytes(frame.data)


class WithoutEcho:
    """A line whose caller is heard without the agent's echo."""

    def __init__(self, line: Transport, canceller: EchoCanceller) -> None:
        self.rate = line.rate
        self.caller = line.caller
        self._line = line
        self._canceller = canceller

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        async with aclosing(self._line.frames(start)) as frames:
            async for frame in frames:
                yield replace(frame, pcm=self._canceller.clean(frame.pcm, frame.at))

    def send(self, pcm: bytes) -> float:
        at = self._line.send(pcm)
        if pcm:
            self._canceller.said(pcm, at)
        return at

    async def aclose(self) -> None:
        await self._line.aclose()
