"""The line of a recorded call: the caller's channel of `call.wav` again, frame by frame.

The caller says what they said when they said it, whatever the agent does now. What was known of
the caller (the utterances with their truth) is noted in the new trace at the same instants. After
the recording's end the caller is silent, until the agent has had its say. What a device took both
ways then, it takes again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

from voicectl.audio import FRAME_S, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.events import CallerActed, DeviceDelay, Event
from voicectl.pipeline.protocols import Frame
from voicectl.trace import Trace

AFTER_S = 10.0
_QUIET_S = 0.9


class RecordedLine:
    """Plays the caller's side of a recording.

    Args:
        caller: who it was.
        pcm: the caller's channel, s16le at `rate`.
        played: what the line itself noted in the recording, in order.
        after_s: how long the line stays open, after the recording, for an agent that still has
            something to say. A recording that breaks off takes 0: what came next is not known.
    """

    def __init__(
        self,
        caller: str,
        pcm: bytes,
        rate: int,
        played: Sequence[Event],
        *,
        clock: Clock,
        trace: Trace,
        after_s: float = AFTER_S,
    ) -> None:
        self.rate = rate
        self.caller = caller
        self._pcm = pcm
        self._played = [event for event in played if not isinstance(event, CallerActed)]
        self._acts = [event for event in played if isinstance(event, CallerActed)]
        self._clock = clock
        self._trace = trace
        self._after_s = after_s
        self.on_act: Callable[[CallerActed], None] = lambda event: None
        """Told what the caller did with keys, when they did it."""
        self._closed = False
        self._delay = DeviceDelay(at=0.0, input=0.0, output=0.0)
        self._start = 0.0
        self._sent_until = 0.0

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        self._start = start
        for event in self._acts:
            self._clock.spawn(self._act(event), name=f"caller {event.act}")
        size = round(self.rate * FRAME_S) * SAMPLE_WIDTH
        whole = len(self._pcm) // size
        index = 0
        due = 0
        while index < whole or self._wait_on(index * FRAME_S, whole * FRAME_S):
            at = index * FRAME_S
            while due < len(self._played) and self._played[due].at < at + FRAME_S / 2:
                self._again(self._played[due])
                due += 1
            pcm = self._pcm[index * size : (index + 1) * size] if index < whole else bytes(size)
            index += 1
            await self._clock.sleep_until(start + index * FRAME_S + self._delay.input)
            yield Frame(pcm, at, self._delay.input)
        self._closed = True

    def send(self, pcm: bytes) -> float:
        now = self._clock.now() - self._start + self._delay.output
        if not pcm:
            return now
        at = self._sent_until if now - self._sent_until < FRAME_S - 1e-9 else now
        self._sent_until = at + FRAME_S
        return at

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _act(self, event: CallerActed) -> None:
        await self._clock.sleep_until(self._start + event.at)
        if not self._closed:
            self.on_act(event)

    def _again(self, event: Event) -> None:
        if isinstance(event, DeviceDelay):
            self._delay = event
        self._trace.append(event)

    def _wait_on(self, now: float, end: float) -> bool:
        """After the recording: whether the agent was heard a moment ago."""
        return now < min(self._sent_until + _QUIET_S, end + self._after_s) - FRAME_S / 2
