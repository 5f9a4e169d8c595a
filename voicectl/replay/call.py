"""One recorded call, run again. In: a recording with its streams. Out: what happens now.

The caller's channel plays at the times it was spoken, the providers answer with the timing they
had, and the session, the turn-taking and the endpointing are today's. Nothing is read but the
recording, nothing is written; the result is a `Recording` like any other, in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voicectl.assemble import rules_of
from voicectl.audio import FRAME_S
from voicectl.clock import Clock, run_on
from voicectl.errors import RecordingError
from voicectl.events import LINE_EVENTS, CallEnded, CallStarted, DeviceOpened, Event, ProviderFailed
from voicectl.pipeline.protocols import Parts
from voicectl.pipeline.session import AgentRules, Session
from voicectl.providers import CATALOG
from voicectl.providers.recorded import OnMiss, OnNearest, note_to, replayed
from voicectl.recording import SPEC_NAME, Recording, open_recording
from voicectl.spec import ResolvedAgent, load_resolved
from voicectl.streams import Streams, read_streams
from voicectl.trace import Trace
from voicectl.transports.recorded import AFTER_S, RecordedLine

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

    @property
    def until(self) -> float | None:
        """Where the call breaks off, in seconds: nothing is known from there on. None: it came to its end."""
        was = self.recording
        ended = was.events[-1] if was.events else None
        if was.sealed and isinstance(ended, CallEnded) and ended.reason == "caller hung up":
            return None
        return int(was.seconds / FRAME_S + 1e-6) * FRAME_S


def open_kept(folder: Path, overrides: Sequence[str] = ()) -> Kept:
    """Open a recording for replay.

    Args:
        overrides: changes to its spec, as `--set` gives them.

    Raises:
        RecordingError: it is not one, or a part of it is missing or not what was written.
        SpecError: its spec cannot be read by this voicectl, or an override is wrong.
    """
    recording = open_recording(folder)
    return Kept(recording, read_streams(folder), agent_of(folder, overrides))


def agent_of(folder: Path, overrides: Sequence[str] = ()) -> ResolvedAgent:
    """The agent of a recording, with changes. The calls of a run have the same: it is read once.

    Raises:
        RecordingError: it has no spec.
        SpecError: its spec cannot be read by this voicectl, or an override is wrong.
    """
    spec = folder / SPEC_NAME
    if not spec.is_file():
        raise RecordingError(f"cannot be replayed: it has no {SPEC_NAME}", where=str(folder))
    key = spec.read_bytes(), tuple(overrides)
    if key not in _AGENTS:
        if len(_AGENTS) == _MOST_AGENTS:
            _AGENTS.clear()
        _AGENTS[key] = load_resolved(spec, CATALOG, overrides)
    return _AGENTS[key]


_AGENTS: dict[tuple[bytes, tuple[str, ...]], ResolvedAgent] = {}
_MOST_AGENTS = 1_000


def replay(
    kept: Kept,
    agent: ResolvedAgent | None = None,
    on_miss: OnMiss = "fail",
    on_nearest: OnNearest = lambda miss: None,
) -> Recording:
    """Run the call again, with its own agent or another.

    A call that was cut is replayed up to its cut. What the pipeline asks for and the recording
    does not hold is a `ProviderFailed` of a `...:recorded` provider in the result.
    """
    rules = rules_of(agent or kept.agent)
    return run_on(
        "virtual", lambda clock: run_again(kept, rules, replayed(kept.streams, clock, on_miss, on_nearest), clock)
    )


def missed(events: Sequence[Event]) -> list[ProviderFailed]:
    """What was asked for and had not been recorded."""
    return [event for event in events if isinstance(event, ProviderFailed) and event.provider.endswith(":recorded")]


async def run_again(kept: Kept, rules: AgentRules, providers: Parts, clock: Clock) -> Recording:
    """The call with these rules and providers, on this clock."""
    was = kept.recording
    started = [event for event in was.events if isinstance(event, CallStarted)]
    caller = started[0].caller if started else was.path.name
    trace = Trace(header={key: value for key, value in was.header.items() if key != "voicectl_trace"})
    played = [event for event in was.events if isinstance(event, LINE_EVENTS)]
    # Who spoke into a microphone hung up when they did, whatever the agent had still to say.
    alive = any(isinstance(event, DeviceOpened) for event in was.events)
    after_s = AFTER_S if kept.until is None and not alive else 0.0
    line = RecordedLine(caller, was.left.tobytes(), was.rate, played, clock=clock, trace=trace, after_s=after_s)
    sound = _Sound(was.rate)
    session = Session(rules, providers, line, clock, trace, sound)
    note_to(providers, session)
    line.on_act = lambda event: session.act(event.act, event.text)
    await session.run()
    left, right = sound.channels()
    cut = was.cut or (None if kept.until is None else f"the call was stopped at {kept.until:.2f} s")
    return Recording(was.path, trace.header, tuple(trace.events), cut, was.rate, left, right, was.sealed)


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
