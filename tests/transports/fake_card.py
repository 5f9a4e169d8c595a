"""A sound card whose air, clocks and failures are ours: it runs on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from voicectl.audio import SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import TransportError
from voicectl.transports.sound_card import Device, OnInput, OnOutput, SoundStream

BLOCK_S = 0.02
Samples = npt.NDArray[np.int16]
Air = Callable[[float, int], Samples]
"""What is in the air at a microphone: (since when on the clock, samples a second) -> one block's samples."""


def silence(at: float, rate: int) -> Samples:
    return np.zeros(round(rate * BLOCK_S), np.int16)


def knocks(*times: float, level: int = 12_000) -> Air:
    """A knock of 2 ms at each of these times of the clock."""

    def air(at: float, rate: int) -> Samples:
        moments = at + np.arange(round(rate * BLOCK_S)) / rate
        sound = np.zeros(len(moments), np.int16)
        for time in times:
            sound[(moments >= time) & (moments < time + 0.002)] = level
        return sound

    return air


@dataclass
class FakeCard:
    """One microphone and one speaker.

    Attributes:
        rates: what they can do.
        skew: how much faster than ours their clocks run.
        delay_s: how long they take each way.
        plugged: whether there are any.
        dead: open streams call back no more.
        loses: blocks that the microphone loses, by their number.
        fails: raised by whoever opens.
        heard: what the speaker has played: (when its first sample is heard, samples).
    """

    clock: Clock
    air: Air = silence
    rates: tuple[int, ...] = (16_000,)
    input_skew: float = 0.0
    output_skew: float = 0.0
    delay_s: float = 0.03
    plugged: bool = True
    dead: bool = False
    loses: frozenset[int] = frozenset()
    fails: TransportError | None = None
    heard: list[tuple[float, Samples]] = field(default_factory=list[tuple[float, Samples]])
    opened: int = 0

    def devices(self) -> list[Device]:
        if not self.plugged:
            return []
        return [Device(0, "Built-in", 1, 2, self.rates[0], True, True), Device(1, "Headset USB", 1, 1, self.rates[0])]

    def open_input(self, device: Device, rate: int, on_block: OnInput) -> SoundStream:
        if self.fails:
            raise self.fails
        self.opened += 1
        stream = FakeStream(self, rate if rate in self.rates else self.rates[0])

        async def run() -> None:
            start = self.clock.now()
            step = BLOCK_S / (1 + self.input_skew)
            index = 0
            while stream.open:
                index += 1
                await self.clock.sleep_until(start + index * step + self.delay_s)
                if stream.open and not self.dead and index not in self.loses:
                    spoken = start + (index - 1) * step
                    on_block(self.air(spoken, stream.rate).astype("<i2").tobytes(), self.clock.now() - spoken, False)

        self.clock.spawn(run(), name="fake microphone")
        return stream

    def open_output(self, device: Device, rate: int, on_block: OnOutput) -> SoundStream:
        stream = FakeStream(self, rate if rate in self.rates else self.rates[0])

        async def run() -> None:
            start = self.clock.now() + 0.007
            step = BLOCK_S / (1 + self.output_skew)
            index = 0
            while stream.open:
                await self.clock.sleep_until(start + index * step)
                index += 1
                if stream.open and not self.dead:
                    pcm = on_block(round(stream.rate * BLOCK_S) * SAMPLE_WIDTH, self.delay_s, False)
                    self.heard.append((self.clock.now() + self.delay_s, np.frombuffer(pcm, "<i2")))

        self.clock.spawn(run(), name="fake speaker")
        return stream

    def first_sound(self, rate: int) -> float | None:
        """When the first sample louder than 1000 is heard."""
        for at, samples in self.heard:
            loud = np.flatnonzero(np.abs(samples.astype(int)) > 1000)
            if len(loud):
                return at + int(loud[0]) / rate
        return None


class FakeStream:
    def __init__(self, card: FakeCard, rate: int) -> None:
        self._card = card
        self.rate = rate
        self.delay_s = card.delay_s
        self.open = True

    def alive(self) -> bool:
        return self.open

    def close(self) -> None:
        self.open = False
