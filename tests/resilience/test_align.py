"""Where one voice goes on when another has broken off."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.audio import Pcm, resample
from voicectl.resilience.align import Join, fade, join
from voicectl.standin.tones import BRISK, CALLER, CALM, GAP_S, Voice, heard, say, words_of

RATE = 16_000
TEXT = "Sure one large latte with oat milk and a blueberry muffin that comes to seven dollars fifty anything else"
WORDS = words_of(TEXT)


def samples(pcm: bytes) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.frombuffer(pcm, "<i2")


ONE = samples(say(TEXT, RATE, CALM))


@pytest.mark.parametrize("voice", [CALLER, BRISK])
def test_no_word_is_repeated_or_skipped_wherever_the_first_stops(voice: Voice) -> None:
    other = samples(say(TEXT, RATE, voice))
    for cut in range(RATE // 10, len(ONE), RATE // 7):
        place = join(ONE[:cut], other, RATE, fixed=max(0, cut - RATE // 4))
        sound = np.concatenate((ONE[: place.keep], other[place.go_on :]))
        assert heard(sound.tobytes(), RATE, WORDS) == WORDS, f"cut at {cut / RATE:.2f} s: {place}"


def test_without_a_gap_to_cut_in_it_goes_on_within_the_word() -> None:
    other = samples(say(TEXT, RATE, BRISK))
    for cut in range(RATE, len(ONE), RATE // 3):
        place = join(ONE[:cut], other, RATE, fixed=cut)
        said, to_say = cut / (CALM.word_s + GAP_S) / RATE, place.go_on / (BRISK.word_s + GAP_S) / RATE
        assert place.keep == cut
        assert abs(said - to_say) < 0.6, f"{said:.1f} words were said, it goes on at {to_say:.1f}"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, len(ONE)), st.floats(0, 1), st.sampled_from([CALM, CALLER, BRISK]), st.floats(0.05, 4))
def test_it_never_takes_back_what_was_passed_on_nor_points_outside(
    cut: int, share: float, voice: Voice, gain: float
) -> None:
    other = np.clip(samples(say(TEXT, RATE, voice)) * gain, -32768, 32767).astype("<i2")
    fixed = int(cut * share)
    place = join(ONE[:cut], other, RATE, fixed=fixed)
    assert fixed <= place.keep <= cut
    assert 0 <= place.go_on <= len(other)


@settings(deadline=None, max_examples=25)
@given(st.integers(RATE // 2, len(ONE)), st.integers(0, 3))
def test_the_same_voice_goes_on_at_the_same_place(cut: int, silence: int) -> None:
    """Or at the gap before it. However much silence comes first."""
    other = np.concatenate((np.zeros(silence * RATE // 10, "<i2"), ONE))
    place = join(ONE[:cut], other, RATE, fixed=cut)
    assert abs(place.go_on - silence * RATE // 10 - cut) <= 0.1 * RATE


def test_silence_on_either_side_is_no_reason_to_stumble() -> None:
    nothing, some = np.zeros(0, "<i2"), np.zeros(RATE, "<i2")
    assert join(nothing, ONE, RATE) == Join(0, 0)
    assert join(ONE, ONE, RATE) == Join(0, 0)  # nothing was heard yet
    assert join(ONE, nothing, RATE, fixed=1).keep == len(ONE)
    assert join(some, ONE, RATE, fixed=RATE).keep == RATE
    assert join(some, some, RATE, fixed=100).keep >= 100
    assert join(ONE[:100], ONE, RATE, fixed=100).keep == 100


def test_a_cut_does_not_click() -> None:
    loud = np.full(400, 20_000, "<i2")
    begun, ended = fade(loud, RATE, begins=True), fade(loud, RATE, begins=False)
    assert begun[0] < 500 and ended[-1] < 500
    assert (begun[80:] == 20_000).all() and (ended[:-80] == 20_000).all()
    assert len(fade(loud[:3], RATE, begins=True)) == 3


@pytest.mark.models
def test_real_speech_goes_on_at_its_place_at_another_speed_and_pitch() -> None:
    """The local voice at two speeds, the second also higher. How far along both are is known about: a
    speed stretches everything alike, nearly."""
    from voicectl.clock import Clock, run_on
    from voicectl.pipeline.protocols import TtsRequest
    from voicectl.providers.local_tts import LocalTts, Options

    text = "Sure, one large latte with oat milk and a muffin. That comes to seven fifty, is there anything else?"

    async def speak(clock: Clock) -> list[bytes]:
        renderings: list[bytes] = []
        for speed in (1.0, 1.25):
            tts = LocalTts(Options(speed=speed), None, clock)
            await tts.start(lambda line: None)
            try:
                renderings.append(b"".join([pcm async for pcm in tts.synthesize(TtsRequest(text))]))
            finally:
                await tts.aclose()
        return renderings

    rate = LocalTts.rate
    first, second = run_on("wall", speak)
    one = samples(first)
    two = samples(resample(Pcm(second, round(rate * 1.08)), rate).data)  # 8% higher, and as much faster
    off: list[float] = []
    for cut in np.linspace(0.5 * rate, len(one) - 0.2 * rate, 25).astype(int):
        place = join(one[:cut], two, rate, fixed=max(0, cut - rate // 4))
        off.append((place.go_on - place.keep / len(one) * len(two)) / rate)
    assert abs(np.median(off)) < 0.12
    assert np.abs(off).max() < 0.5


def test_it_is_quick_enough_for_a_caller_who_waits() -> None:
    """About 20 ms for five seconds of speech; the bound is for a busy machine."""
    loop = asyncio.new_event_loop()
    begin = loop.time()
    join(ONE, samples(say(TEXT, RATE, BRISK)), RATE, fixed=len(ONE) - RATE // 4)
    took = loop.time() - begin
    loop.close()
    assert took < 5.0
