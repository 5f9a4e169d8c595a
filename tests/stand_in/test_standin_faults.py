"""Each fault of the stand-in, as it reaches us through each vendor's real SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import LlmRequest, Message, TextDelta, TtsRequest
from voicectl.providers import CATALOG, StageName
from voicectl.standin import names
from voicectl.standin.answers import ANSWER
from voicectl.standin.faults import GATE_KINDS, STATUSES, Fault, FaultKind, Service
from voicectl.standin.server import StandIn

pytestmark = pytest.mark.wall

SOON_S = 0.2
WORDS = "w5 w6"
SPEECH = b"".join(bytes([word & 255, word >> 8]) * 8000 for word in (500, 600))
"""Half a second of each of the two words."""


@dataclass(frozen=True)
class Use:
    """How a service is used: its stage, our provider of it, and that one's model."""

    service: Service
    stage: StageName
    name: str
    model: str | None
    path: str = ""

    def __str__(self) -> str:
        return self.service


USES = [
    Use("deepgram-stt", "stt", "deepgram", "nova-3"),
    Use("deepgram-flux", "stt", "deepgram", "flux-general-en"),
    Use("openai-llm", "llm", "openai", "m", "/v1"),
    Use("cartesia-tts", "tts", "cartesia", None),
    Use("deepgram-tts", "tts", "deepgram", None),
    Use("openai-tts", "tts", "openai", "m", "/v1"),
    Use("openai-stt", "stt", "openai", "m", "/v1"),
    Use("cartesia-stt", "stt", "cartesia", None),
    Use("anthropic-llm", "llm", "anthropic", "m"),
    Use("elevenlabs-tts", "tts", "elevenlabs", None),
]
uses = pytest.mark.parametrize("use", USES, ids=str)


@pytest.fixture(scope="module")
def vendor() -> Iterator[StandIn]:
    """Names are its addresses, which any other fault does not mind."""
    with StandIn(named=True) as standin, names.known(standin):
        yield standin


@pytest.fixture(autouse=True)
def healed(vendor: StandIn) -> Iterator[None]:
    yield
    vendor.heal()


def provider(vendor: StandIn, use: Use, clock: Clock) -> Any:
    pytest.importorskip(
        "anthropic" if use.name == "anthropic" else "elevenlabs" if use.name == "elevenlabs" else "json"
    )
    kind = CATALOG.options(use.stage, use.name)
    options: dict[str, Any] = {"base_url": vendor.url_for(use.service) + use.path}
    if "timeout_ms" in kind.model_fields:
        options["timeout_ms"] = 1500
    return CATALOG.load(use.stage, use.name)(kind.model_validate(options), use.model, clock, api_key="any")


async def ask(use: Use, made: Any) -> str:
    """Use it once: what was understood, what was answered, or how many letters were spoken."""
    if use.stage == "stt":
        stream = made.open(0.0)
        try:
            stream.push(SPEECH)
            stream.flush()
            if use.service == "deepgram-flux":
                stream.push(bytes(2 * 6400))  # it is not asked, and says something as the audio goes on
            async for transcript in stream:
                if transcript.final:
                    return transcript.text
            raise AssertionError("the stream ended without an answer")
        finally:
            await stream.aclose()
    if use.stage == "llm":
        async with aclosing(made.generate(LlmRequest((Message("user", "Hello?"),)))) as chunks:
            return "".join([chunk.text async for chunk in chunks if isinstance(chunk, TextDelta)])
    async with aclosing(made.synthesize(TtsRequest("Good day."))) as audio:
        seconds = sum([len(piece) async for piece in audio]) / 2 / made.rate
        return f"{seconds / 0.06:.0f} letters"


WELL = {"stt": WORDS, "llm": ANSWER, "tts": "9 letters"}


async def outcome(vendor: StandIn, use: Use, clock: Clock, fault: Fault) -> tuple[str | ProviderError, float, str]:
    """What the fault makes of one use, how long that took, and what the next use is when it is healed."""
    made = provider(vendor, use, clock)
    await made.start(print)
    try:
        assert await ask(use, made) == WELL[use.stage]
        vendor.fault(fault)
        begun = clock.now()
        try:
            result: str | ProviderError = await ask(use, made)
        except ProviderError as error:
            result = error
        took = clock.now() - begun
        vendor.heal()
        return result, took, await until_well(use, made, clock)
    finally:
        await made.aclose()


async def until_well(use: Use, made: Any, clock: Clock) -> str:
    """A websocket that is lost may cost one more use."""
    for _ in range(3):
        try:
            if (again := await ask(use, made)) == WELL[use.stage]:
                return again
        except ProviderError:
            await clock.sleep_until(clock.now() + 0.05)
    return await ask(use, made)


def strike(vendor: StandIn, use: Use, fault: Fault) -> tuple[str | ProviderError, float]:
    struck = len(vendor.struck)
    result, took, again = run_on("wall", lambda clock: outcome(vendor, use, clock, fault))
    assert {one.kind for one in vendor.struck[struck:]} == {fault.kind}
    assert {one.service for one in vendor.struck[struck:]} == {use.service}
    assert again == WELL[use.stage], "when it is healed all is well again"
    return result, took


KIND_OF = {"401": "refused", "429": "rate_limited", "429-retry-after": "rate_limited", "500": "server"}


@uses
@pytest.mark.parametrize("kind", list(STATUSES))
def test_a_status_is_an_error_of_its_kind(vendor: StandIn, use: Use, kind: FaultKind) -> None:
    error, _ = strike(vendor, use, Fault(use.service, kind))
    assert isinstance(error, ProviderError)
    assert error.kind == KIND_OF[kind]


@uses
@pytest.mark.parametrize("kind", ["dns", "refused"])
def test_a_vendor_that_is_gone_is_an_error(vendor: StandIn, use: Use, kind: FaultKind) -> None:
    error, _ = strike(vendor, use, Fault(use.service, kind))
    assert isinstance(error, ProviderError)
    assert error.kind == "unreachable"


@uses
def test_a_connection_cut_in_the_middle_is_an_error(vendor: StandIn, use: Use) -> None:
    error, _ = strike(vendor, use, Fault(use.service, "cut", pieces=1))
    assert isinstance(error, ProviderError)
    assert error.kind == "unreachable"


@uses
def test_a_vendor_that_falls_silent_is_given_up(vendor: StandIn, use: Use) -> None:
    result, _ = strike(vendor, use, Fault(use.service, "silent", pieces=1))
    if isinstance(result, ProviderError):
        assert result.kind == "timeout"
    else:
        assert use.stage == "stt", "only a transcript may be what is known by then"


@uses
def test_nonsense_in_the_middle_is_an_error_or_passed_over(vendor: StandIn, use: Use) -> None:
    result, _ = strike(vendor, use, Fault(use.service, "malformed", pieces=1))
    if isinstance(result, ProviderError):
        assert result.kind in ("protocol", "unreachable")
    else:
        assert result == WELL[use.stage]


@uses
@pytest.mark.parametrize("kind", ["slow-first-byte", "drip"])
def test_what_is_slow_comes_all_the_same(vendor: StandIn, use: Use, kind: FaultKind) -> None:
    result, took = strike(vendor, use, Fault(use.service, kind, seconds=SOON_S if kind == "slow-first-byte" else 0.02))
    assert result == WELL[use.stage]
    if kind == "slow-first-byte":
        assert took >= SOON_S


@pytest.mark.parametrize("use", USES[:2], ids=str)
@pytest.mark.parametrize("seconds", [-30.0, 30.0])
def test_a_clock_that_is_wrong_makes_no_wrong_word(vendor: StandIn, use: Use, seconds: float) -> None:
    async def main(clock: Clock) -> str:
        made = provider(vendor, use, clock)
        await made.start(print)
        vendor.fault(Fault(use.service, "clock-skew", seconds=seconds))
        try:
            return await ask(use, made)
        finally:
            await made.aclose()

    struck = len(vendor.struck)
    assert WORDS.startswith(run_on("wall", main))
    assert {one.kind for one in vendor.struck[struck:]} == {"clock-skew"}


def test_a_certificate_that_nobody_trusts_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        vendor = stack.enter_context(StandIn(tls=True))
        urls = {use.service: vendor.url_for(use.service) for use in USES}
        monkeypatch.setenv("SSL_CERT_FILE", str(vendor.authority))
        assert all(url.startswith("https://127.0.0.1:") for url in urls.values())
        for use in USES:
            error, _ = strike(vendor, use, Fault(use.service, "tls"))
            assert isinstance(error, ProviderError), use
            assert error.kind == "unreachable", use


# Which request ---------------------------------------------------------------------------------


def test_the_request_that_was_meant_goes_wrong_and_no_other(vendor: StandIn) -> None:
    use = next(use for use in USES if use.service == "openai-llm")

    async def main(clock: Clock) -> list[bool]:
        made = provider(vendor, use, clock)
        await made.start(print)
        vendor.fault(Fault("openai-llm", "500", after=1, times=2))
        vendor.fault(Fault("cartesia-tts", "500"))
        fine: list[bool] = []
        for _ in range(4):
            try:
                fine.append(await ask(use, made) == ANSWER)
            except ProviderError:
                fine.append(False)
        await made.aclose()
        return fine

    struck = len(vendor.struck)
    assert run_on("wall", main) == [True, False, False, True]
    assert [(one.service, one.kind) for one in vendor.struck[struck:]] == [("openai-llm", "500")] * 2


def test_a_port_that_is_gone_takes_no_other_service_with_it(vendor: StandIn) -> None:
    llm, tts = (next(use for use in USES if use.service == name) for name in ("openai-llm", "cartesia-tts"))

    async def main(clock: Clock) -> str:
        speaking = provider(vendor, tts, clock)
        await speaking.start(print)
        vendor.url_for(llm.service)
        for kind in sorted(GATE_KINDS - {"tls"}):
            vendor.fault(Fault(llm.service, kind))
        try:
            return await ask(tts, speaking)
        finally:
            await speaking.aclose()

    assert run_on("wall", main) == "9 letters"
