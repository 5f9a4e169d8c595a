"""How long a stand-in takes for what. Draws from seeded distributions, or repeats what was measured.

Milliseconds in what people write, seconds inside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from voicectl.errors import RecordingError, UsageError
from voicectl.spec.suggest import did_you_mean
from voicectl.streams import LlmAsked, LlmSaid, Streams, SttFlushed, SttHeard, TtsAsked, TtsSpoke

Wait = Literal["stt", "llm", "llm-gap", "tts", "tts-gap", "s2s", "s2s-gap"]
"""From being asked to the first piece (of an answer, a voice, speech to speech) or to the transcript;
`-gap`: from one piece to the next."""

WAITS: tuple[Wait, ...] = get_args(Wait)
Draw = Callable[[], float]
"""The next delay, seconds."""

_Z99 = 2.3263478740408408  # the standard normal's P99


def fixed(seconds: float) -> Draw:
    return lambda: seconds


def in_turn(seconds: Sequence[float]) -> Draw:
    """One after the other, and again from the first."""
    endless = itertools.cycle(tuple(seconds))
    return lambda: next(endless)


def lognormal(p50_s: float, p99_s: float, rng: np.random.Generator) -> Draw:
    """A heavy tail, as answers over a network have: half take less than the P50, one in a hundred more than the P99."""
    sigma = math.log(p99_s / p50_s) / _Z99
    return lambda: p50_s * math.exp(sigma * float(rng.standard_normal()))


def one_of(seconds: Sequence[float], rng: np.random.Generator) -> Draw:
    """Any of them, each as likely."""
    values = tuple(seconds)
    return lambda: values[int(rng.integers(len(values)))]


class Delays:
    """The delay of each kind; what is not given stays what it is without."""

    def __init__(self, draws: Mapping[Wait, Draw] | None = None) -> None:
        self._draws = dict(draws or {})

    def draw(self, wait: Wait) -> float | None:
        """Seconds; None where nothing is said of it."""
        draw = self._draws.get(wait)
        return draw() if draw else None


def recorded_delays(streams: Streams) -> dict[Wait, Draw]:
    """As long as the providers of a recorded call took, in the order they did, and then again: transcripts
    from their flush, first tokens and first audio from their request, and each piece from the one before.

    Raises:
        RecordingError: nobody was asked for anything in it.
    """
    waits: dict[Wait, list[float]] = {}
    since: dict[tuple[str, int, int], float] = {}
    before: dict[tuple[str, int], float] = {}

    def piece(stage: Literal["llm", "tts"], chunk: LlmSaid | TtsSpoke) -> None:
        asked = since.pop((stage, chunk.id, 0), None)
        if asked is not None:
            waits.setdefault(stage, []).append(chunk.at - asked)
        elif (stage, chunk.id) in before:
            gap: Wait = "llm-gap" if stage == "llm" else "tts-gap"
            waits.setdefault(gap, []).append(chunk.at - before[stage, chunk.id])
        before[stage, chunk.id] = chunk.at

    for chunk in streams.chunks:
        match chunk:
            case SttFlushed():
                since["stt", chunk.id, chunk.flush] = chunk.at
            case SttHeard() if ("stt", chunk.id, chunk.flush) in since:
                waits.setdefault("stt", []).append(chunk.at - since.pop(("stt", chunk.id, chunk.flush)))
            case LlmAsked():
                since["llm", chunk.id, 0] = chunk.at
            case TtsAsked():
                since["tts", chunk.id, 0] = chunk.at
            case LlmSaid():
                piece("llm", chunk)
            case TtsSpoke():
                piece("tts", chunk)
            case _:
                pass
    if not waits:
        raise RecordingError("holds no answer of any provider")
    return {wait: in_turn(seconds) for wait, seconds in waits.items()}


def parse_delays(texts: Sequence[str], seed: int = 0) -> dict[Wait, Draw]:
    """What people write: `stt=100`, `llm=lognormal:200,3000` (P50, P99), `tts=any:80,90,400`,
    `llm=turn:200,250` (in this order); milliseconds. The same seed draws the same delays.

    Raises:
        UsageError: it cannot be read.
    """
    draws: dict[Wait, Draw] = {}
    for text in texts:
        name, _, value = text.partition("=")
        wait = name.strip()
        if wait not in WAITS:
            raise unknown("delay", wait, WAITS)
        draws[wait] = _parse(text, value.strip(), np.random.default_rng([seed, WAITS.index(wait)]))
    return draws


def unknown(what: str, name: str, known: Sequence[str]) -> UsageError:
    return UsageError(f"unknown {what} '{name}'", hint=did_you_mean(name, known, known_as=f"{what.capitalize()}s"))


def _parse(text: str, value: str, rng: np.random.Generator) -> Draw:
    kind, colon, numbers = value.partition(":")
    try:
        given = [float(number) / 1000 for number in (numbers if colon else kind).split(",")]
    except ValueError:
        given = []
    sound = bool(given) and all(0 <= one <= 600 for one in given)
    if sound and not colon and len(given) == 1:
        return fixed(given[0])
    if sound and kind == "lognormal" and len(given) == 2 and 0 < given[0] < given[1]:
        return lognormal(given[0], given[1], rng)
    if sound and kind == "any":
        return one_of(given, rng)
    if sound and kind == "turn":
        return in_turn(given)
    raise UsageError(
        f"cannot read the delay '{text}'",
        hint="Write it like stt=100, llm=lognormal:200,3000 (P50,P99), tts=any:80,90,400 or tts=turn:80,90, in ms",
    )
