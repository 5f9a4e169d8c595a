"""The example agents, the profiles and the schemas in the repository are in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voicectl.bench.callers import CallerSpec
from voicectl.providers import CATALOG
from voicectl.spec import agents_schema, check_all, list_profiles, model_schema, profile_schema, resolve

ROOT = Path(__file__).resolve().parents[2]
AGENTS = ROOT / "agents.yaml"


def test_every_example_agent_holds_under_every_profile() -> None:
    profiles = list_profiles(AGENTS)
    assert profiles == ["cloud", "cloud-survives", "local", "local-small", "release", "scripted", "standin"]
    good, problems = check_all(AGENTS, profiles, env={}, catalog=CATALOG)
    assert problems == []
    assert len(good) == 2 * (1 + len(profiles))


def test_the_local_profile_spells_out_the_default() -> None:
    for name in ("coffee", "clinic"):
        default = resolve(name, None, [], env={}, catalog=CATALOG, agents_file=AGENTS)
        spelt = resolve(name, "local", [], env={}, catalog=CATALOG, agents_file=AGENTS)
        assert {**spelt.dump(), "profile": None} == default.dump()


def test_example_agents_speak_in_short_sentences() -> None:
    for name in ("coffee", "clinic"):
        agent = resolve(name, "scripted", [], env={}, catalog=CATALOG, agents_file=AGENTS)
        assert "no markdown" in agent.instructions
        assert len(agent.instructions) < 1500, "a small model reads it before the first word"
        assert agent.greeting is not None
        assert len(agent.greeting) < 80


@pytest.mark.parametrize("kind", ["agents", "profile", "caller"])
def test_the_schemas_beside_the_examples_are_up_to_date(kind: str) -> None:
    kept = json.loads((ROOT / ".schema" / f"{kind}.json").read_text(encoding="utf-8"))
    made = {
        "agents": lambda: agents_schema(CATALOG),
        "profile": lambda: profile_schema(CATALOG),
        "caller": lambda: model_schema(CallerSpec, "voicectl caller"),
    }[kind]()
    assert kept == made, f"run: voicectl schema {kind} > .schema/{kind}.json"
