"""What is noted of each request to a vendor: once, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from voicectl.clock import Clock, run_on
from voicectl.errors import FailureKind, ProviderError
from voicectl.events import Event, ProviderUsed
from voicectl.pipeline.protocols import (
    LlmChunk,
    LlmRequest,
    Message,
    TextDelta,
    Tool,
    ToolDelta,
    Transcript,
    TtsRequest,
    Usage,
)
from voicectl.resilience.metered import metered

REQUEST = LlmRequest((Message("system", "Be brief."), Message("user", "Hello, who is there?")))  # 9 + 20 characters
CLAUSE = TtsRequest("Good morning!")  # 13 characters


class Notes:
    """The trace of a call that is at 3 s."""

    def __init__(self) -> None:
        self.used: list[ProviderUsed] = []

    def now(self) -> float:
        return 3.0

    def note(self, event: Event) -> None:
        assert isinstance(event, ProviderUsed)
        self.used.append(event)


class Vendor:
    """Does one thing after the other: waits, gives a piece, fails."""

    name = "vendor"
    rate = 24_000

    def __init__(self, clock: Clock, *does: object) -> None:
        self._clock = clock
        self._does = does

    async def _work(self) -> AsyncGenerator[Any, None]:
        for one in self._does:
            if isinstance(one, Exception):
                raise one
            if isinstance(one, float):
                await self._clock.sleep_until(self._clock.now() + one)
            else:
                yield one

    async def start(self, progress: object) -> None: ...

    async def aclose(self) -> None: ...

    async def warm(self, messages: object) -> None: ...

    def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        return self._work()

    def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        return self._work()

    def open(self, start: float) -> Stream:
        return Stream(self._work())


class Stream:
    def __init__(self, work: AsyncGenerator[Any, None]) -> None:
        self._work = work

    def push(self, pcm: bytes) -> None: ...

    def flush(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        async for transcript in self._work:
            yield transcript

    async def aclose(self) -> None:
        await self._work.aclose()


Use = Callable[[Any, Clock], Coroutine[Any, Any, None]]


def used(stage: str, use: Use, *does: object, model: str | None = "big") -> list[ProviderUsed]:
    """What is noted when a vendor who does this is used so."""
    notes = Notes()

    async def main(clock: Clock) -> None:
        await use(metered(stage, "vendor", model, Vendor(clock, *does), notes), clock)

    run_on("virtual", main)
    return notes.used


async def answer(llm: Any, clock: Clock) -> None:
    async with aclosing(llm.generate(REQUEST)) as chunks:
        async for _ in chunks:
            pass


async def voice(tts: Any, clock: Clock) -> None:
    async with aclosing(tts.synthesize(CLAUSE)) as audio:
        async for _ in audio:
            pass


async def fails(work: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(ProviderError):
        await work


def cancelled_after(seconds: float, use: Use) -> Use:
    async def cancelled(provider: Any, clock: Clock) -> None:
        task = clock.spawn(use(provider, clock), name="use")
        await clock.sleep_until(clock.now() + seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    return cancelled


LLM = ProviderUsed(at=3.0, stage="llm", provider="vendor", model="big")
TTS = ProviderUsed(at=3.0, stage="tts", provider="vendor", model="big")
STT = ProviderUsed(at=3.0, stage="stt", provider="vendor", model="big")


# LLM ---------------------------------------------------------------------------------------------


def test_an_answer_costs_what_the_vendor_says() -> None:
    noted = used("llm", answer, TextDelta("Good "), TextDelta("day."), Usage(20, 8, 3))
    assert noted == [replace(LLM, prompt_tokens=20, cached_tokens=8, completion_tokens=3)]


def test_what_the_vendor_does_not_say_is_estimated() -> None:
    noted = used("llm", answer, TextDelta("Good day."))  # 29 characters in, 9 out
    assert noted == [replace(LLM, prompt_tokens=8, completion_tokens=3, estimated=True)]
    partly = used("llm", answer, TextDelta("Good day."), Usage(completion_tokens=7))
    assert partly == [replace(LLM, prompt_tokens=8, completion_tokens=7, estimated=True)]


def test_a_cancelled_answer_is_estimated_and_wasted() -> None:
    noted = used("llm", cancelled_after(1.0, answer), TextDelta("Good "), 5.0, TextDelta("day."))
    assert noted == [replace(LLM, prompt_tokens=8, completion_tokens=2, estimated=True, wasted=True)]


def test_an_answer_that_is_closed_early_is_wasted_and_noted_once() -> None:
    async def first_only(llm: Any, clock: Clock) -> None:
        chunks = llm.generate(REQUEST)
        await anext(chunks)
        await chunks.aclose()
        await chunks.aclose()

    noted = used("llm", first_only, TextDelta("Good "), TextDelta("day."), Usage(20, 8, 3))
    assert noted == [replace(LLM, prompt_tokens=8, completion_tokens=2, estimated=True, wasted=True)]


def test_an_answer_that_was_never_asked_for_costs_nothing() -> None:
    async def never(llm: Any, clock: Clock) -> None:
        await llm.generate(REQUEST).aclose()

    assert used("llm", never, TextDelta("Good")) == []


def test_an_answer_that_breaks_off_costs_what_there_was_of_it() -> None:
    broken = ProviderError("cut", kind="unreachable")
    noted = used("llm", lambda llm, clock: fails(answer(llm, clock)), TextDelta("Good "), broken)
    assert noted == [replace(LLM, prompt_tokens=8, completion_tokens=2, estimated=True, wasted=True)]


@pytest.mark.parametrize("kind", ["refused", "rate_limited", "server", "unreachable"])
def test_a_request_that_is_turned_away_is_noted_and_costs_nothing(kind: FailureKind) -> None:
    turned_away = ProviderError("no", kind=kind)
    noted = used("llm", lambda llm, clock: fails(answer(llm, clock)), turned_away)
    assert noted == [replace(LLM, prompt_tokens=0, completion_tokens=0, wasted=True)]
    noted = used("tts", lambda tts, clock: fails(voice(tts, clock)), turned_away)
    assert noted == [replace(TTS, characters=0, audio_s=0.0, wasted=True)]


@pytest.mark.parametrize("kind", ["timeout", "failed", "protocol"])
def test_a_request_that_may_have_been_worked_on_counts(kind: FailureKind) -> None:
    late = ProviderError("no", kind=kind)
    noted = used("llm", lambda llm, clock: fails(answer(llm, clock)), late)
    assert noted == [replace(LLM, prompt_tokens=8, completion_tokens=0, estimated=True, wasted=True)]


def test_tools_are_part_of_what_goes_in_and_comes_out() -> None:
    request = replace(REQUEST, tools=(Tool("order", "Takes it.", {"type": "object"}),))

    async def with_tools(llm: Any, clock: Clock) -> None:
        assert [chunk async for chunk in llm.generate(request)] == [ToolDelta("1", "order", '{"size": 1}')]

    (noted,) = used("llm", with_tools, ToolDelta("1", "order", '{"size": 1}'))
    assert (noted.prompt_tokens, noted.completion_tokens) == (16, 4)  # 29 + 5 + 9 + 18 characters; 5 + 11


# TTS ---------------------------------------------------------------------------------------------


def test_a_clause_costs_its_characters() -> None:
    noted = used("tts", voice, bytes(24_000), bytes(24_000))
    assert noted == [replace(TTS, characters=13, audio_s=1.0)]


def test_a_clause_cut_short_costs_all_its_characters_and_is_wasted() -> None:
    noted = used("tts", cancelled_after(1.0, voice), bytes(24_000), 5.0, bytes(24_000))
    assert noted == [replace(TTS, characters=13, audio_s=0.5, wasted=True)]


# STT ---------------------------------------------------------------------------------------------


def hearing(seconds: float, *, times: int = 1) -> Use:
    async def hear(stt: Any, clock: Clock) -> None:
        stream = stt.open(0.0)
        for _ in range(round(seconds / 0.02)):
            stream.push(bytes(640))
        stream.flush()
        try:
            async for _ in stream:
                pass
        finally:
            for _ in range(times):
                await stream.aclose()

    return hear


def test_a_turn_costs_the_audio_that_was_pushed() -> None:
    assert used("stt", hearing(1.5, times=3), Transcript("hello", 1)) == [replace(STT, audio_s=1.5)]


def test_a_turn_without_audio_costs_nothing() -> None:
    assert used("stt", hearing(0.0), Transcript("", 1)) == []


def test_a_turn_that_nobody_waited_for_costs_what_was_pushed_for_nothing() -> None:
    assert used("stt", cancelled_after(1.0, hearing(1.5)), 5.0) == [replace(STT, audio_s=1.5, wasted=True)]


def test_a_turn_that_fails_is_wasted() -> None:
    cut = ProviderError("cut", kind="unreachable")

    async def hear(stt: Any, clock: Clock) -> None:
        await fails(hearing(1.5)(stt, clock))

    assert used("stt", hear, Transcript("hel"), cut) == [replace(STT, audio_s=1.5, wasted=True)]
    assert used("stt", hear, cut) == [replace(STT, audio_s=0.0, wasted=True)]


# Who is paid -------------------------------------------------------------------------------------


def test_what_runs_here_is_left_as_it_is_unless_somebody_is_paid_for_it() -> None:
    async def main(clock: Clock) -> None:
        vendor = Vendor(clock)
        assert metered("llm", "scripted", None, vendor, Notes()) is vendor
        assert metered("vad", "vendor", None, vendor, Notes()) is vendor
        assert metered("llm", "scripted", None, vendor, Notes(), paid=True) is not vendor
        assert metered("llm", "vendor", None, vendor, Notes(), paid=False) is vendor

    run_on("virtual", main)


def test_a_model_the_spec_does_not_name_stays_unnamed() -> None:
    (noted,) = used("tts", voice, bytes(2), model=None)
    assert noted.model is None
