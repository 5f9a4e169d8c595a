"""A call: frames in, frames out, and what to do in between.

The main loop hears one frame, says one frame, and is the only place where the line, the
endpointer, the STT and the turn-taking meet. Decisions are pure (`endpointing`, `turn_taking`);
this file carries them out and notes facts in the trace. An agent turn is one task; to interrupt
is to cancel it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from voicectl.audio import FRAME_S, PIPELINE_RATE, Resampler
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import (
    AgentInterrupted,
    BackchannelHeard,
    CallEnded,
    CallStarted,
    Event,
    FrameLate,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ReplyCancelled,
    ReplyCommitted,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TurnDropped,
    TurnEnded,
)
from voicectl.pipeline import turn_taking
from voicectl.pipeline.agent_turn import Clauses, answer, recite, speak
from voicectl.pipeline.endpointing import Ended, Endpointer, EndpointingRules, Fact, Paused, Resumed, Started
from voicectl.pipeline.playout import Playout
from voicectl.pipeline.protocols import Frame, LineRecorder, LlmRequest, Message, Providers, SttStream, Transport
from voicectl.pipeline.turn_taking import (
    CancelReply,
    CommitReply,
    DropTurn,
    Heard,
    InterruptReply,
    Listen,
    ReplyAudible,
    ReplyBegun,
    ReplyOver,
    StartReply,
    StopListening,
    TurnRules,
)
from voicectl.trace import Trace

PREROLL_S = 0.3
"""How much audio before the VAD's onset the STT gets: a first consonant is quieter than the vowel."""

_MEMORY_S = 2.0  # how far back `Listen` may reach


@dataclass(frozen=True, slots=True)
class AgentRules:
    """All that the pipeline needs of an agent's spec."""

    name: str
    instructions: str
    greeting: str
    endpointing: EndpointingRules = field(default_factory=EndpointingRules)
    turns: TurnRules = field(default_factory=TurnRules)
    first_clause_words: int = 5
    max_history_turns: int | None = None


@dataclass(slots=True)
class _Reply:
    """The agent turn that is under way."""

    number: int
    turn: int | None
    prompt: str
    task: asyncio.Task[None]
    audible: bool = False


class Session:
    """One call of one agent. `run()` returns when the line closes; everything is in the trace."""

    def __init__(
        self,
        agent: AgentRules,
        providers: Providers,
        transport: Transport,
        clock: Clock,
        trace: Trace,
        call_wav: LineRecorder | None = None,
    ) -> None:
        self._agent = agent
        self._providers = providers
        self._transport = transport
        self._clock = clock
        self._trace = trace
        self._call_wav = call_wav
        self._start = clock.now()
        self._playout = Playout(transport.rate, FRAME_S)
        self._caller_rate = Resampler(transport.rate, PIPELINE_RATE)
        self._vad = providers.vad.open()
        self._endpointer = Endpointer(agent.endpointing, providers.vad.window_s)
        self._state = turn_taking.State()
        self._recent = _Recent()
        self._stt: SttStream | None = None
        self._listening: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._said = ""  # the turn's text so far, for the LLM to read ahead
        self._reply: _Reply | None = None
        self._replies = 0
        self._history: list[Message] = []
        self._line_until = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: BaseException | None = None

    async def run(self) -> None:
        """Answer the call until the caller hangs up, or this task is cancelled.

        Raises:
            BaseException: whatever went wrong in a task of the call, but for what providers are
                known to raise (that is noted, and the call goes on).
        """
        reason = "failed"
        self._start = self._clock.now()
        self.note(
            CallStarted(
                at=0.0,
                agent=self._agent.name,
                caller=self._transport.caller,
                clock=self._clock.kind,
                rate=self._transport.rate,
            )
        )
        try:
            self._greet()
            async for frame in self._transport.frames(self._start):
                self._hear(frame)
                self._say()
                if self._broken:
                    raise self._broken
            reason = "caller hung up"
        except asyncio.CancelledError:
            reason = "interrupted"
            raise
        finally:
            await self._end(reason)
        if self._broken:
            raise self._broken

    def now(self) -> float:
        """Seconds of the call."""
        return self._clock.now() - self._start

    def note(self, event: Event) -> None:
        self._trace.append(event)

    # The line --------------------------------------------------------------------------------

    def _hear(self, frame: Frame) -> None:
        late = self.now() - frame.at - FRAME_S
        if late >= FRAME_S:
            self.note(FrameLate(at=frame.at + FRAME_S, late=late))
        if self._call_wav:
            self._call_wav.caller(frame.pcm)
        pcm = self._caller_rate.push(frame.pcm)
        self._recent.add(pcm)
        if self._stt:
            self._stt.push(pcm)
        for probability in self._vad.push(pcm):
            for fact in self._endpointer.feed(probability):
                self._note_fact(fact)
                self._step(fact)

    def _say(self) -> None:
        pcm = self._playout.pull()
        at = self._transport.send(pcm)
        if not pcm:
            return
        self._line_until = at + FRAME_S
        if self._call_wav:
            self._call_wav.agent(pcm, at)
        reply = self._reply
        if reply and not reply.audible:
            reply.audible = True
            self.note(PlayoutStarted(at=at, reply=reply.number))
            self._step(ReplyAudible())

    def _note_fact(self, fact: Fact) -> None:
        now = self.now()
        match fact:
            case Started(at):
                self.note(SpeechStarted(at=at, noted_at=now, turn=self._state.turn + 1))
            case Resumed(at):
                self.note(SpeechStarted(at=at, noted_at=now, turn=self._state.turn))
            case Paused(at):
                self.note(SpeechPaused(at=at, noted_at=now, turn=self._state.turn))
            case Ended(at, reason):
                self.note(TurnEnded(at=now, turn=self._state.turn, speech_end=at, reason=reason))
            case _:
                pass

    # Decisions -------------------------------------------------------------------------------

    def _step(self, happened: turn_taking.Input) -> None:
        self._state, actions = turn_taking.step(self._state, happened, self._agent.turns)
        for action in actions:
            self._act(action)

    def _act(self, action: turn_taking.Action) -> None:
        match action:
            case Listen(turn, at):
                self._listen(turn, at)
            case turn_taking.AskTranscript():
                if self._stt:
                    self._stt.flush()
                else:
                    self._hear_nothing()
            case StopListening():
                self._stop_listening()
            case StartReply(turn, text, held):
                self._think(turn, text, held=held)
            case CommitReply(turn):
                if self._reply:
                    self._playout.release()
                    self.note(ReplyCommitted(at=self.now(), reply=self._reply.number, turn=turn))
            case CancelReply(reason):
                self._cancel(reason)
            case InterruptReply(turn, at):
                self._interrupt(turn, at)
            case DropTurn(turn, reason, text):
                now = self.now()
                if reason == "backchannel":
                    self.note(BackchannelHeard(at=now, turn=turn, text=text))
                self.note(TurnDropped(at=now, turn=turn, reason=reason, text=text))

    # Listening -------------------------------------------------------------------------------

    def _listen(self, turn: int, at: float) -> None:
        self._stop_listening()
        start, pcm = self._recent.since(at - PREROLL_S)
        stream = self._providers.stt.open(start)
        stream.push(pcm)
        self._stt = stream
        self._listening = self._spawn(self._transcribe(stream), name=f"turn {turn} stt")
        self._read_ahead("")

    async def _transcribe(self, stream: SttStream) -> None:
        try:
            async for transcript in stream:
                if stream is not self._stt:
                    continue  # it was stopped
                turn = self._state.turn
                self.note(TranscriptUpdated(at=self.now(), turn=turn, text=transcript.text, final=transcript.final))
                if transcript.final:
                    self._step(Heard(turn, transcript.text, transcript.flush))
                else:
                    self._read_ahead(transcript.text)
        except ProviderError as error:
            self._failed("stt", error)
        finally:
            await stream.aclose()
        if stream is self._stt:  # it failed or gave up: what it was asked for will never come
            self._listening = self._stt = None
            self._hear_nothing()

    def _hear_nothing(self) -> None:
        self._step(Heard(self._state.turn, "", self._state.pause))

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening.cancel()
        self._listening = self._stt = None

    # Reading ahead ---------------------------------------------------------------------------

    def _read_ahead(self, text: str) -> None:
        """Let the LLM read what it will be asked as far as it is known, while the caller speaks."""
        self._said = f"{self._state.carry} {text}".strip()
        if self._agent.turns.speculate and not self._reply and not self._reading:
            self._reading = self._spawn(self._read(), name="reading ahead")

    async def _read(self) -> None:
        read: str | None = None
        try:
            while read != self._said:
                read = self._said
                await self._providers.llm.warm(self._conversation(read))
        except ProviderError as error:
            self._failed("llm", error)
        finally:
            if asyncio.current_task() is self._reading:
                self._reading = None

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    # Speaking --------------------------------------------------------------------------------

    def _greet(self) -> None:
        if self._agent.greeting:
            self._step(ReplyBegun())
            words = self._agent.first_clause_words
            clauses = recite(self._agent.greeting, reply=self._replies, first_clause_words=words, notes=self)
            self._begin(None, "", clauses, held=False)

    def _think(self, turn: int, text: str, *, held: bool) -> None:
        self._stop_reading()
        clauses = answer(
            LlmRequest(self._conversation(text)),
            reply=self._replies,
            llm=self._providers.llm,
            first_clause_words=self._agent.first_clause_words,
            notes=self,
        )
        self._begin(turn, text, clauses, held=held)

    def _begin(self, turn: int | None, prompt: str, clauses: Clauses, *, held: bool) -> None:
        number = self._replies
        self._replies += 1
        self._playout.begin(held=held)
        self.note(ReplyStarted(at=self.now(), reply=number, turn=turn, prompt=prompt, held=held))
        task = self._spawn(self._speak(number, clauses), name=f"reply {number}")
        self._reply = _Reply(number, turn, prompt, task)

    async def _speak(self, number: int, clauses: Clauses) -> None:
        try:
            await speak(
                clauses,
                reply=number,
                tts=self._providers.tts,
                playout=self._playout,
                line_rate=self._transport.rate,
                clock=self._clock,
                notes=self,
            )
        except ProviderError as error:
            self._failed("reply", error)
            if not self._reply or self._reply.number != number:
                return  # it failed while it was being cancelled
            self._playout.complete()
            await self._playout.until_played()
        heard = self._playout.heard()
        over = self._line_until if self._reply and self._reply.audible else self.now()
        self.note(PlayoutFinished(at=over, noted_at=self.now(), reply=number, heard=heard))
        self._remember(heard)
        self._reply = None
        self._step(ReplyOver())

    def _cancel(self, reason: str) -> None:
        if self._reply:
            self._reply.task.cancel()
            self.note(ReplyCancelled(at=self.now(), reply=self._reply.number, reason=reason))
            self._reply = None
            self._playout.begin(held=True)

    def _interrupt(self, turn: int, at: float) -> None:
        if not self._reply:
            return
        heard = self._playout.heard()
        self._reply.task.cancel()
        self.note(
            AgentInterrupted(
                at=self._line_until,
                noted_at=self.now(),
                reply=self._reply.number,
                turn=turn,
                speech_at=at,
                heard=heard,
            )
        )
        self._remember(heard)
        self._reply = None
        self._playout.begin(held=True)
        self._read_ahead("")

    # Memory ----------------------------------------------------------------------------------

    def _remember(self, heard: str) -> None:
        """What was asked, and of the answer only what the caller heard."""
        if self._reply and self._reply.prompt:
            self._history.append(Message("user", self._reply.prompt))
        if heard:
            self._history.append(Message("assistant", heard))

    def _conversation(self, text: str) -> tuple[Message, ...]:
        """What the LLM is shown: who it is, what was said, and what the caller says now."""
        return (Message("system", self._agent.instructions), *self._remembered(), Message("user", text))

    def _remembered(self) -> list[Message]:
        limit = self._agent.max_history_turns
        if limit is None:
            return self._history
        users = [index for index, message in enumerate(self._history) if message.role == "user"]
        return self._history if len(users) <= limit else self._history[users[-limit] :] if limit else []

    # The end ---------------------------------------------------------------------------------

    def _failed(self, stage: str, error: ProviderError) -> None:
        where = error.where or stage
        self.note(ProviderFailed(at=self.now(), stage=where.split(":")[0], provider=where, message=str(error)))

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task of this call: it ends before the call does, and the call does not outlive its error."""
        task = self._clock.spawn(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled():
            self._broken = self._broken or task.exception()
        elif not task.cancelling():
            self._broken = self._broken or RuntimeError(f"{task.get_name()}: what it waited for was cancelled")

    async def _end(self, reason: str) -> None:
        with ExitStack() as at_last:  # also when the disk is full, or when cancelled once more
            if self._call_wav:
                at_last.callback(self._call_wav.close)
            at_last.callback(self._note_end, reason)
            self._stop_listening()
            self._stop_reading()
            try:
                self._cancel("call ended")
            finally:
                if self._tasks:
                    await asyncio.wait(list(self._tasks))

    def _note_end(self, reason: str) -> None:
        self.note(CallEnded(at=self.now(), reason="failed" if self._broken else reason))


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
