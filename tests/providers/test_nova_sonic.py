"""Amazon Nova Sonic: what a Python that is too old is told, and on a newer one AWS' SDK as we use it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from bedrock import WORDS, Bedrock

from voicectl.clock import Clock, run_on
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import AudioDelta, CallerSaid, S2sUsage, TextDelta
from voicectl.providers.nova_sonic_s2s import NovaSonic, Options

SECOND = bytes(32_000)
with_the_sdk = pytest.mark.skipif(
    importlib.util.find_spec("aws_sdk_bedrock_runtime") is None, reason="AWS' SDK needs Python 3.12"
)


def start_on(version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> ProviderError:
    monkeypatch.setattr(sys, "version_info", version)

    async def main(clock: Clock) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await NovaSonic(Options.model_validate({}), None, clock).start(print)
        return caught.value

    return run_on("virtual", main)


def test_a_python_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    error = start_on((3, 11, 7), monkeypatch)
    assert str(error) == (
        "s2s:nova-sonic: needs Python 3.12 or later; this is 3.11.7. There run: pip install 'voicectl[aws]'"
    )
    assert error.kind == "refused"


@pytest.mark.skipif(importlib.util.find_spec("aws_sdk_bedrock_runtime") is not None, reason="it is installed")
def test_a_newer_python_without_the_sdk_is_told_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    error = start_on((3, 12, 1), monkeypatch)
    assert isinstance(error, MissingExtra)
    assert str(error).endswith("Run: pip install 'voicectl[aws]'")


# With the SDK ----------------------------------------------------------------------------------


def serve(
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[[NovaSonic, Bedrock, Clock], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary-77")

    async def main(clock: Clock) -> None:
        bedrock = Bedrock(clock)
        nova = NovaSonic(Options.model_validate(options), None, clock, transport=bedrock)
        await nova.start(print)
        await nova.start(print)
        try:
            await test(nova, bedrock, clock)
        finally:
            await nova.aclose()
            await nova.aclose()
            await bedrock.close()
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    run_on("wall", main)


async def all_of(answer: Any) -> tuple[str, int]:
    """Its words, and how many bytes of sound."""
    async with aclosing(answer) as chunks:
        pieces = [chunk async for chunk in chunks]
    text = "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))
    return text, sum(len(piece.pcm) for piece in pieces if isinstance(piece, AudioDelta))


def told(exchange: list[tuple[str, dict[str, Any]]]) -> list[str]:
    roles = {body["contentName"]: body["role"] for kind, body in exchange if kind == "contentStart"}
    return [f"{roles[body['contentName']]} {body['content']}" for kind, body in exchange if kind == "textInput"]


@with_the_sdk
def test_a_turn_is_heard_and_answered_and_its_cost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nova: NovaSonic, bedrock: Bedrock, clock: Clock) -> None:
        stream = nova.open("Be brief.")
        for answer in (1, 2):
            stream.hear_from(float(answer))
            stream.push(SECOND)
            assert await all_of(stream.respond()) == (" ".join(WORDS), 10 * 4800), answer
        await clock.sleep_until(clock.now() + 0.2)
        await stream.aclose()
        news = [one async for one in stream]
        cost = {"model": "amazon.nova-2-sonic-v1:0", "prompt_tokens": 27, "completion_tokens": 39}
        tokens = {"audio_in_tokens": 20, "audio_out_tokens": 30}
        assert [one for one in news if isinstance(one, CallerSaid)] == [
            CallerSaid(1, "1000 ms"),
            CallerSaid(2, "1000 ms"),
        ]
        assert [one for one in news if isinstance(one, S2sUsage)] == [S2sUsage(n, **cost, **tokens) for n in (1, 2)]  # pyright: ignore[reportArgumentType]
        assert told(bedrock.exchanges[0]) == ["SYSTEM Be brief."]
        assert told(bedrock.exchanges[1]) == ["SYSTEM Be brief.", "USER 1000 ms", f"ASSISTANT {' '.join(WORDS)}"]
        assert [kind for kind, _ in bedrock.exchanges[0]][-2:] == ["promptEnd", "sessionEnd"]
        assert all("AKIDEXAMPLE" in signed and "us-east-1/bedrock" in signed for signed in bedrock.signed)

    serve(monkeypatch, test)


@with_the_sdk
def test_the_greeting_is_said_and_what_nobody_heard_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nova: NovaSonic, bedrock: Bedrock, clock: Clock) -> None:
        stream = nova.open("Be brief.")
        assert (await all_of(stream.say("Hello, this is the bakery.")))[0] == "Hello, this is the bakery."
        stream.truncate(0.1)  # of 0.5 s
        stream.push(SECOND)
        await all_of(stream.respond())
        assert told(bedrock.exchanges[1])[1:] == ["USER (The call begins.)", "ASSISTANT Hello,"]
        stream.truncate(0.0)
        stream.push(SECOND)
        await all_of(stream.respond())
        assert told(bedrock.exchanges[2])[1:] == ["USER (The call begins.)", "ASSISTANT Hello,", "USER 1000 ms"]
        await stream.aclose()

    serve(monkeypatch, test)


@with_the_sdk
def test_sound_that_is_forgotten_is_answered_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nova: NovaSonic, bedrock: Bedrock, clock: Clock) -> None:
        stream = nova.open("Be brief.")
        stream.push(SECOND)
        stream.forget()
        stream.push(SECOND + SECOND)
        await all_of(stream.respond())
        await stream.aclose()
        assert CallerSaid(1, "2000 ms") in [one async for one in stream]

    serve(monkeypatch, test)


@with_the_sdk
def test_an_answer_is_closed_within_50_ms_and_the_next_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nova: NovaSonic, bedrock: Bedrock, clock: Clock) -> None:
        stream = nova.open("Be brief.")
        took: list[float] = []
        for _ in range(20):
            stream.push(SECOND)
            answer = stream.respond()
            await anext(answer)
            since = clock.now()
            await answer.aclose()
            took.append(clock.now() - since)
            stream.truncate(0.0)
        assert sorted(took)[10] < 0.05, took
        stream.push(SECOND)
        assert (await all_of(stream.respond()))[0]
        await stream.aclose()
        costs = [one for one in [one async for one in stream] if isinstance(one, S2sUsage)]
        assert sorted(cost.answer for cost in costs if cost.estimated) == list(range(1, 21))

    serve(monkeypatch, test)


@with_the_sdk
@pytest.mark.parametrize(
    ("what", "value", "kind", "says"),
    [
        ("refuse", (403, "AccessDeniedException", "no access"), "refused", "no access"),
        ("refuse", (429, "ThrottlingException", "too many"), "rate_limited", "too many"),
        ("refuse", (500, "InternalServerException", "oh"), "server", "oh"),
        ("raises", ("modelStreamErrorException", "it broke"), "server", "it broke"),
        ("raises", ("throttlingException", "slow down"), "rate_limited", "slow down"),
        ("cut", True, "unreachable", "the answer was cut"),
        ("spoil", b"<html>", "protocol", "sends what is no answer"),
        ("spoil", b"5", "protocol", "sends what is no answer"),
    ],
)
def test_what_goes_wrong_is_one_line_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, what: str, value: Any, kind: str, says: str
) -> None:
    async def test(nova: NovaSonic, bedrock: Bedrock, clock: Clock) -> None:
        stream = nova.open("Be brief.")
        setattr(bedrock, what, value)
        stream.push(SECOND)
        with pytest.raises(ProviderError) as caught:
            await all_of(stream.respond())
        assert str(caught.value).startswith("s2s:nova-sonic: ")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.kind == kind
        setattr(bedrock, what, type(value)() if what in ("cut", "spoil") else None)
        stream.push(SECOND)
        assert (await all_of(stream.respond()))[0], "and the next works"
        await stream.aclose()

    serve(monkeypatch, test)


@with_the_sdk
def test_a_model_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nova: NovaSonic, bedrock: Bedrock, clock: Clock) -> None:
        async def nothing(*_: Any) -> None: ...

        monkeypatch.setattr(bedrock, "_talk", nothing)
        stream = nova.open("Be brief.")
        stream.push(SECOND)
        with pytest.raises(ProviderError, match="sends nothing for 200 ms") as caught:
            await all_of(stream.respond())
        assert caught.value.kind == "timeout"
        await stream.aclose()

    serve(monkeypatch, test, timeout_ms=200)
