"""One agent turn: text streams in, clauses are cut, audio goes to playout. One turn is one task.

A speech-to-speech model gives sound and text at once (`converse`).

Interrupting it is cancelling its task; nothing here outlives it. It notes facts and measures
nothing. Whether its audio may be heard is playout's business (`hold`), not this file's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Protocol

from voicectl.audio import SAMPLE_WIDTH, Resampler
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.events import (
    ClauseReady,
    Event,
    LlmCancelled,
    LlmFinished,
    LlmFirstToken,
    LlmRequested,
    S2sCancelled,
    S2sFinished,
    S2sFirstAudio,
    S2sRequested,
    TtsFinished,
    TtsFirstAudio,
    TtsRequested,
)
from voicectl.pipeline.buffered import buffered
from voicectl.pipeline.clauses import ClauseSplitter
from voicectl.pipeline.playout import Playout
from voicectl.pipeline.protocols import Llm, LlmRequest, S2sChunk, TextDelta, ToolDelta, Tts, TtsRequest, Usage

CLAUSES_AHEAD = 2
"""How many finished clauses may wait for the TTS: enough that it never waits, few enough that an
interruption throws little away."""

AUDIO_AHEAD_S = 3.0
"""How much audio may wait to be heard before the next clause is spoken."""


class Notebook(Protocol):
    """Where an agent turn writes what happened."""

    def now(self) -> float:
        """Seconds of the call."""
        ...

    def note(self, event: Event) -> None: ...


Clauses = AsyncGenerator[str, None]


async def speak(
    clauses: Clauses, *, reply: int, tts: Tts, playout: Playout, line_rate: int, clock: Clock, notes: Notebook
) -> None:
    """Speak `clauses` as reply number `reply`, and return when its last sample is on the line."""
    resampler = Resampler(tts.rate, line_rate)
    async with buffered(clauses, size=CLAUSES_AHEAD, clock=clock, name=f"reply {reply} text") as ready:
        index = 0
        async for text in ready:
            await playout.until_room(AUDIO_AHEAD_S)
            playout.begin_clause(text)
            notes.note(TtsRequested(at=notes.now(), reply=reply, index=index))
            size = 0
            with _blame("tts"):
                async with aclosing(tts.synthesize(TtsRequest(text.strip(), reply, index))) as audio:
                    async for pcm in audio:
                        if pcm and not size:
                            notes.note(TtsFirstAudio(at=notes.now(), reply=reply, index=index))
                        size += len(pcm)
                        playout.add(resampler.push(pcm))
            playout.end_clause()
            notes.note(TtsFinished(at=notes.now(), reply=reply, index=index, seconds=size / 2 / tts.rate))
            index += 1
        if index:
            playout.add(resampler.flush())
    playout.complete()
    await playout.until_played()


async def answer(
    request: LlmRequest, *, reply: int, llm: Llm, first_clause_words: int, notes: Notebook
) -> AsyncGenerator[str, None]:
    """The clauses of the LLM's answer, each as soon as it is complete."""
    splitter = ClauseSplitter(first_clause_words)
    said: list[str] = []
    usage = Usage()
    index = 0
    notes.note(LlmRequested(at=notes.now(), reply=reply))
    whole = False
    try:
        with _blame("llm"):
            async with aclosing(llm.generate(request)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, Usage):
                        usage = chunk
                        continue
                    if isinstance(chunk, ToolDelta):
                        continue  # nothing to say
                    if chunk.text and not said:
                        notes.note(LlmFirstToken(at=notes.now(), reply=reply))
                    if chunk.text:
                        said.append(chunk.text)
                    for clause in splitter.push(chunk.text):
                        notes.note(ClauseReady(at=notes.now(), reply=reply, index=index, text=clause))
                        index += 1
                        yield clause
        whole = True
    finally:
        if not whole:
            notes.note(LlmCancelled(at=notes.now(), reply=reply, chunks=len(said)))
    rest = splitter.finish()
    notes.note(
        LlmFinished(
            at=notes.now(),
            reply=reply,
            text="".join(said),
            chunks=len(said),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
    )
    for clause in rest:
        notes.note(ClauseReady(at=notes.now(), reply=reply, index=index, text=clause))
        index += 1
        yield clause


async def recite(text: str, *, reply: int, first_clause_words: int, notes: Notebook) -> AsyncGenerator[str, None]:
    """The clauses of a fixed text: the greeting."""
    splitter = ClauseSplitter(first_clause_words)
    for index, clause in enumerate([*splitter.push(text), *splitter.finish()]):
        notes.note(ClauseReady(at=notes.now(), reply=reply, index=index, text=clause))
        yield clause


async def converse(
    pieces: AsyncGenerator[S2sChunk, None], *, reply: int, rate: int, playout: Playout, line_rate: int, notes: Notebook
) -> None:
    """Play what a speech-to-speech model says as reply number `reply`, and return when its last sample is
    on the line. All that comes is queued: it is as long as the model lets its answers be."""
    resampler = Resampler(rate, line_rate)
    said: list[str] = []
    size = 0
    notes.note(S2sRequested(at=notes.now(), reply=reply))
    playout.begin_clause("")
    whole = False
    try:
        with _blame("s2s"):
            async with aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, TextDelta):
                        said.append(piece.text)
                        playout.add_text(piece.text)
                        continue
                    if piece.pcm and not size:
                        notes.note(S2sFirstAudio(at=notes.now(), reply=reply))
                    size += len(piece.pcm)
                    playout.add(resampler.push(piece.pcm))
        whole = True
    finally:
        seconds = size / SAMPLE_WIDTH / rate
        if not whole:
            notes.note(S2sCancelled(at=notes.now(), reply=reply, seconds=seconds))
    notes.note(S2sFinished(at=notes.now(), reply=reply, text="".join(said), seconds=seconds))
    playout.add(resampler.flush())
    playout.complete()
    await playout.until_played()


@contextmanager
def _blame(stage: str) -> Generator[None]:
    """Say which stage failed, where the provider has not said more."""
    try:
        yield
    except ProviderError as error:
        error.where = error.where or stage
        raise
