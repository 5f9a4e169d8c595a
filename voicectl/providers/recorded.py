"""Providers that play back what a call's providers did, with every chunk's timing kept.

Built from the `Streams` of a recording, for one call. Time is counted from the request: a token
that came 130 ms after the question then comes 130 ms after it now. What the pipeline asks is
looked up by what it asks (the conversation, the clause, the stretch of the caller's speech), not
by its number, so a changed order still finds its answers.

When something was not recorded, `on_miss` decides: "fail" raises `NotRecorded`, which names the
nearest recorded request and what differs; "nearest" plays that one, and says so to `on_nearest`.
"""

from __future__ import annotations

import asyncio
import difflib
import heapq
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from statistics import median
from typing import Literal, TypeVar, cast

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import Event
from voicectl.pipeline.agent_turn import Notebook
from voicectl.pipeline.protocols import (
    AudioDelta,
    CallerSaid,
    LlmChunk,
    LlmRequest,
    Message,
    Parts,
    Progress,
    Providers,
    S2sChunk,
    S2sNews,
    S2sStream,
    S2sUsage,
    SpeechProviders,
    SttStream,
    TextDelta,
    ToolDelta,
    Transcript,
    TtsRequest,
    TurnEnd,
    TurnModelStream,
    Usage,
    VadStream,
)
from voicectl.streams import (
    LlmAsked,
    LlmCalled,
    LlmSaid,
    LlmUsed,
    Noted,
    S2sAsked,
    S2sHeard,
    S2sSaid,
    S2sUsed,
    StreamEnded,
    Streams,
    Stretches,
    SttClosed,
    SttFlushed,
    SttHeard,
    SttOpened,
    TtsAsked,
    TtsSpoke,
    TurnModelAsked,
    TurnModelScored,
    VadWindows,
)
from voicectl.trace import event_from

T = TypeVar("T")

OnMiss = Literal["fail", "nearest"]
OnNearest = Callable[[str], None]
"""Told what was not recorded, and is answered by the nearest that was."""

# An interruption may come a little later than it did; what would have followed is not known.
_GRACE_S: dict[OnMiss, float] = {"fail": 0.25, "nearest": 0.02}
_SAME_S = 0.0005  # two stretches of speech are the same when their ends differ by less
_AT_ONCE_S = 0.005  # what is noted so shortly before a stream was cut is noted because it was cut
_MICROSECOND = 1e-6
_NEARLY_S = 0.3  # where one stretch ends so little after another, no word lies between


class NotRecorded(ProviderError):
    """The pipeline asked for something that this recording does not hold."""


def replayed(
    streams: Streams, clock: Clock, on_miss: OnMiss = "fail", on_nearest: OnNearest = lambda miss: None
) -> Parts:
    """The providers of a recorded call."""
    if "s2s_rate" in streams.header:
        return SpeechProviders(
            RecordedVad(streams),
            RecordedS2s(streams, clock, on_miss, on_nearest),
            RecordedTurnModel(streams, clock, on_miss, on_nearest),
        )
    return Providers(
        RecordedVad(streams),
        RecordedStt(streams, clock, on_miss, on_nearest),
        RecordedLlm(streams, clock, on_miss, on_nearest),
        RecordedTts(streams, clock, on_miss, on_nearest),
        RecordedTurnModel(streams, clock, on_miss, on_nearest),
    )


def note_to(providers: Parts, notes: Notebook) -> None:
    """Let them note again what was noted for their streams."""
    for part in fields(providers):
        provider = getattr(providers, part.name)
        if isinstance(provider, _Recorded):
            provider.notes = notes


class _Recorded:
    name = "recorded"
    notes: Notebook | None = None

    async def start(self, progress: Progress) -> None:
        """Everything is in memory."""

    async def aclose(self) -> None:
        """Nothing is held open."""

    def note(self, event: Event) -> None:
        """What was noted then, now; its times count from then."""
        if self.notes:
            now = self.notes.now()
            known = None if event.noted_at is None else round(now + event.noted_at, 6)
            self.notes.note(replace(event, at=round(now + event.at, 6) if event.at else now, noted_at=known))


def _event(noted: Noted) -> Event:
    """With its times counted from when it was noted."""
    event = event_from(noted.what)
    known = None if event.noted_at is None else event.noted_at - noted.at
    return replace(event, at=round(event.at - noted.at, 6), noted_at=known)


# VAD -----------------------------------------------------------------------------------------


class RecordedVad(_Recorded):
    """The recorded probability of each window, in order; silence after the last."""

    def __init__(self, streams: Streams) -> None:
        self.window_s = float(streams.header["vad_window_s"])
        self._windows = [p for chunk in streams.chunks if isinstance(chunk, VadWindows) for p in chunk.p]

    def open(self) -> VadStream:
        return _VadStream(self._windows, round(self.window_s * PIPELINE_RATE) * SAMPLE_WIDTH)


class _VadStream:
    def __init__(self, windows: Sequence[float], window_bytes: int) -> None:
        self._windows = windows
        self._window_bytes = window_bytes
        self._bytes = 0
        self._next = 0

    def push(self, pcm: bytes) -> list[float]:
        self._bytes += len(pcm)
        end = self._bytes // self._window_bytes
        found = list(self._windows[self._next : end])
        found += [0.0] * (end - self._next - len(found))
        self._next = end
        return found


# STT -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Answer:
    """What the STT heard from `start` to `end`, `delay` seconds after it was asked."""

    start: float
    end: float
    asked_at: float
    text: str | None = None
    delay: float = 0.0
    turn_end: TurnEnd | None = None


@dataclass(slots=True)
class _Stretch:
    """What the STT said unasked of the speech from `start` on, and how long after it began to listen."""

    start: float
    opened_at: float
    said: list[tuple[float, _Unasked]] = field(default_factory=list[tuple[float, "_Unasked"]])
    opening: list[Event] = field(default_factory=list[Event])
    closing: list[Event] = field(default_factory=list[Event])
    closed: bool = False


_Unasked = Transcript | Event | ProviderError
"""What comes of a stream by itself: text, something to note, its failure."""


class RecordedStt(_Recorded):
    """Answers a flush with what was heard of the same stretch of the caller's speech, and says
    unasked what was said unasked of it."""

    def __init__(self, streams: Streams, clock: Clock, on_miss: OnMiss, on_nearest: OnNearest) -> None:
        stretches: dict[int, _Stretch] = {}
        asked: dict[tuple[int, int], _Answer] = {}
        opening: dict[int, list[Event]] = {}
        for chunk in streams.chunks:
            match chunk:
                case SttOpened(id=id, start=start, at=at):
                    stretches[id] = _Stretch(start, at, opening=opening.pop(id, []))
                case SttClosed(id=id):
                    stretches[id].closed = True
                case Noted(stage="stt", id=id) if id not in stretches:
                    opening.setdefault(id, []).append(_event(chunk))
                case Noted(stage="stt", id=id) if stretches[id].closed:
                    stretches[id].closing.append(_event(chunk))
                case Noted(stage="stt", id=id, at=at):
                    stretches[id].said.append((at - stretches[id].opened_at, _event(chunk)))
                case StreamEnded(stage="stt", id=id, at=at, how=how, where=where):
                    stretches[id].said.append((at - stretches[id].opened_at, _failure(how, where)))
                case SttFlushed(id=id, flush=flush, end=end, at=at):
                    asked[id, flush] = _Answer(stretches[id].start, end, at)
                case SttHeard(id=id, flush=flush, at=at, text=text, turn_end=end) if flush:
                    answer = asked[id, flush]
                    answer.text, answer.delay = text, at - answer.asked_at
                    answer.turn_end = cast("TurnEnd | None", end)
                case SttHeard(id=id, at=at, text=text, turn_end=end):
                    said = Transcript(text, turn_end=cast("TurnEnd | None", end))
                    stretches[id].said.append((at - stretches[id].opened_at, said))
                case _:
                    pass
        self._stretches = list(stretches.values())
        self._answers = list(asked.values())
        self._clock = clock
        self._on_miss: OnMiss = on_miss
        self._on_nearest = on_nearest

    def open(self, start: float) -> SttStream:
        same = next((stretch for stretch in self._stretches if abs(stretch.start - start) < _SAME_S), None)
        return _SttStream(start, self._find, same or _Stretch(start, 0.0), self._clock, self.note)

    def _find(self, start: float, end: float) -> tuple[str | None, float, TurnEnd | None]:
        """The text of the caller's speech in that stretch, how long the STT took and what it said of
        the turn's end; no text: it was asked, and had not answered when the call went on.

        Raises:
            NotRecorded: nobody asked for that stretch.
        """
        fail = self._on_miss == "fail"
        for answer in self._answers:
            if (
                abs(answer.start - start) < _SAME_S
                and abs(answer.end - end) < _SAME_S
                and (fail or answer.text is not None)
            ):
                return answer.text, answer.delay, answer.turn_end
        if fail:
            raise NotRecorded(self._difference(start, end), where="stt:recorded", hint=_HINT)
        self._on_nearest(self._difference(start, end))
        known = [answer for answer in self._answers if answer.text is not None]
        delays = [answer.delay for answer in known]
        return _put_together(known, start, end), median(delays) if delays else 0.0, None

    def _difference(self, start: float, end: float) -> str:
        said = f"the STT was not asked for the caller's speech from {start:.2f} s to {end:.2f} s"
        if not self._answers:
            return f"{said}, nor for any other"
        near = min(self._answers, key=lambda answer: abs(answer.start - start) + abs(answer.end - end))
        return f"{said}; the nearest it was asked for is {near.start:.2f} s to {near.end:.2f} s (“{near.text or ''}”)"


def _put_together(answers: Iterable[_Answer], start: float, end: float) -> str:
    """What was heard of each recorded stretch that lies in this one; of one that goes on beyond
    it, as many words as would have been said by then."""
    stretches: dict[float, list[_Answer]] = {}
    for answer in answers:
        if answer.start < end and answer.end > start:
            stretches.setdefault(answer.start, []).append(answer)
    parts: list[str] = []
    for first, stretch in sorted(stretches.items()):
        inside = [answer for answer in stretch if answer.end < end + _NEARLY_S]
        words = ((inside or stretch)[-1 if inside else 0].text or "").split()
        share = 1.0 if inside else (end - first) / (stretch[0].end - first)
        parts += words[: round(share * len(words))]
    return " ".join(parts)


class _SttStream:
    def __init__(
        self,
        start: float,
        find: Callable[[float, float], tuple[str | None, float, TurnEnd | None]],
        stretch: _Stretch,
        clock: Clock,
        note: Callable[[Event], None],
    ) -> None:
        self._start = start
        self._find = find
        self._clock = clock
        self._note = note
        self._closing = stretch.closing
        self._bytes = 0
        self._flushes = 0
        self._number = itertools.count()
        self._due: list[tuple[float, int, _Unasked]] = []  # a heap, by time
        for event in stretch.opening:
            note(event)
        now = clock.now()
        for delay, said in stretch.said:
            self._due.append((round(now + delay, 6), next(self._number), said))
        self._alarm: asyncio.Future[None] | None = None
        self._closed = False

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)

    def flush(self) -> None:
        self._flushes += 1
        try:
            text, delay, turn_end = self._find(self._start, self._start + self._bytes / SAMPLE_WIDTH / PIPELINE_RATE)
        except NotRecorded as miss:
            self._say(self._clock.now(), miss)
            return
        if text is not None:
            self._say(self._clock.now() + delay, Transcript(text, self._flushes, turn_end))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while not self._closed:
            if self._due and self._due[0][0] <= self._clock.now() + 1e-9:
                answer = heapq.heappop(self._due)[2]
                if isinstance(answer, ProviderError):
                    raise answer
                if isinstance(answer, Event):
                    self._note(answer)
                else:
                    yield answer
            else:
                self._alarm = self._clock.alarm(self._due[0][0]) if self._due else self._clock.never()
                await self._alarm

    async def aclose(self) -> None:
        closing, self._closing = self._closing, []
        for event in closing:
            self._note(event)
        self._closed = True
        self._wake()

    def _say(self, when: float, answer: Transcript | NotRecorded) -> None:
        item = (round(when, 6), next(self._number), answer)
        heapq.heappush(self._due, item)
        if self._due[0] is item:
            self._wake()

    def _wake(self) -> None:
        if self._alarm and not self._alarm.done():
            self._alarm.set_result(None)


# End of turn ---------------------------------------------------------------------------------------


class RecordedTurnModel(_Recorded):
    """Scores a stretch of the caller's speech as it was scored then; an undecided 0.5 where it was not asked."""

    def __init__(self, streams: Streams, clock: Clock, on_miss: OnMiss, on_nearest: OnNearest) -> None:
        self._asked: dict[int, TurnModelAsked] = {}
        self._scored: dict[int, tuple[float, float]] = {}  # score, and how long it took
        for chunk in streams.chunks:
            match chunk:
                case TurnModelAsked(id=id):
                    self._asked[id] = chunk
                case TurnModelScored(id=id, at=at, score=score):
                    self._scored[id] = score, at - self._asked[id].at
                case _:
                    pass
        self._clock = clock
        self._on_miss: OnMiss = on_miss
        self._on_nearest = on_nearest

    def open(self) -> TurnModelStream:
        return _TurnModelStream(self._find, self._clock)

    def _find(self, start: float, end: float) -> tuple[float, float] | None:
        """The score and how long it took; None: it was asked and had not answered when the call went on.

        Raises:
            NotRecorded: nobody asked for that stretch.
        """
        for id, asked in self._asked.items():
            if abs(asked.start - start) < _SAME_S and abs(asked.end - end) < _SAME_S:
                return self._scored.get(id)
        miss = f"the end-of-turn model was not asked for the caller's speech from {start:.2f} s to {end:.2f} s"
        if self._on_miss == "fail":
            raise NotRecorded(miss, where="turn_model:recorded", hint=_HINT)
        self._on_nearest(miss)
        near = [(abs(self._asked[id].end - end), found) for id, found in self._scored.items()]
        distance, found = min(near, default=(_NEARLY_S, (0.5, 0.0)))
        return found if distance < _NEARLY_S else (0.5, found[1])


class _TurnModelStream:
    def __init__(self, find: Callable[[float, float], tuple[float, float] | None], clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._bytes = 0

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)

    async def score(self, start: float) -> float:
        found = self._find(start, self._bytes / SAMPLE_WIDTH / PIPELINE_RATE)
        if found is None:
            await self._clock.never()  # it was not answered: wait to be cancelled
            raise AssertionError
        score, delay = found
        await self._clock.sleep_until(self._clock.now() + delay)
        return score


# LLM and TTS: streams of chunks after a request --------------------------------------------------


@dataclass(slots=True)
class _Take:
    """One recorded stream: its chunks by how long after the request they came."""

    asked_at: float
    key: str
    llm: list[tuple[float, LlmChunk | Event]] = field(default_factory=list[tuple[float, LlmChunk | Event]])
    pcm: list[tuple[float, bytes | Event]] = field(default_factory=list[tuple[float, bytes | Event]])
    closing: list[Event] = field(default_factory=list[Event])
    """Noted because it was cut."""
    s2s: list[tuple[float, S2sChunk]] = field(default_factory=list[tuple[float, S2sChunk]])
    news: list[tuple[float, int, S2sNews]] = field(default_factory=list[tuple[float, int, S2sNews]])
    """And how many of the chunks, or of these and the end, had come before."""
    ended: float | None = None
    how: str = "cut"
    where: str | None = None
    used: bool = False

    def tell(self, at: float, news: S2sNews) -> None:
        self.news.append((at - self.asked_at, len(self.s2s) + (self.ended is not None), news))

    @property
    def length(self) -> float:
        """Seconds from the request to the end."""
        return (self.ended or self.asked_at) - self.asked_at


def _until_cut(takes: Iterable[_Take], streams: Streams) -> list[_Take]:
    """A stream that was under way when the recording was cut is known to last until then."""
    every = list(takes)
    for take in every:
        if take.ended is None:
            take.ended = streams.chunks[-1].at
    return every


class _Streaming(_Recorded):
    """Plays takes back, and notes what was noted while they came."""

    def __init__(self, takes: _Takes, clock: Clock) -> None:
        self._takes = takes
        self._clock = clock

    async def _play(
        self, take: _Take, pieces: Callable[[_Take], list[tuple[float, T | Event]]], *, to_end: bool
    ) -> AsyncGenerator[T, None]:
        asked_at = self._clock.now()
        count = 0
        try:
            for delay, piece in pieces(take):
                await self._until(asked_at + delay)
                if isinstance(piece, Event):
                    self.note(piece)
                else:
                    count += 1
                    yield piece
            if take.how.startswith("failed: "):
                await self._until(asked_at + take.length)
                raise _failure(take.how, take.where)
            if take.how == "complete":
                if to_end:  # where something happened after the last piece
                    await self._until(asked_at + take.length)
                return
            # Until it was cut nothing came; whether it is wanted now is known a moment later.
            await self._clock.sleep_until(asked_at + take.length + _AT_ONCE_S)
            rest = pieces(await self._takes.rest(take, asked_at))
            for delay, piece in rest[_nth(rest, count) :]:
                await self._until(asked_at + delay)
                if isinstance(piece, Event):
                    self.note(piece)
                else:
                    yield piece
        except (GeneratorExit, asyncio.CancelledError):
            for event in take.closing:
                self.note(event)
            raise

    async def _until(self, when: float) -> None:
        """What came at once then comes at once now, whatever sums of seconds make of it."""
        if when - self._clock.now() > _MICROSECOND / 2:
            await self._clock.sleep_until(when)


def _failure(how: str, where: str | None) -> ProviderError:
    """What was raised then."""
    message = how.removeprefix("failed: ")
    return ProviderError(message.removeprefix(f"{where}: ") if where else message, where=where)


def _nth(pieces: Sequence[tuple[float, object]], count: int) -> int:
    """The index after `count` that are no events."""
    places = [index for index, (_, piece) in enumerate(pieces, 1) if not isinstance(piece, Event)]
    return places[count - 1] if 0 < count <= len(places) else len(pieces) if count else 0


def _set_apart(take: _Take, pieces: list[tuple[float, T | Event]]) -> None:
    """Of a take that was cut, set apart what was noted because of that."""
    while take.how == "cancelled" and pieces:
        delay, piece = pieces[-1]
        if not isinstance(piece, Event) or delay < take.length - _AT_ONCE_S:
            return
        take.closing.insert(0, piece)
        pieces.pop()


class _Takes:
    """Finds the take that a request should get: unused ones first, whole ones before cut ones."""

    def __init__(
        self, stage: str, what: str, takes: Sequence[_Take], clock: Clock, on_miss: OnMiss, on_nearest: OnNearest
    ) -> None:
        self._stage = stage
        self._what = what
        self._takes = takes
        self._clock = clock
        self._on_miss: OnMiss = on_miss
        self._on_nearest = on_nearest

    def find(self, key: str) -> _Take:
        same = [take for take in self._takes if take.key == key]
        if not same:
            if self._on_miss == "fail" or not self._takes:
                raise NotRecorded(self._difference(key), where=f"{self._stage}:recorded", hint=_HINT)
            self._on_nearest(self._difference(key))
            same = [_nearest([take for take in self._takes if take.how == "complete"] or self._takes, key)]
        take = next((take for take in same if not take.used), None)
        if take is None:
            take = next((take for take in same if take.how == "complete"), same[-1])
        take.used = True
        return take

    async def rest(self, take: _Take, asked_at: float) -> _Take:
        """A whole take to go on with after one that was cut: of the same request, or the nearest.

        It was cut because nobody wanted it any more; so it is waited whether it is wanted now.
        """
        whole = [other for other in self._takes if other.how == "complete"]
        same = next((other for other in whole if other.key == take.key), None)
        if same:
            return same
        await self._clock.sleep_until(asked_at + take.length + _GRACE_S[self._on_miss])
        miss = f"the recorded {self._what} was {take.how} after {take.length:.2f} s, and now its rest is asked for"
        if self._on_miss == "fail" or not whole:
            raise NotRecorded(miss, where=f"{self._stage}:recorded", hint=_HINT)
        self._on_nearest(miss)
        return _nearest(whole, take.key)

    def _difference(self, key: str) -> str:
        if not self._takes:
            return f"no {self._what} was recorded"
        near = first_difference(_nearest(self._takes, key).key, key)
        return f"this {self._what} was not recorded; against the nearest one, {near}"


def _nearest(takes: Sequence[_Take], key: str) -> _Take:
    """The take whose last line (the question) is most like that of `key`; then, whose lines are."""
    lines = key.splitlines() or [""]
    last = difflib.SequenceMatcher(b=lines[-1], autojunk=False)
    whole = difflib.SequenceMatcher(b=lines, autojunk=False)

    def likeness(take: _Take) -> tuple[float, float]:
        recorded = take.key.splitlines() or [""]
        last.set_seq1(recorded[-1])
        whole.set_seq1(recorded)
        return last.ratio(), whole.ratio()

    return max(takes, key=likeness)


_HINT = "Use --on-miss nearest, or record the call again"


def first_difference(recorded: str, asked: str) -> str:
    """Where two texts part, in words: the line, what was recorded and what is asked now."""
    old, new = recorded.splitlines() or [""], asked.splitlines() or [""]
    for number, (before, after) in enumerate(zip(old, new, strict=False), 1):
        if before != after:
            start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
            start = max(0, start - 20)
            return f"line {number} was “{_short(before, start)}” and is “{_short(after, start)}”"
    rest = (old if len(old) > len(new) else new)[min(len(old), len(new)) :]
    done = "is gone" if len(old) > len(new) else "is new"
    return f"line {min(len(old), len(new)) + 1} “{_short(rest[0], 0)}” {done}" if rest else "nothing differs"


def _short(text: str, start: int) -> str:
    part = text[start : start + 60]
    return ("…" if start else "") + part + ("…" if start + 60 < len(text) else "")


class RecordedLlm(_Streaming):
    """Answers a conversation as it was answered then."""

    def __init__(self, streams: Streams, clock: Clock, on_miss: OnMiss, on_nearest: OnNearest) -> None:
        takes: dict[int, _Take] = {}
        asked: tuple[tuple[str, str], ...] = ()
        for chunk in streams.chunks:
            match chunk:
                case LlmAsked(id=id, at=at, messages=messages, same=same):
                    asked = (*asked[:same], *messages)
                    takes[id] = _Take(at, _conversation(asked))
                case LlmSaid(id=id, at=at, text=text):
                    takes[id].llm.append((at - takes[id].asked_at, TextDelta(text)))
                case LlmCalled(id=id, at=at, call=call, name=name, arguments=arguments):
                    takes[id].llm.append((at - takes[id].asked_at, ToolDelta(call, name, arguments)))
                case LlmUsed(id=id, at=at):
                    usage = Usage(chunk.prompt_tokens, chunk.cached_tokens, chunk.completion_tokens)
                    takes[id].llm.append((at - takes[id].asked_at, usage))
                case Noted(stage="llm", id=id, at=at):
                    takes[id].llm.append((at - takes[id].asked_at, _event(chunk)))
                case StreamEnded(stage="llm", id=id, at=at, how=how, where=where):
                    takes[id].ended, takes[id].how, takes[id].where = at, how, where
                    _set_apart(takes[id], takes[id].llm)
                case _:
                    pass
        every = _until_cut(takes.values(), streams)
        super().__init__(_Takes("llm", "conversation", every, clock, on_miss, on_nearest), clock)

    async def warm(self, messages: tuple[Message, ...]) -> None:
        """What was warm then is warm now."""

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        take = self._takes.find(_conversation((message.role, message.content) for message in request.messages))
        to_end = any(isinstance(piece, Event) for _, piece in take.llm)
        async with aclosing(self._play(take, lambda one: one.llm, to_end=to_end)) as chunks:
            async for chunk in chunks:
                yield chunk


class RecordedTts(_Streaming):
    """Speaks a clause as it was spoken then."""

    def __init__(self, streams: Streams, clock: Clock, on_miss: OnMiss, on_nearest: OnNearest) -> None:
        self.rate = int(streams.header["tts_rate"])
        takes: dict[int, _Take] = {}
        for chunk in streams.chunks:
            match chunk:
                case TtsAsked(id=id, at=at, text=text):
                    takes[id] = _Take(at, text)
                case TtsSpoke(id=id, at=at, offset=offset, size=size):
                    takes[id].pcm.append((at - takes[id].asked_at, streams.audio[offset : offset + size]))
                case Noted(stage="tts", id=id, at=at):
                    takes[id].pcm.append((at - takes[id].asked_at, _event(chunk)))
                case StreamEnded(stage="tts", id=id, at=at, how=how, where=where):
                    takes[id].ended, takes[id].how, takes[id].where = at, how, where
                    _set_apart(takes[id], takes[id].pcm)
                case _:
                    pass
        super().__init__(
            _Takes("tts", "clause", _until_cut(takes.values(), streams), clock, on_miss, on_nearest), clock
        )

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        take = self._takes.find(request.text)
        async with aclosing(self._play(take, lambda one: one.pcm, to_end=True)) as audio:
            async for pcm in audio:
                yield pcm


class RecordedS2s(_Recorded):
    """Answers a stretch of the caller's speech as it was answered then, and tells then what it told."""

    def __init__(self, streams: Streams, clock: Clock, on_miss: OnMiss, on_nearest: OnNearest) -> None:
        self.name = str(streams.header["providers"]["s2s"][0])
        self.rate = int(streams.header["s2s_rate"])
        takes: dict[int, _Take] = {}
        for chunk in streams.chunks:
            match chunk:
                case S2sAsked(id=id, at=at, speech=speech, text=text):
                    takes[id] = _Take(at, _spoken(speech) if text is None else text)
                case TtsSpoke(id=id, at=at, offset=offset, size=size):
                    piece = AudioDelta(streams.audio[offset : offset + size])
                    takes[id].s2s.append((at - takes[id].asked_at, piece))
                case S2sSaid(id=id, at=at, text=text):
                    takes[id].s2s.append((at - takes[id].asked_at, TextDelta(text)))
                case S2sHeard(id=id, at=at, text=text):
                    takes[id].tell(at, CallerSaid(0, text))
                case S2sUsed(id=id, at=at):
                    names = [one.name for one in fields(S2sUsage) if one.name != "answer"]
                    used = S2sUsage(0, **{name: getattr(chunk, name) for name in names})
                    takes[id].tell(at, used)
                case StreamEnded(stage="s2s", id=id, at=at, how=how):
                    takes[id].ended, takes[id].how = at, how
                case _:
                    pass
        self._takes = _Takes("s2s", "answer", _until_cut(takes.values(), streams), clock, on_miss, on_nearest)
        self._clock = clock

    def open(self, instructions: str) -> S2sStream:
        return _S2sStream(self._takes, self._clock)


@dataclass(slots=True)
class _Playing:
    """An answer, and how many of its chunks have been taken."""

    passed: float = 0


@dataclass(frozen=True, slots=True)
class _Due:
    """News, not before `at` and not before so many chunks of the answer."""

    at: float
    after: int
    playing: _Playing
    news: S2sNews


class _S2sStream:
    def __init__(self, takes: _Takes, clock: Clock) -> None:
        self._takes = takes
        self._clock = clock
        self._heard = Stretches()
        self._asked = 0
        self._due: list[_Due] = []  # two an answer: few
        self._alarm: asyncio.Future[None] | None = None
        self._closed = False

    def hear_from(self, start: float) -> None:
        self._heard.hear_from(start)

    def forget(self) -> None:
        self._heard.forget()

    def push(self, pcm: bytes) -> None:
        self._heard.push(pcm)

    def respond(self) -> AsyncGenerator[S2sChunk, None]:
        return self._play(_spoken(self._heard.take()))

    def say(self, text: str) -> AsyncGenerator[S2sChunk, None]:
        return self._play(text)

    def truncate(self, heard_s: float) -> None:
        """What it remembered then it remembers now."""

    async def __aiter__(self) -> AsyncIterator[S2sNews]:
        while True:
            now = self._clock.now() + 1e-9
            if due := next((one for one in self._due if one.at <= now and one.playing.passed >= one.after), None):
                self._due.remove(due)
                yield due.news
            elif self._closed:
                return
            else:
                later = [one.at for one in self._due if one.at > now]
                self._alarm = self._clock.alarm(min(later)) if later else self._clock.never()
                await self._alarm

    async def aclose(self) -> None:
        self._closed = True
        self._wake()

    def _play(self, key: str) -> AsyncGenerator[S2sChunk, None]:
        self._asked += 1
        now = self._clock.now()
        try:
            take = self._takes.find(key)
        except NotRecorded as miss:
            return self._miss(miss)
        playing = _Playing()
        for delay, after, news in take.news:
            self._due.append(_Due(now + delay, after, playing, replace(news, answer=self._asked)))
        self._due.sort(key=lambda due: due.at)
        self._wake()
        return self._told(self._chunks(take, now), playing)

    async def _told(self, chunks: AsyncGenerator[S2sChunk, None], playing: _Playing) -> AsyncGenerator[S2sChunk, None]:
        """Let the news know how far the answer is: of two things at one instant the same comes first as then."""
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
                    playing.passed += 1
                    self._wake()
        finally:
            playing.passed = math.inf
            self._wake()

    async def _chunks(self, take: _Take, asked_at: float) -> AsyncGenerator[S2sChunk, None]:
        came = -1.0
        for delay, chunk in take.s2s:
            if delay != came:  # what came at one instant comes without a wait, in which others had their turn
                await self._clock.sleep_until(asked_at + delay)
            came = delay
            yield chunk
        if take.how.startswith("failed: "):
            raise ProviderError(take.how.removeprefix("failed: "))
        if take.how != "complete":
            for delay, chunk in (await self._takes.rest(take, asked_at)).s2s[len(take.s2s) :]:
                await self._clock.sleep_until(asked_at + delay)
                yield chunk
        else:
            await self._clock.sleep_until(asked_at + take.length)

    async def _miss(self, miss: NotRecorded) -> AsyncGenerator[S2sChunk, None]:
        raise miss
        yield  # a generator like the others

    def _wake(self) -> None:
        if self._alarm and not self._alarm.done():
            self._alarm.set_result(None)


def _spoken(speech: Iterable[tuple[float, float]]) -> str:
    """A turn of the caller, by when they spoke, to the millisecond."""
    return ", ".join(f"the caller's speech from {start:.3f} s to {end:.3f} s" for start, end in speech)


def _conversation(messages: Iterable[tuple[str, str]]) -> str:
    """A conversation as text, one message a line, for comparing and for telling differences."""
    return "\n".join(f"{role}: {content}" for role, content in messages)
