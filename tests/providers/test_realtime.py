"""OpenAI's Realtime API, through its SDK, against the stand-in over real sockets."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standin import ANSWER, CANARY, StandIn, sound

from voicectl.assemble import Engine
from voicectl.audio import Pcm
from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.events import AgentInterrupted, PlayoutFinished, ProviderFailed, ProviderUsed, TranscriptUpdated
from voicectl.pipeline.protocols import AudioDelta, CallerSaid, S2sNews, S2sUsage, TextDelta
from voicectl.providers import CATALOG
from voicectl.replay.call import open_kept, replay
from voicectl.replay.compare import first_departure
from voicectl.spec import resolve
from voicectl.standin.faults import Fault
from voicectl.trace import event_line
from voicectl.transports.caller import AfterAgent, Caller, DuringAgent, Utterance

pytestmark = pytest.mark.wall

MODEL = "gpt-realtime-2.1"


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


def serve(vendor: StandIn, test: Callable[[Any, Clock], Coroutine[Any, Any, None]], **more: Any) -> None:
    """Run the test with the started provider."""

    async def main(clock: Clock) -> None:
        provider = vendor.build(clock, "s2s", "openai", **{"model": MODEL, **more})
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


@dataclass
class Heard:
    """An answer, to its end or as far as it was wanted."""

    text: str = ""
    seconds: float = 0.0


async def hear(pieces: Any, until_s: float = 1e9) -> Heard:
    heard = Heard()
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, TextDelta):
                heard.text += piece.text
            elif isinstance(piece, AudioDelta):
                heard.seconds += len(piece.pcm) / 2 / 24_000
            if heard.seconds >= until_s:
                break
    return heard


async def news_of(stream: Any, count: int) -> list[S2sNews]:
    found: list[S2sNews] = []
    async for one in stream:
        found.append(one)
        if len(found) == count:
            break
    return found


def speak(stream: Any, *words: int) -> None:
    stream.hear_from(0.0)
    pcm = sound(*words, seconds=0.3)
    for start in range(0, len(pcm), 640):
        stream.push(pcm[start : start + 640])


# One answer ------------------------------------------------------------------------------------


def test_an_answer_comes_as_sound_with_its_text_and_news_of_the_caller_and_the_cost(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        stream = provider.open("Be brief.")
        speak(stream, 5)
        heard = await hear(stream.respond())
        assert heard.text == ANSWER
        assert heard.seconds == pytest.approx(0.06 * len(ANSWER), abs=0.07)
        news = await news_of(stream, 3)
        said = next(one for one in news if isinstance(one, CallerSaid))
        assert (said.answer, said.text) == (1, "w5")
        used = {one.stage: one for one in news if isinstance(one, S2sUsage)}
        assert (used["s2s"].model, used["s2s"].audio_in_tokens) == (MODEL, 3)
        assert used["s2s"].audio_out_tokens == round(heard.seconds * 20)
        assert used["s2s"].completion_tokens == (used["s2s"].audio_out_tokens or 0) + len(ANSWER.split())
        assert not used["s2s"].estimated
        assert (used["stt"].model, used["stt"].audio_s) == ("gpt-transcribe", pytest.approx(0.3, abs=0.01))
        await stream.aclose()

    serve(vendor, test)


def test_the_websocket_is_open_before_the_call_and_the_next_one_waits(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        assert vendor.open == 1
        stream = provider.open("Be brief.")
        await until(clock, lambda: vendor.open == 2)
        await stream.aclose()
        await until(clock, lambda: vendor.open == 1)
        assert [path for path, _, _ in vendor.seen] == ["/v1/realtime"] * 2
        assert vendor.seen[0][1]["model"] == MODEL

    serve(vendor, test)


def test_a_spare_websocket_that_breaks_is_replaced(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        vendor.drop()
        await until(clock, lambda: len(vendor.seen) == 2 and vendor.open == 1)
        stream = provider.open("Be brief.")
        speak(stream, 5)
        assert (await hear(stream.respond())).text == ANSWER

    serve(vendor, test)


def test_a_fixed_text_is_said_word_for_word_by_the_stand_in(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        stream = provider.open("Be brief.")
        assert (await hear(stream.say("Good morning, this call is recorded."))).text == (
            "Good morning, this call is recorded."
        )

    serve(vendor, test)


def test_what_is_forgotten_is_no_part_of_the_turn(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        stream = provider.open("Be brief.")
        speak(stream, 3)
        stream.forget()
        speak(stream, 5)
        await hear(stream.respond())
        assert vendor.got[-2:] == ["respond", "knows user: w5"] or "knows user: w5" in vendor.got

    serve(vendor, test)


# Interrupting ----------------------------------------------------------------------------------


def test_an_interruption_cancels_and_the_model_remembers_what_was_heard(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        vendor.does.token_s = 0.03
        stream = provider.open("Be brief.")
        speak(stream, 5)
        heard = await hear(stream.respond(), until_s=1.2)
        stream.truncate(0.6)
        speak(stream, 7)
        await hear(stream.respond())
        assert "cancel" in vendor.got
        assert "truncate 600" in vendor.got
        [_, knows] = [one for one in vendor.got if one.startswith("knows ")]
        before, _, kept = knows.partition("assistant: ")
        assert before == "knows user: w5 | "
        kept = kept.partition(" | ")[0]
        assert kept
        assert ANSWER.startswith(kept)
        assert len(kept) < len(heard.text)

    serve(vendor, test)


def test_an_answer_nobody_heard_is_deleted(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        stream = provider.open("Be brief.")
        speak(stream, 5)
        await hear(stream.respond())
        stream.truncate(0.0)
        speak(stream, 7)
        await hear(stream.respond())
        assert vendor.got[-1] == "knows user: w5 | user: w7"

    serve(vendor, test)


def test_a_cancelled_answer_is_paid_as_openai_counts_it_and_estimated_where_it_could_not(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        vendor.does.token_s = 0.03
        stream = provider.open("Be brief.")
        speak(stream, 5)
        await hear(stream.respond(), until_s=0.3)
        first = [one for one in await news_of(stream, 3) if isinstance(one, S2sUsage) and one.stage == "s2s"]
        assert [one.estimated for one in first] == [False]
        speak(stream, 7)
        pieces = stream.respond()
        for _ in range(4):
            await anext(pieces)
        await stream.aclose()
        await pieces.aclose()
        rest = [one async for one in stream]
        assert [one.estimated for one in rest if isinstance(one, S2sUsage) and one.stage == "s2s"] == [True]

    serve(vendor, test)


def test_closing_an_answer_cancels_it_within_50_ms(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        vendor.does.token_s = 0.2
        stream = provider.open("Be brief.")
        speak(stream, 5)
        pieces = stream.respond()
        await anext(pieces)
        began = clock.now()
        await pieces.aclose()
        assert clock.now() - began < 0.05
        await until(clock, lambda: "cancel" in vendor.got)

    serve(vendor, test)


# When it goes wrong ----------------------------------------------------------------------------


def problem(vendor: StandIn, **more: Any) -> ProviderError:
    """What using the provider raises."""

    async def main(clock: Clock) -> ProviderError:
        provider = vendor.build(clock, "s2s", "openai", **{"model": MODEL, **more})
        try:
            await provider.start(print)
            stream = provider.open("Be brief.")
            speak(stream, 5)
            await hear(stream.respond())
        except ProviderError as error:
            return error
        finally:
            await provider.aclose()
        raise AssertionError("it did not fail")

    return run_on("wall", main)


def everything_about(error: ProviderError) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


@pytest.mark.parametrize(("status", "kind"), [(401, "refused"), (429, "rate_limited"), (500, "server")])
def test_a_refused_websocket_is_one_clear_line_and_keeps_the_key(vendor: StandIn, status: int, kind: str) -> None:
    vendor.does.refuse, vendor.does.says = status, f"your key {CANARY} is not good enough"
    error = problem(vendor)
    assert vendor.seen[0][2] == CANARY, "the SDK was given the key"
    assert str(error).startswith("s2s:openai: 127.0.0.1:")
    assert str(status) in str(error)
    assert error.kind == kind
    assert "\n" not in str(error)
    assert CANARY not in everything_about(error)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("openai-realtime", "429", after=1), "rate_limited"),
        (Fault("openai-realtime", "500", after=1), "server"),
        (Fault("openai-realtime", "401", after=1), "refused"),
        (Fault("openai-realtime", "cut", pieces=2), "unreachable"),
        (Fault("openai-realtime", "malformed", pieces=2), "protocol"),
        (Fault("openai-realtime", "silent", pieces=2), "timeout"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else value,
)
def test_what_goes_wrong_in_a_call_is_one_line_with_its_kind(vendor: StandIn, fault: Fault, kind: str) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        stream = provider.open("Be brief.")
        if fault.after:
            speak(stream, 3)
            await hear(stream.respond())
        speak(stream, 5)
        with pytest.raises(ProviderError) as caught:
            await hear(stream.respond())
        assert caught.value.kind == kind
        assert str(caught.value).startswith("s2s:openai: ")
        assert "\n" not in str(caught.value)

    vendor.fault(fault)
    serve(vendor, test, timeout_ms=400 if kind == "timeout" else 5000)


def test_an_option_that_openai_refuses_is_told_in_its_words(vendor: StandIn) -> None:
    vendor.does.says = f"Invalid value: 'nobody' of {CANARY}."
    error = problem(vendor, voice="nobody")
    assert "Invalid value: 'nobody' of ***" in str(error)
    assert error.kind == "refused"


def test_nobody_there_is_one_clear_line(vendor: StandIn) -> None:
    error = problem(vendor, url="http://127.0.0.1:9/v1")
    assert str(error).startswith("s2s:openai: cannot reach 127.0.0.1:9")
    assert error.kind == "unreachable"


def test_a_missing_key_and_a_missing_model_are_named(vendor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert str(problem(vendor, key=None)) == "s2s:openai: has no key. Set OPENAI_API_KEY"
    assert str(problem(vendor, model=None)) == "s2s:openai: needs the name of a model. Add `model:`"


def test_a_websocket_that_breaks_in_a_call_is_opened_again_and_told_what_was_said(vendor: StandIn) -> None:
    async def test(provider: Any, clock: Clock) -> None:
        stream = provider.open("Be brief.")
        speak(stream, 5)
        await hear(stream.respond())
        await news_of(stream, 3)
        vendor.drop()
        await until(clock, lambda: vendor.open == 1 and len(vendor.seen) == 3)
        speak(stream, 7)
        assert (await hear(stream.respond())).text == ANSWER
        assert vendor.got[-1] == f"knows user: w5 | assistant: {ANSWER} | user: w7"

    serve(vendor, test)


# Whole calls -----------------------------------------------------------------------------------

AGENTS = """\
version: 1
agents:
  coffee:
    instructions: Take orders.
    greeting: Hi! What can I get you?
    vad: {provider: scripted}
    s2s: {provider: openai, model: gpt-realtime-2.1, options: {base_url: %s}}
"""


def call(vendor: StandIn, folder: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    (folder / "agents.yaml").write_text(AGENTS % f"{vendor.url}/v1")
    agent = resolve(None, None, [], env={}, catalog=CATALOG, agents_file=folder / "agents.yaml")

    async def main(clock: Clock) -> None:
        engine = Engine(agent, clock)
        await engine.start(lambda text: None)
        try:
            await engine.answer(caller, folder / "call")
        finally:
            await engine.aclose()

    run_on("wall", main)
    return folder / "call"


def utterance(word: int, start: AfterAgent | DuringAgent, seconds: float = 1.0) -> Utterance:
    pcm = Pcm(sound(word, seconds=seconds), 16_000)
    return Utterance(pcm, f"{word}.wav", 0.0, seconds, f"w{word}", start=start)


def hum(text: str, rate: int) -> bytes:
    """60 ms of a buzz a letter."""
    samples = np.arange(round(0.06 * rate) * len(text))
    return np.where(samples // (rate // 400) % 2, 3000, -3000).astype("<i2").tobytes()


def test_a_call_over_sockets_is_recorded_and_replays_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(
        "ann",
        (
            utterance(9, AfterAgent(0.3)),
            utterance(8, DuringAgent(0.6), 1.2),
        ),
    )
    with StandIn(voice=hum) as vendor:
        folder = call(vendor, tmp_path, caller, monkeypatch)
    kept = open_kept(folder)
    events = kept.recording.events
    assert [one for one in events if isinstance(one, ProviderFailed)] == []
    texts = [one.text for one in events if isinstance(one, TranscriptUpdated)]
    assert len(texts) == 2
    assert set(texts[0].split()) == {"w9"}
    assert set(texts[1].split()) == {"w8"}
    [interrupted] = [one for one in events if isinstance(one, AgentInterrupted)]
    assert ANSWER.startswith(interrupted.heard)
    assert [one.heard for one in events if isinstance(one, PlayoutFinished)] == ["Hi! What can I get you?", ANSWER]
    assert {one.stage for one in events if isinstance(one, ProviderUsed)} == {"s2s", "stt"}
    for path in folder.iterdir():
        assert CANARY.encode() not in path.read_bytes()
    first, second = replay(kept), replay(kept)
    assert [event_line(one) for one in first.events] == [event_line(one) for one in second.events]
    assert (first.right == second.right).all()
    assert first_departure(events, first.events, kept.until) is None
