"""A call: frames in, frames out, and what to do in between.

The main loop hears one frame and says one frame. Decisions are pure (`endpointing`,
`turn_taking`, `idle`); `listening` tells what becomes true of the caller; this file carries out
what is decided and notes facts in the trace. An agent turn is one task; to interrupt is to cancel it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from voicectl.audio import FRAME_S, PIPELINE_RATE, SAMPLE_WIDTH, Resampler
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import (
    AgentInterrupted,
    AgentPaused,
    AgentResumed,
    BackchannelHeard,
    CallEnded,
    CallerActed,
    CallStarted,
    Event,
    FillerPlayed,
    FrameLate,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ReplyCancelled,
    ReplyCommitted,
    ReplyStarted,
    TranscriptUpdated,
    TurnDropped,
)
from voicectl.pipeline import turn_taking
from voicectl.pipeline.echo import EchoWatch
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.history import History
from voicectl.pipeline.idle import IdleRules, IdleWatch
from voicectl.pipeline.listening import Ears
from voicectl.pipeline.playout import Playout
from voicectl.pipeline.protocols import Frame, LineRecorder, Parts, SpeechProviders, Transport
from voicectl.pipeline.turn_taking import (
    SPEECH,
    CancelReply,
    CommitReply,
    DropTurn,
    InterruptReply,
    Listen,
    PauseReply,
    ReplyAudible,
    ReplyBegun,
    ReplyOver,
    ResumeReply,
    StartReply,
    StopListening,
    TurnRules,
)
from voicectl.pipeline.voice import ChainVoice, ModelVoice, Voice, Work
from voicectl.trace import Trace


@dataclass(frozen=True, slots=True)
class FillerRules:
    """A caller who has waited `after_s` for an answer hears one of `texts`, in turn."""

    after_s: float
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentRules:
    """All that the pipeline needs of an agent's spec."""

    name: str
    instructions: str
    greeting: str
    endpointing: EndpointingRules = field(default_factory=EndpointingRules)
    turns: TurnRules = field(default_factory=TurnRules)
    notice: str = ""
    """Said before the greeting, and never interrupted."""
    greeting_protected: bool = False
    idle: IdleRules | None = None
    filler: FillerRules | None = None
    first_clause_words: int = 5
    max_history_turns: int | None = None


@dataclass(slots=True)
class _Reply:
    """The agent turn that is under way."""

    number: int
    turn: int | None
    prompt: str
    kind: str
    task: asyncio.Task[None]
    waiting_since: float | None = None
    """When the caller began to wait for it: it is committed."""
    audible: bool = False


class Session:
    """One call of one agent. `run()` returns when the line closes; everything is in the trace."""

    def __init__(
        self,
        agent: AgentRules,
        providers: Parts,
        transport: Transport,
        clock: Clock,
        trace: Trace,
        call_wav: LineRecorder | None = None,
    ) -> None:
        self._agent = agent
        self._transport = transport
        self._clock = clock
        self._trace = trace
        self._call_wav = call_wav
        self._start = clock.now()
        self._playout = Playout(transport.rate, FRAME_S, self._say_at_once)
        self._caller_rate = Resampler(transport.rate, PIPELINE_RATE)
        self._echo = EchoWatch(transport.rate)
        self._heard_until = 0.0
        self._voice: Voice
        if isinstance(providers, SpeechProviders):
            model = providers.s2s.open(agent.instructions)
            self._voice = ModelVoice(providers.s2s, model, self._playout, transport.rate, self)
            self._ears = Ears(agent.endpointing, providers, self, model)
        else:
            history, words = History(agent.instructions, agent.max_history_turns), agent.first_clause_words
            self._voice = ChainVoice(providers, history, words, self._playout, transport.rate, clock, self)
            self._ears = Ears(agent.endpointing, providers, self)
        self._state = turn_taking.State()
        self._reading: asyncio.Task[None] | None = None
        self._said = ""  # the turn's text so far, for the LLM to read ahead
        self._reply: _Reply | None = None
        self._replies = 0
        self._opening: deque[tuple[str, str, bool]] = deque()  # kind, text, protected: still to be said first
        self._idle = IdleWatch(agent.idle) if agent.idle else None
        self._fillers: deque[tuple[str, bytes]] = deque()  # ready to be played
        self._filler = b""  # what is left of the one being played
        self._line_until = 0.0
        self._in_tick = False  # `_say` follows at once
        self._hung_up = False
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
            self._open()
            async with aclosing(self._transport.frames(self._start)) as frames:
                async for frame in frames:
                    self._in_tick = True
                    self._hear(frame)
                    self._in_tick = False
                    self._say()
                    if self._broken:
                        raise self._broken
                    if self._hung_up and self.now() >= self._line_until - 1e-9:
                        break
            reason = "agent hung up" if self._hung_up else "caller hung up"
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

    # What the ears ask ---------------------------------------------------------------------

    @property
    def turn(self) -> int:
        return self._state.turn

    @property
    def asked(self) -> int:
        return self._state.asked

    @property
    def question(self) -> str:
        return self._voice.last_heard

    def hears_itself(self) -> bool | None:
        if self._line_until < self._heard_until - 1.0:
            return False  # it has long been silent
        return self._echo.is_echo(self._heard_until)

    def heard_so_far(self, text: str) -> None:
        self._read_ahead(text)

    # What keys do ----------------------------------------------------------------------------

    def act(self, act: str, text: str = "") -> None:
        """The caller "typed" `text`, "interrupted" the agent, or asked it to "repeat" what it said. What
        is typed to a voice that only hears is not heard."""
        now = self.now()
        again = self.question
        if act == "repeat" and (not again or self._state.caller != "silent"):
            return
        if act == "typed" and not self._voice.reads:
            return
        self.note(CallerActed(at=now, act=act, text=text))
        if act == "typed":
            self._opening.clear()
            self.note(TranscriptUpdated(at=now, turn=self._state.turn + 1, text=text, final=True))
            self.step(turn_taking.Typed(text, now))
            return
        self.step(turn_taking.Hushed(now))
        if act == "repeat":
            self._recite("repeat", again)

    # The line --------------------------------------------------------------------------------

    def _hear(self, frame: Frame) -> None:
        late = self.now() - frame.at - FRAME_S - frame.delay_s
        if late >= FRAME_S:
            self.note(FrameLate(at=frame.at + FRAME_S, late=late))
        if self._call_wav:
            self._call_wav.caller(frame.pcm)
        self._heard_until = frame.at + FRAME_S
        self._echo.heard(frame.pcm)
        self._ears.hear(self._caller_rate.push(frame.pcm))
        if self._idle:
            self._watch()

    def _say(self) -> None:
        """The tick's frame."""
        pcm = self._fill() or self._playout.pull()
        if pcm:
            self._put(pcm)
        else:
            self._transport.send(pcm)

    def _say_at_once(self) -> None:
        """The first frame after a silence goes between two ticks; those that follow are a little ahead."""
        if not self._in_tick and not self._filler and self.now() >= self._line_until - 1e-9:
            self._put(self._playout.pull())

    def _put(self, pcm: bytes) -> None:
        at = self._transport.send(pcm)
        self._echo.played(pcm, at)
        self._line_until = at + FRAME_S
        if self._call_wav:
            self._call_wav.agent(pcm, at)
        reply = self._reply
        if reply and not reply.audible and self._playout.started:
            reply.audible = True
            self.note(PlayoutStarted(at=at, reply=reply.number))
            self.step(ReplyAudible())

    # Decisions -------------------------------------------------------------------------------

    def step(self, happened: turn_taking.Input) -> None:
        self._state, actions = turn_taking.step(self._state, happened, self._agent.turns)
        for action in actions:
            self._act(action)

    def _act(self, action: turn_taking.Action) -> None:
        match action:
            case Listen(_, at):
                self._ears.listen(at, on_top=bool(self._state.carry))
                self._read_ahead("")
            case turn_taking.AskTranscript():
                self._ears.ask()
            case StopListening():
                self._ears.stop()
            case StartReply(turn, text, held):
                self._think(turn, text, held=held)
            case CommitReply(turn):
                self._commit(turn)
            case CancelReply(reason):
                self._cancel(reason)
            case PauseReply(turn, at):
                self._pause(turn, at)
            case ResumeReply(turn):
                self._resume(turn)
            case InterruptReply(turn, at):
                self._interrupt(turn, at)
            case DropTurn(turn, reason, text):
                now, text = self.now(), _words_of(text)
                if reason == "backchannel":
                    self.note(BackchannelHeard(at=now, turn=turn, text=text))
                self.note(TurnDropped(at=now, turn=turn, reason=reason, text=text))
                self._open_next()

    # Reading ahead ---------------------------------------------------------------------------

    def _read_ahead(self, text: str) -> None:
        """Let the LLM read what it will be asked as far as it is known, while the caller speaks."""
        self._said = f"{self._state.carry} {text}".strip()
        if self._voice.reads and self._agent.turns.speculate and not self._reply and not self._reading:
            self._reading = self.spawn(self._read(), name="reading ahead")

    async def _read(self) -> None:
        read: str | None = None
        try:
            while read != self._said:
                read = self._said
                await self._voice.read(read)
        except ProviderError as error:
            self.failed("llm", error)
        finally:
            if asyncio.current_task() is self._reading:
                self._reading = None

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    # Speaking --------------------------------------------------------------------------------

    def _open(self) -> None:
        """What the agent says first."""
        if news := self._voice.news():
            self.spawn(news(), name="the model's news")
        if self._agent.filler:
            self.spawn(self._make_fillers(self._agent.filler.texts), name="fillers")
        if self._agent.notice:
            self._opening.append(("notice", self._agent.notice, True))
        if self._agent.greeting:
            self._opening.append(("greeting", self._agent.greeting, self._agent.greeting_protected))
        self._open_next()

    def _open_next(self) -> None:
        """The next part of the opening, unless the caller has the word."""
        if self._opening and self._state.agent == "silent" and self._state.caller == "silent":
            kind, text, protected = self._opening.popleft()
            self._recite(kind, text, protected=protected)

    def _recite(self, kind: str, text: str, *, protected: bool = False) -> None:
        """Say a fixed text that answers nobody."""
        self.step(ReplyBegun(protected))
        self._begin(None, "", self._voice.recite(self._replies, text), held=False, kind=kind)

    def _think(self, turn: int, text: str, *, held: bool) -> None:
        self._stop_reading()
        self._opening.clear()
        if self._idle:
            self._idle.answered()
        text = _words_of(text)
        self._begin(turn, text, self._voice.answer(self._replies, turn, text), held=held, kind="answer")

    def _begin(self, turn: int | None, prompt: str, work: Work, *, held: bool, kind: str) -> None:
        number = self._replies
        self._replies += 1
        self._playout.begin(held=held)
        self.note(ReplyStarted(at=self.now(), reply=number, turn=turn, prompt=prompt, held=held, kind=kind))
        task = self.spawn(self._speak(number, work), name=f"reply {number}")
        self._reply = _Reply(number, turn, prompt, kind, task, None if held or turn is None else self.now())

    def _commit(self, turn: int) -> None:
        if self._reply:
            self._reply.waiting_since = self.now()
            self.note(ReplyCommitted(at=self.now(), reply=self._reply.number, turn=turn))
            self._playout.release()

    async def _speak(self, number: int, work: Work) -> None:
        try:
            await work()
        except ProviderError as error:
            self.failed("reply", error)
            if not self._reply or self._reply.number != number:
                return  # it failed while it was being cancelled
            self._playout.complete()
            await self._playout.until_played()
        heard = self._playout.heard()
        reply = self._reply
        over = self._line_until if reply and reply.audible else self.now()
        self.note(PlayoutFinished(at=over, noted_at=self.now(), reply=number, heard=heard))
        if reply:
            self._voice.over(number, reply.prompt, heard)
        self._reply = None
        self._hung_up = reply is not None and reply.kind == "goodbye" and self._state.caller == "silent"
        self.step(ReplyOver(over, heard.rstrip().endswith("?")))
        self._open_next()

    def _cancel(self, reason: str) -> None:
        if self._reply:
            self._reply.task.cancel()
            self.note(ReplyCancelled(at=self.now(), reply=self._reply.number, reason=reason))
            self._voice.over(self._reply.number, "", "", self._playout.heard_s)
            self._forget()

    def _pause(self, turn: int, at: float) -> None:
        reply = self._reply
        if not reply:
            return
        self._playout.hold()
        self._filler = b""
        if reply.audible:
            paused = self._line_until
            self.note(AgentPaused(at=paused, noted_at=self.now(), reply=reply.number, turn=turn, speech_at=at))

    def _resume(self, turn: int) -> None:
        if self._reply:
            if self._reply.audible:
                self.note(AgentResumed(at=self.now(), reply=self._reply.number, turn=turn))
            self._playout.release()

    def _interrupt(self, turn: int, at: float) -> None:
        reply = self._reply
        if not reply:
            return
        if not reply.audible:
            self._cancel("caller spoke first")
            return
        heard = self._playout.heard()
        reply.task.cancel()
        self.note(
            AgentInterrupted(
                at=self._line_until, noted_at=self.now(), reply=reply.number, turn=turn, speech_at=at, heard=heard
            )
        )
        self._voice.over(reply.number, reply.prompt, heard, self._playout.heard_s)
        self._forget()
        self._read_ahead("")

    def _forget(self) -> None:
        self._reply = None
        self._filler = b""
        self._playout.begin(held=True)

    # While nothing is said -------------------------------------------------------------------

    def _watch(self) -> None:
        """Nobody speaks: is the caller still there?"""
        assert self._idle
        state = self._state
        busy = state.caller != "silent" or state.agent != "silent" or self._hung_up
        if due := self._idle.tick(self.now(), busy):
            if due.text:
                self._recite("goodbye" if due.last else "idle prompt", due.text)
            else:
                self._hung_up = True

    async def _make_fillers(self, texts: tuple[str, ...]) -> None:
        """Speak them ahead of time: a filler that takes long helps nobody."""
        try:
            for text in texts:
                if pcm := await self._voice.sound(text):
                    self._fillers.append((text, pcm))
        except ProviderError as error:
            self.failed("tts", error)

    def _fill(self) -> bytes:
        """The next frame of a filler, where one is due or being played."""
        rules = self._agent.filler
        reply = self._reply
        if rules and reply and not reply.audible and not self._filler and reply.waiting_since is not None:
            waited = self.now() - reply.waiting_since
            if self._fillers and waited >= rules.after_s - 1e-9 and not self._playout.queued_s:
                reply.waiting_since = None  # one filler a reply
                text, self._filler = self._fillers[0]
                self._fillers.rotate(-1)
                seconds = len(self._filler) / SAMPLE_WIDTH / self._transport.rate
                self.note(FillerPlayed(at=self.now(), reply=reply.number, text=text, seconds=seconds))
        size = round(self._transport.rate * FRAME_S) * SAMPLE_WIDTH
        frame, self._filler = self._filler[:size], self._filler[size:]
        return frame.ljust(size, b"\0") if frame else b""

    # The end ---------------------------------------------------------------------------------

    def failed(self, stage: str, error: ProviderError) -> None:
        where = error.where or stage
        self.note(ProviderFailed(at=self.now(), stage=where.split(":")[0], provider=where, message=str(error)))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
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
            self._ears.stop()
            self._stop_reading()
            try:
                self._cancel("call ended")
            finally:
                if close := self._voice.close():
                    self.spawn(close(), name="closing the model")
                if self._tasks:
                    await asyncio.wait(list(self._tasks))

    def _note_end(self, reason: str) -> None:
        self.note(CallEnded(at=self.now(), reason="failed" if self._broken else reason))


def _words_of(text: str) -> str:
    """What is known of the words."""
    return text.replace(SPEECH, "").strip() if SPEECH in text else text
