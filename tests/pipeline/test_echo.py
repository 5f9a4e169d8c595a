"""The agent's own voice coming back is known for what it is; a person is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from voicectl.pipeline.echo import EchoWatch

RATE = 16_000
FRAME = 320


def voice(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Something like speech: noise with a slow envelope and a few formants."""
    draw = np.random.default_rng(seed)
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    pitch = np.cumsum(100 + 40 * np.sin(2 * np.pi * 0.7 * time + seed) + 15 * draw.standard_normal(count)) / RATE
    sound = sum(np.sin(2 * np.pi * pitch * k + seed * k) / k for k in range(1, 12)) + 0.3 * draw.standard_normal(count)
    return 4000 * sound * (0.4 + 0.6 * np.abs(np.sin(2 * np.pi * 2.2 * time + seed)))


def watched(caller: np.ndarray, agent: np.ndarray) -> bool | None:
    watch = EchoWatch(RATE)
    for index in range(min(len(caller), len(agent)) // FRAME):
        part = slice(index * FRAME, (index + 1) * FRAME)
        watch.heard(np.clip(caller[part], -32768, 32767).astype("<i2").tobytes())
        watch.played(np.clip(agent[part], -32768, 32767).astype("<i2").tobytes(), index * FRAME / RATE)
    return watch.is_echo(min(len(caller), len(agent)) // FRAME * FRAME / RATE)


def delayed(sound: np.ndarray, seconds: float, decibels: float) -> np.ndarray:
    later = np.concatenate([np.zeros(round(seconds * RATE)), sound])[: len(sound)]
    return later * 10 ** (decibels / 20)


@pytest.mark.parametrize("delay", [0.0, 0.06, 0.25, 0.48])
@pytest.mark.parametrize("decibels", [-10, -30])
def test_a_later_and_quieter_copy_is_an_echo(delay: float, decibels: float) -> None:
    agent = voice(1)
    assert watched(delayed(agent, delay, decibels), agent)


def test_another_voice_is_no_echo() -> None:
    assert not watched(voice(2), voice(1))


def test_a_caller_louder_than_the_echo_is_no_echo() -> None:
    agent = voice(1)
    assert not watched(voice(2) + delayed(agent, 0.1, -20), agent)


def test_silence_and_a_silent_agent_are_no_echo() -> None:
    quiet = np.zeros(RATE)
    assert not watched(quiet, voice(1, 1.0))
    assert not watched(voice(1, 1.0), quiet)
    assert not EchoWatch(RATE).is_echo(0.0)
