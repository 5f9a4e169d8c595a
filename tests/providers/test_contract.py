"""What every provider keeps, whoever made it: the rules of `pipeline/protocols.py`, run against each.

A new provider is found through the table in `voicectl/providers/__init__.py`; one line in `CASES` says
how it can be run here. Those of vendors speak, through the vendor's own SDK, to the stand-in.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from bedrock import Bedrock
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import CANARY, StandIn, sound

from voicectl.audio import PIPELINE_RATE
from voicectl.clock import Clock, ClockKind, run_on
from voicectl.errors import FailureKind, MissingExtra, ProviderError, WeightsError
from voicectl.pipeline.protocols import (
    AudioDelta,
    Llm,
    LlmRequest,
    Message,
    S2s,
    S2sUsage,
    SttStream,
    TextDelta,
    Transcript,
    Tts,
    TtsRequest,
    TurnModel,
    Usage,
)
from voicectl.providers import CATALOG, KEYS, PROVIDERS, StageName
from voicectl.providers.nova_sonic_s2s import NovaSonic
from voicectl.providers.nova_sonic_s2s import Options as NovaOptions
from voicectl.standin.faults import Fault, FaultKind, Service


@dataclass(frozen=True, slots=True)
class Case:
    """How a provider can be run in tests."""

    clock: ClockKind = "wall"
    weights: bool = False
    """It needs the pulled weights of its model."""
    service: Service | None = None
    """It is a vendor's, and what the stand-in calls that."""
    more: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """Its model and options, where it needs other than none."""
    package: str = ""
    """Without it there is nothing to run: it is not to be had for every Python."""
    make: Callable[[Clock], Any] | None = None
    """Makes it, where the class alone will not do."""


PURE = Case("virtual")
LOCAL = Case(weights=True)


def nova_sonic(clock: Clock) -> NovaSonic:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", CANARY)
    return NovaSonic(NovaOptions.model_validate({}), None, clock, transport=Bedrock(clock))


CASES: dict[tuple[StageName, str], Case] = {
    ("vad", "local"): LOCAL,
    ("vad", "webrtc"): PURE,
    ("vad", "scripted"): PURE,
    ("stt", "local"): LOCAL,
    ("stt", "deepgram"): Case(service="deepgram-stt"),
    ("stt", "deepgram flux"): Case(service="deepgram-flux", more={"model": "flux-general-en"}),
    ("stt", "openai"): Case(service="openai-stt"),
    ("stt", "cartesia"): Case(service="cartesia-stt"),
    ("stt", "scripted"): PURE,
    ("llm", "local"): LOCAL,
    ("llm", "openai"): Case(service="openai-llm"),
    ("llm", "anthropic"): Case(service="anthropic-llm"),
    ("llm", "scripted"): PURE,
    ("tts", "local"): LOCAL,
    ("tts", "deepgram"): Case(service="deepgram-tts"),
    ("tts", "openai"): Case(service="openai-tts"),
    ("tts", "cartesia"): Case(service="cartesia-tts"),
    ("tts", "elevenlabs"): Case(service="elevenlabs-tts"),
    ("tts", "scripted"): PURE,
    ("s2s", "scripted"): PURE,
    ("s2s", "openai"): Case(service="openai-realtime"),
    ("s2s", "nova-sonic"): Case(package="aws_sdk_bedrock_runtime", make=nova_sonic),
    ("turn_model", "smart-turn"): LOCAL,
    ("turn_model", "scripted"): PURE,
}
"""Every provider of the table; a second word tells several ways of one provider apart."""

STOPS_WITHIN_S = 0.05
"""What the contract says ..."""
LOOKS = 20
"""... of the median of so many closings, fewer where each takes a model to load the machine ..."""
LOOKS_AT_MODELS = 5
TRIES = 4
"""... of which the best of so many counts: a machine under test is busy."""

SURELY_S = 1.0
"""What takes longer was not stopped at all."""


def provider_of(name: str) -> str:
    return name.partition(" ")[0]


def case_param(stage: StageName, name: str, *values: Any) -> Any:
    case = CASES[stage, name]
    marks = [pytest.mark.wall] * (case.clock == "wall") + [pytest.mark.models] * case.weights
    if case.package and importlib.util.find_spec(case.package) is None:
        marks.append(pytest.mark.skip(f"{case.package} is not installed"))
    return pytest.param(*values, name, marks=marks, id="-".join([*values, name]))


def all_of(stage: StageName) -> list[Any]:
    known = PROVIDERS.get(stage, {})
    return [case_param(stage, name) for of, name in CASES if of == stage and provider_of(name) in known]


EVERY = [case_param(stage, name, stage) for stage, name in CASES if provider_of(name) in PROVIDERS.get(stage, {})]
every = pytest.mark.parametrize(("stage", "name"), EVERY)
cloud = pytest.mark.parametrize(
    ("stage", "name"), [one for one in EVERY if CASES[one.values[0], one.values[1]].service is not None]
)
vads = pytest.mark.parametrize("name", all_of("vad"))
stts = pytest.mark.parametrize("name", all_of("stt"))
llms = pytest.mark.parametrize("name", all_of("llm"))
ttss = pytest.mark.parametrize("name", all_of("tts"))
s2ss = pytest.mark.parametrize("name", all_of("s2s"))
turn_models = pytest.mark.parametrize("name", all_of("turn_model"))


Test = Callable[[Any, Clock], Coroutine[Any, Any, None]]


class House:
    """Serves providers: those on the virtual clock anew for each test, the slow ones once for all."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.vendor = StandIn()
        self._clock: Clock | None = None
        self._started: dict[tuple[StageName, str], Any] = {}

    def serve(self, stage: StageName, name: str, test: Test) -> None:
        """Run the test with the started provider."""
        if CASES[stage, name].clock == "virtual":
            run_on("virtual", lambda clock: self._alone(stage, name, test, clock))
        else:
            self._runner.run(self._shared(stage, name, test))

    def close(self) -> None:
        self._runner.run(self._close(*self._started.values()))
        self._runner.close()
        self.vendor.close()

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
        provider = self.build(clock, stage, name)
        progress: list[str] = []
        try:
            await provider.start(progress.append)
        except (MissingExtra, WeightsError) as error:
            pytest.skip(str(error))
        assert provider.name == provider_of(name)
        return provider

    def build(self, clock: Clock, stage: StageName, name: str, **more: Any) -> Any:
        """The provider, not yet started."""
        case, provider = CASES[stage, name], provider_of(name)
        if case.make:
            return case.make(clock)
        if case.service:
            return self.vendor.build(clock, stage, provider, **{**case.more, **more})
        return CATALOG.load(stage, provider)(CATALOG.options(stage, provider).model_validate({}), None, clock)

    async def _close(self, *providers: Any) -> None:
        """Twice, as the contract allows, and no task is left."""
        for provider in providers:
            await provider.aclose()
            await provider.aclose()
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []


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
    table = {(stage, name) for stage, names in PROVIDERS.items() for name in names}
    assert {(stage, provider_of(name)) for stage, name in CASES} == table, "say in CASES how to run it"


# All of them ---------------------------------------------------------------------------------


@every
def test_starting_twice_starts_once(house: House, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        asked, told = len(house.vendor.seen), list[str]()
        await provider.start(told.append)
        assert told == []
        assert len(house.vendor.seen) == asked

    house.serve(stage, name, test)


@every
def test_what_was_never_started_can_be_closed(house: House, stage: StageName, name: str) -> None:
    async def main(clock: Clock) -> None:
        provider = house.build(clock, stage, name)
        await provider.aclose()
        await provider.aclose()

    run_on(CASES[stage, name].clock, main)


@every
def test_what_was_closed_can_be_started_again(house: House, stage: StageName, name: str) -> None:
    async def main(clock: Clock) -> None:
        provider = house.build(clock, stage, name)
        try:
            for _ in range(2):
                await provider.start(print)
                await use(stage, provider)
                await provider.aclose()
        finally:
            await provider.aclose()

    if CASES[stage, name].weights:
        pytest.skip("to load a model twice takes long")
    run_on(CASES[stage, name].clock, main)


# Vendors' ------------------------------------------------------------------------------------

WRONG: dict[FaultKind, tuple[FailureKind, ...]] = {
    "401": ("refused",),
    "429": ("rate_limited",),
    "429-retry-after": ("rate_limited",),
    "500": ("server",),
    "cut": ("unreachable",),
    "silent": ("timeout",),
    "malformed": ("protocol",),
}
"""What goes wrong at the vendor's, and what kind of failure that is."""


@cloud
@pytest.mark.parametrize("wrong", WRONG)
def test_what_goes_wrong_is_one_line_of_its_kind_and_keeps_the_key(
    house: House, stage: StageName, name: str, wrong: FaultKind
) -> None:
    """A speech to text may also get over it, as all that it was told is still known; and the next use works."""
    service = CASES[stage, name].service
    assert service

    async def main(clock: Clock) -> None:
        fields = CATALOG.options(stage, provider_of(name)).model_fields
        # Short, as a silent server is waited for that long; not so short that a busy machine is taken for one.
        hasty = {"timeout_ms": 1500} if wrong == "silent" and "timeout_ms" in fields else {}
        provider = house.build(clock, stage, name, **hasty)
        await provider.start(print)
        try:
            house.vendor.fault(Fault(service, wrong, pieces=1))
            error = await failure(clock, use(stage, provider))
            assert error or stage == "stt", "it did not fail"
            if error:
                assert error.kind in WRONG[wrong]
                assert wrong != "429-retry-after" or error.retry_after_s in (None, 1.0)
                is_fit_to_be_read(error, stage, name)
            house.vendor.heal()
            await use(stage, provider)
        finally:
            await provider.aclose()

    try:
        run_on("wall", main)
    finally:
        house.vendor.heal()


async def failure(clock: Clock, work: Coroutine[Any, Any, object]) -> ProviderError | None:
    """What the work raises; any other than a ProviderError is none."""
    task = clock.spawn(work, name="use")
    done, _ = await asyncio.wait([task], timeout=15)
    if not done:
        task.cancel()
        raise AssertionError("it neither answered nor failed")
    error = task.exception()
    assert error is None or isinstance(error, ProviderError), f"a raw {type(error).__name__}: {error}"
    return error


def is_fit_to_be_read(error: ProviderError, stage: StageName, name: str) -> None:
    assert str(error).startswith(f"{stage}:{provider_of(name)}: ")
    assert "\n" not in str(error)
    shown = "".join(traceback.format_exception(error)) + repr(error)
    assert CANARY not in shown
    assert "During handling" not in shown, "the SDK's own error is not shown"


@cloud
def test_a_key_that_is_refused_is_not_repeated(house: House, stage: StageName, name: str) -> None:
    vendor = house.vendor

    async def main(clock: Clock) -> None:
        provider = house.build(clock, stage, name)
        asked = len(vendor.seen)
        vendor.does.refuse, vendor.does.says = 401, f"your key\n {CANARY} is not good enough"

        async def all_of_it() -> None:
            await provider.start(print)
            await use(stage, provider)

        error = await failure(clock, all_of_it())
        await provider.aclose()
        assert error
        assert vendor.seen[asked][2] == CANARY, "the SDK was given the key"
        assert error.kind == "refused"
        assert "401" in str(error)
        assert str(error).endswith(f"Look at {KEYS[provider_of(name)]}")
        is_fit_to_be_read(error, stage, name)

    vendor.serve()
    try:
        run_on("wall", main)
    finally:
        vendor.does.refuse, vendor.does.says = None, ""


@cloud
def test_nobody_there_is_one_clear_line(house: House, stage: StageName, name: str) -> None:
    async def main(clock: Clock) -> None:
        provider = house.build(clock, stage, name, url="http://127.0.0.1:9")
        error = await failure(clock, provider.start(print))
        await provider.aclose()
        assert error
        assert error.kind == "unreachable"
        assert "127.0.0.1:9" in str(error)
        is_fit_to_be_read(error, stage, name)

    run_on("wall", main)


@cloud
def test_a_missing_key_names_its_variable(
    house: House, stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = KEYS[provider_of(name)]
    monkeypatch.delenv(variable, raising=False)

    async def main(clock: Clock) -> None:
        provider = house.build(clock, stage, name, key=None)
        error = await failure(clock, provider.start(print))
        await provider.aclose()
        assert str(error) == f"{stage}:{provider_of(name)}: has no key. Set {variable}"
        assert error
        assert error.kind == "refused"

    run_on("wall", main)


@cloud
def test_what_was_not_started_says_so(house: House, stage: StageName, name: str) -> None:
    async def main(clock: Clock) -> None:
        error = await failure(clock, use(stage, house.build(clock, stage, name)))
        assert str(error) == f"{stage}:{provider_of(name)}: was asked before it was started"

    run_on("wall", main)


async def use(stage: StageName, provider: Any) -> None:
    """Let it do what it is for, once."""
    match stage:
        case "vad":
            assert provider.open().push(noise(1))
        case "stt":
            stream = provider.open(0.0)
            try:
                stream.push(sound(5))
                stream.flush()
                await next_final(aiter(stream))
            finally:
                await stream.aclose()
        case "llm":
            await everything(provider.generate(REQUEST))
        case "tts":
            await everything(provider.synthesize(TtsRequest("Good morning.")))
        case "s2s":
            stream = provider.open("Be brief.")
            try:
                stream.hear_from(0.0)
                stream.push(sound(5))
                await everything(stream.respond())
            finally:
                await stream.aclose()
        case "turn_model":
            stream = provider.open()
            stream.push(noise(1))
            assert 0 <= await stream.score(0.5) <= 1


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
        await ended(clock, task)

    house.serve("stt", name, test)


@stts
def test_cancelling_who_reads_an_stt_stream_stops_it(house: House, name: str) -> None:
    async def test(stt: Any, clock: Clock) -> None:
        stream: SttStream = stt.open(0.0)
        stream.push(noise(2.0))
        stream.flush()
        task = clock.spawn(everything(stream), name="reader")
        await clock.sleep_until(clock.now() + 0.01)
        task.cancel()
        await ended(clock, task)
        assert task.cancelled(), "a cancellation is never swallowed"
        await stream.aclose()

    house.serve("stt", name, test)


@pytest.mark.parametrize("name", [one for one in all_of("stt") if CASES["stt", one.values[0]].clock == "wall"])
def test_an_stt_stream_is_closed_within_50_ms(house: House, name: str) -> None:
    """A scripted one takes the time that it was told to."""

    async def test(stt: Any, clock: Clock) -> None:
        async def once() -> float:
            stream: SttStream = stt.open(0.0)
            task = clock.spawn(everything(stream), name="reader")
            stream.push(noise(1.0))
            stream.flush()
            await clock.sleep_until(clock.now() + 0.005)
            return await took(clock, stream.aclose(), task)

        await is_quick("stt", name, once)

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
        last = chunks[-1]
        assert isinstance(last, Usage), "it says what it cost"
        assert [chunk for chunk in chunks[:-1] if isinstance(chunk, Usage)] == []
        assert last.completion_tokens
        assert last.prompt_tokens or name == "scripted"
        assert (last.cached_tokens or 0) <= (last.prompt_tokens or 0)

    house.serve("llm", name, test)


@llms
def test_an_llm_stream_is_closed_within_50_ms_and_the_next_can_be_asked_at_once(house: House, name: str) -> None:
    async def test(llm: Llm, clock: Clock) -> None:
        async def once() -> float:
            answer = llm.generate(REQUEST)
            await anext(answer)
            return await took(clock, answer.aclose())

        await is_quick("llm", name, once)
        async with aclosing(llm.generate(REQUEST)) as again:
            assert await anext(again)

    house.serve("llm", name, test)


@llms
def test_cancelling_who_reads_an_llm_stream_stops_it_within_50_ms(house: House, name: str) -> None:
    async def test(llm: Llm, clock: Clock) -> None:
        await is_quick("llm", name, lambda: cancelling(clock, llm.generate(REQUEST)))

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
def test_a_tts_stream_is_closed_within_50_ms_and_the_next_can_be_asked_at_once(house: House, name: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        async def once() -> float:
            audio = tts.synthesize(CLAUSE)
            await anext(audio)
            return await took(clock, audio.aclose())

        await is_quick("tts", name, once)
        async with aclosing(tts.synthesize(CLAUSE)) as again:
            assert await anext(again)

    house.serve("tts", name, test)


@ttss
def test_cancelling_who_reads_a_tts_stream_stops_it_within_50_ms(house: House, name: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        number = iter(range(1000))

        async def once() -> float:  # of what no voice knows by heart
            text = f"Clause number {next(number)}, for which nobody has asked yet, nor will again."
            return await cancelling(clock, tts.synthesize(TtsRequest(text)))

        await is_quick("tts", name, once)

    house.serve("tts", name, test)


@ttss
@pytest.mark.parametrize("text", ["…", "—", "🙂", ".", "Ok", "3"])
def test_a_tts_makes_something_or_nothing_of_any_clause(house: House, name: str, text: str) -> None:
    async def test(tts: Tts, clock: Clock) -> None:
        pieces = await everything(tts.synthesize(TtsRequest(text)))
        assert isinstance(pieces, list)

    house.serve("tts", name, test)


# Speech to speech ----------------------------------------------------------------------------


@s2ss
def test_a_speech_to_speech_model_streams_whole_samples_and_its_words_and_says_what_it_cost(
    house: House, name: str
) -> None:
    async def test(s2s: S2s, clock: Clock) -> None:
        stream = s2s.open("Be brief.")
        news = clock.spawn(everything(aiter(stream)), name="news")
        for answer in (1, 2):
            stream.hear_from(3.0 * answer)
            stream.push(sound(5))
            sounds: list[bytes] = []
            words: list[str] = []
            times: list[float] = []
            async with aclosing(stream.respond()) as chunks:
                async for chunk in chunks:
                    times.append(clock.now())
                    if isinstance(chunk, AudioDelta):
                        sounds.append(chunk.pcm)
                    else:
                        words.append(chunk.text)
            assert len(sounds) > 1
            assert times[-1] > times[0], "as it arrives"
            assert all(len(pcm) % 2 == 0 for pcm in sounds)
            assert 0.2 < sum(map(len, sounds)) / 2 / s2s.rate < 20, "seconds, at its own rate"
            assert "".join(words).strip()
        await clock.sleep_until(clock.now() + 0.3)
        await stream.aclose()
        await ended(clock, news)
        costs = [one for one in news.result() if isinstance(one, S2sUsage) and one.stage == "s2s"]
        assert {cost.answer for cost in costs} == {1, 2}

    house.serve("s2s", name, test)


@s2ss
def test_an_answer_of_speech_to_speech_is_closed_within_50_ms_and_the_next_can_be_asked(
    house: House, name: str
) -> None:
    async def test(s2s: S2s, clock: Clock) -> None:
        stream = s2s.open("Be brief.")

        async def once() -> float:
            stream.hear_from(clock.now())
            stream.push(sound(5))
            answer = stream.respond()
            await anext(answer)
            closing = await took(clock, answer.aclose())
            stream.truncate(0.0)
            return closing

        try:
            await is_quick("s2s", name, once)
            stream.push(sound(5))
            assert await everything(stream.respond())
        finally:
            await stream.aclose()

    house.serve("s2s", name, test)


@s2ss
def test_the_news_of_speech_to_speech_end_when_it_is_closed(house: House, name: str) -> None:
    async def test(s2s: S2s, clock: Clock) -> None:
        stream = s2s.open("Be brief.")
        news = clock.spawn(everything(aiter(stream)), name="news")
        stream.hear_from(0.0)
        stream.push(noise(1))
        await clock.sleep_until(clock.now() + 0.01)
        await stream.aclose()
        await stream.aclose()
        await ended(clock, news)

    house.serve("s2s", name, test)


@s2ss
def test_two_conversations_of_speech_to_speech_do_not_wait_for_each_other(house: House, name: str) -> None:
    async def test(s2s: S2s, clock: Clock) -> None:
        tasks = [clock.spawn(use("s2s", s2s), name=f"call {index}") for index in range(3)]
        await asyncio.gather(*tasks)

    house.serve("s2s", name, test)


# End of turn ---------------------------------------------------------------------------------


@turn_models
def test_a_turn_model_gives_a_probability_that_a_recording_can_hold(house: House, name: str) -> None:
    async def test(model: TurnModel, clock: Clock) -> None:
        stream = model.open()
        for seconds in (0.5, 2.0):
            stream.push(noise(seconds))
            score = await stream.score(0.25)
            assert 0 <= score <= 1
            assert score == round(score, 3)

    house.serve("turn_model", name, test)


@turn_models
def test_a_score_that_is_not_wanted_any_more_is_dropped(house: House, name: str) -> None:
    async def test(model: TurnModel, clock: Clock) -> None:
        stream = model.open()
        stream.push(noise(2))
        task = clock.spawn(stream.score(0.25), name="score")
        await clock.sleep_until(clock.now() + 0.001)
        task.cancel()
        await ended(clock, task)
        assert 0 <= await stream.score(0.25) <= 1, "and the next can be asked"

    house.serve("turn_model", name, test)


# Helpers -------------------------------------------------------------------------------------


async def everything(stream: Any) -> list[object]:
    async with aclosing(stream) as chunks:
        return [chunk async for chunk in chunks]


async def took(clock: Clock, closing: Awaitable[object], *tasks: asyncio.Task[Any]) -> float:
    """How long closing takes, until the tasks have ended."""
    since = clock.now()
    async with asyncio.timeout(SURELY_S):
        await closing
        if tasks:
            await asyncio.wait(tasks)
    return clock.now() - since


async def cancelling(clock: Clock, stream: Any) -> float:
    """How long it takes until who reads the stream, and waits for it, has been cancelled."""
    task = clock.spawn(everything(stream), name="reader")
    await clock.sleep_until(clock.now() + 0.02)
    since = clock.now()
    task.cancel()
    await asyncio.wait([task], timeout=SURELY_S)
    assert task.cancelled(), "a cancellation is never swallowed"
    return clock.now() - since


async def is_quick(stage: StageName, name: str, once: Callable[[], Awaitable[float]]) -> None:
    looks = LOOKS_AT_MODELS if CASES[stage, name].weights else LOOKS
    medians: list[float] = []
    while len(medians) < TRIES and min(medians, default=1.0) >= STOPS_WITHIN_S:
        medians.append(statistics.median([await once() for _ in range(looks)]))
    figures = ", ".join(f"{1000 * median:.0f}" for median in medians)
    assert min(medians) < STOPS_WITHIN_S, f"it takes {figures} ms to stop, in the median of {looks}"


async def ended(clock: Clock, task: asyncio.Task[Any]) -> None:
    """Wait for the task to end, but not for ever."""
    await asyncio.wait([task], timeout=SURELY_S)
    assert task.done()
