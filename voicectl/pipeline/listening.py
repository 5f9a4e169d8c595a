"""The caller's side of a call: frames go to the VAD, the STT and the end-of-turn model, facts come out.

A speech-to-speech model hears the caller in the STT's place. It tells no words in time, only that there
was speech.

What lives here: who is given which audio and when, and what came of it, told to the session as
inputs of the turn-taking. What must not: what to do about it (`turn_taking`, `session`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from voicectl.audio import PIPELINE_RATE
from voicectl.errors import ProviderError
from voicectl.events import Event, SpeechPaused, SpeechStarted, TranscriptUpdated, TurnEnded, TurnJudged
from voicectl.pipeline.endpointing import (
    Ended,
    Endpointer,
    EndpointingRules,
    Fact,
    Judged,
    Noticed,
    Paused,
    Resumed,
    Started,
    Sustained,
)
from voicectl.pipeline.protocols import Parts, Providers, S2sStream, SttStream, Transcript
from voicectl.pipeline.turn_taking import SPEECH, EndLikely, Heard, HeardSoFar, Input

PREROLL_S = 0.3
"""How much audio before the VAD's onset the STT gets: a first consonant is quieter than the vowel."""

_ECHO_LOOK = 5  # frames: so often an echo is looked at again

_MEMORY_S = 2.0  # how far back `listen` may reach


class Call(Protocol):
    """What the ears belong to."""

    @property
    def turn(self) -> int:
        """The caller's turn under way, or the last."""
        ...

    @property
    def asked(self) -> int:
        """How often the STT was asked in it."""
        ...

    @property
    def question(self) -> str:
        """What the agent said last."""
        ...

    def hears_itself(self) -> bool | None:
        """Whether what is heard now is the agent's own sound coming back. None: nothing is heard."""
        ...

    def heard_so_far(self, text: str) -> None:
        """The text of the turn, which goes on."""
        ...

    def now(self) -> float: ...
    def note(self, event: Event) -> None: ...
    def step(self, happened: Input) -> None: ...
    def failed(self, stage: str, error: ProviderError) -> None: ...
    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]: ...


class Ears:
    """One caller, heard frame by frame.

    Args:
        model: hears the caller itself, in the place of an STT.
    """

    def __init__(self, rules: EndpointingRules, providers: Parts, call: Call, model: S2sStream | None = None) -> None:
        self._call = call
        self._stt_provider = providers.stt if isinstance(providers, Providers) else None
        self._model = model
        self._model_hears = False
        self._vad = providers.vad.open()
        self._endpointer = Endpointer(rules, providers.vad.window_s)
        self._judging = set(rules.strategies) - {"silence", "provider"}
        turn_model = providers.turn_model if "audio" in rules.strategies else None
        self._turn_model = turn_model.open() if turn_model else None
        self._recent = _Recent()
        self._stt: SttStream | None = None
        self._listening: asyncio.Task[None] | None = None
        self._scoring: asyncio.Task[None] | None = None
        self._started_at = 0.0  # of the turn
        self._echo = False  # all that was heard in this turn
        self._frames = 0

    def hear(self, pcm: bytes) -> None:
        """The caller's next frame at PIPELINE_RATE."""
        self._recent.add(pcm)
        if self._stt:
            self._stt.push(pcm)
        if self._model and self._model_hears:
            self._model.push(pcm)
        if self._turn_model:
            self._turn_model.push(pcm)
        for probability in self._vad.push(pcm):
            self._happened(self._endpointer.feed(probability))
        self._frames += 1
        if self._echo and self._frames % _ECHO_LOOK == 0 and self._call.hears_itself() is False:
            self._echo = False  # somebody speaks over it
            self._call.step(Noticed(self._call.now()))

    def listen(self, at: float, *, on_top: bool = False) -> None:
        """Open an STT stream for what is said from `at` on. `on_top`: what a model has heard before is
        still to be answered."""
        self.stop()
        start, pcm = self._recent.since(at - PREROLL_S)
        if self._model:
            if not on_top:
                self._model.forget()
            self._model.hear_from(start)
            self._model.push(pcm)
            self._model_hears = True
        if not self._stt_provider:
            return
        stream = self._stt_provider.open(start)
        stream.push(pcm)
        self._stt = stream
        self._listening = self._call.spawn(self._transcribe(stream), name=f"turn {self._call.turn} stt")

    def ask(self) -> None:
        """Ask the STT for the text so far."""
        if self._stt:
            self._stt.flush()
        elif self._model_hears:
            self._call.step(Heard(self._call.turn, SPEECH, self._call.asked, self._echo))
        else:
            self._hear_nothing()

    def stop(self) -> None:
        """Stop listening to this turn."""
        if self._listening:
            self._listening.cancel()
        self._listening = self._stt = None
        self._model_hears = False
        self._stop_scoring()

    # What becomes true -----------------------------------------------------------------------

    def _happened(self, facts: list[Fact]) -> None:
        for fact in facts:
            self._note(fact)
            if not self._is_echo(fact):
                self._call.step(replace(fact, echo=self._echo) if isinstance(fact, Started) else fact)
            if self._turn_model:
                self._score_pause(fact)

    def _is_echo(self, fact: Fact) -> bool:
        """Whether this must not make the agent listen up, since it hears itself."""
        match fact:
            case Started():
                self._echo = self._call.hears_itself() is True
            case Noticed() | Sustained() | Paused() | Resumed():
                self._echo = self._echo and self._call.hears_itself() is not False
            case _:
                pass
        return self._echo and isinstance(fact, Noticed | Sustained)

    def _note(self, fact: Fact) -> None:
        call = self._call
        match fact:
            case Started(at):
                self._started_at = at
                call.note(SpeechStarted(at=at, noted_at=call.now(), turn=call.turn + 1))
            case Resumed(at):
                call.note(SpeechStarted(at=at, noted_at=call.now(), turn=call.turn))
            case Paused(at):
                call.note(SpeechPaused(at=at, noted_at=call.now(), turn=call.turn))
            case Judged(at, wait, scores, reason):
                now, known = call.now(), dict(scores)
                call.note(TurnJudged(at=at, noted_at=now, turn=call.turn, wait=wait, scores=known, reason=reason))
            case Ended(at, reason, scores):
                now, known = call.now(), dict(scores) or None
                call.note(TurnEnded(at=now, turn=call.turn, speech_end=at, reason=reason, scores=known))
            case _:
                pass

    # The words ---------------------------------------------------------------------------------

    async def _transcribe(self, stream: SttStream) -> None:
        try:
            async for transcript in stream:
                if stream is self._stt:  # else it was stopped
                    self._heard(transcript)
        except ProviderError as error:
            self._call.failed("stt", error)
        finally:
            await stream.aclose()
        if stream is self._stt:  # it failed or gave up: what it was asked for will never come
            self._listening = self._stt = None
            self._hear_nothing()

    def _heard(self, transcript: Transcript) -> None:
        call = self._call
        turn, text = call.turn, transcript.text
        final = transcript.final or transcript.turn_end == "over"
        call.note(TranscriptUpdated(at=call.now(), turn=turn, text=text, final=final))
        if transcript.final:
            call.step(Heard(turn, text, transcript.flush, self._echo))
            if self._judging and transcript.flush == call.asked and turn == call.turn:
                self._happened(self._endpointer.hear(text, call.question))
        else:
            call.step(HeardSoFar(turn, text, self._echo))
            call.heard_so_far(text)
        if transcript.turn_end and turn == call.turn:
            facts = self._endpointer.provider_said(transcript.turn_end)
            self._happened([fact for fact in facts if not isinstance(fact, Ended)])
            call.step(Resumed(call.now()) if transcript.turn_end == "resumed" else EndLikely(turn, text))
            self._happened([fact for fact in facts if isinstance(fact, Ended)])

    def _hear_nothing(self) -> None:
        self._call.step(Heard(self._call.turn, "", self._call.asked))

    # The sound -----------------------------------------------------------------------------------

    def _score_pause(self, fact: Fact) -> None:
        match fact:
            case Paused():
                self._stop_scoring()
                self._scoring = self._call.spawn(self._score(self._started_at), name=f"turn {self._call.turn} model")
            case Started() | Resumed() | Ended():
                self._stop_scoring()
            case _:
                pass

    async def _score(self, start: float) -> None:
        assert self._turn_model
        try:
            probability = await self._turn_model.score(start)
        except ProviderError as error:
            self._call.failed("turn_model", error)
            return
        if self._scoring is asyncio.current_task():
            self._scoring = None
            self._happened(self._endpointer.score(probability))

    def _stop_scoring(self) -> None:
        if self._scoring:
            self._scoring.cancel()
            self._scoring = None


class _Recent:
    """The last seconds of the caller, so that listening can begin before the VAD was sure."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._end = 0  # bytes since the call began

    def add(self, pcm: bytes) -> None:
        self._frames.append(pcm)
        self._bytes += len(pcm)
        self._end += len(pcm)
        while self._bytes > _MEMORY_S * PIPELINE_RATE * 2:
            self._bytes -= len(self._frames.popleft())

    def since(self, at: float) -> tuple[float, bytes]:
        """The audio from `at` on (or as far back as is kept) and when it really starts."""
        first = self._end - self._bytes
        want = max(first, 2 * round(at * PIPELINE_RATE))
        return want / 2 / PIPELINE_RATE, b"".join(self._frames)[want - first :]
