"""The vendors' SDKs, as our providers use them, against a stand-in on loopback (`standin.py`).

What every provider keeps is in `test_contract.py`; here is what is theirs: connections that outlive
turns, whose answer is whose, and errors that people can read and that keep the key.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from standin import ANSWER, CANARY, StandIn, sound

from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import LlmRequest, Message, SttStream, TextDelta, Transcript, TtsRequest, Usage
from voicectl.providers import StageName, cartesia_tts, deepgram_stt, openai_llm
from voicectl.providers.cartesia_tts import CartesiaTts
from voicectl.providers.deepgram_stt import DeepgramStt
from voicectl.providers.openai_llm import OpenAiLlm

pytestmark = pytest.mark.wall

REQUEST = LlmRequest((Message("system", "Be brief."), Message("user", "Hello?")))
CLAUSE = TtsRequest("Good morning, what can I get for you?")
VENDORS: list[tuple[StageName, str]] = [("stt", "deepgram"), ("llm", "openai"), ("tts", "cartesia")]
vendors = pytest.mark.parametrize(("stage", "name"), VENDORS)


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


def serve(
    vendor: StandIn, stage: StageName, name: str, test: Callable[[Any, Clock], Coroutine[Any, Any, None]], **more: Any
) -> None:
    """Run the test with the started provider."""

    async def main(clock: Clock) -> None:
        provider = vendor.build(clock, stage, name, **more)
        await provider.start(print)
        try:
            await test(provider, clock)
        finally:
            await provider.aclose()

    run_on("wall", main)


async def until(clock: Clock, true: Callable[[], object]) -> None:
    """Wait for what happens in the stand-in's thread."""
    limit = clock.now() + 5
    while not true():
        assert clock.now() < limit, "it never happened"
        await clock.sleep_until(clock.now() + 0.005)


async def use(stage: StageName, provider: Any) -> None:
    """Let it do what it is for, once."""
    if stage == "stt":
        stream = provider.open(0.0)
        try:
            stream.push(sound(5))
            stream.flush()
            await final(stream)
        finally:
            await stream.aclose()
    else:
        work = provider.generate(REQUEST) if stage == "llm" else provider.synthesize(CLAUSE)
        async with aclosing(work) as pieces:
            async for _ in pieces:
                pass


# All three -------------------------------------------------------------------------------------


def problem(vendor: StandIn, stage: StageName, name: str, **more: Any) -> ProviderError:
    """What using the provider raises."""

    async def main(clock: Clock) -> ProviderError:
        provider = vendor.build(clock, stage, name, **more)
        try:
            await provider.start(print)
            await use(stage, provider)
        except ProviderError as error:
            return error
        finally:
            await provider.aclose()
        raise AssertionError("it did not fail")

    return run_on("wall", main)


def everything_about(error: ProviderError) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


@vendors
@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_refusal_is_one_clear_line_and_keeps_the_key(
    vendor: StandIn, stage: StageName, name: str, status: int
) -> None:
    vendor.does.refuse, vendor.does.says = status, f"your key {CANARY} is not good enough"
    error = problem(vendor, stage, name)
    assert vendor.seen[0][2] == CANARY, "the SDK was given the key"
    assert str(error).startswith(f"{stage}:{name}: 127.0.0.1:")
    assert str(status) in str(error)
    assert "\n" not in str(error)
    assert ("Look at" in str(error)) or status != 401
    assert CANARY not in everything_about(error)


@vendors
def test_nobody_there_is_one_clear_line(vendor: StandIn, stage: StageName, name: str) -> None:
    error = problem(vendor, stage, name, url="http://127.0.0.1:9")
    assert str(error).startswith(f"{stage}:{name}: ")
    assert "127.0.0.1:9" in str(error)
    assert "\n" not in str(error)
    assert CANARY not in everything_about(error)


@vendors
def test_a_missing_key_names_its_variable(
    stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch, vendor: StandIn
) -> None:
    variable = f"{name.upper()}_API_KEY"
    monkeypatch.delenv(variable, raising=False)
    error = problem(vendor, stage, name, key=None)
    assert str(error) == f"{stage}:{name}: has no key. Set {variable}"
    assert vendor.seen == []


@vendors
def test_the_key_comes_from_the_environment(
    stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch, vendor: StandIn
) -> None:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "key-of-the-environment")

    async def test(provider: Any, clock: Clock) -> None:
        assert vendor.seen[0][2] == "key-of-the-environment"

    serve(vendor, stage, name, test, key=None)


@vendors
def test_a_connection_lost_in_the_middle_is_an_error_and_the_next_use_works(
    vendor: StandIn, stage: StageName, name: str
) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        vendor.does.break_after = 2
        vendor.does.finalize_answers = False
        with pytest.raises(ProviderError) as caught:
            if stage == "stt":
                stream = provider.open(0.0)
                stream.push(sound(5))
                await until(clock, lambda: vendor.open)
                vendor.drop()
                await final(stream)
            await use(stage, provider)
        assert CANARY not in everything_about(caught.value)
        vendor.does.break_after = None
        vendor.does.finalize_answers = True
        await use(stage, provider)

    serve(vendor, stage, name, test)


@vendors
def test_one_connection_serves_one_use_after_the_other(vendor: StandIn, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        for _ in range(3):
            await use(stage, provider)

    serve(vendor, stage, name, test)
    assert (vendor.got.count("connected") if stage == "llm" else len(vendor.seen)) == 1


@vendors
def test_two_uses_at_once_do_not_wait_for_each_other(vendor: StandIn, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        await asyncio.gather(*(clock.spawn(use(stage, provider), name=f"use {index}") for index in range(4)))

    serve(vendor, stage, name, test)


# Deepgram --------------------------------------------------------------------------------------


async def final(stream: SttStream) -> Transcript:
    async for transcript in stream:
        if transcript.final:
            return transcript
    raise AssertionError("the stream ended without an answer")


async def next_end(stream: Any) -> Transcript:
    async for transcript in stream:
        if transcript.turn_end:
            return transcript
    raise AssertionError("the stream ended without a word on the turn's end")


def test_late_answers_of_a_turn_do_not_reach_the_next(vendor: StandIn) -> None:
    vendor.does.finalize_s = 0.2

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        first = stt.open(0.0)
        first.push(sound(5))
        first.flush()
        await first.aclose()
        second = stt.open(1.0)
        second.push(sound(7))
        second.flush()
        assert [transcript.text async for transcript in first] == []
        assert await final(second) == Transcript("w7", 1)
        await second.aclose()

    serve(vendor, "stt", "deepgram", test)
    assert len(vendor.seen) == 1


def test_the_text_is_that_of_the_whole_turn(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        for flush, word in enumerate((5, 6, 7), 1):
            stream.push(sound(word))
            stream.flush()
            answer = await final(stream)
            assert answer == Transcript(" ".join(["w5", "w6", "w7"][:flush]), flush)
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test)


def test_nova_says_when_it_thinks_that_the_turn_is_over(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6, 0))
        heard = [await anext(aiter(stream))]
        while not heard[-1].turn_end:
            heard.append(await anext(aiter(stream)))
        assert [one.text for one in heard[:2]] == ["w5", "w5 w6"], "partials as they come, each once"
        assert heard[-1] == Transcript("w5 w6", 0, "over")
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test, endpointing_ms=250)
    assert vendor.seen[0][1]["endpointing"] == "250"
    assert vendor.seen[0][1]["model"] == "nova-3"


def test_a_flush_that_nova_does_not_answer_gets_what_is_known(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_stt, "_ANSWER_S", 0.1)
    vendor.does.finalize_answers = False

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6))
        stream.flush()
        assert await final(stream) == Transcript("w5 w6", 1)
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test)


def test_an_end_of_turn_answers_the_flush_that_it_covers(vendor: StandIn) -> None:
    vendor.does.finalize_answers = False

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5) + sound(0, seconds=0.3))
        stream.flush()
        assert await final(stream) == Transcript("w5", 1, "over")
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test)


def test_what_deepgram_does_not_like_is_said(vendor: StandIn) -> None:
    vendor.does.says = f"no model for {CANARY}"

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        with pytest.raises(ProviderError, match=r"says: no model for \*\*\*") as caught:
            await use("stt", stt)
        assert CANARY not in everything_about(caught.value)

    serve(vendor, "stt", "deepgram", test)


def test_an_idle_websocket_is_kept_alive_and_one_too_many_is_closed(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepgram_stt, "_KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(deepgram_stt, "_IDLE_S", 0.3)

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        streams = [stt.open(0.0) for _ in range(3)]
        await until(clock, lambda: vendor.open == 3)
        for stream in streams:
            await stream.aclose()
        await until(clock, lambda: "KeepAlive" in vendor.got)
        await until(clock, lambda: vendor.open == 1)

    serve(vendor, "stt", "deepgram", test)


def test_an_idle_websocket_that_is_dropped_is_opened_again(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_stt, "_KEEP_ALIVE_S", 0.02)

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        vendor.drop()
        await until(clock, lambda: len(vendor.seen) == 2 and vendor.open == 1)
        await use("stt", stt)

    serve(vendor, "stt", "deepgram", test)
    assert len(vendor.seen) == 2


def test_what_is_said_before_the_websocket_is_open_is_not_lost(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        first, second = stt.open(0.0), stt.open(0.0)
        second.push(sound(5))
        second.flush()
        assert await final(second) == Transcript("w5", 1)
        await first.aclose()
        await second.aclose()

    serve(vendor, "stt", "deepgram", test)
    assert len(vendor.seen) == 2


def test_flux_says_likely_resumed_and_over(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5) + sound(0, seconds=0.4) + sound(6) + sound(0, seconds=0.7) + sound(7))
        ends = [await next_end(stream) for _ in range(4)]
        assert ends == [
            Transcript("w5", 0, "likely"),
            Transcript("w5 w6", 0, "resumed"),
            Transcript("w5 w6", 0, "likely"),
            Transcript("w5 w6", 0, "over"),
        ]
        async for transcript in stream:
            assert transcript == Transcript("w5 w6 w7"), "the turn is ours to end: what follows belongs to it"
            break
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")
    assert vendor.seen[0][0] == "/v2/listen"


def test_a_flush_of_flux_is_answered_with_all_that_was_pushed_before_it(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.flush()
        assert await final(stream) == Transcript("", 1)
        stream.push(sound(5))
        assert await anext(aiter(stream)) == Transcript("w5")
        stream.flush()
        assert await final(stream) == Transcript("w5", 2)
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")


def test_a_websocket_left_in_the_middle_of_a_turn_of_flux_is_not_used_again(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        first = stt.open(0.0)
        first.push(sound(5))
        await anext(aiter(first))
        await first.aclose()
        second = stt.open(1.0)
        second.push(sound(7) + sound(0, seconds=0.7))
        assert [(await next_end(second)).text for _ in range(2)] == ["w7", "w7"]
        await second.aclose()
        third = stt.open(2.0)
        third.push(sound(8))
        assert (await anext(aiter(third))).text == "w8"
        await third.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")
    assert len(vendor.seen) == 2, "one that Flux has ended is used again"


# OpenAI ----------------------------------------------------------------------------------------


async def answer_of(llm: OpenAiLlm) -> list[object]:
    async with aclosing(llm.generate(REQUEST)) as chunks:
        return [chunk async for chunk in chunks]


def test_the_answer_streams_and_its_cost_comes_last(vendor: StandIn) -> None:
    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        chunks = await answer_of(llm)
        assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta)) == ANSWER
        assert chunks[-1] == Usage(prompt_tokens=3, cached_tokens=2, completion_tokens=15)

    serve(vendor, "llm", "openai", test)


def test_closing_an_answer_hangs_up_on_the_server(vendor: StandIn) -> None:
    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        answer = llm.generate(REQUEST)
        await anext(answer)
        await answer.aclose()
        await until(clock, lambda: "hung up" in vendor.got)
        assert "answered" not in vendor.got

    serve(vendor, "llm", "openai", test)


def test_warming_asks_for_no_answer_and_only_when_the_connection_is_old(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        await llm.warm(REQUEST.messages)
        assert [path for path, _, _ in vendor.seen] == ["/v1/models"], "start has just opened one"
        monkeypatch.setattr(openai_llm, "_KEEP_OPEN_S", 0.0)
        await llm.warm(REQUEST.messages)
        assert [path for path, _, _ in vendor.seen] == ["/v1/models"] * 2
        assert "asked" not in vendor.got

    serve(vendor, "llm", "openai", test)


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_server_without_a_list_of_models_serves(vendor: StandIn, status: int) -> None:
    vendor.does.models = status

    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        assert await answer_of(llm)

    serve(vendor, "llm", "openai", test)


def test_a_server_that_is_busy_at_the_start_serves_later(vendor: StandIn) -> None:
    vendor.does.models = 503

    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        assert await answer_of(llm)

    serve(vendor, "llm", "openai", test)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (f'{{"error": {{"message": "no more for {CANARY}\\n today"}}}}', "no more for *** today"),
        ('{"error": "overloaded"}', "overloaded"),
        ("<html>", "sends what is not JSON"),
    ],
)
def test_what_goes_wrong_in_the_middle_of_an_answer_is_said(vendor: StandIn, spoil: str, says: str) -> None:
    vendor.does.spoil = spoil

    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        with pytest.raises(ProviderError) as caught:
            await answer_of(llm)
        assert says in str(caught.value)
        assert CANARY not in everything_about(caught.value)

    serve(vendor, "llm", "openai", test)


def test_an_llm_that_does_not_answer_in_time_is_an_error(vendor: StandIn) -> None:
    vendor.does.token_s = 30

    async def test(llm: OpenAiLlm, clock: Clock) -> None:
        with pytest.raises(ProviderError, match="does not answer within 200 ms"):
            await answer_of(llm)

    serve(vendor, "llm", "openai", test, timeout_ms=200)


def test_openai_needs_to_be_told_the_model(vendor: StandIn) -> None:
    error = problem(vendor, "llm", "openai", model=None)
    assert str(error) == "llm:openai: needs the name of a model. Add `model:`"


# Cartesia --------------------------------------------------------------------------------------


async def voice_of(tts: CartesiaTts, text: str) -> bytes:
    async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
        return b"".join([piece async for piece in audio])


def test_a_clause_ends_when_all_its_audio_is_there(vendor: StandIn) -> None:
    async def test(tts: CartesiaTts, clock: Clock) -> None:
        short, long = await asyncio.gather(voice_of(tts, "Hi."), voice_of(tts, "Good morning."))
        assert (len(short), len(long)) == (3 * 2880, 13 * 2880)

    serve(vendor, "tts", "cartesia", test)
    assert "cancel" not in vendor.got


def test_closing_a_clause_cancels_it(vendor: StandIn) -> None:
    async def test(tts: CartesiaTts, clock: Clock) -> None:
        audio = tts.synthesize(CLAUSE)
        await anext(audio)
        await audio.aclose()
        await until(clock, lambda: "cancel" in vendor.got)
        assert "spoken" not in vendor.got

    serve(vendor, "tts", "cartesia", test)


def test_nothing_to_say_is_not_asked(vendor: StandIn) -> None:
    async def test(tts: CartesiaTts, clock: Clock) -> None:
        assert await voice_of(tts, "…") == b""

    serve(vendor, "tts", "cartesia", test)
    assert vendor.got == []


def test_what_cartesia_does_not_like_is_said(vendor: StandIn) -> None:
    vendor.does.says = f"no such voice for {CANARY}"

    async def test(tts: CartesiaTts, clock: Clock) -> None:
        with pytest.raises(ProviderError, match=r"says: Bad request: no such voice for \*\*\*") as caught:
            await voice_of(tts, "Hello.")
        assert CANARY not in everything_about(caught.value)

    serve(vendor, "tts", "cartesia", test)


def test_a_voice_that_does_not_come_in_time_is_an_error(vendor: StandIn) -> None:
    vendor.does.token_s = 30

    async def test(tts: CartesiaTts, clock: Clock) -> None:
        with pytest.raises(ProviderError, match="sends nothing for"):
            await voice_of(tts, "Hello.")

    serve(vendor, "tts", "cartesia", test, timeout_ms=200)


def test_a_websocket_that_is_dropped_between_clauses_is_opened_again(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cartesia_tts, "_STEADY_S", 0.0)

    async def test(tts: CartesiaTts, clock: Clock) -> None:
        vendor.drop()
        await until(clock, lambda: len(vendor.seen) == 2 and vendor.open == 1)
        assert await voice_of(tts, "Hi.")

    serve(vendor, "tts", "cartesia", test)
    assert len(vendor.seen) == 2
