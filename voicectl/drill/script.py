"""What is said in a drill: the caller's turns, and what a stand-in for a language model answers.

The caller speaks the language of tones (`standin.tones`). The answer says the question back, so a
word that the STT lost or doubled is lost or doubled in what the caller hears; and it is a function
of the question alone, so whichever provider answers says the same. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voicectl.audio import PIPELINE_RATE, Pcm
from voicectl.resilience.fallback import GO_ON
from voicectl.standin.answers import said_last, text_of
from voicectl.standin.tones import CALLER, GAP_S, say, seconds, words_of
from voicectl.transports.caller import AfterAgent, Caller, DuringAgent, Utterance

QUESTIONS = (
    "I would like a table for two tonight.",
    "Could you make it seven on Friday instead?",
    "My name is Miller, thank you, goodbye.",
)
"""The caller's three turns."""

_BREATH_S = 0.9  # a shorter silence may be a hole in what the agent says
_INTERRUPTS_AFTER_S = 1.2


def answer(question: str) -> str:
    """What the agent says to it."""
    return f"You said: {' '.join(words_of(question))}. I wrote all of that down."


def answer_to(messages: Sequence[Mapping[str, Any]]) -> str:
    """The same for a conversation as a vendor is sent it: to what the caller said last. Asked to go on
    with an answer that broke off (`resilience.fallback`), it does just that, as a good model would."""
    said, rest = "", list(messages)
    if any(GO_ON in text_of(one.get("content")) for one in rest):
        while rest and rest[-1].get("role") != "assistant":
            rest.pop()
        said = text_of(rest[-1].get("content")) if rest else ""
    whole = answer(said_last(rest))
    return " ".join(whole.split()[len(said.split()) :]) if said else whole


def vocabulary(*more: str) -> tuple[str, ...]:
    """Every word that may be said in a drill; `more` are the agent's own texts."""
    texts = (*QUESTIONS, *(answer(question) for question in QUESTIONS), *more)
    return tuple(sorted({word for text in texts for word in words_of(text)}))


def caller(name: str, *, interrupts: bool) -> Caller:
    """Who calls; with `interrupts` the third turn begins while the second is being answered."""
    utterances: list[Utterance] = []
    for number, text in enumerate(QUESTIONS, 1):
        start = DuringAgent(_INTERRUPTS_AFTER_S) if interrupts and number == 3 else AfterAgent(_BREATH_S)
        pcm = Pcm(say(text, PIPELINE_RATE, CALLER), PIPELINE_RATE)
        voiced_s = seconds(text, CALLER) - GAP_S
        utterances.append(Utterance(pcm, f"turn {number}", 0.0, voiced_s, text, start=start))
    return Caller(name, tuple(utterances))
