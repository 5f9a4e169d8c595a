"""What a stand-in's language model says. No model: lines in order, an echo, or a table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

ANSWER = "Sure, I can do that for you. Is there anything else that you need today?"

Answer = Callable[[Sequence[Mapping[str, Any]]], str]
"""What it says to a conversation: mappings with `role` and `content`, as OpenAI has them."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool, with its arguments as JSON."""

    name: str
    arguments: str


def fixed_answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """Always the same."""
    return ANSWER


def echo(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the caller said."""
    return f"You said: {said_last(messages) or 'nothing'}"


def in_order(lines: Sequence[str]) -> Answer:
    """One line after the other: the n-th answer of a conversation is line n, then again from the first."""
    known = tuple(lines)

    def answer(messages: Sequence[Mapping[str, Any]]) -> str:
        asked = sum(message.get("role") == "user" for message in messages)
        return known[(max(asked, 1) - 1) % len(known)]

    return answer


def by_table(table: Mapping[str, str], otherwise: Answer = fixed_answer) -> Answer:
    """By what the caller said: the first key that its words contain."""
    known = {plain(key): value for key, value in table.items()}

    def answer(messages: Sequence[Mapping[str, Any]]) -> str:
        said = plain(said_last(messages))
        return next((value for key, value in known.items() if key in said), None) or otherwise(messages)

    return answer


def said_last(messages: Sequence[Mapping[str, Any]]) -> str:
    """The caller's last words."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: Any) -> str:
    """A message's content is a text, or a list of parts of which some have one."""
    if isinstance(content, str):
        return content
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    texts = [cast("dict[str, Any]", part).get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def plain(text: str) -> str:
    """Words alone, for comparing."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def call_first(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    """To what the caller said the first tool is called, with the least arguments that its schema
    wants; to a tool's result nothing is."""
    if not tools or not messages or messages[-1].get("role") != "user":
        return []
    tool: Mapping[str, Any] = tools[0].get("function") or tools[0]
    schema: Mapping[str, Any] = tool.get("parameters") or tool.get("input_schema") or {}
    return [ToolCall(str(tool.get("name")), json.dumps(_least(schema)))]


_LEAST: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "array": [], "null": None}


def _least(schema: Mapping[str, Any]) -> Any:
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("type", "object") == "object":
        properties: Mapping[str, Any] = schema.get("properties") or {}
        return {name: _least(properties.get(name) or {"type": "string"}) for name in schema.get("required") or ()}
    return _LEAST.get(str(schema.get("type")), "x")
