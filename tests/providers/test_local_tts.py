"""The local TTS around its voice: what it keeps, and the silence around what it says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from voicectl.clock import Clock, run_on
from voicectl.pipeline.protocols import TtsRequest
from voicectl.providers import local_tts
from voicectl.providers.local_tts import LocalTts, _Spoken, _trimmed

RATE = 22_050


class Voice:
    """Says a tone between two silences; notes how often."""

    def __init__(self) -> None:
        self.texts: list[int] = []

    def ids(self, phonemes: str) -> list[int]:
        return [len(phonemes)]

    def speak(self, ids: list[int], job: Any) -> Any:
        self.texts += ids
        return tone()


class Phonemes:
    def of(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def close(self) -> None:
        pass


def tone(before_s: float = 0.1, sound_s: float = 0.5, after_s: float = 0.4) -> Any:
    parts = [np.zeros(round(before_s * RATE)), np.ones(round(sound_s * RATE)) * 0.3, np.zeros(round(after_s * RATE))]
    return np.concatenate(parts).astype(np.float32) + np.float32(0.001)


def say(*texts: str, cache_mb: float = 8) -> tuple[Voice, list[bytes]]:
    voice, said = Voice(), list[bytes]()

    async def main(clock: Clock) -> None:
        tts: Any = LocalTts(local_tts.Options(cache_mb=cache_mb), None, clock)
        tts._voice, tts._phonemes = voice, Phonemes()
        for text in texts:
            async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
                said.append(b"".join([piece async for piece in audio]))

    run_on("virtual", main)
    return voice, said


def test_what_was_said_lately_is_not_spoken_again() -> None:
    voice, said = say("Sure,", "A latte.", "Sure,", " Sure, ")
    assert len(voice.texts) == 2
    assert said[0] == said[2] == said[3]


def test_without_room_nothing_is_kept() -> None:
    voice, _ = say("Sure,", "Sure,", cache_mb=0)
    assert len(voice.texts) == 2


def test_the_longest_unused_goes_first() -> None:
    kept = _Spoken(10)
    for text in ("a", "b"):
        kept.keep((text,), b"1234")
    assert kept.get(("a",)) == b"1234"
    kept.keep(("c",), b"1234")
    assert kept.get(("b",)) is None
    assert kept.get(("a",)) == kept.get(("c",)) == b"1234"
    kept.keep(("a",), b"12")
    kept.keep(("d",), b"1234")
    assert kept.get(("c",)) == b"1234", "what is replaced makes room"
    kept.keep(("e",), b"x" * 11)
    assert kept.get(("e",)) is None, "more than all the room is not kept"


@pytest.mark.parametrize(
    ("text", "pause_s"),
    [("A latte.", 0.22), ("A latte?", 0.22), ("Sure,", 0.1), ("a large latte", 0.03), ("Hm…", 0.22), ('"Yes."', 0.22)],
)
def test_the_pause_after_a_clause_is_what_its_mark_asks_for(text: str, pause_s: float) -> None:
    _, [pcm] = say(text)
    assert len(pcm) / 2 / RATE == pytest.approx(0.01 + 0.5 + pause_s, abs=0.006)


def test_a_long_pause_is_digital_silence_but_for_its_beginning() -> None:
    samples = np.frombuffer(_trimmed(tone(), RATE, 0.22), "<i2")
    assert not samples[-round(0.15 * RATE) :].any()


def test_no_cut_clicks() -> None:
    rng = np.random.default_rng(1)
    loud_throughout = rng.normal(0, 0.2, RATE).astype(np.float32)
    samples = np.frombuffer(_trimmed(loud_throughout, RATE, 0.0), "<i2")
    assert abs(int(samples[0])) + abs(int(samples[-1])) == 0
    assert np.abs(samples[: RATE // 1000]).max() < 0.25 * np.abs(samples).max()


def test_a_sound_of_one_step_is_faded_too() -> None:
    assert len(_trimmed(tone(0.0, 0.005, 0.0), RATE, 0.1)) > 0
    assert _trimmed(np.zeros(0, np.float32), RATE, 0.1) == b""
