"""Aura, OpenAI's speech and transcription, and Ink: the vendors' SDKs, as our providers use them, against
the stand-in on loopback; and of what kind the errors of every such provider are.

What every provider keeps is in `test_contract.py`; here is what is theirs.
"""

from __future__ import annotations

import asyncio
import re
from array import array
from collections.abc import Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
from standin import CANARY, StandIn, sound
from test_cloud import CLAUSE, everything_about, final, next_end, problem, serve, until, use

from tests.pipeline.calls import story
from voicectl.audio import Pcm
from voicectl.clock import Clock, run_on
from voicectl.errors import FailureKind, ProviderError, VoicectlError
from voicectl.events import PlayoutFinished, ProviderFailed, TranscriptUpdated
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.protocols import Providers, Transcript, TtsRequest
from voicectl.pipeline.session import AgentRules, Session
from voicectl.pipeline.turn_taking import TurnRules
from voicectl.providers import StageName, cartesia_stt, deepgram_tts, openai_stt, openai_tts
from voicectl.providers.cartesia_stt import CartesiaStt
from voicectl.providers.deepgram_stt import DeepgramStt
from voicectl.providers.deepgram_tts import DeepgramTts
from voicectl.providers.openai_stt import OpenAiStt
from voicectl.providers.openai_tts import OpenAiTts
from voicectl.providers.scripted import ScriptedVad, VadOptions
from voicectl.standin import deepgram_speak
from voicectl.standin.answers import echo
from voicectl.standin.ears import Library
from voicectl.standin.faults import Fault, FaultKind, Service
from voicectl.standin.tones import CALLER, say, seconds
from voicectl.standin.voices import in_tones
from voicectl.trace import Trace
from voicectl.transports.caller import AfterAgent, Caller, Utterance
from voicectl.transports.wav import WavTransport

pytestmark = pytest.mark.wall

OURS: list[tuple[StageName, str]] = [("tts", "deepgram"), ("tts", "openai"), ("stt", "openai"), ("stt", "cartesia")]
ours = pytest.mark.parametrize(("stage", "name"), OURS)

SERVICES: dict[tuple[StageName, str], Service] = {
    ("tts", "deepgram"): "deepgram-tts",
    ("tts", "openai"): "openai-tts",
    ("tts", "cartesia"): "cartesia-tts",
    ("stt", "openai"): "openai-stt",
    ("stt", "cartesia"): "cartesia-stt",
    ("stt", "deepgram"): "deepgram-stt",
    ("llm", "openai"): "openai-llm",
}
everybody = pytest.mark.parametrize(("stage", "name"), list(SERVICES))
WEBSOCKETS: list[tuple[StageName, str]] = [
    ("tts", "deepgram"),
    ("tts", "cartesia"),
    ("stt", "cartesia"),
    ("stt", "deepgram"),
]

PATHS = {
    ("tts", "deepgram"): "/v1/speak",
    ("tts", "openai"): "/v1/audio/speech",
    ("stt", "openai"): "/v1/audio/transcriptions",
    ("stt", "cartesia"): "/stt/websocket",
}


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


def cut_everybody(vendor: StandIn) -> None:
    """Every connection, websocket or not, as a network does."""
    assert vendor._loop
    asyncio.run_coroutine_threadsafe(_abort(vendor), vendor._loop).result(10)


async def _abort(vendor: StandIn) -> None:
    vendor._abort(None)


async def noticed(vendor: StandIn, word: str, clock: Clock) -> None:
    """The vendor knows at once that nobody listens any more; a second is what a busy machine may take."""
    began = clock.now()
    while word not in vendor.got:
        assert clock.now() - began < 1.0
        await clock.sleep_until(clock.now() + 0.0005)


# All four --------------------------------------------------------------------------------------


@ours
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


@ours
def test_nobody_there_is_one_clear_line(vendor: StandIn, stage: StageName, name: str) -> None:
    error = problem(vendor, stage, name, url="http://127.0.0.1:9")
    assert str(error).startswith(f"{stage}:{name}: ")
    assert "127.0.0.1:9" in str(error)
    assert "\n" not in str(error)
    assert error.kind == "unreachable"
    assert CANARY not in everything_about(error)


@ours
def test_a_missing_key_names_its_variable(
    stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch, vendor: StandIn
) -> None:
    variable = f"{name.upper()}_API_KEY"
    monkeypatch.delenv(variable, raising=False)
    error = problem(vendor, stage, name, key=None)
    assert str(error) == f"{stage}:{name}: has no key. Set {variable}"
    assert error.kind == "refused"
    assert vendor.seen == []


@ours
def test_the_key_comes_from_the_environment(
    stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch, vendor: StandIn
) -> None:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "key-of-the-environment")

    async def test(provider: Any, clock: Clock) -> None:
        assert vendor.seen[0][2] == "key-of-the-environment"

    serve(vendor, stage, name, test, key=None)


@ours
def test_before_the_start_it_says_so(vendor: StandIn, stage: StageName, name: str) -> None:
    async def main(clock: Clock) -> None:
        with pytest.raises(ProviderError, match="was asked before it was started"):
            await use(stage, vendor.build(clock, stage, name))

    run_on("wall", main)


@everybody
def test_on_the_virtual_clock_it_does_not_start(vendor: StandIn, stage: StageName, name: str) -> None:
    async def main(clock: Clock) -> None:
        provider = vendor.build(clock, stage, name)
        try:
            with pytest.raises(VoicectlError, match="on the virtual clock"):
                await provider.start(print)
        finally:
            await provider.aclose()

    run_on("virtual", main)
    assert vendor.seen == []


def alone(stage: StageName, name: str) -> dict[str, int]:
    """Options for one websocket where more are kept open."""
    return {"connections": 1} if (stage, name) == ("tts", "deepgram") else {}


@ours
def test_one_connection_serves_one_use_after_the_other(vendor: StandIn, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        for _ in range(3):
            await use(stage, provider)
            if (stage, name) == ("stt", "openai"):  # the answer's end comes after its text
                await until(clock, lambda: len(provider._tasks) == 1)

    serve(vendor, stage, name, test, **alone(stage, name))
    assert {path for path, _, _ in vendor.seen} <= {PATHS[stage, name], "/v1/models"}
    assert (vendor.got.count("connected") if name == "openai" else len(vendor.seen)) == 1


@ours
def test_many_uses_at_once_do_not_wait_for_each_other(vendor: StandIn, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        await asyncio.gather(*(clock.spawn(use(stage, provider), name=f"use {index}") for index in range(4)))

    serve(vendor, stage, name, test)


@pytest.mark.parametrize(("stage", "name"), [*OURS, ("tts", "cartesia")])
def test_an_idle_connection_that_was_dropped_is_no_error(vendor: StandIn, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        await use(stage, provider)
        cut_everybody(vendor)
        await until(clock, lambda: not (provider._idle if stage == "stt" and name == "cartesia" else vendor.open))
        await use(stage, provider)

    serve(vendor, stage, name, test)


@pytest.mark.parametrize(("stage", "name"), [("tts", "deepgram"), ("stt", "cartesia")])
def test_a_dropped_websocket_is_opened_again_before_it_is_needed(
    vendor: StandIn, stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepgram_tts, "_KEEP_S", 0.02)
    monkeypatch.setattr(cartesia_stt, "_KEEP_S", 0.02)

    async def test(provider: Any, clock: Clock) -> None:
        vendor.drop()
        await until(clock, lambda: len(vendor.seen) == 2 and vendor.open == 1)
        await use(stage, provider)

    serve(vendor, stage, name, test, connections=1)
    assert len(vendor.seen) == 2


@pytest.mark.parametrize(("stage", "name"), [("tts", "deepgram"), ("stt", "cartesia")])
def test_websockets_more_than_wanted_are_closed_when_nobody_needs_them(
    vendor: StandIn, stage: StageName, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (deepgram_tts, cartesia_stt):
        monkeypatch.setattr(module, "_KEEP_S", 0.02)
        monkeypatch.setattr(module, "_IDLE_S", 0.1)

    async def test(provider: Any, clock: Clock) -> None:
        await asyncio.gather(*(clock.spawn(use(stage, provider), name=f"use {index}") for index in range(3)))
        await until(clock, lambda: vendor.open == 1)

    serve(vendor, stage, name, test, connections=1)
    assert len(vendor.seen) == 3


@pytest.mark.parametrize(("stage", "module"), [("tts", openai_tts), ("stt", openai_stt)])
def test_a_connection_that_nobody_uses_is_kept_warm(
    vendor: StandIn, stage: StageName, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_OPEN_S", 0.05)

    async def test(provider: Any, clock: Clock) -> None:
        await until(clock, lambda: [path for path, _, _ in vendor.seen].count("/v1/models") >= 3)

    serve(vendor, stage, "openai", test)
    assert vendor.got.count("connected") == 1


@pytest.mark.parametrize("stage", ["tts", "stt"])
def test_openai_needs_to_be_told_the_model(vendor: StandIn, stage: StageName) -> None:
    error = problem(vendor, stage, "openai", model=None)
    assert str(error) == f"{stage}:openai: needs the name of a model. Add `model:`"


# What kind of error it is ----------------------------------------------------------------------


async def breaks(vendor: StandIn, stage: StageName, name: str, provider: Any, fault: Fault) -> ProviderError:
    """What the fault is to who uses it once; and after it the provider serves again."""
    vendor.fault(fault)
    with pytest.raises(ProviderError) as caught:
        await use(stage, provider)
    vendor.heal()
    await use(stage, provider)
    assert CANARY not in everything_about(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@everybody
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", "rate_limited"),
        ("500", "server"),
        ("401", "refused"),
        ("cut", "unreachable"),
        ("malformed", "protocol"),
    ],
)
def test_what_goes_wrong_has_its_kind(
    vendor: StandIn, stage: StageName, name: str, fault: FaultKind, kind: FailureKind
) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        error = await breaks(vendor, stage, name, provider, Fault(SERVICES[stage, name], fault, times=1, pieces=1))
        assert error.kind == kind, str(error)

    serve(vendor, stage, name, test, **alone(stage, name))


@pytest.mark.parametrize(
    ("stage", "name"),
    [("tts", "deepgram"), ("tts", "openai"), ("tts", "cartesia"), ("stt", "openai"), ("llm", "openai")],
)
def test_silence_is_a_timeout(vendor: StandIn, stage: StageName, name: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        error = await breaks(vendor, stage, name, provider, Fault(SERVICES[stage, name], "silent", times=1, pieces=1))
        assert error.kind == "timeout"

    serve(vendor, stage, name, test, timeout_ms=1000)


@pytest.mark.parametrize("silent_after", [0, 1])
def test_a_voice_that_falls_silent_does_not_hold_up_the_next_clause(vendor: StandIn, silent_after: int) -> None:
    async def test(tts: Any, clock: Clock) -> None:
        vendor.fault(Fault("cartesia-tts", "silent", times=1, pieces=silent_after))
        with pytest.raises(ProviderError, match=r"sends nothing for 1 s"):
            await voice_of(tts, "Good morning.")
        assert len(await voice_of(tts, "Hi.")) == 3 * 2880

    serve(vendor, "tts", "cartesia", test, timeout_ms=1000)
    assert len(vendor.seen) == 2


@pytest.mark.parametrize(
    ("name", "service", "more"),
    [
        ("deepgram", "deepgram-stt", {}),
        ("deepgram", "deepgram-flux", {"model": "flux-general-en"}),
        ("cartesia", "cartesia-stt", {}),
    ],
)
def test_ears_that_say_nothing_to_much_audio_are_an_error_and_the_next_turn_is_heard(
    vendor: StandIn, name: str, service: Service, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicectl.providers.deepgram_stt._ANSWER_S", 0.1)
    monkeypatch.setattr(cartesia_stt._Turn, "_settle_s", 0.1)

    async def test(stt: Any, clock: Clock) -> None:
        vendor.fault(Fault(service, "silent", times=1, pieces=0))
        stream = stt.open(0.0)
        stream.push(sound(5, 6, 7, 8))
        stream.flush()
        with pytest.raises(ProviderError, match=r"says nothing to 2\.0 s of audio") as caught:
            await final(stream)
        assert caught.value.kind == "timeout"
        await stream.aclose()
        stream = stt.open(5.0)
        stream.push(sound(5, 6))
        stream.flush()
        stream.push(sound(0, seconds=0.3))
        assert (await final(stream)).text == "w5 w6"
        await stream.aclose()

    serve(vendor, "stt", name, test, **more)
    assert len(vendor.seen) == 2


@everybody
def test_how_long_to_wait_is_handed_on(vendor: StandIn, stage: StageName, name: str) -> None:
    vendor.fault(Fault(SERVICES[stage, name], "429-retry-after"))
    error = problem(vendor, stage, name)
    assert (error.kind, error.retry_after_s) == ("rate_limited", 1.0)


@everybody
def test_a_closed_port_is_unreachable_and_the_provider_lives_on(vendor: StandIn, stage: StageName, name: str) -> None:
    service = SERVICES[stage, name]
    url = vendor.url_for(service) + ("/v1" if name == "openai" else "")

    async def test(provider: Any, clock: Clock) -> None:
        error = await breaks(vendor, stage, name, provider, Fault(service, "refused"))
        assert error.kind == "unreachable"

    serve(vendor, stage, name, test, url=url)


@pytest.mark.parametrize(("stage", "name"), WEBSOCKETS)
def test_a_websocket_that_is_closed_with_a_reason_has_a_kind(vendor: StandIn, stage: StageName, name: str) -> None:
    vendor.does.says = f"no such voice or model for {CANARY}"
    error = problem(vendor, stage, name)
    assert "no such voice or model for ***" in str(error)
    assert error.kind in ("refused", "failed")
    assert CANARY not in everything_about(error)


# Voices ----------------------------------------------------------------------------------------

voices = pytest.mark.parametrize("name", ["deepgram", "openai"])


async def voice_of(tts: Any, text: str) -> bytes:
    async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
        return b"".join([piece async for piece in audio])


@voices
def test_audio_is_there_before_the_clause_is_spoken(vendor: StandIn, name: str) -> None:
    async def test(tts: Any, clock: Clock) -> None:
        async with aclosing(tts.synthesize(CLAUSE)) as audio:
            first = await anext(audio)
            assert 0 < len(first) <= 2880
            assert "spoken" not in vendor.got
            rest = [piece async for piece in audio]
        assert len(first) + sum(map(len, rest)) == len(CLAUSE.text) * 2880

    serve(vendor, "tts", name, test)


@voices
def test_a_clause_ends_when_all_its_audio_is_there(vendor: StandIn, name: str) -> None:
    async def test(tts: Any, clock: Clock) -> None:
        short, long = await asyncio.gather(voice_of(tts, "Hi."), voice_of(tts, "Good morning."))
        assert (len(short), len(long)) == (3 * 2880, 13 * 2880)

    serve(vendor, "tts", name, test)


@voices
def test_closing_a_clause_stops_it_at_the_vendor(vendor: StandIn, name: str) -> None:
    notices = {"deepgram": "Clear", "openai": "hung up"}[name]

    async def test(tts: Any, clock: Clock) -> None:
        audio = tts.synthesize(CLAUSE)
        await anext(audio)
        await audio.aclose()
        await noticed(vendor, notices, clock)
        assert "spoken" not in vendor.got

    serve(vendor, "tts", name, test)


@voices
def test_nothing_to_say_is_not_asked(vendor: StandIn, name: str) -> None:
    async def test(tts: Any, clock: Clock) -> None:
        assert await voice_of(tts, "…") == b""

    serve(vendor, "tts", name, test)
    assert not {"Speak", "speak"} & set(vendor.got)


def test_what_is_left_of_a_dropped_clause_is_not_in_the_next(vendor: StandIn) -> None:
    def by_length(text: str, rate: int) -> bytes:
        return array("h", [len(text)] * (rate // 50) * len(text)).tobytes()

    vendor.voice = by_length

    async def test(tts: DeepgramTts, clock: Clock) -> None:
        for dropped, kept in pairwise(["Good morning, madam.", "What?", "One moment.", "Goodbye, and thank you."]):
            audio = tts.synthesize(TtsRequest(dropped))
            await anext(audio)
            await audio.aclose()
            assert await voice_of(tts, kept) == by_length(kept, 24_000)

    serve(vendor, "tts", "deepgram", test, connections=1)
    assert len(vendor.seen) <= 4, "one that Deepgram has cleared is used again"


def test_a_websocket_is_used_again_when_it_is_clear(vendor: StandIn) -> None:
    async def test(tts: DeepgramTts, clock: Clock) -> None:
        for _ in range(3):
            audio = tts.synthesize(CLAUSE)
            await anext(audio)
            await audio.aclose()
            await until(clock, lambda: tts._idle)

    serve(vendor, "tts", "deepgram", test, connections=1)
    assert len(vendor.seen) == 1
    assert vendor.got.count("Clear") == 3


def forgets(message: object) -> None:
    """Deepgram never says `Cleared`."""


def test_a_websocket_that_is_never_clear_is_given_up(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_tts, "_KEEP_S", 0.02)
    monkeypatch.setattr(deepgram_tts, "_CLEAR_S", 0.05)

    async def test(tts: DeepgramTts, clock: Clock) -> None:
        audio = tts.synthesize(CLAUSE)
        await anext(audio)
        for line in tts._open:
            monkeypatch.setattr(line, "_take", forgets)
        await audio.aclose()
        await until(clock, lambda: len(vendor.seen) == 2 and vendor.open == 1)
        assert await voice_of(tts, "Hi.")

    serve(vendor, "tts", "deepgram", test, connections=1)


def test_no_websocket_is_flushed_more_often_than_deepgram_allows(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepgram_tts, "_FLUSHES", 3)
    monkeypatch.setattr(deepgram_speak, "_FLUSHES", 3)

    async def test(tts: DeepgramTts, clock: Clock) -> None:
        for _ in range(7):
            assert await voice_of(tts, "Hi.")

    serve(vendor, "tts", "deepgram", test, connections=1)
    assert len(vendor.seen) == 3


def test_one_flush_too_many_is_too_much_at_once(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_speak, "_FLUSHES", 1)

    async def test(tts: DeepgramTts, clock: Clock) -> None:
        assert await voice_of(tts, "Hi.")
        with pytest.raises(ProviderError, match="no more than 1 flushes in 60 s") as caught:
            await voice_of(tts, "Hi.")
        assert caught.value.kind == "rate_limited"

    serve(vendor, "tts", "deepgram", test, connections=1)


def test_aura_is_asked_as_it_was_told(vendor: StandIn) -> None:
    async def test(tts: DeepgramTts, clock: Clock) -> None: ...

    serve(vendor, "tts", "deepgram", test, model="aura-2-orion-en", speed=1.2, connections=1)
    assert [seen[:2] for seen in vendor.seen] == [
        ("/v1/speak", {"model": "aura-2-orion-en", "encoding": "linear16", "sample_rate": "24000", "speed": "1.2"})
    ]


@pytest.mark.parametrize("form", ["application/json", "audio/mpeg"])
def test_what_is_no_pcm_is_not_played(vendor: StandIn, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(tts: OpenAiTts, clock: Clock) -> None:
        monkeypatch.setattr(openai_tts, "_OTHER", ("audio/pcm",))  # which is what the stand-in sends
        with pytest.raises(ProviderError, match="sends audio/pcm where pcm was asked for") as caught:
            await voice_of(tts, "Hi.")
        assert caught.value.kind == "protocol"

    assert form.startswith(openai_tts._OTHER)
    serve(vendor, "tts", "openai", test)


def test_openai_is_told_how_to_speak(vendor: StandIn) -> None:
    async def test(tts: OpenAiTts, clock: Clock) -> None:
        assert tts._body("Hi.") == {
            "model": "m",
            "voice": "cedar",
            "input": "Hi.",
            "response_format": "pcm",
            "instructions": "Warmly.",
            "speed": 1.1,
        }

    serve(vendor, "tts", "openai", test, voice="cedar", instructions="Warmly.", speed=1.1)


# Ears: OpenAI ----------------------------------------------------------------------------------


def test_the_text_comes_in_pieces_and_then_whole(vendor: StandIn) -> None:
    async def test(stt: OpenAiStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6))
        stream.flush()
        heard: list[Transcript] = []
        async for transcript in stream:
            heard.append(transcript)
            if transcript.final:
                break
        assert heard == [Transcript("w5"), Transcript("w5 w6"), Transcript("w5 w6", 1)]
        stream.push(sound(7))
        stream.flush()
        async for transcript in stream:
            heard.append(transcript)
            if transcript.final:
                break
        assert heard[3:] == [Transcript("w5 w6 w7"), Transcript("w5 w6 w7", 2)], "what is known is not said again"
        await stream.aclose()

    serve(vendor, "stt", "openai", test)


def test_a_flush_that_is_overtaken_hangs_up(vendor: StandIn) -> None:
    vendor.does.finalize_s = 5.0

    async def test(stt: OpenAiStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5))
        stream.flush()
        await until(clock, lambda: "transcribe" in vendor.got)
        vendor.does.finalize_s = 0.0
        stream.push(sound(6))
        stream.flush()
        await noticed(vendor, "hung up", clock)
        assert await final(stream) == Transcript("w5 w6", 2)
        await stream.aclose()

    serve(vendor, "stt", "openai", test)


def test_closing_a_turn_drops_what_was_asked(vendor: StandIn) -> None:
    vendor.does.finalize_s = 5.0

    async def test(stt: OpenAiStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5))
        stream.flush()
        await until(clock, lambda: "transcribe" in vendor.got)
        await stream.aclose()
        await noticed(vendor, "hung up", clock)

    serve(vendor, "stt", "openai", test)


def test_too_little_to_be_a_word_is_not_sent(vendor: StandIn) -> None:
    async def test(stt: OpenAiStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.flush()
        stream.push(sound(5, seconds=0.05))
        stream.flush()
        async for transcript in stream:
            assert transcript.text == ""
            if transcript.flush == 2:
                break
        await stream.aclose()

    serve(vendor, "stt", "openai", test)
    assert "transcribe" not in vendor.got


def test_a_server_that_does_not_stream_serves(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = OpenAiStt._body

    def asked(self: OpenAiStt, pcm: bytes) -> dict[str, Any]:
        return {**asks(self, pcm), "stream": False}

    monkeypatch.setattr(OpenAiStt, "_body", asked)

    async def test(stt: OpenAiStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6))
        stream.flush()
        assert await final(stream) == Transcript("w5 w6", 1)
        await stream.aclose()

    serve(vendor, "stt", "openai", test)


def test_what_openai_does_not_like_in_the_middle_is_said(vendor: StandIn) -> None:
    vendor.does.says = f"no more for\n{CANARY}"
    error = problem(vendor, "stt", "openai")
    assert re.search(r"no more for \*\*\*", str(error))
    assert CANARY not in everything_about(error)


# Ears: Ink -------------------------------------------------------------------------------------


def test_ink_is_asked_and_the_text_is_that_of_the_whole_turn(vendor: StandIn) -> None:
    async def test(stt: CartesiaStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        for flush, word in enumerate((5, 6, 7), 1):
            stream.push(sound(word))
            stream.flush()
            assert await final(stream) == Transcript(" ".join(["w5", "w6", "w7"][:flush]), flush)
        await stream.aclose()

    serve(vendor, "stt", "cartesia", test, keyterms=("latte",))
    assert vendor.seen[0][1] == {
        "model": "ink-2",
        "encoding": "pcm_s16le",
        "sample_rate": "16000",
        "language": "en",
        "keyterm": "latte",
    }


def test_ink_says_what_it_hears_before_it_is_asked(vendor: StandIn) -> None:
    async def test(stt: CartesiaStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6))
        heard = aiter(stream)
        assert [await anext(heard), await anext(heard)] == [Transcript("w5"), Transcript("w5 w6")]
        await stream.aclose()

    serve(vendor, "stt", "cartesia", test)


def test_late_answers_of_a_turn_do_not_reach_the_next(vendor: StandIn) -> None:
    vendor.does.finalize_s = 0.2

    async def test(stt: CartesiaStt, clock: Clock) -> None:
        first = stt.open(0.0)
        first.push(sound(5))
        first.flush()
        first.push(sound(6))
        await first.aclose()
        second = stt.open(1.0)
        second.push(sound(7))
        second.flush()
        assert [transcript.text async for transcript in first] == []
        assert await final(second) == Transcript("w7", 1)
        await second.aclose()

    serve(vendor, "stt", "cartesia", test)
    assert len(vendor.seen) == 1


def test_a_flush_that_ink_does_not_answer_gets_what_is_known_and_its_websocket_goes(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cartesia_stt._Turn, "_settle_s", 0.1)
    vendor.does.finalize_answers = False

    async def test(stt: CartesiaStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6))
        stream.flush()
        assert await final(stream) == Transcript("w5 w6", 1)
        await stream.aclose()
        vendor.does.finalize_answers = True
        await use("stt", stt)

    serve(vendor, "stt", "cartesia", test)
    assert len(vendor.seen) == 2


def test_ink_says_likely_resumed_and_over(vendor: StandIn) -> None:
    async def test(stt: CartesiaStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5) + sound(0, seconds=0.4) + sound(6) + sound(0, seconds=0.7) + sound(7))
        ends = [await next_end(stream) for _ in range(4)]
        assert ends == [
            Transcript("w5", 0, "likely"),
            Transcript("w5", 0, "resumed"),
            Transcript("w5 w6", 0, "likely"),
            Transcript("w5 w6", 0, "over"),
        ]
        async for transcript in stream:
            assert transcript == Transcript("w5 w6 w7"), "the turn is ours to end: what follows belongs to it"
            break
        await stream.aclose()

    serve(vendor, "stt", "cartesia", test, turns=True, end_threshold=0.1, end_timeout_ms=2000)
    path, query, _ = vendor.seen[0]
    assert path == "/stt/turns/websocket"
    assert (query["turn_end_threshold"], query["turn_end_timeout_ms"]) == ("0.1", "2000")


def test_the_end_that_ink_calls_answers_a_flush(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cartesia_stt._OwnTurn, "_settle_s", 30.0)

    async def test(stt: CartesiaStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5) + sound(0, seconds=0.3))
        stream.flush()
        assert await final(stream) == Transcript("w5", 1, "likely")
        stream.push(sound(0, seconds=0.1))
        stream.flush()
        assert await final(stream) == Transcript("w5", 2), "at once: it has just said so"
        await stream.aclose()

    serve(vendor, "stt", "cartesia", test, turns=True)


def test_where_ink_calls_no_end_a_flush_waits_for_what_it_still_says(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(stt: CartesiaStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5, 6))
        stream.flush()
        assert await final(stream) == Transcript("w5 w6", 1)
        await stream.aclose()

    serve(vendor, "stt", "cartesia", test, turns=True)


def test_a_websocket_left_in_the_middle_of_a_turn_of_ink_is_not_used_again(vendor: StandIn) -> None:
    async def test(stt: CartesiaStt, clock: Clock) -> None:
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

    serve(vendor, "stt", "cartesia", test, turns=True)
    assert len(vendor.seen) == 2, "one that Ink has ended is used again"


# Ears: Flux ------------------------------------------------------------------------------------


def test_a_flush_of_flux_waits_until_all_that_was_said_is_heard(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5) + sound(6, seconds=0.2))
        stream.flush()
        stream.push(sound(0, seconds=0.3))
        assert await final(stream) == Transcript("w5 w6", 1)
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")


def test_flux_with_a_wrong_clock_answers_and_no_later_flush_is_taken_for_heard(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicectl.providers.deepgram_stt._ANSWER_S", 30.0)
    vendor.fault(Fault("deepgram-flux", "clock-skew", seconds=5.0))

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5))
        stream.flush()
        stream.push(sound(0, seconds=0.3))
        assert await final(stream) == Transcript("w5", 1)
        assert await next_end(stream) == Transcript("w5", 0, "likely")
        stream.push(sound(6, seconds=0.6))
        stream.flush()
        stream.push(sound(0, seconds=0.3))
        answer = await final(stream)
        assert (answer.text, answer.flush) == ("w5 w6", 2), "although it had claimed to have heard 5 s more"
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")


def test_where_flux_has_called_the_end_a_flush_is_answered_at_once(
    vendor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicectl.providers.deepgram_stt._ANSWER_S", 30.0)

    async def test(stt: DeepgramStt, clock: Clock) -> None:
        stream = stt.open(0.0)
        stream.push(sound(5) + sound(0, seconds=0.4))
        assert await next_end(stream) == Transcript("w5", 0, "likely")
        stream.flush()
        assert await final(stream) == Transcript("w5", 1)
        await stream.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")


def test_flux_that_hears_nothing_is_asked_for_nothing_and_its_websocket_is_used_again(vendor: StandIn) -> None:
    async def test(stt: DeepgramStt, clock: Clock) -> None:
        for _ in range(2):
            stream = stt.open(0.0)
            stream.push(sound(0, seconds=1.0))
            stream.flush()
            stream.push(sound(0, seconds=0.3))
            assert await final(stream) == Transcript("", 1)
            await stream.aclose()

    serve(vendor, "stt", "deepgram", test, model="flux-general-en")
    assert len(vendor.seen) == 1


# A whole call ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stt", "tts", "strategy"),
    [
        ("cartesia", "deepgram", "silence"),
        ("openai", "openai", "silence"),
        ("cartesia", "deepgram", "provider"),
        ("flux", "deepgram", "silence"),
    ],
)
def test_a_caller_is_heard_and_answered_turn_by_turn(stt: str, tts: str, strategy: Any) -> None:
    trace = Trace()
    said = ("one large latte please", "and two teas")  # 1.2 s after the agent: a busy machine may falter in between
    utterances = [
        Utterance(Pcm(say(text, 16_000, CALLER), 16_000), text, 0.0, seconds(text, CALLER), start=AfterAgent(1.2))
        for text in said
    ]

    async def main(clock: Clock) -> None:
        more: dict[str, Any] = {"model": "flux-general-en"} if stt == "flux" else {}
        if strategy == "provider":
            more = {"turns": True}
        ears = vendor.build(clock, "stt", stt.replace("flux", "deepgram"), **more)
        llm = vendor.build(clock, "llm", "openai")
        voice = vendor.build(clock, "tts", tts)
        vad = ScriptedVad(VadOptions.model_validate({}), None, clock)
        rules = AgentRules(
            "coffee",
            "Take orders.",
            "",
            EndpointingRules(strategies=(strategy,), pause_s=0.1, silence_s=0.4, notice_s=0.2, sustain_s=0.7),
            TurnRules(ask_at_pause=strategy != "provider"),
        )
        for provider in (ears, llm, voice):
            await provider.start(print)
        try:
            line = WavTransport(Caller("ann", tuple(utterances)), rate=16_000, greeted=False, clock=clock, trace=trace)
            await Session(rules, Providers(vad, ears, llm, voice), line, clock, trace, None).run()
        finally:
            for provider in (ears, llm, voice):
                await provider.aclose()
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    with StandIn(answer=echo, voice=in_tones, ear=Library(vocabulary=said).ear) as vendor:
        run_on("wall", main)
    assert not trace.of(ProviderFailed)
    assert [one.heard for one in trace.of(PlayoutFinished)] == [f"You said: {text}" for text in said], story(trace)
    assert trace.of(TranscriptUpdated)[-1].text == said[-1]
