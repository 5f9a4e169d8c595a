"""Real calls over real sockets, with the vendors' SDKs: what fails, and who survives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicectl.clock import Clock, run_on
from voicectl.drill.cells import HEALTHY, Cell, matrix
from voicectl.drill.outcome import Outcome
from voicectl.drill.run import Task, drill, plan, prepared
from voicectl.errors import UsageError
from voicectl.providers import CATALOG
from voicectl.recording import open_recording
from voicectl.spec import ResolvedAgent, resolve

AGENT = """
agents:
  desk:
    instructions: Be brief.
    greeting: Hello.
    vad: {provider: local}
    stt:
      {provider: deepgram, timeout: 700, breaker: 2, fallback: {provider: cartesia, timeout: 2000}}
    llm:
      {provider: openai, model: gpt-6-luna, timeout: 700, breaker: 2, fallback: {provider: local, model: smollm2-135m}}
    tts:
      {provider: cartesia, timeout: 700, breaker: 2, fallback: {provider: deepgram, timeout: 2000}}
    turn: {no_answer_ms: 2500, idle: {after_ms: 2000}}
"""


def resolved(tmp_path: Path, text: str = AGENT) -> ResolvedAgent:
    path = tmp_path / "agents.yaml"
    path.write_text(text, encoding="utf-8")
    return resolve(None, None, [], env={}, catalog=CATALOG, agents_file=path)


def rehearse(tasks: list[Task], agent: ResolvedAgent, out: Path) -> dict[Task, Outcome]:
    found: dict[Task, Outcome] = {}

    def on_outcome(outcome: Outcome) -> None:
        found[Task(outcome.cell, outcome.fallbacks)] = outcome

    async def main(clock: Clock) -> bool:
        return await drill(tasks, agent, out, clock, jobs=12, on_outcome=on_outcome)

    assert run_on("wall", main)
    return found


@pytest.mark.wall
def test_who_has_fallbacks_survives_what_others_do_not(tmp_path: Path) -> None:
    agent = resolved(tmp_path)
    cells = matrix(["500", "cut", "refused"], moments=["mid-call"])
    tasks = [*(Task(cell, True) for cell in cells), *(Task(cell, False) for cell in cells[:2])]
    found = rehearse(tasks, agent, tmp_path / "run")
    assert len(found) == len(tasks)
    for task, outcome in found.items():
        assert bool(outcome.lost) is not task.fallbacks, (str(task.cell), outcome.lost, outcome.failures)
        assert outcome.struck, str(task.cell)
        if task.fallbacks and not outcome.disturbed:
            assert outcome.words.repeated == 0, str(task.cell)
    assert {voice for turn in found[Task(Cell("500", "tts", "mid-call"), True)].turns for voice in turn.voices} == {
        "calm",
        "brisk",
    }
    for outcome in found.values():
        assert open_recording(tmp_path / "run" / outcome.folder).sealed


def test_an_agent_is_rehearsed_with_what_understands_tones(tmp_path: Path) -> None:
    agent = resolved(tmp_path)
    with_help, without = prepared(agent, fallbacks=True), prepared(agent, fallbacks=False)
    assert (with_help.vad.provider, with_help.clock, with_help.turn.idle) == ("scripted", "wall", None)
    assert [one.provider for one in with_help.stages()["stt"].fallback] == ["cartesia"]
    for stage in without.stages().values():
        assert (stage.fallback, stage.retry, stage.timeout, stage.breaker, stage.hedge) == ((), None, None, None, None)


def test_an_end_of_turn_model_is_left_out(tmp_path: Path) -> None:
    text = AGENT.replace("turn: {", "turn: {endpointing: {strategy: [text, audio]}, ")
    agent = prepared(resolved(tmp_path, text), fallbacks=True)
    assert (agent.turn.endpointing.strategy, agent.turn_model) == (("text",), None)


def test_a_plan_is_the_calls_without_a_fault_and_then_every_cell_with_and_without_help(tmp_path: Path) -> None:
    agent = resolved(tmp_path)
    cells = matrix(["cut"], ["llm"], ["first-turn", "barge-in"])
    assert [(task.cell, task.fallbacks) for task in plan(cells, agent, without=True)] == [
        (HEALTHY[0], True),
        (HEALTHY[1], True),
        (cells[0], True),
        (cells[0], False),
        (cells[1], True),
        (cells[1], False),
    ]


def test_a_stage_that_asks_no_vendor_is_not_drilled(tmp_path: Path) -> None:
    text = AGENT.replace("provider: openai, model: gpt-6-luna", "provider: local, model: smollm2-135m")
    planned = plan(matrix(["cut"]), resolved(tmp_path, text), without=False)
    assert {task.cell.stage for task in planned[2:]} == {"stt", "tts"}


def test_an_agent_that_asks_no_vendor_cannot_be_drilled() -> None:
    agent = resolve("coffee", "scripted", [], env={}, catalog=CATALOG)
    with pytest.raises(UsageError, match="nothing to rehearse"):
        prepared(agent, fallbacks=True)
