"""Replay that goes on live: what was not recorded is answered by the real provider, on the wall clock.

The call is played in real time, since a real provider takes real time. Each request is answered as
it was recorded, or else by the agent's own provider; every such answer is told, so that nobody takes
the result for a replay.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

from voicectl.assemble import Engine, rules_of
from voicectl.audio import Resampler
from voicectl.clock import Clock, run_on
from voicectl.errors import RecordingError
from voicectl.keys import FindKey
from voicectl.pipeline.protocols import (
    Llm,
    LlmChunk,
    LlmRequest,
    Message,
    Parts,
    Progress,
    Providers,
    Stt,
    SttStream,
    TextDelta,
    Transcript,
    Tts,
    TtsRequest,
    TurnModel,
    TurnModelStream,
)
from voicectl.providers.recorded import NotRecorded, replayed
from voicectl.recording import Recording
from voicectl.replay.call import Kept, run_again
from voicectl.spec import ResolvedAgent

OnLive = Callable[[str], None]
"""Told what was not recorded and is answered live."""


def replay_live(kept: Kept, agent: ResolvedAgent, find_key: FindKey, progress: Progress) -> tuple[Recording, list[str]]:
    """Run the call again on the wall clock, and say what was answered live.

    Raises:
        ProviderError: a real provider cannot serve.
    """

    async def main(clock: Clock) -> tuple[Recording, list[str]]:
        engine = Engine(agent, clock, find_key=find_key)
        try:
            await engine.start(progress)
            progress(f"playing {kept.path.name} in real time: {kept.recording.seconds:.0f} s")
            live: list[str] = []
            providers = or_live(replayed(kept.streams, clock), engine.providers, live.append)
            return await run_again(kept, rules_of(agent), providers, clock), live
        finally:
            await engine.aclose()

    return run_on("wall", main)


def or_live(recorded: Parts, live: Parts, on_live: OnLive) -> Providers:
    """Recorded providers that hand over what they do not hold. The VAD heard the whole call.

    Raises:
        RecordingError: the call was, or would be, a speech-to-speech model's.
    """
    if not (isinstance(recorded, Providers) and isinstance(live, Providers)):
        raise RecordingError(
            "cannot go on live: a speech-to-speech model would not remember what was said before",
            hint="Use --on-miss nearest, or make the call again",
        )
    return Providers(
        recorded.vad,
        _OrLiveStt(recorded.stt, live.stt, on_live),
        _OrLiveLlm(recorded.llm, live.llm, on_live),
        _OrLiveTts(recorded.tts, live.tts, on_live),
        _OrLiveTurnModel(recorded.turn_model, live.turn_model, on_live)
        if recorded.turn_model and live.turn_model
        else None,
    )


class _OrLive:
    def __init__(self, name: str, on_live: OnLive) -> None:
        self.name = name
        self._on_live = on_live

    async def start(self, progress: Progress) -> None:
        """Both were started by their owners."""

    async def aclose(self) -> None:
        """Both are closed by their owners."""


class _OrLiveStt(_OrLive):
    def __init__(self, recorded: Stt, live: Stt, on_live: OnLive) -> None:
        super().__init__(live.name, on_live)
        self._recorded = recorded
        self._live = live

    def open(self, start: float) -> SttStream:
        return _OrLiveSttStream(self._recorded.open(start), lambda: self._live.open(start), self._on_live)


class _OrLiveSttStream:
    def __init__(self, recorded: SttStream, open_live: Callable[[], SttStream], on_live: OnLive) -> None:
        self._recorded = recorded
        self._open_live = open_live
        self._on_live = on_live
        self._live: SttStream | None = None
        self._heard = bytearray()
        self._flushes = 0

    def push(self, pcm: bytes) -> None:
        if self._live:
            self._live.push(pcm)
        else:
            self._heard += pcm
            self._recorded.push(pcm)

    def flush(self) -> None:
        self._flushes += 1
        (self._live or self._recorded).flush()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        try:
            async for transcript in self._recorded:
                yield transcript
            return
        except NotRecorded as miss:
            self._on_live(str(miss))
        self._live = self._open_live()
        self._live.push(bytes(self._heard))
        self._live.flush()
        before = self._flushes - 1  # answered by the recording, or overtaken
        async for transcript in self._live:
            yield replace(transcript, flush=transcript.flush and transcript.flush + before)

    async def aclose(self) -> None:
        await self._recorded.aclose()
        if self._live:
            await self._live.aclose()


class _OrLiveTurnModel(_OrLive):
    def __init__(self, recorded: TurnModel, live: TurnModel, on_live: OnLive) -> None:
        super().__init__(live.name, on_live)
        self._recorded = recorded
        self._live = live

    def open(self) -> TurnModelStream:
        return _OrLiveTurnModelStream(self._recorded.open(), self._live.open(), self._on_live)


class _OrLiveTurnModelStream:
    def __init__(self, recorded: TurnModelStream, live: TurnModelStream, on_live: OnLive) -> None:
        self._recorded = recorded
        self._live = live
        self._on_live = on_live

    def push(self, pcm: bytes) -> None:
        self._recorded.push(pcm)
        self._live.push(pcm)

    async def score(self, start: float) -> float:
        try:
            return await self._recorded.score(start)
        except NotRecorded as miss:
            self._on_live(str(miss))
        return await self._live.score(start)


class _OrLiveLlm(_OrLive):
    def __init__(self, recorded: Llm, live: Llm, on_live: OnLive) -> None:
        super().__init__(live.name, on_live)
        self._recorded = recorded
        self._live = live

    async def warm(self, messages: tuple[Message, ...]) -> None:
        await self._live.warm(messages)

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        said = 0
        try:
            async with aclosing(self._recorded.generate(request)) as chunks:
                async for chunk in chunks:
                    said += len(chunk.text) if isinstance(chunk, TextDelta) else 0
                    yield chunk
            return
        except NotRecorded as miss:
            self._on_live(str(miss))
        async with aclosing(self._live.generate(request)) as chunks:
            async for chunk in chunks:
                if not isinstance(chunk, TextDelta):
                    yield chunk
                    continue
                rest = chunk.text[said:]  # of an answer that was cut, its beginning has been said
                said -= len(chunk.text) - len(rest)
                if rest:
                    yield TextDelta(rest)


class _OrLiveTts(_OrLive):
    def __init__(self, recorded: Tts, live: Tts, on_live: OnLive) -> None:
        super().__init__(live.name, on_live)
        self._recorded = recorded
        self._live = live
        self.rate = recorded.rate

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        spoken = 0
        try:
            async with aclosing(self._recorded.synthesize(request)) as audio:
                async for pcm in audio:
                    spoken += len(pcm)
                    yield pcm
            return
        except NotRecorded as miss:
            self._on_live(str(miss))
        resampler = Resampler(self._live.rate, self.rate)
        async with aclosing(self._live.synthesize(request)) as audio:
            async for pcm in audio:
                piece = resampler.push(pcm)
                rest = piece[spoken:]
                spoken -= len(piece) - len(rest)
                yield rest
        yield resampler.flush()
