"""What is measured: the one place that says from where to where. Pure: a recording in, measures out.

**Sound decides.** The trace says which reply answers which utterance; when it was heard is read
from the samples of `call.wav` by the thresholds of `analysis.audible`. When the caller had finished
is the truth beside the recording they were played from (`UtterancePlayed.voiced_until`), or the last
voiced sample of their channel where no truth exists (microphone, phone).

**An exchange** is one utterance that expects an answer, and what came of it:

    answered      the agent was heard after the utterance and before the window closed
    early         the agent was heard before the utterance was over: a false cut-off. Its wait is
                  negative, kept as it is, and stays out of the percentiles of those who waited
    no answer     silence until the window closed: 10 s, the caller's next utterance, or the end of
                  the call. Its wait is a lower bound (`censored`) and stays in the percentiles
    unfinished    the recording broke off inside the window: says nothing about the agent

The answer is the first reply heard within the window that belongs to a turn of this utterance: one
that overlaps it, or that began after it and before the next (noise taken for a new turn may carry
the answer on). A reply to noise from before that sets in while the caller speaks is an early answer
too: the caller was talked over.

**Marks** of an answered exchange, in the order of the chain, and the stage that ends at each:

    speech_end                                                      sound
    turn_ended        endpointing        the endpointer was sure    trace
    stt_final         stt_final          the text that is answered  trace
    llm_first_token   llm_ttft                                      trace
    clause_ready      llm_sentence       first clause to the TTS    trace
    tts_first_audio   tts_ttfb                                      trace
    audible_ready     tts_lead_silence   + the silence before its first audible sample
    heard             playout            at the caller's end        sound

Where one speech-to-speech model does what three do elsewhere, their stages do not exist. They are absent
(from the chain, the waterfall, the figures), not zero:

    speech_end                                                      sound
    turn_ended        endpointing        the endpointer was sure    trace
    s2s_first_audio   s2s_ttfb           from the turn handed over  trace
    audible_ready     s2s_lead_silence   + the silence before its first audible sample
    heard             playout            at the caller's end        sound

**A stage's duration** is its own: `llm_ttft` from the request, `tts_ttfb` from the clause handed
over, wherever these lie. The pipeline thinks ahead, so durations overlap and can begin before the
turn ended; `stt_final` is then negative, and stays so.

**The waterfall** is what the caller waited for each stage: how much later than everything before it
its mark came. A stage that was hidden behind an earlier one adds nothing, so the parts are never
negative and sum to the voice-to-voice exactly (whole microseconds).

Fillers are no answer: the sound of one is passed over.

Apart from these: the greeting, the cold first exchange of a run, barge-ins, backchannels. And the
same wait by the pipeline's own stamps, to see how far they are from the sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.audible import first_audible, last_voiced, segments
from voicectl.analysis.timeline import Reply, Timeline, Turn, read_timeline, us
from voicectl.analysis.words import slot_words_heard, word_errors
from voicectl.events import (
    AgentPaused,
    AgentResumed,
    Event,
    FrameLate,
    LlmCancelled,
    LlmFinished,
    ProviderFailed,
    ProviderRetried,
    ProviderSwitched,
    ReplyCancelled,
    S2sRequested,
    UtterancePlayed,
)

NO_ANSWER_US = us(10.0)

Stage = Literal[
    "endpointing",
    "stt_final",
    "llm_ttft",
    "llm_sentence",
    "tts_ttfb",
    "tts_lead_silence",
    "s2s_ttfb",
    "s2s_lead_silence",
    "playout",
]
STAGES: tuple[Stage, ...] = (
    "endpointing",
    "stt_final",
    "llm_ttft",
    "llm_sentence",
    "tts_ttfb",
    "tts_lead_silence",
    "playout",
)
S2S_STAGES: tuple[Stage, ...] = ("endpointing", "s2s_ttfb", "s2s_lead_silence", "playout")
"""Of an agent whose one model hears and speaks."""

ALL_STAGES: tuple[Stage, ...] = (*STAGES[:-1], *S2S_STAGES[1:])

Outcome = Literal["answered", "early", "no answer", "unfinished"]

_STAMP_SLACK_US = us(0.1)
"""How far the stamp of a reply's first frame may be behind its sound and still be believed."""

_FIRST_LOOK_US = us(0.5)


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, such as slot words heard of slot words said."""

    count: int = 0
    total: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.count + other.count, self.total + other.total)

    @property
    def ratio(self) -> float | None:
        return self.count / self.total if self.total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One utterance that expects an answer, and what came of it. Times in µs of the call.

    Args:
        number: from 1 within the call.
        name: the utterance's file, or the turn.
        said: the truth, where it is known.
        transcript: what the STT heard.
        answer: what the caller heard of the answer.
        wait: voice-to-voice; negative for an early answer, a lower bound for none.
        heard: first audible sample of the answer.
        stages: duration of each stage by itself, of those that are known.
        chain: the stages that this agent has.
        waterfall: how long the caller waited for each of `chain` (answered exchanges only).
        wait_by_stamps: the same wait by the pipeline's own stamps.
    """

    number: int
    name: str
    said: str | None
    transcript: str
    answer: str
    outcome: Outcome
    speech_end: int
    wait: int
    heard: int | None = None
    stages: Mapping[Stage, int]
    waterfall: tuple[int, ...] | None = None
    wait_by_stamps: int | None = None
    slots: Share = Share()
    word_errors: Share = Share()
    chain: tuple[Stage, ...] = STAGES


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller spoke while the agent was audible. `stop`: from their first voiced sample to the
    agent's last audible one. `yielded`: the agent broke off, it did not just come to its end."""

    at: int
    stop: int
    yielded: bool


@dataclass(frozen=True, slots=True)
class Measures:
    """All that is measured of one call.

    Args:
        greeting: call's start to the first audible sample of the greeting.
        backchannels: how many of them stopped the agent.
        hold_ups: how long the agent fell quiet, each time, for what was no interruption.
        thrown_away: chunks of answers that nobody heard any of, to all that were generated: what
            thinking ahead costs.
        late_frames: how late each late frame was.
        failures: what providers could not do, one line each.
        switches: who took over from whom and why, one line each.
        retries: requests that were made again.
    """

    timeline: Timeline
    exchanges: tuple[Exchange, ...]
    greeting: int | None
    barge_ins: tuple[BargeIn, ...]
    backchannels: Share
    hold_ups: tuple[int, ...]
    thrown_away: Share
    late_frames: tuple[int, ...]
    failures: tuple[str, ...]
    switches: tuple[str, ...] = ()
    retries: int = 0


def measure(
    events: Sequence[Event], rate: int, left: NDArray[np.int16], right: NDArray[np.int16], *, broken_off: bool = False
) -> Measures:
    """Measure one call.

    Args:
        events: its trace.
        rate: samples a second of both channels.
        left: the caller.
        right: the agent, as the caller hears it.
        broken_off: the recording ends before the call did.
    """
    timeline = read_timeline(events, sound_end=len(left) * 1_000_000 // rate)
    sound = _Sound(rate, left, right)
    heard = _heard_from(timeline, sound)
    utterances = _utterances(timeline, sound)
    closed = not broken_off and timeline.reason not in (None, "interrupted")
    chain = S2S_STAGES if any(isinstance(event, S2sRequested) for event in events) else STAGES
    greeting = next((number for number, reply in _by_number(timeline).items() if reply.turn is None), None)
    return Measures(
        timeline=timeline,
        exchanges=tuple(
            _exchange(number, utterances[number - 1 : number + 1], timeline, heard, closed, chain)
            for number in range(1, len(utterances) + 1)
        ),
        greeting=heard[greeting] - timeline.start if greeting is not None and greeting in heard else None,
        barge_ins=_barge_ins(timeline, sound, heard, utterances),
        backchannels=_backchannels(timeline),
        hold_ups=_hold_ups(events),
        thrown_away=_thrown_away(events),
        late_frames=tuple(us(event.late) for event in events if isinstance(event, FrameLate)),
        failures=tuple(f"{event.stage}: {event.message}" for event in events if isinstance(event, ProviderFailed)),
        switches=tuple(
            f"{event.stage}: {event.to} took over from {event.provider}: {event.why}"
            for event in events
            if isinstance(event, ProviderSwitched)
        ),
        retries=sum(isinstance(event, ProviderRetried) for event in events),
    )


# Where things are in the sound -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sound:
    """The two channels, asked in microseconds."""

    rate: int
    left: NDArray[np.int16]
    right: NDArray[np.int16]

    def agent_first(self, start: int, end: int) -> int | None:
        """What is found in a part is what is found in the whole, so a reply need not be read to its end."""
        reach = _FIRST_LOOK_US
        while True:
            stop = min(end, start + reach)
            found = first_audible(self.right, self.rate, self._sample(start), self._sample(stop))
            if found is not None or stop >= end:
                return self._us(found)
            reach *= 4

    def agent_stretches(self, start: int, end: int) -> list[tuple[int, int]]:
        found = segments(self.right, self.rate, start=self._sample(start), end=self._sample(end))
        return [(_microseconds(one.first, self.rate), _microseconds(one.last, self.rate)) for one in found]

    def caller_last(self, start: int, end: int) -> int | None:
        return self._us(last_voiced(self.left, self.rate, self._sample(start), self._sample(end)))

    def _sample(self, at: int) -> int:
        return max(0, round(at * self.rate / 1_000_000))

    def _us(self, sample: int | None) -> int | None:
        return None if sample is None else _microseconds(sample, self.rate)


def _microseconds(sample: int, rate: int) -> int:
    return round(sample * 1_000_000 / rate)


def _by_number(timeline: Timeline) -> dict[int, Reply]:
    return {reply.number: reply for reply in timeline.replies}


def _heard_from(timeline: Timeline, sound: _Sound) -> dict[int, int]:
    """First audible sample of each reply by its number; a reply of mere silence has none."""
    heard: dict[int, int] = {}
    for position, reply in enumerate(timeline.replies):
        start, end = _span(timeline, position)
        first = sound.agent_first(start, end)
        if first is not None:
            heard[reply.number] = first
    return heard


def _span(timeline: Timeline, position: int) -> tuple[int, int]:
    """Where the sound of a reply is looked for: a little before its stamp, until the next one's."""
    replies = timeline.replies
    before = replies[position - 1].over if position else None
    start = (replies[position].playout or 0) - _STAMP_SLACK_US
    later = [reply.playout or 0 for reply in replies[position + 1 :]]
    end = later[0] - _STAMP_SLACK_US if later else timeline.end
    return max(start, before or 0, replies[position].filler_until or 0), max(end, replies[position].over or 0)


# What the caller said --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Something that expects an answer."""

    voiced_from: int
    voiced_until: int
    name: str
    text: str | None = None
    slots: tuple[str, ...] = ()


def _utterances(timeline: Timeline, sound: _Sound) -> list[_Utterance]:
    if timeline.utterances:
        return [
            _Utterance(us(one.voiced_from), us(one.voiced_until), one.name, one.text, tuple((one.slots or {}).values()))
            for one in timeline.utterances
            if not one.backchannel
        ]
    turns = [turn for turn in timeline.turns.values() if turn.ended is not None and turn.expects_answer]
    return [
        _Utterance(
            turn.start,
            sound.caller_last(turn.start, turn.ended or turn.end) or turn.end,
            f"turn {turn.number}",
        )
        for turn in turns
    ]


def _exchange(
    number: int,
    this_and_next: Sequence[_Utterance],
    timeline: Timeline,
    heard: Mapping[int, int],
    closed: bool,
    chain: tuple[Stage, ...],
) -> Exchange:
    said = this_and_next[0]
    window = min(
        said.voiced_until + NO_ANSWER_US,
        this_and_next[1].voiced_from if len(this_and_next) > 1 else timeline.end,
        timeline.end,
    )
    own = {turn.number for turn in timeline.turns.values() if turn.start < window and turn.end >= said.voiced_from}
    answers = (
        reply
        for reply in timeline.replies
        if said.voiced_from < (first := heard.get(reply.number, -1)) < window
        and (reply.turn in own or (first < said.voiced_until and _to_noise(reply, timeline)))
    )
    reply = next(answers, None)
    spoken = [turn for turn in timeline.turns.values() if turn.number in own and turn.start <= said.voiced_until]
    transcript = " ".join(turn.text for turn in spoken if turn.text)
    turn = timeline.turns.get(reply.turn) if reply and reply.turn is not None else None
    at = heard[reply.number] if reply else None
    marks = [_marks(turn, reply, at)[stage] for stage in chain] if reply and at is not None else ()
    return Exchange(
        number=number,
        name=said.name,
        said=said.text,
        transcript=transcript,
        answer=reply.said if reply else "",
        outcome=_outcome(said, at, window, timeline, closed),
        speech_end=said.voiced_until,
        wait=(window if at is None else at) - said.voiced_until,
        heard=at,
        stages=_stages(said.voiced_until, turn, reply, at) if reply and at is not None else {},
        waterfall=waterfall(said.voiced_until, marks, at) if at is not None and at >= said.voiced_until else None,
        wait_by_stamps=reply.playout - turn.end if reply and reply.playout is not None and turn else None,
        slots=Share(*slot_words_heard(said.slots, transcript)),
        word_errors=Share() if said.text is None else Share(*word_errors(said.text, transcript)),
        chain=chain,
    )


def _to_noise(reply: Reply, timeline: Timeline) -> bool:
    """Whether the reply answers a turn in which the caller we play said nothing."""
    turn = timeline.turns.get(reply.turn) if reply.turn is not None else None
    return turn is not None and not any(_overlap(turn, said) for said in timeline.utterances)


def _outcome(said: _Utterance, heard: int | None, window: int, timeline: Timeline, closed: bool) -> Outcome:
    if heard is not None:
        return "answered" if heard >= said.voiced_until else "early"
    cut_short = window == timeline.end and window < said.voiced_until + NO_ANSWER_US
    return "unfinished" if cut_short and not closed else "no answer"


def _marks(turn: Turn | None, reply: Reply, heard: int) -> dict[Stage, int | None]:
    """When each stage was done."""
    return {
        "endpointing": turn.ended if turn else None,
        "stt_final": reply.stt_final,
        "llm_ttft": reply.llm_first_token,
        "llm_sentence": reply.clause_ready,
        "tts_ttfb": reply.tts_first_audio,
        "tts_lead_silence": _ready(reply.tts_first_audio, reply, heard),
        "s2s_ttfb": reply.s2s_first_audio,
        "s2s_lead_silence": _ready(reply.s2s_first_audio, reply, heard),
        "playout": heard,
    }


def _ready(first_audio: int | None, reply: Reply, heard: int) -> int | None:
    """When the first audible sample was there: as long after the first of all as it is in the sound."""
    return None if first_audio is None else first_audio + heard - (reply.playout or heard)


def waterfall(speech_end: int, marks: Sequence[int | None], heard: int) -> tuple[int, ...]:
    """How much later than all before it each mark came. Sums to `heard - speech_end`.

    An unknown mark adds nothing: its time is in the next stage. None reaches beyond `heard`.
    """
    reached = speech_end
    parts: list[int] = []
    for mark in marks:
        before, reached = reached, min(max(reached, reached if mark is None else mark), heard)
        parts.append(reached - before)
    return tuple(parts)


def _stages(speech_end: int, turn: Turn | None, reply: Reply, heard: int) -> dict[Stage, int]:
    ended = turn.ended if turn else None
    speech = reply.s2s_requested is not None
    ready = _ready(reply.s2s_first_audio if speech else reply.tts_first_audio, reply, heard)
    spans: dict[Stage, tuple[int | None, int | None]] = {
        "endpointing": (speech_end, ended),
        "stt_final": (ended, None if speech else reply.stt_final),
        "llm_ttft": (reply.llm_requested, reply.llm_first_token),
        "llm_sentence": (reply.llm_first_token, reply.clause_ready),
        "tts_ttfb": (reply.tts_requested, reply.tts_first_audio),
        "tts_lead_silence": (None if speech else reply.playout, heard),
        "s2s_ttfb": (reply.s2s_requested, reply.s2s_first_audio),
        "s2s_lead_silence": (reply.playout if speech else None, heard),
        "playout": (ready, heard),
    }
    return {stage: to - since for stage, (since, to) in spans.items() if since is not None and to is not None}


# Speaking at the same time ---------------------------------------------------------------------


def _barge_ins(
    timeline: Timeline, sound: _Sound, heard: Mapping[int, int], utterances: Sequence[_Utterance]
) -> tuple[BargeIn, ...]:
    found: list[BargeIn] = []
    for position, reply in enumerate(timeline.replies):
        if reply.number not in heard:
            continue
        over = reply.over or timeline.end
        for said in utterances:
            if not heard[reply.number] < said.voiced_from < over + _STAMP_SLACK_US:
                continue
            start, end = _span(timeline, position)
            stretches = sound.agent_stretches(start, end)
            if any(first <= said.voiced_from <= last for first, last in stretches):
                yielded = reply.interrupted_by is not None
                found.append(BargeIn(said.voiced_from, stretches[-1][1] - said.voiced_from, yielded))
    return tuple(found)


def _backchannels(timeline: Timeline) -> Share:
    played = [one for one in timeline.utterances if one.backchannel]
    spoken = [one for one in timeline.utterances if not one.backchannel]
    stopped = [timeline.turns.get(reply.interrupted_by or -1) for reply in timeline.replies]
    turns = [turn for turn in stopped if turn and not any(_overlap(turn, one) for one in spoken)]
    return Share(sum(any(_overlap(turn, one) for turn in turns) for one in played), len(played))


def _hold_ups(events: Sequence[Event]) -> tuple[int, ...]:
    paused: dict[int, int] = {}
    found: list[int] = []
    for event in events:
        if isinstance(event, AgentPaused):
            paused[event.reply] = us(event.at)
        elif isinstance(event, AgentResumed) and event.reply in paused:
            found.append(us(event.at) - paused.pop(event.reply))
    return tuple(found)


def _thrown_away(events: Sequence[Event]) -> Share:
    chunks = {event.reply: event.chunks or 0 for event in events if isinstance(event, LlmFinished | LlmCancelled)}
    unheard = {event.reply for event in events if isinstance(event, ReplyCancelled)}
    return Share(sum(chunks.get(reply, 0) for reply in unheard), sum(chunks.values()))


def _overlap(turn: Turn, said: UtterancePlayed) -> bool:
    return turn.start <= us(said.voiced_until) and turn.end >= us(said.voiced_from)
