"""YAML text -> a tree of values that know where they were written.

What lives here: reading, positions, duplicate keys, `${ENV}`, and the rule that secrets do not
belong in files. What must not: any knowledge of what the keys mean (see `validation`).

The dialect is YAML 1.2's core schema, narrower than PyYAML's 1.1: `no`, `on`, `12:30` and dates
are text, `1e3` is a number, `true` and `false` are the only booleans. `<<` merge keys work.

    source = load_yaml(Path("agents.yaml"), env)      # raises SpecError if it is not YAML at all
    source.root                                       # a MapNode
    source.problems                                   # duplicate keys, unset variables, secrets
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from voicectl.errors import Problem, SpecError

# The tree --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Where:
    """A place a person can go to: `agents.yaml:14:10`, or `--set turn.x`, which has no line."""

    source: str
    line: int | None = None
    col: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.col}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. `text` is what was written, `plain` whether without quotes.

    `broken`: a problem with it has been told already, so its value means nothing.
    """

    where: Where
    value: str | int | float | bool | None
    text: str
    plain: bool = True
    broken: bool = False


@dataclass(frozen=True, slots=True)
class ListNode:
    where: Where
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's place and its value."""

    where: Where
    value: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    where: Where
    entries: Mapping[str, Entry]

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry.value if entry else None


Node = Scalar | ListNode | MapNode


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is YAML, and what is wrong with it before anyone asks what it means."""

    name: str
    root: MapNode
    problems: tuple[Problem, ...] = ()


def plain(node: Node) -> Any:
    """The bare value: dict, list or scalar."""
    if isinstance(node, MapNode):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.value


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: mappings key by key, anything else replaced. Places are kept."""
    if not (isinstance(base, MapNode) and isinstance(over, MapNode)):
        return over
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        below = entries.get(key)
        entries[key] = Entry(entry.where, merge(below.value, entry.value)) if below else entry
    return MapNode(base.where, entries)


def kind(node: Node) -> str:
    """What a person would call it."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    match node.value:
        case None:
            return "empty"
        case bool():
            return f"the yes/no value {node.text}"
        case str():
            return "text"
        case _:
            return f"the number {node.text}"


# Reading ---------------------------------------------------------------------------------------


def load_yaml(path: Path, env: Mapping[str, str] | None, *, name: str | None = None) -> Source:
    """Read a file people write.

    Args:
        env: where `${NAME}` is looked up; None leaves `${NAME}` as it stands.
        name: how problems call the file (default: the path as given).

    Raises:
        SpecError: it cannot be read, or is not YAML.
    """
    name = name or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError([Problem(name, "no such file")]) from None
    except IsADirectoryError:
        raise SpecError([Problem(name, "is a folder, not a YAML file")]) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, col = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        where = f"{name}:{line}:{col}"
        raise SpecError([Problem(where, "is not UTF-8 text", "Save the file as UTF-8")]) from None
    except OSError as error:
        raise SpecError([Problem(name, f"cannot be read ({error.strerror})")]) from None
    return parse_yaml(text, name, env)


def parse_yaml(text: str, name: str, env: Mapping[str, str] | None) -> Source:
    """Like `load_yaml`, from text; `name` is what problems call it.

    Raises:
        SpecError: it is not YAML, or not a mapping.
    """
    node, problems = _read(text, name, env)
    if not isinstance(node, MapNode):
        empty = node is None or (isinstance(node, Scalar) and node.value is None)
        message = "the file is empty" if empty else f"expected 'key: value' lines, found {kind(cast(Node, node))}"
        raise SpecError([Problem(str(node.where if node else Where(name, 1, 1)), message)])
    return Source(name, node, tuple(problems))


def parse_value(text: str, where: Where, env: Mapping[str, str] | None) -> tuple[Node, list[Problem]]:
    """One value as the command line gives it, as YAML reads it (`300`, `true`, `[a, b]`).

    All of it is at `where`, since a command line has no lines.
    """
    try:
        node, problems = _read(text, str(where), env)
    except SpecError as error:
        problems = [Problem(str(where), problem.message, problem.hint) for problem in error.problems]
        return Scalar(where, text, text, broken=True), problems
    moved = _moved(node, where) if node else Scalar(where, None, "")
    return moved, [Problem(str(where), problem.message, problem.hint) for problem in problems]


def _read(text: str, name: str, env: Mapping[str, str] | None) -> tuple[Node | None, list[Problem]]:
    try:
        top = cast("yaml.Node | None", cast(Any, yaml).compose(text, Loader=_Loader))
        reader = _Reader(text, name, env)
        return (reader.node(top) if top is not None else None), reader.problems
    except yaml.YAMLError as error:
        raise SpecError([_broken(error, text, name)]) from None
    except RecursionError:
        raise SpecError([Problem(f"{name}:1:1", "is nested too deeply")]) from None


def _moved(node: Node, where: Where) -> Node:
    if isinstance(node, MapNode):
        entries = {key: Entry(where, _moved(entry.value, where)) for key, entry in node.entries.items()}
        return MapNode(where, entries)
    if isinstance(node, ListNode):
        return ListNode(where, tuple(_moved(item, where) for item in node.items))
    return Scalar(where, node.value, node.text, node.plain, node.broken)


# The dialect -----------------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
INT_1_2 = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
FLOAT_1_2 = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_DIALECT: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN"),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", INT_1_2, "-+0123456789"),
    ("float", FLOAT_1_2, "-+.0123456789"),
    ("merge", re.compile(r"^<<$"), "<"),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the resolvers of YAML 1.2; only nodes are asked of it."""


_untyped = cast(Any, _Loader)
_untyped.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _DIALECT:
    _untyped.add_implicit_resolver(_TAG + _name, _pattern, ["", *_first] if _name == "null" else list(_first))


def _number(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


# Nodes -----------------------------------------------------------------------------------------

_SECRET_KEY = re.compile(
    r"(?:^|_)(?:api_?key|secret|secret_?key|access_?key|private_?key|password|passwd|credentials?|authorization"
    r"|bearer|(?:auth|access|api|refresh|session|bearer)_?token)$|^token$"
)
_SECRET_VARIABLE = re.compile(r"API_?KEY|SECRET|ACCESS_?KEY|PRIVATE_?KEY|PASSW|TOKEN(?!S)|CREDENTIAL", re.I)
_REFERENCE = re.compile(r"(\$?)\$\{([^{}\n]*)(\}?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.S)


def refuse_secret(key: str, where: Where) -> Problem | None:
    """A key whose value would be a secret: whatever is in a spec ends up in recordings."""
    if not _SECRET_KEY.search(key.lower().replace("-", "_")):
        return None
    return Problem(str(where), f"'{key}' does not belong in a file: keys come from the environment", "Remove it")


@dataclass(slots=True)
class _Reader:
    """From PyYAML's nodes to ours; collects what is wrong on the way."""

    text: str
    name: str
    env: Mapping[str, str] | None
    problems: list[Problem] = field(default_factory=list[Problem])
    _done: dict[int, Node] = field(default_factory=dict[int, Node])
    _open: set[int] = field(default_factory=set[int])

    def node(self, node: yaml.Node) -> Node:
        """Each node once, however many aliases lead to it."""
        if id(node) in self._done:
            return self._done[id(node)]
        if id(node) in self._open:
            self.problem(self.where(node), "an alias cannot contain itself")
            return Scalar(self.where(node), None, "", broken=True)
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            result: Node = self.mapping(node)
        elif isinstance(node, yaml.SequenceNode):
            items = cast("list[yaml.Node]", node.value)
            result = ListNode(self.where(node), tuple(self.node(item) for item in items))
        else:
            result = self.scalar(cast(yaml.ScalarNode, node))
        self._open.discard(id(node))
        self._done[id(node)] = result
        return result

    def where(self, node: yaml.Node) -> Where:
        return Where(self.name, node.start_mark.line + 1, node.start_mark.column + 1)

    def problem(self, where: Where, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(str(where), message, hint))

    def mapping(self, node: yaml.MappingNode) -> MapNode:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            where = self.where(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or (key := cast(str, key_node.value)) == "":
                self.problem(where, "a key must be a word")
            elif key_node.tag == _TAG + "merge":
                self.merge_key(value_node, merged)
            elif key in entries:
                self.problem(where, f"duplicate key '{key}' (first at line {entries[key].where.line})", "Keep one")
            elif (secret := refuse_secret(key, where)) is not None:
                self.problems.append(secret)
            else:
                entries[key] = Entry(where, self.node(value_node))
        return MapNode(self.where(node), merged | entries if merged else entries)

    def merge_key(self, value: yaml.Node, merged: dict[str, Entry]) -> None:
        """`<<: *other`: what `other` holds, unless the mapping says it itself."""
        node = self.node(value)
        for part in node.items if isinstance(node, ListNode) else (node,):
            if isinstance(part, MapNode):
                for key, entry in part.entries.items():
                    merged.setdefault(key, entry)
            else:
                self.problem(self.where(value), "'<<' takes a mapping", "For example: <<: *defaults")

    def scalar(self, node: yaml.ScalarNode) -> Scalar:
        where, text, is_plain = self.where(node), cast(str, node.value), node.style is None
        value: str | int | float | bool | None
        try:
            match node.tag.removeprefix(_TAG):
                case "null":
                    value = None
                case "bool":
                    value = text.lower() == "true"
                case "int":
                    value = _number(text)
                case "float":
                    value = float(text)
                case "str" | "merge":
                    value, broken = self.with_env(text, node)
                    return Scalar(where, value, text, is_plain, broken)
                case _:
                    self.problem(where, f"the tag '{node.tag}' is not supported", "Remove it")
                    return Scalar(where, None, text, is_plain, broken=True)
        except ValueError:
            self.problem(where, "is not a number that can be read")
            return Scalar(where, None, text, is_plain, broken=True)
        return Scalar(where, value, text, is_plain)

    def with_env(self, text: str, node: yaml.ScalarNode) -> tuple[str, bool]:
        """`text` with its `${NAME}` resolved, and whether something was wrong with one."""
        if self.env is None or "${" not in text:
            return text, False
        env, before = self.env, len(self.problems)
        cursor = cast(int, node.start_mark.index)

        def resolved(match: re.Match[str]) -> str:
            nonlocal cursor
            escaped, inside, closed = match.groups()
            written = match.group(0).removeprefix("$") if escaped else match.group(0)
            if escaped:
                return written
            found = self.text.find(written, cursor)
            cursor = found + len(written) if found >= 0 else cursor
            where = self.where(node) if found < 0 else self.place(found)
            variable = _VARIABLE.fullmatch(inside)
            if not closed:
                self.problem(where, "'${' is never closed", "Write '$${' for the characters themselves")
            elif variable is None:
                self.problem(where, f"'{written}' is not a variable", "Write ${NAME} or ${NAME:-default}")
            elif _SECRET_VARIABLE.search(variable[1]):
                message = f"'{written}' would put a secret into every recording"
                self.problem(where, message, "Remove it: providers read their keys from the environment")
            elif env.get(variable[1]) or (variable[1] in env and variable[2] is None):
                return env[variable[1]]
            elif variable[2] is not None:
                return variable[2]
            else:
                hint = f"Set it, or give a default: ${{{variable[1]}:-...}}"
                self.problem(where, f"the environment variable '{variable[1]}' is not set", hint)
            return ""

        result = _REFERENCE.sub(resolved, text)
        return result, len(self.problems) > before

    def place(self, index: int) -> Where:
        line = self.text.count("\n", 0, index) + 1
        return Where(self.name, line, index - (self.text.rfind("\n", 0, index) + 1) + 1)


# Broken YAML -----------------------------------------------------------------------------------

_PLAIN_WORDS: tuple[tuple[str, str, str | None], ...] = (
    # PyYAML's words · ours · what to do
    ("mapping values are not allowed", "a second ': ' in one line", "Quote the value, or start a new line"),
    (r"found character '\t'", "a tab cannot indent YAML", "Use spaces"),
    ("that cannot start any token", "a value cannot start with this character", "Quote the value"),
    ("expected <block end>", "this line does not fit the lines above it", "Check its indentation and quotes"),
    ("could not find expected ':'", "a 'key: value' line is not complete above this one", "Add ': ' and a value"),
    ("expected ',' or ']'", "a '[' list is not closed before this", "Add ',' or ']'"),
    ("expected ',' or '}'", "a '{' mapping is not closed before this", "Add ',' or '}'"),
    ("expected the node content", "a value is missing before this", None),
    ("but found another document", "a second document ('---') begins", "Keep one document in a file"),
    ("found undefined alias", "an alias without its anchor", "Quote the '*', or define it above"),
    ("found duplicate anchor", "the anchor is defined twice", "Rename one"),
    ("special characters are not allowed", "a control character", "Remove it"),
)


def _broken(error: yaml.YAMLError, text: str, name: str) -> Problem:
    """One line for what PyYAML tells in four."""
    if isinstance(error, yaml.reader.ReaderError):
        index = error.position
        line, col = text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1
        said, context = error.reason, ""
    elif isinstance(error, yaml.MarkedYAMLError):
        context = error.context or ""
        unclosed = "quoted scalar" in context and "end of" in (error.problem or "")
        # An open quote swallows the rest of the file: its beginning is the place to look at.
        mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
        line, col = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = "a quote that is never closed" if unclosed else error.problem or "cannot be read"
    else:
        line, col, said = 1, 1, str(error)
    for words, ours, hint in _PLAIN_WORDS:
        if words in said:
            return Problem(f"{name}:{line}:{col}", f"broken YAML: {ours}", hint)
    return Problem(f"{name}:{line}:{col}", f"broken YAML: {' '.join(said.split())}")
