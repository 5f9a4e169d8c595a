"""The caller we play: what they say, and when. Frames are lists, time is a counter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.audio import FRAME_S, Pcm
from voicectl.transports.caller import AfterAgent, At, Caller, CallerScript, DuringAgent, Start, Utterance

RATE = 16_000
FRAME = 320  # samples
LOUD = np.full(FRAME, 3000, "<i2").tobytes()
QUIET = np.full(FRAME, 99, "<i2").tobytes()


def utterance(seconds: float = 1.0, start: Start | None = None, *, backchannel: bool = False) -> Utterance:
    samples = np.full(round(seconds * RATE), 1000, "<i2")
    return Utterance(
        Pcm(samples.tobytes(), RATE), "u.wav", 0.0, seconds, start=start or AfterAgent(), backchannel=backchannel
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """What happened on the line: when each utterance began, and when the caller hung up."""

    begun: list[float]
    hung_up: float
    frames: list[bytes]


Says = Callable[[float], bytes]


def between(*spans: tuple[float, float]) -> Says:
    """An agent that is heard in these spans of the call."""
    return lambda at: LOUD if any(start - 1e-9 <= at < end - 1e-9 for start, end in spans) else b""


SILENT = between()


def play(
    utterances: Iterable[Utterance], agent: Says = SILENT, *, greeted: bool = False, noise: Pcm | None = None
) -> Heard:
    """The caller's frame of an instant, then the agent's, which is heard when it is sent."""
    script = CallerScript(Caller("caller", tuple(utterances), noise=noise), RATE, greeted=greeted)
    begun: list[float] = []
    frames: list[bytes] = []
    for index in range(10_000):
        frame, new = script.frame(index * FRAME_S)
        if new:
            begun.append(round(index * FRAME_S, 3))
        if frame is None:
            return Heard(begun, round(index * FRAME_S, 3), frames)
        frames.append(frame)
        at = (index + 1) * FRAME_S
        script.hear(agent(at), at)
    raise AssertionError("the caller never hangs up")


# After the agent ------------------------------------------------------------------------------


def test_an_utterance_starts_its_gap_after_the_agent_has_finished() -> None:
    heard = play([utterance(start=AfterAgent(0.5))], between((1.0, 3.0)), greeted=True)
    assert heard.begun == [3.5]


def test_who_is_not_greeted_speaks_after_the_gap() -> None:
    assert play([utterance(start=AfterAgent(0.9))]).begun == [0.9]


def test_a_pause_of_the_agent_shorter_than_the_gap_is_not_the_end_of_its_answer() -> None:
    heard = play([utterance(start=AfterAgent(0.9))], between((1.0, 2.0), (2.8, 3.0)), greeted=True)
    assert heard.begun == [3.9]


def test_the_next_utterance_waits_for_the_answer_to_the_last() -> None:
    heard = play([utterance(), utterance()], between((4.0, 5.0)))
    assert heard.begun == [0.9, 5.9], "1.9 was the end of the first, and 2.8 is not yet an answer"


def test_a_caller_who_gets_no_answer_goes_on_after_ten_seconds() -> None:
    heard = play([utterance(), utterance()])
    assert heard.begun == [0.9, 11.9]
    assert heard.hung_up == 22.9


def test_the_patience_of_the_caller_can_be_told() -> None:
    script = CallerScript(Caller("caller", ()), RATE, greeted=True, no_answer_s=2.0)
    assert [script.frame(at)[0] is None for at in (1.98, 2.0)] == [False, True]


def test_a_sound_of_the_agent_below_the_audible_is_no_answer() -> None:
    heard = play([utterance()], lambda at: QUIET, greeted=True)
    assert heard.begun == [10.0]


def test_what_the_agent_was_saying_when_it_was_interrupted_is_not_its_answer() -> None:
    """A short word ends while the agent is still audible; the answer comes much later."""
    agent = between((0.5, 3.0), (5.5, 7.0))
    heard = play([utterance(0.4, At(2.0)), utterance(start=AfterAgent(0.9))], agent, greeted=True)
    assert heard.begun == [2.0, 7.9]


def test_an_answer_that_begins_in_the_silence_at_the_end_of_a_recording_is_one() -> None:
    sound = utterance(3.0)
    trailing = Utterance(sound.pcm, "u.wav", 0.0, 1.0)
    heard = play([trailing, utterance()], between((2.5, 3.5)))
    assert heard.begun == [0.9, 4.8]


# During the agent's answer ------------------------------------------------------------------------


def test_a_barge_in_starts_its_time_after_the_agent_became_audible() -> None:
    heard = play([utterance(start=DuringAgent(1.5))], between((2.0, 9.0)), greeted=True)
    assert heard.begun == [3.5]


def test_a_barge_in_waits_for_the_answer_to_the_last_utterance() -> None:
    agent = between((0.5, 1.5), (4.0, 6.0))
    assert play([utterance(), utterance(start=DuringAgent(0.6))], agent, greeted=True).begun == [2.4, 4.6]


def test_a_barge_in_on_an_agent_that_never_answers_comes_after_ten_seconds() -> None:
    assert play([utterance(start=DuringAgent(0.6))]).begun == [10.0]


def test_a_backchannel_expects_no_answer() -> None:
    """The agent goes on to 5.0; what comes next follows that, and does not wait for an answer to "mhm"."""
    agent = between((1.0, 5.0))
    mhm = utterance(0.3, DuringAgent(1.0), backchannel=True)
    assert play([mhm, utterance(start=AfterAgent(0.9))], agent, greeted=True).begun == [2.0, 5.9]


def test_two_sounds_may_fall_into_the_same_answer() -> None:
    agent = between((1.0, 8.0))
    mhm = utterance(0.3, DuringAgent(1.0), backchannel=True)
    assert play([mhm, utterance(start=DuringAgent(3.0))], agent, greeted=True).begun == [2.0, 4.0]


# At a time, and the end ---------------------------------------------------------------------------


def test_an_utterance_may_start_at_a_time_of_the_call_whatever_the_agent_does() -> None:
    assert play([utterance(start=At(2.0))], between((0.0, 9.0)), greeted=True).begun == [2.0]


def test_a_time_that_has_passed_is_now() -> None:
    assert play([utterance(2.0, At(1.0)), utterance(start=At(1.5))]).begun == [1.0, 3.0]


def test_the_caller_hangs_up_when_the_last_answer_is_over() -> None:
    assert play([utterance()], between((3.0, 4.0))).hung_up == 4.9


def test_a_caller_who_says_nothing_listens_to_the_greeting_and_hangs_up() -> None:
    assert play([], between((0.4, 2.0)), greeted=True).hung_up == 2.9
    assert play([]).hung_up == 0.9


def test_the_number_of_an_utterance_is_told_while_it_is_played() -> None:
    script = CallerScript(Caller("caller", (utterance(0.1, At(0)), utterance(0.1, At(0.1)))), RATE, greeted=False)
    numbers = [(script.index(), script.frame(index * FRAME_S)[1] is not None) for index in range(7)]
    assert numbers == [(0, True), *[(0, False)] * 4, (1, True), (1, False)]


milliseconds = st.integers(0, 2000).map(lambda ms: ms / 1000)


off_the_grid = milliseconds.map(lambda at: at + 0.0005)  # of frames: whose sums are not exact


@given(off_the_grid, milliseconds.map(lambda length: length + 0.1), milliseconds)
@settings(deadline=None, max_examples=20)
def test_an_utterance_never_starts_before_its_gap_is_over_and_at_the_next_frame_after_it(
    start: float, length: float, gap: float
) -> None:
    spoken = [at for at in (index * FRAME_S for index in range(1, 400)) if start <= at < start + length]
    quiet_from = spoken[-1] + FRAME_S if spoken else 0.0
    heard = play([utterance(start=AfterAgent(gap))], between((start, start + length)), greeted=bool(spoken))
    assert -0.001 <= heard.begun[0] - (quiet_from + gap) <= FRAME_S + 0.001


# Sound ----------------------------------------------------------------------------------------


def test_what_is_said_is_the_recording_framed_by_silence() -> None:
    sound = np.arange(1, 701, dtype="<i2").tobytes()
    said = Utterance(Pcm(sound, RATE), "u.wav", 0.0, 0.04, start=At(0.1))
    frames = b"".join(play([said]).frames)
    assert frames.strip(b"\0") == sound.rstrip(b"\0")
    assert frames.index(sound) == 5 * FRAME * 2


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_a_recording_of_any_rate_lasts_as_long_on_the_line(rate: int) -> None:
    said = Utterance(Pcm(np.full(rate, 1000, "<i2").tobytes(), rate), "u.wav", 0.0, 1.0, start=At(0.0))
    frames = np.frombuffer(b"".join(play([said]).frames), "<i2")
    assert np.flatnonzero(np.abs(frames) > 500)[[0, -1]] == pytest.approx([0, RATE], abs=20)


@pytest.mark.parametrize("length", [1, 100, 319, 320, 321, 1000, 16_000])
def test_noise_goes_round_and_round_without_a_gap_or_a_step(length: int) -> None:
    noise = np.arange(length, dtype="<i2")
    frames = np.frombuffer(b"".join(play([], noise=Pcm(noise.tobytes(), RATE)).frames), "<i2")
    assert np.array_equal(frames, np.resize(noise, len(frames)))


def test_noise_is_mixed_under_the_words_and_does_not_wrap_around() -> None:
    said = Utterance(Pcm(np.full(FRAME, 30_000, "<i2").tobytes(), RATE), "u.wav", 0.0, 0.02, start=At(0.0))
    noise = Pcm(np.full(50, 5_000, "<i2").tobytes(), RATE)
    frames = np.frombuffer(b"".join(play([said], noise=noise).frames), "<i2")
    assert set(frames[:FRAME]) == {32_767}
    assert set(frames[FRAME:]) == {5_000}


def test_full_scale_is_heard() -> None:
    agent = np.full(FRAME, -32_768, "<i2").tobytes()
    heard = play([utterance(start=AfterAgent(0.5))], lambda at: agent if 1.0 <= at < 2.0 else b"", greeted=True)
    assert heard.begun == [2.5]
