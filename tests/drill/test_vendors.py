"""Who stands in for whom, and what a stand-in hears and says in the language of tones."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import aclosing
from pathlib import Path

import pytest

from voicectl.clock import Clock, run_on
from voicectl.drill.script import QUESTIONS, answer, vocabulary
from voicectl.drill.vendors import ToneEar, ToneLlm, ToneStt, ToneTts, Trust, resolve_on
from voicectl.pipeline.protocols import LlmRequest, Message, TextDelta, Transcript, TtsRequest
from voicectl.standin.tones import BRISK, CALLER, listen, say, words_of

KNOWN = vocabulary()
SAID = " ".join(words_of(QUESTIONS[0]))


def hear(ear: ToneEar, pcm: bytes, size: int = 640) -> list[bool]:
    return [voiced for at in range(0, len(pcm), size) for voiced in ear.hear(pcm[at : at + size])]


def test_an_ear_hears_whole_words_and_the_silence_after_them() -> None:
    ear = ToneEar(16_000, KNOWN)
    steps = hear(ear, say(QUESTIONS[0], 16_000, CALLER) + bytes(2 * 4800))
    assert ear.text == SAID
    assert ear.silence_s == pytest.approx(0.34, abs=0.03)
    assert ear.until == pytest.approx(len(words_of(SAID)) * 0.2 + 0.3, abs=0.02)
    assert any(steps)
    assert not steps[-1]


def test_what_was_taken_is_not_heard_again() -> None:
    ear = ToneEar(16_000, KNOWN)
    hear(ear, say("table for", 16_000, CALLER))
    ear.flush()
    assert ear.take() == "table for"
    hear(ear, say("two", 16_000, CALLER))
    ear.flush()
    assert ear.take() == "two"
    assert ear.take() == ""


def test_a_word_that_a_flush_falls_into_is_heard_once_and_whole() -> None:
    ear = ToneEar(16_000, KNOWN)
    pcm = say("table", 16_000, CALLER)
    hear(ear, pcm[: len(pcm) // 2 // 2 * 2])
    ear.flush()
    assert ear.take() == ""
    hear(ear, pcm[len(pcm) // 2 // 2 * 2 :])
    ear.flush()
    assert ear.take() == "table"


def test_what_is_local_hears_answers_and_speaks_tones() -> None:
    async def main(clock: Clock) -> tuple[list[Transcript], str, bytes]:
        stt, llm, tts = ToneStt(KNOWN, clock), ToneLlm(KNOWN, clock), ToneTts(KNOWN, clock)
        turn = stt.open(0.0)
        turn.push(say(QUESTIONS[0], 16_000, CALLER) + bytes(3200))
        turn.flush()
        await turn.aclose()
        heard = [transcript async for transcript in turn]
        messages = (Message("system", "x"), Message("user", heard[0].text))
        async with aclosing(llm.generate(LlmRequest(messages))) as chunks:
            text = "".join([chunk.text async for chunk in chunks if isinstance(chunk, TextDelta)])
        async with aclosing(tts.synthesize(TtsRequest(text))) as audio:
            return heard, text, b"".join([piece async for piece in audio])

    heard, text, pcm = run_on("virtual", main)
    assert heard == [Transcript(SAID, 1)]
    assert words_of(text) == words_of(answer(QUESTIONS[0]))
    found = listen(pcm, 24_000, KNOWN)
    assert [one.word for one in found] == words_of(text)
    assert {one.voice for one in found} == {BRISK.name}


def test_a_name_is_known_on_this_loop_until_it_is_lost() -> None:
    lost: set[int] = set()

    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        resolve_on(loop, lambda name, port: port in lost)
        found = await loop.getaddrinfo("openai-llm.standin.test", 4711, type=socket.SOCK_STREAM)
        assert {address[4][0] for address in found} == {"127.0.0.1"}
        lost.add(4711)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("openai-llm.standin.test", 4711)
        assert await loop.getaddrinfo("openai-llm.standin.test", 4712)

    run_on("wall", main)


def test_trust_ends_with_the_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "mine.pem")
    one, other = tmp_path / "one.pem", tmp_path / "other.pem"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    trust = Trust()
    bundle = Path(os.environ["SSL_CERT_FILE"])
    assert bundle.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    trust.add([one])
    trust.add([other])
    assert bundle.read_bytes().endswith(b"12")
    trust.remove([one])
    assert bundle.read_bytes().endswith(b"-\n2")
    trust.close()
    assert os.environ["SSL_CERT_FILE"] == "mine.pem"
    assert not bundle.exists()
