"""Open speakers: is the agent stopped by its own echo, and are callers still heard over it?

    python benchmarks/echo.py --data DATA [--room near|far] [--json FILE]

The calls of `interruptions.py`, on a line whose microphone hears the agent: through a seeded room (40 ms
to the first sound of it, then 160 ms that die away) at -10, -20 and -30 dB of the agent's own level.
`near` is a laptop: 70% of the energy comes straight from the loudspeaker. `far` is a loudspeaker across
a hard room: all of it comes from the walls.
In some calls nobody speaks: an agent that stops has interrupted itself. In the others a recorded person
begins to order in the middle of the answer: an agent that goes on has missed them. Each call is made
without and with echo cancellation (extra `echo`). The agent always knows its own echo by its wave.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import interruptions
import numpy as np
import stimuli
from interruptions import RATE, Bench, ChargingClock, Line, Outcome, SpokenTts, question, rules_for, share, tell
from stimuli import Stimulus

from voicectl.clock import Clock, run_on
from voicectl.pipeline.protocols import Frame, Providers, Transport
from voicectl.providers import CATALOG
from voicectl.providers.scripted import LlmOptions, ScriptedLlm
from voicectl.transports.echo_canceller import EchoCanceller, WithoutEcho

LEVELS_DB = (-10, -20, -30)
DEVICE_S = 0.06  # what a sound card takes both ways
DIRECT_S, ROOM_S, DECAY_S = 0.04, 0.16, 0.025


def room(direct: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of energy 1, of which `direct` comes straight."""
    draw = np.random.default_rng(11)
    tail = np.arange(round(ROOM_S * RATE))
    answer = np.zeros(round(DIRECT_S * RATE) + len(tail))
    answer[-len(tail) :] = draw.standard_normal(len(tail)) * np.exp(-tail / (DECAY_S * RATE))
    answer *= np.sqrt((1 - direct) / (answer**2).sum())
    answer[round(DIRECT_S * RATE)] += np.sqrt(direct)
    return answer


class Room(Line):
    """A line whose microphone hears the agent through the room, and whose device takes its time."""

    level_db: float | None = None
    response = room(0.7)

    def __init__(self, inner: Transport, ends: float, echo_db: float | None, echo_s: float) -> None:
        super().__init__(inner, ends, Room.level_db, ROOM_S + DIRECT_S + DEVICE_S)

    def send(self, pcm: bytes) -> float:
        at = self._inner.send(pcm)
        if not pcm:
            return at
        at += DEVICE_S
        if self._gain:
            first = round(at * self.rate)
            back = np.convolve(np.frombuffer(pcm, "<i2") * self._gain, self.response)
            self._echo[first : first + len(back)] += back
        return at


class Cancelled:
    """The same, with the echo taken out."""

    def __init__(self, inner: Transport, ends: float, echo_db: float | None, echo_s: float) -> None:
        line = Room(inner, ends, echo_db, echo_s)
        self.rate, self.caller = line.rate, line.caller
        self._line = WithoutEcho(line, EchoCanceller(line.rate))

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        async with aclosing(self._line.frames(start)) as frames:
            async for frame in frames:
                yield frame

    def send(self, pcm: bytes) -> float:
        return self._line.send(pcm)

    async def aclose(self) -> None:
        await self._line.aclose()


async def benchmark(asked: argparse.Namespace, clock: Clock) -> list[dict[str, Any]]:
    agent = interruptions.agent_of([])
    charged = ChargingClock(0.08)
    built: dict[str, Any] = {}
    for stage, choice in agent.stages().items():
        if stage not in ("llm", "tts"):
            on = clock if stage == "vad" else charged
            built[stage] = CATALOG.load(stage, choice.provider)(choice.options, choice.model, on)
    speaker = CATALOG.load("tts", "local")(CATALOG.options("tts", "local").model_validate({"threads": 1}), None, clock)
    tts = SpokenTts(speaker, clock, asked.cache)
    providers = Providers(**built, llm=ScriptedLlm(LlmOptions.model_validate({}), None, clock), tts=tts)
    for provider in (*built.values(), tts):
        await provider.start(tell)
    rows: list[dict[str, Any]] = []
    try:
        draw = np.random.default_rng(7)
        nobody = [replace(one, echo_db=None) for one in stimuli.echoes(draw, asked.calls, (-20,))]
        callers = stimuli.orders(draw, asked.data / "orders")[: asked.calls]
        bench = Bench(clock, providers, await question(tts), None)
        rules = rules_for([])
        for level in (None, *LEVELS_DB):
            Room.level_db = level
            for cancels in (False, True):
                interruptions.Line = Cancelled if cancels else Room  # type: ignore[misc,assignment]
                bench.answers.clear()
                Room.level_db = None
                await bench.learn(rules)
                Room.level_db = level
                rows.append(await _row(bench, rules, nobody if level is not None else [], callers, level, cancels))
                tell(json.dumps(rows[-1]))
    finally:
        for provider in (*built.values(), tts):
            await provider.aclose()
    return rows


async def _row(
    bench: Bench, rules: Any, nobody: Sequence[Stimulus], callers: Sequence[Stimulus], level: int | None, cancels: bool
) -> dict[str, Any]:
    async def made(sounds: Sequence[Stimulus]) -> list[Outcome]:
        return [await bench.expose(rules, sound, (7, number)) for number, sound in enumerate(sounds)]

    alone, spoken = await made(nobody), await made(callers)
    stops = sorted(1000 * one.stop_s for one in spoken if one.stopped and one.stop_s is not None)
    return {
        "leak_db": level,
        "cancelled": cancels,
        "interrupted_itself": share(sum(one.stopped for one in alone), len(alone)),
        "fell_quiet_for_itself": share(sum(bool(one.silences_s) for one in alone), len(alone)),
        "missed_callers": share(sum(not one.stopped for one in spoken), len(spoken)),
        "stop_ms_p50": round(stops[len(stops) // 2]) if stops else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="Holds orders/.")
    parser.add_argument("--calls", type=int, default=24, help="Calls of a kind at each level.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "voicectl-stimuli")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--room", choices=("near", "far"), default="near")
    asked = parser.parse_args()
    Room.response = room(0.7 if asked.room == "near" else 0.0)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = run_on("virtual", lambda clock: benchmark(asked, clock))
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
