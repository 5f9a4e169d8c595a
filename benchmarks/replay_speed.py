"""How fast recorded calls are replayed, how that grows with their length, and where the time goes.

    python benchmarks/replay_speed.py [--profile]

Makes its own calls (scripted providers, the callers of recordings/), so it measures voicectl and not a
model. Prints audio seconds per wall second: of one call on one core, opened, replayed and measured;
of an hour of calls on all cores, as `voicectl replay` does it, from the first import to the last
outcome; and of calls of growing length. Other programs on the machine make it slower: CPU seconds
stand beside the wall's.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from voicectl.analysis.metrics import measured
from voicectl.assemble import Engine
from voicectl.bench.callers import load_callers
from voicectl.clock import Clock, run_on
from voicectl.providers import CATALOG
from voicectl.recording import open_recording
from voicectl.replay.call import open_kept, replay
from voicectl.replay.pool import cores
from voicectl.spec import ResolvedAgent, resolve
from voicectl.transports.caller import Caller

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")


def callers(times: int) -> list[Caller]:
    """Everybody in recordings/, saying everything so many times."""
    return [replace(one, utterances=one.utterances * times) for one in load_callers(ROOT / "recordings")]


def make_call(caller: Caller, folder: Path) -> Path:
    agent: ResolvedAgent = resolve("coffee", "scripted", [], env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")

    async def main(clock: Clock) -> None:
        engine = Engine(agent, clock)
        await engine.start(lambda text: None)
        await engine.answer(caller, folder)

    run_on("virtual", main)
    return folder


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """The result, and how many wall and CPU seconds it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def one_call(folder: Path) -> tuple[float, list[tuple[str, float, float]]]:
    """Length of the call; and of opening, replaying and measuring it, wall and CPU seconds: the best of three."""
    best: list[tuple[str, float, float]] = []
    for _ in range(3):
        steps: list[tuple[str, float, float]] = []
        kept, wall, cpu = timed(lambda: open_kept(folder))
        steps.append(("open", wall, cpu))
        now, wall, cpu = timed(lambda kept=kept: replay(kept))
        steps.append(("replay", wall, cpu))
        _, wall, cpu = timed(lambda now=now: measured(now))
        steps.append(("measure", wall, cpu))
        best = min(filter(None, (best, steps)), key=lambda steps: sum(wall for _, wall, _ in steps))
    return open_recording(folder).seconds, best


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast recorded calls are replayed.")
    parser.add_argument("--profile", action="store_true", help="Where the time goes, by function.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        order = next(caller for caller in callers(1) if caller.name == "coffee-order")

        print("one call on one core, by its length:")
        folder = root
        for times in (1, 4, 16, 64):
            long = replace(order, utterances=order.utterances * times)
            folder = make_call(long, root / f"long-{times}")
            seconds, steps = one_call(folder)
            wall, cpu = sum(step[1] for step in steps), sum(step[2] for step in steps)
            parts = ", ".join(f"{name} {wall_s * 1000:.0f} ms" for name, wall_s, _ in steps)
            rate = f"{seconds / wall:5.0f} x real time"
            print(f"  {seconds:7.1f} s of audio in {wall:6.3f} s (CPU {cpu:6.3f} s): {rate}  ({parts})")

        hour: list[Path] = []
        heard = 0.0
        everybody = callers(1)
        while heard < 3600:
            caller = everybody[len(hour) % len(everybody)]
            hour.append(make_call(caller, root / "hour" / f"{len(hour):04}-{caller.name}"))
            heard += open_recording(hour[-1]).seconds
        for processes in sorted({1, cores()}):
            command = [sys.executable, "-m", "voicectl", "replay", str(root / "hour"), "-q", "-j", str(processes)]
            done, wall, _ = timed(
                lambda command=command: subprocess.run(
                    command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
                )
            )
            assert done.returncode == 0, done.stdout + done.stderr
            plural = "es" * (processes != 1)
            what = f"{len(hour)} calls, {heard / 3600:.2f} h of audio, {processes} process{plural}, start to end"
            print(f"{what}: {wall:.1f} s, {heard / wall:.0f} x real time")

        if asked.profile:
            profile = cProfile.Profile()
            kept = open_kept(folder)
            profile.runcall(replay, kept)
            pstats.Stats(profile).sort_stats("tottime").print_stats(18)
    return 0


if __name__ == "__main__":
    sys.exit(main())
