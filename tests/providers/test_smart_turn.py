"""The end-of-turn model: what it is shown, one pause at a time, and the real model at work.

The second half needs `voicectl models pull smart-turn-v3.2` (marker `models`).
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voicectl.audio import PIPELINE_RATE, read_wav
from voicectl.clock import Clock, run_on
from voicectl.errors import MissingExtra, ProviderError, WeightsError
from voicectl.providers import smart_turn
from voicectl.providers.smart_turn import Options, SmartTurn, log_mel
from voicectl.weights import Store, default_store

RECORDINGS = Path(__file__).resolve().parents[2] / "recordings"


def quiet(note: str) -> None:
    """Progress nobody looks at."""


def wall(main: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    run_on("wall", main)


def tone(hz: float, seconds: float, level: float = 6000) -> bytes:
    at = np.arange(round(seconds * PIPELINE_RATE)) / PIPELINE_RATE
    return (level * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


# What the model is shown ------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.5, 8.0, 11.0])
def test_the_picture_has_one_size_whatever_was_said(seconds: float) -> None:
    seen = log_mel(tone(440, seconds))
    assert seen.shape == (80, 800)
    assert seen.dtype == np.float32
    assert np.isfinite(seen).all()
    assert seen.max() - seen.min() <= 2.0 + 1e-5, "eight decades, a quarter each"


def test_short_speech_stands_at_the_end() -> None:
    seen = log_mel(tone(440, 1.0))
    assert seen[:, 705:795].max() > seen[:, :690].max() + 0.5


def test_a_higher_tone_is_in_a_higher_band() -> None:
    bands = [int(log_mel(tone(hz, 8.0))[:, 400].argmax()) for hz in (200, 400, 1000, 2000, 4000, 7000)]
    assert bands == sorted(set(bands))
    # Of 80 bands up to 8 kHz (45.2 mel), 1 kHz is at 15 mel.
    assert bands[2] == pytest.approx(15 / 45.25 * 81 - 1, abs=1)


def test_loudness_does_not_matter() -> None:
    quieter, louder = log_mel(tone(440, 3.0, 1000)), log_mel(tone(440, 3.0, 16_000))
    assert np.abs(quieter - louder).mean() < 0.02


def test_only_the_last_eight_seconds_count() -> None:
    last = tone(440, 8.0)
    assert (log_mel(tone(2000, 5.0) + last) == log_mel(last)).all()


# The stream -------------------------------------------------------------------------------------


class FakeModel:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()

    def judge(self, pcm: bytes, job: smart_turn._Job) -> float:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.append(pcm)
        self.gate.wait(5)
        self.at_once -= 1
        return 0.75


def with_model(clock: Clock) -> tuple[SmartTurn, FakeModel]:
    provider, model = SmartTurn(Options(), None, clock), FakeModel()
    provider._model = model  # pyright: ignore[reportAttributeAccessIssue]
    return provider, model


def numbered(first_s: float, last_s: float) -> bytes:
    """Every sample is the tenth of a second it was spoken in."""
    return np.repeat(np.arange(round(first_s * 10), round(last_s * 10)), PIPELINE_RATE // 10).astype("<i2").tobytes()


def test_a_turn_is_heard_from_just_before_its_start_to_now() -> None:
    async def main(clock: Clock) -> None:
        provider, model = with_model(clock)
        stream = provider.open()
        stream.push(numbered(0, 3))
        stream.push(numbered(3, 5))
        assert await stream.score(2.0) == 0.75
        assert model.asked == [numbered(1.7, 5)]

    run_on("virtual", main)


def test_of_a_long_turn_the_last_eight_seconds_are_heard() -> None:
    async def main(clock: Clock) -> None:
        provider, model = with_model(clock)
        stream = provider.open()
        for second in range(20):
            stream.push(numbered(second, second + 1))
        await stream.score(1.0)
        await stream.score(0.0)
        assert model.asked == [numbered(12, 20)] * 2

    run_on("virtual", main)


def test_pauses_of_many_calls_are_judged_one_at_a_time() -> None:
    async def main(clock: Clock) -> None:
        provider, model = with_model(clock)
        streams = [provider.open() for _ in range(4)]
        for stream in streams:
            stream.push(tone(440, 1.0))
        assert await asyncio.gather(*(stream.score(0.0) for stream in streams)) == [0.75] * 4
        assert (len(model.asked), model.most_at_once) == (4, 1)

    wall(main)


def test_a_pause_nobody_waits_for_is_not_judged() -> None:
    async def main(clock: Clock) -> None:
        provider, model = with_model(clock)
        model.gate.clear()
        stream = provider.open()
        stream.push(tone(440, 1.0))
        running = clock.spawn(stream.score(0.0), name="running")
        waiting = clock.spawn(stream.score(0.0), name="waiting")
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        model.gate.set()
        assert await running == 0.75
        assert len(model.asked) == 1

    wall(main)


def test_asked_before_it_was_started_or_after_it_was_closed_it_says_so() -> None:
    async def main(clock: Clock) -> None:
        provider, _ = with_model(clock)
        stream = provider.open()
        await provider.aclose()
        await provider.aclose()
        with pytest.raises(ProviderError, match="before it was started"):
            provider.open()
        with pytest.raises(ProviderError, match="is closed"):
            await stream.score(0.0)

    run_on("virtual", main)


# Missing things ---------------------------------------------------------------------------------


def test_a_missing_package_says_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError(name)
        return importing(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_module)

    async def main(clock: Clock) -> None:
        with pytest.raises(MissingExtra, match=r"Run: pip install 'voicectl\[local\]'"):
            await SmartTurn(Options(), None, clock, Store(tmp_path)).start(quiet)

    wall(main)


def test_weights_that_are_not_pulled_say_the_command(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    async def main(clock: Clock) -> None:
        with pytest.raises(WeightsError, match=r"is not pulled\. Run: voicectl models pull smart-turn-v3\.2"):
            await SmartTurn(Options(), None, clock, Store(tmp_path)).start(quiet)

    wall(main)


# The real model ---------------------------------------------------------------------------------


@pytest.fixture
def store() -> Store:
    found = default_store()
    if found.status("smart-turn-v3.2").state != "pulled":
        pytest.skip("voicectl models pull smart-turn-v3.2")
    return found


@pytest.mark.models
@pytest.mark.wall
def test_whole_sentences_score_higher_than_their_beginnings(store: Store) -> None:
    """On the whole: of a sentence that is cut hard the model often thinks well, too."""
    folders = ("clinic-appointment", "coffee-change-of-mind")
    said = [read_wav(wav).data for folder in folders for wav in sorted((RECORDINGS / folder).glob("0*.wav"))]
    quarter_second = bytes(PIPELINE_RATE // 2)

    async def main(clock: Clock) -> None:
        provider = SmartTurn(Options(), None, clock, store)
        await provider.start(quiet)

        async def score(pcm: bytes) -> float:
            stream = provider.open()
            stream.push(pcm + quarter_second)
            return await stream.score(0.0)

        whole = [await score(pcm) for pcm in said]
        begun = [await score(pcm[: len(pcm) * 3 // 20 * 2]) for pcm in said]
        assert np.mean(whole) > 0.9
        assert np.mean(begun) < np.mean(whole) - 0.2
        assert [round(one, 3) for one in whole] == whole
        assert await score(said[0]) == whole[0], "the same sound, the same score"
        await provider.aclose()

    wall(main)


@pytest.mark.models
@pytest.mark.wall
def test_a_cancelled_judgement_stops_and_the_next_is_right(store: Store) -> None:
    async def main(clock: Clock) -> None:
        provider = SmartTurn(Options(), None, clock, store)
        await provider.start(quiet)
        stream = provider.open()
        stream.push(read_wav(RECORDINGS / "coffee-order/01.wav").data + bytes(PIPELINE_RATE // 2))
        expected = await stream.score(0.0)
        cancelled = clock.spawn(stream.score(0.0), name="cancelled")
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await stream.score(0.0) == expected
        await provider.aclose()

    wall(main)
