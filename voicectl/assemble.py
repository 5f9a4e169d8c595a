"""The composition root: a resolved spec becomes providers, a transport and a session.

Everything else is handed what it needs; only here is it known what belongs together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from voicectl import __version__
from voicectl.call_wav import CallWav
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import Event, UtterancePlayed
from voicectl.keys import FindKey
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.idle import IdleRules
from voicectl.pipeline.protocols import (
    LineRecorder,
    Llm,
    Message,
    Parts,
    Providers,
    S2s,
    SpeechProviders,
    Transport,
    Tts,
)
from voicectl.pipeline.session import AgentRules, FillerRules, Session
from voicectl.pipeline.turn_taking import TurnRules
from voicectl.prices import PriceTable, list_prices
from voicectl.providers import CATALOG, KEYS, ProviderCatalog
from voicectl.providers.recording import recorded_to
from voicectl.recording import SOUND_NAME, SPEC_NAME, TRACE_NAME, begin, seal, show
from voicectl.resilience.chain import Link, chain, start_chain
from voicectl.resilience.notes import CallNotes, NoNotes
from voicectl.spec import ResolvedAgent
from voicectl.spec.catalog import CHAIN
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
            sustain_adds_up=agent.s2s is not None,
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
    """One agent's providers, started once and shared by all its calls.

    Args:
        seed: of what is drawn by lot (waits between attempts).
        find_key: where keys come from (None: the SDKs look into the environment).
        prices: say who is paid, so that what they are asked for is noted (None: the list prices).
    """

    def __init__(
        self,
        agent: ResolvedAgent,
        clock: Clock,
        catalog: ProviderCatalog = CATALOG,
        seed: int = 0,
        *,
        find_key: FindKey | None = None,
        prices: PriceTable | None = None,
    ) -> None:
        self.agent = agent
        self._clock = clock
        self._seed = seed
        self._calls = 0
        self._rules = rules_of(agent)
        self._built: dict[str, Any] = {}  # what has no fallback
        self._links: dict[str, list[Link]] = {}
        prices = prices or list_prices()
        for stage, choice in agent.stages().items():
            every = [(one, catalog.load(stage, one.provider)) for one in (choice, *choice.fallback)]
            built = [(one, make(one.options, one.model, clock, **_key(one.provider, find_key))) for one, make in every]
            if stage in CHAIN:
                self._links[stage] = [
                    Link(stage, one, provider, clock, paid=prices.bills(stage, one.provider)) for one, provider in built
                ]
            else:
                self._built[stage] = built[0][1]

    async def start(self, progress: Progress) -> None:
        """Load and warm every stage; the first caller waits no longer than the tenth.

        Raises:
            ProviderError: a stage cannot serve, nor can a fallback of it.
        """
        await self._built["vad"].start(progress)
        for links in self._links.values():
            await start_chain(links, progress)
        for stage, provider in self._built.items():
            if stage != "vad":
                await provider.start(progress)
        if "llm" in self._links:
            await self._warm(progress)

    async def _warm(self, progress: Progress) -> None:
        """Let every LLM read how its conversations will begin, also those that wait to take over."""
        opening = [Message("system", self._rules.instructions)]
        if self._rules.greeting:
            opening.append(Message("assistant", self._rules.greeting))
        progress("warming up the conversation")
        links = self._links["llm"]
        for link in links:
            llm = cast(Llm, link.provider)
            try:
                if not link.resting():
                    await llm.warm(tuple(opening))
            except ProviderError as error:
                if len(links) == 1:
                    raise
                progress(f"could not be warmed up: {error}")

    @property
    def providers(self) -> Parts:
        """All stages, for whoever makes calls of another kind with them; what they note is lost."""
        return self.for_call(NoNotes())

    def for_call(self, notes: CallNotes, trace: Trace | None = None) -> Parts:
        """All stages of one call, with what helps when they fail.

        Args:
            trace: of a caller who is played, from which a scripted STT knows what was said.
        """
        if "s2s" in self._built:
            return SpeechProviders(**self._built | {"s2s": _told(self._built["s2s"], trace)})
        import numpy as np

        lots = np.random.default_rng([self._seed, self._calls])
        self._calls += 1
        stages = {
            stage: chain(links, self._clock, notes, lots, [_told(link.provider, trace) for link in links])
            for stage, links in self._links.items()
        }
        return Providers(**self._built, **stages)

    async def aclose(self) -> None:
        for provider in (*self._built.values(), *(link for links in self._links.values() for link in links)):
            await provider.aclose()

    async def answer(self, caller: Caller, folder: Path, listen: Callable[[Event], None] | None = None) -> Trace:
        """Let the agent answer one recorded caller, and keep the call in `folder`.

        Args:
            listen: told every event as it happens.

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

        return await self.call(line, folder, listen=listen)

    async def call(
        self,
        line: Callable[[Trace], Transport],
        folder: Path,
        on_session: Callable[[Session], None] = lambda session: None,
        listener: LineRecorder | None = None,
        listen: Callable[[Event], None] | None = None,
    ) -> Trace:
        """Let the agent answer whoever is on the line, and keep the call in `folder`.

        Args:
            line: makes the line of this call, which may note events in its trace.
            on_session: told the session before it runs.
            listener: hears both sides, too.
            listen: told every event as it happens.

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
        if listen:
            trace.listen(listen)
        rate = self.agent.line.rate
        call_wav = CallWav(hidden / SOUND_NAME, rate)
        show(hidden, folder)
        notes = _Notes(trace, log)
        providers = recorded_to(log, self._for_call(notes))
        recorder = _Both(call_wav, listener) if listener else call_wav
        session = Session(self._rules, providers, line(trace), self._clock, trace, recorder)
        notes.now = log.now = session.now
        on_session(session)
        try:
            await session.run()
        finally:
            trace.close()
            log.close()
            await self._clock.run(seal, folder)
        return trace

    def _for_call(self, notes: _Notes) -> Parts:
        """All files of the recording have begun: what the call is made with."""
        return self.for_call(notes, notes.trace)

    def _stream_header(self) -> dict[str, Any]:
        """What replay must know of the providers."""
        stages = self.agent.stages()
        speaks = "s2s" if "s2s" in self._built else "tts"
        voice = cast("S2s | Tts", self._built["s2s"] if speaks == "s2s" else self._links["tts"][0].provider)
        return {
            "vad_window_s": self._built["vad"].window_s,
            f"{speaks}_rate": voice.rate,
            "providers": {stage: [choice.provider, choice.model] for stage, choice in stages.items()},
        }


def _key(provider: str, find_key: FindKey | None) -> dict[str, str]:
    """The key as the provider takes it, where it needs one and there is one."""
    key = find_key(KEYS[provider]) if find_key and provider in KEYS else None
    return {"api_key": key} if key else {}


class _Notes:
    """What is decided for a call goes into its trace, and with the stream it was decided for into its
    recording. The session, whose time it is, comes later than the providers."""

    def __init__(self, trace: Trace, log: StreamLog) -> None:
        self.trace = trace
        self._log = log
        self.now: Callable[[], float] = lambda: 0.0

    def note(self, event: Event) -> None:
        self.trace.append(event)
        self._log.noted(event)


def _told(provider: Any, trace: Trace | None) -> Any:
    """What is scripted hears the truth beside the recording; it is told anew for each call."""
    if trace is None or not hasattr(provider, "for_call"):
        return provider

    def truth(start: float, end: float) -> str | None:
        said = [
            played.text or " ".join((played.slots or {}).values())
            for played in trace.of(UtterancePlayed)
            if played.voiced_from < end and played.voiced_until > start
        ]
        known = " ".join(filter(None, said))
        return known or (None if said else "")

    return provider.for_call(truth)
