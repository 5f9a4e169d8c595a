"""The local LLM's reading ahead, with an engine that says what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import LlmRequest, Message, TextDelta
from voicectl.providers import local_llm
from voicectl.providers.local_llm import LocalLlm

QUESTION = (Message("system", "Be brief."), Message("user", "How much?"))
OTHER = (Message("system", "Be brief."), Message("user", "How much is it?"))
ANSWER = "It is five dollars for one .".split()


class Engine:
    """Says `ANSWER`, a word each time it is let to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.said: list[int] = []
        self.fails = False
        self._words = threading.Semaphore(0)

    def let(self, words: int) -> None:
        self._words.release(words)

    def chat(self, body: str, on_message: Callable[[dict[str, Any]], bool]) -> None:
        self.asked.append(json.loads(body)["messages"][-1]["content"])
        self.said.append(0)
        number = len(self.said) - 1
        if self.fails:
            on_message({"error": {"message": "out of memory"}})
            return
        for word in ANSWER:
            assert self._words.acquire(timeout=10)
            self.said[number] += 1
            if on_message({"choices": [{"delta": {"content": f"{word} "}}]}):
                return

    def close(self) -> None:
        pass


def talk(main: Callable[[LocalLlm, Engine], Coroutine[Any, Any, None]]) -> Engine:
    engine = Engine()

    async def run(clock: Clock) -> None:
        llm = LocalLlm(local_llm.Options(), None, clock)
        llm._engine = engine  # pyright: ignore[reportAttributeAccessIssue]
        await main(llm, engine)
        engine.let(100)
        await llm.aclose()

    run_on("wall", run)
    return engine


async def answer(llm: LocalLlm, messages: tuple[Message, ...]) -> str:
    text = ""
    async with aclosing(llm.generate(LlmRequest(messages))) as chunks:
        async for chunk in chunks:
            text += chunk.text if isinstance(chunk, TextDelta) else ""
    return text.strip()


@pytest.mark.wall
def test_an_answer_that_was_begun_ahead_is_not_begun_again() -> None:
    async def main(llm: LocalLlm, engine: Engine) -> None:
        engine.let(1)
        await llm.warm(QUESTION)
        engine.let(100)
        assert await answer(llm, QUESTION) == " ".join(ANSWER)

    # Either it was still on its way, or it had stopped by itself at its second word.
    assert talk(main).asked in (["How much?"], ["How much?"] * 2)


@pytest.mark.wall
def test_reading_that_is_cancelled_may_still_become_the_answer() -> None:
    async def main(llm: LocalLlm, engine: Engine) -> None:
        reading = llm._clock.spawn(llm.warm(QUESTION), name="reading")
        while not engine.asked:
            await llm._clock.sleep_until(llm._clock.now() + 0.001)
        reading.cancel()
        asking = llm._clock.spawn(answer(llm, QUESTION), name="asking")
        while llm._ahead:
            await llm._clock.sleep_until(0)
        engine.let(100)
        assert await asking == " ".join(ANSWER)

    assert talk(main).asked == ["How much?"]


@pytest.mark.wall
def test_an_answer_that_nobody_asks_for_stops_at_its_first_words() -> None:
    async def main(llm: LocalLlm, engine: Engine) -> None:
        engine.let(100)
        await llm.warm(QUESTION)
        [running] = llm._answers or {None}
        if running and running.task:
            await running.task
        assert engine.said == [local_llm._AHEAD_TOKENS]
        assert await answer(llm, QUESTION) == " ".join(ANSWER)

    talk(main)


@pytest.mark.wall
def test_what_is_asked_for_does_not_wait_for_what_is_not() -> None:
    async def main(llm: LocalLlm, engine: Engine) -> None:
        reading = llm._clock.spawn(llm.warm(OTHER), name="reading")
        while not engine.asked:
            await llm._clock.sleep_until(llm._clock.now() + 0.001)
        asking = llm._clock.spawn(answer(llm, QUESTION), name="asking")
        while llm._ahead:
            await llm._clock.sleep_until(0)
        engine.let(100)
        assert await asking == " ".join(ANSWER)
        await reading

    engine = talk(main)
    assert engine.asked == ["How much is it?", "How much?"]
    assert engine.said[0] <= 1


@pytest.mark.wall
def test_an_error_while_reading_ahead_is_told() -> None:
    async def main(llm: LocalLlm, engine: Engine) -> None:
        engine.fails = True
        with pytest.raises(ProviderError, match="out of memory"):
            await llm.warm(QUESTION)
        engine.fails = False
        engine.let(100)
        assert await answer(llm, OTHER) == " ".join(ANSWER)

    talk(main)
