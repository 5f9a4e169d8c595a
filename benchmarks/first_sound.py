"""From the moment a pause is noticed to the first sound: where the local agent's time goes, on this machine.

    python benchmarks/first_sound.py [--callers PATH]... [--count N] [--variants NAME,...] [--seed N]

Callers speak in real time to the real VAD, STT, LLM and TTS of the coffee agent; who has finished
is known, so no end-of-turn strategy is in the figures. Each caller is heard by every variant, in
turn, so that a busy machine is unfair to none. A row is a stage: P50 and P95 over all callers, ms.

    pause       the caller's last voiced sample -> the VAD's pause: the STT is asked
    final       -> the text
    token       -> the LLM's first token
    clause      -> the first clause
    audio       -> its audio
    sound       -> its first audible sample on the line
    first sound  all of these but the pause
    hole        the longest time without sound between two clauses, beyond half a second

Variants: `now` (as in a call) · `nothing-ahead` (no partials: nothing is heard or read before the
pause) · `no-voice-cache` (no clause is spoken from memory).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voicectl.analysis.audible import segments
from voicectl.audio import FRAME_S, PIPELINE_RATE, SAMPLE_WIDTH, resample
from voicectl.bench.callers import load_callers
from voicectl.clock import Clock, run_on
from voicectl.events import ClauseReady, Event, LlmFirstToken, TtsFirstAudio
from voicectl.pipeline.agent_turn import answer, speak
from voicectl.pipeline.endpointing import Endpointer, EndpointingRules, Paused
from voicectl.pipeline.playout import Playout
from voicectl.pipeline.protocols import LlmRequest, Message, SttStream
from voicectl.providers import CATALOG, local_llm, local_stt, local_tts, local_vad
from voicectl.spec import resolve
from voicectl.transports.caller import Utterance

ROOT = Path(__file__).resolve().parents[1]
RUN_UP_S = 3.0
"""What a caller says before that is given to the STT at once."""
HOLE_S = 0.5
"""No pause within an answer is meant to be longer."""

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "now": ({}, {}),
    "nothing-ahead": ({"partial_ms": 0}, {}),
    "no-voice-cache": ({}, {"cache_mb": 0}),
}
STAGES = ("pause", "final", "token", "clause", "audio", "sound", "first sound", "hole")


@dataclass(slots=True)
class Notes:
    """What an agent turn notes, and when."""

    clock: Clock
    at: dict[type[Event], float] = field(default_factory=dict[type[Event], float])

    def now(self) -> float:
        return self.clock.now()

    def note(self, event: Event) -> None:
        self.at.setdefault(type(event), event.at)


@dataclass(frozen=True, slots=True)
class Agent:
    """One variant's parts."""

    stt: local_stt.LocalStt
    llm: local_llm.LocalLlm
    tts: local_tts.LocalTts
    vad: local_vad.LocalVad
    opening: tuple[Message, ...]


class Reader:
    """Lets the LLM read what it will be asked, as `Session` does."""

    def __init__(self, agent: Agent, clock: Clock) -> None:
        self._agent = agent
        self._clock = clock
        self._said = ""
        self._task: asyncio.Task[None] | None = None

    def read(self, text: str) -> None:
        self._said = text
        if not self._task or self._task.done():
            self._task = self._clock.spawn(self._read(), name="reading ahead")

    async def _read(self) -> None:
        read: str | None = None
        while read != self._said:
            read = self._said
            await self._agent.llm.warm((*self._agent.opening, Message("user", read)))

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])


async def turn(utterance: Utterance, agent: Agent, clock: Clock, rng: np.random.Generator) -> dict[str, float] | None:
    """One caller's words and the answer to them: the time of each stage; None when nothing was heard."""
    sound = resample(utterance.pcm, PIPELINE_RATE).data
    hush = rng.normal(0, 2, PIPELINE_RATE).astype("<i2").tobytes()
    spoken_until = round(utterance.voiced_until_s * PIPELINE_RATE) * SAMPLE_WIDTH
    pcm = sound[: spoken_until + SAMPLE_WIDTH * PIPELINE_RATE // 10] + hush
    size = round(FRAME_S * PIPELINE_RATE) * SAMPLE_WIDTH
    run_up = max(0, spoken_until - round(RUN_UP_S * PIPELINE_RATE) * SAMPLE_WIDTH) // size * size
    stream, vad = agent.stt.open(0.0), agent.vad.open()
    endpointer = Endpointer(EndpointingRules(), agent.vad.window_s)
    for probability in vad.push(pcm[:run_up]):
        endpointer.feed(probability)
    reader = Reader(agent, clock)
    reader.read("")
    stream.push(pcm[:run_up])
    final: asyncio.Future[tuple[str, float]] = asyncio.get_running_loop().create_future()
    listening = clock.spawn(listen(stream, reader, final, clock), name="stt")
    start = clock.now() - run_up / SAMPLE_WIDTH / PIPELINE_RATE
    over = start + spoken_until / SAMPLE_WIDTH / PIPELINE_RATE
    asked = 0.0
    for begin in range(run_up, len(pcm) - size, size):
        await clock.sleep_until(start + (begin + size) / SAMPLE_WIDTH / PIPELINE_RATE)
        stream.push(pcm[begin : begin + size])
        facts = [fact for p in vad.push(pcm[begin : begin + size]) for fact in endpointer.feed(p)]
        if any(isinstance(fact, Paused) for fact in facts) and begin + size > spoken_until:
            asked = clock.now()
            stream.flush()
            break
    if not asked:
        listening.cancel()
        await reader.stop()
        return None
    text, heard = await final
    await reader.stop()
    notes = Notes(clock)
    line, played_from = await reply(text, agent, notes, clock)
    listening.cancel()
    found = segments(line, PIPELINE_RATE, 0.01, 0, None)
    if not found:
        return None
    marks = [over, asked, heard, *(notes.at[kind] for kind in (LlmFirstToken, ClauseReady, TtsFirstAudio))]
    marks.append(played_from + found[0].first / PIPELINE_RATE)
    stages = dict(zip(STAGES, np.diff(marks).tolist(), strict=False))
    stages["first sound"] = marks[-1] - asked
    silences = [(after.first - before.last) / PIPELINE_RATE for before, after in itertools.pairwise(found)]
    stages["hole"] = max(0.0, max(silences, default=0.0) - HOLE_S)
    return {name: 1000 * seconds for name, seconds in stages.items()}


async def listen(stream: SttStream, reader: Reader, final: asyncio.Future[tuple[str, float]], clock: Clock) -> None:
    async for transcript in stream:
        if transcript.final:
            final.set_result((transcript.text, clock.now()))
            await stream.aclose()
            return
        reader.read(transcript.text)


async def reply(text: str, agent: Agent, notes: Notes, clock: Clock) -> tuple[NDArray[np.int16], float]:
    """Answer; what was on the line, and since when."""
    playout = Playout(PIPELINE_RATE, FRAME_S)
    playout.begin(held=False)
    request = LlmRequest((*agent.opening, Message("user", text)))
    clauses = answer(request, reply=0, llm=agent.llm, first_clause_words=5, notes=notes)
    speaking = clock.spawn(
        speak(clauses, reply=0, tts=agent.tts, playout=playout, line_rate=PIPELINE_RATE, clock=clock, notes=notes),
        name="reply",
    )
    silence = bytes(round(FRAME_S * PIPELINE_RATE) * SAMPLE_WIDTH)
    start, frames = clock.now(), list[bytes]()
    while not speaking.done():
        await clock.sleep_until(start + len(frames) * FRAME_S)
        frames.append(playout.pull() or silence)
    await speaking
    return np.frombuffer(b"".join(frames), "<i2"), start


async def measure(clock: Clock, utterances: list[Utterance], names: list[str], seed: int) -> None:
    spec = resolve("coffee", None, [], env={}, catalog=CATALOG, agents_file=ROOT / "agents.yaml")
    opening = (Message("system", spec.instructions.strip()), Message("assistant", spec.greeting or ""))
    llm_options = spec.stage("llm").options
    assert isinstance(llm_options, local_llm.Options)
    llm = local_llm.LocalLlm(llm_options, None, clock)
    vad = local_vad.LocalVad(local_vad.Options(), None, clock)
    agents: dict[str, Agent] = {}
    for name in names:
        stt_options, tts_options = VARIANTS[name]
        stt = local_stt.LocalStt(local_stt.Options(**stt_options), None, clock)
        tts = local_tts.LocalTts(local_tts.Options(**tts_options), None, clock)
        agents[name] = Agent(stt, llm, tts, vad, opening)
    for provider in (llm, vad, *(part for agent in agents.values() for part in (agent.stt, agent.tts))):
        await provider.start(lambda note: print(note, file=sys.stderr))
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number, utterance in enumerate(utterances, 1):
        print(f"\rcaller {number} of {len(utterances)}", end="", file=sys.stderr)
        for at in range(len(names)):
            name = names[(number + at) % len(names)]
            await llm.warm(opening)
            async with aclosing(llm.generate(LlmRequest((Message("user", "Hi"),)))) as other:  # another conversation
                async for _ in other:
                    break
            if stages := await turn(utterance, agents[name], clock, rng):
                rows[name].append(stages)
    print(file=sys.stderr)
    print("\n".join(table(rows)))
    for provider in (llm, vad, *(part for agent in agents.values() for part in (agent.stt, agent.tts))):
        await provider.aclose()


def table(rows: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    yield f"{'ms, P50/P95':12}" + "".join(f"{f'{name} (n={len(of)})':>24}" for name, of in rows.items())
    for stage in STAGES:
        yield f"{stage:12}" + "".join(f"{spread(one[stage] for one in of):>24}" for of in rows.values())


def spread(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return "-"
    return f"{np.percentile(found, 50):.0f} / {np.percentile(found, 95):.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--callers", type=Path, action="append", default=[], help="as of voicectl bench; may be repeated"
    )
    parser.add_argument("--count", type=int, default=20, help="at most so many utterances")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    names = args.variants.split(",")
    if unknown := set(names) - set(VARIANTS):
        parser.error(f"unknown variant {', '.join(sorted(unknown))}")
    paths = args.callers or sorted((ROOT / "recordings").glob("coffee-*"))
    said = [utterance for path in paths for caller in load_callers(path) for utterance in caller.utterances]
    said = [utterance for utterance in said if not utterance.backchannel]
    run_on("wall", lambda clock: measure(clock, said[: args.count], names, args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
