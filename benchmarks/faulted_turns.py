"""Ten thousand turns whose providers fail at random, on the virtual clock: is every one answered, in order?

    python benchmarks/faulted_turns.py [--turns 10000] [--seed 1] [--share 0.3]

A turn is the caller's speech to the STT, its text to the LLM, the answer clause by clause to the TTS, each
through a chain of two providers with retries, timeouts, breakers and a hedge, as `resilience.chain` makes
it. Every request to every provider fails with probability `share`, in any way (`faults.drawn`). The
providers are scripted; the voices speak words as chords, at two speeds, so what the caller hears is read
from the sound itself.

Counted are turns: answered whole, ended early (the LLMs had all failed after a sentence), failed and
noted (all of a chain failed), stuck (no end within two minutes), lost (neither answered nor noted); and
in all that was heard words repeated, skipped and broken (heard in part, where a voice broke off).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from voicectl.audio import PIPELINE_RATE, Pcm, resample
from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.events import Event
from voicectl.pipeline.clauses import ClauseSplitter
from voicectl.pipeline.protocols import (
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    SttStream,
    TextDelta,
    Transcript,
    TtsRequest,
)
from voicectl.resilience.chain import Link, chain
from voicectl.resilience.faults import Faulty, drawn
from voicectl.resilience.wrapping import Place
from voicectl.resilience.wrapping import heard as transcripts_of
from voicectl.spec import Stage
from voicectl.spec.agent import BreakerSpec, HedgeSpec, RetrySpec, SpecModel, TimeoutSpec
from voicectl.standin.tones import BRISK, CALM, Heard, Voice, listen, say, words_of

STUCK_S = 120.0
TURNS_A_CALL = 5
TEXTS = (
    "Sure, one large latte with oat milk. Anything else for you today?",
    "Got it, that comes to seven dollars fifty, please. Would you like your receipt by email?",
    "Of course. It will be ready in about ten minutes, at the end of the bar.",
    "I am sorry, we have no cinnamon rolls left, but there are blueberry muffins and almond croissants.",
)
WORDS = sorted({word for text in TEXTS for word in words_of(text)})


class _Scripted:
    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def aclose(self) -> None:
        """Nothing to free."""


class Hears(_Scripted):
    """Answers a flush with how many frames it has heard, so that lost audio is noticed."""

    def open(self, start: float) -> SttStream:
        return _Turn(self.clock)


class _Turn:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bytes = 0
        self._flushes = 0
        self._due: asyncio.Queue[tuple[float, Transcript] | None] = asyncio.Queue()

    def push(self, pcm: bytes) -> None:
        self._bytes += len(pcm)

    def flush(self) -> None:
        self._flushes += 1
        self._due.put_nowait((self._clock.now() + 0.1, Transcript(str(self._bytes), self._flushes)))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while due := await self._due.get():
            await self._clock.sleep_until(due[0])
            yield due[1]

    async def aclose(self) -> None:
        self._due.put_nowait(None)


class Answers(_Scripted):
    """The text the caller asks for, a token a word. Asked to go on it does, or begins again, by turns."""

    def __init__(self, name: str, clock: Clock) -> None:
        super().__init__(name, clock)
        self._asked = 0

    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Nothing to warm."""

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        self._asked += 1
        text = TEXTS[int(next(one.content for one in reversed(request.messages) if one.role == "user"))]
        said = next((one.content for one in request.messages[1:] if one.role == "assistant"), "")
        if said and self._asked % 3:
            back = said.split()[-2:] if self._asked % 3 == 1 else []
            text = " ".join([*back, text[len(said) :].strip()])
        await self.clock.sleep_until(self.clock.now() + 0.2)
        for word in text.replace(" ", "\0 ").split("\0"):
            await self.clock.sleep_until(self.clock.now() + 0.02)
            yield TextDelta(word)


class Speaks(_Scripted):
    """In pieces of 100 ms, twice as fast as they are heard."""

    def __init__(self, name: str, clock: Clock, voice: Voice, rate: int) -> None:
        super().__init__(name, clock)
        self.rate = rate
        self.voice = voice

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        pcm = say(request.text, self.rate, self.voice)
        await self.clock.sleep_until(self.clock.now() + 0.15)
        for at in range(0, len(pcm), self.rate // 5):
            yield pcm[at : at + self.rate // 5]
            await self.clock.sleep_until(self.clock.now() + 0.05)


@dataclass
class Notes:
    """The events of the run, counted."""

    clock: Clock
    counts: Counter[str] = field(default_factory=Counter[str])

    def now(self) -> float:
        return self.clock.now()

    def note(self, event: Event) -> None:
        self.counts[type(event).__name__] += 1


@dataclass
class Tally:
    """What came of the turns."""

    turns: Counter[str] = field(default_factory=Counter[str])
    words: Counter[str] = field(default_factory=Counter[str])
    events: Counter[str] = field(default_factory=Counter[str])
    examples: list[str] = field(default_factory=list[str])

    def example(self, what: str) -> None:
        if len(self.examples) < 12:
            self.examples.append(what)


class _NoOptions(SpecModel):
    """Nothing to tell."""


def told(name: str, *, first: bool) -> Stage:
    return Stage(
        name,
        None,
        _NoOptions(),
        RetrySpec(attempts=1, first_ms=100),
        TimeoutSpec(first_ms=1500, gap_ms=1000),
        BreakerSpec(failures=5, open_ms=3000),
        HedgeSpec() if first else None,
    )


def links_of(clock: Clock) -> dict[str, list[Link]]:
    made: dict[str, list[Any]] = {
        "stt": [Hears("one", clock), Hears("two", clock)],
        "llm": [Answers("one", clock), Answers("two", clock)],
        "tts": [Speaks("calm", clock, CALM, 16_000), Speaks("brisk", clock, BRISK, 24_000)],
    }
    return {
        stage: [Link(stage, told(one.name, first=not number), one, clock) for number, one in enumerate(every)]
        for stage, every in made.items()
    }


async def one_turn(stages: dict[str, Any], clock: Clock, number: int, tally: Tally) -> str:
    """Make it, and say what came of it."""
    stream: SttStream = stages["stt"].open(0.0)
    for _ in range(50):
        stream.push(bytes(PIPELINE_RATE // 25))
    stream.flush()
    stream.push(bytes(PIPELINE_RATE // 25))
    try:
        async with transcripts_of(stream) as transcripts:
            async for transcript in transcripts:
                if transcript.final:
                    break
            else:
                return "lost"
    finally:
        await stream.aclose()
    if (transcript.flush, transcript.text) != (1, str(50 * (PIPELINE_RATE // 25))):
        tally.example(f"turn {number}: the STT answered {transcript}")
        return "misheard"
    which = number % len(TEXTS)
    request = LlmRequest((Message("system", "Take orders."), Message("user", str(which))))
    splitter = ClauseSplitter()
    clauses: list[str] = []
    spoken: list[tuple[str, bytes]] = []
    outcome = "answered"
    try:
        async with aclosing(stages["llm"].generate(request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextDelta):
                    clauses += splitter.push(chunk.text)
        clauses += splitter.finish()
    except ProviderError:
        outcome = "failed and noted"
        clauses += splitter.finish()
    if outcome == "answered" and words_of("".join(clauses)) != words_of(TEXTS[which]):
        outcome = "ended early"
    for index, clause in enumerate(clauses):
        sound = b""
        try:
            async with aclosing(stages["tts"].synthesize(TtsRequest(clause.strip(), number, index))) as audio:
                async for pcm in audio:
                    sound += pcm
        except ProviderError:
            outcome = "failed and noted"
        spoken.append((clause, sound))
        if outcome == "failed and noted":
            break
    check(spoken, TEXTS[which], number, outcome, tally)
    return outcome


def heard(clause: str, sound: bytes) -> list[Heard]:
    """The words of a clause, as its sound says them; those of a whole rendering are known."""
    for voice, rendering in renderings(clause).items():
        if sound == rendering:
            return [Heard(word, voice, 0.0, 0.0, 1.0) for word in words_of(clause)]
    return listen(sound, 16_000, WORDS)


@lru_cache(maxsize=1000)
def renderings(clause: str) -> dict[str, bytes]:
    """How each voice says it, from its beginning to its end."""
    brisk = resample(Pcm(say(clause, 24_000, BRISK), 24_000), 16_000)
    return {"calm": say(clause, 16_000, CALM), "brisk": brisk.data}


def check(spoken: list[tuple[str, bytes]], text: str, number: int, outcome: str, tally: Tally) -> None:
    """Every word heard once, in order, from the first on."""
    wanted = words_of(text)
    found = [one for clause, sound in spoken for one in heard(clause, sound)]
    at = 0
    previous: Heard | None = None
    for one in found:
        tally.words["heard"] += 1
        same = previous is not None and one.word == previous.word
        if at < len(wanted) and one.word == wanted[at]:
            tally.words["broken"] += not one.whole
            at += 1
        elif not (same and previous and not (one.whole and previous.whole)):  # the other piece of a broken word
            kind = "skipped" if one.word in wanted[at:] else "repeated"
            tally.words[kind] += 1
            tally.example(f"turn {number}: {kind} at {one} in {' '.join(map(str, found))} | wanted {' '.join(wanted)}")
            if kind == "skipped":
                at = wanted.index(one.word, at) + 1
        previous = one
    if outcome == "answered" and at < len(wanted):
        tally.words["skipped"] += len(wanted) - at
        tally.example(f"turn {number}: ends at {wanted[at]} in {' '.join(map(str, found))}")


async def run(clock: Clock, turns: int, seed: int, share: float) -> Tally:
    tally = Tally()
    notes = Notes(clock)
    lots = np.random.default_rng(seed)
    links = links_of(clock)
    faulty = {
        stage: [
            getattr(Faulty(Place(stage, link.place.name), drawn(lots, share), clock), stage)(link.provider)
            for link in every
        ]
        for stage, every in links.items()
    }
    for number in range(turns):
        if number % TURNS_A_CALL == 0:
            stages = {
                stage: chain(every, clock, notes, np.random.default_rng([seed, number]), faulty[stage])
                for stage, every in links.items()
            }
        began = clock.now()
        try:
            async with asyncio.timeout(STUCK_S):
                outcome = await one_turn(stages, clock, number, tally)  # pyright: ignore[reportPossiblyUnboundVariable]
        except TimeoutError:
            outcome = "stuck"
        except ProviderError:
            outcome = "failed and noted"  # nothing was heard of the caller
        tally.turns[outcome] += 1
        await clock.sleep_until(max(clock.now(), began + 5.0))
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    tally.turns["tasks left"] += len(left)
    tally.events = notes.counts
    return tally


def faulted(turns: int, seed: int, share: float) -> Tally:
    return run_on("virtual", lambda clock: run(clock, turns, seed, share))


def main() -> int:
    parser = argparse.ArgumentParser(description="Turns whose providers fail at random.")
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.3, help="of the requests that go wrong")
    asked = parser.parse_args()
    begin = time.perf_counter()
    tally = faulted(asked.turns, asked.seed, asked.share)
    took = time.perf_counter() - begin
    print(f"{asked.turns} turns, {asked.share:.0%} of all requests at fault, in {took:.1f} s")
    for title, counts in (("turns", tally.turns), ("words", tally.words), ("events", tally.events)):
        print(f"{title}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    for example in tally.examples:
        print(example)
    bad = ("stuck", "lost", "misheard", "tasks left")
    return 1 if any(tally.turns[one] for one in bad) or tally.words["repeated"] or tally.words["skipped"] else 0


if __name__ == "__main__":
    sys.exit(main())
