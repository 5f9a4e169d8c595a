"""Who may speak, and what to do about it. Pure: `step(state, input) -> (state, actions)`.

No clock, no audio, no asyncio: a conversation is a list of inputs, and a test is a list of
actions. `session.py` turns the endpointer's facts and the providers' answers into inputs, and
carries the actions out.

The policy, in words:

- A pause asks the STT. With speculation the agent begins to think on that text at once, held;
  if the caller goes on, it is dropped unheard; if the turn ends, it plays.
- Over the agent, words decide. Speech that lasts makes the agent fall quiet at once; words that
  are no backchannel ("mhm") take the turn, and anything else (a backchannel, a cough, noise) lets
  the agent go on where it stopped.
- Speech before the answer became audible takes the answer back: the caller had not finished, so
  the next turn carries the text of the last.
- Speech before the text of the last turn is known continues it: one STT stream hears both.
- Who speaks before the greeting is heard first: words other than a hello are answered instead of it.
- A "yeah" at the end of the agent's question answers it.
- What was said to an agent that could not be interrupted is answered when it has finished.
- A turn without words gets no answer.
- Where no STT tells the words (`SPEECH`), how long the caller speaks decides instead: over the agent,
  speech that lasts takes the turn, and anything shorter lets the agent go on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from voicectl.pipeline.endpointing import Ended, Fact, Judged, Noticed, Paused, Resumed, Started, Sustained

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

SPEECH = "\N{OBJECT REPLACEMENT CHARACTER}"
"""The text of a turn whose words nobody tells: something was said."""

COMMANDS = frozenset("wait stop no nope sorry hold actually hey excuse help cancel but hello".split())
"""One of these interrupts, however short."""

_HELLOS = frozenset("hello hi hey good morning afternoon evening there yes".split())
_SHORT_S = 0.65  # so short a sound is rarely more than a listener's
_LOOK_WORDS = 2  # one word in the middle of speech may be half of a backchannel
_HUM = re.compile(r"[mhnu]*m[mhnu]*|(?:u+h+|a+h+|o+h+|e+h+|e+r+)+")
_NOD_S = 1.0  # a "yeah" this long before the end of a question answers it


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the spec says of turns.

    `min_words`: so many words interrupt the agent; with 0, speech that lasts does so by itself.
    `commands`: words that mean it even where one or two others would be a listener's sound.
    `ask_at_pause`: a pause asks the STT; False where the STT says by itself when a turn is over.
    """

    speculate: bool = True
    interruptible: bool = True
    min_words: int = 1
    backchannels: frozenset[str] = BACKCHANNELS
    commands: frozenset[str] = COMMANDS
    ask_at_pause: bool = True


# Inputs (besides the endpointer's facts) -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """The STT's answer: the text of turn `turn` up to the `asked`-th time it was asked, from 1.

    `echo`: it is the agent's own sound, heard back.
    """

    turn: int
    text: str
    asked: int
    echo: bool = False


@dataclass(frozen=True, slots=True)
class HeardSoFar:
    """The STT's text of turn `turn`, which nobody asked for."""

    turn: int
    text: str
    echo: bool = False


@dataclass(frozen=True, slots=True)
class EndLikely:
    """The STT says that the caller has probably finished, with `text`."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyBegun:
    """A reply that `step` did not start: the greeting. A protected one is never interrupted."""

    protected: bool = False


@dataclass(frozen=True, slots=True)
class ReplyAudible:
    """The first frame of the reply went on the line."""


@dataclass(frozen=True, slots=True)
class ReplyOver:
    """The reply was played to its end at `at`, or failed. `question`: its last words ask something."""

    at: float = 0.0
    question: bool = False


@dataclass(frozen=True, slots=True)
class Typed:
    """The caller wrote `text` instead of speaking: a whole turn, which takes the word."""

    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Hushed:
    """The agent is to be quiet, whoever wants it."""

    at: float


Input = Fact | Heard | HeardSoFar | EndLikely | ReplyBegun | ReplyAudible | ReplyOver | Typed | Hushed

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
class PauseReply:
    """Fall quiet: the caller speaks since `at`, and it is not known yet what for."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Go on where the agent stopped."""

    turn: int


@dataclass(frozen=True, slots=True)
class InterruptReply:
    """Stop the agent: the caller, speaking since `at`, takes the turn."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class DropTurn:
    """The turn gets no answer."""

    turn: int
    reason: Literal["no words", "backchannel", "echo", "caller went on"]
    text: str


Action = (
    Listen
    | AskTranscript
    | StopListening
    | StartReply
    | CommitReply
    | CancelReply
    | PauseReply
    | ResumeReply
    | InterruptReply
    | DropTurn
)

# State -----------------------------------------------------------------------------------------

Agent = Literal["silent", "thinking", "speaking", "quiet"]


@dataclass(frozen=True, slots=True)
class State:
    """Where the conversation stands.

    Attributes:
        turn: number of the current or last caller turn, from 1.
        caller: "silent" (no turn open), "speaking", "paused" (may be over), "ended" (the turn is
            over, its text is awaited).
        speech_at: when the current speech began.
        spoken_s: how long it was, once it has paused; None before.
        asked: how often the STT was asked in this turn.
        heard: the last of these that it has answered.
        text: what the transcript of the current pause says; None while it is awaited.
        echo: this is the agent's own sound, heard back.
        lasted: speech over the agent lasted so long that it is meant.
        overlap: caller and agent speak at once in this turn, and the agent has not been stopped.
        agent: "thinking" has a reply that nobody has heard yet; `held` while it may not be heard;
            "quiet" has stopped in the middle and may go on.
        unheard: a quiet agent has not been heard at all.
        early: this turn began before the agent's greeting was heard.
        protected: the reply may not be interrupted.
        answered: the text that the current reply answers.
        carry: text of earlier turns whose answer was taken back unheard.
        nod: a backchannel during the current reply, and when it began: it may answer a question.
        question: the reply that was over during this turn ended with a question.
    """

    turn: int = 0
    caller: Literal["silent", "speaking", "paused", "ended"] = "silent"
    speech_at: float = 0.0
    spoken_s: float | None = None
    asked: int = 0
    heard: int = 0
    text: str | None = None
    echo: bool = False
    lasted: bool = False
    overlap: bool = False
    agent: Agent = "silent"
    held: bool = False
    unheard: bool = False
    early: bool = False
    protected: bool = False
    answered: str = ""
    carry: str = ""
    nod: tuple[str, float] | None = None
    question: bool = False


def step(state: State, happened: Input, rules: TurnRules) -> tuple[State, list[Action]]:
    """The next state, and what to do now, in order."""
    match happened:
        case Started(at, echo):
            return _started(state, at, echo, rules)
        case Resumed(at):
            actions: list[Action] = []
            state = replace(state, caller="speaking", text=None, speech_at=at, spoken_s=None)
            if state.agent == "thinking" and state.held:
                state = replace(state, agent="silent", held=False, answered="")
                actions.append(CancelReply("caller went on"))
            return state, actions
        case Noticed():
            if state.overlap and state.agent == "speaking" and _may_interrupt(state, rules):
                return replace(state, agent="quiet", unheard=False), [PauseReply(state.turn, state.speech_at)]
            return state, []
        case Sustained():
            state = replace(state, lasted=state.overlap)
            if not (state.overlap and _in_the_way(state) and _may_interrupt(state, rules)):
                return state, []
            if rules.min_words == 0:
                # The agent was stopped for it, so whatever it says gets an answer.
                return _interrupted(state), [InterruptReply(state.turn, state.speech_at)]
            return _asked(state) if rules.ask_at_pause or state.agent == "quiet" else (state, [])
        case Paused(at):
            state = replace(state, caller="paused", text=None, spoken_s=at - state.speech_at)
            if rules.ask_at_pause or state.agent == "quiet":
                return _asked(state)
            return replace(state, heard=state.asked), []  # an answer still to come is not of this pause
        case Heard(turn, text, asked, echo):
            if turn != state.turn or asked != state.asked or asked <= state.heard:
                return state, []
            state = replace(state, heard=asked, echo=echo)
            if state.caller == "speaking":
                return _settle_overlap(state, text, rules)
            # With a text already, the caller has gone on since: the next pause asks again.
            waited = state.caller in ("paused", "ended") and state.text is None
            return _heard(state, text, rules) if waited else (state, [])
        case HeardSoFar(turn, text, echo):
            if turn == state.turn and state.overlap and not echo and _takes_turn(state, text, rules):
                return _interrupted(state), [InterruptReply(state.turn, state.speech_at)]
            return state, []
        case EndLikely(turn, text):
            if turn != state.turn or state.caller not in ("speaking", "paused"):
                return state, []
            return _heard(replace(state, caller="paused", echo=False), text, rules)
        case Ended():
            state = replace(state, caller="ended")
            if state.text is not None:
                return _conclude(state, rules)
            return (state, []) if state.asked > state.heard else _asked(state)
        case Judged():
            return state, []
        case ReplyBegun(protected):
            return replace(state, agent="thinking", held=False, answered="", protected=protected, nod=None), []
        case ReplyAudible():
            overlap = state.overlap or state.caller in ("speaking", "paused")  # the greeting, over a caller
            return replace(state, agent="speaking", held=False, overlap=overlap), []
        case ReplyOver(at, question):
            return _over(state, at, question)
        case Hushed(at):
            return _hushed(state, at, state.turn)
        case Typed(text, at):
            state, actions = _hushed(state, at, state.turn + 1)
            if state.caller != "silent":
                actions.append(StopListening())
            state = replace(state, turn=state.turn + 1, caller="silent", text=None, heard=state.asked, overlap=False)
            state, more = _answer(state, _join(state.carry, text))
            return state, actions + more


def _started(state: State, at: float, echo: bool, rules: TurnRules) -> tuple[State, list[Action]]:
    """A new turn. An answer nobody has heard is taken back: the caller had not finished."""
    actions: list[Action] = []
    if state.agent == "thinking" and state.answered and not echo:
        actions.append(CancelReply("caller went on"))
        state = replace(state, agent="silent", held=False, answered="", carry=state.answered)
    turn = state.turn + 1
    if state.caller == "ended":
        actions.append(DropTurn(state.turn, "caller went on", ""))
        state = replace(state, heard=state.asked)  # what it answers to that is not all
    else:
        actions.append(Listen(turn, at))
        state = replace(state, asked=0, heard=0)
    if state.agent == "thinking" and not echo and not state.answered and _may_interrupt(state, rules):
        # The greeting was about to be heard: the caller is heard first.
        actions.append(PauseReply(turn, at))
        state = replace(state, agent="quiet", unheard=True)
    state = replace(state, turn=turn, caller="speaking", speech_at=at, spoken_s=None, text=None, lasted=False)
    return replace(state, overlap=_in_the_way(state), early=state.unheard, question=False), actions


def _asked(state: State) -> tuple[State, list[Action]]:
    return replace(state, asked=state.asked + 1), [AskTranscript()]


def _interrupted(state: State) -> State:
    return replace(state, agent="silent", overlap=False, unheard=False, protected=False, nod=None)


def _settle_overlap(state: State, text: str, rules: TurnRules) -> tuple[State, list[Action]]:
    """The words said over the agent decide who goes on."""
    if not (state.overlap and _in_the_way(state)):
        return state, []
    if not state.echo and _takes_turn(state, text, rules):
        return _interrupted(state), [InterruptReply(state.turn, state.speech_at)]
    if state.agent == "quiet" and not (state.caller == "speaking" and _has_words(text) and not state.echo):
        agent: Agent = "thinking" if state.unheard else "speaking"
        return replace(state, agent=agent, unheard=False), [ResumeReply(state.turn)]
    return state, []


def _heard(state: State, text: str, rules: TurnRules) -> tuple[State, list[Action]]:
    state = replace(state, text=text)
    state, actions = _settle_overlap(state, text, rules)
    if state.agent == "thinking" and state.held and state.answered != _join(state.carry, text):
        # It thinks of a text that was not all.
        state = replace(state, agent="silent", held=False, answered="")
        actions.append(CancelReply("caller went on"))
    if state.caller == "ended":
        state, more = _conclude(state, rules)
        return state, actions + more
    if rules.speculate and state.agent == "silent" and _worth_answering(state, text, rules):
        answer = _join(state.carry, text)
        state = replace(state, agent="thinking", held=True, answered=answer, protected=False, nod=None)
        actions.append(StartReply(state.turn, answer, held=True))
    return state, actions


def _conclude(state: State, rules: TurnRules) -> tuple[State, list[Action]]:
    """The turn is over and its text is known."""
    text = state.text or ""
    actions: list[Action] = [StopListening()]
    done = replace(state, caller="silent", text=None, lasted=False, overlap=False)
    if not _worth_answering(state, text, rules):
        reason = "no words" if not _has_words(text) else "echo" if state.echo else "backchannel"
        actions.append(DropTurn(state.turn, reason, text))
        if state.carry and state.agent == "silent":
            done, more = _answer(done, state.carry)
            return done, actions + more
        if reason == "backchannel":
            done = replace(done, nod=(text, state.speech_at))
        return done, actions
    if state.agent == "thinking" and state.held:
        actions.append(CommitReply(state.turn))
        return replace(done, held=False, carry=""), actions
    if state.agent == "silent":
        done, more = _answer(done, _join(state.carry, text))
        return done, actions + more
    # The agent may not be interrupted and still speaks: it answers when it has finished.
    return replace(done, carry=_join(state.carry, text)), actions


def _over(state: State, at: float, question: bool) -> tuple[State, list[Action]]:
    """The agent has finished: it answers what was left waiting."""
    waiting = state.carry
    if not waiting and question and state.nod and at - state.nod[1] <= _NOD_S:
        waiting = state.nod[0]
    state = replace(state, agent="silent", held=False, protected=False, answered="", nod=None, question=question)
    return _answer(state, waiting) if waiting and state.caller == "silent" else (state, [])


def _answer(state: State, text: str) -> tuple[State, list[Action]]:
    """Answer at once what the caller has said."""
    state = replace(state, agent="thinking", held=False, answered=text, carry="", protected=False, nod=None)
    return state, [StartReply(state.turn, text, held=False)]


def _hushed(state: State, at: float, turn: int) -> tuple[State, list[Action]]:
    actions: list[Action] = []
    if _in_the_way(state):
        actions.append(InterruptReply(turn, at))
    elif state.agent == "thinking":
        actions.append(CancelReply("caller went on"))
    return replace(_interrupted(state), held=False, answered=""), actions


def _may_interrupt(state: State, rules: TurnRules) -> bool:
    return rules.interruptible and not state.protected


def _in_the_way(state: State) -> bool:
    """Whether the agent has the word."""
    return state.agent in ("speaking", "quiet")


def _takes_turn(state: State, text: str, rules: TurnRules) -> bool:
    """Whether these words, said over the agent, mean to interrupt it."""
    if not (_in_the_way(state) and _may_interrupt(state, rules)):
        return False
    words = _words(text)
    if state.early and set(words) <= _HELLOS:
        return False
    least = max(1, rules.min_words, _LOOK_WORDS if state.caller == "speaking" else 0)
    return len(words) >= least and not _only_listens(state, text, rules)


def _only_listens(state: State, text: str, rules: TurnRules) -> bool:
    """Whether that was a listener's sound: a backchannel, a hum, or so short that the STT made words of one."""
    if text == SPEECH:
        return not state.lasted
    words = _words(text)
    if is_backchannel(text, rules.backchannels) or all(_HUM.fullmatch(word.replace("-", "")) for word in words):
        return True
    short = _in_the_way(state) and state.spoken_s is not None and state.spoken_s < _SHORT_S
    said = f" {' '.join(words)} "
    return short and len(words) <= 2 and not any(f" {command} " in said for command in rules.commands)


def _worth_answering(state: State, text: str, rules: TurnRules) -> bool:
    """Words, and not just a backchannel to what the agent was saying, unless it has just asked."""
    if not _has_words(text) or state.echo:
        return False
    if not state.overlap:
        return True
    if state.early and set(_words(text)) <= _HELLOS:
        return False  # the greeting answers it
    asked = state.question and not _in_the_way(state)
    return asked or not _only_listens(state, text, rules)


def is_backchannel(text: str, backchannels: frozenset[str]) -> bool:
    """Whether the text is only a listener's "mhm", said once or twice."""
    words = _words(text)
    if " ".join(words) in backchannels:
        return True
    return 0 < len(words) <= 2 and all(word in backchannels for word in words)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def _has_words(text: str) -> bool:
    return text == SPEECH or re.search(r"\w", text) is not None


def _join(first: str, second: str) -> str:
    return f"{first} {second}".strip()
