"""When has the caller finished? Each endpointing strategy on recorded speech: how long it waits, whom it cuts off.

    python benchmarks/turn_taking.py --orders DIR [--noise WAV] [--csv FILE] [--svg FILE]

DIR holds WAVs of one whole turn each. Every turn is heard clean, over a telephone (300-3400 Hz at
8 kHz, µ-law) and in the noise of WAV. What the VAD, the STT and the end-of-turn model say of each
pause is asked once and kept in the cache; then voicectl's own Endpointer is run over it with every
setting of every strategy, the evidence arriving as late as it does in a call.

A turn is cut off when an end is decided after its speech began and before its last voiced sample.
The delay is from that sample to the decision; of a turn that was cut off, to the decision after it.
The table has the delay where 5% of the turns are cut off, between the settings on either side, or at
the fastest setting where even that cuts off fewer; "±" is 95% of resampled callers.

`--hesitate` is a stress test, not recorded behaviour: the same turns with silence put into the
gaps they have between words, of lengths that were chosen, not observed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.audible import active_dbfs, segments, speech_threshold_dbfs
from voicectl.audio import FRAME_S, PIPELINE_RATE, Pcm, mulaw_table, read_wav, resample, rms_dbfs
from voicectl.bench.callers import load_callers
from voicectl.clock import Clock, run_on
from voicectl.pipeline.endpointing import Ended, Endpointer, EndpointingRules, Fact, Paused, Resumed, Started
from voicectl.providers.local_stt import LocalStt
from voicectl.providers.local_stt import Options as SttOptions
from voicectl.providers.local_vad import LocalVad
from voicectl.providers.local_vad import Options as VadOptions
from voicectl.providers.smart_turn import Options as TurnOptions
from voicectl.providers.smart_turn import SmartTurn
from voicectl.weights import cache_dir

ROOT = Path(__file__).resolve().parents[1]
Samples = NDArray[np.int16]

CONDITIONS = ("clean", "telephone", "noise 20 dB", "noise 10 dB", "noise 5 dB")
LEAD_S, TAIL_S = 0.5, 3.0
PREROLL_S = 0.3  # how much before the VAD's onset the STT hears
CUT_SHARE = 0.05
NEVER_S = 60.0
PAUSES_MS = (64, 96, 160)  # how long a pause may be before it is noticed
VERSION = 1  # of what is kept in the cache


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as it is heard, and when it really begins and ends."""

    caller: str
    pcm: Pcm
    voiced_from_s: float
    voiced_until_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """What is known of a pause when it is noticed."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Case:
    """One turn with all evidence: `pauses[pause_s][window]` of the pause noticed in that window."""

    caller: str
    voiced_from_s: float
    voiced_until_s: float
    probabilities: tuple[float, ...]
    pauses: dict[str, dict[str, Pause]]


# The turns ---------------------------------------------------------------------------------------


def load(folder: Path, hesitate: bool) -> list[Turn]:
    turns: list[Turn] = []
    for caller in load_callers(folder):
        for said in caller.utterances:
            if said.backchannel:
                continue
            x = resample(said.pcm, PIPELINE_RATE).array()
            first, last = (round(at * PIPELINE_RATE) for at in (said.voiced_from_s, said.voiced_until_s))
            if hesitate:
                x, last = hesitant(x, first, last)
            lead, tail = (np.zeros(round(s * PIPELINE_RATE), np.int16) for s in (LEAD_S, TAIL_S))
            sound = Pcm(np.concatenate([lead, x, tail]).tobytes(), PIPELINE_RATE)
            turns.append(Turn(caller.name, sound, LEAD_S + first / PIPELINE_RATE, LEAD_S + last / PIPELINE_RATE))
    return turns


def hesitant(x: Samples, first: int, last: int) -> tuple[Samples, int]:
    """The turn with its gaps of 100 ms and more made longer, by 0.3 to 1.1 s, the room's sound repeated."""
    spoken = segments(x, PIPELINE_RATE, 0.1, threshold_dbfs=speech_threshold_dbfs(x, PIPELINE_RATE))
    pieces: list[Samples] = []
    at = added = 0
    for number, (one, other) in enumerate(itertools.pairwise(spoken)):
        if not first <= one.last < other.first <= last:
            continue
        gap = x[one.last + 1 : other.first]
        longer = round((0.3, 0.5, 0.8, 1.1)[(number + len(x)) % 4] * PIPELINE_RATE)
        middle = one.last + 1 + len(gap) // 2
        quiet = gap[len(gap) // 4 : len(gap) - len(gap) // 4]
        filling = np.resize(np.concatenate([quiet, quiet[::-1]]), longer)
        pieces += [x[at:middle], filling]
        at = middle
        added += longer
    return np.concatenate([*pieces, x[at:]]), last + added


def heard(turn: Turn, condition: str, noise: Pcm | None) -> Pcm:
    x = turn.pcm.array()
    if condition == "clean":
        return turn.pcm
    if condition == "telephone":
        return Pcm(telephone(x).tobytes(), PIPELINE_RATE)
    assert noise
    snr_db = float(condition.split()[1])
    speech = active_dbfs(x, PIPELINE_RATE, threshold_dbfs=speech_threshold_dbfs(x, PIPELINE_RATE))
    gain = 10 ** ((speech - snr_db - rms_dbfs(noise.data)) / 20)
    shift = int(hashlib.sha256(turn.caller.encode()).hexdigest(), 16) % noise.samples
    background = np.resize(np.roll(noise.array(), -shift), len(x)) * gain
    return Pcm(np.clip(np.rint(x + background), -32768, 32767).astype("<i2").tobytes(), PIPELINE_RATE)


def telephone(x: Samples) -> Samples:
    """300-3400 Hz, 8 kHz, µ-law, and back."""
    spectrum = np.fft.rfft(x)
    hz = np.fft.rfftfreq(len(x), 1 / PIPELINE_RATE)
    spectrum[(hz < 300) | (hz > 3400)] = 0
    narrow = np.clip(np.rint(np.fft.irfft(spectrum, len(x))), -32768, 32767).astype("<i2")
    line = resample(Pcm(narrow.tobytes(), PIPELINE_RATE), 8000).array().astype(np.int32)
    levels = np.sort(np.array(mulaw_table(), np.int32))
    above = np.clip(np.searchsorted(levels, line), 1, len(levels) - 1)
    nearer = np.where(line - levels[above - 1] < levels[above] - line, above - 1, above)
    coded = levels[nearer].astype("<i2")
    back = resample(Pcm(coded.tobytes(), 8000), PIPELINE_RATE).array()
    return np.resize(np.concatenate([back, np.zeros(max(0, len(x) - len(back)), np.int16)]), len(x)).astype("<i2")


# The evidence ------------------------------------------------------------------------------------


class Witnesses:
    """The local models, asked about one turn at a time."""

    def __init__(self, clock: Clock) -> None:
        self.vad = LocalVad(VadOptions(), None, clock)
        self.stt = LocalStt(SttOptions(partial_ms=0), None, clock)
        self.model = SmartTurn(TurnOptions(), None, clock)

    async def start(self) -> None:
        for each in (self.vad, self.stt, self.model):
            await each.start(lambda _: None)

    async def ask(self, turn: Turn, pcm: Pcm, pauses_s: Sequence[float]) -> Case:
        probabilities = tuple(self.vad.open().push(pcm.data))
        pauses: dict[str, dict[str, Pause]] = {}
        for pause_s in pauses_s:
            known = pauses[str(pause_s)] = {}
            for window, start, _ in noticed(probabilities, self.vad.window_s, pause_s):
                until = 2 * round(window * self.vad.window_s * PIPELINE_RATE)
                known[str(window)] = await self._pause(pcm.data[:until], start)
        return Case(turn.caller, turn.voiced_from_s, turn.voiced_until_s, probabilities, pauses)

    async def _pause(self, pcm: bytes, start: float) -> Pause:
        listening = self.model.open()
        listening.push(pcm)
        score = await listening.score(start)
        stream = self.stt.open(start)
        stream.push(pcm[2 * max(0, round((start - PREROLL_S) * PIPELINE_RATE)) :])
        stream.flush()
        text = ""
        async for transcript in stream:
            text = transcript.text
            await stream.aclose()
        return Pause(text, score)


def noticed(probabilities: Sequence[float], window_s: float, pause_s: float) -> Iterator[tuple[int, float, float]]:
    """Each pause: the window (counted from 1) in which it is noticed, the turn's start, when it began."""
    endpointer = Endpointer(EndpointingRules(pause_s=pause_s, silence_s=NEVER_S), window_s)
    start = 0.0
    for window, probability in enumerate(probabilities, 1):
        for fact in endpointer.feed(probability):
            if isinstance(fact, Started):
                start = fact.at
            elif isinstance(fact, Paused):
                yield window, start, fact.at


def collect(
    turns: Sequence[Turn], condition: str, noise: Pcm | None, pauses_s: Sequence[float], cache: Path
) -> list[Case]:
    """The evidence of all turns under one condition, asked for where it is not in the cache."""
    sounds = [heard(turn, condition, noise) for turn in turns]
    key = hashlib.sha256(json.dumps([VERSION, list(pauses_s)]).encode())
    for turn, sound in zip(turns, sounds, strict=True):
        key.update(sound.data + repr((turn.voiced_from_s, turn.voiced_until_s)).encode())
    file = cache / f"{key.hexdigest()[:16]}.json"
    if file.is_file():
        return [_case(kept) for kept in json.loads(file.read_text("utf-8"))]

    async def main(clock: Clock) -> list[Case]:
        witnesses = Witnesses(clock)
        await witnesses.start()
        cases: list[Case] = []
        for turn, sound in zip(turns, sounds, strict=True):
            cases.append(await witnesses.ask(turn, sound, pauses_s))
            print(f"\r{condition}: {len(cases)} of {len(turns)} turns heard", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return cases

    cases = run_on("wall", main)
    cache.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([_kept(case) for case in cases]), "utf-8")
    return cases


def _kept(case: Case) -> dict[str, Any]:
    pauses = {
        pause_s: {window: [one.text, one.score] for window, one in known.items()}
        for pause_s, known in case.pauses.items()
    }
    return {
        "caller": case.caller,
        "voiced": [case.voiced_from_s, case.voiced_until_s],
        "probabilities": case.probabilities,
        "pauses": pauses,
    }


def _case(kept: dict[str, Any]) -> Case:
    pauses = {
        pause_s: {window: Pause(*one) for window, one in known.items()} for pause_s, known in kept["pauses"].items()
    }
    voiced_from_s, voiced_until_s = kept["voiced"]
    return Case(kept["caller"], voiced_from_s, voiced_until_s, tuple(kept["probabilities"]), pauses)


# A strategy at work ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delays:
    """How long after a pause was noticed its evidence is there."""

    text_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy did with one turn. `delay_s` is below 0 when the last end was decided before the
    true one, and None when none was."""

    caller: str
    delay_s: float | None
    cut: bool
    false_pauses: int


def decide(case: Case, rules: EndpointingRules, question: str, delays: Delays, window_s: float) -> Outcome:
    endpointer = Endpointer(rules, window_s)
    known = case.pauses[str(rules.pause_s)]
    due: list[tuple[float, str, Pause]] = []
    ended: list[float] = []
    pauses = 0
    for window, probability in enumerate(case.probabilities, 1):
        # A window is complete when the frame of the line that ends it has come.
        now = math.ceil(window * window_s / FRAME_S - 1e-9) * FRAME_S
        facts: list[tuple[float, Fact]] = []
        while due and due[0][0] <= now:
            at, kind, pause = due.pop(0)
            found = endpointer.hear(pause.text, question) if kind == "text" else endpointer.score(pause.score)
            facts += [(at, fact) for fact in found]
        facts += [(now, fact) for fact in endpointer.feed(probability)]
        for at, fact in facts:
            if isinstance(fact, Ended):
                ended.append(at)
                due = []
            elif isinstance(fact, Started | Resumed):
                due = []
            elif isinstance(fact, Paused):
                pauses += at < case.voiced_until_s
                if pause := known.get(str(window)):
                    due = sorted(
                        [(at + delays.text_s, "text", pause), (at + delays.audio_s, "audio", pause)],
                        key=lambda one: one[0],
                    )
    cut = any(case.voiced_from_s < at < case.voiced_until_s for at in ended)
    after = [at for at in ended if at >= case.voiced_until_s] or ended[-1:]
    return Outcome(case.caller, after[0] - case.voiced_until_s if after else None, cut, pauses)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A row of the table: its rules at every setting of its knob, the fastest first, and as they are chosen."""

    name: str
    settings: tuple[tuple[str, EndpointingRules], ...]
    chosen: EndpointingRules


def strategies(base: EndpointingRules) -> list[Strategy]:
    """The knob is `silence_s`, the wait without evidence; the shortest wait keeps its share of it, the
    longest stays."""
    share = base.min_silence_s / base.silence_s
    silences_ms = (96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512, 640, 800, 1000, 1300)
    return [
        Strategy(
            " + ".join(names),
            tuple(
                (
                    f"silence {ms} ms",
                    replace(base, strategies=names, silence_s=ms / 1000, min_silence_s=share * ms / 1000),
                )
                for ms in silences_ms
            ),
            replace(base, strategies=names),
        )
        for names in (
            ("silence",),
            ("adaptive",),
            ("text",),
            ("audio",),
            ("text", "audio"),
            ("adaptive", "text"),
            ("adaptive", "text", "audio"),
        )
    ]


# Numbers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """One setting: share of turns cut off, and the delay's percentiles in ms."""

    setting: str
    cut: float
    p50: float
    p95: float


def point(setting: str, outcomes: Sequence[Outcome]) -> Point:
    delays = [NEVER_S if one.delay_s is None else one.delay_s for one in outcomes]
    p50, p95 = (1000 * float(np.percentile(delays, share)) for share in (50, 95))
    return Point(setting, sum(one.cut for one in outcomes) / len(outcomes), p50, p95)


def at_share(points: Sequence[Point], share: float = CUT_SHARE) -> tuple[float, float] | None:
    """P50 and P95 where `share` is cut off, on the line between two settings; at the fastest setting
    where that cuts off fewer; None where every setting cuts off more."""
    best: tuple[float, float] | None = None
    before: Point | None = None
    for here in sorted(points, key=lambda one: one.p50):
        if here.cut <= share:
            if before and before.cut > here.cut:
                part = (share - here.cut) / (before.cut - here.cut)
                best = here.p50 + part * (before.p50 - here.p50), here.p95 + part * (before.p95 - here.p95)
            else:
                best = here.p50, here.p95
            break
        before = here
    return best


def interval(table: Sequence[Sequence[Outcome]], settings: Sequence[str], times: int, seed: int) -> float | None:
    """Half of the 95% range of the P50 at CUT_SHARE when callers are drawn again."""
    callers = sorted({one.caller for one in table[0]})
    places = {name: [i for i, one in enumerate(table[0]) if one.caller == name] for name in callers}
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(times):
        drawn = [i for pick in rng.integers(0, len(callers), len(callers)) for i in places[callers[pick]]]
        points = [point(name, [row[i] for i in drawn]) for name, row in zip(settings, table, strict=True)]
        if (best := at_share(points)) is not None:
            found.append(best[0])
    if len(found) < max(1, 0.9 * times):
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(high - low) / 2


# What is shown -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """One strategy under one condition."""

    strategy: str
    condition: str
    points: tuple[Point, ...]
    best: tuple[float, float] | None
    plus_minus: float | None
    chosen: Point


def curve(
    strategy: Strategy, condition: str, cases: Sequence[Case], question: str, delays: Delays, times: int
) -> Curve:
    window_s = LocalVad.window_s
    table = [[decide(case, rules, question, delays, window_s) for case in cases] for _, rules in strategy.settings]
    names = [name for name, _ in strategy.settings]
    points = tuple(point(name, row) for name, row in zip(names, table, strict=True))
    chosen = point("chosen", [decide(case, strategy.chosen, question, delays, window_s) for case in cases])
    return Curve(strategy.name, condition, points, at_share(points), interval(table, names, times, seed=1), chosen)


def show(curves: Sequence[Curve], conditions: Sequence[str], base: EndpointingRules) -> None:
    def at_five(one: Curve) -> str:
        spread = "" if one.plus_minus is None else f" ±{one.plus_minus:.0f}"
        return f"{one.best[0]:.0f}/{one.best[1]:.0f}{spread}" if one.best else "always more"

    def chosen(one: Curve) -> str:
        return f"{one.chosen.cut:.1%} {one.chosen.p50:.0f}/{one.chosen.p95:.0f}"

    waits = "/".join(f"{1000 * wait:.0f}" for wait in (base.min_silence_s, base.silence_s, base.max_silence_s))
    for title, cell in (
        (f"delay P50/P95 in ms at {CUT_SHARE:.0%} cut off; ± for the P50", at_five),
        (f"share cut off, delay P50/P95 in ms, with waits of {waits} ms", chosen),
    ):
        print(f"\n{title}")
        print(f"{'':26}" + "".join(f"{condition:>20}" for condition in conditions))
        for name in dict.fromkeys(one.strategy for one in curves):
            row = [one for one in curves if one.strategy == name]
            print(f"{name:26}" + "".join(f"{cell(one):>20}" for one in row))


def write_csv(path: Path, curves: Sequence[Curve]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(("strategy", "condition", "setting", "cut_off_share", "delay_p50_ms", "delay_p95_ms"))
        for one in curves:
            for at in one.points:
                out.writerow(
                    (one.strategy, one.condition, at.setting, f"{at.cut:.4f}", f"{at.p50:.0f}", f"{at.p95:.0f}")
                )


_COLOURS = ("#222222", "#888888", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
_WIDTH, _HEIGHT, _EDGE = 300, 240, 42
_MOST_MS, _MOST_CUT = 1000.0, 0.4


def write_svg(path: Path, curves: Sequence[Curve], conditions: Sequence[str]) -> None:
    """One panel a condition: delay P50 to the right, share cut off upwards."""
    names = list(dict.fromkeys(one.strategy for one in curves))
    width, height = _WIDTH * len(conditions), _HEIGHT + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           'font-size="11"><rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    for column, condition in enumerate(conditions):
        left, right = column * _WIDTH + _EDGE, (column + 1) * _WIDTH - 8
        top, bottom = 24, _HEIGHT - _EDGE

        def x(ms: float, left: int = left, right: int = right) -> float:
            return left + min(ms, _MOST_MS) / _MOST_MS * (right - left)

        def y(cut: float, top: int = top, bottom: int = bottom) -> float:
            return bottom - min(cut, _MOST_CUT) / _MOST_CUT * (bottom - top)

        out.append(f'<text x="{left}" y="14">{condition}</text>')
        out.append(f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="black"/>')
        limit = y(CUT_SHARE)
        out.append(f'<path d="M{left} {limit:.1f}H{right}" stroke="#bbbbbb" stroke-dasharray="3"/>')
        for ms in range(0, round(_MOST_MS) + 1, 250):
            out.append(f'<text x="{x(ms):.0f}" y="{bottom + 14}" text-anchor="middle">{ms}</text>')
        for percent in range(0, round(100 * _MOST_CUT) + 1, 10):
            out.append(f'<text x="{left - 4}" y="{y(percent / 100) + 4:.0f}" text-anchor="end">{percent}%</text>')
        out.append(f'<text x="{(left + right) / 2:.0f}" y="{bottom + 28}" text-anchor="middle">delay P50, ms</text>')
        for one in (one for one in curves if one.condition == condition):
            line = " ".join(f"{x(at.p50):.1f},{y(at.cut):.1f}" for at in one.points)
            colour = _COLOURS[names.index(one.strategy) % len(_COLOURS)]
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for number, name in enumerate(names):
        colour = _COLOURS[number % len(_COLOURS)]
        out.append(f'<text x="{_EDGE + number * 180}" y="{height - 10}" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*out, "</svg>\n"]), "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--orders", type=Path, required=True, help="folder of WAVs, or of callers")
    parser.add_argument("--noise", type=Path, help="a WAV of noise; without it the noise conditions are left out")
    parser.add_argument("--condition", action="append", choices=CONDITIONS, help="only this; may be repeated")
    parser.add_argument("--question", default="What would you like to order?", help="what the caller was asked")
    parser.add_argument("--pause-ms", type=int, choices=PAUSES_MS, default=96)
    parser.add_argument("--min-ms", type=int, default=250, help="the second table's shortest wait")
    parser.add_argument("--silence-ms", type=int, default=500, help="its wait where nothing is known")
    parser.add_argument("--max-ms", type=int, default=1500, help="the longest wait, of both tables")
    parser.add_argument("--text-ms", type=int, default=80, help="from the pause to its transcript")
    parser.add_argument("--audio-ms", type=int, default=115, help="from the pause to the end-of-turn model's score")
    parser.add_argument("--part", type=int, choices=(1, 2), help="only every other caller: to tune on one half")
    parser.add_argument("--hesitate", action="store_true", help="a stress test: longer gaps between the words")
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--cache", type=Path, default=cache_dir(dict(os.environ)) / "turn-taking")
    parser.add_argument("--csv", type=Path, help="write every setting of every curve")
    parser.add_argument("--svg", type=Path, help="draw the curves")
    asked = parser.parse_args(arguments)

    noise = resample(read_wav(asked.noise), PIPELINE_RATE) if asked.noise else None
    conditions = [one for one in asked.condition or CONDITIONS if noise or not one.startswith("noise")]
    turns = load(asked.orders, asked.hesitate)
    base = EndpointingRules(
        pause_s=asked.pause_ms / 1000,
        min_silence_s=asked.min_ms / 1000,
        silence_s=asked.silence_ms / 1000,
        max_silence_s=asked.max_ms / 1000,
    )
    delays = Delays(asked.text_ms / 1000, asked.audio_ms / 1000)
    curves: list[Curve] = []
    for condition in conditions:
        cases = collect(turns, condition, noise, [ms / 1000 for ms in PAUSES_MS], asked.cache)
        if asked.part:
            cases = cases[asked.part - 1 :: 2]
        describe(condition, cases, base.pause_s)
        for strategy in strategies(base):
            curves.append(curve(strategy, condition, cases, asked.question, delays, asked.resamples))
            print(f"\r{condition}: {strategy.name:30}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    show(curves, conditions, base)
    if asked.csv:
        write_csv(asked.csv, curves)
    if asked.svg:
        write_svg(asked.svg, curves, conditions)
    return 0


def describe(condition: str, cases: Sequence[Case], pause_s: float) -> None:
    """How much there is to be told apart: without pauses inside the turns, no strategy can be wrong."""
    inside: list[float] = []
    callers: set[str] = set()
    for case in cases:
        for window, _, began in noticed(case.probabilities, LocalVad.window_s, pause_s):
            voiced = [
                number
                for number, one in enumerate(case.probabilities)
                if number >= window and one >= EndpointingRules().threshold
            ]
            if case.voiced_from_s < window * LocalVad.window_s < case.voiced_until_s and voiced:
                inside.append(voiced[0] * LocalVad.window_s - began)
                callers.add(case.caller)
    longest = f", the longest {1000 * max(inside):.0f} ms" if inside else ""
    print(
        f"{condition}: {len(cases)} turns of {len({case.caller for case in cases})} callers; "
        f"{len(inside)} pauses inside them, by {len(callers)} callers{longest}"
    )


if __name__ == "__main__":
    sys.exit(main())
