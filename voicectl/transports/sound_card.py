"""The one door to PortAudio: what devices there are, and streams that call back with sound.

Everything is s16le mono here, at a rate that the device takes. A stream calls back from a thread of
its own and says for each block how far it is from the air: what comes in was spoken so long ago,
what goes out is heard so much later. `SoundCard` is what tests put a card of their own behind.

PortAudio calls can block for ever when a sound server has died, so nobody calls this on the event
loop: `microphone` does it in a thread that nobody waits for at the end.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from voicectl.audio import SAMPLE_WIDTH
from voicectl.errors import TransportError

Side = Literal["input", "output"]
OnInput = Callable[[bytes, float, bool], None]
"""Told a block, how many seconds ago its first sample was spoken, and whether sound was lost before it."""
OnOutput = Callable[[int, float, bool], bytes]
"""Asked for so many bytes that are heard so many seconds from now; and whether the device ran dry."""

_OTHER_RATES = (48_000, 44_100, 32_000, 24_000, 16_000, 8_000)
_BLOCK_S = 0.02  # a frame: smaller blocks do not come sooner through a sound server


@dataclass(frozen=True, slots=True)
class Device:
    """One device as the system names it; `number` counts all devices from 0."""

    number: int
    name: str
    inputs: int
    outputs: int
    rate: int
    default_input: bool = False
    default_output: bool = False

    def channels(self, side: Side) -> int:
        return self.inputs if side == "input" else self.outputs

    def is_default(self, side: Side) -> bool:
        return self.default_input if side == "input" else self.default_output


class SoundStream(Protocol):
    """A running stream."""

    rate: int
    delay_s: float
    """What the device claims as its delay, for blocks that do not say."""

    def alive(self) -> bool: ...
    def close(self) -> None: ...


class SoundCard(Protocol):
    """All of the system's sound."""

    def devices(self) -> list[Device]:
        """What there is now; looks anew. No stream may be open.

        Raises:
            TransportError: there is no PortAudio.
        """
        ...

    def open_input(self, device: Device, rate: int, on_block: OnInput) -> SoundStream:
        """Start listening, at `rate` if the device can.

        Raises:
            TransportError: it cannot be opened; says why and what to do.
        """
        ...

    def open_output(self, device: Device, rate: int, on_block: OnOutput) -> SoundStream:
        """Start playing; see `open_input`."""
        ...


def choose(devices: Sequence[Device], side: Side, wanted: str | None) -> Device:
    """The device by its number or a part of its name; without either the system's own choice.

    Raises:
        TransportError: there is none, or several fit.
    """
    what = "microphone" if side == "input" else "speaker"
    able = [device for device in devices if device.channels(side) > 0]
    if not able:
        raise TransportError(
            f"there is no {what}: the system has no {side} device",
            hint="Plug one in, or start the sound server (PulseAudio, PipeWire); on Linux you must be in the group"
            " 'audio'. Then: voicectl doctor",
        )
    if wanted is None:
        return next((device for device in able if device.is_default(side)), able[0])
    if wanted.isdecimal():
        found = [device for device in able if device.number == int(wanted)]
    else:
        found = [device for device in able if device.name.lower() == wanted.lower()] or [
            device for device in able if wanted.lower() in device.name.lower()
        ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{device.number} {device.name}" for device in found or able)
    said = f"several {side} devices are called" if found else f"no {side} device is called"
    raise TransportError(f"{said} '{wanted}'", hint=f"Name one of: {names}")


class PortAudio:
    """The real thing, through the package sounddevice.

    Args:
        hold_s: how much sound a device may hold back (None: its own "high"; through a sound server
            "low" loses blocks). More bridges longer stalls of a busy machine, and is in every wait.
    """

    def __init__(self, hold_s: float | None = None) -> None:
        self._sd: Any = None
        self._hold: float | str = hold_s or "high"

    def devices(self) -> list[Device]:
        sd = self._load()
        try:
            while sd._initialized:  # PortAudio looks for devices only when it starts
                sd._terminate()
            sd._initialize()
            listed = list(sd.query_devices())
            default_input, default_output = (int(number) for number in sd.default.device)
        except sd.PortAudioError as error:
            raise TransportError(f"the sound system cannot be used: {_why(error)}", hint=_DOCTOR) from error
        return [
            Device(
                number,
                str(one["name"]),
                int(one["max_input_channels"]),
                int(one["max_output_channels"]),
                round(one["default_samplerate"]),
                number == default_input,
                number == default_output,
            )
            for number, one in enumerate(listed)
        ]

    def open_input(self, device: Device, rate: int, on_block: OnInput) -> SoundStream:
        def make(sd: Any, rate: int, channels: int) -> Any:
            def call_back(data: Any, frames: int, time: Any, status: Any) -> None:
                pcm = bytes(data)
                if channels > 1:
                    pcm = _first_channel(pcm, channels)
                on_block(pcm, time.currentTime - time.inputBufferAdcTime, bool(status.input_overflow))

            return sd.RawInputStream(callback=call_back, **self._settings(device, rate, channels))

        return self._open("input", device, rate, make)

    def open_output(self, device: Device, rate: int, on_block: OnOutput) -> SoundStream:
        def make(sd: Any, rate: int, channels: int) -> Any:
            def call_back(data: Any, frames: int, time: Any, status: Any) -> None:
                delay_s = time.outputBufferDacTime - time.currentTime
                pcm = on_block(frames * SAMPLE_WIDTH, delay_s, bool(status.output_underflow))
                data[:] = _on_all_channels(pcm, channels) if channels > 1 else pcm

            return sd.RawOutputStream(callback=call_back, **self._settings(device, rate, channels))

        return self._open("output", device, rate, make)

    def _open(self, side: Side, device: Device, rate: int, make: Callable[[Any, int, int], Any]) -> SoundStream:
        """At the rate asked for, else at one the device takes; mono, else two channels."""
        sd = self._load()
        rates = list(dict.fromkeys((rate, device.rate, *_OTHER_RATES)))
        error: Any = None
        for channels in (1, 2)[: device.channels(side)]:
            for one in rates:
                try:
                    stream = make(sd, one, channels)
                except sd.PortAudioError as refused:
                    error = refused
                    if _code(refused) == _CHANNELS:
                        break
                    if _code(refused) != _RATE:
                        raise _cannot_open(side, device, refused) from refused
                    continue
                try:
                    stream.start()
                except sd.PortAudioError as refused:
                    stream.close(ignore_errors=True)
                    raise _cannot_open(side, device, refused) from refused
                return _PortAudioStream(stream, one)
        raise _cannot_open(side, device, error) from error

    def _settings(self, device: Device, rate: int, channels: int) -> dict[str, Any]:
        return {
            "device": device.number,
            "samplerate": rate,
            "channels": channels,
            "dtype": "int16",
            "blocksize": round(rate * _BLOCK_S),
            "latency": self._hold,
        }

    def _load(self) -> Any:
        if self._sd is None:
            try:
                import sounddevice
            except OSError:
                raise TransportError("PortAudio is not installed", hint=_INSTALL) from None
            # At the end it would wait for a sound system that may never answer; streams are closed before.
            atexit.unregister(vars(sounddevice).get("_exit_handler", atexit))
            self._sd = sounddevice
            _hush_alsa()
        return self._sd


class _PortAudioStream:
    def __init__(self, stream: Any, rate: int) -> None:
        self._stream = stream
        self.rate = rate
        self.delay_s = float(stream.latency)

    def alive(self) -> bool:
        return bool(self._stream.active)

    def close(self) -> None:
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)


_INSTALL = (
    "Run: apt install libportaudio2 (Debian, Ubuntu), dnf install portaudio (Fedora), brew install portaudio (macOS)"
)
_DOCTOR = "Run: voicectl doctor"
_CHANNELS, _RATE, _BUSY = -9998, -9997, -9985


_hushed: list[Any] = []


def _hush_alsa() -> None:
    """ALSA prints about every device it tries and does not find: twenty lines before anybody has spoken."""
    import ctypes

    if _hushed:
        return
    try:
        alsa = ctypes.CDLL("libasound.so.2")
        quiet = ctypes.CFUNCTYPE(None)(lambda: None)
        alsa.snd_lib_error_set_handler(quiet)
    except (OSError, AttributeError):  # no ALSA here
        return
    _hushed.extend((alsa, quiet))  # it is called as long as the process lives


def _cannot_open(side: Side, device: Device, error: Any) -> TransportError:
    what = "microphone" if side == "input" else "speaker"
    where = f"{what} '{device.name}'"
    code, why = _code(error), _why(error)
    lower = why.lower()
    if code == _BUSY or "busy" in lower or "unavailable" in lower:
        return TransportError(
            "is in use by another program, or has gone",
            where=where,
            hint=f"Close that program, or choose another: --{side}",
        )
    if "permission" in lower or "access denied" in lower or "not permitted" in lower:
        return TransportError(
            "may not be used",
            where=where,
            hint="Allow it in the system's privacy settings; on Linux: sudo usermod -aG audio $USER, and log in again",
        )
    return TransportError(f"cannot be opened: {why}", where=where, hint=f"Choose another: --{side}. {_DOCTOR}")


def _code(error: Any) -> int | None:
    return error.args[1] if error is not None and len(error.args) > 1 else None


def _why(error: Any) -> str:
    """PortAudio's words, and the host's where it has any."""
    said = str(error.args[0]).rstrip(".") if error is not None and error.args else "it said nothing"
    host = error.args[2] if error is not None and len(error.args) > 2 else None
    if isinstance(host, tuple) and len(host) > 2 and host[2]:  # pyright: ignore[reportUnknownArgumentType]
        said += f" ({host[2]})"
    return said[:1].lower() + said[1:]


def _first_channel(pcm: bytes, channels: int) -> bytes:
    import numpy as np

    return np.frombuffer(pcm, "<i2")[::channels].tobytes()


def _on_all_channels(pcm: bytes, channels: int) -> bytes:
    import numpy as np

    return np.repeat(np.frombuffer(pcm, "<i2"), channels).tobytes()
