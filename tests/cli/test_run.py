"""`voicectl run` on a real sound server: what is reported is what the server itself recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from cli.sound_server import SoundServer, cut, lay_over, missing, read
from voicectl.analysis.audible import last_voiced
from voicectl.analysis.definitions import Measures, measure
from voicectl.events import AgentInterrupted
from voicectl.recording import Recording, open_recording

PROJECT = Path(__file__).parents[2]
ORDERS = PROJECT / "recordings" / "coffee-order"
pytestmark = [pytest.mark.wall, pytest.mark.skipif(missing() is not None, reason=missing() or "")]


@pytest.fixture
def server(tmp_path: Path) -> Generator[SoundServer]:
    folder = tmp_path / "sound"
    folder.mkdir(mode=0o700)
    server = SoundServer(folder)
    server.start()
    yield server
    server.stop()


class Run:
    """A `voicectl run --json` and what it has said so far."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        command = [sys.executable, "-m", "voicectl", "run", "--json", *arguments]
        self.process = subprocess.Popen(
            command, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self.err = ""
        self._changed = threading.Condition()
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, name: str, count: int = 1, *, within_s: float = 60.0) -> dict[str, Any]:
        """The `count`-th event of that name."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["event"] == name]

        with self._changed:
            came = self._changed.wait_for(lambda: len(found()) >= count, within_s)
            assert came, f"no {name} number {count}; {[event['event'] for event in self.events][-20:]} {self.err}"
            return found()[count - 1]

    def interrupt(self) -> float:
        """Ctrl-C; how long it took to end."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        took = time.monotonic() - begun
        self.end()
        return took

    def end(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(30)
        for reader in self._readers:
            reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                with self._changed:
                    self.events.append(json.loads(line))
                    self._changed.notify_all()

    def _read_err(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stream:
            self.err = stream.read()


def tell(*words: object) -> None:
    """For `pytest -s`: what was seen."""
    sys.stderr.write(f"\n{' '.join(map(str, words))}\n")


Start = Callable[..., Run]


@pytest.fixture
def start(server: SoundServer) -> Generator[Start]:
    """Starts runs on the server; none outlives the test."""
    runs: list[Run] = []

    def begin(*arguments: str) -> Run:
        runs.append(Run(dict(server.env), *arguments))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.end()


def call_of(out: Path) -> Recording:
    return open_recording(out / "0001-microphone")


def measured(call: Recording) -> Measures:
    return measure(call.events, call.rate, call.left, call.right)


def truth_of(call: Recording, wire: Path) -> Measures:
    """The same call, measured by the same definitions in the server's own recording."""
    left, right = read(wire, call.rate)
    start = lay_over(left, call.left)
    return measure(call.events, call.rate, cut(left, start, len(call.left)), cut(right, start, len(call.left)))


@pytest.mark.models
def test_the_waits_reported_are_those_in_the_servers_own_recording(
    server: SoundServer, start: Start, tmp_path: Path
) -> None:
    wire = tmp_path / "wire.raw"
    with server.recording(wire):
        run = start("coffee", "--out", str(tmp_path / "run"))
        run.wait_for("PlayoutFinished", within_s=180)
        for number, file in enumerate(("01.wav", "02.wav", "03.wav"), 1):
            server.play(ORDERS / file).wait(30)
            run.wait_for("PlayoutFinished", number + 1)
            time.sleep(1.0)
        run.interrupt()
    call = call_of(tmp_path / "run")
    ours, truth = measured(call), truth_of(call, wire)
    waits = [one.wait / 1000 for one in ours.exchanges]
    true_waits = [one.wait / 1000 for one in truth.exchanges]
    delay = run.wait_for("DeviceDelay")
    tell("reported", waits, "in the server's recording", true_waits, "device", delay)
    assert len(waits) == 3
    apart = sorted(abs(wait - true) for wait, true in zip(waits, true_waits, strict=True))
    # What the sound server says of its own delay sways where the machine is busy.
    assert apart[1] <= 20.0 and apart[2] <= 60.0, apart
    said = " ".join(one.transcript for one in ours.exchanges).lower()
    assert "large latte" in said and "almond milk" in said and "double shot" in said and "brown sugar" in said
    assert "of each wait the device takes" in run.err


@pytest.mark.models
def test_who_speaks_over_the_agent_stops_the_speaker(server: SoundServer, start: Start, tmp_path: Path) -> None:
    wire = tmp_path / "wire.raw"
    with server.recording(wire):
        run = start("coffee", "--out", str(tmp_path / "run"))
        run.wait_for("PlayoutStarted", within_s=180)
        time.sleep(0.4)
        server.play(ORDERS / "01.wav").wait(30)
        run.wait_for("AgentInterrupted")
        run.wait_for("PlayoutFinished")
        run.interrupt()
    call = call_of(tmp_path / "run")
    (cut_off,) = [event for event in call.events if isinstance(event, AgentInterrupted)]
    spoke = round(cut_off.speech_at * call.rate)
    left, right = read(wire, call.rate)
    begins = lay_over(left, call.left)
    ours, truth = (
        ((last_voiced(sound, call.rate, 0, spoke + 2 * call.rate) or 0) - spoke) / call.rate
        for sound in (call.right, cut(right, begins, len(call.left)))
    )
    tell("the speaker fell silent", ours, "s after the caller began, in the server's recording", truth)
    assert 0.0 < truth < 1.0
    assert ours == pytest.approx(truth, abs=0.04)


QUICK = """\
version: 1
agents:
  quick:
    instructions: Take orders.
    greeting: Hi! What would you like to drink today, a coffee or perhaps a cup of tea?
    vad: {provider: scripted}
    stt: {provider: scripted}
    llm: {provider: scripted}
    tts: {provider: scripted}
"""


@pytest.fixture
def quick(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "agents.yaml").write_text(QUICK)
    return ("--file", str(tmp_path / "agents.yaml"), "--out", str(tmp_path / "run"))


def test_ctrl_c_ends_the_call_at_once_and_keeps_it(start: Start, tmp_path: Path, quick: tuple[str, ...]) -> None:
    run = start(*quick)
    run.wait_for("PlayoutStarted")
    time.sleep(0.5)
    took = run.interrupt()
    tell("ended after", took)
    assert run.process.returncode == 130
    call = call_of(tmp_path / "run")
    assert call.sealed
    assert call.cut is None
    assert type(call.events[-1]).__name__ == "CallEnded"
    assert "call kept in" in run.err
    assert took < 1.5  # 0.3 s where nothing else runs


def test_ctrl_c_while_it_opens_ends_it_too(start: Start, tmp_path: Path, quick: tuple[str, ...]) -> None:
    run = start(*quick)
    while not (tmp_path / "run").exists():
        time.sleep(0.01)
    assert run.interrupt() < 1.5
    assert run.process.returncode in (130, -signal.SIGINT), "which a shell shows as 130"
    assert "Traceback" not in run.err


def test_a_server_that_dies_and_comes_back_is_told_and_the_call_goes_on(
    server: SoundServer, start: Start, quick: tuple[str, ...]
) -> None:
    run = start(*quick)
    run.wait_for("PlayoutFinished")
    server.stop()
    run.wait_for("DeviceLost")
    server.start()
    run.wait_for("DeviceOpened", 2)
    run.interrupt()
    assert run.process.returncode == 130


def test_a_run_replays(start: Start, tmp_path: Path, quick: tuple[str, ...]) -> None:
    run = start(*quick)
    run.wait_for("PlayoutFinished")
    run.interrupt()
    command = [sys.executable, "-m", "voicectl", "replay", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "there is no microphone: the system has no input device. Plug one in"),
        (["--input", "rode"], "there is no microphone"),
    ],
)
def test_without_a_sound_server_it_says_what_to_do(
    tmp_path: Path, quick: tuple[str, ...], arguments: list[str], says: str
) -> None:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "none"), "HOME": str(tmp_path)}
    run = Run(env, *quick, *arguments)
    assert run.end() == 3
    (line,) = [line for line in run.err.splitlines() if line.startswith("voicectl: error:")]
    assert says in line
