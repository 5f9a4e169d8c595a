"""Turn-taking: a list of inputs, a list of actions. No time passes here."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from voicectl.pipeline.endpointing import Ended, Noticed, Paused, Resumed, Started, Sustained
from voicectl.pipeline.turn_taking import (
    BACKCHANNELS,
    Action,
    AskTranscript,
    CancelReply,
    CommitReply,
    DropTurn,
    EndLikely,
    Heard,
    HeardSoFar,
    Input,
    InterruptReply,
    Listen,
    PauseReply,
    ReplyAudible,
    ReplyBegun,
    ReplyOver,
    ResumeReply,
    StartReply,
    State,
    StopListening,
    TurnRules,
    is_backchannel,
    step,
)

RULES = TurnRules()
NO_SPECULATION = TurnRules(speculate=False)
BY_SOUND = TurnRules(min_words=0)
NOT_INTERRUPTIBLE = TurnRules(interruptible=False)
ENDED = Ended(2.0, "500 ms of silence")
NOTHING: list[Action] = []


class Conversation:
    """A state that is stepped, and forgets the actions of what it was led up with."""

    def __init__(self, rules: TurnRules = RULES) -> None:
        self.rules = rules
        self.state = State()

    def after(self, *inputs: Input) -> Conversation:
        for happened in inputs:
            self.step(happened)
        return self

    def step(self, happened: Input) -> list[Action]:
        self.state, actions = step(self.state, happened, self.rules)
        return actions


def speaking(rules: TurnRules = RULES) -> Conversation:
    """The agent is heard answering turn 1."""
    spoken = (Started(1.0), Paused(2.0), Heard(1, "A latte, please.", 1), ENDED, ReplyAudible())
    return Conversation(rules).after(*spoken)


# An ordinary turn -----------------------------------------------------------------------------


def test_a_pause_asks_the_stt_and_starts_a_held_reply_that_the_end_of_the_turn_commits() -> None:
    call = Conversation()
    assert call.step(Started(1.0)) == [Listen(1, 1.0)]
    assert call.step(Sustained(1.0)) == NOTHING
    assert call.step(Paused(2.0)) == [AskTranscript()]
    assert call.step(Heard(1, "A latte, please.", 1)) == [StartReply(1, "A latte, please.", held=True)]
    assert call.step(ENDED) == [StopListening(), CommitReply(1)]
    assert call.step(ReplyAudible()) == NOTHING
    assert call.step(ReplyOver()) == NOTHING
    assert call.state == State(turn=1, speech_at=1.0, spoken_s=1.0, asked=1, heard=1)


def test_without_speculation_the_reply_starts_when_the_turn_has_ended() -> None:
    call = Conversation(NO_SPECULATION).after(Started(1.0), Paused(2.0))
    assert call.step(Heard(1, "A latte.", 1)) == NOTHING
    assert call.step(ENDED) == [StopListening(), StartReply(1, "A latte.", held=False)]


def test_a_text_that_comes_after_the_end_of_the_turn_is_answered_at_once() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0))
    assert call.step(ENDED) == NOTHING
    assert call.step(Heard(1, "A latte.", 1)) == [StopListening(), StartReply(1, "A latte.", held=False)]


def test_a_reply_that_failed_while_held_is_asked_for_again_when_the_turn_has_ended() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte.", 1), ReplyOver())
    assert call.step(ENDED) == [StopListening(), StartReply(1, "A latte.", held=False)]


@pytest.mark.parametrize("text", ["", "  ", "...", "—"])
def test_a_turn_without_words_gets_no_answer(text: str) -> None:
    call = Conversation().after(Started(1.0), Paused(2.0))
    assert call.step(Heard(1, text, 1)) == NOTHING
    assert call.step(ENDED) == [StopListening(), DropTurn(1, "no words", text)]
    assert call.step(Started(5.0)) == [Listen(2, 5.0)]


@pytest.mark.parametrize("text", sorted(BACKCHANNELS))
def test_a_backchannel_is_an_answer_while_the_agent_is_silent(text: str) -> None:
    call = Conversation().after(Started(1.0), Paused(2.0))
    assert call.step(Heard(1, text, 1)) == [StartReply(1, text, held=True)]


# The caller goes on -----------------------------------------------------------------------------


def test_speech_resumed_after_a_pause_drops_the_held_reply() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte,", 1))
    assert call.step(Resumed(2.3)) == [CancelReply("caller went on")]
    assert call.step(Paused(3.0)) == [AskTranscript()]
    assert call.step(Heard(1, "A latte, no, a mocha.", 2)) == [StartReply(1, "A latte, no, a mocha.", held=True)]


def test_the_text_of_an_earlier_pause_is_not_taken_for_that_of_the_last() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Resumed(2.3), Paused(3.0))
    assert call.step(Heard(1, "A latte,", 1)) == NOTHING
    assert call.step(ENDED) == NOTHING
    whole = "A latte, no, a mocha."
    assert call.step(Heard(1, whole, 2)) == [StopListening(), StartReply(1, whole, held=False)]


def test_a_text_that_comes_while_the_caller_speaks_on_is_not_answered() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Resumed(2.3))
    assert call.step(Heard(1, "A latte,", 1)) == NOTHING


def test_the_text_of_a_pause_is_answered_once() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte.", 1))
    assert call.step(Heard(1, "", 1)) == NOTHING
    assert call.step(ENDED) == [StopListening(), CommitReply(1)]


def test_speech_before_the_answer_is_audible_takes_it_back_and_both_pieces_get_one_answer() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte.", 1), ENDED)
    assert call.step(Started(2.7)) == [CancelReply("caller went on"), Listen(2, 2.7)]
    call.step(Paused(3.5))
    assert call.step(Heard(2, "And a muffin.", 1)) == [StartReply(2, "A latte. And a muffin.", held=True)]
    assert call.step(Ended(3.5, "")) == [StopListening(), CommitReply(2)]
    assert call.state.carry == ""


def test_an_answer_taken_back_for_a_noise_is_given_after_it() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte.", 1), ENDED, Started(2.7), Paused(2.9))
    assert call.step(Heard(2, "", 1)) == NOTHING
    assert call.step(Ended(2.9, "")) == [
        StopListening(),
        DropTurn(2, "no words", ""),
        StartReply(2, "A latte.", held=False),
    ]


def test_an_answer_may_be_taken_back_more_than_once() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte.", 1), ENDED)
    call.after(Started(2.7), Paused(3.5), Heard(2, "And a muffin.", 1), Ended(3.5, ""))
    assert call.step(Started(4.2)) == [CancelReply("caller went on"), Listen(3, 4.2)]
    call.step(Paused(5.0))
    everything = "A latte. And a muffin. To go."
    assert call.step(Heard(3, "To go.", 1)) == [StartReply(3, everything, held=True)]


def test_speech_before_the_text_of_the_last_turn_is_known_continues_its_stream() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), ENDED)
    assert call.step(Started(2.7)) == [DropTurn(1, "caller went on", "")]
    assert call.step(Heard(1, "A latte.", 1)) == NOTHING
    assert call.step(Paused(3.5)) == [AskTranscript()]
    both = "A latte. And a muffin."
    assert call.step(Heard(2, both, 2)) == [StartReply(2, both, held=True)]
    assert call.step(Ended(3.5, "")) == [StopListening(), CommitReply(2)]


# The caller speaks while the agent does -----------------------------------------------------------


def test_lasting_speech_makes_the_agent_fall_quiet_and_its_words_interrupt() -> None:
    call = speaking().after(Started(5.0))
    assert call.step(Noticed(5.0)) == [PauseReply(2, 5.0)]
    assert call.step(Sustained(5.0)) == [AskTranscript()]
    assert call.step(Heard(2, "No, a", 1)) == [InterruptReply(2, 5.0)]
    assert call.step(Paused(6.0)) == [AskTranscript()]
    assert call.step(Heard(2, "No, a mocha.", 2)) == [StartReply(2, "No, a mocha.", held=True)]
    assert call.step(Ended(6.0, "")) == [StopListening(), CommitReply(2)]


def test_words_that_the_stt_gives_unasked_interrupt_at_once() -> None:
    call = speaking().after(Started(5.0), Noticed(5.0))
    assert call.step(HeardSoFar(2, "Mhm")) == NOTHING
    assert call.step(HeardSoFar(2, "Mhm no")) == [InterruptReply(2, 5.0)]
    assert call.step(HeardSoFar(2, "Mhm no wait")) == NOTHING


def test_lasting_noise_lets_the_agent_go_on() -> None:
    call = speaking().after(Started(5.0), Noticed(5.0), Sustained(5.0))
    assert call.step(Heard(2, "", 1)) == [ResumeReply(2)]
    assert call.step(Paused(8.0)) == [AskTranscript()]
    assert call.step(Heard(2, "", 2)) == NOTHING
    assert call.step(Ended(8.0, "")) == [StopListening(), DropTurn(2, "no words", "")]
    assert call.state.agent == "speaking"


def test_a_backchannel_lets_a_quiet_agent_go_on() -> None:
    call = speaking().after(Started(5.0), Noticed(5.0), Paused(5.3))
    assert call.step(Heard(2, "Mhm.", 1)) == [ResumeReply(2)]
    assert call.state.agent == "speaking"


def test_fewer_words_than_the_rules_ask_for_do_not_interrupt() -> None:
    call = speaking(TurnRules(min_words=2)).after(Started(5.0), Noticed(5.0), Paused(5.4))
    assert call.step(Heard(2, "Wait.", 1)) == [ResumeReply(2)]
    assert call.step(Ended(5.4, "")) == [StopListening()]
    assert call.step(ReplyOver()) == [StartReply(2, "Wait.", held=False)]


def test_the_agents_own_words_do_not_interrupt_it() -> None:
    call = speaking().after(Started(5.0), Noticed(5.0), Paused(6.0))
    assert call.step(Heard(2, "that is four dollars", 1, echo=True)) == [ResumeReply(2)]
    assert call.step(Ended(6.0, "")) == [StopListening(), DropTurn(2, "echo", "that is four dollars")]


def test_an_echo_does_not_take_an_unheard_answer_back() -> None:
    call = Conversation().after(Started(1.0), Paused(2.0), Heard(1, "A latte.", 1), ENDED)
    assert call.step(Started(2.7, echo=True)) == [Listen(2, 2.7)]
    call.step(Paused(3.5))
    assert call.step(Heard(2, "One moment.", 1, echo=True)) == NOTHING
    assert call.step(Ended(3.5, "")) == [StopListening(), DropTurn(2, "echo", "One moment.")]


def test_noise_does_not_hold_up_an_agent_whose_stt_finds_the_end_itself() -> None:
    call = Conversation(TurnRules(ask_at_pause=False)).after(Started(1.0), EndLikely(1, "A latte."), ENDED)
    call.after(ReplyAudible(), Started(5.0), Noticed(5.0))
    assert call.step(Sustained(5.0)) == [AskTranscript()]
    assert call.step(Heard(2, "", 1)) == [ResumeReply(2)]


def test_an_answer_to_a_text_that_was_not_all_is_not_given() -> None:
    call = Conversation().after(Started(1.0), EndLikely(1, "A latte."))
    call.step(Paused(3.0))
    assert call.step(Heard(1, "A latte. With oat milk.", 1)) == [
        CancelReply("caller went on"),
        StartReply(1, "A latte. With oat milk.", held=True),
    ]
    assert call.step(Ended(3.0, "")) == [StopListening(), CommitReply(1)]


def test_a_short_answer_begun_over_the_agents_last_word_is_answered() -> None:
    call = speaking().after(Started(5.0), ReplyOver(5.1), Paused(5.5))
    assert call.step(Heard(2, "Tom Hill.", 1)) == [StartReply(2, "Tom Hill.", held=True)]


def test_a_command_of_several_words_interrupts_however_short() -> None:
    rules = TurnRules(commands=frozenset({"hold on"}))
    for text, interrupts in (("Hold on.", True), ("On hold.", False)):
        actions = speaking(rules).after(Started(5.0), Paused(5.4)).step(Heard(2, text, 1))
        assert bool(actions) is interrupts


def test_a_protected_reply_is_never_interrupted() -> None:
    call = Conversation().after(ReplyBegun(protected=True), ReplyAudible(), Started(1.0))
    assert call.step(Noticed(1.0)) == NOTHING
    assert call.step(Sustained(1.0)) == NOTHING
    assert call.step(HeardSoFar(1, "Hello can you hear me")) == NOTHING
    call.step(Paused(2.0))
    assert call.step(Heard(1, "A latte.", 1)) == NOTHING
    assert call.step(Ended(2.0, "")) == [StopListening()]
    assert call.step(ReplyOver()) == [StartReply(1, "A latte.", held=False)]


def test_a_backchannel_said_at_the_end_of_a_question_answers_it_and_one_said_long_before_does_not() -> None:
    for at, answered in ((5.0, True), (3.0, False)):
        call = speaking().after(Started(at), Paused(at + 0.3), Heard(2, "Yeah.", 1), Ended(at + 0.3, ""))
        actions = call.step(ReplyOver(5.5, question=True))
        assert actions == ([StartReply(2, "Yeah.", held=False)] if answered else NOTHING)


def test_an_stt_that_finds_the_end_itself_starts_the_answer_and_takes_it_back() -> None:
    call = Conversation(TurnRules(ask_at_pause=False)).after(Started(1.0))
    assert call.step(EndLikely(1, "A latte.")) == [StartReply(1, "A latte.", held=True)]
    assert call.step(Resumed(2.0)) == [CancelReply("caller went on")]
    assert call.step(Paused(2.8)) == NOTHING
    assert call.step(EndLikely(1, "A latte, to go.")) == [StartReply(1, "A latte, to go.", held=True)]
    assert call.step(Ended(3.0, "the STT")) == [StopListening(), CommitReply(1)]


def test_an_stt_that_should_find_the_end_and_does_not_is_asked_at_last() -> None:
    call = Conversation(TurnRules(ask_at_pause=False)).after(Started(1.0), Paused(2.0))
    assert call.step(Ended(2.0, "too long")) == [AskTranscript()]
    assert call.step(Heard(1, "A latte.", 1)) == [StopListening(), StartReply(1, "A latte.", held=False)]


def test_without_min_words_lasting_speech_interrupts_by_itself() -> None:
    call = speaking(BY_SOUND).after(Started(5.0))
    assert call.step(Sustained(5.0)) == [InterruptReply(2, 5.0)]
    call.step(Paused(6.0))
    assert call.step(Heard(2, "No, a mocha.", 1)) == [StartReply(2, "No, a mocha.", held=True)]
    assert call.step(Ended(6.0, "")) == [StopListening(), CommitReply(2)]


def test_speech_does_not_interrupt_before_it_is_sustained() -> None:
    call = speaking()
    assert call.step(Started(5.0)) == [Listen(2, 5.0)]
    assert call.step(Paused(5.3)) == [AskTranscript()]


def test_short_words_interrupt_at_their_pause() -> None:
    call = speaking().after(Started(5.0), Paused(5.3))
    assert call.step(Heard(2, "Stop.", 1)) == [InterruptReply(2, 5.0), StartReply(2, "Stop.", held=True)]
    assert call.step(Ended(5.3, "")) == [StopListening(), CommitReply(2)]


def test_short_words_whose_text_is_late_interrupt_when_it_comes() -> None:
    call = speaking().after(Started(5.0), Paused(5.3), Ended(5.3, ""))
    assert call.step(Heard(2, "Stop.", 1)) == [
        InterruptReply(2, 5.0),
        StopListening(),
        StartReply(2, "Stop.", held=False),
    ]


@pytest.mark.parametrize("text", ["Mhm.", "mm-hmm", "Yeah, yeah.", "Okay!", "Uh huh.", "I see."])
def test_a_backchannel_leaves_the_agent_speaking(text: str) -> None:
    call = speaking().after(Started(5.0), Paused(5.3))
    assert call.step(Heard(2, text, 1)) == NOTHING
    assert call.step(Ended(5.3, "")) == [StopListening(), DropTurn(2, "backchannel", text)]
    assert call.state.agent == "speaking"


def test_a_noise_leaves_the_agent_speaking() -> None:
    call = speaking().after(Started(5.0), Paused(5.3))
    assert call.step(Heard(2, "", 1)) == NOTHING
    assert call.step(Ended(5.3, "")) == [StopListening(), DropTurn(2, "no words", "")]
    assert call.state.agent == "speaking"


def test_a_backchannel_that_becomes_a_sentence_interrupts() -> None:
    call = speaking().after(Started(5.0), Paused(5.3), Heard(2, "Okay", 1), Resumed(5.6), Paused(6.4))
    assert call.step(Heard(2, "Okay, and a mocha.", 2))[0] == InterruptReply(2, 5.6)


def test_a_backchannel_so_long_that_it_stopped_the_agent_is_answered() -> None:
    call = speaking(BY_SOUND).after(Started(5.0), Sustained(5.0), Paused(5.8))
    assert call.step(Heard(2, "Okay, okay.", 1)) == [StartReply(2, "Okay, okay.", held=True)]


def test_an_agent_that_may_not_be_interrupted_answers_when_it_has_finished() -> None:
    call = speaking(NOT_INTERRUPTIBLE).after(Started(5.0))
    assert call.step(Sustained(5.0)) == NOTHING
    call.step(Paused(6.0))
    assert call.step(Heard(2, "No, a mocha.", 1)) == NOTHING
    assert call.step(Ended(6.0, "")) == [StopListening()]
    assert call.step(ReplyOver()) == [StartReply(2, "No, a mocha.", held=False)]
    assert call.state.carry == ""


def test_what_was_said_to_an_agent_that_may_not_be_interrupted_joins_what_is_said_next() -> None:
    call = speaking(NOT_INTERRUPTIBLE).after(Started(5.0), Paused(6.0), Heard(2, "No, a mocha.", 1), Ended(6.0, ""))
    call.after(Started(7.0))
    assert call.step(ReplyOver()) == NOTHING
    call.step(Paused(8.0))
    assert call.step(Heard(3, "And a muffin.", 1)) == [StartReply(3, "No, a mocha. And a muffin.", held=True)]


def test_the_reply_may_end_while_the_caller_speaks() -> None:
    call = speaking().after(Started(5.0), ReplyOver())
    assert call.step(Sustained(5.0)) == NOTHING
    call.step(Paused(6.0))
    assert call.step(Heard(2, "A mocha.", 1)) == [StartReply(2, "A mocha.", held=True)]


# The greeting -----------------------------------------------------------------------------------


def test_who_speaks_before_the_greeting_is_heard_is_heard_first() -> None:
    call = Conversation().after(ReplyBegun())
    assert call.step(Started(0.2)) == [Listen(1, 0.2), PauseReply(1, 0.2)]
    assert call.step(Paused(1.0)) == [AskTranscript()]
    assert call.step(Heard(1, "A latte.", 1)) == [InterruptReply(1, 0.2), StartReply(1, "A latte.", held=True)]
    assert call.step(Ended(1.0, "")) == [StopListening(), CommitReply(1)]


@pytest.mark.parametrize("text", ["Hello?", "Hi, good morning.", "Yes, hello?", ""])
def test_the_greeting_answers_a_hello_or_a_noise_said_before_it(text: str) -> None:
    call = Conversation().after(ReplyBegun(), Started(0.2), Paused(1.0))
    assert call.step(Heard(1, text, 1)) == [ResumeReply(1)]
    assert call.step(ReplyAudible()) == NOTHING
    [stop, drop] = call.step(Ended(1.0, ""))
    assert stop == StopListening() and isinstance(drop, DropTurn)
    assert call.step(ReplyOver(3.0, question=True)) == NOTHING


def test_the_greeting_may_be_interrupted_by_the_same_caller_later() -> None:
    call = Conversation().after(ReplyBegun(), Started(0.2), Paused(1.0), Heard(1, "Hello?", 1), ReplyAudible())
    call.step(Ended(1.0, ""))
    call.step(Started(2.0))
    assert call.step(Noticed(2.0)) == [PauseReply(2, 2.0)]
    call.step(Paused(3.0))
    assert call.step(Heard(2, "Hello, a latte.", 1))[0] == InterruptReply(2, 2.0)


@pytest.mark.parametrize(
    ("text", "only"),
    [
        ("Mhm.", True),
        ("yeah yeah", True),
        ("Okay, yeah.", True),
        ("mm hmm", True),
        ("yeah yeah yeah", False),
        ("yeah but", False),
        ("no", False),
        ("stop", False),
        ("", False),
        ("okay so I want", False),
    ],
)
def test_what_is_only_a_backchannel(text: str, only: bool) -> None:
    assert is_backchannel(text, BACKCHANNELS) is only


# Whatever happens -------------------------------------------------------------------------------


class AnyConversation(RuleBasedStateMachine):
    """Any legal order of inputs, with an STT that is slow but hears everything.

    Every piece of speech is a word of its own, a backchannel or a noise; the transcript of a pause
    is all that was said since the stream was opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.policy = RULES
        self.state = State()
        self.clock = 0.0
        self.caller = "silent"
        self.sustained = False
        self.words = 0
        self.listening = False
        self.stream: list[str] = []  # what was said since it was opened
        self.asked: list[tuple[int, str]] = []  # (pause, text) of this stream, in order
        self.reply: StartReply | None = None
        self.held = False
        self.audible = False
        self.greeting = self.protected = self.quiet = self.noticed = False
        self.answered: list[str] = []  # texts of replies that were not taken back
        self.spoken: list[str] = []  # words that must not be lost
        self.concluded: list[tuple[type[Action], int]] = []

    @initialize(
        policy=st.builds(
            TurnRules,
            speculate=st.booleans(),
            interruptible=st.booleans(),
            min_words=st.integers(0, 2),
            ask_at_pause=st.booleans(),
        ),
        greeted=st.booleans(),
        protected=st.booleans(),
    )
    def begin(self, policy: TurnRules, greeted: bool, protected: bool) -> None:
        self.policy = policy
        if greeted:
            self.greeting, self.protected = True, protected
            self.give(ReplyBegun(protected))

    # What may happen

    @precondition(lambda self: self.caller == "silent")
    @rule()
    def start(self) -> None:
        self.caller, self.sustained, self.noticed = "speaking", False, False
        self.give(Started(self.later()))

    @precondition(lambda self: self.caller == "speaking" and not self.noticed)
    @rule()
    def notice(self) -> None:
        self.noticed = True
        self.give(Noticed(self.clock))

    @precondition(lambda self: self.caller == "speaking" and self.stream)
    @rule()
    def hear_so_far(self) -> None:
        self.give(HeardSoFar(self.state.turn, " ".join(self.stream)))

    @precondition(lambda self: self.caller == "speaking" and not self.sustained)
    @rule()
    def sustain(self) -> None:
        self.sustained = True
        self.give(Sustained(self.clock))

    @precondition(lambda self: self.caller == "speaking")
    @rule(said=st.sampled_from(["word", "word", "okay", ""]))
    def pause(self, said: str) -> None:
        self.caller = "paused"
        if said == "word":
            self.words += 1
            said = f"word{self.words}"
            self.spoken.append(said)
        if said:
            self.stream.append(said)
        self.give(Paused(self.later()))

    @precondition(lambda self: self.caller == "paused")
    @rule()
    def resume(self) -> None:
        self.caller, self.sustained, self.noticed = "speaking", False, False
        self.give(Resumed(self.later()))

    @precondition(lambda self: self.caller == "paused")
    @rule()
    def end(self) -> None:
        self.caller = "silent"
        self.give(Ended(self.clock, "silence"))

    @precondition(lambda self: self.asked)
    @rule()
    def hear(self) -> None:
        pause, text = self.asked.pop(0)
        self.give(Heard(self.state.turn, text, pause))

    @precondition(lambda self: len(self.asked) > 1)
    @rule()
    def leave_an_overtaken_pause_unanswered(self) -> None:
        self.asked.pop(0)

    @rule(data=st.data())
    def hear_of_the_past(self, data: st.DataObject) -> None:
        """A transcript of an earlier turn, or a second one of the same pause, changes nothing."""
        turn = data.draw(st.integers(0, self.state.turn))
        pause = data.draw(st.integers(0, self.state.asked))
        open_now = [pause for pause, _ in self.asked]
        if turn == self.state.turn and pause in open_now:
            return
        before = self.state
        self.give(Heard(turn, "of the past", pause))
        assert self.state == before

    @precondition(lambda self: (self.reply or self.greeting) and not (self.held or self.audible or self.quiet))
    @rule()
    def become_audible(self) -> None:
        self.audible = True
        self.give(ReplyAudible())

    @precondition(lambda self: (self.reply or self.greeting) and not (self.held or self.quiet))
    @rule()
    def play_or_fail_to_the_end(self) -> None:
        self.finish_reply()
        self.give(ReplyOver())

    # What must hold

    def give(self, happened: Input) -> None:
        self.state, actions = step(self.state, happened, self.policy)
        self.check(actions)

    def check(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Listen():
                    assert not self.listening, "two streams at once"
                    self.listening, self.stream, self.asked = True, [], []
                case AskTranscript():
                    assert self.listening
                    self.asked.append((self.state.asked, " ".join(self.stream)))
                case StopListening():
                    assert self.listening, "no stream to stop"
                    self.listening, self.asked = False, []
                case StartReply(text=text, held=held, turn=turn):
                    assert not self.reply and not self.greeting, "two replies at once"
                    assert text.strip()
                    self.reply, self.held, self.audible = action, held, False
                    if not held:
                        self.concluded.append((StartReply, turn))
                case CommitReply(turn):
                    assert self.reply and self.held, "only a held reply can be committed"
                    self.held = False
                    self.concluded.append((CommitReply, turn))
                case CancelReply():
                    assert self.reply and not self.audible, "only what nobody has heard is taken back"
                    self.reply, self.held = None, False
                case PauseReply():
                    assert not self.quiet and (self.audible or self.greeting)
                    assert self.policy.interruptible and not self.protected
                    self.quiet = True
                case ResumeReply():
                    assert self.quiet
                    self.quiet = False
                case InterruptReply():
                    assert self.audible or self.quiet, "only who speaks can be interrupted"
                    assert self.policy.interruptible and not self.protected
                    self.finish_reply()
                case DropTurn(turn, reason, text):
                    assert reason == "caller went on" or not any(word in text.split() for word in self.spoken)
                    self.concluded.append((DropTurn, turn))

    def finish_reply(self) -> None:
        if self.reply:
            self.answered.append(self.reply.text)
        self.reply, self.audible, self.greeting, self.quiet, self.protected = None, False, False, False, False

    def later(self) -> float:
        self.clock += 1.0
        return self.clock

    @invariant()
    def a_turn_is_concluded_once(self) -> None:
        assert len(set(self.concluded)) == len(self.concluded)
        turns = [turn for kind, turn in self.concluded if kind is not DropTurn]
        assert len(set(turns)) == len(turns)

    @invariant()
    def the_state_knows_the_agent(self) -> None:
        expected = (
            "quiet"
            if self.quiet
            else "speaking"
            if self.audible
            else "thinking"
            if self.reply or self.greeting
            else "silent"
        )
        assert self.state.agent == expected
        assert self.state.held == self.held

    def teardown(self) -> None:
        """The caller falls silent, the STT answers, the agent has its say: every word was answered."""
        if self.caller == "speaking":
            self.pause("")
        if self.caller == "paused":
            self.end()
        while self.asked:
            self.hear()
        for _ in range(3):
            if self.reply or self.greeting:
                self.play_or_fail_to_the_end()
        assert not self.listening
        assert (self.reply, self.state.carry, self.state.caller, self.state.agent) == (None, "", "silent", "silent")
        answered = " ".join(self.answered).split()
        assert [word for word in answered if word.startswith("word")] == self.spoken, "lost, doubled or out of order"


AnyConversation.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnyConversation = AnyConversation.TestCase
