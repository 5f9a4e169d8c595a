"""`voicectl agents`, `providers`, `models` and `schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Voicectl
from voicectl.weights import WEIGHTS


def test_agents(voicectl: Voicectl, project: Path) -> None:
    assert voicectl("agents").out.splitlines() == [
        "AGENT   LANG  PROVIDERS  DESCRIPTION",
        "coffee  en    scripted   Takes orders.",
    ]
    [agent] = json.loads(voicectl("agents", "--json").out)
    assert (agent["name"], agent["providers"]["stt"]) == ("coffee", "scripted")


def test_no_agents_file(voicectl: Voicectl) -> None:
    result = voicectl("agents")
    assert (result.code, result.err) == (
        2,
        "agents.yaml: no such file. Go to its folder, or name it with --file\n",
    )


def test_providers(voicectl: Voicectl) -> None:
    rows = json.loads(voicectl("providers", "--json").out)
    assert {row["stage"] for row in rows} == {"vad", "stt", "llm", "tts", "s2s", "turn_model"}
    scripted = [row for row in rows if row["provider"] == "scripted"]
    assert all(not row["missing_packages"] and not row["models_not_pulled"] for row in scripted)
    [llm] = [row for row in rows if (row["stage"], row["provider"]) == ("llm", "local")]
    assert llm["models_not_pulled"] == llm["models"]
    assert {row["missing_key"] for row in rows if row["provider"] == "openai"} == {"OPENAI_API_KEY"}
    assert llm["missing_key"] is None
    assert max(len(line) for line in voicectl("providers").out.splitlines()) <= 80


@pytest.mark.parametrize("kind", ["agents", "profile", "caller"])
def test_schema_is_json(voicectl: Voicectl, kind: str) -> None:
    assert json.loads(voicectl("schema", kind).out)["$schema"].startswith("https://json-schema.org/")


def test_models_list(voicectl: Voicectl) -> None:
    shown = voicectl("models", "list").out
    for weights in WEIGHTS:
        assert weights.name in shown
        assert weights.licence in shown
    listed = json.loads(voicectl("models", "list", "--json").out)
    assert [model["state"] for model in listed] == ["missing"] * len(WEIGHTS)


def test_models_rm_wants_names(voicectl: Voicectl) -> None:
    assert voicectl("models", "rm").code == 2
    assert voicectl("models", "rm", "--all").code == 0


def test_unknown_model(voicectl: Voicectl) -> None:
    result = voicectl("models", "pull", "qwen2.5-coder")
    assert (result.code, result.err) == (
        3,
        "voicectl: error: unknown weights 'qwen2.5-coder'. Did you mean 'qwen2.5-coder-0.5b'?\n",
    )


def test_models_verify_finds_what_is_damaged(voicectl: Voicectl, home: Path) -> None:
    assert voicectl("models", "verify").out == "no models are here yet. Run: voicectl models pull\n"
    weights = WEIGHTS[0]
    folder = home / "cache" / "weights" / weights.name
    folder.mkdir(parents=True)
    (folder / weights.files[0].name).write_bytes(b"not a model")
    result = voicectl("models", "verify")
    assert result.code == 3
    assert f"{weights.files[0].name} is corrupt" in result.err
    assert result.err.endswith(f"Run: voicectl models pull {weights.name}\n")
