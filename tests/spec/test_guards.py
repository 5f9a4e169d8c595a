"""Retry, timeout, breaker, hedge and fallback as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicectl.spec import Stage, load_resolved
from voicectl.spec.agent import BreakerSpec, HedgeSpec, RetrySpec, TimeoutSpec

from .support import FakeCatalog, load, problems, write

AGENT = """\
version: 1
agents:
  coffee:
    instructions: Take orders.
    vad: {{provider: local}}
    stt: {{provider: local}}
    llm:
      provider: openai
      model: gpt
      {guards}
    tts: {{provider: local}}
"""


def agent(folder: Path, *guards: str, **profiles: str) -> Path:
    return write(folder, AGENT.format(guards="\n      ".join(guards) or "options: {}"), **profiles)


def llm(path: Path, *overrides: str, profile: str | None = None) -> Stage:
    found = load(path, *overrides, profile=profile).llm
    assert found
    return found


def test_without_any_a_stage_is_as_ever(tmp_path: Path) -> None:
    stage = llm(agent(tmp_path))
    assert (stage.retry, stage.timeout, stage.breaker, stage.hedge, stage.fallback) == (None, None, None, None, ())
    assert set(stage.dump()) == {"provider", "model", "options"}


def test_the_short_forms(tmp_path: Path) -> None:
    guards = ("retry: 3", "timeout: 1500", "breaker: true", "hedge: true", "fallback: {provider: local}")
    stage = llm(agent(tmp_path, *guards))
    assert stage.retry == RetrySpec(attempts=3)
    assert stage.timeout == TimeoutSpec(first_ms=1500)
    assert stage.breaker == BreakerSpec()
    assert stage.hedge == HedgeSpec()
    assert [(one.provider, one.model) for one in stage.fallback] == [("local", "qwen-0.5b")]


def test_the_long_forms_and_the_way_back(tmp_path: Path) -> None:
    path = agent(
        tmp_path,
        "retry: {attempts: 2, first_ms: 50, most_ms: 900, per_call: 4}",
        "timeout: {first_ms: 1500, gap_ms: 700}",
        "breaker: {failures: 5, open_ms: 4000}",
        "hedge: {after_ms: 400}",
        "fallback:",
        "  - {provider: local, model: smollm2, retry: 1, timeout: {gap_ms: 900}, breaker: {failures: 2}}",
        "  - {provider: local, options: {max_tokens: 12}}",
    )
    resolved = load(path)
    first, second = llm(path).fallback
    assert (first.model, first.retry, first.breaker) == ("smollm2", RetrySpec(attempts=1), BreakerSpec(failures=2))
    assert second.dump()["options"]["max_tokens"] == 12
    (tmp_path / "spec.yaml").write_text(resolved.to_yaml())
    assert load_resolved(tmp_path / "spec.yaml", FakeCatalog()) == resolved


def test_false_switches_one_off(tmp_path: Path) -> None:
    path = agent(tmp_path, "retry: 3", "hedge: true", p="llm: {retry: false}\n")
    assert llm(path, profile="p").retry is None
    assert llm(path, "llm.hedge=false").hedge is None


def test_a_profile_that_names_another_provider_drops_them_all(tmp_path: Path) -> None:
    path = agent(tmp_path, "retry: 3", "fallback: [{provider: local}]", p="llm: {provider: local}\n")
    stage = llm(path, profile="p")
    assert (stage.provider, stage.retry, stage.fallback) == ("local", None, ())


def test_a_profile_may_add_and_replace_them(tmp_path: Path) -> None:
    profile = "llm: {breaker: true, fallback: [{provider: local, model: smollm2}]}\n"
    path = agent(tmp_path, "retry: 3", "fallback: [{provider: local}, {provider: openai}]", p=profile)
    stage = llm(path, profile="p")
    assert (stage.retry, stage.breaker) == (RetrySpec(attempts=3), BreakerSpec())
    assert [one.model for one in stage.fallback] == ["smollm2"]


@pytest.mark.parametrize(
    ("guard", "want"),
    [
        ("retry: 99", "agents.yaml:10:14: 'retry' must be at most 10, not 99"),
        ("retry: soon", "agents.yaml:10:14: 'retry' must be a whole number, not 'soon'"),
        ("retry: {attemps: 2}", "agents.yaml:10:15: unknown key 'attemps'. Did you mean 'attempts'?"),
        (
            "timeout: {first_ms: 1.5}",
            "agents.yaml:10:27: 'first_ms' must be a whole number, not '1.5'. The unit is milliseconds: "
            "did you mean 1500?",
        ),
        (
            "fallback: [{provider: opnai}]",
            "agents.yaml:10:29: unknown llm provider 'opnai'. Did you mean 'openai'?",
        ),
        (
            "fallback: [{provider: local, model: qwen}]",
            "agents.yaml:10:43: unknown llm model 'qwen' of provider 'local'. Did you mean 'qwen-0.5b'?",
        ),
        (
            "fallback: [{provider: local, options: {max_token: 3}}]",
            "agents.yaml:10:46: unknown key 'max_token'. Did you mean 'max_tokens'?",
        ),
        (
            "retry: {first_ms: 900, most_ms: 300}",
            "agents.yaml:10:14: 'first_ms' (900) is longer than 'most_ms' (300). The first wait is the shortest",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, guard: str, want: str) -> None:
    assert problems(agent(tmp_path, guard)) == [want]


def test_a_fallback_has_none_of_its_own(tmp_path: Path) -> None:
    path = agent(tmp_path, "fallback: [{provider: local, fallback: [{provider: openai}]}]")
    assert problems(path)[0].startswith("agents.yaml:10:36: unknown key 'fallback'")


def test_a_hedge_that_begins_when_all_is_over_is_refused(tmp_path: Path) -> None:
    path = agent(tmp_path, "timeout: 300", "hedge: 400")
    assert problems(path) == [
        "agents.yaml:11:14: 'hedge' begins after 400 ms, when 'timeout' (300 ms) has given up. "
        "Make 'after_ms' shorter than the timeout's 'first_ms'"
    ]


def test_a_vad_is_not_guarded(tmp_path: Path) -> None:
    text = AGENT.format(guards="options: {}").replace("vad: {provider: local}", "vad: {provider: local, retry: 2}")
    assert "unknown key 'retry'" in problems(write(tmp_path, text))[0]
