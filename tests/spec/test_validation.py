"""What is wrong with a file is told all at once, each with its place and what was probably meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spec.support import GOOD, problems, write
from voicectl.errors import SpecError
from voicectl.spec import check, fault, parse_yaml, validate


def with_turn(folder: Path, turn: str) -> list[str]:
    """The problems of an agent whose line 9 begins with six spaces and `turn`'s content."""
    return problems(write(folder, f"{GOOD}    turn:\n      {turn}\n"))


@pytest.mark.parametrize(
    ("turn", "line"),
    [
        ("speculate: true", "agents.yaml:10:7: unknown key 'speculate'. Did you mean 'speculation'?"),
        (
            "zzz: 1",
            "agents.yaml:10:7: unknown key 'zzz'. Known keys: endpointing, speculation, interruption, "
            "idle, filler, first_clause_words, max_history_turns, no_answer_ms",
        ),
        ("silence_ms: 300", "agents.yaml:10:7: unknown key 'silence_ms'. Did you mean 'endpointing.silence_ms'?"),
        ("endpointing: {silence: 300}", "agents.yaml:10:21: unknown key 'silence'. Did you mean 'silence_ms'?"),
        (
            "endpointing: {silence_s: 1}",
            "agents.yaml:10:21: unknown key 'silence_s'. Did you mean 'silence_ms' (in milliseconds)?",
        ),
        ("endpointing: {Silence-MS: 1}", "agents.yaml:10:21: unknown key 'Silence-MS'. Did you mean 'silence_ms'?"),
        (
            "endpointing: {silence_ms: 0.3}",
            "agents.yaml:10:33: 'silence_ms' must be a whole number, not '0.3'. "
            "The unit is milliseconds: did you mean 300?",
        ),
        (
            "endpointing: {silence_ms: 1}",
            "agents.yaml:10:33: 'silence_ms' must be from 50 to 5000, not 1. "
            "The unit is milliseconds: did you mean 1000?",
        ),
        (
            "endpointing: {silence_ms: 300ms}",
            "agents.yaml:10:33: 'silence_ms' must be a whole number, not '300ms'. The unit is in the key: write 300",
        ),
        (
            'endpointing: {silence_ms: "0.3 s"}',
            "agents.yaml:10:33: 'silence_ms' must be a whole number, not '0.3 s'. The unit is in the key: write 300",
        ),
        (
            "endpointing: {silence_ms: 300000}",
            "agents.yaml:10:33: 'silence_ms' must be from 50 to 5000, not 300000. The unit is milliseconds",
        ),
        (
            "endpointing: {silence_ms: soon}",
            "agents.yaml:10:33: 'silence_ms' must be a whole number, not 'soon'. The unit is milliseconds",
        ),
        (
            "endpointing: {silence_ms: true}",
            "agents.yaml:10:33: 'silence_ms' must be a whole number, not 'true'",
        ),
        (
            "endpointing: {strategy: silense}",
            "agents.yaml:10:31: unknown endpointing strategy 'silense'. Did you mean 'silence'?",
        ),
        ("speculation: maybe", "agents.yaml:10:20: 'speculation' must be true or false, not 'maybe'"),
        ("first_clause_words: 99", "agents.yaml:10:27: 'first_clause_words' must be from 1 to 40, not 99"),
        ("endpointing:", "agents.yaml:10:7: 'endpointing' is empty. Remove it, or give it a value"),
        (
            "endpointing: silence",
            "agents.yaml:10:20: 'endpointing' must be a mapping ('key: value' lines), not text",
        ),
        (
            "interruption: {backchannels: ok}",
            "agents.yaml:10:36: 'backchannels' must be a list ('- item' lines or [a, b]), not text",
        ),
        (
            "interruption: {backchannels: [ok, 12]}",
            "agents.yaml:10:41: 'backchannels' must be text, but YAML reads 12 as the number 12. Quote it: \"12\"",
        ),
        (
            "endpointing: {pause_ms: 600}",
            "agents.yaml:10:31: 'pause_ms' (600) is longer than 'silence_ms' (500). "
            "A pause comes before the end of the turn: make it shorter",
        ),
    ],
)
def test_one_line_with_place_and_hint(tmp_path: Path, turn: str, line: str) -> None:
    assert with_turn(tmp_path, turn) == [line]


def test_a_phone_number_that_yaml_takes_for_a_number(tmp_path: Path) -> None:
    assert problems(write(tmp_path, GOOD + "    greeting: +15551234567\n")) == [
        "agents.yaml:9:15: 'greeting' must be text, but YAML reads +15551234567 as the number +15551234567. "
        'Quote it: "+15551234567"'
    ]


def test_yes_and_no_are_text(tmp_path: Path) -> None:
    assert problems(write(tmp_path, GOOD + "    greeting: true\n")) == [
        "agents.yaml:9:15: 'greeting' must be text, but YAML reads true as the yes/no value true. Quote it: \"true\""
    ]


def test_missing_keys_are_told_at_their_agent(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("    stt: {provider: local}\n", "").replace("{provider: local}", "{}", 1))
    assert problems(path) == [
        "agents.yaml:3:3: missing key 'stt'. Speech to text",
        "agents.yaml:5:5: missing key 'provider'. Name of the provider, as `voicectl providers` lists it",
    ]


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        version: 2
        agents:
          coffee:
            language: english
            instructions: "Ask ${NOBODY}"
            instructions: again
            vad: {provider: webrct}
            stt: {provider: local, model: moonshine-tiny}
            llm: {provider: local, max_tokens: 4, options: {max_token: 4, temperature: hot}}
            tts: {provider: local, token: abc}
            thresholds:
              - p95(voice_to_voic_ms) < 800
              - p95(voice_to_voice_ms) = 800
        agent: {}
        """,
    )
    assert problems(path) == [
        "agents.yaml:1:10: 'version' must be 1, not 2",
        "agents.yaml:4:15: 'english' is not the code of a language. Write it like en, de or pt-BR",
        "agents.yaml:5:24: the environment variable 'NOBODY' is not set. Set it, or give a default: ${NOBODY:-...}",
        "agents.yaml:6:5: duplicate key 'instructions' (first at line 5). Keep one",
        "agents.yaml:7:21: unknown vad provider 'webrct'. Did you mean 'webrtc'?",
        "agents.yaml:8:35: unknown stt model 'moonshine-tiny' of provider 'local'. Did you mean 'moonshine-tiny-en'?",
        "agents.yaml:9:28: unknown key 'max_tokens'. What the provider itself can be told goes under 'options:'",
        "agents.yaml:9:53: unknown key 'max_token'. Did you mean 'max_tokens'?",
        "agents.yaml:9:80: 'temperature' must be a number, not 'hot'",
        "agents.yaml:10:28: 'token' does not belong in a file: keys come from the environment. Remove it",
        "agents.yaml:12:9: unknown metric 'voice_to_voic_ms'. Did you mean 'voice_to_voice_ms'?",
        "agents.yaml:13:9: unknown comparison '='. Use <, <=, > or >=",
        "agents.yaml:14:1: unknown key 'agent'. Did you mean 'agents'?",
    ]


def test_agents_need_names_that_can_be_typed(tmp_path: Path) -> None:
    assert problems(write(tmp_path, GOOD.replace("coffee:", '"a cup":'))) == [
        "agents.yaml:3:3: 'a cup' is not a name. Use letters, digits, - and _, beginning with a letter"
    ]
    assert problems(write(tmp_path, "agents: {}\n")) == ["agents.yaml:1:9: 'agents' must not be empty"]


# Other files -----------------------------------------------------------------------------------


def _even(value: int) -> int:
    if value % 2:
        raise fault(f"{value} is odd", f"Did you mean {value + 1}?")
    return value


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: Annotated[int, AfterValidator(_even)]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Nested | str] = []
    by_name: dict[str, Nested] = {}


def test_any_model_can_be_read_with_places() -> None:
    source = parse_yaml("items: [word, {number: 2}]\nby_name:\n  a: {number: 4}\n", "caller.yaml", {})
    assert validate(Outer, source) == Outer(items=["word", Nested(number=2)], by_name={"a": Nested(number=4)})


def test_a_validators_fault_is_told_at_its_value() -> None:
    with pytest.raises(SpecError) as caught:
        validate(Outer, parse_yaml("by_name:\n  a: {number: 3}\n  b: {numer: 4}\n", "caller.yaml", {}))
    assert str(caught.value).splitlines() == [
        "caller.yaml:2:15: 3 is odd. Did you mean 4?",
        "caller.yaml:3:3: missing key 'number'",
        "caller.yaml:3:7: unknown key 'numer'. Did you mean 'number'?",
    ]


def test_a_list_whose_items_are_wrong_is_not_empty() -> None:
    class Items(BaseModel):
        items: tuple[Nested, ...] = Field(min_length=1)

    for text, line in {
        "items: [{number: a}]": "caller.yaml:1:18: 'number' must be a whole number, not 'a'",
        "items: []": "caller.yaml:1:8: 'items' must not be empty",
    }.items():
        _, problems = check(Items, parse_yaml(text, "caller.yaml", {}).root)
        assert [str(problem) for problem in problems] == [line]


def test_one_of_several_shapes_is_told_once_a_place() -> None:
    with pytest.raises(SpecError) as caught:
        validate(Outer, parse_yaml("items:\n  - {numbr: 3}\n", "caller.yaml", {}))
    lines = str(caught.value).splitlines()
    assert "caller.yaml:2:6: unknown key 'numbr'. Did you mean 'number'?" in lines
    assert all(line.startswith("caller.yaml:2:") for line in lines)
