"""The matrix, what a stand-in is told, and when."""

from __future__ import annotations

import pytest

from voicectl.drill.cells import MOMENTS, STAGES, Cell, DrillStage, Fuse, Moment, fault_of, matrix, service_of
from voicectl.events import (
    Event,
    LlmFirstToken,
    SpeechStarted,
    TranscriptUpdated,
    TtsFirstAudio,
    TtsRequested,
    UtterancePlayed,
)
from voicectl.standin.faults import KINDS, FaultKind


def played(index: int) -> UtterancePlayed:
    return UtterancePlayed(
        at=index, index=index, name="", voiced_from=index, voiced_until=index + 0.5, ends=index + 0.5
    )


def turn(index: int) -> list[Event]:
    """One turn of the caller, and its answer."""
    at = index + 0.1
    return [
        played(index),
        SpeechStarted(at=at, turn=index),
        TranscriptUpdated(at=at, turn=index, text="a", final=False),
        LlmFirstToken(at=at, reply=index),
        TtsRequested(at=at, reply=index, index=0),
        TtsFirstAudio(at=at, reply=index, index=0),
        TtsRequested(at=at, reply=index, index=1),
    ]


CALL = [
    LlmFirstToken(at=0.0, reply=9),
    TtsRequested(at=0.0, reply=9, index=0),
    TtsFirstAudio(at=0.0, reply=9, index=0),
    *turn(0),
    *turn(1),
    *turn(2),
]


def burns_at(kind: FaultKind, stage: DrillStage, moment: Moment) -> Event:
    fuse = Fuse(Cell(kind, stage, moment))
    found = [event for event in CALL if fuse.burns(event)]
    assert len(found) == 1, "a fuse burns once"
    return found[0]


def test_the_matrix_has_every_combination_once() -> None:
    cells = matrix()
    assert len(cells) == len(set(cells)) == len(KINDS) * len(STAGES) * len(MOMENTS) == 117
    assert matrix(["cut"], ["tts"], ["barge-in"]) == [Cell("cut", "tts", "barge-in")]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_strikes_as_the_caller_begins_to_speak_or_to_interrupt(kind: FaultKind, stage: DrillStage) -> None:
    assert burns_at(kind, stage, "first-turn") == played(0)
    assert burns_at(kind, stage, "barge-in") == played(2)


def test_in_the_middle_of_a_call_a_fault_finds_something_to_break_off() -> None:
    assert burns_at("cut", "stt", "mid-call") == played(1)
    assert burns_at("cut", "llm", "mid-call") == played(1)
    assert burns_at("429", "tts", "mid-call") == TtsRequested(at=1.1, reply=1, index=0)
    assert isinstance(burns_at("dns", "stt", "mid-call"), TranscriptUpdated)
    assert burns_at("refused", "llm", "mid-call") == LlmFirstToken(at=1.1, reply=1)
    assert burns_at("tls", "tts", "mid-call") == TtsFirstAudio(at=1.1, reply=1, index=0)


def test_a_vendor_is_out_until_the_end_of_the_call_but_for_one_who_says_when_to_come_again() -> None:
    for cell in matrix():
        fault = fault_of(cell, "openai-llm")
        assert fault and (fault.kind, fault.service, fault.after) == (cell.kind, "openai-llm", 0)
        assert fault.times == (1 if cell.kind == "429-retry-after" else None)
        assert (fault.pieces > 0) is (cell.moment != "first-turn")
    assert fault_of(Cell("none", "llm", "mid-call"), "openai-llm") is None


def test_every_vendor_with_a_stand_in_is_known_and_what_is_local_has_none() -> None:
    assert service_of("stt", "deepgram", None) == "deepgram-stt"
    assert service_of("stt", "deepgram", "flux-general-en") == "deepgram-flux"
    assert service_of("tts", "deepgram", "aura-2-thalia-en") == "deepgram-tts"
    assert service_of("llm", "anthropic", None) == "anthropic-llm"
    assert service_of("llm", "local", None) is None
    assert service_of("vad", "local", None) is None
