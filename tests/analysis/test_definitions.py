"""What is measured, on calls whose answers can be computed on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fabricate import VAD_ERROR, Fabricated
from voicectl.analysis.definitions import STAGES, Exchange, waterfall
from voicectl.events import CallEnded, ClauseReady, FrameLate, ProviderFailed, TtsFirstAudio, TtsRequested

moments = st.integers(0, 20_000_000)


def only(call: Fabricated) -> Exchange:
    (exchange,) = call.measure().exchanges
    return exchange


# The wait ----------------------------------------------------------------------------------------


def test_the_wait_is_from_the_last_voiced_sample_to_the_first_audible_one() -> None:
    call = Fabricated()
    call.say(1.0, 2.5)
    turn = call.turn(1.0, 2.5, ended=0.3, final=0.2)
    call.reply(turn, 3.1, lead=0.15, until=4.0)
    exchange = only(call.end(6.0))
    assert (exchange.outcome, exchange.speech_end, exchange.heard) == ("answered", 2_500_000, 3_250_000)
    assert exchange.wait == 750_000


def test_stamps_miss_the_lead_silence_and_the_vads_error() -> None:
    call = Fabricated()
    call.say(1.0, 2.5)
    call.reply(call.turn(1.0, 2.5, ended=0.3, final=0.2), 3.1, lead=0.15, until=4.0)
    exchange = only(call.end(6.0))
    assert exchange.wait_by_stamps == 600_000 - round(VAD_ERROR * 1e6)


def test_a_stamp_behind_its_sound_does_not_hide_it() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.reply(call.turn(1.0, 2.0, ended=0.3, final=0.2), 2.76, lead=-0.06, until=4.0)
    exchange = only(call.end(6.0))
    assert (exchange.wait, exchange.stages["tts_lead_silence"]) == (700_000, -60_000)


def test_each_stage_has_its_own_duration() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    turn = call.turn(1.0, 2.0, ended=0.30, final=0.40)
    call.reply(turn, 3.0, begun=2.4, token=0.1, clause=0.25, audio=0.5, lead=0.04, until=4.0)
    exchange = only(call.end(6.0))
    assert exchange.stages == {
        "endpointing": 300_000,
        "stt_final": 100_000,
        "llm_ttft": 100_000,
        "llm_sentence": 150_000,
        "tts_ttfb": 250_000,
        "tts_lead_silence": 40_000,
        "playout": 100_000,
    }
    assert exchange.waterfall == (300_000, 100_000, 100_000, 150_000, 250_000, 40_000, 100_000)
    assert sum(exchange.waterfall or ()) == exchange.wait == 1_040_000


def test_what_was_thought_ahead_costs_the_caller_nothing() -> None:
    """STT, LLM and TTS were done before the endpointer was sure: all the wait is the endpointer's."""
    call = Fabricated()
    call.say(1.0, 2.0)
    turn = call.turn(1.0, 2.0, ended=0.70, final=0.20)
    call.reply(turn, 2.72, begun=2.2, token=0.1, clause=0.2, audio=0.3, lead=0.05, until=4.0)
    exchange = only(call.end(6.0))
    assert exchange.stages["stt_final"] == -500_000
    assert exchange.stages["playout"] == 220_000
    assert exchange.waterfall == (700_000, 0, 0, 0, 0, 0, 70_000)
    assert sum(exchange.waterfall or ()) == exchange.wait == 770_000


def test_the_text_that_counts_is_the_one_that_was_answered() -> None:
    call = Fabricated()
    call.say(1.0, 3.0)
    turn = call.turn(1.0, 3.0, ended=0.4, final=0.2)
    call.turns -= 1
    call.turn(1.0, 3.0, ended=None, final=0.9)  # the STT says it again after the reply has begun
    call.reply(turn, 3.6, begun=3.25, until=4.5)
    assert only(call.end(6.0)).stages["stt_final"] == -200_000


def test_the_first_clause_that_gave_audio_counts() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    turn = call.turn(1.0, 2.0, ended=0.3, final=0.3)
    number = call.reply(turn, 3.0, begun=2.3, token=0.1, clause=0.2, audio=0.3, until=4.0)
    call.events = [event for event in call.events if not isinstance(event, TtsFirstAudio)]
    call.note(
        ClauseReady(at=2.5, reply=number, index=1, text="x"),
        TtsRequested(at=2.6, reply=number, index=1),
        TtsFirstAudio(at=2.8, reply=number, index=1),
    )
    stages = only(call.end(6.0)).stages
    assert (stages["llm_sentence"], stages["tts_ttfb"]) == (100_000, 200_000)


@given(moments, st.lists(st.none() | moments, min_size=7, max_size=7), moments)
def test_a_waterfall_adds_up_exactly(speech_end: int, marks: list[int | None], wait: int) -> None:
    parts = waterfall(speech_end, [*marks[:-1], speech_end + wait], speech_end + wait)
    assert len(parts) == len(STAGES)
    assert sum(parts) == wait
    assert min(parts) >= 0


@given(st.integers(1, 60), st.integers(0, 40), st.integers(0, 1_000), st.integers(0, 300), st.integers(-500, 2_000))
def test_the_waterfall_of_any_call_adds_up_exactly(begin: int, wait: int, ended: int, lead: int, final: int) -> None:
    call = Fabricated()
    end = begin / 20 + 1.0
    call.say(begin / 20, end)
    turn = call.turn(begin / 20, end, ended=ended / 1000, final=final / 1000)
    call.reply(turn, end + wait / 20, lead=lead / 1000, until=end + wait / 20 + 1.0)
    exchange = only(call.end(end + 5.0))
    assert exchange.waterfall is not None
    assert sum(exchange.waterfall) == exchange.wait


# Which answer ------------------------------------------------------------------------------------


def test_an_early_answer_is_negative_and_kept() -> None:
    call = Fabricated()
    call.say(1.0, 4.0)
    first = call.turn(1.0, 2.0, ended=0.3, final=0.2, text="I would like")
    second = call.turn(3.0, 4.0, ended=0.3, final=0.2, text="a latte")
    call.reply(first, 2.6, lead=0.1, until=3.2, stopped_by=second)
    call.reply(second, 4.6, until=5.5)
    exchange = only(call.end(8.0))
    assert (exchange.outcome, exchange.wait, exchange.waterfall) == ("early", -1_300_000, None)
    assert exchange.transcript == "I would like a latte"


def test_no_answer_is_censored_at_ten_seconds() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    exchange = only(call.end(15.0))
    assert (exchange.outcome, exchange.wait, exchange.heard) == ("no answer", 10_000_000, None)


def test_an_answer_after_the_time_out_is_none() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.reply(call.turn(1.0, 2.0, ended=0.3, final=0.2), 12.5, until=13.5)
    assert only(call.end(15.0)).outcome == "no answer"


def test_no_answer_is_censored_at_the_next_utterance() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.exchange(5.0, 0.7)
    first, second = call.end(9.0).measure().exchanges
    assert (first.outcome, first.wait) == ("no answer", 3_000_000)
    assert (second.outcome, second.wait) == ("answered", 700_000)


def test_a_reply_of_mere_silence_is_no_answer() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.reply(call.turn(1.0, 2.0, ended=0.3, final=0.2), 2.6, lead=1.0, until=3.6)
    assert only(call.end(13.0)).outcome == "no answer"


def test_the_answer_to_the_utterance_before_is_not_this_ones() -> None:
    """A late answer runs into the next utterance: nobody answered the first, nor early the second."""
    call = Fabricated()
    call.say(1.0, 2.0)
    late = call.turn(1.0, 2.0, ended=0.3, final=0.2)
    call.say(4.0, 6.0)
    call.reply(late, 4.5, until=5.0)
    call.reply(call.turn(4.0, 6.0, ended=0.3, final=0.2), 6.7, until=7.5)
    first, second = call.end(9.0).measure().exchanges
    assert (first.outcome, first.wait) == ("no answer", 2_000_000)
    assert (second.outcome, second.wait) == ("answered", 750_000)


def test_noise_taken_for_a_turn_may_carry_the_answer_on() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.cancelled(call.turn(1.0, 2.0, ended=0.3, final=0.2), 2.3)
    noise = call.turn(2.4, 2.5, ended=0.3, final=0.2, text="")
    call.dropped(noise, 2.8)
    call.reply(noise, 3.2, begun=2.8, until=4.0)
    exchange = only(call.end(6.0))
    assert (exchange.outcome, exchange.wait, exchange.transcript) == ("answered", 1_250_000, "a latte")


def test_words_that_the_next_turn_carries_on_are_heard_once() -> None:
    call = Fabricated()
    call.say(1.0, 3.0, text="I'd like a latte")
    first = call.turn(1.0, 1.8, ended=0.3, final=0.2, text="I'd like")
    call.dropped(first, 2.2, "caller went on")
    call.reply(call.turn(2.2, 3.0, ended=0.3, final=0.2, text="I'd like a latte"), 3.5, until=4.5)
    exchange = only(call.end(6.0))
    assert (exchange.transcript, exchange.word_errors.count) == ("I'd like a latte", 0)


def test_what_was_under_way_when_the_recording_broke_off_says_nothing() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.end(3.0, reason=None)
    assert call.measure(broken_off=True).exchanges[0].outcome == "unfinished"


def test_an_interrupted_run_blames_no_agent() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    assert only(call.end(3.0, "interrupted")).outcome == "unfinished"


def test_a_caller_who_hung_up_unanswered_blames_the_agent() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    exchange = only(call.end(3.0))
    assert (exchange.outcome, exchange.wait) == ("no answer", 1_000_000)


def test_a_trace_that_breaks_off_at_once_is_measured_as_nothing() -> None:
    call = Fabricated(events=[])
    call.events.clear()
    measures = call.end(1.0, reason=None).measure(broken_off=True)
    assert (measures.exchanges, measures.greeting) == ((), None)


# Without truth -----------------------------------------------------------------------------------


def test_without_truth_the_callers_channel_says_when_they_finished() -> None:
    call = Fabricated()
    call.say(1.0, 2.5, played=False)
    call.reply(call.turn(1.0, 2.5, ended=0.3, final=0.2), 3.1, lead=0.1, until=4.0)
    exchange = only(call.end(6.0))
    assert (exchange.name, exchange.said, exchange.wait) == ("turn 1", None, 700_000)


def test_without_truth_a_dropped_or_continued_turn_expects_no_answer() -> None:
    call = Fabricated()
    call.say(1.0, 2.0, played=False)
    call.cancelled(call.turn(1.0, 2.0, ended=0.3, final=0.2), 2.3)
    call.say(2.5, 3.5, played=False)
    call.reply(call.turn(2.5, 3.5, ended=0.3, final=0.2), 4.1, lead=0.1, until=5.0)
    call.dropped(call.turn(6.0, 6.2, ended=0.3, final=0.2, text=""), 6.5)
    exchange = only(call.end(9.0))
    assert (exchange.name, exchange.wait) == ("turn 2", 700_000)


# Both at once ------------------------------------------------------------------------------------


def barging(stops: float) -> Fabricated:
    """The agent answers at 2.7 s; at 3.5 s the caller speaks again; the agent is audible until `stops`."""
    call = Fabricated()
    call.say(1.0, 2.0)
    first = call.turn(1.0, 2.0, ended=0.3, final=0.2)
    call.say(3.5, 5.0, during_agent=True)
    second = call.turn(3.5, 5.0, ended=0.3, final=0.2)
    call.reply(first, 2.65, until=stops, stopped_by=second)
    call.reply(second, 5.65, until=7.0)
    return call.end(9.0)


def test_a_barge_in_is_over_with_the_agents_last_audible_sample() -> None:
    measures = barging(3.84).measure()
    (barge_in,) = measures.barge_ins
    assert (barge_in.at, barge_in.stop, barge_in.yielded) == (3_500_000, 340_000, True)
    assert [one.wait for one in measures.exchanges] == [700_000, 700_000]


def test_an_agent_that_was_silent_already_was_not_barged_in_on() -> None:
    assert barging(3.3).measure().barge_ins == ()


def test_an_agent_that_talks_on_did_not_yield() -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    call.reply(call.turn(1.0, 2.0, ended=0.3, final=0.2), 2.65, until=6.0)
    call.say(3.5, 5.0, during_agent=True)
    (barge_in,) = call.end(20.0).measure().barge_ins
    assert (barge_in.stop, barge_in.yielded) == (2_500_000, False)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_backchannel_that_stops_the_agent_is_a_false_interruption(stopped: bool) -> None:
    call = Fabricated()
    call.say(1.0, 2.0)
    first = call.turn(1.0, 2.0, ended=0.3, final=0.2)
    call.say(3.5, 3.8, backchannel=True)
    mhm = call.turn(3.5, 3.8, ended=0.3, final=0.2, text="mhm")
    call.reply(first, 2.65, until=4.0 if stopped else 5.0, stopped_by=mhm if stopped else None)
    measures = call.end(9.0).measure()
    assert (measures.backchannels.count, measures.backchannels.total) == (int(stopped), 1)
    assert [one.transcript for one in measures.exchanges] == ["a latte"]
    assert measures.barge_ins == ()


# Apart -------------------------------------------------------------------------------------------


def test_the_greeting_is_no_exchange() -> None:
    call = Fabricated()
    call.reply(None, 0.02, lead=0.08, until=1.0)
    call.exchange(2.0, 0.7)
    measures = call.end(6.0).measure()
    assert measures.greeting == 100_000
    assert [one.wait for one in measures.exchanges] == [700_000]


def test_slots_and_words_are_read_from_the_turns_of_the_utterance() -> None:
    call = Fabricated()
    call.exchange(1.0, 0.7, text="two large lattes", slots={"size": "large", "drink": "lattes"})
    exchange = only(call.end(5.0))
    assert exchange.transcript == "two large lattes"
    assert (exchange.slots.count, exchange.slots.total) == (2, 2)
    assert (exchange.word_errors.count, exchange.word_errors.total) == (0, 3)


def test_what_the_instrument_and_the_providers_failed_at_is_kept() -> None:
    call = Fabricated()
    call.exchange(1.0, 0.7)
    call.note(FrameLate(at=1.0, late=0.045), ProviderFailed(at=2.0, stage="tts", provider="tts:local", message="gone"))
    measures = call.end(5.0).measure()
    assert (measures.late_frames, measures.failures) == ((45_000,), ("tts: gone",))
    assert isinstance(call.events[-1], CallEnded)


def test_a_reply_to_noise_that_talks_over_the_caller_is_an_early_answer() -> None:
    call = Fabricated()
    noise = call.turn(0.2, 0.8, ended=0.3, final=0.2, text="it's a little bit")
    call.say(1.4, 3.0)
    call.reply(noise, 1.6, begun=1.2, until=2.0)
    call.reply(call.turn(1.4, 3.0, ended=0.3, final=0.2), 3.7, until=4.5)
    (exchange,) = call.end(6.0).measure().exchanges
    assert exchange.outcome == "early"
    assert exchange.wait < 0
