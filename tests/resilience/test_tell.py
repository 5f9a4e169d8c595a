"""Every event of surviving has words of its own."""

from __future__ import annotations

from typing import Any

import pytest

from voicectl.events import (
    BreakerChanged,
    Event,
    HedgeDecided,
    HedgeStarted,
    ProviderRetried,
    ProviderSwitched,
    ProviderTimedOut,
    ProviderUsed,
)
from voicectl.replay.tell import tell

LLM: Any = {"stage": "llm", "provider": "openai"}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            ProviderRetried(at=1, **LLM, attempt=1, wait=0.25, why="says 503"),
            "1.00 s  the LLM openai is asked again in 250 ms (attempt 1: says 503)",
        ),
        (
            ProviderTimedOut(at=1, **LLM, what="first byte", after=1.5),
            "1.00 s  the LLM openai was given up: no first byte within 1500 ms",
        ),
        (
            BreakerChanged(at=1, **LLM, state="open", why="3 requests failed, the last: says 503"),
            "1.00 s  the LLM openai is left alone: 3 requests failed, the last: says 503",
        ),
        (
            ProviderSwitched(at=1, **LLM, to="local", why="says 503", said="Sure, one"),
            "1.00 s  the LLM local took over from openai after “Sure, one”: says 503",
        ),
        (
            HedgeStarted(at=1, **LLM, second="openai", after=0.4),
            "1.00 s  the LLM openai was asked a second time: silent for 400 ms",
        ),
        (HedgeDecided(at=1, stage="llm", winner="second"), "1.00 s  the second of two requests to the LLM answered"),
        (
            ProviderUsed(
                at=1, **LLM, model="m", prompt_tokens=812, cached_tokens=640, completion_tokens=9, wasted=True
            ),
            "1.00 s  the LLM openai used 812 prompt tokens, 640 of them cached, 9 completion tokens (wasted)",
        ),
        (
            ProviderUsed(at=1, stage="stt", provider="deepgram", model=None, audio_s=2.5),
            "1.00 s  the STT deepgram used 2.5 s of audio",
        ),
    ],
)
def test_it_is_told_in_words(event: Event, words: str) -> None:
    assert tell(event) == words
