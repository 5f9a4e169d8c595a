"""Who may speak, and what to do about it. Pure: `step(state, input) -> (state, actions)`.

No clock, no audio, no asyncio: a conversation is a list of inputs, and a test is a list of
actions. `session.py` turns the endpointer's facts and the providers' answers into inputs, and
carries the actions out.

The policy, in words:

- A pause asks the STT. With speculation the agent begins to think on that text at once, held;
  if the caller goes on, it is dropped unheard; if the turn ends, it plays.
- While the agent speaks, sustained speech interrupts it. Short speech is looked at when it
  pauses: a backchannel ("mhm") or no words leave the agent speaking, words interrupt.
- Speech before the answer became audible takes the answer back: the caller had not finished, so
  the next turn carries the text of the last.
- Speech before the text of the last turn is known continues it: one STT stream hears both.
- What was said to an agent that could not be interrupted is answered when it has finished.
- A turn without words gets no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from voicectl.pipeline.endpointing import Ended, Fact, Paused, Resumed, Started, Sustained

BACKCHANNELS = frozenset(
    {
        "mhm",
        "mm",
        "mmm",
        "mm-hmm",
        "mm hmm",
        "hmm",
        "uh-huh",
        "uh huh",
        "yeah",
        "yep",
        "right",
        "okay",
        "ok",
        "i see",
        "sure",
    }
)


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the spec says of turns."""

    speculate: bool = True
    interruptible: bool = True
    backchannels: frozenset[str] = BACKCHANNELS


# Inputs (besides the endpointer's facts) -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """The STT's answer: the text of turn `turn` up to its pause number `pause`, from 1."""

    turn: int
    text: str
    pause: int


@dataclass(frozen=True, slots=True)
class ReplyBegun:
    """A reply that `step` did not start: the greeting."""


@dataclass(frozen=True, slots=True)
class ReplyAudible:
    """The first frame of the reply went on the line."""


@dataclass(frozen=True, slots=True)
class ReplyOver:
    """The reply was played to its end, or failed."""


Input = Fact | Heard | ReplyBegun | ReplyAudible | ReplyOver

# Actions ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listen:
    """Open an STT stream for this turn, from `at` on."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class AskTranscript:
    """Flush the STT stream."""


@dataclass(frozen=True, slots=True)
class StopListening:
    """Close the STT stream of the turn."""


@dataclass(frozen=True, slots=True)
class StartReply:
    """Answer `text`; audio is held back when `held`."""

    turn: int
    text: str
    held: bool


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The held reply may be heard."""

    turn: int


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Drop the reply, unheard."""

    reason: str


@dataclass(frozen=True, slots=True)
class InterruptReply:
    """Stop the agent: the caller, speaking since `at`, takes the turn."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class DropTurn:
    """The turn gets no answer."""

    turn: int
    reason: Literal["no words", "backchannel", "caller went on"]
    text: str


Action = Listen | AskTranscript | StopListening | StartReply | CommitReply | CancelReply | InterruptReply | DropTurn

# State -----------------------------------------------------------------------------------------

Agent = Literal["silent", "thinking", "speaking"]


@dataclass(frozen=True, slots=True)
class State:
    """Where the conversation stands.

    Attributes:
        turn: number of the current or last caller turn, from 1.
        caller: "silent" (no turn open), "speaking", "paused" (may be over), "ended" (the turn is
            over, its text is awaited).
        speech_at: when the current speech began.
        pause: number of the turn's last pause, from 1: what the STT was last asked for.
        text: what the current pause's transcript says; None while it is awaited.
        overlap: caller and agent speak at once in this turn, and the agent has not been stopped.
        agent: "thinking" has a reply that nobody has heard yet; `held` while it may not be heard.
        answered: the text that the current reply answers.
        carry: text of earlier turns whose answer was taken back unheard.
    """

    turn: int = 0
    caller: Literal["silent", "speaking", "paused", "ended"] = "silent"
    speech_at: float = 0.0
    pause: int = 0
    text: str | None = None
    overlap: bool = False
    agent: Agent = "silent"
    held: bool = False
    answered: str = ""
    carry: str = ""


def step(state: State, happened: Input, rules: TurnRules) -> tuple[State, list[Action]]:
    """The next state, and what to do now, in order."""
    match happened:
        case Started(at):
            return _started(state, at)
        case Resumed(at):
            actions: list[Action] = []
            state = replace(state, caller="speaking", text=None, speech_at=at)
            if state.agent == "thinking" and state.held:
                state = replace(state, agent="silent", held=False, answered="")
                actions.append(CancelReply("caller went on"))
            return state, actions
        case Sustained():
            if state.overlap and state.agent == "speaking" and rules.interruptible:
                # The agent was stopped for it, so whatever it says gets an answer.
                return replace(state, agent="silent", overlap=False), [InterruptReply(state.turn, state.speech_at)]
            return state, []
        case Paused():
            return replace(state, caller="paused", text=None, pause=state.pause + 1), [AskTranscript()]
        case Heard(turn, text, pause):
            current = turn == state.turn and pause == state.pause and state.caller in ("paused", "ended")
            # Otherwise the caller has gone on since: the next pause asks again.
            return _heard(state, text, rules) if current and state.text is None else (state, [])
        case Ended():
            state = replace(state, caller="ended")
            return _conclude(state, rules) if state.text is not None else (state, [])
        case ReplyBegun():
            return replace(state, agent="thinking", held=False, answered=""), []
        case ReplyAudible():
            overlap = state.overlap or state.caller in ("speaking", "paused")  # the greeting, over a caller
            return replace(state, agent="speaking", held=False, overlap=overlap), []
        case ReplyOver():
            state = replace(state, agent="silent", held=False, answered="")
            return _answer(state, state.carry) if state.carry and state.caller == "silent" else (state, [])


def _started(state: State, at: float) -> tuple[State, list[Action]]:
    """A new turn. An answer nobody has heard is taken back: the caller had not finished."""
    actions: list[Action] = []
    if state.agent == "thinking" and state.answered:
        actions.append(CancelReply("caller went on"))
        state = replace(state, agent="silent", held=False, answered="", carry=state.answered)
    turn = state.turn + 1
    if state.caller == "ended":
        actions.append(DropTurn(state.turn, "caller went on", ""))
    else:
        actions.append(Listen(turn, at))
        state = replace(state, pause=0)
    overlap = state.agent == "speaking"
    return replace(state, turn=turn, caller="speaking", speech_at=at, text=None, overlap=overlap), actions


def _heard(state: State, text: str, rules: TurnRules) -> tuple[State, list[Action]]:
    state = replace(state, text=text)
    actions: list[Action] = []
    if state.overlap and state.agent == "speaking":
        if rules.interruptible and _has_words(text) and not is_backchannel(text, rules.backchannels):
            actions.append(InterruptReply(state.turn, state.speech_at))
            state = replace(state, agent="silent", overlap=False)
        elif state.caller == "paused":
            return state, []
    if state.caller == "ended":
        state, more = _conclude(state, rules)
        return state, actions + more
    if rules.speculate and state.agent == "silent" and _worth_answering(state, text, rules):
        answer = _join(state.carry, text)
        state = replace(state, agent="thinking", held=True, answered=answer)
        actions.append(StartReply(state.turn, answer, held=True))
    return state, actions


def _conclude(state: State, rules: TurnRules) -> tuple[State, list[Action]]:
    """The turn is over and its text is known."""
    text = state.text or ""
    actions: list[Action] = [StopListening()]
    done = replace(state, caller="silent", text=None, overlap=False)
    if not _worth_answering(state, text, rules):
        reason = "backchannel" if _has_words(text) else "no words"
        actions.append(DropTurn(state.turn, reason, text))
        if state.carry and state.agent == "silent":
            done, more = _answer(done, state.carry)
            return done, actions + more
        return done, actions
    if state.agent == "thinking" and state.held:
        actions.append(CommitReply(state.turn))
        return replace(done, held=False, carry=""), actions
    if state.agent == "silent":
        done, more = _answer(done, _join(state.carry, text))
        return done, actions + more
    # The agent may not be interrupted and still speaks: it answers when it has finished.
    return replace(done, carry=_join(state.carry, text)), actions


def _answer(state: State, text: str) -> tuple[State, list[Action]]:
    """Answer at once what the caller has said."""
    state = replace(state, agent="thinking", held=False, answered=text, carry="")
    return state, [StartReply(state.turn, text, held=False)]


def _worth_answering(state: State, text: str, rules: TurnRules) -> bool:
    """Words, and not just a backchannel to what the agent was saying."""
    return _has_words(text) and not (state.overlap and is_backchannel(text, rules.backchannels))


def is_backchannel(text: str, backchannels: frozenset[str]) -> bool:
    """Whether the text is only a listener's "mhm", said once or twice."""
    plain = " ".join(re.findall(r"[\w'-]+", text.lower()))
    if plain in backchannels:
        return True
    words = plain.split()
    return 0 < len(words) <= 2 and all(word in backchannels for word in words)


def _has_words(text: str) -> bool:
    return re.search(r"\w", text) is not None


def _join(first: str, second: str) -> str:
    return f"{first} {second}".strip()
