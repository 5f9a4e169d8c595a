"""What the stand-in hears: audio it knows, through whatever it came; tones; and lines for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from voicectl.audio import Pcm, resample
from voicectl.bench.callers import load_callers
from voicectl.errors import UsageError
from voicectl.standin import tones
from voicectl.standin.ears import RATE, Ear, Known, Library

RECORDINGS = Path(__file__).parents[2] / "recordings"
SILENCE = bytes(2 * RATE)


@cache
def callers() -> tuple[Known, ...]:
    return tuple(
        Known(resample(said.pcm, RATE).data, said.text or "", (said.voiced_from_s, said.voiced_until_s))
        for caller in load_callers(RECORDINGS)
        for said in caller.utterances
    )


@cache
def library() -> Library:
    return Library(callers())


def heard(ear: Ear, pcm: bytes, size: int = 640) -> str:
    for at in range(0, len(pcm), size):
        for _ in ear.hear(pcm[at : at + size]):
            pass
    ear.flush()
    return ear.take()


def as_it_is(pcm: bytes) -> bytes:
    return pcm


def a_little_later(pcm: bytes) -> bytes:
    return bytes(2 * 77) + pcm


def by_telephone(pcm: bytes) -> bytes:
    """8 kHz, and eight bits of it, logarithmic."""
    x: NDArray[np.float64] = resample(Pcm(pcm, RATE), 8000).array().astype(np.float64) / 32768
    coarse = np.round(np.log1p(255 * np.abs(x)) / math.log(256) * 127) / 127
    back = np.sign(x) * (256**coarse - 1) / 255 * 32767
    return resample(Pcm(back.astype("<i2").tobytes(), 8000), RATE).data


def in_noise(pcm: bytes) -> bytes:
    """15 dB below the speech."""
    x = np.frombuffer(pcm, "<i2").astype(float)
    noise = np.random.default_rng(1).standard_normal(len(x))
    noise *= np.sqrt(np.mean(x[np.abs(x) > 300] ** 2)) * 10 ** (-15 / 20)
    return np.clip(x + noise, -32768, 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("way", [as_it_is, a_little_later, by_telephone, in_noise])
def test_every_recorded_caller_is_understood_to_the_letter(way: Callable[[bytes], bytes]) -> None:
    for known in callers():
        assert heard(library().ear(), SILENCE[:9600] + way(known.pcm) + SILENCE[:9600]) == known.text


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_a_caller_is_understood_at_another_rate(rate: int) -> None:
    for known in callers()[::4]:
        pcm = resample(Pcm(known.pcm, RATE), rate).data
        assert heard(library().ear(rate), bytes(rate // 2) + pcm) == known.text


def test_the_words_come_as_the_audio_goes_on() -> None:
    known = callers()[0]
    ear = library().ear()
    counts: list[int] = []
    for at in range(0, len(known.pcm), 640):
        for _ in ear.hear(known.pcm[at : at + 640]):
            counts.append(len(ear.words))
    assert counts == sorted(counts)
    assert set(counts) == set(range(len(known.text.split()) + 1)), "one after the other"


def test_what_was_taken_does_not_come_again_and_the_rest_does() -> None:
    known = callers()[0]
    half = len(known.pcm) // 4 * 2
    ear = library().ear()
    first = heard(ear, known.pcm[:half])
    second = heard(ear, known.pcm[half:])
    assert first
    assert second
    assert f"{first} {second}" == known.text


def test_one_utterance_after_the_other_is_heard_over_the_same_ear() -> None:
    ear = library().ear()
    for known in (*callers()[:3], callers()[0]):
        assert heard(ear, known.pcm + SILENCE[:3200]) == known.text


def test_speech_that_is_broken_off_for_another_is_only_half_heard() -> None:
    one, other = callers()[0], callers()[6]
    text = heard(library().ear(), one.pcm[: len(one.pcm) // 4 * 2] + other.pcm)
    assert text.endswith(other.text)
    said = text.removesuffix(other.text).split()
    assert said == one.text.split()[: len(said)]
    assert 0 < len(said) < len(one.text.split())


def test_silence_is_counted_from_the_last_voiced_sample() -> None:
    known = callers()[0]
    assert known.voiced
    ear = library().ear()
    for _ in ear.hear(known.pcm + SILENCE):
        pass
    whole = len(known.pcm + SILENCE) / 2 / RATE
    assert ear.until == pytest.approx(whole, abs=0.021)
    assert ear.silence_s == pytest.approx(whole - known.voiced[1], abs=0.06)


@pytest.mark.parametrize("sound", [SILENCE * 3, in_noise(callers()[0].pcm[:64000])[::-1][: 2 * RATE]])
def test_what_it_does_not_know_it_does_not_hear(sound: bytes) -> None:
    assert heard(library().ear(), sound) == ""


def test_a_whole_file_is_heard_at_once() -> None:
    known = callers()[5]
    assert heard(library().ear(), known.pcm, size=len(known.pcm)) == known.text


# Tones and lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [640, 7000])
def test_tones_are_heard_as_words(size: int) -> None:
    ear = Library(vocabulary=["I would like a large latte, please."]).ear()
    assert heard(ear, SILENCE + tones.say("A large latte, please.", RATE, tones.CALLER) + SILENCE, size) == (
        "a large latte please"
    )


def test_a_word_that_a_flush_cuts_is_heard_once() -> None:
    ear = Library(vocabulary=["yes please"]).ear()
    pcm = tones.say("yes please", RATE, tones.CALLER)
    texts = [heard(ear, part) for part in (pcm[:9600], pcm[9600:] + SILENCE)]
    assert " ".join(filter(None, texts)) == "yes please"


def test_unknown_speech_says_one_line_after_the_other() -> None:
    noise = (np.random.default_rng(1).standard_normal(2 * RATE) * 2000).astype("<i2").tobytes()
    ears = Library(lines=["A large latte, please.", "No, thank you."])
    ear = ears.ear()
    assert heard(ear, noise + SILENCE[:16000]) == "A large latte, please."
    assert heard(ear, SILENCE + noise + SILENCE[:16000]) == "No, thank you."
    assert heard(ears.ear(), noise + SILENCE[:16000]) == "A large latte, please.", "then from the first, for all ears"
    assert heard(ear, SILENCE) == ""


def test_a_rate_that_nobody_hears_at_is_said() -> None:
    with pytest.raises(UsageError, match="cannot hear audio of 11025 Hz"):
        Library().ear(11_025)
