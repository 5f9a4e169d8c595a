"""Anthropic's and ElevenLabs' SDKs, as our providers use them, against the stand-in on loopback.

What every provider keeps is in `test_contract.py`; here is what is theirs.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from standin import ANSWER, CANARY, StandIn
from test_cloud import REQUEST, everything_about, problem, serve, until

from voicectl.clock import Clock, run_on
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import LlmRequest, Message, Role, TextDelta, TtsRequest, Usage
from voicectl.providers import StageName, anthropic_llm, elevenlabs_tts
from voicectl.providers.anthropic_llm import AnthropicLlm
from voicectl.providers.elevenlabs_tts import ElevenLabsTts
from voicectl.standin import anthropic as anthropic_standin
from voicectl.standin.faults import Fault

pytestmark = pytest.mark.wall


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.mark.parametrize(("stage", "name"), [("llm", "anthropic"), ("tts", "elevenlabs")])
def test_a_missing_sdk_says_the_pip_line(
    vendor: StandIn, stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    importing = importlib.import_module

    def import_module(module: str, package: str | None = None) -> Any:
        if module.partition(".")[0] == name:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return importing(module, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    error = problem(vendor, stage, name)
    assert isinstance(error, MissingExtra)
    assert str(error) == (
        f"{stage}:{name}: needs the package '{name}', which is not installed. Run: pip install 'voicectl[cloud]'"
    )


# Anthropic -------------------------------------------------------------------------------------


async def answer_of(llm: AnthropicLlm, request: LlmRequest = REQUEST) -> list[object]:
    async with aclosing(llm.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


def talk(*said: tuple[Role, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in said)


@pytest.mark.parametrize(("cache", "first", "second"), [(True, 0, 2), (False, 0, 0)])
def test_the_answer_streams_and_its_cost_comes_last(vendor: StandIn, cache: bool, first: int, second: int) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        chunks = await answer_of(llm)
        assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta)) == ANSWER
        assert chunks[-1] == Usage(prompt_tokens=3, cached_tokens=first, completion_tokens=15)
        again = await answer_of(llm)
        assert again[-1] == Usage(prompt_tokens=3, cached_tokens=second, completion_tokens=15), "the system prompt"

    serve(vendor, "llm", "anthropic", test, cache=cache)


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        (talk(("system", "s"), ("user", "a")), ["user a"]),
        (
            talk(("system", "s"), ("assistant", "Hello."), ("user", "a")),
            ["user (The call begins.)", "assistant Hello.", "user a"],
        ),
        (talk(("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")), ["user a\nb", "assistant c", "user d"]),
        (
            talk(("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")),
            ["user a", "assistant b\nc", "user d"],
        ),
        (talk(("user", "a"), ("assistant", " "), ("user", "b")), ["user a\nb"]),
        (talk(("user", "a"), ("assistant", "b")), ["user a", "assistant b", "user (The caller says nothing.)"]),
        (talk(("system", "s")), ["user (The call begins.)"]),
    ],
)
def test_any_conversation_becomes_one_that_anthropic_takes(
    vendor: StandIn, messages: tuple[Message, ...], turns: list[str]
) -> None:
    asked: list[Any] = []

    def answer(conversation: Any) -> str:
        asked.extend(conversation[1:])
        return "Yes."

    vendor.answer = answer

    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        assert await answer_of(llm, LlmRequest(messages))

    serve(vendor, "llm", "anthropic", test)
    assert [f"{turn['role']} {turn['content']}" for turn in asked] == turns


def test_the_options_are_asked_for(vendor: StandIn) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        body = llm._body(REQUEST)
        assert (body["model"], body["max_tokens"], body["stream"]) == ("claude", 100, True)
        assert body["extra_body"]["thinking"] == {"type": "disabled"}
        assert body["extra_body"]["output_config"] == {"effort": "low"}
        assert body["extra_body"]["temperature"] == 0.5
        assert await answer_of(llm)

    options = {"thinking": "disabled", "effort": "low", "temperature": 0.5, "max_tokens": 100}
    serve(vendor, "llm", "anthropic", test, model="claude", **options)


def test_closing_an_answer_hangs_up_on_the_server(vendor: StandIn) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        answer = llm.generate(REQUEST)
        await anext(answer)
        await answer.aclose()
        await until(clock, lambda: "hung up" in vendor.got)
        assert "answered" not in vendor.got

    serve(vendor, "llm", "anthropic", test)


def test_one_connection_serves_one_answer_after_the_other(vendor: StandIn) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        for _ in range(3):
            await answer_of(llm)

    serve(vendor, "llm", "anthropic", test)
    assert vendor.got.count("connected") == 1
    assert vendor.got.count("answered") == 3


def test_warming_asks_for_no_answer_and_only_when_the_connection_is_old(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        await llm.warm(REQUEST.messages)
        assert [path for path, _, _ in vendor.seen] == ["/v1/models"], "start has just opened one"
        monkeypatch.setattr(anthropic_llm, "_KEEP_OPEN_S", 0.0)
        await llm.warm(REQUEST.messages)
        assert [path for path, _, _ in vendor.seen] == ["/v1/models"] * 2
        assert "asked" not in vendor.got

    serve(vendor, "llm", "anthropic", test)


@pytest.mark.parametrize("status", [403, 404, 429, 529])
def test_a_server_that_does_not_tell_its_models_serves(vendor: StandIn, status: int) -> None:
    vendor.does.models = status

    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        assert await answer_of(llm)

    serve(vendor, "llm", "anthropic", test)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "refused"),
        (401, "refused"),
        (404, "refused"),
        (408, "timeout"),
        (429, "rate_limited"),
        (500, "server"),
        (529, "server"),
    ],
)
def test_a_refusal_has_its_kind_and_keeps_the_key(vendor: StandIn, status: int, kind: str) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        vendor.does.refuse, vendor.does.says = status, f"not with\n {CANARY}"
        with pytest.raises(
            ProviderError, match=rf"^llm:anthropic: 127.0.0.1:\d+ says {status}: not with \*\*\*"
        ) as caught:
            await answer_of(llm)
        assert caught.value.kind == kind
        assert CANARY not in everything_about(caught.value)

    serve(vendor, "llm", "anthropic", test)


def test_how_long_to_wait_is_passed_on(vendor: StandIn) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        vendor.fault(Fault("anthropic-llm", "429-retry-after", times=1))
        with pytest.raises(ProviderError) as caught:
            await answer_of(llm)
        assert (caught.value.kind, caught.value.retry_after_s) == ("rate_limited", 1.0)
        assert await answer_of(llm)

    serve(vendor, "llm", "anthropic", test)


@pytest.mark.parametrize(
    ("spoil", "says", "kind"),
    [
        ('{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}', "Overloaded", "server"),
        (
            '{"type": "error", "error": {"type": "rate_limit_error", "message": "Too many"}}',
            "Too many",
            "rate_limited",
        ),
        (
            f'{{"type": "error", "error": {{"type": "invalid_request_error", "message": "no {CANARY}\\n today"}}}}',
            "no *** today",
            "refused",
        ),
        ("<html>", "sends what is no answer", "protocol"),
        ("[]", "sends what is no answer", "protocol"),
        ('{"no": "type"}', "sends what is no answer", "protocol"),
        (
            '{"type": "content_block_delta", "index": 7, "delta": {"type": "input_json_delta", "partial_json": "{"}}',
            "sends what is no answer",
            "protocol",
        ),
    ],
)
def test_what_goes_wrong_in_the_middle_of_an_answer_is_said(vendor: StandIn, spoil: str, says: str, kind: str) -> None:
    vendor.does.spoil = spoil

    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        with pytest.raises(ProviderError) as caught:
            await answer_of(llm)
        assert says in str(caught.value)
        assert caught.value.kind == kind
        assert CANARY not in everything_about(caught.value)

    serve(vendor, "llm", "anthropic", test)


def test_what_anthropic_will_add_to_its_stream_does_no_harm(vendor: StandIn) -> None:
    vendor.does.spoil = '{"type": "something_new", "delta": 5}'

    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        assert len(await answer_of(llm)) == 16

    serve(vendor, "llm", "anthropic", test)


def test_an_answer_that_ends_too_soon_is_an_error(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = anthropic_standin._Answer._pieces

    def three(self: anthropic_standin._Answer) -> list[str]:
        return list(pieces(self))[:3]

    monkeypatch.setattr(anthropic_standin._Answer, "_pieces", three)

    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        with pytest.raises(ProviderError, match="the answer was cut") as caught:
            await answer_of(llm)
        assert caught.value.kind == "unreachable"

    serve(vendor, "llm", "anthropic", test)


def test_an_llm_that_does_not_answer_in_time_is_an_error(vendor: StandIn) -> None:
    async def test(llm: AnthropicLlm, clock: Clock) -> None:
        vendor.does.token_s = 30
        with pytest.raises(ProviderError, match="does not answer within 200 ms") as caught:
            await answer_of(llm)
        assert caught.value.kind == "timeout"

    serve(vendor, "llm", "anthropic", test, timeout_ms=200)


def test_anthropic_needs_to_be_told_the_model(vendor: StandIn) -> None:
    error = problem(vendor, "llm", "anthropic", model=None)
    assert str(error) == "llm:anthropic: needs the name of a model. Add `model:`"


# ElevenLabs ------------------------------------------------------------------------------------


async def voice_of(tts: ElevenLabsTts, text: str) -> bytes:
    async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
        return b"".join([piece async for piece in audio])


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000])
def test_a_clause_ends_when_all_its_audio_is_there(vendor: StandIn, rate: int) -> None:
    letter = 2 * round(0.06 * rate)

    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        assert tts.rate == rate
        short, long = await asyncio.gather(voice_of(tts, "Hi."), voice_of(tts, "Good morning."))
        assert (len(short), len(long)) == (3 * letter, 13 * letter)

    serve(vendor, "tts", "elevenlabs", test, rate=rate)
    assert vendor.got.count("spoken") == 2


def test_the_voice_and_its_settings_are_asked_for(vendor: StandIn) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        body = tts._body("Hi.")
        assert body["model_id"] == "eleven_v3"
        assert body["language_code"] == "de"
        assert body["voice_settings"].speed == 1.1
        assert await voice_of(tts, "Hi.")

    serve(vendor, "tts", "elevenlabs", test, model="eleven_v3", voice="ada", language="de", speed=1.1)
    assert vendor.seen[-1] == ("/v1/text-to-speech/ada/stream", {"output_format": "pcm_24000"}, CANARY)


def test_closing_a_clause_hangs_up_and_opens_the_next_connection_at_once(vendor: StandIn) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        audio = tts.synthesize(TtsRequest("Good morning."))
        await anext(audio)
        await audio.aclose()
        await until(clock, lambda: "hung up" in vendor.got)
        await until(clock, lambda: vendor.got.count("connected") == 2)
        assert "spoken" not in vendor.got
        await until(clock, lambda: tts._opening is None or tts._opening.done())
        assert await voice_of(tts, "Hi.")

    serve(vendor, "tts", "elevenlabs", test)
    assert vendor.got.count("connected") == 2


def test_one_connection_serves_one_clause_after_the_other(vendor: StandIn) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        for _ in range(3):
            await voice_of(tts, "Hi.")

    serve(vendor, "tts", "elevenlabs", test)
    assert vendor.got.count("connected") == 1


def test_nothing_to_say_is_not_asked(vendor: StandIn) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        assert await voice_of(tts, "…") == b""

    serve(vendor, "tts", "elevenlabs", test)
    assert "speak" not in vendor.got


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "refused"), (401, "refused"), (422, "refused"), (429, "rate_limited"), (503, "server")]
)
def test_what_elevenlabs_does_not_like_is_said(vendor: StandIn, status: int, kind: str) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        vendor.does.refuse, vendor.does.says = status, f"no such\n voice for {CANARY}"
        with pytest.raises(ProviderError, match=rf"says {status}: no such voice for \*\*\*") as caught:
            await voice_of(tts, "Hello.")
        assert caught.value.kind == kind
        assert CANARY not in everything_about(caught.value)
        assert vendor.got.count("speak") == 1, "it is not for the SDK to try again"

    serve(vendor, "tts", "elevenlabs", test)


def test_a_key_for_speech_alone_serves(vendor: StandIn) -> None:
    vendor.does.models, vendor.does.says = 401, "missing_permissions: models_read"

    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        vendor.does.says = ""
        assert await voice_of(tts, "Hi.")

    serve(vendor, "tts", "elevenlabs", test)


@pytest.mark.parametrize(
    ("kind", "is_kind"), [("cut", "unreachable"), ("malformed", "protocol"), ("429-retry-after", "rate_limited")]
)
def test_a_fault_within_a_clause_has_its_kind_and_the_next_clause_is_spoken(
    vendor: StandIn, kind: Any, is_kind: str
) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        vendor.fault(Fault("elevenlabs-tts", kind, times=1))
        with pytest.raises(ProviderError) as caught:
            await voice_of(tts, "Hello.")
        assert caught.value.kind == is_kind
        assert caught.value.retry_after_s == (1.0 if is_kind == "rate_limited" else None)
        assert len(await voice_of(tts, "Hi.")) == 3 * 2880

    serve(vendor, "tts", "elevenlabs", test)


def test_a_voice_that_does_not_come_in_time_is_an_error(vendor: StandIn) -> None:
    async def test(tts: ElevenLabsTts, clock: Clock) -> None:
        vendor.does.token_s = 30
        with pytest.raises(ProviderError, match="sends nothing for 200 ms") as caught:
            await voice_of(tts, "Hello.")
        assert caught.value.kind == "timeout"

    serve(vendor, "tts", "elevenlabs", test, timeout_ms=200)


def test_what_is_no_audio_is_not_played() -> None:
    async def main(clock: Clock) -> None:
        tts = ElevenLabsTts(elevenlabs_tts.Options.model_validate({}), None, clock)
        tts._look_at("audio/pcm")
        tts._look_at("")
        with pytest.raises(ProviderError, match="sends text/html for audio") as caught:
            tts._look_at("text/html; charset=utf-8")
        assert caught.value.kind == "protocol"

    run_on("virtual", main)
