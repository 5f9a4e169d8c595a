"""What one frame of one call costs: CPU time of the engine's hot path, part by part, against its budget.

    python benchmarks/frame_budget.py [--seconds 60] [--repeat 5]

The budget is 250 µs for 20 ms of one call: 80 calls on one core. Each part is measured alone, the
best of some repeats, since other programs only ever make it slower:

    session     frames in and out, endpointing, turn-taking, trace: a scripted call on the virtual clock
    + silero    the VAD of a caller who speaks (a muted line costs next to nothing)
    + recording call.wav, streams and trace written to disk

What an STT's connection costs depends on the vendor's SDK; `bench-peers --steps load` measures the whole.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from voicectl.assemble import Engine, rules_of
from voicectl.audio import FRAME_S, PIPELINE_RATE, Pcm
from voicectl.clock import Clock, run_on
from voicectl.pipeline.session import Session
from voicectl.providers import CATALOG
from voicectl.providers.local_vad import LocalVad, Options
from voicectl.spec import resolve
from voicectl.trace import Trace
from voicectl.transports.caller import AfterAgent, Caller, Utterance
from voicectl.transports.wav import WavTransport

ROOT = Path(__file__).resolve().parents[1]
BUDGET_US = 250.0


def caller(seconds: float) -> Caller:
    """Two seconds of sound after each answer."""
    samples = np.arange(2 * PIPELINE_RATE)
    sound = (6000 * np.sin(2 * np.pi * 330 / PIPELINE_RATE * samples)).astype("<i2").tobytes()
    said = Utterance(Pcm(sound, PIPELINE_RATE), "tone.wav", 0.0, 2.0, "A large latte, please.", start=AfterAgent(0.5))
    return Caller("tone", (said,) * max(1, round(seconds / 6)))


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def best(repeat: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(repeat))


def session_us(seconds: float) -> float:
    agent = resolve("coffee", "scripted", (), env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")

    async def main(clock: Clock) -> float:
        engine = Engine(agent, clock)
        trace = Trace()
        line = WavTransport(caller(seconds), rate=16_000, greeted=True, clock=clock, trace=trace)
        before, began = cpu(), clock.now()
        await Session(rules_of(agent), engine.providers, line, clock, trace).run()
        return (cpu() - before) / ((clock.now() - began) / FRAME_S) * 1e6

    return run_on("virtual", main)


def recorded_us(seconds: float) -> float:
    agent = resolve("coffee", "scripted", (), env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")

    async def main(clock: Clock) -> float:
        with tempfile.TemporaryDirectory() as folder:
            engine = Engine(agent, clock)
            await engine.start(lambda _: None)
            before, began = cpu(), clock.now()
            await engine.answer(caller(seconds), Path(folder) / "call")
            return (cpu() - before) / ((clock.now() - began) / FRAME_S) * 1e6

    return run_on("virtual", main)


def silero_us(seconds: float) -> float:
    async def main(clock: Clock) -> float:
        vad = LocalVad(Options(), None, clock)
        await vad.start(lambda _: None)
        stream = vad.open()
        frames = round(seconds / FRAME_S)
        noise = np.random.default_rng(1).integers(-3000, 3000, (frames, round(PIPELINE_RATE * FRAME_S)))
        pieces = [piece.astype("<i2").tobytes() for piece in noise]
        before = cpu()
        for piece in pieces:
            stream.push(piece)
        return (cpu() - before) / frames * 1e6

    return run_on("wall", main)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio")
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    session = best(asked.repeat, lambda: session_us(asked.seconds))
    recorded = best(asked.repeat, lambda: recorded_us(asked.seconds))
    silero = best(asked.repeat, lambda: silero_us(asked.seconds))
    rows = [("session", session), ("+ recording", recorded - session), ("+ silero", silero)]
    for name, microseconds in rows:
        print(f"{name:12} {microseconds:6.1f} µs a frame, {microseconds / BUDGET_US:5.1%} of the budget")
    whole = recorded + silero
    calls = FRAME_S * 1e6 / whole
    print(f"{'together':12} {whole:6.1f} µs of {BUDGET_US:.0f}: {calls:.0f} calls a core, before the vendors' SDKs")


if __name__ == "__main__":
    main()
