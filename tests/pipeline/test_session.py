"""Whole calls on the virtual clock, each with its timeline written out."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.calls import Call, after, during, says, story
from voicectl.audio import read_wav_channels
from voicectl.call_wav import CallWav
from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError, StorageError, TransportError
from voicectl.events import (
    AgentInterrupted,
    BackchannelHeard,
    CallEnded,
    CallStarted,
    ClauseReady,
    Event,
    FrameLate,
    LlmFinished,
    LlmFirstToken,
    LlmRequested,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ReplyCancelled,
    ReplyCommitted,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TtsFirstAudio,
    TurnDropped,
    TurnEnded,
    UtterancePlayed,
)
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.protocols import Frame, Transport
from voicectl.pipeline.session import AgentRules
from voicectl.pipeline.turn_taking import TurnRules
from voicectl.trace import Trace
from voicectl.transports.wav import WavTransport

LONG = "One latte, that is four dollars and fifty cents altogether. Anything else for you today, or is that all?"
RULES = AgentRules("coffee", "Take orders.", "", EndpointingRules(pause_s=0.13))
BY_SOUND = replace(RULES, turns=TurnRules(min_words=0))
REPLY = (ReplyStarted, ReplyCommitted, ReplyCancelled, PlayoutStarted, PlayoutFinished, AgentInterrupted)
TURN = (SpeechStarted, SpeechPaused, TranscriptUpdated, TurnEnded, TurnDropped)


# An exchange ----------------------------------------------------------------------------------


def test_an_ordinary_exchange() -> None:
    call = Call(caller=[says("A latte, please.", 1.0)], replies=["Sure, one latte."]).run()
    assert story(call.trace) == [
        "0.00 CallStarted",
        "1.00 UtterancePlayed 0 'A latte, please.'",
        "1.10 SpeechStarted 1",
        "2.14 SpeechPaused 1",
        "2.24 TranscriptUpdated 1 'A latte, please.'",
        "2.24 ReplyStarted 0 1 'A latte, please.' True",
        "2.24 LlmRequested 0",
        "2.39 LlmFirstToken 0",
        "2.39 ClauseReady 0 0 'Sure,'",
        "2.39 TtsRequested 0 0",
        "2.43 LlmFinished 0 'Sure, one latte.'",
        "2.43 ClauseReady 0 1 ' one latte.'",
        "2.47 TtsFirstAudio 0 0",
        "2.48 TtsFinished 0 0",
        "2.48 TtsRequested 0 1",
        "2.50 TurnEnded 1 '500 ms of silence'",
        "2.50 ReplyCommitted 0 1",
        "2.50 PlayoutStarted 0",
        "2.56 TtsFirstAudio 0 1",
        "2.59 TtsFinished 0 1",
        "3.48 PlayoutFinished 0 'Sure, one latte.'",
        "4.40 CallEnded 'caller hung up'",
    ]
    assert call.requests == [["user: A latte, please."]]
    assert call.llm.requests[0][0].content == "Take orders."
    assert call.left == []


def test_facts_are_dated_to_when_they_were_true() -> None:
    trace = Call(caller=[says("A latte, please.", 1.0)]).run().trace
    dated = [
        (type(event), round(event.at, 6)) for event in trace.events if isinstance(event, SpeechStarted | SpeechPaused)
    ]
    assert dated == [(SpeechStarted, 1.0), (SpeechPaused, 2.0)]
    assert round(trace.of(TurnEnded)[0].speech_end, 6) == 2.0


def test_the_greeting_is_heard_first_and_remembered() -> None:
    rules = replace(RULES, greeting="Corner Coffee Bar, good morning.")
    call = Call(caller=[says("A latte.", after(0.5))], rules=rules, replies=["Sure."]).run()
    assert story(call.trace, *REPLY, UtterancePlayed) == [
        "0.00 ReplyStarted 0 None '' False",
        "0.08 PlayoutStarted 0",
        "1.74 PlayoutFinished 0 'Corner Coffee Bar, good morning.'",
        "2.28 UtterancePlayed 0 'A latte.'",
        "3.52 ReplyStarted 1 1 'A latte.' True",
        "3.78 ReplyCommitted 1 1",
        "3.78 PlayoutStarted 1",
        "4.06 PlayoutFinished 1 'Sure.'",
    ]
    assert call.requests == [["assistant: Corner Coffee Bar, good morning.", "user: A latte."]]


def test_the_first_clause_is_spoken_while_the_rest_is_still_being_generated() -> None:
    call = Call(caller=[says("A latte.", 1.0)], replies=["Sure, one latte is what you get."], llm_per_second=6).run()
    assert story(call.trace, LlmFirstToken, ClauseReady, TtsFirstAudio, PlayoutStarted, LlmFinished) == [
        "2.39 LlmFirstToken 0",
        "2.39 ClauseReady 0 0 'Sure,'",
        "2.47 TtsFirstAudio 0 0",
        "2.50 PlayoutStarted 0",
        "3.39 LlmFinished 0 'Sure, one latte is what you get.'",
        "3.39 ClauseReady 0 1 ' one latte is what you get.'",
        "3.47 TtsFirstAudio 0 1",
    ]


def test_the_next_clause_is_not_spoken_far_ahead_of_what_is_heard() -> None:
    reply = " ".join(["One two three four five six."] * 6)
    trace = Call(caller=[says("Count.", 1.0)], replies=[reply]).run().trace
    assert story(trace, TtsFirstAudio, PlayoutStarted) == [
        "2.57 TtsFirstAudio 0 0",
        "2.57 PlayoutStarted 0",
        "2.73 TtsFirstAudio 0 1",
        "2.82 TtsFirstAudio 0 2",
        "3.62 TtsFirstAudio 0 3",
        "5.62 TtsFirstAudio 0 4",
        "7.62 TtsFirstAudio 0 5",
        "9.62 TtsFirstAudio 0 6",
    ]
    assert trace.of(PlayoutFinished)[0].heard == reply


def test_without_speculation_the_agent_thinks_when_the_turn_has_ended() -> None:
    rules = replace(RULES, turns=TurnRules(speculate=False))
    call = Call(caller=[says("A latte.", 1.0)], rules=rules, replies=["Sure."]).run()
    assert story(call.trace, TranscriptUpdated, TurnEnded, *REPLY) == [
        "2.24 TranscriptUpdated 1 'A latte.'",
        "2.50 TurnEnded 1 '500 ms of silence'",
        "2.50 ReplyStarted 0 1 'A latte.' False",
        "2.73 PlayoutStarted 0",
        "3.00 PlayoutFinished 0 'Sure.'",
    ]


def test_a_slow_stt_is_waited_for() -> None:
    call = Call(caller=[says("A latte.", 1.0)], replies=["Sure."], stt_final=0.8).run()
    assert story(call.trace, TranscriptUpdated, TurnEnded, ReplyStarted, PlayoutStarted) == [
        "2.50 TurnEnded 1 '500 ms of silence'",
        "2.94 TranscriptUpdated 1 'A latte.'",
        "2.94 ReplyStarted 0 1 'A latte.' False",
        "3.17 PlayoutStarted 0",
    ]


def test_the_llm_is_shown_as_many_turns_as_the_spec_says() -> None:
    caller = [says("One.", 1.0), says("Two.", after()), says("Three.", after())]
    call = Call(caller=caller, rules=replace(RULES, max_history_turns=1), replies=["Un.", "Deux.", "Trois."]).run()
    assert call.requests == [
        ["user: One."],
        ["user: One.", "assistant: Un.", "user: Two."],
        ["user: Two.", "assistant: Deux.", "user: Three."],
    ]


# Going on -------------------------------------------------------------------------------------


def test_speech_resumed_after_a_pause_cancels_the_held_reply_and_it_is_never_heard() -> None:
    caller = [says("A latte", 1.0), says("and a muffin.", 2.4)]
    call = Call(caller=caller, replies=["One latte.", "One latte and one muffin."]).run()
    assert story(call.trace, *TURN, *REPLY) == [
        "1.10 SpeechStarted 1",
        "2.14 SpeechPaused 1",
        "2.24 TranscriptUpdated 1 'A latte'",
        "2.24 ReplyStarted 0 1 'A latte' True",
        "2.50 SpeechStarted 1",
        "2.50 ReplyCancelled 0 'caller went on'",
        "3.54 SpeechPaused 1",
        "3.64 TranscriptUpdated 1 'A latte and a muffin.'",
        "3.64 ReplyStarted 1 1 'A latte and a muffin.' True",
        "3.90 TurnEnded 1 '500 ms of silence'",
        "3.90 ReplyCommitted 1 1",
        "3.95 PlayoutStarted 1",
        "5.62 PlayoutFinished 1 'One latte and one muffin.'",
    ]
    assert call.requests == [["user: A latte"], ["user: A latte and a muffin."]]


def test_who_goes_on_after_the_turn_ended_but_before_a_sound_gets_one_answer_to_both_pieces() -> None:
    caller = [says("A latte.", 1.0), says("And a muffin.", 2.7)]
    call = Call(caller=caller, replies=["One latte.", "One latte and one muffin."], llm_ttft=0.5).run()
    assert story(call.trace, TurnEnded, *REPLY) == [
        "2.24 ReplyStarted 0 1 'A latte.' True",
        "2.50 TurnEnded 1 '500 ms of silence'",
        "2.50 ReplyCommitted 0 1",
        "2.80 ReplyCancelled 0 'caller went on'",
        "3.94 ReplyStarted 1 2 'A latte. And a muffin.' True",
        "4.20 TurnEnded 2 '500 ms of silence'",
        "4.20 ReplyCommitted 1 2",
        "4.60 PlayoutStarted 1",
        "6.26 PlayoutFinished 1 'One latte and one muffin.'",
    ]
    assert call.requests == [["user: A latte."], ["user: A latte. And a muffin."]]


def test_who_goes_on_before_a_slow_stt_has_answered_is_not_forgotten() -> None:
    caller = [says("A latte.", 1.0), says("And a muffin.", 2.7)]
    call = Call(caller=caller, replies=["One latte and one muffin."], stt_final=1.0).run()
    assert story(call.trace, *TURN, *REPLY) == [
        "1.10 SpeechStarted 1",
        "2.14 SpeechPaused 1",
        "2.50 TurnEnded 1 '500 ms of silence'",
        "2.80 SpeechStarted 2",
        "2.80 TurnDropped 1 'caller went on' ''",
        "3.14 TranscriptUpdated 2 'A latte.'",
        "3.84 SpeechPaused 2",
        "4.20 TurnEnded 2 '500 ms of silence'",
        "4.84 TranscriptUpdated 2 'A latte. And a muffin.'",
        "4.84 ReplyStarted 0 2 'A latte. And a muffin.' False",
        "5.15 PlayoutStarted 0",
        "6.82 PlayoutFinished 0 'One latte and one muffin.'",
    ]


def test_a_text_that_is_overtaken_by_the_next_pause_is_not_answered() -> None:
    caller = [says("A latte", 1.0), says("and a muffin.", 2.4)]
    call = Call(caller=caller, replies=["One latte and one muffin."], stt_final=1.45).run()
    assert story(call.trace, SpeechPaused, TranscriptUpdated, TurnEnded, *REPLY) == [
        "2.14 SpeechPaused 1",
        "3.54 SpeechPaused 1",
        "3.59 TranscriptUpdated 1 'A latte'",
        "3.90 TurnEnded 1 '500 ms of silence'",
        "4.99 TranscriptUpdated 1 'A latte and a muffin.'",
        "4.99 ReplyStarted 0 1 'A latte and a muffin.' False",
        "5.30 PlayoutStarted 0",
        "6.96 PlayoutFinished 0 'One latte and one muffin.'",
    ]


def test_a_turn_without_words_gets_no_answer() -> None:
    call = Call(caller=[says("", 1.0), says("A latte.", 4.0)], replies=["Sure."]).run()
    assert story(call.trace, TurnDropped, ReplyStarted) == [
        "2.50 TurnDropped 1 'no words' ''",
        "5.24 ReplyStarted 0 2 'A latte.' True",
    ]
    assert call.requests == [["user: A latte."]]


def test_a_click_is_no_turn() -> None:
    call = Call(caller=[says("", 1.0, 0.06)]).run()
    assert story(call.trace, *TURN, *REPLY) == []


# Both at once ---------------------------------------------------------------------------------


def test_backchannel_does_not_interrupt() -> None:
    caller = [says("A latte, please.", 1.0), says("Mhm.", during(1.0), 0.3, backchannel=True)]
    call = Call(caller=caller, replies=[LONG]).run()
    assert story(call.trace, *TURN, BackchannelHeard, PlayoutStarted, PlayoutFinished, AgentInterrupted) == [
        "1.10 SpeechStarted 1",
        "2.14 SpeechPaused 1",
        "2.24 TranscriptUpdated 1 'A latte, please.'",
        "2.50 TurnEnded 1 '500 ms of silence'",
        "2.50 PlayoutStarted 0",
        "3.60 SpeechStarted 2",
        "3.94 SpeechPaused 2",
        "4.04 TranscriptUpdated 2 'Mhm.'",
        "4.30 TurnEnded 2 '500 ms of silence'",
        "4.30 BackchannelHeard 2 'Mhm.'",
        "4.30 TurnDropped 2 'backchannel' 'Mhm.'",
        f"8.78 PlayoutFinished 0 '{LONG}'",
    ]


def test_sustained_speech_interrupts_and_only_what_was_heard_is_remembered() -> None:
    caller = [says("A latte, please.", 1.0), says("No wait, a mocha.", during(1.0))]
    call = Call(caller=caller, replies=[LONG, "A mocha then."], rules=BY_SOUND).run()
    assert story(call.trace, *TURN, *REPLY)[6:] == [
        "2.50 PlayoutStarted 0",
        "3.60 SpeechStarted 2",
        "3.96 AgentInterrupted 0 2 'One latte, that is'",
        "4.64 SpeechPaused 2",
        "4.74 TranscriptUpdated 2 'No wait, a mocha.'",
        "4.74 ReplyStarted 1 2 'No wait, a mocha.' True",
        "5.00 TurnEnded 2 '500 ms of silence'",
        "5.00 ReplyCommitted 1 2",
        "5.01 PlayoutStarted 1",
        "5.98 PlayoutFinished 1 'A mocha then.'",
    ]
    assert call.requests[1] == [
        "user: A latte, please.",
        "assistant: One latte, that is",
        "user: No wait, a mocha.",
    ]


def test_short_words_interrupt_at_their_pause() -> None:
    caller = [says("A latte, please.", 1.0), says("Stop.", during(1.0), 0.3)]
    call = Call(caller=caller, replies=[LONG, "Okay."]).run()
    assert story(call.trace, *TURN, *REPLY)[6:] == [
        "2.50 PlayoutStarted 0",
        "3.60 SpeechStarted 2",
        "3.94 SpeechPaused 2",
        "4.04 TranscriptUpdated 2 'Stop.'",
        "4.04 AgentInterrupted 0 2 'One latte, that is'",
        "4.04 ReplyStarted 1 2 'Stop.' True",
        "4.30 TurnEnded 2 '500 ms of silence'",
        "4.30 ReplyCommitted 1 2",
        "4.30 PlayoutStarted 1",
        "4.58 PlayoutFinished 1 'Okay.'",
    ]


def test_an_interrupted_agent_is_silent_from_the_same_frame_on(tmp_path: Path) -> None:
    wav = CallWav(tmp_path / "call.wav", 16_000)
    caller = [says("A latte, please.", 1.0), says("No wait, a mocha.", during(1.0))]
    trace = Call(caller=caller, replies=[LONG, "A mocha then."], wav=wav).run().trace
    _, (_, right) = read_wav_channels(tmp_path / "call.wav")
    stopped, spoke = trace.of(AgentInterrupted)[0], trace.of(PlayoutStarted)[1]
    assert stopped.at <= (stopped.noted_at or 0) + 1e-9
    last = round(stopped.at * 16_000)
    assert np.abs(right[last - 160 : last]).max() > 1000
    assert not right[last : round(spoke.at * 16_000)].any()


def test_an_agent_that_may_not_be_interrupted_says_all_and_then_answers() -> None:
    rules = replace(RULES, turns=TurnRules(interruptible=False))
    caller = [says("A latte, please.", 1.0), says("No wait, a mocha.", during(0.5))]
    call = Call(caller=caller, rules=rules, replies=["One latte, that is four small dollars.", "A mocha then."]).run()
    assert story(call.trace, PlayoutFinished, TurnEnded, ReplyStarted, AgentInterrupted) == [
        "2.24 ReplyStarted 0 1 'A latte, please.' True",
        "2.50 TurnEnded 1 '500 ms of silence'",
        "4.50 TurnEnded 2 '500 ms of silence'",
        "4.88 PlayoutFinished 0 'One latte, that is four small dollars.'",
        "4.88 ReplyStarted 1 2 'No wait, a mocha.' False",
        "6.12 PlayoutFinished 1 'A mocha then.'",
    ]


# Failing --------------------------------------------------------------------------------------


def busy(where: str | None = None) -> ProviderError:
    return ProviderError("busy", where=where)


def test_an_stt_that_fails_is_noted_and_the_next_turn_is_heard() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("A mocha.", 4.0)],
        replies=["Sure."],
        stt_fails=lambda stream: busy("stt:fake") if stream == 0 else None,
    ).run()
    assert story(call.trace, ProviderFailed, TurnDropped, ReplyStarted, PlayoutFinished, CallEnded) == [
        "2.24 ProviderFailed 'stt' 'stt:fake: busy'",
        "2.50 TurnDropped 1 'no words' ''",
        "5.24 ReplyStarted 0 2 'A mocha.' True",
        "5.78 PlayoutFinished 0 'Sure.'",
        "6.70 CallEnded 'caller hung up'",
    ]
    assert call.left == []


def test_an_stt_that_fails_while_the_caller_speaks_on_does_not_leave_the_turn_open() -> None:
    call = Call(
        caller=[says("A latte", 1.0), says("and a muffin.", 2.4)],
        stt_final=0.6,
        stt_fails=lambda stream: busy("stt:fake"),
    ).run()
    assert story(call.trace, *TURN, ProviderFailed) == [
        "1.10 SpeechStarted 1",
        "2.14 SpeechPaused 1",
        "2.50 SpeechStarted 1",
        "2.74 ProviderFailed 'stt' 'stt:fake: busy'",
        "3.54 SpeechPaused 1",
        "3.90 TurnEnded 1 '500 ms of silence'",
        "3.90 TurnDropped 1 'no words' ''",
    ]


def test_an_stt_that_fails_after_its_answer_does_not_take_it_back() -> None:
    call = Call(caller=[says("A latte.", 1.0)], replies=["Sure."], stt_breaks=lambda stream: busy("stt:fake")).run()
    assert story(call.trace, ProviderFailed, *REPLY) == [
        "2.24 ReplyStarted 0 1 'A latte.' True",
        "2.24 ProviderFailed 'stt' 'stt:fake: busy'",
        "2.50 ReplyCommitted 0 1",
        "2.50 PlayoutStarted 0",
        "2.78 PlayoutFinished 0 'Sure.'",
    ]


def test_an_llm_that_fails_is_noted_and_what_it_said_is_heard() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("Hello?", 5.0)],
        replies=["Sure, one latte. Anything else for you today?", "Yes."],
        llm_fails=lambda number: busy() if number == 0 else None,
    ).run()
    assert story(call.trace, ProviderFailed, PlayoutStarted, PlayoutFinished, LlmFinished) == [
        "2.50 PlayoutStarted 0",
        "2.59 ProviderFailed 'llm' 'llm: busy'",
        "3.48 PlayoutFinished 0 'Sure, one latte.'",
        "6.39 LlmFinished 1 'Yes.'",
        "6.50 PlayoutStarted 1",
        "6.78 PlayoutFinished 1 'Yes.'",
    ]
    assert call.requests[1] == ["user: A latte.", "assistant: Sure, one latte.", "user: Hello?"]


def test_an_llm_that_fails_at_once_fails_the_reply_once_and_the_prompt_is_remembered_once() -> None:
    call = Call(
        caller=[says("A latte.", 1.0), says("Hello?", 5.0)],
        replies=["No", "Yes."],
        llm_fails=lambda number: busy("llm:fake") if number == 0 else None,
    ).run()
    assert story(call.trace, ProviderFailed, *REPLY) == [
        "2.24 ReplyStarted 0 1 'A latte.' True",
        "2.39 ProviderFailed 'llm' 'llm:fake: busy'",
        "2.50 ReplyCommitted 0 1",
        "2.50 PlayoutFinished 0 ''",
        "6.24 ReplyStarted 1 2 'Hello?' True",
        "6.50 ReplyCommitted 1 2",
        "6.50 PlayoutStarted 1",
        "6.78 PlayoutFinished 1 'Yes.'",
    ]
    assert call.requests == [["user: A latte."], ["user: A latte.", "user: Hello?"]]


def test_a_tts_that_fails_is_noted_and_what_it_said_is_heard() -> None:
    call = Call(
        caller=[says("A latte.", 1.0)],
        tts_fails=lambda text: busy("tts:fake") if "else" in text else None,
    ).run()
    assert story(call.trace, ProviderFailed, PlayoutFinished, CallEnded) == [
        "2.67 ProviderFailed 'tts' 'tts:fake: busy'",
        "3.48 PlayoutFinished 0 'Sure, one latte.'",
        "4.40 CallEnded 'caller hung up'",
    ]


def test_a_voice_that_fails_while_it_is_stopped_does_not_end_the_next_reply() -> None:
    caller = [says("A latte.", 1.0), says("and a muffin.", 2.4)]
    call = Call(caller=caller, replies=["Yes.", "One latte and one muffin."], tts={"ttfb_ms": 300})
    call.tts_fails_to_stop = busy("tts:fake")
    call.run()
    assert story(call.trace, ProviderFailed, *REPLY) == [
        "2.24 ReplyStarted 0 1 'A latte.' True",
        "2.50 ReplyCancelled 0 'caller went on'",
        "2.50 ProviderFailed 'tts' 'tts:fake: busy'",
        "3.64 ReplyStarted 1 1 'A latte. and a muffin.' True",
        "3.90 ReplyCommitted 1 1",
        "4.17 PlayoutStarted 1",
        "5.84 PlayoutFinished 1 'One latte and one muffin.'",
    ]


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
def test_an_unexpected_error_ends_the_call_with_that_error(stage: str) -> None:
    def bug(_: object) -> KeyError:
        return KeyError("a bug")

    call = Call(caller=[says("A latte.", 1.0), says("Hello?", 5.0)])
    setattr(call, f"{stage}_fails", bug)
    with pytest.raises(KeyError, match="a bug"):
        call.run()
    assert call.trace.events[-1] == CallEnded(at=call.trace.events[-1].at, reason="failed")
    assert call.trace.events[-1].at < 2.7, "within a frame of the error"
    assert (call.left, call.llm.running, call.voice.running) == ([], 0, 0)
    assert all(stream.closed for stream in call.stt.streams)


def test_a_reply_that_was_cancelled_from_within_is_an_error_too() -> None:
    call = Call(caller=[says("A latte.", 1.0)], tts_fails=lambda text: asyncio.CancelledError())
    with pytest.raises(RuntimeError, match="reply 0: what it waited for was cancelled"):
        call.run()
    assert call.left == []


@pytest.mark.parametrize("kind", [SpeechStarted, TranscriptUpdated, LlmFirstToken, TtsFirstAudio, PlayoutStarted])
def test_a_full_disk_ends_the_call_with_one_clear_error(tmp_path: Path, kind: type[Event]) -> None:
    wav = CallWav(tmp_path / "call.wav", 16_000)
    call = Call(caller=[says("A latte.", 1.0)], wav=wav)
    full = False

    def write(event: Event) -> None:
        nonlocal full
        full = full or isinstance(event, kind)
        if full:
            raise StorageError("cannot write: no space left on device")

    call.trace.listen(write)
    with pytest.raises(StorageError, match="no space left on device"):
        call.run()
    assert (call.left, call.llm.running, call.voice.running) == ([], 0, 0)
    assert len(read_wav_channels(tmp_path / "call.wav")[1][0]) > 16_000, "the sound is kept to its last frame"


def test_a_line_that_fails_ends_the_call_as_failed() -> None:
    class Broken:
        def __init__(self, line: WavTransport) -> None:
            self.line, self.rate, self.caller = line, line.rate, line.caller

        async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
            async for frame in self.line.frames(start):
                if frame.at > 2.6:
                    raise TransportError("the line is gone")
                yield frame

        def send(self, pcm: bytes) -> float:
            return self.line.send(pcm)

        async def aclose(self) -> None: ...

    call = Call(caller=[says("A latte.", 1.0)], line=lambda line, clock: Broken(line))
    with pytest.raises(TransportError):
        call.run()
    assert story(call.trace, CallEnded) == ["2.64 CallEnded 'failed'"]
    assert call.left == []


# The end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0.5, 1.5, 2.2, 2.3, 2.4, 2.48, 3.0])
def test_hanging_up_at_any_time_leaves_no_task_behind(at: float) -> None:
    call = Call(caller=[says("A latte.", 1.0)], hang_up_at=at).run()
    assert story(call.trace, CallEnded) == [f"{at + 0.02:.2f} CallEnded 'caller hung up'"]
    assert (call.left, call.llm.running, call.voice.running) == ([], 0, 0)
    assert [stream.closed for stream in call.stt.streams] == [1] * len(call.stt.streams)


def test_hanging_up_in_the_middle_of_the_greeting() -> None:
    rules = replace(RULES, greeting="Corner Coffee Bar, good morning. What can I get you?")
    call = Call(caller=[], rules=rules, hang_up_at=1.0).run()
    assert story(call.trace, *REPLY, CallEnded) == [
        "0.00 ReplyStarted 0 None '' False",
        "0.08 PlayoutStarted 0",
        "1.02 ReplyCancelled 0 'call ended'",
        "1.02 CallEnded 'caller hung up'",
    ]
    assert (call.left, call.voice.running) == ([], 0)


def test_a_call_that_is_cancelled_ends_properly() -> None:
    call = Call(caller=[says("A latte.", 1.0)])

    async def main(clock: Clock) -> bool:
        task = clock.spawn(call.made(clock), name="call")
        await clock.sleep_until(3.0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run_on("virtual", main)
    assert story(call.trace, CallEnded) == ["3.00 CallEnded 'interrupted'"]
    assert (call.llm.running, call.voice.running) == (0, 0)


# The line -------------------------------------------------------------------------------------


class Stutters:
    """A line that hands over frame 50 late."""

    def __init__(self, line: WavTransport, clock: Clock, late_s: float) -> None:
        self.line, self.clock, self.late_s = line, clock, late_s
        self.rate, self.caller = line.rate, line.caller

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        async for frame in self.line.frames(start):
            if round(frame.at, 6) == 1.0:
                await self.clock.sleep_until(self.clock.now() + self.late_s)
            yield frame

    def send(self, pcm: bytes) -> float:
        return self.line.send(pcm)

    async def aclose(self) -> None: ...


def stuttering(late_s: float) -> list[tuple[float, float]]:
    def line(line: WavTransport, clock: Clock) -> Transport:
        return Stutters(line, clock, late_s)

    late = Call(caller=[says("A latte.", 1.0)], line=line).run().trace.of(FrameLate)
    return [(round(event.at, 6), round(event.late, 6)) for event in late]


def test_late_frames_are_noted_with_their_lateness_against_the_plan() -> None:
    assert stuttering(0.065) == [(1.02, 0.065), (1.04, 0.045), (1.06, 0.025)]


def test_lateness_of_less_than_a_frame_is_not_noted() -> None:
    assert stuttering(0.015) == []


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_a_line_of_any_rate_carries_the_same_conversation(tmp_path: Path, rate: int) -> None:
    caller = [says("A latte, please.", 1.0), says("No wait, a mocha.", during(1.0)), says("Bye.", after())]
    wav = CallWav(tmp_path / "call.wav", rate)
    call = Call(caller=caller, replies=[LONG, "A mocha then.", "Bye."], rate=rate, wav=wav, rules=BY_SOUND).run()
    assert call.trace.of(CallStarted)[0].rate == rate
    assert [event.text for event in call.trace.of(TranscriptUpdated)] == [
        "A latte, please.",
        "No wait, a mocha.",
        "Bye.",
    ]
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == ["A mocha then.", "Bye."]
    starts = [event.at for event in call.trace.of(SpeechStarted)]
    assert starts == pytest.approx([event.at for event in call.trace.of(UtterancePlayed)], abs=0.025)
    wav_rate, (left, right) = read_wav_channels(tmp_path / "call.wav")
    assert wav_rate == rate
    for at, channel in [(1.0, left), (call.trace.of(PlayoutStarted)[0].at, right)]:
        begins = np.flatnonzero(np.abs(channel) > 1000)[0] / rate
        assert begins == pytest.approx(at, abs=0.002)


def test_the_stt_hears_every_sample_from_a_little_before_the_speech_to_the_end_of_the_turn() -> None:
    call = Call(caller=[says("A latte.", 1.0)], replies=["Sure."]).run()
    (stream,) = call.stt.streams
    assert stream.start == pytest.approx(0.7)
    spoken = bytes(round(1.0 * 16_000) * 2) + call.caller[0].pcm.data + bytes(round(2.0 * 16_000) * 2)
    heard = spoken[round(stream.start * 16_000) * 2 :][: len(stream.pcm)]
    assert stream.pcm == heard
    assert stream.start + len(stream.pcm) / 32_000 == pytest.approx(2.5)


def test_a_turn_at_the_very_beginning_of_the_call_is_heard_from_its_first_sample() -> None:
    call = Call(caller=[says("A latte.", 0.0)], replies=["Sure."]).run()
    assert call.stt.streams[0].start == 0.0
    assert call.requests == [["user: A latte."]]


# The same again -------------------------------------------------------------------------------


def busy_call() -> Call:
    """A call in which nearly everything happens."""
    return Call(
        caller=[
            says("A latte, please.", after(0.4)),
            says("Mhm.", during(1.0), 0.3, backchannel=True),
            says("Stop.", during(2.0), 0.3),
            says("A mocha", after(), 0.8),
            says("and a muffin.", 17.1),
            says("No wait.", during(0.6)),
            says("", after(), 0.4),
            says("Bye.", after()),
        ],
        rules=replace(RULES, greeting="Corner Coffee Bar, good morning."),
        replies=[LONG, "Okay.", LONG, "Bye."],
        stt_fails=lambda stream: busy("stt:fake") if stream == 5 else None,
        tts_fails=lambda text: busy("tts:fake") if text == "Okay." else None,
    )


def test_the_same_call_gives_the_same_trace_byte_for_byte() -> None:
    traces = {busy_call().run().trace.lines() for _ in range(10)}
    assert len(traces) == 1
    kinds = {type(event) for event in busy_call().run().trace.events}
    assert {AgentInterrupted, BackchannelHeard, ProviderFailed, ReplyCancelled, TurnDropped} <= kinds


def test_the_trace_does_not_depend_on_the_process_or_its_hash_seed() -> None:
    code = "import sys; from pipeline.test_session import busy_call; sys.stdout.write(busy_call().run().trace.lines())"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        )
        for seed in ("1", "4711")
    ]
    traces = {process.communicate()[0].decode() for process in running}
    assert traces == {busy_call().run().trace.lines()}


def test_the_trace_does_not_depend_on_where_the_clock_stands() -> None:
    later = replace(busy_call(), begins_at=1000.123456)
    assert later.run().trace.lines() == busy_call().run().trace.lines()


def test_ten_minutes_of_conversation_are_answered_to_the_last_turn() -> None:
    caller = [says(f"Number {index}.", after(0.6)) for index in range(130)]
    call = Call(caller=caller, replies=["Sure, one latte. Anything else for you today?"]).run()
    assert call.trace.events[-1].at > 600
    assert [event.text for event in call.trace.of(TranscriptUpdated)] == [one.text for one in caller]
    assert len(call.trace.of(PlayoutFinished)) == len(caller)
    assert len(call.requests[-1]) == 2 * len(caller) - 1


@pytest.mark.wall
def test_a_call_on_the_wall_clock() -> None:
    rules = replace(RULES, endpointing=EndpointingRules(silence_s=0.2))
    call = Call(caller=[says("A latte.", 0.1, 0.3)], rules=rules, replies=["Sure."]).run("wall")
    assert [event.heard for event in call.trace.of(PlayoutFinished)] == ["Sure."]
    assert call.trace.of(CallStarted)[0].clock == "wall"
    assert call.trace.of(LlmRequested)
    assert call.left == []


def test_a_trace_is_kept_even_when_nobody_speaks() -> None:
    trace = Trace()
    Call(caller=[], trace=trace).run()
    assert story(trace) == ["0.00 CallStarted", "0.90 CallEnded 'caller hung up'"]
