"""A line without sound, for those who type: the caller is silent, what the agent says goes nowhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from voicectl.audio import FRAME_S, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.pipeline.protocols import Frame


class SilentLine:
    """Frames of silence until `hang_up`.

    Args:
        rate: samples per second of the line.
    """

    caller = "keyboard"

    def __init__(self, *, rate: int, clock: Clock) -> None:
        self.rate = rate
        self._clock = clock
        self._start = 0.0
        self._sent_until = 0.0
        self._hung_up = False

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        self._start = start
        silence = bytes(round(self.rate * FRAME_S) * SAMPLE_WIDTH)
        index = 0
        while not self._hung_up:
            await self._clock.sleep_until(start + (index + 1) * FRAME_S)
            yield Frame(silence, index * FRAME_S)
            index += 1

    def send(self, pcm: bytes) -> float:
        now = self._clock.now() - self._start
        if not pcm:
            return now
        at = self._sent_until if now - self._sent_until < FRAME_S - 1e-9 else now
        self._sent_until = at + FRAME_S
        return at

    def hang_up(self) -> None:
        self._hung_up = True

    async def aclose(self) -> None:
        """Nothing is held open."""
