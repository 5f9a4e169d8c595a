"""Any call at all: whoever speaks when, whatever fails, the trace makes sense and nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calls import Call, after, during, says
from voicectl.errors import ProviderError
from voicectl.events import (
    AgentInterrupted,
    CallEnded,
    CallStarted,
    Event,
    PlayoutFinished,
    PlayoutStarted,
    ReplyCancelled,
    ReplyCommitted,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TurnDropped,
    TurnEnded,
)
from voicectl.pipeline.session import AgentRules
from voicectl.pipeline.turn_taking import TurnRules
from voicectl.trace import Trace

texts = st.sampled_from(["A latte, please.", "Stop.", "Mhm.", "Okay.", "", "And a muffin."])
starts = st.one_of(
    st.floats(0, 12), st.floats(0, 1.5).map(after), st.floats(0, 3).map(during), st.sampled_from([2.5, 2.7, 3.0])
)
utterances = st.builds(says, texts, starts, st.sampled_from([0.06, 0.3, 0.5, 1.0]), backchannel=st.booleans())
replies = st.lists(
    st.sampled_from(["Sure.", "One latte. Anything else for you today?", "Well, " + "this goes on and on " * 12, ""]),
    min_size=1,
    max_size=3,
)
rules = st.builds(
    AgentRules,
    name=st.just("coffee"),
    instructions=st.just("Take orders."),
    greeting=st.sampled_from(["", "Good morning.", "Corner Coffee Bar, what can I get you on this fine day?"]),
    turns=st.builds(TurnRules, speculate=st.booleans(), interruptible=st.booleans()),
    max_history_turns=st.none() | st.integers(1, 3),
)
delays = st.sampled_from([0.0, 0.02, 0.1, 0.4, 1.3])


@dataclass(frozen=True, slots=True)
class Fails:
    """Fails for these: numbers of streams or requests, beginnings of clauses."""

    where: str
    when: frozenset[object]

    def __call__(self, asked: object) -> ProviderError | None:
        key = asked[:4] if isinstance(asked, str) else asked
        return ProviderError("busy", where=self.where) if key in self.when else None


def failing(where: str) -> st.SearchStrategy[Fails]:
    keys = st.sampled_from(["Sure", "One ", "this", "Corn"]) if where == "tts" else st.integers(0, 4)
    return st.builds(Fails, st.just(f"{where}:fake"), st.frozensets(keys, max_size=2))


calls = st.builds(
    Call,
    caller=st.lists(utterances, max_size=5),
    replies=replies,
    rules=rules,
    rate=st.sampled_from([8_000, 16_000]),
    stt_final=delays,
    llm_ttft=delays,
    llm_per_second=st.sampled_from([3.0, 50.0]),
    tts=st.fixed_dictionaries({"ttfb_ms": st.sampled_from([0, 80, 700]), "speed": st.sampled_from([0.9, 20])}),
    stt_fails=failing("stt"),
    stt_breaks=failing("stt"),
    llm_fails=failing("llm"),
    tts_fails=failing("tts"),
    hang_up_at=st.none() | st.floats(0, 20),
    trace=st.builds(Trace),
)


@given(calls)
@settings(deadline=None, max_examples=60)
def test_the_trace_of_any_call_makes_sense_and_nothing_is_left_behind(call: Call) -> None:
    call.run()
    events = call.trace.events
    assert (call.left, call.llm.running, call.voice.running) == ([], 0, 0)
    assert all(stream.closed for stream in call.stt.streams)
    assert isinstance(events[0], CallStarted)
    assert isinstance(events[-1], CallEnded)
    assert events[-1].reason == "caller hung up"
    for before, after_it in pairwise(events):
        assert known(before) <= known(after_it) + 1e-9, "noted in the order in which it was known"
    replies_make_sense(events)
    turns_make_sense(events)
    for messages in call.llm.requests:
        assert [messages[0].role, messages[-1].role] == ["system", "user"]
        assert all(message.content.strip() for message in messages)
        limit = call.rules.max_history_turns
        if limit is not None:
            assert sum(message.role == "user" for message in messages) <= limit + 1


def known(event: Event) -> float:
    return event.at if event.noted_at is None else event.noted_at


def replies_make_sense(events: list[Event]) -> None:
    """One at a time, heard only when it may be, and over once."""
    now: ReplyStarted | None = None
    may_be_heard = heard = False
    for event in events:
        match event:
            case ReplyStarted():
                assert now is None, "two replies at once"
                now, may_be_heard, heard = event, not event.held, False
            case ReplyCommitted(reply=reply):
                assert now
                assert (reply, may_be_heard) == (now.reply, False)
                may_be_heard = True
            case PlayoutStarted(reply=reply):
                assert now
                assert (reply, may_be_heard, heard) == (now.reply, True, False)
                heard = True
            case PlayoutFinished(reply=reply):
                assert now
                assert (reply, may_be_heard) == (now.reply, True)
                assert heard or not event.heard
                now = None
            case AgentInterrupted(reply=reply):
                assert now
                assert (reply, heard) == (now.reply, True)
                now = None
            case ReplyCancelled(reply=reply, reason=reason):
                assert now
                assert reply == now.reply
                assert reason == "call ended" or not heard
                now = None
            case _:
                pass
    assert now is None


def turns_make_sense(events: list[Event]) -> None:
    """Numbered in order, alternating speech and pause, over once."""
    turn = 0
    state = "over"
    dropped: list[int] = []
    for event in events:
        match event:
            case SpeechStarted(turn=number):
                assert (number, state) in [(turn + 1, "over"), (turn, "paused")]
                turn, state = number, "speaking"
            case SpeechPaused(turn=number):
                assert (number, state) == (turn, "speaking")
                state = "paused"
            case TurnEnded(turn=number):
                assert (number, state) == (turn, "paused")
                state = "over"
            case TurnDropped(turn=number):
                assert number in (turn, turn - 1)
                dropped.append(number)
            case _:
                pass
    assert len(set(dropped)) == len(dropped)


@given(calls, st.floats(0.001, 5000))
@settings(deadline=None, max_examples=10)
def test_any_call_is_the_same_again_whatever_the_clock_says(call: Call, later: float) -> None:
    again = replace(call, trace=Trace(), begins_at=later)
    assert call.run().trace.lines() == again.run().trace.lines()
