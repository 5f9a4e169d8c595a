"""Kills writers of recordings with SIGKILL at random instants, and looks at what they leave behind.

    python tools/kill_test.py [--times 200] [--seed 1] [--clock virtual|wall]

For each kill: every folder that can be seen opens, holds everything that its writer had been told was
kept, and replays up to its cut to exactly what an undisturbed call holds (on the wall clock: to the
same turns and words). On the virtual clock a call is written hundreds of times faster than it is
spoken, so nearly every kill falls between two writes, or into one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from voicectl.assemble import Engine
from voicectl.audio import Pcm, WavWriter, read_wav_channels
from voicectl.clock import Clock, ClockKind, run_on
from voicectl.providers import CATALOG
from voicectl.recording import find_recordings, open_recording
from voicectl.replay.check import Options, check
from voicectl.spec import ResolvedAgent, resolve
from voicectl.streams import StreamLog
from voicectl.trace import Trace, event_line
from voicectl.transports.caller import AfterAgent, Caller, DuringAgent, Utterance

RATE = 16_000
AGENTS = """\
version: 1
agents:
  killed:
    instructions: Answer the phone.
    greeting: Hello.
    vad: {provider: scripted}
    stt: {provider: scripted}
    llm: {provider: scripted}
    tts: {provider: scripted}
"""


def buzz(*stretches: tuple[float, float], seconds: float) -> Pcm:
    """Sound from..until, as loud as speech."""
    samples = np.zeros(round(seconds * RATE), "<i2")
    for first, last in stretches:
        at = slice(round(first * RATE), round(last * RATE))
        samples[at] = 6000 * (-1) ** np.arange(len(samples[at]))
    return Pcm(samples.tobytes(), RATE)


CALLER = Caller(
    "ada",
    (
        Utterance(buzz((0.1, 0.9), (1.2, 1.8), seconds=2.0), "1.wav", 0.1, 1.8, "A latte, please."),
        Utterance(buzz((0.1, 0.9), seconds=1.0), "2.wav", 0.1, 0.9, "Make it large.", start=DuringAgent(0.6)),
        Utterance(buzz((0.1, 0.7), seconds=0.9), "3.wav", 0.1, 0.7, "That is all.", start=AfterAgent(0.5)),
    ),
)


def agent_of(folder: Path, clock: ClockKind) -> ResolvedAgent:
    path = folder / "agents.yaml"
    path.write_text(AGENTS, encoding="utf-8")
    return resolve(None, None, [f"clock={clock}"], env={}, catalog=CATALOG, agents_file=path)


def write_calls(agent: ResolvedAgent, folder: Path, calls: int) -> None:
    async def main(clock: Clock) -> None:
        engine = Engine(agent, clock)
        await engine.start(lambda text: None)
        for number in range(1, calls + 1):
            await engine.answer(CALLER, folder / f"{number:04}")

    run_on(agent.clock, main)


def tell_what_is_kept(pipe: int) -> None:
    """Make this process say what it believes to be kept, right after it was."""

    def after(owner: Any, name: str, word: Callable[[Any], str]) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def told(self: Any, what: Any) -> Any:
            result = plain(self, what)
            os.write(pipe, word(what).encode() + b"\n")
            return result

        setattr(owner, name, told)

    def line(event: Any) -> str:
        return event_line(event).strip()

    def size(pcm: Any) -> str:
        return str(len(pcm))

    after(Trace, "append", lambda event: f"t {line(event)}")
    after(StreamLog, "write", lambda chunk: f"s {line(chunk)}")
    after(WavWriter, "write", lambda pcm: f"w {size(pcm)}")
    after(Engine, "_for_call", lambda trace: "call")


def kill_one(agent: ResolvedAgent, folder: Path, delay_s: float) -> list[str]:
    """Fork a writer, kill it, and return what it had said."""
    reader, pipe = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        tell_what_is_kept(pipe)
        write_calls(agent, folder, 1_000_000)
    os.close(pipe)
    said = os.read(reader, 1)  # it is writing
    until = time.monotonic() + delay_s
    os.set_blocking(reader, False)
    while time.monotonic() < until:
        try:
            said += os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(0.0001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.set_blocking(reader, True)
    while piece := os.read(reader, 1 << 20):
        said += piece
    os.close(reader)
    return said.decode().split("\n")[:-1]


def check_folder(folder: Path, told: list[str], whole: Path | None) -> str:
    """Raises AssertionError unless the recording holds what was told, and replays up to its cut.

    Returns what became of it: "sealed", or where it was cut.
    """
    recording = open_recording(folder)
    kept = [event_line(event).strip() for event in recording.events]
    lines = (folder / "streams.jsonl").read_text(encoding="utf-8").split("\n")[1:-1]
    for kind, held in (("t", kept), ("s", lines)):
        said = [word[2:] for word in told if word[0] == kind]
        assert held[: len(said)] == said, f"{len(said)} lines told, {len(held)} held"
    written = sum(int(word[2:]) for word in told if word[0] == "w")
    assert len(recording.left) * 4 >= written, f"{len(recording.left)} samples, {written} bytes told"
    if whole:
        for name in ("trace.jsonl", "streams.jsonl", "streams.pcm"):
            assert (whole / name).read_bytes().startswith((folder / name).read_bytes()), f"{name} is no beginning"
        _, channels = read_wav_channels(whole / "call.wav")
        for mine, theirs in zip((recording.left, recording.right), channels, strict=True):
            assert (mine == theirs[: len(mine)]).all(), "call.wav is no beginning"
    outcome = check(folder, Options())
    assert outcome.state == "ok", outcome
    return "sealed" if recording.sealed else "cut in a line" if "middle" in (recording.cut or "") else "cut"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill writers of recordings at random instants.")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=["virtual", "wall"], default="virtual")
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    found: Counter[str] = Counter()
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        agent = agent_of(root, asked.clock)
        whole = root / "whole"
        write_calls(agent, whole, 1)
        length = open_recording(whole / "0001").seconds
        for number in range(asked.times):
            folder = root / f"killed-{number}"
            folder.mkdir()
            told = kill_one(agent, folder, draw.uniform(0, 0.15 if asked.clock == "virtual" else length))
            starts = [index for index, word in enumerate(told) if word == "call"]
            recordings = list(find_recordings(folder))
            assert len(recordings) in (len(starts), len(starts) + 1), (recordings, len(starts))
            for index, recording in enumerate(recordings):
                mine = told[starts[index] + 1 :] if index < len(starts) else []
                mine = mine[: mine.index("call")] if "call" in mine else mine
                what = check_folder(recording, mine, whole / "0001" if asked.clock == "virtual" else None)
                if index == len(recordings) - 1:
                    found[what] += 1
                    seconds.append(open_recording(recording).seconds)
                else:
                    assert what == "sealed", what
            if not recordings:
                found["not begun"] += 1
    cuts = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
    print(f"{asked.times} kills on the {asked.clock} clock of calls of {length:.1f} s: {cuts}; every folder opened,")
    print(f"lost nothing it had kept, and replayed up to its cut (at {min(seconds):.1f} to {max(seconds):.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
