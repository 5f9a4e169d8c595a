"""What is a difference, and what is only the jitter of a machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from voicectl.events import (
    EVENTS,
    AgentInterrupted,
    CallEnded,
    CallStarted,
    Event,
    FrameLate,
    LlmFirstToken,
    PlayoutFinished,
    PlayoutStarted,
    ReplyCancelled,
    ReplyStarted,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TurnEnded,
)
from voicectl.replay.compare import first_departure, first_difference, first_other, of_turn
from voicectl.replay.show import difference_lines
from voicectl.replay.tell import tell

CALL: tuple[Event, ...] = (
    CallStarted(at=0.0, agent="coffee", caller="ada", clock="wall", rate=16_000),
    SpeechStarted(at=4.31, noted_at=4.42, turn=1),
    SpeechPaused(at=4.58, noted_at=4.71, turn=1),
    TranscriptUpdated(at=4.80, turn=1, text="A latte.", final=True),
    ReplyStarted(at=4.80, reply=1, turn=1, prompt="A latte.", held=True),
    LlmFirstToken(at=4.95, reply=1),
    TurnEnded(at=5.08, turn=1, speech_end=4.58, reason="500 ms of silence"),
    PlayoutStarted(at=5.10, reply=1),
    AgentInterrupted(at=6.0, noted_at=6.0, reply=1, turn=2, speech_at=5.5, heard="One large latte"),
    SpeechStarted(at=5.5, noted_at=6.0, turn=2),
    ReplyStarted(at=7.0, reply=2, turn=2, prompt="No, a mocha.", held=False),
    PlayoutStarted(at=7.5, reply=2),
    PlayoutFinished(at=9.0, reply=2, heard="One mocha."),
    CallEnded(at=9.9, reason="caller hung up"),
)


def changed(index: int, **fields: Any) -> list[Event]:
    events = list(CALL)
    events[index] = replace(events[index], **fields)
    return events


def test_equal_traces_do_not_differ() -> None:
    assert first_difference(CALL, list(CALL)) is None
    assert first_departure(CALL, list(CALL)) is None
    assert first_other(CALL, list(CALL)) is None


def test_a_difference_under_the_traces_resolution_is_none() -> None:
    assert first_difference(CALL, changed(5, at=4.95 + 4e-7)) is None
    assert first_difference(CALL, changed(5, at=4.950001)) is not None


def test_the_first_difference_comes_with_the_three_events_before_it() -> None:
    difference = first_difference(CALL, changed(6, at=4.88, reason="300 ms of silence"))
    assert difference is not None
    assert difference_lines(difference) == [
        "  4.80 s  the STT heard “A latte.” (turn 1)",
        "  4.80 s  the agent began to think ahead about “A latte.” (reply 1 to turn 1)",
        "  4.95 s  the LLM's first token came (reply 1)",
        "- 5.08 s  turn 1 ended after 500 ms of silence",
        "+ 4.88 s  turn 1 ended after 300 ms of silence",
        "  at was 5.08 and is 4.88; reason was “500 ms of silence” and is “300 ms of silence”",
    ]
    assert difference.line == 8


def test_an_event_that_moved_is_told_with_what_has_become_of_it() -> None:
    events = changed(6, at=7.4)
    late = events.pop(6)
    events.insert(10, late)
    difference = first_difference(CALL, events)
    assert difference is not None
    assert (difference.was, difference.now) == (CALL[6], late)


def test_a_trace_that_ends_early_differs_there() -> None:
    difference = first_difference(CALL, CALL[:-1])
    assert difference is not None
    assert (difference.was, difference.now) == (CALL[-1], None)
    assert "+ nothing more" in difference_lines(difference)


def test_what_comes_after_the_cut_is_left_out() -> None:
    assert first_difference(CALL[:8], [*CALL[:8], CallEnded(at=5.2, reason="interrupted")], until=5.2) is None


# Against the wall clock ------------------------------------------------------------------------


def test_jitter_of_a_stamp_is_no_difference() -> None:
    assert first_departure(CALL, changed(6, at=5.08 + 0.05)) is None
    assert first_departure(CALL, changed(5, at=5.2)) is None
    assert first_departure(CALL, changed(7, at=5.9)) is None


def test_a_stamp_further_off_is_one_unless_the_machine_said_it_was_late() -> None:
    late = changed(6, at=5.20)
    assert first_departure(late, CALL) is not None
    assert first_departure([*late[:6], FrameLate(at=5.09, late=0.11), *late[6:]], CALL) is None


def test_what_the_sound_decides_is_exact() -> None:
    difference = first_departure(CALL, changed(2, at=4.60))
    assert difference is not None
    assert isinstance(difference.was, SpeechPaused)
    assert first_departure(CALL, changed(6, speech_end=4.60)) is not None
    assert first_departure(CALL, changed(6, reason="300 ms of silence")) is not None


def test_an_interruption_one_word_later_is_the_same() -> None:
    assert first_departure(CALL, changed(8, heard="One large latte with")) is None
    assert first_departure(CALL, changed(8, heard="One large")) is None
    assert first_departure(CALL, changed(8, heard="One")) is not None
    assert first_departure(CALL, changed(8, heard="One small latte")) is not None


def test_a_speculative_reply_that_nobody_heard_is_none() -> None:
    extra = [
        ReplyStarted(at=4.72, reply=9, turn=1, prompt="A", held=True),
        ReplyCancelled(at=4.75, reply=9, reason="caller went on"),
    ]
    assert first_departure(CALL, [*CALL[:3], *extra, *CALL[3:]]) is None


def test_other_words_are_a_difference() -> None:
    for index, field in ((3, "text"), (4, "prompt"), (12, "heard")):
        difference = first_departure(CALL, changed(index, **{field: "Something else."}))
        assert difference is not None, field
        assert difference.was == CALL[index]


def test_the_earliest_departure_of_all_lanes_is_told() -> None:
    events = changed(12, heard="Something else.")
    events[3] = changed(3, text="A mocha.")[3]
    difference = first_departure(CALL, events)
    assert difference is not None
    assert difference.was == CALL[3]
    assert [type(event) for event in difference.before] == [SpeechStarted, SpeechPaused]


def test_two_calls_made_apart_may_have_other_times() -> None:
    moved = [replace(event, at=event.at + 1.3, noted_at=None) for event in CALL]
    assert first_other(CALL, moved) is None
    assert first_departure(CALL, moved) is not None
    moved[3] = changed(3, text="A mocha.")[3]
    assert first_other(CALL, moved) is not None


def test_a_turn_is_its_own_events_and_the_replies_to_it() -> None:
    assert of_turn(CALL, 2) == [*CALL[8:13]]


# In words --------------------------------------------------------------------------------------


def test_every_event_is_told_in_words() -> None:
    values = {"float": 1.5, "int": 1, "str": "x", "bool": True}
    kinds: list[Any] = list(EVENTS.values())
    for kind in kinds:
        hints = {name: str(field.type).split(" |")[0] for name, field in kind.__dataclass_fields__.items()}
        told = tell(kind(**{name: values.get(hint) for name, hint in hints.items() if name != "noted_at"}))
        assert told.startswith("1.50 s  "), kind
        assert kind.__name__ not in told
        assert "(" not in told.split("  ", 1)[1][:3]
