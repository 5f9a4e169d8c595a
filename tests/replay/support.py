"""Calls on the virtual clock with scripted providers, kept as recordings: small, quick, always the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voicectl.assemble import Engine
from voicectl.audio import Pcm
from voicectl.clock import Clock, run_on
from voicectl.providers import CATALOG
from voicectl.spec import ResolvedAgent, resolve
from voicectl.transports.caller import AfterAgent, Caller, DuringAgent, Utterance

RATE = 16_000
AGENTS = """\
version: 1
agents:
  coffee:
    instructions: |
      You take orders on the phone.
      You are friendly.
    greeting: Hi! What can I get you?
    vad: {provider: scripted}
    stt: {provider: scripted}
    llm: {provider: scripted}
    tts: {provider: scripted}
    turn: {endpointing: {strategy: silence, silence_ms: 500, pause_ms: 130}}
"""


def buzz(*stretches: tuple[float, float], seconds: float, rate: int = RATE) -> Pcm:
    """As loud as speech from..until, silent otherwise."""
    samples = np.zeros(round(seconds * rate), "<i2")
    for first, last in stretches:
        at = slice(round(first * rate), round(last * rate))
        samples[at] = 6000 * (-1) ** np.arange(len(samples[at]))
    return Pcm(samples.tobytes(), rate)


def utterance(
    name: str,
    *stretches: tuple[float, float],
    text: str,
    start: AfterAgent | DuringAgent | None = None,
    backchannel: bool = False,
) -> Utterance:
    first, last = stretches[0][0], stretches[-1][1]
    sound = buzz(*stretches, seconds=last + 0.15)
    return Utterance(sound, name, first, last, text, start=start or AfterAgent(0.7), backchannel=backchannel)


ORDER = Caller(
    "order",
    (
        utterance("1.wav", (0.1, 1.3), text="A large latte, please."),
        utterance("2.wav", (0.1, 0.7), text="With oat milk."),
        utterance("3.wav", (0.1, 0.9), text="That is all."),
    ),
)
HASTY = Caller(
    "hasty",
    (
        # A pause of 450 ms in the middle, and then a barge-in.
        utterance("1.wav", (0.1, 0.9), (1.35, 2.0), text="I would like a mocha."),
        utterance("2.wav", (0.1, 1.0), text="Make it a latte.", start=DuringAgent(0.6)),
        utterance("3.wav", (0.1, 0.4), text="Mhm.", start=DuringAgent(0.5), backchannel=True),
        utterance("4.wav", (0.1, 0.6), text="Thanks."),
    ),
)
CALLERS = (ORDER, HASTY)


def agent_for(folder: Path, *overrides: str) -> ResolvedAgent:
    path = folder / "agents.yaml"
    path.write_text(AGENTS, encoding="utf-8")
    given = ["clock=virtual", *overrides]
    return resolve(None, None, given, env={}, catalog=CATALOG, agents_file=path)


def make_calls(folder: Path, *overrides: str, callers: Sequence[Caller] = CALLERS) -> list[Path]:
    """One call from each caller, kept below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    agent = agent_for(folder, *overrides)

    async def main(clock: Clock) -> list[Path]:
        engine = Engine(agent, clock)
        await engine.start(lambda text: None)
        paths = [folder / f"{number:04}-{caller.name}" for number, caller in enumerate(callers, 1)]
        for path, caller in zip(paths, callers, strict=True):
            await engine.answer(caller, path)
        return paths

    return run_on(agent.clock, main)
