"""A sound server of a test's own: PulseAudio without hardware, whose recording holds both sides of a call.

One sink "wire" of two channels: left is what the caller says, right what the agent says, so that one
recording of its monitor is the truth about both. The microphone hears the left one only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voicectl.audio import Pcm, resample

Samples = npt.NDArray[np.int16]
WIRE_RATE = 48_000
MODULES = (
    "module-native-protocol-unix",
    f"module-null-sink sink_name=wire rate={WIRE_RATE} channels=2 channel_map=front-left,front-right",
    "module-remap-sink sink_name=caller master=wire channels=1 channel_map=mono master_channel_map=front-left remix=no",
    "module-remap-sink sink_name=spk master=wire channels=1 channel_map=mono master_channel_map=front-right remix=no",
    "module-remap-source source_name=mic master=wire.monitor channels=1 channel_map=mono"
    " master_channel_map=front-left remix=no",
)


def missing() -> str | None:
    """What this machine lacks for it."""
    lacks = [program for program in ("pulseaudio", "pactl", "pacat", "paplay") if shutil.which(program) is None]
    lacks += [] if find_library("portaudio") else ["PortAudio"]
    return f"there is no {', '.join(lacks)}" if lacks else None


class SoundServer:
    def __init__(self, folder: Path) -> None:
        self.env: Mapping[str, str] = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--log-level=error"]
        for module in MODULES:
            command += ["-L", module]
        self._process = subprocess.Popen(command, env=self.env, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while self._control("set-default-source", "mic") or self._control("set-default-sink", "spk"):
            assert self._process.poll() is None, "the sound server ended"
            assert time.monotonic() < deadline, "the sound server does not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def play(self, wav: Path) -> subprocess.Popen[bytes]:
        """The caller says this."""
        return subprocess.Popen(["paplay", "--latency-msec=20", "-d", "caller", str(wav)], env=self.env)

    @contextmanager
    def recording(self, path: Path) -> Generator[None]:
        """Both sides, as the server mixes them, until the end of the block. Its small latency keeps the
        server's blocks small: what is in a block is all in the air at once."""
        command = ["pacat", "--record", "-d", "wire.monitor", "--raw", "--format=s16le", f"--rate={WIRE_RATE}"]
        with path.open("wb") as file:
            process = subprocess.Popen([*command, "--channels=2", "--latency-msec=5"], env=self.env, stdout=file)
            try:
                yield
            finally:
                time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                process.wait()

    def _control(self, *words: str) -> int:
        return subprocess.call(["pactl", *words], env=self.env, stderr=subprocess.DEVNULL)


def read(path: Path, rate: int) -> tuple[Samples, Samples]:
    """Caller and agent of a recording of the wire."""
    raw = np.frombuffer(path.read_bytes()[: path.stat().st_size // 4 * 4], "<i2").reshape(-1, 2)
    left, right = (np.frombuffer(resample(Pcm(raw[:, side].tobytes(), WIRE_RATE), rate).data, "<i2") for side in (0, 1))
    return left, right


def lay_over(truth: Samples, call: Samples) -> int:
    """By how many samples `truth` begins before `call`: where they fit best."""
    size = 1 << (len(truth) + len(call)).bit_length()
    spectrum = np.fft.rfft(truth.astype(float), size) * np.conj(np.fft.rfft(call.astype(float), size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return best if best < len(truth) else best - size


def cut(sound: Samples, start: int, length: int) -> Samples:
    """`length` samples from `start` on, silence where there are none."""
    padded = np.concatenate([np.zeros(max(0, -start), np.int16), sound[max(0, start) :], np.zeros(length, np.int16)])
    return padded[:length]
