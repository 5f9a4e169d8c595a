"""Whole calls whose providers fail: nobody is left without an answer, and a replay tells the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay.support import HASTY, ORDER

from voicectl.assemble import Engine
from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError
from voicectl.events import (
    BreakerChanged,
    CallEnded,
    Event,
    HedgeDecided,
    HedgeStarted,
    ProviderFailed,
    ProviderRetried,
    ProviderSwitched,
    ProviderTimedOut,
    ReplyStarted,
    TurnEnded,
)
from voicectl.providers import CATALOG, ProviderCatalog, StageName
from voicectl.replay.call import open_kept, replay
from voicectl.replay.tell import tell
from voicectl.resilience.faults import Fault, Faulty, Plan, drawn, planned
from voicectl.resilience.wrapping import Place
from voicectl.spec import ResolvedAgent, resolve
from voicectl.streams import Noted, read_streams
from voicectl.trace import event_line

GUARDED = """\
retry: 1
      timeout: {first_ms: 900, gap_ms: 700}
      breaker: {failures: 4, open_ms: 4000}
      fallback: {provider: scripted}\
"""
# Delays off the line's ticks: which of two things at one instant comes first is nobody's promise.
AGENTS = f"""\
version: 1
agents:
  coffee:
    instructions: You take orders on the phone.
    greeting: Hi! What can I get you?
    vad: {{provider: scripted}}
    stt:
      provider: scripted
      options: {{final_ms: 103}}
      hedge: {{after_ms: 300}}
      {GUARDED}
    llm:
      provider: scripted
      options: {{ttft_ms: 151, tokens_per_second: 47}}
      hedge: {{after_ms: 400}}
      {GUARDED}
    tts:
      provider: scripted
      options: {{ttfb_ms: 83, speed: 19}}
      hedge: true
      {GUARDED}
    turn: {{endpointing: {{strategy: silence, silence_ms: 500, pause_ms: 130}}, no_answer_ms: 20000}}
"""
OURS = (
    BreakerChanged,
    HedgeDecided,
    HedgeStarted,
    ProviderRetried,
    ProviderSwitched,
    ProviderTimedOut,
)


class Planned(ProviderCatalog):
    """The real providers, but the first of each stage that is built fails as its plan says."""

    def __init__(self, **plans: Plan) -> None:
        self._plans = plans

    def load(self, stage: StageName, name: str) -> Any:
        make = super().load(stage, name)
        plan = self._plans.pop(stage, None)

        def faulty(options: Any, model: str | None, clock: Clock) -> Any:
            built = make(options, model, clock)
            return getattr(Faulty(Place(stage, name), plan, clock), stage)(built) if plan else built

        return faulty


def agent_for(folder: Path, *overrides: str) -> ResolvedAgent:
    path = folder / "agents.yaml"
    path.write_text(AGENTS, encoding="utf-8")
    return resolve(None, None, ["clock=virtual", *overrides], env={}, catalog=CATALOG, agents_file=path)


def call(folder: Path, caller: Any = ORDER, overrides: Sequence[str] = (), **plans: Plan) -> list[Event]:
    """One call, kept in `folder`/call."""
    folder.mkdir(parents=True, exist_ok=True)
    agent = agent_for(folder, *overrides)

    async def main(clock: Clock) -> list[Event]:
        engine = Engine(agent, clock, Planned(**plans), seed=3)
        await engine.start(lambda text: None)
        trace = await engine.answer(caller, folder / "call")
        await engine.aclose()
        return trace.events

    return run_on("virtual", main)


def answered(events: Sequence[Event]) -> bool:
    """Every turn that ended has a reply."""
    turns = {event.turn for event in events if isinstance(event, TurnEnded)}
    return turns <= {event.turn for event in events if isinstance(event, ReplyStarted)} and isinstance(
        events[-1], CallEnded
    )


def ours(events: Sequence[Event]) -> list[str]:
    return [tell(event).split("  ", 1)[1] for event in events if isinstance(event, OURS)]


def replays(folder: Path) -> None:
    kept = open_kept(folder / "call")
    now = replay(kept)
    assert [*map(event_line, now.events)] == [*map(event_line, kept.recording.events)]


def test_a_call_without_faults_notes_nothing(tmp_path: Path) -> None:
    events = call(tmp_path)
    assert ours(events) == []
    replays(tmp_path)


def test_a_call_whose_first_llm_fails_goes_on_and_says_why(tmp_path: Path) -> None:
    events = call(tmp_path, llm=planned([Fault("error", "refused")]))
    assert answered(events)
    assert ours(events) == ["the LLM scripted took over from scripted: a planned fault (error, refused)"]
    assert not [event for event in events if isinstance(event, ProviderFailed)]
    replays(tmp_path)


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
@pytest.mark.parametrize("what", ["error", "slow", "cut", "silent", "drip"])
@pytest.mark.parametrize("pieces", [0, 2])
def test_no_fault_of_any_stage_is_heard_of_by_the_caller(tmp_path: Path, stage: str, what: Any, pieces: int) -> None:
    plan = planned([None, *[Fault(what, "server", pieces=pieces)] * 3])
    events = call(tmp_path, ORDER, (), **{stage: plan})
    assert answered(events)
    assert not [event for event in events if isinstance(event, ProviderFailed)]
    replays(tmp_path)


def test_a_stage_that_is_down_is_told_as_ever(tmp_path: Path) -> None:
    events = call(tmp_path, overrides=["llm.fallback=[]", "llm.hedge=false"], llm=lambda: Fault("error", "server"))
    failed = [event for event in events if isinstance(event, ProviderFailed)]
    assert {event.stage for event in failed} == {"llm"}
    assert any("is left alone" in line for line in ours(events))
    replays(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_fails_a_replay_tells_the_same(tmp_path: Path, seed: int) -> None:
    """And nobody is asked: what wrappers noted is in the recording."""
    lots = [np.random.default_rng([seed, number]) for number in range(3)]
    stt, llm, tts = (drawn(one, 0.4) for one in lots)
    events = call(tmp_path, HASTY if seed % 2 else ORDER, stt=stt, llm=llm, tts=tts)
    assert answered(events)
    noted = [chunk for chunk in read_streams(tmp_path / "call").chunks if isinstance(chunk, Noted)]
    assert len(noted) == len(ours(events))
    replays(tmp_path)


def test_a_provider_that_does_not_start_is_left_to_its_fallback(tmp_path: Path) -> None:
    class Unstartable(Planned):
        def load(self, stage: StageName, name: str) -> Any:
            make = super().load(stage, name)
            left = self.left
            self.left -= stage == "llm"

            def built(options: Any, model: str | None, clock: Clock) -> Any:
                provider = make(options, model, clock)
                if stage == "llm" and left > 0:

                    async def start(progress: Any) -> None:
                        raise ProviderError("has no key", where="llm:scripted", hint="Set IT", kind="refused")

                    provider.start = start
                return provider

            return built

        left = 1

    async def main(clock: Clock, catalog: Unstartable) -> tuple[list[str], list[Event]]:
        told: list[str] = []
        engine = Engine(agent_for(tmp_path), clock, catalog)
        await engine.start(told.append)
        trace = await engine.answer(ORDER, tmp_path / "call")
        await engine.aclose()
        return told, trace.events

    told, events = run_on("virtual", lambda clock: main(clock, Unstartable()))
    assert "did not start, a fallback takes over: llm:scripted: has no key. Set IT" in told
    assert answered(events)
    assert "is not asked: it did not start: has no key" in ours(events)[0]
    replays(tmp_path)

    none = Unstartable()
    none.left = 2
    with pytest.raises(ProviderError, match="has no key"):
        run_on("virtual", lambda clock: main(clock, none))


def test_a_recording_of_before_has_nothing_noted_and_is_read(tmp_path: Path) -> None:
    call(tmp_path, llm=planned([Fault("error", "refused")]))
    lines = (tmp_path / "call" / "streams.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "call" / "streams.jsonl").write_text("".join(line for line in lines if '"Noted"' not in line))
    assert len([line for line in lines if '"Noted"' in line]) == 1
    assert not [one for one in read_streams(tmp_path / "call").chunks if isinstance(one, Noted)]


def test_what_was_noted_is_checked_when_it_is_read(tmp_path: Path) -> None:
    call(tmp_path, llm=planned([Fault("error", "refused")]))
    path = tmp_path / "call" / "streams.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if '"Noted"' in line)
    broken = json.loads(lines[number])
    broken["what"]["event"] = "ProviderLost"
    path.write_text("".join([*lines[:number], json.dumps(broken) + "\n", *lines[number + 1 :]]))
    with pytest.raises(Exception, match=rf"streams.jsonl:{number + 1}: unknown event 'ProviderLost'"):
        read_streams(tmp_path / "call")
