"""voicectl in the side-by-side harness: its own `Session`, with its Deepgram, OpenAI and Cartesia providers.

The harness (`worker.py`, whose contract this file fulfils) imports it as `adapters.voicectl_`. What lives
here: a line that is fed by `push()` and empties into the sink, and the three modes as agent specs. Nothing of
the engine is replaced; there is no recorder, and the trace stays in memory.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voicectl.assemble import rules_of
from voicectl.audio import FRAME_S
from voicectl.clock import Clock
from voicectl.events import AgentInterrupted, AgentPaused, Event, PlayoutStarted, TurnEnded
from voicectl.pipeline.protocols import Frame, Providers
from voicectl.pipeline.session import Session
from voicectl.providers import CATALOG
from voicectl.spec import ResolvedAgent, resolve
from voicectl.trace import Trace

VERSIONS = {name: version(name) for name in ("voicectl", "deepgram-sdk", "openai", "cartesia", "websockets")}

RATE = 16_000

AGENT = """
agents:
  peer:
    instructions: You are a helpful assistant.
    vad: {{provider: {vad}}}
    stt: {{provider: deepgram, options: {{base_url: "http://{mock}"}}}}
    llm: {{provider: openai, model: mock, options: {{base_url: "http://{mock}/v1"}}}}
    tts: {{provider: cartesia, options: {{base_url: "http://{mock}", voice: mock}}}}
"""

MODES: dict[str, list[str]] = {
    "default": [],
    # The VAD's silence and nothing after it.
    "equal": ["turn.endpointing.strategy=silence", "turn.endpointing.silence_ms=200"],
    # The STT's own end of turn; the cheap VAD only says when somebody begins to speak.
    "min": ["turn.endpointing.strategy=provider"],
}

_shared: dict[str, Any] = {}
"""What a process has once for all sessions: the agent, the clock, the VAD, the end-of-turn model."""


async def setup(cfg: Any) -> None:
    clock = Clock("wall")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agents.yaml"
        file.write_text(AGENT.format(mock=cfg.mock, vad="webrtc" if cfg.mode == "min" else "local"))
        agent = resolve("peer", None, MODES[cfg.mode], env={}, catalog=CATALOG, agents_file=file)
    _shared.update(agent=agent, clock=clock)
    for stage in ("vad", "turn_model"):
        if choice := agent.stages().get(stage):
            provider = CATALOG.load(stage, choice.provider)(choice.options, choice.model, clock)
            await provider.start(_silent)
            _shared[stage] = provider


async def start(sid: str, cfg: Any, sink: Any) -> PeerSession:
    agent: ResolvedAgent = _shared["agent"]
    clock: Clock = _shared["clock"]
    own: dict[str, Any] = {}
    for stage in ("stt", "llm", "tts"):
        choice = agent.stage(stage)
        own[stage] = CATALOG.load(stage, choice.provider)(choice.options, choice.model, clock, api_key=sid)
        await own[stage].start(_silent)
    providers = Providers(vad=_shared["vad"], turn_model=_shared.get("turn_model"), **own)
    return PeerSession(agent, providers, clock, sink)


class PeerSession:
    """One call. It begins with the first frame, so that its time is the time of the audio."""

    def __init__(self, agent: ResolvedAgent, providers: Providers, clock: Clock, sink: Any) -> None:
        self.reported: list[tuple[float, float]] = []
        self._providers = providers
        self._clock = clock
        self._line = PeerLine(clock, sink)
        self._trace = Trace()
        self._trace.listen(self._watch)
        self._sink = sink
        self._session = Session(rules_of(agent), providers, self._line, clock, self._trace)
        self._call: asyncio.Task[None] | None = None
        self._speech_end: float | None = None

    async def push(self, pcm: bytes) -> None:
        if self._call is None:  # this frame has been spoken already: the call begins at its end
            self._call = self._clock.spawn(self._session.run(), name="session")
        else:
            self._line.feed(pcm)

    async def close(self) -> None:
        self._line.hang_up()
        if self._call:
            await self._call
        for provider in (self._providers.stt, self._providers.llm, self._providers.tts):
            await provider.aclose()

    def _watch(self, event: Event) -> None:
        if isinstance(event, TurnEnded):
            self._speech_end = event.speech_end
        elif isinstance(event, PlayoutStarted) and self._speech_end is not None:
            self.reported.append((time.monotonic(), event.at - self._speech_end))
            self._speech_end = None
        elif isinstance(event, AgentInterrupted | AgentPaused):
            self._sink.clear()


class PeerLine:
    """The line of one call: frames in as the harness pushes them, frames out to its sink at once."""

    rate = RATE
    caller = "stimulus"

    def __init__(self, clock: Clock, sink: Any) -> None:
        self._clock = clock
        self._sink = sink
        self._start = 0.0
        self._frames: deque[bytes] = deque()
        self._fed = asyncio.Event()
        self._over = False

    def feed(self, pcm: bytes) -> None:
        self._frames.append(pcm)
        self._fed.set()

    def hang_up(self) -> None:
        self._over = True
        self._fed.set()

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        self._start = start
        index = 0
        while not self._over:
            while self._frames:
                yield Frame(self._frames.popleft(), index * FRAME_S)
                index += 1
            self._fed.clear()
            await self._fed.wait()

    def send(self, pcm: bytes) -> float:
        if pcm:
            self._sink.write(pcm, RATE)
        return self._clock.now() - self._start

    async def aclose(self) -> None:
        """Nothing is held open."""


def _silent(text: str) -> None:
    """Progress is for people."""
