"""YAML text becomes values with places, or one line that says where it breaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.errors import SpecError
from voicectl.spec import load_yaml, parse_yaml
from voicectl.spec.yaml_source import ListNode, MapNode, Scalar, merge, plain


def value_of(text: str, env: dict[str, str] | None = None) -> object:
    source = parse_yaml(f"key: {text}", "f.yaml", env if env is not None else {})
    assert source.problems == ()
    return plain(source.root)["key"]


def problems_of(text: str, env: dict[str, str] | None = None) -> list[str]:
    return [str(problem) for problem in parse_yaml(text, "f.yaml", env if env is not None else {}).problems]


def broken(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, "f.yaml", {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-11-21", "2026-11-21"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("010", 10),
        ("0x1F", 31),
        ("-7", -7),
        ("+15551234567", 15551234567),
        ("~", None),
        ("", None),
        ("'no'", "no"),
        ('"+15551234567"', "+15551234567"),
    ],
)
def test_scalars_read_as_yaml_1_2(written: str, read: object) -> None:
    value = value_of(written)
    assert value == read
    assert type(value) is type(read)


def test_every_node_knows_its_place() -> None:
    root = parse_yaml("a:\n  b: [1, x]\n", "f.yaml", {}).root
    inner = root.get("a")
    assert isinstance(inner, MapNode)
    assert str(inner.entries["b"].where) == "f.yaml:2:3"
    items = inner.get("b")
    assert isinstance(items, ListNode)
    assert [str(item.where) for item in items.items] == ["f.yaml:2:7", "f.yaml:2:10"]


def test_duplicate_keys_are_told_at_any_depth() -> None:
    assert problems_of("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "f.yaml:2:11: duplicate key 'c' (first at line 2). Keep one",
        "f.yaml:3:1: duplicate key 'a' (first at line 1). Keep one",
    ]


def test_merge_keys_yield_to_what_is_written() -> None:
    root = parse_yaml("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n", "f.yaml", {}).root
    assert plain(root)["use"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("key", ["api_key", "API-KEY", "apikey", "openai_api_key", "secret", "auth_token", "password"])
def test_secrets_do_not_belong_in_files(key: str) -> None:
    assert problems_of(f"{key}: x") == [
        f"f.yaml:1:1: '{key}' does not belong in a file: keys come from the environment. Remove it"
    ]


@pytest.mark.parametrize("key", ["max_tokens", "keys", "monkey", "token_count", "tokens"])
def test_what_only_sounds_like_a_secret_is_allowed(key: str) -> None:
    assert problems_of(f"{key}: 1") == []


# ${ENV} ----------------------------------------------------------------------------------------


def test_variables_are_resolved_in_text() -> None:
    env = {"NAME": "Corner Bar", "EMPTY": ""}
    assert value_of("Welcome to ${NAME}!", env) == "Welcome to Corner Bar!"
    assert value_of("${CITY:-Springfield}", env) == "Springfield"
    assert value_of("${EMPTY:-Springfield}", env) == "Springfield"
    assert value_of("'[${EMPTY}]'", env) == "[]"
    assert value_of("a latte is $5", env) == "a latte is $5"
    assert value_of("'literally $${NAME}'", env) == "literally ${NAME}"


def test_a_value_from_a_variable_stays_text() -> None:
    assert value_of("${PHONE}", {"PHONE": "+15551234567"}) == "+15551234567"


def test_without_an_environment_nothing_is_resolved() -> None:
    assert plain(parse_yaml("key: ${NAME}", "f.yaml", None).root) == {"key": "${NAME}"}


def test_unset_variables_are_told_where_they_stand() -> None:
    text = "a: hello ${ONE}\nb: |\n  first line\n  and ${TWO}\n  and ${TWO}\n"
    hint = "is not set. Set it, or give a default: ${%s:-...}"
    assert problems_of(text) == [
        f"f.yaml:1:10: the environment variable 'ONE' {hint % 'ONE'}",
        f"f.yaml:4:7: the environment variable 'TWO' {hint % 'TWO'}",
        f"f.yaml:5:7: the environment variable 'TWO' {hint % 'TWO'}",
    ]


def test_a_secret_variable_is_refused_even_when_set() -> None:
    assert problems_of("a: ${OPENAI_API_KEY}", {"OPENAI_API_KEY": "x"}) == [
        "f.yaml:1:4: '${OPENAI_API_KEY}' would put a secret into every recording. "
        "Remove it: providers read their keys from the environment"
    ]
    assert problems_of("a: ${MAX_TOKENS}", {"MAX_TOKENS": "80"}) == []


def test_malformed_variables() -> None:
    assert problems_of("a: x${NAME") == ["f.yaml:1:5: '${' is never closed. Write '$${' for the characters themselves"]
    assert problems_of("a: x${NAME-y}") == [
        "f.yaml:1:5: '${NAME-y}' is not a variable. Write ${NAME} or ${NAME:-default}"
    ]


# Broken files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b: c", "f.yaml:1:5: broken YAML: a second ': ' in one line. Quote the value, or start a new line"),
        ("a:\n\tb: 1", "f.yaml:2:1: broken YAML: a tab cannot indent YAML. Use spaces"),
        ('a: 1\nb: "open\nc: 2\n', "f.yaml:2:4: broken YAML: a quote that is never closed"),
        (
            "a:\n  b: 1\n c: 2\n",
            "f.yaml:3:2: broken YAML: this line does not fit the lines above it. Check its indentation and quotes",
        ),
        ("a: [1, 2\nb: 3\n", "f.yaml:2:2: broken YAML: a '[' list is not closed before this. Add ',' or ']'"),
        ("a: @home", "f.yaml:1:4: broken YAML: a value cannot start with this character. Quote the value"),
        ("a: *b", "f.yaml:1:4: broken YAML: an alias without its anchor. Quote the '*', or define it above"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: broken YAML: a second document ('---') begins. Keep one document in a file"),
        ("a: \x07", "f.yaml:1:4: broken YAML: a control character. Remove it"),
        ("", "f.yaml:1:1: the file is empty"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        ("- a\n- b\n", "f.yaml:1:1: expected 'key: value' lines, found a list"),
        ("just words", "f.yaml:1:1: expected 'key: value' lines, found text"),
        ("a: " + "[" * 1500, "f.yaml:1:1: is nested too deeply"),
    ],
)  # fmt: skip
def test_broken_yaml_is_one_line_with_a_place(text: str, line: str) -> None:
    assert broken(text) == line


def test_an_alias_cannot_contain_itself() -> None:
    assert problems_of("a: &x [1, *x]") == ["f.yaml:1:4: an alias cannot contain itself"]


def test_tags_are_not_supported() -> None:
    assert problems_of("a: !!python/name:os.system x")[0].startswith("f.yaml:1:4: the tag ")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    for name, line in {
        "none.yaml": "none.yaml: no such file",
        ".": ".: is a folder, not a YAML file",
        "latin.yaml": "latin.yaml:2:7: is not UTF-8 text. Save the file as UTF-8",
    }.items():
        with pytest.raises(SpecError) as caught:
            load_yaml(tmp_path / name, {}, name=name)
        assert str(caught.value) == line


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert plain(load_yaml(tmp_path / "bom.yaml", {}).root) == {"a": 1}


@given(st.text(alphabet=st.sampled_from("ab:- \n\t[]{},'\"|>&*!%@#$?~<.01eE+_\\"), max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml", {})
    except SpecError as error:
        assert str(error).count("\n") == 0
        assert str(error).startswith("f.yaml:")


# Overlays --------------------------------------------------------------------------------------


def test_an_overlay_merges_mappings_and_replaces_the_rest() -> None:
    base = parse_yaml("a: {x: 1, y: [1, 2]}\nb: 1\n", "base.yaml", {}).root
    over = parse_yaml("a: {y: [3], z: 4}\n", "over.yaml", {}).root
    both = merge(base, over)
    assert plain(both) == {"a": {"x": 1, "y": [3], "z": 4}, "b": 1}
    assert isinstance(both, MapNode)
    inner = both.get("a")
    assert isinstance(inner, MapNode)
    places = {key: str(entry.value.where) for key, entry in inner.entries.items()}
    assert places == {"x": "base.yaml:1:8", "y": "over.yaml:1:8", "z": "over.yaml:1:16"}
    assert isinstance(inner.get("x"), Scalar)
