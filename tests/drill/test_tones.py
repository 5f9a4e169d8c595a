"""The language of tones: what is said is heard, whatever the line does to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.audio import Pcm, resample
from voicectl.standin.tones import BRISK, CALLER, CALM, GAP_S, VOICES, Ear, Voice, heard, listen, say, seconds, words_of

WORDS = (
    "please book a table for two at seven on friday under the name of miller my number is five four three "
    "thank you that is all for now goodbye so you would like i have noted it and will send message shortly"
).split()
RATES = (8_000, 16_000, 24_000, 48_000)

texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
voices = st.sampled_from(VOICES)
rates = st.sampled_from(RATES)


def quieter(pcm: bytes, share: float) -> bytes:
    return (np.frombuffer(pcm, "<i2") * share).astype("<i2").tobytes()


@given(texts, rates, voices)
@settings(deadline=None, max_examples=60)
def test_what_is_said_is_heard(text: str, rate: int, voice: Voice) -> None:
    pcm = say(text, rate, voice)
    assert heard(pcm, rate, WORDS) == words_of(text)
    assert {one.voice for one in listen(pcm, rate, WORDS)} <= {voice.name}
    assert len(pcm) / 2 / rate == pytest.approx(seconds(text, voice), abs=0.001)


@given(texts, rates, rates, voices)
@settings(deadline=None, max_examples=40)
def test_a_line_of_another_rate_changes_no_word(text: str, rate: int, line: int, voice: Voice) -> None:
    pcm = resample(Pcm(say(text, rate, voice), rate), line).data
    assert heard(pcm, line, WORDS) == words_of(text)


@given(texts, st.floats(0.02, 1.6), st.integers(0, 400))
@settings(deadline=None, max_examples=40)
def test_neither_volume_nor_where_it_begins_matters(text: str, share: float, before: int) -> None:
    pcm = bytes(2 * before) + quieter(say(text, 16_000), share)
    assert heard(pcm, 16_000, WORDS) == words_of(text)


@given(texts, st.integers(1, 5000), voices)
@settings(deadline=None, max_examples=40)
def test_an_ear_hears_the_same_however_the_audio_is_cut(text: str, size: int, voice: Voice) -> None:
    pcm = say(text, 16_000, voice)
    ear = Ear(16_000, WORDS)
    for at in range(0, len(pcm), size):
        ear.hear(pcm[at : at + size])
    ear.finish()
    assert ear.heard == listen(pcm, 16_000, WORDS)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.floats(0.35, 0.65), voices, rates)
@settings(deadline=None, max_examples=60)
def test_a_word_cut_in_the_middle_is_a_part_of_it(said: list[str], share: float, voice: Voice, rate: int) -> None:
    pcm = say(" ".join(said), rate, voice)
    whole = 2 * round((voice.word_s + GAP_S) * rate) * (len(said) - 1)
    cut = pcm[: whole + 2 * round(voice.word_s * rate * share)]
    assert heard(cut, rate, WORDS) == [*said[:-1], f"{said[-1]}…"]


@given(st.sampled_from(WORDS), st.floats(0.35, 0.65), st.floats(0.0, 1.5), voices)
@settings(deadline=None, max_examples=40)
def test_a_word_that_a_pause_tore_apart_is_one_word(word: str, share: float, pause_s: float, voice: Voice) -> None:
    pcm = say(word, 16_000, voice)
    at = 2 * round(voice.word_s * 16_000 * share)
    assert heard(pcm[:at] + bytes(2 * round(pause_s * 16_000)) + pcm[at:], 16_000, WORDS) == [word]


def test_a_word_that_lacks_a_frame_is_whole() -> None:
    for voice in VOICES:
        pcm = say("friday", 16_000, voice)
        assert heard(pcm[640:], 16_000, WORDS) == heard(pcm[:1280] + pcm[1920:], 16_000, WORDS) == ["friday"]


def test_a_word_begun_and_then_said_whole_is_heard_as_both() -> None:
    pcm = say("friday", 16_000)
    for other in (CALM, BRISK):
        both = pcm[: len(pcm) // 3] + say("friday", 16_000, other)
        assert heard(both, 16_000, WORDS) == ["friday…", "friday"]


def test_a_word_said_twice_is_heard_twice() -> None:
    assert heard(say("two two two", 8_000), 8_000, WORDS) == ["two", "two", "two"]


def test_voices_are_told_apart_and_say_the_same_words() -> None:
    pcm = say("please book", 16_000, CALM) + say("a table", 16_000, BRISK) + say("thank you", 16_000, CALLER)
    found = listen(pcm, 16_000, WORDS)
    assert [(one.word, one.voice) for one in found] == [
        ("please", "calm"),
        ("book", "calm"),
        ("a", "brisk"),
        ("table", "brisk"),
        ("thank", "caller"),
        ("you", "caller"),
    ]
    assert [one.at for one in found[:2]] == pytest.approx([0.0, 0.22], abs=0.021)


def test_a_word_out_of_nowhere_is_not_heard() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 3000, 32_000).astype("<i2").tobytes()
    speechlike = (8000 * np.sin(2 * np.pi * 220 / 16_000 * np.arange(16_000))).astype("<i2").tobytes()
    assert heard(noise + speechlike + bytes(3200), 16_000, WORDS) == []
    assert heard(say("unknown words", 16_000), 16_000, WORDS) == []


def test_words_are_heard_through_the_noise_of_a_line() -> None:
    rng = np.random.default_rng(6)
    samples = np.frombuffer(say("please book a table", 16_000), "<i2")
    noisy = samples + rng.normal(0, 600, len(samples))
    assert heard(noisy.astype("<i2").tobytes(), 16_000, WORDS) == ["please", "book", "a", "table"]


def test_what_is_being_said_is_known_before_its_end() -> None:
    ear = Ear(16_000, WORDS)
    assert ear.saying is None
    ear.hear(say("friday", 16_000)[:3200])
    saying = ear.saying
    assert saying and str(saying) == "friday…"
    assert ear.heard == []
    assert ear.until == pytest.approx(0.1, abs=0.006)


def test_words_that_sound_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="sound alike"):
        _collide()


def _collide() -> None:
    """Enough words that two of them must share a chord."""
    Ear(8_000, (f"w{number}" for number in range(3000)))


def test_a_text_is_its_words() -> None:
    assert words_of("So: a TABLE, at 7? That's all!") == ["so", "a", "table", "at", "7", "that's", "all"]
    assert say("...", 16_000) == b""
