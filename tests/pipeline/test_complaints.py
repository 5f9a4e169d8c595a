"""What people complain of in voice agents, one conversation each, with its timeline written out.

Each test's name is a claim. The clock is virtual: the callers say tones, the STT knows the words,
the LLM takes 150 ms to its first token and the TTS 80 ms to its first sound.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from pipeline.calls import Call, after, during, says, story
from voicectl.audio import FRAME_S
from voicectl.clock import Clock
from voicectl.events import (
    AgentInterrupted,
    AgentPaused,
    AgentResumed,
    BackchannelHeard,
    CallEnded,
    FillerPlayed,
    PlayoutFinished,
    PlayoutStarted,
    ReplyCancelled,
    ReplyStarted,
    SpeechStarted,
    TurnDropped,
    TurnEnded,
    TurnJudged,
)
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.idle import IdleRules
from voicectl.pipeline.protocols import Frame, Transport
from voicectl.pipeline.session import AgentRules, FillerRules
from voicectl.pipeline.turn_taking import TurnRules

LONG = "One latte, that is four dollars and fifty cents altogether. Anything else for you today, or is that all?"
SILENCE = EndpointingRules(pause_s=0.1, notice_s=0.16)
TEXT = replace(SILENCE, strategies=("text",))
RULES = AgentRules("coffee", "Take orders.", "", endpointing=SILENCE)
STOPS = (AgentPaused, AgentResumed, AgentInterrupted, TurnDropped, PlayoutFinished)


def ended(call: Call) -> list[str]:
    return story(call.trace, TurnEnded)


# It waits too long ------------------------------------------------------------------------------


def test_a_finished_sentence_does_not_wait_as_long_as_an_unfinished_one() -> None:
    finished = Call(caller=[says("I'd like a large latte, please.", 1.0)], rules=replace(RULES, endpointing=TEXT)).run()
    unfinished = Call(caller=[says("I'd like a large latte and", 1.0)], rules=replace(RULES, endpointing=TEXT)).run()
    (early,), (late,) = finished.trace.of(TurnEnded), unfinished.trace.of(TurnEnded)
    assert early.at < 2.0 + 0.35
    assert late.at > 2.0 + 0.8


def test_the_answer_is_ready_when_the_turn_ends_and_plays_at_once() -> None:
    call = Call(caller=[says("A latte, please.", 1.0)], rules=RULES).run()
    (over,), (started,) = call.trace.of(TurnEnded), call.trace.of(PlayoutStarted)
    assert started.at == over.at


# It cuts people off -----------------------------------------------------------------------------


def test_a_phone_number_read_in_groups_is_not_cut_off() -> None:
    groups = [
        says("My number is five five five,", 1.0, 1.2),
        says("two oh", 2.9, 0.5),
        says("one four nine nine.", 4.1, 0.9),
    ]
    call = Call(caller=groups, rules=replace(RULES, endpointing=TEXT)).run()
    assert [event.turn for event in call.trace.of(TurnEnded)] == [1]
    assert len(call.trace.of(PlayoutStarted)) == 1
    judged = call.trace.of(TurnJudged)
    assert all(one.wait > 0.6 for one in judged[:2]), story(call.trace, TurnJudged)


def test_every_decision_says_what_it_was_made_of() -> None:
    call = Call(caller=[says("I'd like a large latte, please.", 1.0)], rules=replace(RULES, endpointing=TEXT)).run()
    (over,) = call.trace.of(TurnEnded)
    assert over.scores and over.scores["text"] > 0.5
    assert "text" in over.reason and "ms of silence" in over.reason


# "Yeah." waits 2.5 s and "Yes." 0.3 -------------------------------------------------------------


def test_yeah_and_yes_are_answered_equally_fast_after_a_question() -> None:
    rules = replace(RULES, greeting="Is that for here?", endpointing=TEXT)
    waits: list[float] = []
    for word in ("Yes.", "Yeah.", "Nope."):
        call = Call(caller=[says(word, after(0.5), 0.4)], rules=rules).run()
        (over,) = call.trace.of(TurnEnded)
        waits.append(round(over.at - over.speech_end, 2))
    assert len(set(waits)) == 1 and waits[0] <= 0.35, waits


# A cough or an "mhm" kills the answer ------------------------------------------------------------


def test_a_backchannel_lets_the_agent_go_on_where_it_stopped() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("Mhm.", during(1.0), 0.3, backchannel=True)], replies=[LONG], rules=RULES
    ).run()
    (paused,), (resumed,) = call.trace.of(AgentPaused), call.trace.of(AgentResumed)
    assert resumed.at - paused.at < 0.5
    assert not call.trace.of(AgentInterrupted)
    assert [event.text for event in call.trace.of(BackchannelHeard)] == ["Mhm."]
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == [LONG]


def test_a_cough_does_not_end_the_answer() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("", during(1.0), 0.35, backchannel=True)], replies=[LONG], rules=RULES
    ).run()
    assert not call.trace.of(AgentInterrupted)
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == [LONG]


def test_a_long_noise_without_words_holds_the_agent_up_only_until_it_was_looked_at() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("", during(1.0), 3.0, backchannel=True)], replies=[LONG], rules=RULES
    ).run()
    (paused,), (resumed,) = call.trace.of(AgentPaused), call.trace.of(AgentResumed)
    assert resumed.at - paused.at < 0.6
    assert not call.trace.of(AgentInterrupted)


def test_a_short_noise_is_not_even_noticed() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("", during(1.0), 0.06, backchannel=True)], replies=[LONG], rules=RULES
    ).run()
    assert not call.trace.of(AgentPaused)
    assert len(call.trace.of(SpeechStarted)) == 1


def test_the_agents_own_echo_does_not_stop_it() -> None:
    call = Call(caller=[says("A latte.", 1.0)], replies=[LONG], rules=RULES, line=Echoing).run()
    assert len(call.trace.of(SpeechStarted)) > 1, "the echo is loud enough to be taken for speech"
    assert not call.trace.of(AgentPaused) and not call.trace.of(AgentInterrupted)
    assert next(event.heard for event in call.trace.of(PlayoutFinished)) == LONG


class Echoing:
    """A line on which the agent comes back to itself, 100 ms later and 12 dB quieter."""

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self.inner = inner
        self.rate, self.caller = inner.rate, inner.caller
        self.sent: dict[int, bytes] = {}

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        async with aclosing(self.inner.frames(start)) as frames:
            async for frame in frames:
                echo = self.sent.get(round(frame.at / FRAME_S) - 5, bytes(len(frame.pcm)))
                both = np.frombuffer(frame.pcm, "<i2") + np.frombuffer(echo, "<i2") // 4
                yield Frame(both.astype("<i2").tobytes(), frame.at)

    def send(self, pcm: bytes) -> float:
        at = self.inner.send(pcm)
        if pcm:
            self.sent[round(at / FRAME_S)] = pcm
        return at

    async def aclose(self) -> None:
        await self.inner.aclose()


# Interruptions ----------------------------------------------------------------------------------


def test_words_stop_the_agent_within_200_ms_and_only_what_was_heard_is_remembered() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("No, wait, a mocha.", during(2.0), 1.2)],
        replies=[LONG, "Sure, a mocha."],
        rules=RULES,
    ).run()
    (cut,) = call.trace.of(AgentInterrupted)
    (paused,) = call.trace.of(AgentPaused)
    assert paused.at - paused.speech_at <= 0.2
    assert cut.at == paused.at
    assert LONG.startswith(cut.heard) and 2 < len(cut.heard.split()) < 9
    assert call.requests[-1] == ["user: A latte.", f"assistant: {cut.heard}", "user: No, wait, a mocha."]


def test_with_min_words_one_word_does_not_interrupt_and_is_answered_later() -> None:
    rules = replace(RULES, turns=TurnRules(min_words=2))
    call = Call(
        caller=[says("A latte.", 1.0), says("Wait.", during(1.0), 0.4)], replies=[LONG, "Yes?"], rules=rules
    ).run()
    assert not call.trace.of(AgentInterrupted)
    assert call.requests[-1] == ["user: A latte.", f"assistant: {LONG}", "user: Wait."]


def test_a_yeah_at_the_end_of_the_agents_question_answers_it() -> None:
    question = "One latte. Is that for here?"
    ends = Call(caller=[says("A latte.", 1.0)], replies=[question], rules=RULES).run().trace.of(PlayoutFinished)[0].at
    call = Call(
        caller=[says("A latte.", 1.0), says("Yeah.", ends - 0.15, 0.4)], replies=[question, "Great."], rules=RULES
    ).run()
    assert call.requests[-1] == ["user: A latte.", f"assistant: {question}", "user: Yeah."]
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == [question, "Great."]


def test_when_both_begin_to_speak_at_once_the_caller_has_the_word() -> None:
    alone = Call(caller=[says("A latte.", 1.0)], replies=[LONG], rules=RULES).run().trace.of(PlayoutStarted)[0].at
    call = Call(
        caller=[says("A latte.", 1.0), says("And a large mocha, please.", alone, 1.5)],
        replies=[LONG, "Sure."],
        rules=RULES,
    ).run()
    assert call.requests[-1][-1] == "user: And a large mocha, please."
    assert len(call.trace.of(AgentInterrupted)) == 1
    assert not segments_overlap(call)


def segments_overlap(call: Call) -> bool:
    """Whether the agent's stamps say that it spoke on after it was interrupted."""
    (cut,) = call.trace.of(AgentInterrupted)
    return cut.at - cut.speech_at > 0.25


# The opening ------------------------------------------------------------------------------------


def test_a_protected_greeting_is_heard_to_its_end_and_what_was_said_meanwhile_is_answered() -> None:
    rules = replace(RULES, greeting="Welcome to the coffee bar. What would you like?", greeting_protected=True)
    call = Call(caller=[says("A latte, please.", during(0.5))], rules=rules).run()
    assert not call.trace.of(AgentPaused) and not call.trace.of(AgentInterrupted)
    assert next(event.heard for event in call.trace.of(PlayoutFinished)) == rules.greeting
    assert call.requests == [[f"assistant: {rules.greeting}", "user: A latte, please."]]


def test_a_legal_notice_is_never_interrupted_but_the_greeting_after_it_may_be() -> None:
    rules = replace(RULES, notice="This call is recorded for training.", greeting="Hello. What would you like today?")
    call = Call(caller=[says("A latte, please.", during(0.6), 4.0)], rules=rules).run()
    kinds = [event.kind for event in call.trace.of(ReplyStarted)]
    assert kinds[0] == "notice"
    assert next(event.heard for event in call.trace.of(PlayoutFinished)) == rules.notice


def test_who_says_hello_before_the_greeting_is_greeted() -> None:
    rules = replace(RULES, greeting="Welcome to the coffee bar. What would you like?")
    call = Call(caller=[says("Hello?", 0.0, 0.5)], rules=rules, tts={"ttfb_ms": 300}).run()
    assert [event.kind for event in call.trace.of(ReplyStarted)] == ["greeting"]
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == [rules.greeting]
    (started,) = call.trace.of(PlayoutStarted)
    assert started.at > 0.5, "it does not speak over the caller's hello"


def test_who_orders_before_the_greeting_is_answered_instead_of_greeted() -> None:
    rules = replace(RULES, greeting="Welcome to the coffee bar. What would you like?")
    call = Call(caller=[says("A latte, please.", 0.0, 1.0)], rules=rules, tts={"ttfb_ms": 300}).run()
    assert call.requests == [["user: A latte, please."]]
    assert [event.reason for event in call.trace.of(ReplyCancelled)] == ["caller spoke first"]


# Silence ----------------------------------------------------------------------------------------


def test_a_silent_caller_is_asked_and_then_said_goodbye_to() -> None:
    idle = IdleRules(3.0, ("Are you still there?",), "Goodbye.")
    rules = replace(RULES, greeting="Hello.", idle=idle)
    call = Call(caller=[says("", 60.0)], rules=rules).run()
    assert [event.kind for event in call.trace.of(ReplyStarted)] == ["greeting", "idle prompt", "goodbye"]
    assert [event.reason for event in call.trace.of(CallEnded)] == ["agent hung up"]
    greeting, prompt, goodbye = call.trace.of(ReplyStarted)
    heard = call.trace.of(PlayoutFinished)
    assert 2.95 <= prompt.at - heard[0].at < 3.05
    assert 2.95 <= goodbye.at - heard[1].at < 3.05
    assert call.trace.of(CallEnded)[0].at - heard[2].at < 0.1
    assert greeting.at == 0.0


def test_a_caller_who_speaks_over_the_goodbye_is_not_hung_up_on() -> None:
    rules = replace(RULES, idle=IdleRules(3.0, (), "Goodbye my friend."))
    silent = Call(caller=[says("", 20.0)], rules=rules).run()
    over = silent.trace.of(PlayoutFinished)[0].at
    late = says("Please don't hang up yet.", over - 0.15)
    call = Call(caller=[late, says("", 40.0)], rules=rules, replies=["Sure."]).run()
    assert call.requests == [["assistant: Goodbye my friend.", "user: Please don't hang up yet."]]


def test_a_caller_who_speaks_after_the_prompt_is_not_hung_up_on() -> None:
    rules = replace(RULES, greeting="Hello.", idle=IdleRules(3.0, ("Are you still there?",), "Goodbye."))
    call = Call(caller=[says("A latte, please.", 5.5), says("", 14.0)], rules=rules, replies=["Sure."]).run()
    kinds = [event.kind for event in call.trace.of(ReplyStarted)]
    assert kinds == ["greeting", "idle prompt", "answer", "idle prompt", "goodbye"]


# A slow answer ----------------------------------------------------------------------------------


def test_a_filler_is_heard_while_the_answer_takes_long_and_is_tagged() -> None:
    rules = replace(RULES, filler=FillerRules(0.8, ("One moment.",)))
    call = Call(caller=[says("A latte, please.", 1.0)], rules=rules, llm_ttft=2.0, replies=["Sure."]).run()
    (filler,), (over,), (started,) = (
        call.trace.of(FillerPlayed),
        call.trace.of(TurnEnded),
        call.trace.of(PlayoutStarted),
    )
    assert 0.78 <= filler.at - over.at <= 0.83
    assert started.at >= filler.at + filler.seconds
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == ["Sure."]


def test_a_fast_answer_needs_no_filler() -> None:
    rules = replace(RULES, filler=FillerRules(0.8, ("One moment.",)))
    call = Call(caller=[says("A latte, please.", 1.0)], rules=rules).run()
    assert not call.trace.of(FillerPlayed)
