"""`voicectl check`: exact lines for what people get wrong, and for what is fine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import AGENTS, Voicectl


def test_what_is_fine_is_one_ok_line_each(voicectl: Voicectl, project: Path) -> None:
    result = voicectl("check")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "ok agents.yaml: coffee (scripted, 1 threshold)",
        "ok agents.yaml: coffee under quick (scripted, virtual clock, 1 threshold)",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "greeting: Hi!",
            "greeting: Hi: there",
            "agents.yaml:6:17: broken YAML: a second ': ' in one line. Quote the value, or start a new line",
        ),
        ("greeting: Hi!", "greting: Hi!", "agents.yaml:6:5: unknown key 'greting'. Did you mean 'greeting'?"),
        (
            "stt: {provider: scripted}",
            "stt: {provider: scriptd}",
            "agents.yaml:8:21: unknown stt provider 'scriptd'. Did you mean 'scripted'?",
        ),
        (
            "greeting: Hi!",
            "turn: {endpointing: {silence_ms: 0.3}}",
            "agents.yaml:6:38: 'silence_ms' must be a whole number, not '0.3'. "
            "The unit is milliseconds: did you mean 300?",
        ),
        (
            "greeting: Hi!",
            "greeting: +15551234567",
            "agents.yaml:6:15: 'greeting' must be text, but YAML reads +15551234567 as the number +15551234567. "
            'Quote it: "+15551234567"',
        ),
        (
            "greeting: Hi!",
            "instructions: Hi!",
            "agents.yaml:6:5: duplicate key 'instructions' (first at line 5). Keep one",
        ),
        (
            "greeting: Hi!",
            "greeting: Hi from ${VOICECTL_TEST_NOWHERE}!",
            "agents.yaml:6:23: the environment variable 'VOICECTL_TEST_NOWHERE' is not set. "
            "Set it, or give a default: ${VOICECTL_TEST_NOWHERE:-...}",
        ),
        (
            "p95(voice_to_voice_ms)",
            "p95(voice_to_voice)",
            "agents.yaml:11:18: unknown metric 'voice_to_voice'. Did you mean 'voice_to_voice_ms'?",
        ),
        (
            "tts: {provider: scripted}",
            "tts: {provider: scripted, options: {api_key: sk-1}}",
            "agents.yaml:10:41: 'api_key' does not belong in a file: keys come from the environment. Remove it",
        ),
    ],
    ids=["broken YAML", "key", "provider", "unit", "phone number", "duplicate", "environment", "metric", "secret"],
)
def test_what_is_wrong_is_one_line_on_stderr(voicectl: Voicectl, project: Path, old: str, new: str, line: str) -> None:
    (project / "agents.yaml").write_text(AGENTS.replace(old, new, 1))
    for profile in ([], ["--profile", "quick"]):
        result = voicectl("check", *profile)
        assert (result.code, result.err) == (2, f"{line}\n")
        assert "ok" not in result.out


def test_a_bad_profile_is_told_once_and_the_rest_is_fine(voicectl: Voicectl, project: Path) -> None:
    (project / "profiles" / "bad.yaml").write_text("clok: virtual\n")
    result = voicectl("check")
    assert (result.code, result.err) == (2, "profiles/bad.yaml:1:1: unknown key 'clok'. Did you mean 'clock'?\n")
    assert len(result.out.splitlines()) == 2


def test_files_are_told_apart_by_their_content(voicectl: Voicectl, project: Path) -> None:
    (project / "elsewhere.yaml").write_text("line: {rate: 8001}\n")
    result = voicectl("check", "agents.yaml", "elsewhere.yaml")
    assert (result.code, result.err) == (
        2,
        "elsewhere.yaml:1:14: 'rate' must be 8000, 16000, 24000 or 48000, not 8001. Did you mean '8000'?\n",
    )
    assert result.out == "ok agents.yaml: coffee (scripted, 1 threshold)\n"


def test_callers_can_be_checked_too(voicectl: Voicectl, project: Path) -> None:
    (project / "empty").mkdir()
    (project / "c.yaml").write_text("utterances:\n  - {file: none.wav, after_ms: 3}\n")
    result = voicectl("check", "empty", "c.yaml")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[0] == "empty: holds no caller. Put WAV files there, or a caller.yaml with its WAVs"
    assert result.err.splitlines()[1].startswith("c.yaml:2:22: unknown key 'after_ms'. Did you mean 'after_agent_ms'?")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such file\n"),
        (["--profile", "quik"], "voicectl: error: unknown profile 'quik'. Did you mean 'quick'?\n"),
        (["--profile", "x/quik.yaml"], "x/quik.yaml: no such file\n"),
    ],
)
def test_what_is_not_there(voicectl: Voicectl, project: Path, args: list[str], line: str) -> None:
    result = voicectl("check", *args)
    assert (result.code, result.err) == (2, line)


def test_json(voicectl: Voicectl, project: Path) -> None:
    (project / "profiles" / "quick.yaml").write_text("clock: quick\n")
    result = voicectl("check", "--json")
    assert result.code == 2
    assert json.loads(result.out) == {
        "ok": [
            {
                "file": "agents.yaml",
                "agent": "coffee",
                "profile": None,
                "providers": dict.fromkeys(("vad", "stt", "llm", "tts"), "scripted"),
                "clock": "wall",
                "thresholds": ["p95(voice_to_voice_ms) < 800"],
            }
        ],
        "problems": [
            {
                "where": "profiles/quick.yaml:1:8",
                "message": "'clock' must be wall or virtual, not 'quick'",
                "hint": None,
            }
        ],
        "warnings": [],
    }
