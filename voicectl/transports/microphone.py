"""The microphone and the speaker of this machine: a line like any other.

Two streams, one each way, call back from threads of the sound system; buffers of bounded size hand
over between them and the event loop. Three clocks meet here: the microphone's, the speaker's and ours.
Frames are cut on ours (`device_time.Tape`): a frame's `at` is when it was spoken, not when it came, and
`send` says when its sample is heard, not when it was handed over, so voice-to-voice is what a person
at the device hears. How long the device takes both ways is told as an event, `DeviceDelay`.

A device that falls silent is told, replaced by silence and tried again until it is back. Nothing here
waits for the sound system on the event loop, and nothing waits for it at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from voicectl.audio import FRAME_S, SAMPLE_WIDTH, Resampler
from voicectl.clock import Clock
from voicectl.errors import TransportError
from voicectl.events import DeviceDelay, DeviceLost, DeviceOpened, DeviceTroubled, Event
from voicectl.pipeline.protocols import Frame
from voicectl.transports.device_time import Correction, DeviceTime, Tape, peak
from voicectl.transports.sound_card import Device, PortAudio, SoundCard, SoundStream, choose

T = TypeVar("T")

OPEN_S = 8.0
"""How long opening may take: a sound server that starts on demand takes two seconds."""

FIRST_SOUND_S = 5.0
"""How long an open microphone may give nothing: through PulseAudio the first block comes 2 s late."""

LOST_S = 1.0
"""A device that does not call for so long is gone."""

_AGAIN_S = 1.0  # between two looks whether it is back
# A call begins when the microphone runs in step: first PulseAudio hands over what it had queued.
_SETTLED_BLOCKS = 50
_IN_STEP_S = 0.006
_SETTLED_DELAY_S = 0.15
_INBOX = 250  # blocks, 5 s: more can only be a loop that hangs
_WARM_BLOCKS = 50
_LEAST_AHEAD_S = 0.020  # put before the first frame of what the agent says ...
_MOST_AHEAD_S = 0.060
_AHEAD_STEP_S = 0.010  # ... and so much more each time the speaker ran dry
_TOO_FAR_AHEAD_S = 0.060  # beyond that a quiet frame is left out
_MOST_QUEUED_S = 1.0
_DELAY_NEWS_S = 0.010  # a delay that moves less is no news
_DELAY_LOOK_S = 1.0
_SANE_DELAY_S = 2.0
_QUIET_PEAK = 330  # of 32768, -40 dBFS


@dataclass(frozen=True, slots=True)
class _Block:
    pcm: bytes
    spoken_at: float  # on our clock
    came_at: float
    lost: bool


class Microphone:
    """The line of `voicectl run`.

    Args:
        rate: samples per second of the line; devices may have others.
        input, output: devices by number or a part of their name (None: the system's own).
        card: the system's sound.

    `note` is told the line's events, from `frames` on.
    """

    def __init__(
        self,
        *,
        rate: int,
        clock: Clock,
        input: str | None = None,
        output: str | None = None,
        card: SoundCard | None = None,
    ) -> None:
        self.rate = rate
        self.caller = "microphone"
        self.note: Callable[[Event], None] = lambda event: None
        self.muted = False
        """Whether the agent hears silence instead of the caller."""
        self.zeros_s = 0.0
        """For how long the microphone has given nothing but zeros: no device is that silent."""
        self._clock = clock
        self._wanted = input, output
        self._card = card or PortAudio()
        self._start = 0.0
        self._speaker = _Speaker(clock)
        self._inbox: deque[_Block] = deque(maxlen=_INBOX)
        self._streams: tuple[SoundStream, SoundStream] | None = None
        self._devices: tuple[Device, Device] | None = None
        self._lines = 0  # opened so far; a thread that comes too late closes what it opened
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._heard_from_at = 0.0  # the last block
        self._fresh = False  # the streams are new to `frames`
        self._reopening: asyncio.Task[None] | None = None
        self._delay: tuple[float, float] | None = None
        self._delay_looked = 0.0
        self._hung_up = False

    async def open(self) -> None:
        """Open both devices and wait until the microphone runs steadily. Models can load meanwhile.

        Raises:
            TransportError: no such device, or it cannot be used; says what to do.
        """
        await self._open()
        deadline = self._clock.now() + FIRST_SOUND_S
        while not self._settled():
            if self._clock.now() >= deadline:
                if self._inbox and self._speaker.calls:
                    return  # it runs, if unsteadily
                await self.aclose()
                assert self._devices
                side = "microphone" if not self._inbox else "speaker"
                device = self._devices[0 if not self._inbox else 1]
                raise TransportError(
                    f"was opened and does not run: nothing came for {FIRST_SOUND_S:.0f} s",
                    where=f"{side} '{device.name}'",
                    hint="Another program may hold it, or the sound server hangs. Run: voicectl doctor",
                )
            await self._news(min(deadline, self._clock.now() + 0.1))

    def describe(self) -> str:
        """The devices, for people."""
        if not self._devices or not self._streams:
            return "no device"
        (input, output), (ears, mouth) = self._devices, self._streams
        return f"{input.name} ({ears.rate} Hz) in, {output.name} ({mouth.rate} Hz) out"

    @property
    def delay_s(self) -> tuple[float, float]:
        """How long the devices take: from the mouth to us, from us to the ear."""
        return self._delay or (0.0, 0.0)

    def hang_up(self) -> None:
        """End the call as a caller does."""
        self._hung_up = True
        self._ring()

    # The line --------------------------------------------------------------------------------

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        self._start = start
        while len(self._inbox) > _WARM_BLOCKS:
            self._inbox.popleft()
        tape = Tape(self.rate, start)
        assert self._streams
        tape.plug_in(self._streams[0].rate)
        self._fresh = False
        self._heard_from_at = self._clock.now()
        self._note_opened()
        index = 0
        came_at = start
        silence = bytes(round(self.rate * FRAME_S) * SAMPLE_WIDTH)
        while not self._hung_up:
            now = self._clock.now()
            if self._reopening is not None:
                tape.silence_until(now - self.delay_s[0])
                came_at = now
            elif self._fresh:
                self._fresh = False
                tape.silence_until(now - self.delay_s[0])
                tape.plug_in(self._streams[0].rate)
                self._note_opened()
            elif self._inbox:
                block = self._inbox.popleft()
                self._heard_from_at = came_at = block.came_at
                self._put_right(tape.push(block.pcm, block.spoken_at), block)
                self._look_at_delay(block, tape.end)
            else:
                if why := self._lost(now):
                    self._lose(why)
                await self._news(now + LOST_S / 4)
                continue
            for trouble in self._speaker.troubles():
                self.note(replace(trouble, at=max(0.0, trouble.at - start)))
            while (pcm := tape.frame()) is not None:
                at = index * FRAME_S
                index += 1
                self.zeros_s = 0.0 if any(pcm) else self.zeros_s + FRAME_S
                yield Frame(silence if self.muted else pcm, at, max(0.0, came_at - start - at - FRAME_S))
                if self._hung_up:
                    return
            if self._reopening is not None:
                await self._clock.sleep_until(start + (index + 1) * FRAME_S + self.delay_s[0])

    def send(self, pcm: bytes) -> float:
        now = self._clock.now() - self._start
        if self._reopening is not None:
            return now + self.delay_s[1]
        at = self._speaker.send(pcm)
        return now if at is None else at - self._start

    async def aclose(self) -> None:
        self._hung_up = True
        self._lines += 1
        if self._reopening:
            self._reopening.cancel()
        streams, self._streams = self._streams, None
        if streams:
            with suppress(TransportError):
                await self._aside(lambda: _close(streams), within_s=0.15)

    # The devices -----------------------------------------------------------------------------

    async def _open(self) -> None:
        """Both ways, anew.

        Raises:
            TransportError: see `open`.
        """
        self._lines += 1
        line = self._lines
        old, self._streams = self._streams, None
        self._inbox.clear()

        def work() -> tuple[Device, Device, SoundStream, SoundStream]:
            if old:
                _close(old)
            devices = self._card.devices()
            input, output = choose(devices, "input", self._wanted[0]), choose(devices, "output", self._wanted[1])
            ears = self._card.open_input(input, self.rate, self._hears(line))
            try:
                mouth = self._card.open_output(output, self.rate, self._speaker.plug_in(self.rate))
            except BaseException:
                ears.close()
                raise
            if line != self._lines:  # nobody waits any more
                _close((ears, mouth))
            return input, output, ears, mouth

        input, output, ears, mouth = await self._aside(work, within_s=OPEN_S)
        self._speaker.run_at(mouth.rate, self.rate, mouth.delay_s)
        self._devices, self._streams = (input, output), (ears, mouth)
        self._fresh = True

    def _hears(self, line: int) -> Callable[[bytes, float, bool], None]:
        """What the microphone's thread calls."""

        def on_block(pcm: bytes, ago_s: float, lost: bool) -> None:
            if line != self._lines:
                return
            now = self._clock.now()
            streams = self._streams
            if not 0.0 <= ago_s <= _SANE_DELAY_S:
                ago_s = streams[0].delay_s if streams else 0.0
            self._inbox.append(_Block(pcm, now - ago_s, now, lost))
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ring)

        return on_block

    def _settled(self) -> bool:
        """Whether the last blocks came in step: first the sound system hands over what it had queued."""
        if not self._streams or not self._speaker.calls:
            return False
        last = list(self._inbox)[-_SETTLED_BLOCKS:]
        if len(last) < _SETTLED_BLOCKS:
            return False
        rate = self._streams[0].rate
        steps = [
            after.spoken_at - before.spoken_at - len(before.pcm) / SAMPLE_WIDTH / rate
            for before, after in pairwise(last)
        ]
        return max(map(abs, steps)) < _IN_STEP_S and last[-1].came_at - last[-1].spoken_at < _SETTLED_DELAY_S

    def _lost(self, now: float) -> str | None:
        """Why the devices are given up, where they are."""
        if now - max(self._heard_from_at, self._start) > LOST_S:
            return "the microphone gives nothing any more"
        if self._speaker.silent_s() > LOST_S:
            return "the speaker takes nothing any more"
        if not self._streams or not all(one.alive() for one in self._streams):
            return "the sound system stopped the device"
        return None

    def _lose(self, why: str) -> None:
        self.note(DeviceLost(at=self._clock.now() - self._start, why=why))
        self._reopening = self._clock.spawn(self._reopen(), name="reopening the sound device")

    async def _reopen(self) -> None:
        """Try until it is back."""
        while True:
            try:
                await self._open()
            except TransportError:
                await self._clock.sleep_until(self._clock.now() + _AGAIN_S)
                continue
            deadline = self._clock.now() + FIRST_SOUND_S
            while not self._settled() and self._clock.now() < deadline:
                await self._clock.sleep_until(self._clock.now() + FRAME_S)
            if self._inbox and self._speaker.calls:
                break
        self._heard_from_at = self._clock.now()
        self._reopening = None
        self._ring()

    async def _aside(self, work: Callable[[], T], *, within_s: float) -> T:
        """Run what may block for ever in a thread that nobody must wait for.

        Raises:
            TransportError: it raised one, or took too long.
        """
        if self._clock.kind == "virtual":
            return work()
        done: asyncio.Future[T] = self._loop.create_future()

        def tell(result: T | None, error: BaseException | None) -> None:
            if not done.done():
                if error:
                    done.set_exception(error)
                else:
                    done.set_result(result)  # pyright: ignore[reportArgumentType]

        def run() -> None:
            result, failed = None, None
            try:
                result = work()
            except Exception as error:  # noqa: BLE001  handed over to who waits
                failed = error
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(tell, result, failed)

        threading.Thread(target=run, name="sound device", daemon=True).start()
        try:
            return await asyncio.wait_for(done, within_s)
        except TimeoutError:
            raise TransportError(
                f"the sound system did not answer within {within_s:g} s",
                hint="Restart the sound server: pulseaudio -k, or systemctl --user restart pipewire",
            ) from None

    # What becomes known ----------------------------------------------------------------------

    def _put_right(self, correction: Correction | None, block: _Block) -> None:
        if correction:
            what = "overrun" if correction.why == "gap" and correction.seconds > 0 else "drift"
            at = max(0.0, correction.at - self._start)
            self.note(DeviceTroubled(at=at, side="input", what=what, seconds=correction.seconds))
        elif block.lost:
            at = max(0.0, block.spoken_at - self._start)
            self.note(DeviceTroubled(at=at, side="input", what="overrun", seconds=0.0))

    def _look_at_delay(self, block: _Block, heard_until: float) -> None:
        if self._delay and block.came_at - self._delay_looked < _DELAY_LOOK_S:
            return
        output_s = self._speaker.delay_s
        if output_s is None or not self._streams:
            return
        self._delay_looked = block.came_at
        both = max(0.0, block.came_at - heard_until), output_s
        if self._delay is None or any(
            abs(new - old) > _DELAY_NEWS_S for new, old in zip(both, self._delay, strict=True)
        ):
            self._delay = both
            self.note(DeviceDelay(at=max(0.0, block.came_at - self._start), input=both[0], output=both[1]))

    def _note_opened(self) -> None:
        assert self._devices and self._streams
        (input, output), (ears, mouth) = self._devices, self._streams
        self.note(
            DeviceOpened(
                at=max(0.0, self._clock.now() - self._start),
                input=input.name,
                output=output.name,
                input_rate=ears.rate,
                output_rate=mouth.rate,
            )
        )

    # Waiting ---------------------------------------------------------------------------------

    async def _news(self, until: float) -> None:
        """Wait for the next block, or until then."""
        self._wake = self._clock.alarm(until)
        await self._wake

    def _ring(self) -> None:
        if self._wake and not self._wake.done():
            self._wake.set_result(None)


class _Speaker:
    """What waits to be played: filled by `send` on the loop, emptied by the device's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._queued = 0  # bytes
        self._ahead_s = _LEAST_AHEAD_S
        self._line = 0
        self._speaking = False
        self._dry_at: float | None = None  # since when there is nothing to play in the middle of something
        self._troubles: deque[DeviceTroubled] = deque(maxlen=100)
        self._start_again(16_000, 16_000, 0.0)

    def plug_in(self, rate: int) -> Callable[[int, float, bool], bytes]:
        """A new stream's call back. It runs at `rate` until `run_at` says otherwise."""
        with self._lock:
            self._line += 1
            line = self._line
            self._start_again(rate, rate, 0.0)

        def on_block(size: int, ahead_s: float, ran_dry: bool) -> bytes:
            return self._play(size, ahead_s) if line == self._line else bytes(size)

        return on_block

    def run_at(self, device_rate: int, line_rate: int, delay_s: float) -> None:
        with self._lock:
            if device_rate != self._rate or line_rate != self._line_rate:
                self._start_again(device_rate, line_rate, delay_s)
            self._claimed_s = delay_s

    def _start_again(self, device_rate: int, line_rate: int, delay_s: float) -> None:
        self._rate, self._line_rate = device_rate, line_rate
        self._resampler = Resampler(line_rate, device_rate)
        self._queue.clear()
        self._queued = 0
        self._played = 0  # bytes handed to the device
        self._time = DeviceTime()
        self._claimed_s = delay_s
        self._called_at = self._clock.now()
        self._sent_until: float | None = None
        self._dry_at = None
        self.calls = 0
        self.delay_s: float | None = None

    def silent_s(self) -> float:
        """How long the device has not asked for anything."""
        return self._clock.now() - self._called_at

    def send(self, pcm: bytes) -> float | None:
        """Queue a frame of the line; when its first sample is heard, on our clock. b"" ends what is said."""
        with self._lock:
            if not pcm:
                if self._speaking:
                    self._push(self._resampler.flush())
                    self._speaking = False
                    self._dry_at = None
                return None
            if not self._time.known:
                return self._clock.now() + self._claimed_s
            if not self._speaking or self._dry_at is not None:
                self._begin()
            queued_s = self._seconds(self._queued)
            at = self._time.at(self._seconds(self._played + self._queued))
            # The clocks' figures wobble a little; what is queued without a gap is heard without one.
            if self._sent_until is not None and abs(at - self._sent_until) < FRAME_S / 4:
                at = self._sent_until
            too_far = queued_s > self._ahead_s + _TOO_FAR_AHEAD_S + FRAME_S
            if (too_far and peak(pcm) < _QUIET_PEAK) or queued_s > _MOST_QUEUED_S:
                self._troubles.append(DeviceTroubled(at=at, side="output", what="drift", seconds=-FRAME_S))
                return at
            self._push(self._resampler.push(pcm))
            self._sent_until = at + FRAME_S
            return at

    def troubles(self) -> list[DeviceTroubled]:
        """What has gone wrong since; times on our clock."""
        with self._lock:
            found = list(self._troubles)
            self._troubles.clear()
        return found

    def _begin(self) -> None:
        """The first frame after a silence, or after the speaker ran dry."""
        if self._dry_at is not None:
            self._ahead_s = min(_MOST_AHEAD_S, self._ahead_s + _AHEAD_STEP_S)
            seconds = max(0.0, self._clock.now() - self._dry_at)
            self._troubles.append(DeviceTroubled(at=self._dry_at, side="output", what="underrun", seconds=seconds))
            self._dry_at = None
        else:
            self._resampler = Resampler(self._line_rate, self._rate)
        self._speaking = True
        self._sent_until = None
        lacks_s = self._ahead_s - self._seconds(self._queued)
        if lacks_s > 0:
            self._push(bytes(round(lacks_s * self._rate) * SAMPLE_WIDTH))

    def _push(self, pcm: bytes) -> None:
        if pcm:
            self._queue.append(pcm)
            self._queued += len(pcm)

    def _play(self, size: int, ahead_s: float) -> bytes:
        """The device's thread asks."""
        now = self._clock.now()
        with self._lock:
            if not 0.0 <= ahead_s <= _SANE_DELAY_S:
                ahead_s = self._claimed_s
            self._time.saw(self._seconds(self._played), now + ahead_s)
            self._called_at = now
            self.calls += 1
            self.delay_s = max(0.0, self._time.at(self._seconds(self._played)) - now)
            pcm = self._take(size)
            if len(pcm) < size and self._speaking and self._dry_at is None:
                self._dry_at = now
            self._played += size
            return pcm.ljust(size, b"\0")

    def _take(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size and self._queue:
            first = self._queue.popleft()
            if len(first) > size:
                self._queue.appendleft(first[size:])
                first = first[:size]
            parts.append(first)
            size -= len(first)
            self._queued -= len(first)
        return b"".join(parts)

    def _seconds(self, size: int) -> float:
        return size / SAMPLE_WIDTH / self._rate


def _close(streams: tuple[SoundStream, SoundStream]) -> None:
    for stream in streams:
        stream.close()
