"""A replay that is not what it was fails, and says what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.support import AGENTS, make_calls
from voicectl.errors import UsageError
from voicectl.events import AgentInterrupted, AgentPaused, AgentResumed, TurnEnded
from voicectl.pipeline import endpointing
from voicectl.replay.check import Options, OtherSpec, check
from voicectl.replay.show import details, headline, reason


def test_an_unchanged_agent_does_as_it_did(calls: list[Path]) -> None:
    for path in calls:
        outcome = check(path, Options())
        assert (outcome.state, outcome.difference, outcome.problems) == ("ok", None, ())
        assert "as recorded" in headline(outcome)


def test_another_silence_fails_and_names_the_event(order: Path) -> None:
    outcome = check(order, Options(overrides=("turn.endpointing.silence_ms=700",)))
    assert outcome.state == "differs"
    assert outcome.difference is not None
    assert isinstance(outcome.difference.was, TurnEnded)
    assert isinstance(outcome.difference.now, TurnEnded)
    lines = details(outcome)
    assert len(outcome.difference.before) == 3
    assert any(line.startswith("- ") and line.endswith("turn 1 ended after 500 ms of silence") for line in lines)
    assert any(line.startswith("+ ") and line.endswith("turn 1 ended after 700 ms of silence") for line in lines)


def test_one_changed_line_of_endpointing_fails_and_names_the_event(
    order: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patient(duration: float, limit: float) -> bool:
        return duration > limit + 1e-9  # was: >= limit - 1e-9

    monkeypatch.setattr(endpointing, "_reached", patient)
    outcome = check(order, Options())
    assert outcome.state == "differs"
    assert "the caller" in reason(outcome) or "turn 1 ended" in reason(outcome)


def test_a_changed_prompt_names_the_request_and_the_difference(order: Path) -> None:
    outcome = check(order, Options(overrides=("instructions=You take orders. You are brief.",)))
    assert outcome.state == "differs"
    said = "\n".join(details(outcome))
    assert "the LLM was asked for what was not recorded: this conversation was not recorded" in said
    assert "line 1 was “…tem: You take orders on the phone.” and is “…tem: You take orders. You are brief.”" in said


def test_nearest_goes_on_with_the_nearest_recorded_answer(order: Path) -> None:
    options = Options(on_miss="nearest", overrides=("instructions=You take orders. You are brief.",))
    outcome = check(order, options)
    assert outcome.state == "ok"
    assert len(outcome.nearest) == 3
    assert "3 answered by the nearest" in headline(outcome)


def test_what_an_end_of_turn_model_said_is_played_back(tmp_path: Path) -> None:
    audio = ("turn.endpointing.strategy=audio", "turn.endpointing.audio.provider=scripted")
    (call, *_) = make_calls(tmp_path / "calls", *audio)
    outcome = check(call, Options())
    assert outcome.state == "ok"
    spec = (call / "trace.jsonl").read_text()
    assert '"scores":{"audio":0.9}' in spec


def test_only_one_turn_is_looked_at_and_told(hasty: Path) -> None:
    outcome = check(hasty, Options(turn=2))
    assert outcome.state == "ok"
    assert outcome.timeline
    to_others = [event for event in outcome.timeline if getattr(event, "turn", 2) not in (2, None)]
    assert all(isinstance(event, AgentPaused | AgentInterrupted | AgentResumed) for event in to_others)
    other = check(hasty, Options(turn=2, overrides=("turn.endpointing.silence_ms=600",)))
    assert other.difference is not None
    assert "(turn 2)" in reason(other) or "turn 2 ended" in reason(other)
    line = (hasty / "trace.jsonl").read_text().splitlines()[other.difference.line - 1]
    assert f'"event":"{type(other.difference.was).__name__}"' in line


def test_another_agents_file_can_be_replayed_with(order: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(AGENTS.replace("silence_ms: 500", "silence_ms: 650"), encoding="utf-8")
    other = OtherSpec(file=file, agent=None, profile=None)
    outcome = check(order, Options(other=other))
    assert "650 ms of silence" in "\n".join(details(outcome))
    with pytest.raises(UsageError, match="unknown agent 'tea'"):
        check(order, Options(other=OtherSpec(file=file, agent="tea", profile=None)))


def test_a_wrong_override_is_told_with_its_place(order: Path) -> None:
    outcome = check(order, Options(overrides=("turn.endpointing.silense_ms=700",)))
    assert outcome.state == "refused"
    assert "Did you mean 'silence_ms'?" in str(outcome.problems[0])
