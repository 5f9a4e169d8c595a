"""One recorded call, run again. In: a recording with its streams. Out: what happens now.

The caller's channel plays at the times it was spoken, the providers answer with the timing they
had, and the session, the turn-taking and the endpointing are today's. Nothing is read but the
recording, nothing is written; the result is a `Recording` like any other, in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voicectl.assemble import rules_of
from voicectl.clock import Clock, run_on
from voicectl.errors import RecordingError
from voicectl.events import CallStarted, Event, ProviderFailed, UtterancePlayed
from voicectl.pipeline.session import AgentRules, Session
from voicectl.providers import CATALOG
from voicectl.providers.recorded import OnMiss, replayed
from voicectl.recording import Recording, open_recording
from voicectl.spec import ResolvedAgent, load_resolved
from voicectl.streams import Streams, read_streams
from voicectl.trace import Trace
from voicectl.transports.recorded import RecordedLine

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A recording with all that replay needs: what happened, every stream, the agent as it was."""

    recording: Recording
    streams: Streams
    agent: ResolvedAgent

    @property
    def path(self) -> Path:
        return self.recording.path


def open_kept(folder: Path) -> Kept:
    """Open a recording for replay.

    Raises:
        RecordingError: it is not one, or a part of it is missing or not what was written.
        SpecError: its spec cannot be read by this voicectl.
    """
    recording = open_recording(folder)
    spec = folder / "spec.yaml"
    if not spec.is_file():
        raise RecordingError("cannot be replayed: it has no spec.yaml", where=str(folder))
    return Kept(recording, read_streams(folder), load_resolved(spec, CATALOG))


def replay(kept: Kept, agent: ResolvedAgent | None = None, on_miss: OnMiss = "fail") -> Recording:
    """Run the call again, with its own agent or another.

    A call that was cut is replayed up to its cut. What the pipeline asks for and the recording
    does not hold is a `ProviderFailed` of a `...:recorded` provider in the result.
    """
    rules = rules_of(agent or kept.agent)
    return run_on("virtual", lambda clock: _run(kept, rules, on_miss, clock))


def missed(events: tuple[Event, ...]) -> list[ProviderFailed]:
    """What was asked for and had not been recorded."""
    return [
        event for event in events if isinstance(event, ProviderFailed) and event.provider.endswith(":recorded")
    ]


async def _run(kept: Kept, rules: AgentRules, on_miss: OnMiss, clock: Clock) -> Recording:
    was = kept.recording
    started = [event for event in was.events if isinstance(event, CallStarted)]
    caller = started[0].caller if started else was.path.name
    trace = Trace(header={key: value for key, value in was.header.items() if key != "voicectl_trace"})
    played = [event for event in was.events if isinstance(event, UtterancePlayed)]
    line = RecordedLine(caller, was.left.tobytes(), was.rate, played, clock, trace)
    sound = _Sound(was.rate)
    session = Session(rules, replayed(kept.streams, clock, on_miss), line, clock, trace, sound)
    await session.run()
    left, right = sound.channels()
    return Recording(was.path, trace.header, tuple(trace.events), was.cut, was.rate, left, right)


class _Sound:
    """Both channels in memory (`pipeline.protocols.LineRecorder`)."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left: list[bytes] = []
        self._right: list[tuple[int, bytes]] = []

    def caller(self, pcm: bytes) -> None:
        self._left.append(pcm)

    def agent(self, pcm: bytes, at: float) -> None:
        self._right.append((round(at * self._rate), pcm))

    def close(self) -> None:
        """Nothing is held open."""

    def channels(self) -> tuple[Samples, Samples]:
        left = np.frombuffer(b"".join(self._left), dtype="<i2")
        right = np.zeros(len(left), dtype=np.int16)
        for first, pcm in self._right:
            part = np.frombuffer(pcm, dtype="<i2")[: max(0, len(right) - first)]
            right[first : first + len(part)] = part
        return left, right
