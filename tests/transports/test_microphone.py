"""The microphone: sound lies in the call where it was spoken and heard, whatever the device does."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from transports.fake_card import FakeCard, knocks
from voicectl.audio import FRAME_S
from voicectl.clock import Clock, run_on
from voicectl.errors import TransportError
from voicectl.events import DeviceDelay, DeviceLost, DeviceOpened, DeviceTroubled, Event
from voicectl.transports import microphone as module
from voicectl.transports.microphone import Microphone
from voicectl.transports.sound_card import Device, choose

RATE = 16_000
LOUD = np.full(320, 9_000, "<i2").tobytes()
BUILT_IN = Device(0, "Built-in Audio", 2, 2, 48_000, True, True)
HEADSET = Device(3, "USB Headset", 1, 2, 44_100)
SPEAKERS = Device(4, "USB Speakers", 0, 2, 48_000)


class Line:
    """A microphone in use: each frame goes to `on_frame(index, line)`, whose answer is sent."""

    def __init__(self, clock: Clock, card: FakeCard, **options: Any) -> None:
        self.clock = clock
        self.card = card
        self.mic = Microphone(rate=RATE, clock=clock, card=card, **options)
        self.events: list[Event] = []
        self.mic.note = self.events.append
        self.heard: list[np.ndarray] = []
        self.sent_at: list[float] = []
        self.start = 0.0

    async def run(self, seconds: float, say: Callable[[int], bytes] = lambda index: b"") -> None:
        async for index in self.frames(seconds):
            pcm = say(index)
            at = self.mic.send(pcm)
            if pcm:
                self.sent_at.append(at)

    async def frames(self, seconds: float) -> AsyncIterator[int]:
        await self.mic.open()
        self.start = self.clock.now()
        index = 0
        async for frame in self.mic.frames(self.start):
            assert frame.at == pytest.approx(index * FRAME_S)
            self.heard.append(np.frombuffer(frame.pcm, "<i2"))
            yield index
            index += 1
            if index * FRAME_S >= seconds:
                self.mic.hang_up()
        await self.mic.aclose()

    def knock(self) -> float:
        """When the first knock is in the call."""
        sound = np.concatenate(self.heard)
        return int(np.flatnonzero(sound > 4_000)[0]) / RATE

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def on_line(test: Callable[[Line], Coroutine[Any, Any, None]], **card: Any) -> Line:
    lines: list[Line] = []

    async def main(clock: Clock) -> None:
        await clock.sleep_until(7.0)
        lines.append(Line(clock, FakeCard(clock, **card)))
        await test(lines[0])

    run_on("virtual", main)
    return lines[0]


# Where sound lies ------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 48_000, 44_100, 8_000])
def test_what_is_spoken_lies_in_the_call_where_it_was_spoken_not_where_it_came(rate: int) -> None:
    line = on_line(lambda line: line.run(3.0), rates=(rate,), air=knocks(10.0), delay_s=0.05)
    assert line.knock() == pytest.approx(10.0 - line.start, abs=0.002)


@pytest.mark.parametrize("rate", [16_000, 48_000, 8_000])
def test_send_says_when_its_sample_is_heard(rate: int) -> None:
    line = on_line(lambda line: line.run(2.0, lambda index: LOUD if 40 <= index < 60 else b""), rates=(rate,))
    heard = line.card.first_sound(rate)
    assert heard is not None
    assert line.sent_at[0] + line.start == pytest.approx(heard, abs=0.002)
    steps = np.diff(line.sent_at)
    assert np.allclose(steps, FRAME_S), "frames that follow each other are heard so"
    assert not line.of(DeviceTroubled)


def test_the_devices_share_of_every_wait_is_told() -> None:
    line = on_line(lambda line: line.run(2.0), delay_s=0.04)
    told = line.of(DeviceDelay)[-1]
    assert told.input == pytest.approx(0.04, abs=0.003)
    assert told.output == pytest.approx(0.04, abs=0.003)


@pytest.mark.parametrize("skew", [300e-6, -300e-6])
def test_a_device_clock_that_runs_fast_or_slow_moves_nothing(skew: float) -> None:
    line = on_line(
        lambda line: line.run(600.0, lambda index: LOUD if index % 50 < 25 else b""),
        input_skew=skew,
        output_skew=-skew,
        air=knocks(600.0),
    )
    assert line.knock() == pytest.approx(600.0 - line.start, abs=0.012)
    drifts = [event.seconds for event in line.of(DeviceTroubled) if event.side == "input"]
    assert {event.what for event in line.of(DeviceTroubled) if event.side == "input"} == {"drift"}
    assert sum(drifts) == pytest.approx(-skew * 600, abs=0.012), "noted, and not more than it was"


def test_sound_the_device_lost_is_silence_of_the_same_length() -> None:
    lost = frozenset(range(150, 175))  # half a second
    line = on_line(lambda line: line.run(6.0), loses=lost, air=knocks(12.0))
    assert line.knock() == pytest.approx(12.0 - line.start, abs=0.002)
    (overrun,) = line.of(DeviceTroubled)
    assert (overrun.side, overrun.what) == ("input", "overrun")
    assert overrun.seconds == pytest.approx(0.5, abs=0.01)


def test_a_speaker_that_runs_dry_in_the_middle_is_told_and_gets_more_ahead() -> None:
    line = on_line(
        lambda line: line.run(
            3.0, lambda index: LOUD if index in range(20, 30) else LOUD if index in range(33, 60) and index else b""
        )
    )
    assert not line.of(DeviceTroubled), "silence between two things that are said is none of it"

    async def starving(line: Line) -> None:
        async for index in line.frames(3.0):
            if index < 20 or index >= 80:
                line.mic.send(b"")
            elif index not in range(40, 46):  # nobody sends, and nobody said it was over
                line.sent_at.append(line.mic.send(LOUD))

    line = on_line(starving)
    (underrun,) = line.of(DeviceTroubled)
    assert (underrun.side, underrun.what) == ("output", "underrun")
    assert 0.05 < underrun.seconds < 0.13


def test_muted_the_agent_hears_silence() -> None:
    async def test(line: Line) -> None:
        async for _ in line.frames(4.0):
            line.mic.muted = True
            line.mic.send(b"")

    line = on_line(test, air=knocks(10.0))
    assert not np.concatenate(line.heard[1:]).any()


# Devices that go -------------------------------------------------------------------------------


def test_an_unplugged_device_is_noticed_and_taken_back_when_it_returns() -> None:
    async def test(line: Line) -> None:
        async for index in line.frames(12.0):
            line.mic.send(b"")
            if index == 100:
                line.card.dead, line.card.plugged = True, False
            if index == 300:
                line.card.dead, line.card.plugged = False, True

    line = on_line(test, air=knocks(18.0))
    assert len(line.heard) == 600, "the call goes on in silence"
    (lost,) = line.of(DeviceLost)
    assert 2.9 < lost.at < 3.6
    assert len(line.of(DeviceOpened)) == 2
    assert 6.0 < line.of(DeviceOpened)[1].at < 9.0
    assert line.knock() == pytest.approx(18.0 - line.start, abs=0.003)


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"plugged": False}, "there is no microphone: the system has no input device. Plug one in"),
        ({"dead": True}, "microphone 'Built-in': was opened and does not run: nothing came for 5 s"),
        ({"fails": TransportError("is in use by another program, or has gone")}, "is in use by another program"),
    ],
)
def test_what_cannot_be_opened_says_what_to_do(card: dict[str, Any], says: str) -> None:
    with pytest.raises(TransportError) as error:
        on_line(lambda line: line.run(1.0), **card)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.wall
def test_a_sound_system_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_S", 0.2)
    never = threading.Event()

    class Hangs(FakeCard):
        def devices(self) -> list[Device]:
            never.wait(60)
            return []

    async def main(clock: Clock) -> None:
        await Microphone(rate=RATE, clock=clock, card=Hangs(clock)).open()

    with pytest.raises(TransportError, match=r"did not answer within 0\.2 s\. Restart the sound server"):
        run_on("wall", main)
    never.set()


# Choosing one ----------------------------------------------------------------------------------


def test_devices_are_chosen_by_number_by_name_and_by_the_system() -> None:
    devices = [BUILT_IN, HEADSET, SPEAKERS]
    assert choose(devices, "input", None) is BUILT_IN
    assert choose(devices, "input", "3") is HEADSET
    assert choose(devices, "input", "usb") is HEADSET
    assert choose(devices, "output", "usb speakers") is SPEAKERS


def test_a_device_nobody_has_names_those_there_are() -> None:
    with pytest.raises(TransportError, match=r"no input device is called 'rode'. Name one of: 0 Built-in Audio, 3 USB"):
        choose([BUILT_IN, HEADSET, SPEAKERS], "input", "rode")
    with pytest.raises(TransportError, match=r"several output devices are called 'usb'. Name one of: 3 .*, 4 "):
        choose([BUILT_IN, HEADSET, SPEAKERS], "output", "usb")
    with pytest.raises(TransportError, match="no input device is called '4'"):
        choose([BUILT_IN, HEADSET, SPEAKERS], "input", "4")
