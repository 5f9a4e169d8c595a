"""The WAV line: frames leave by the plan, and what is sent late is heard late."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from voicectl.audio import FRAME_S, Pcm
from voicectl.clock import Clock, run_on
from voicectl.pipeline.protocols import Frame
from voicectl.trace import Trace
from voicectl.transports.caller import AfterAgent, At, Caller, DuringAgent, Utterance
from voicectl.transports.wav import WavTransport

RATE = 8_000
SOUND = np.full(160, 3000, "<i2").tobytes()


def tone(seconds: float) -> Pcm:
    return Pcm(np.full(round(seconds * RATE), 1000, "<i2").tobytes(), RATE)


def caller(*utterances: Utterance) -> Caller:
    return Caller("ann", utterances)


def on_line(
    who: Caller, test: Callable[[WavTransport, Clock], Coroutine[Any, Any, None]], *, greeted: bool = False
) -> Trace:
    trace = Trace()

    async def main(clock: Clock) -> None:
        await clock.sleep_until(12.345678)  # no call begins when the clock does
        await test(WavTransport(who, rate=RATE, greeted=greeted, clock=clock, trace=trace), clock)

    run_on("virtual", main)
    return trace


def test_frames_come_when_their_last_sample_has_been_spoken() -> None:
    seen: list[tuple[float, float, int]] = []

    async def test(line: WavTransport, clock: Clock) -> None:
        start = clock.now()
        async for frame in line.frames(start):
            seen.append((round(frame.at, 6), round(clock.now() - start, 6), len(frame.pcm)))

    on_line(caller(), test)
    assert seen[:3] == [(0.0, 0.02, 320), (0.02, 0.04, 320), (0.04, 0.06, 320)]
    assert len(seen) == 45, "0.9 s of silence, then nobody is there any more"


def test_a_frame_that_was_taken_late_does_not_delay_the_next() -> None:
    seen: list[tuple[float, float]] = []

    async def test(line: WavTransport, clock: Clock) -> None:
        start = clock.now()
        async for frame in line.frames(start):
            seen.append((round(frame.at, 6), round(clock.now() - start, 6)))
            if frame.at == 0.02:
                await clock.sleep_until(clock.now() + 0.07)

    on_line(caller(), test)
    assert seen[:7] == [(0.0, 0.02), (0.02, 0.04), (0.04, 0.11), (0.06, 0.11), (0.08, 0.11), (0.1, 0.12), (0.12, 0.14)]


@pytest.mark.wall
def test_a_line_that_catches_up_lets_everybody_else_run() -> None:
    async def main(clock: Clock) -> list[str]:
        seen: list[str] = []

        async def other() -> None:
            for _ in range(5):
                seen.append("other")
                await clock.sleep_until(clock.now())

        line = WavTransport(caller(), rate=RATE, greeted=False, clock=clock, trace=Trace())
        task = clock.spawn(other(), name="other")
        async for _ in line.frames(clock.now() - 1.0):
            seen.append("frame")
        await task
        return seen

    seen = run_on("wall", main)
    assert (seen.count("frame"), seen.count("other")) == (45, 5)
    assert seen.index("other") < 3, "not after all the frames that were due"


def test_what_is_said_is_noted_with_the_truth_beside_it() -> None:
    async def test(line: WavTransport, clock: Clock) -> None:
        async for _ in line.frames(clock.now()):
            pass

    first = Utterance(tone(1.0), "a.wav", 0.1, 0.8, "A latte.", {"drink": "latte"}, At(0.5))
    second = Utterance(tone(0.5), "b.wav", 0.0, 0.5, start=DuringAgent(0.0), backchannel=True)
    assert on_line(caller(first, second), test).lines().splitlines()[1:] == [
        '{"event":"UtterancePlayed","at":0.5,"index":0,"name":"a.wav","voiced_from":0.6,"voiced_until":1.3,"ends":1.5,'
        '"text":"A latte.","slots":{"drink":"latte"}}',
        '{"event":"UtterancePlayed","at":11.5,"index":1,"name":"b.wav","voiced_from":11.5,"voiced_until":12.0,'
        '"ends":12.0,"backchannel":true,"during_agent":true}',
    ]


def test_an_utterance_is_noted_before_its_first_frame_is_heard() -> None:
    trace = Trace()

    async def main(clock: Clock) -> list[tuple[float, int]]:
        line = WavTransport(
            caller(Utterance(tone(0.1), "a.wav", 0, 0.1, start=At(0.1))),
            rate=RATE,
            greeted=False,
            clock=clock,
            trace=trace,
        )
        return [(round(frame.at, 6), len(trace.events)) async for frame in line.frames(0.0)]

    assert run_on("virtual", main)[3:7] == [(0.06, 0), (0.08, 0), (0.1, 1), (0.12, 1)]


# Sending --------------------------------------------------------------------------------------


def sent_at(*instants: float, silent: tuple[float, ...] = ()) -> list[float]:
    """Where frames are heard that are sent at these instants of the call."""
    placed: list[float] = []

    async def test(line: WavTransport, clock: Clock) -> None:
        start = clock.now()
        frames = line.frames(start)
        assert isinstance(await anext(frames), Frame)
        for instant in sorted((*instants, *silent)):
            await clock.sleep_until(start + instant)
            at = line.send(b"" if instant in silent else SOUND)
            if instant not in silent:
                placed.append(round(at, 6))
        await frames.aclose()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    on_line(caller(), test)
    return placed


def test_a_frame_is_heard_when_it_is_sent() -> None:
    assert sent_at(0.02, 0.04, 0.06) == [0.02, 0.04, 0.06]


def test_lateness_of_less_than_a_frame_is_concealed() -> None:
    assert sent_at(0.02, 0.05, 0.06, 0.099) == [0.02, 0.04, 0.06, 0.08]


def test_a_frame_that_is_a_whole_frame_late_is_heard_late() -> None:
    assert sent_at(0.02, 0.07, 0.08) == [0.02, 0.07, 0.09]


def test_frames_sent_in_a_rush_follow_each_other() -> None:
    assert sent_at(0.02, 0.11, 0.11, 0.11, 0.12) == [0.02, 0.11, 0.13, 0.15, 0.17]


def test_a_frame_after_a_silence_is_not_heard_before_it_is_sent() -> None:
    """Also where the silence was one frame, and float dust would decide."""
    for first in range(1, 300):
        before, silence, after = first * FRAME_S, (first + 1) * FRAME_S, (first + 2) * FRAME_S
        assert sent_at(before, after, silent=(silence,)) == pytest.approx([before, after], abs=2e-6), first


def test_the_first_frame_is_not_heard_before_it_is_sent() -> None:
    assert sent_at(0.02) == [0.02]


def test_silence_is_heard_now_and_by_nobody() -> None:
    async def test(line: WavTransport, clock: Clock) -> None:
        start = clock.now()
        begun: list[float] = []
        async for frame in line.frames(start):
            if frame.pcm.strip(b"\0") and not begun:
                begun.append(frame.at)
            assert line.send(b"") == pytest.approx(clock.now() - start)
        assert begun == [pytest.approx(10.0)], "a greeting that never came"

    on_line(caller(Utterance(tone(0.1), "a.wav", 0, 0.1, start=AfterAgent(0.5))), test, greeted=True)
