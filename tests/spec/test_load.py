"""Agents file + profile + `--set` become one agent, complete and readable again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec.support import GOOD, FakeCatalog, LlmOptions, load, problems, write
from voicectl.errors import UsageError
from voicectl.spec import ResolvedAgent, Threshold, check_all, list_profiles, load_resolved, summarize

TWO = GOOD + (
    "  clinic:\n    instructions: Answer the phone of ${BAR}.\n    vad: {provider: webrtc}\n"
    "    stt: {provider: local}\n    llm: {provider: openai, model: any-name, options: {max_tokens: 40}}\n"
    "    tts: {provider: deepgram}\n    thresholds: [p95(voice_to_voice_ms) < 800]\n"
)


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    agent = load(write(tmp_path))
    assert (agent.name, agent.profile, agent.clock, agent.line.rate) == ("coffee", None, "wall", 16000)
    assert (agent.language, agent.greeting, agent.thresholds) == ("en", None, ())
    assert (agent.stage("llm").provider, agent.stage("llm").model) == ("local", "qwen-0.5b")
    assert agent.stage("llm").options == LlmOptions()
    assert agent.vad.model is None
    assert agent.vad_threshold == 0.5


def test_milliseconds_outside_are_seconds_inside(tmp_path: Path) -> None:
    turn = load(write(tmp_path)).turn
    assert (turn.endpointing.silence_s, turn.endpointing.pause_s, turn.endpointing.min_speech_s) == (0.5, 0.096, 0.09)
    assert (turn.interruption.min_speech_s, turn.no_answer_s) == (0.7, 10.0)


def test_the_first_agent_is_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, TWO)
    assert load(path).name == "coffee"
    clinic = load(path, agent="clinic")
    assert clinic.instructions == "Answer the phone of Corner Bar."
    assert clinic.thresholds == (Threshold("p95", "voice_to_voice_ms", "<", 800),)


def test_unknown_names_suggest(tmp_path: Path) -> None:
    path = write(tmp_path, TWO, scripted="clock: virtual\n")
    with pytest.raises(UsageError) as caught:
        load(path, agent="cofee")
    assert str(caught.value) == "unknown agent 'cofee'. Did you mean 'coffee'?"
    with pytest.raises(UsageError) as caught:
        load(path, profile="script")
    assert str(caught.value) == "unknown profile 'script'. Did you mean 'scripted'?"
    with pytest.raises(UsageError) as caught:
        load(path, profile="zzz")
    assert str(caught.value) == "unknown profile 'zzz'. Profiles: scripted"


# Profiles --------------------------------------------------------------------------------------


def test_a_profile_lies_over_the_agent(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        TWO,
        phone="""\
        description: On the phone.
        line: {rate: 8000}
        llm: {options: {temperature: 0.5}}
        turn: {endpointing: {silence_ms: 700}}
        thresholds: [max(voice_to_voice_ms) < 2s]
        """,
    )
    agent = load(path, agent="clinic", profile="phone")
    assert agent.profile == "phone"
    assert agent.description is None
    assert agent.line.rate == 8000
    assert agent.stage("llm").options == LlmOptions(max_tokens=40, temperature=0.5)
    assert (agent.turn.endpointing.silence_ms, agent.turn.endpointing.pause_ms) == (700, 96)
    assert [str(threshold) for threshold in agent.thresholds] == ["max(voice_to_voice_ms) < 2000"]


def test_another_provider_drops_model_and_options(tmp_path: Path) -> None:
    path = write(tmp_path, TWO, local="llm: {provider: local}\n")
    agent = load(path, agent="clinic", profile="local")
    assert (agent.stage("llm").provider, agent.stage("llm").model) == ("local", "qwen-0.5b")
    assert agent.stage("llm").options == LlmOptions()


def test_the_same_provider_keeps_them(tmp_path: Path) -> None:
    path = write(tmp_path, TWO, cloud="llm: {provider: openai}\n")
    agent = load(path, agent="clinic", profile="cloud")
    assert agent.stage("llm").model == "any-name"
    assert agent.stage("llm").options == LlmOptions(max_tokens=40)


def test_errors_point_to_the_file_that_holds_the_value(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        GOOD + "    turn: {endpointing: {silence_ms: 9}}\n",
        p="instructions: Be rude.\nllm: {provider: opnai}\nstt: {model: nova}\nturn: {speculation: 7}\n",
    )
    assert problems(path, profile="p") == [
        "agents.yaml:9:38: 'silence_ms' must be from 50 to 5000, not 9. The unit is milliseconds",
        "profiles/p.yaml:1:1: unknown key 'instructions'. Known keys: version, description, clock, line, vad, stt, "
        "llm, tts, s2s, turn, thresholds, budget",
        "profiles/p.yaml:2:17: unknown llm provider 'opnai'. Did you mean 'openai'?",
        "profiles/p.yaml:3:14: unknown stt model 'nova' of provider 'local'. Models: moonshine-tiny-en",
        "profiles/p.yaml:4:21: 'speculation' must be true or false, not '7'",
    ]


def test_a_contradiction_between_files_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, fast="turn: {endpointing: {silence_ms: 90}}\n")
    assert problems(path, profile="fast") == [
        "profiles/fast.yaml:1:34: 'pause_ms' (96) is longer than 'silence_ms' (90). "
        "A pause comes before the end of the turn: make it shorter"
    ]


def test_a_profile_may_be_a_path(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.yaml"
    other.write_text("clock: virtual\n")
    agent = load(write(tmp_path), profile=str(other))
    assert (agent.profile, agent.clock) == ("elsewhere", "virtual")


# --set -----------------------------------------------------------------------------------------


def test_overrides_come_last(tmp_path: Path) -> None:
    path = write(tmp_path, p="turn: {endpointing: {silence_ms: 700}}\n")
    agent = load(
        path,
        "turn.endpointing.silence_ms=300",
        "llm.options.temperature=0.7",
        "thresholds=[p50(voice_to_voice_ms) < 700]",
        "greeting='Hello: ${BAR}!'",
        "line.rate=8000",
        profile="p",
    )
    assert agent.turn.endpointing.silence_ms == 300
    assert agent.stage("llm").options == LlmOptions(temperature=0.7)
    assert [str(threshold) for threshold in agent.thresholds] == ["p50(voice_to_voice_ms) < 700"]
    assert agent.greeting == "Hello: Corner Bar!"
    assert agent.line.rate == 8000


def test_an_empty_override_takes_a_value_away(tmp_path: Path) -> None:
    assert load(write(tmp_path, GOOD + "    greeting: Hi!\n"), "greeting=").greeting is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("turn", "--set turn: expected KEY=VALUE. For example: --set turn.endpointing.silence_ms=300"),
        ("turn..x=1", "--set turn..x=1: expected KEY=VALUE. For example: --set turn.endpointing.silence_ms=300"),
        ("turn.silence_ms=3", "--set turn.silence_ms: unknown key 'silence_ms'. "
         "Did you mean 'endpointing.silence_ms'?"),
        ("tern.x=3", "--set tern.x: unknown key 'tern'. Did you mean 'turn'?"),
        ("turn=fast", "--set turn: 'turn' must be a mapping ('key: value' lines), not text"),
        ("turn.endpointing.silence_ms=0.3", "--set turn.endpointing.silence_ms: 'silence_ms' must be a whole number, "
         "not '0.3'. The unit is milliseconds: did you mean 300?"),
        ("instructions=", "--set instructions: 'instructions' is empty. Remove it, or give it a value"),
        ("greeting=[", "--set greeting: broken YAML: a value is missing before this"),
        ("greeting=${NOBODY}", "--set greeting: the environment variable 'NOBODY' is not set. "
         "Set it, or give a default: ${NOBODY:-...}"),
        ("stt.provider=deepgrm", "--set stt.provider: unknown stt provider 'deepgrm'. Did you mean 'deepgram'?"),
        ("stt.api_key=x", "--set stt.api_key: 'api_key' does not belong in a file: keys come from the environment. "
         "Remove it"),
    ],
)  # fmt: skip
def test_a_bad_override_points_to_the_command_line(tmp_path: Path, override: str, line: str) -> None:
    assert problems(write(tmp_path), override) == [line]


# Dump and reload -------------------------------------------------------------------------------


def reload(agent: ResolvedAgent, folder: Path) -> ResolvedAgent:
    (folder / "spec.yaml").write_text(agent.to_yaml(), encoding="utf-8")
    return load_resolved(folder / "spec.yaml", FakeCatalog())


def test_a_dump_reads_back_equal(tmp_path: Path) -> None:
    path = write(tmp_path, TWO, p="clock: virtual\n")
    for agent in ("coffee", "clinic"):
        for profile in (None, "p"):
            resolved = load(path, agent=agent, profile=profile)
            assert reload(resolved, tmp_path) == resolved


@pytest.fixture(scope="module")
def dump_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dump")


@pytest.fixture(scope="module")
def plain_agent(dump_folder: Path) -> ResolvedAgent:
    return load(write(dump_folder))


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\n"), max_size=80)


traps = st.sampled_from(["no", "1e3", "12:30", "~", "${X}", "$${X}", "010", "true", "<<", "=", "2026-11-21", "0o7"])


@given(text.map(str.strip).filter(bool), traps)
def test_any_text_survives_a_dump(dump_folder: Path, plain_agent: ResolvedAgent, words: str, trap: str) -> None:
    agent = replace(plain_agent, instructions=words, greeting=trap)
    assert reload(agent, dump_folder) == agent


def test_a_dump_needs_its_name(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("name: x\n")
    with pytest.raises(UsageError, match="missing key 'instructions'"):
        load_resolved(tmp_path / "spec.yaml", FakeCatalog())


# Listings --------------------------------------------------------------------------------------


def test_summaries_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = summarize(write(tmp_path, TWO), {"BAR": "x"})
    assert [each.name for each in found] == ["coffee", "clinic"]
    assert found[1].providers == {"vad": "webrtc", "stt": "local", "llm": "openai", "tts": "deepgram"}
    assert found[1].thresholds == ("p95(voice_to_voice_ms) < 800",)


def test_check_all_tries_every_agent_under_every_profile(tmp_path: Path) -> None:
    path = write(tmp_path, TWO, a="clock: virtual\n", b="llm: {options: {top_k: 3}}\n")
    assert list_profiles(path) == ["a", "b"]
    good, wrong = check_all(path, ["a", "b"], env={"BAR": "x"}, catalog=FakeCatalog())
    assert [(agent.name, agent.profile) for agent in good] == [
        ("coffee", None), ("clinic", None), ("coffee", "a"), ("clinic", "a"),
    ]  # fmt: skip
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in wrong] == [
        "profiles/b.yaml:1:17: unknown key 'top_k'. Known keys: max_tokens, temperature, timeout_ms"
    ]
