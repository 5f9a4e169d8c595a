"""What every provider keeps, whoever made it: the rules of `pipeline/protocols.py`, run against each.

A new provider is found through the table in `voicectl/providers/__init__.py`; say in `RUNS` how it
can be run here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import StandIn

from voicectl.audio import PIPELINE_RATE
from voicectl.clock import Clock, ClockKind, run_on
from voicectl.errors import MissingExtra, WeightsError
from voicectl.pipeline.protocols import (
    Llm,
    LlmRequest,
    Message,
    SttStream,
    TextDelta,
    Transcript,
    Tts,
    TtsRequest,
    Usage,
)
from voicectl.providers import CATALOG, PROVIDERS, StageName

RUNS: dict[str, ClockKind] = {
    "scripted": "virtual",
    "webrtc": "virtual",
    "local": "wall",
    "deepgram": "wall",
    "openai": "wall",
    "cartesia": "wall",
    "smart-turn": "wall",
}
"""On which clock each provider runs in tests."""

AT_STANDIN = {"deepgram", "openai", "cartesia"}
"""These speak to a stand-in on loopback; the others on the wall clock need the pulled weights."""

STOPS_WITHIN_S = 0.5
"""The contract says 50 ms; a machine under test is busy."""


def all_of(stage: StageName) -> list[Any]:
    def marks(name: str) -> list[pytest.MarkDecorator]:
        wall = [pytest.mark.wall] if RUNS[name] == "wall" else []
        return wall if name in AT_STANDIN or not wall else [pytest.mark.models, *wall]

    return [pytest.param(name, marks=marks(name)) for name in PROVIDERS[stage] if name in RUNS]


vads = pytest.mark.parametrize("name", all_of("vad"))
stts = pytest.mark.parametrize("name", all_of("stt"))
llms = pytest.mark.parametrize("name", all_of("llm"))
ttss = pytest.mark.parametrize("name", all_of("tts"))


Test = Callable[[Any, Clock], Coroutine[Any, Any, None]]


class House:
    """Serves providers: those on the virtual clock anew for each test, the slow ones once for all."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._vendor = StandIn()
        self._clock: Clock | None = None
        self._started: dict[tuple[StageName, str], Any] = {}

    def serve(self, stage: StageName, name: str, test: Test) -> None:
        """Run the test with the started provider."""
        if RUNS[name] == "virtual":
            run_on("virtual", lambda clock: self._alone(stage, name, test, clock))
        else:
            self._runner.run(self._shared(stage, name, test))

    def close(self) -> None:
        self._runner.run(self._close(*self._started.values()))
        self._runner.close()
        self._vendor.close()

    async def _alone(self, stage: StageName, name: str, test: Test, clock: Clock) -> None:
        provider = await self._start(stage, name, clock)
        try:
            await test(provider, clock)
        finally:
            await self._close(provider)

    async def _shared(self, stage: StageName, name: str, test: Test) -> None:
        self._clock = self._clock or Clock("wall")
        if (stage, name) not in self._started:
            self._started[stage, name] = await self._start(stage, name, self._clock)
        await test(self._started[stage, name], self._clock)

    async def _start(self, stage: StageName, name: str, clock: Clock) -> Any:
        provider = self._vendor.build(clock, stage, name) if name in AT_STANDIN else own(clock, stage, name)
        progress: list[str] = []
        try:
            await provider.start(progress.append)
        except (MissingExtra, WeightsError) as error:
            pytest.skip(str(error))
        assert provider.name == name
        return provider

    async def _close(self, *providers: Any) -> None:
        """Twice, as the contract allows, and no task is left."""
        for provider in providers:
            await provider.aclose()
            await provider.aclose()
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []


def own(clock: Clock, stage: StageName, name: str) -> Any:
    return CATALOG.load(stage, name)(CATALOG.options(stage, name).model_validate({}), None, clock)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def noise(seconds: float, seed: int = 1) -> bytes:
    """Something between silence and speech, half a second each."""
    count = round(seconds * PIPELINE_RATE)
    loudness = np.where(np.arange(count) // (PIPELINE_RATE // 2) % 2, 6000, 5)
    return (np.random.default_rng(seed).standard_normal(count) * loudness).clip(-32768, 32767).astype("<i2").tobytes()


def test_every_provider_of_the_table_is_run_here() -> None:
    assert {name for stage in PROVIDERS.values() for name in stage} == set(RUNS)


# VAD -----------------------------------------------------------------------------------------


@vads
def test_a_vad_gives_one_probability_a_window(house: House, name: str) -> None:
    async def test(vad: Any, clock: Clock) -> None:
        windows = vad.open().push(noise(3))
        assert len(windows) == int(3 / vad.window_s + 1e-9)
        assert all(isinstance(p, float) and 0 <= p <= 1 for p in windows)
        assert windows == [round(p, 3) for p in windows], "a recording holds three decimals"

    house.serve("vad", name, test)


@vads
def test_a_vad_does_not_care_how_the_samples_come(house: House, name: str) -> None:
    pcm = noise(1.7)

    async def test(vad: Any, clock: Clock) -> None:
        whole = vad.open().push(pcm)

        @given(st.lists(st.integers(0, len(pcm) // 2).map(lambda sample: sample * 2), max_size=12).map(sorted))
        @settings(deadline=None, max_examples=10)
        def cut_anywhere(cuts: list[int]) -> None:
            stream = vad.open()
            parts = zip([0, *cuts], [*cuts, len(pcm)], strict=True)
            assert [p for start, end in parts for p in stream.push(pcm[start:end])] == whole

        cut_anywhere()
        frames = vad.open()
        assert [p for at in range(0, len(pcm), 640) for p in frames.push(pcm[at : at + 640])] == whole

    house.serve("vad", name, test)


@vads
def test_the_streams_of_a_vad_do_not_hear_each_other(house: House, name: str) -> None:
    async def test(vad: Any, clock: Clock) -> None:
        alone = vad.open().push(noise(2))
        one, other = vad.open(), vad.open()
        both = [
            (one.push(noise(2)[at : at + 640]), other.push(noise(2, 2)[at : at + 640])) for at in range(0, 64000, 640)
        ]
        assert [p for first, _ in both for p in first] == alone

    house.serve("vad", name, test)


# STT -----------------------------------------------------------------------------------------


async def next_final(answers: Any) -> Transcript:
    async for transcript in answers:
        if transcript.final:
            return transcript
    raise AssertionError("the stream ended without an answer")


@stts
def test_a_flush_is_answered_by_its_number_and_the_stream_goes_on(house: House, name: str) -> None:
    async def test(stt: Any, clock: Clock) -> None:
        stream: SttStream = stt.open(0.0)
        answers = aiter(stream)
        for number in (1, 2, 3):
            stream.push(noise(0.6))
            stream.flush()
            assert (await next_final(answers)).flush == number
        await stream.aclose()
        assert [transcript async for transcript in answers] == [], "it ends when it is closed"

    house.serve("stt", name, test)


@stts
def test_the_last_of_many_flushes_is_answered_last(house: House, name: str) -> None:
    async def test(stt: Any, clock: Clock) -> None:
        stream: SttStream = stt.open(0.0)
        answers = aiter(stream)
        for _ in range(3):
            stream.push(noise(0.6))
            stream.flush()
        numbers = [(await next_final(answers)).flush]
        while numbers[-1] != 3:
            numbers.append((await next_final(answers)).flush)
        assert numbers == sorted(set(numbers))
        await stream.aclose()

    house.serve("stt", name, test)


@stts
@pytest.mark.parametrize("asked", [True, False])
def test_an_stt_stream_ends_when_it_is_closed_while_it_is_read(house: House, name: str, asked: bool) -> None:
    async def test(stt: Any, clock: Clock) -> None:
        stream: SttStream = stt.open(0.0)
        stream.push(noise(2.0))

        async def read() -> list[Transcript]:
            return [transcript async for transcript in stream]

        task = clock.spawn(read(), name="reader")
        await clock.sleep_until(clock.now() + 0.01)
        if asked:
            stream.flush()
        await stream.aclose()
        await stream.aclose()
        await within(clock, task)

    house.serve("stt", name, test)


@stts
def test_cancelling_who_reads_an_stt_stream_stops_it(house: House, name: str) -> None:
    async def test(stt: Any, clock: Clock) -> None:
        stream: SttStream = stt.open(0.0)
        stream.push(noise(2.0))
        stream.flush()
        task = clock.spawn(next_final(stream), name="reader")
        await clock.sleep_until(clock.now() + 0.01)
        task.cancel()
        await within(clock, task)
        assert task.cancelled(), "a cancellation is never swallowed"
        await stream.aclose()

    house.serve("stt", name, test)


# LLM -----------------------------------------------------------------------------------------

REQUEST = LlmRequest((Message("system", "You are brief."), Message("user", "Count from one to ten in words.")))


@llms
def test_an_llm_streams_text_and_then_says_what_it_cost(house: House, name: str) -> None:
    async def test(llm: Llm, clock: Clock) -> None:
        await llm.warm(REQUEST.messages[:1])
        times: list[float] = []
        chunks: list[object] = []
        async with aclosing(llm.generate(REQUEST)) as answer:
            async for chunk in answer:
                chunks.append(chunk)
                times.append(clock.now())
        deltas = [chunk for chunk in chunks if isinstance(chunk, TextDelta)]
        assert len(deltas) > 1
        assert times[-1] > times[0], "as it arrives, not all at the end"
        assert all(delta.text for delta in deltas)
        assert [index for index, chunk in enumerate(chunks) if isinstance(chunk, Usage)] in ([], [len(chunks) - 1])

    house.serve("llm", name, test)


@llms
def test_closing_an_llm_stream_stops_it(house: House, name: str) -> None:
    async def test(llm: Llm, clock: Clock) -> None:
        answer = llm.generate(REQUEST)
        await anext(answer)
        closing = clock.spawn(answer.aclose(), name="closing")
        await within(clock, closing)
        closing.result()
        async with aclosing(llm.generate(REQUEST)) as again:
            assert await anext(again), "and the next can be asked at once"

    house.serve("llm", name, test)


@llms
def test_cancelling_who_reads_an_llm_stream_stops_it(house: House, name: str) -> None:
    async def test(llm: Llm, clock: Clock) -> None:
        await cancelled_soon(clock, everything(llm.generate(REQUEST)))

    house.serve("llm", name, test)


@llms
def test_two_calls_may_ask_an_llm_at_once(house: House, name: str) -> None:
    async def test(llm: Llm, clock: Clock) -> None:
        tasks = [clock.spawn(everything(llm.generate(REQUEST)), name=f"call {index}") for index in range(2)]
        assert all(await asyncio.gather(*tasks))

    house.serve("llm", name, test)


# TTS -----------------------------------------------------------------------------------------

CLAUSE = TtsRequest("Good morning, this is the Corner Coffee Bar. What can I get for you today?", 1, 2)


@ttss
def test_a_tts_streams_whole_samples_as_they_are_made(house: House, name: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        times: list[float] = []
        pieces: list[bytes] = []
        async with aclosing(tts.synthesize(CLAUSE)) as audio:
            async for piece in audio:
                pieces.append(piece)
                times.append(clock.now())
        assert len(pieces) > 1
        assert times[-1] > times[0]
        assert all(len(piece) % 2 == 0 for piece in pieces)
        assert 2 < sum(map(len, pieces)) / 2 / tts.rate < 10, "seconds, at its own rate"

    house.serve("tts", name, test)


@ttss
def test_closing_a_tts_stream_stops_it(house: House, name: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        audio = tts.synthesize(CLAUSE)
        await anext(audio)
        closing = clock.spawn(audio.aclose(), name="closing")
        await within(clock, closing)
        closing.result()
        async with aclosing(tts.synthesize(CLAUSE)) as again:
            assert await anext(again)

    house.serve("tts", name, test)


@ttss
def test_cancelling_who_reads_a_tts_stream_stops_it(house: House, name: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        new = TtsRequest("A clause that nobody has asked for yet, so that no voice knows it by heart.")
        await cancelled_soon(clock, everything(tts.synthesize(new)))

    house.serve("tts", name, test)


@ttss
@pytest.mark.parametrize("text", ["…", "—", "🙂", ".", "Ok", "3"])
def test_a_tts_makes_something_or_nothing_of_any_clause(house: House, name: str, text: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        pieces = await everything(tts.synthesize(TtsRequest(text)))
        assert isinstance(pieces, list)

    house.serve("tts", name, test)


# Helpers -------------------------------------------------------------------------------------


async def everything(stream: Any) -> list[object]:
    async with aclosing(stream) as chunks:
        return [chunk async for chunk in chunks]


async def cancelled_soon(clock: Clock, reading: Coroutine[Any, Any, object]) -> None:
    task = clock.spawn(reading, name="reader")
    await clock.sleep_until(clock.now() + 0.02)
    task.cancel()
    await within(clock, task)
    assert task.cancelled(), "a cancellation is never swallowed"


async def within(clock: Clock, task: asyncio.Task[Any]) -> None:
    """Wait for the task to end, but not long."""
    started = clock.now()
    await asyncio.wait([task])
    assert clock.now() - started < STOPS_WITHIN_S
