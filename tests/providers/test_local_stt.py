"""The local STT's bookkeeping, with a model that is told what to hear: when it hears, and what answers a flush."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from voicectl.audio import PIPELINE_RATE
from voicectl.clock import Clock, run_on
from voicectl.pipeline.protocols import Transcript
from voicectl.providers.local_stt import _Line, _repeats, _resume, _Stream

FRAME = PIPELINE_RATE // 50


def sound(level: float, seconds: float, seed: int = 0) -> bytes:
    """Noise of this RMS."""
    samples = np.random.default_rng(seed).normal(0, level, round(seconds * PIPELINE_RATE))
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()


SPEECH, HUSH = sound(3000, 1.0), sound(10, 1.0, 1)


class Model:
    """Hears how many milliseconds it was given; notes it."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.drafts: list[list[int]] = []

    def hear(self, pcm: bytes, job: Any, draft: Sequence[int] = ()) -> list[int]:
        self.given.append(round(len(pcm) / 2 / PIPELINE_RATE * 1000))
        self.drafts.append(list(draft))
        return [self.given[-1]]

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))


async def say(stream: _Stream, clock: Clock, pcm: bytes) -> None:
    """Push it as a caller speaks."""
    for start in range(0, len(pcm), 2 * FRAME):
        stream.push(pcm[start : start + 2 * FRAME])
        await clock.sleep_until(clock.now() + 0.02)


def call(*parts: bytes | None, partial_s: float = 1.5) -> tuple[Model, list[Transcript]]:
    """Say these, and flush for each None."""
    model, found = Model(), list[Transcript]()

    async def main(clock: Clock) -> None:
        stream = _Stream(model, clock, partial_s)  # pyright: ignore[reportArgumentType]

        async def listen() -> None:
            async for transcript in stream:
                found.append(transcript)

        listening = clock.spawn(listen(), name="listening")
        for part in parts:
            if part is None:
                stream.flush()
                await clock.sleep_until(clock.now() + 0.02)
            else:
                await say(stream, clock, part)
        await stream.aclose()
        await listening

    run_on("virtual", main)
    return model, found


def test_a_flush_after_a_hush_is_answered_by_what_was_heard_in_it() -> None:
    model, found = call(SPEECH, HUSH[: 8 * 2 * FRAME], None)
    assert model.given == [1160], "once, as soon as it was quiet, with the silence that is sure to follow"
    assert found == [Transcript("1160"), Transcript("1160", 1)]


def test_sound_after_a_hush_is_heard_too() -> None:
    model, found = call(SPEECH, HUSH[: 4 * 2 * FRAME], SPEECH, None)
    assert [transcript.flush for transcript in found] == [0, 1]
    assert model.given == [1160, 2080]


def test_each_hearing_is_the_draft_of_the_next() -> None:
    model, _ = call(SPEECH, HUSH[: 4 * 2 * FRAME], SPEECH, None)
    assert model.drafts == [[], [1160]]


def test_silence_after_an_answer_is_not_heard_again() -> None:
    model, _ = call(SPEECH, None, HUSH, None, HUSH)
    assert model.given == [1000]


def test_speech_without_a_hush_is_heard_every_so_often() -> None:
    model, found = call(SPEECH, SPEECH, SPEECH, SPEECH, partial_s=1.5)
    assert model.given == [1500, 3000]
    assert not any(transcript.final for transcript in found)


def test_without_partials_nothing_is_heard_before_somebody_asks() -> None:
    model, found = call(SPEECH, HUSH, SPEECH, HUSH, None, partial_s=0)
    assert len(model.given) == 1
    assert [transcript.flush for transcript in found] == [1]


def test_a_turn_of_silence_is_answered() -> None:
    _, found = call(bytes(len(SPEECH)), None)
    assert [transcript.flush for transcript in found] == [1]


@pytest.mark.parametrize("noise", [0, 10, 100, 300])
def test_a_pause_is_quiet_on_a_noisy_line_too(noise: int) -> None:
    line = _Line()
    line.push(sound(noise, 0.3, 2) + sound(3000, 1.0) + sound(noise, 0.1, 3))
    assert line.hushed
    assert line.loud_until == pytest.approx(1.3, abs=0.03)


def test_speech_is_not_quiet_and_neither_is_a_line_of_noise() -> None:
    line = _Line()
    line.push(sound(300, 2.0))
    assert not line.hushed
    line.push(SPEECH)
    assert not line.hushed


def test_where_a_wrong_draft_may_be_right_again() -> None:
    draft = [10, 11, 12, 13, 14]
    assert _resume(draft, 1, 99) == 2, "another token instead"
    assert _resume(draft, 1, 13) == 4, "two too many in the draft"
    assert _resume(draft, 1, 10) == 1, "one too few"
    assert _resume(draft, 5, 99) == 6, "the draft is over"


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([1, 2, 3, 4] * 4, True),
        ([9, 9, 9, *[5, 6] * 4], True),
        ([1, 2] * 3, False),
        ([7, 7, 7], False),
        (list(range(40)), False),
        ([], False),
    ],
)
def test_a_model_that_says_the_same_for_ever_is_noticed(tokens: list[int], loops: bool) -> None:
    assert _repeats(tokens) is loops
