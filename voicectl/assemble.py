"""The composition root: a resolved spec becomes providers, a transport and a session.

Everything else is handed what it needs; only here is it known what belongs together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from voicectl import __version__
from voicectl.call_wav import CallWav
from voicectl.clock import Clock
from voicectl.events import UtterancePlayed
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.idle import IdleRules
from voicectl.pipeline.protocols import LineRecorder, Message, Provider, Providers, Transport
from voicectl.pipeline.session import AgentRules, FillerRules, Session
from voicectl.pipeline.turn_taking import TurnRules
from voicectl.providers import CATALOG, ProviderCatalog
from voicectl.providers.recording import recorded_to
from voicectl.recording import SOUND_NAME, SPEC_NAME, TRACE_NAME, begin, seal, show
from voicectl.spec import ResolvedAgent
from voicectl.streams import StreamLog
from voicectl.trace import Trace, storage_error
from voicectl.transports.caller import Caller
from voicectl.transports.wav import WavTransport

Progress = Callable[[str], None]


def rules_of(agent: ResolvedAgent) -> AgentRules:
    """The spec as the pipeline needs it: seconds, and no provider."""
    turn = agent.turn
    endpointing, interruption = turn.endpointing, turn.interruption
    idle, filler = turn.idle, turn.filler
    return AgentRules(
        name=agent.name,
        instructions=agent.instructions.strip(),
        notice=agent.notice or "",
        greeting=agent.greeting or "",
        greeting_protected=not interruption.greeting,
        endpointing=EndpointingRules(
            threshold=agent.vad_threshold,
            min_speech_s=endpointing.min_speech_s,
            pause_s=endpointing.pause_s,
            silence_s=endpointing.silence_s,
            min_silence_s=endpointing.min_silence_s,
            max_silence_s=endpointing.max_silence_s,
            strategies=endpointing.strategy,
            notice_s=interruption.hold_s if interruption.enabled else 0.0,
            sustain_s=interruption.min_speech_s,
            language=agent.language.partition("-")[0],
        ),
        turns=TurnRules(
            speculate=turn.speculation,
            interruptible=interruption.enabled,
            min_words=interruption.min_words,
            backchannels=frozenset(word.lower() for word in interruption.backchannels),
            commands=frozenset(word.lower() for word in interruption.commands),
            ask_at_pause=endpointing.strategy != ("provider",),
        ),
        idle=IdleRules(idle.after_ms / 1000, idle.prompts, idle.goodbye or "") if idle else None,
        filler=FillerRules(filler.after_ms / 1000, filler.texts) if filler else None,
        first_clause_words=turn.first_clause_words,
        max_history_turns=turn.max_history_turns,
    )


class _Both:
    """Two that keep both sides of the line."""

    def __init__(self, *recorders: LineRecorder) -> None:
        self._recorders = recorders

    def caller(self, pcm: bytes) -> None:
        for recorder in self._recorders:
            recorder.caller(pcm)

    def agent(self, pcm: bytes, at: float) -> None:
        for recorder in self._recorders:
            recorder.agent(pcm, at)

    def close(self) -> None:
        for recorder in self._recorders:
            recorder.close()


class Engine:
    """One agent's providers, started once and shared by all its calls."""

    def __init__(self, agent: ResolvedAgent, clock: Clock, catalog: ProviderCatalog = CATALOG) -> None:
        self.agent = agent
        self._clock = clock
        self._rules = rules_of(agent)
        built: dict[str, Any] = {}
        for stage, choice in agent.stages().items():
            built[stage] = catalog.load(stage, choice.provider)(choice.options, choice.model, clock)
        self._providers = Providers(**built)

    async def start(self, progress: Progress) -> None:
        """Load and warm every stage; the first caller waits no longer than the tenth.

        Raises:
            ProviderError: a stage cannot serve.
        """
        for provider in self._all():
            await provider.start(progress)
        opening = [Message("system", self._rules.instructions)]
        if self._rules.greeting:
            opening.append(Message("assistant", self._rules.greeting))
        progress("warming up the conversation")
        await self._providers.llm.warm(tuple(opening))

    @property
    def providers(self) -> Providers:
        """The four stages, for whoever makes calls of another kind with them."""
        return self._providers

    async def aclose(self) -> None:
        for provider in self._all():
            await provider.aclose()

    async def answer(self, caller: Caller, folder: Path) -> Trace:
        """Let the agent answer one recorded caller, and keep the call in `folder`.

        Raises:
            StorageError: the recording cannot be written.
        """

        def line(trace: Trace) -> Transport:
            return WavTransport(
                caller,
                rate=self.agent.line.rate,
                greeted=bool(self._rules.notice or self._rules.greeting),
                no_answer_s=self.agent.turn.no_answer_s,
                clock=self._clock,
                trace=trace,
            )

        return await self.call(line, folder)

    async def call(
        self,
        line: Callable[[Trace], Transport],
        folder: Path,
        on_session: Callable[[Session], None] = lambda session: None,
        listener: LineRecorder | None = None,
    ) -> Trace:
        """Let the agent answer whoever is on the line, and keep the call in `folder`.

        Args:
            line: makes the line of this call, which may note events in its trace.
            on_session: told the session before it runs.
            listener: hears both sides, too.

        Raises:
            StorageError: the recording cannot be written.
        """
        hidden = begin(folder)
        try:
            (hidden / SPEC_NAME).write_text(self.agent.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise storage_error(folder, error) from error
        header = {"voicectl": __version__, "agent": self.agent.name, "profile": self.agent.profile}
        log = StreamLog(hidden, {**header, **self._stream_header()})
        trace = Trace(hidden / TRACE_NAME, header)
        rate = self.agent.line.rate
        call_wav = CallWav(hidden / SOUND_NAME, rate)
        show(hidden, folder)
        providers = recorded_to(log, self._for_call(trace))
        recorder = _Both(call_wav, listener) if listener else call_wav
        session = Session(self._rules, providers, line(trace), self._clock, trace, recorder)
        log.now = session.now
        on_session(session)
        try:
            await session.run()
        finally:
            trace.close()
            log.close()
            await self._clock.run(seal, folder)
        return trace

    def _for_call(self, trace: Trace) -> Providers:
        """A scripted STT hears the truth beside the recording; it is told anew for each call."""
        stt: Any = self._providers.stt
        if not hasattr(stt, "for_call"):
            return self._providers

        def truth(start: float, end: float) -> str | None:
            said = [
                played.text or " ".join((played.slots or {}).values())
                for played in trace.of(UtterancePlayed)
                if played.voiced_from < end and played.voiced_until > start
            ]
            known = " ".join(filter(None, said))
            return known or (None if said else "")

        return replace(self._providers, stt=stt.for_call(truth))

    def _stream_header(self) -> dict[str, Any]:
        """What replay must know of the providers."""
        stages = self.agent.stages()
        return {
            "vad_window_s": self._providers.vad.window_s,
            "tts_rate": self._providers.tts.rate,
            "providers": {stage: [choice.provider, choice.model] for stage, choice in stages.items()},
        }

    def _all(self) -> tuple[Provider, ...]:
        parts = self._providers
        return (parts.vad, parts.stt, parts.llm, parts.tts, *([parts.turn_model] if parts.turn_model else []))
