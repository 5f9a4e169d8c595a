"""The WAV line: a recorded caller at one end, frames leaving by the plan.

Frame *i* leaves at `start + (i + 1) * FRAME_S`, whatever happened to the one before it. What the
agent says is heard when it is sent: a frame sent late is heard late. A far end conceals lateness
of less than one frame between frames that follow each other, as any jitter buffer does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from voicectl.audio import FRAME_S
from voicectl.clock import Clock
from voicectl.events import UtterancePlayed
from voicectl.pipeline.protocols import Frame
from voicectl.trace import Trace
from voicectl.transports.caller import Caller, CallerScript, DuringAgent, Utterance


class WavTransport:
    """Plays `caller` to the agent and notes in the trace what was said when.

    Args:
        rate: samples per second of the line.
        greeted: whether the caller waits for the agent to speak first.
        no_answer_s: how long the caller waits for an answer before going on.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        rate: int,
        greeted: bool,
        clock: Clock,
        trace: Trace,
        no_answer_s: float = 10.0,
    ) -> None:
        self.rate = rate
        self.caller = caller.name
        self._script = CallerScript(caller, rate, greeted=greeted, no_answer_s=no_answer_s)
        self._clock = clock
        self._trace = trace
        self._start = 0.0
        self._sent_until = 0.0

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        self._start = start
        index = 0
        while True:
            at = index * FRAME_S
            number = self._script.index()
            pcm, begun = self._script.frame(at)
            if begun:
                self._trace.append(_played(begun, number, at))
            if pcm is None:
                return
            index += 1
            await self._clock.sleep_until(start + index * FRAME_S)
            yield Frame(pcm, at)

    def send(self, pcm: bytes) -> float:
        now = self._clock.now() - self._start
        if not pcm:
            return now
        at = self._sent_until if now - self._sent_until < FRAME_S - 1e-9 else now
        self._sent_until = at + FRAME_S
        self._script.hear(pcm, at)
        return at

    async def aclose(self) -> None:
        """Nothing is held open."""


def _played(utterance: Utterance, index: int, at: float) -> UtterancePlayed:
    return UtterancePlayed(
        at=at,
        index=index,
        name=utterance.name,
        voiced_from=at + utterance.voiced_from_s,
        voiced_until=at + utterance.voiced_until_s,
        ends=at + utterance.pcm.seconds,
        text=utterance.text,
        slots=dict(utterance.slots) if utterance.slots else None,
        backchannel=utterance.backchannel,
        during_agent=isinstance(utterance.start, DuringAgent),
    )
