"""Warnings say what was seen, why it matters and what to do; and only when it was seen."""

from __future__ import annotations

from analysis.fabricate import Fabricated

from voicectl.analysis.metrics import Analysis, Run, analyse
from voicectl.events import FrameLate, ProviderFailed
from voicectl.report.warnings import cautions


def run(*calls: Fabricated, busy_cpus: float | None = None, interrupted: bool = False) -> Analysis:
    facts = Run(agent="coffee", profile="scripted", busy_cpus=busy_cpus, interrupted=interrupted)
    return analyse([call.recording() for call in calls], facts)


def call(turns: int = 4, number: int = 1, reason: str | None = "caller hung up") -> Fabricated:
    made, at = Fabricated(name=f"{number:04}-ada"), 0.0
    for _ in range(turns):
        at = made.exchange(at + 1.0, 0.7)
    return made.end(at + 1.0, reason)


def seen(analysis: Analysis) -> list[str]:
    return [caution.seen for caution in cautions(analysis)]


def test_a_sound_run_warns_of_nothing() -> None:
    assert seen(run(*[call(number=number) for number in range(6)])) == []


def test_few_turns() -> None:
    assert seen(run(call(5))) == ["Only 4 turns counted."]


def test_many_turns_of_few_calls() -> None:
    assert seen(run(call(12, 1), call(12, 2))) == ["All 23 turns come from 2 calls."]


def test_nothing_said() -> None:
    assert seen(run(call(0))) == ["No caller finished an utterance that expects an answer."]


def test_a_machine_that_lost_the_plan() -> None:
    late = call(25)
    late.events.insert(1, FrameLate(at=0.1, late=0.085))
    assert "1 frame of 4675 began late, the worst by 85 ms." in seen(run(late))


def test_other_programs() -> None:
    calls = [call(number=number) for number in range(6)]
    assert seen(run(*calls, busy_cpus=0.2)) == []
    assert seen(run(*calls, busy_cpus=1.3)) == ["Other programs kept 1.3 CPUs busy during the run."]


def test_a_recording_that_broke_off() -> None:
    calls = [call(number=number) for number in range(6)]
    broken = call(4, 7, reason=None)
    assert seen(run(*calls, broken)) == ["1 recording broke off: 0007-ada (the call did not end: cut after line 9)."]


def test_an_interrupted_run() -> None:
    calls = [call(number=number) for number in range(6)]
    assert seen(run(*calls, interrupted=True)) == ["The run was interrupted after 6 calls."]


def test_a_provider_that_failed() -> None:
    calls = [call(number=number) for number in range(6)]
    calls[2].events.insert(5, ProviderFailed(at=2.0, stage="tts", provider="tts:local", message="it is gone"))
    assert seen(run(*calls)) == ["A provider failed 1 time, first in 0002-ada: tts: it is gone"]
