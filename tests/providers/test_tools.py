"""Tool calls as they stream: the same from every vendor, never spoken, and kept in a recording."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from standin import StandIn
from test_cloud import serve

from voicectl.clock import Clock, run_on
from voicectl.events import Event, LlmFinished, LlmFirstToken
from voicectl.pipeline.agent_turn import answer
from voicectl.pipeline.protocols import LlmChunk, LlmRequest, Message, Progress, TextDelta, Tool, ToolDelta, Usage
from voicectl.providers.openai_llm import OpenAiLlm, Options
from voicectl.providers.recorded import RecordedLlm
from voicectl.providers.recording import RecordingLlm
from voicectl.standin.answers import ToolCall
from voicectl.streams import StreamLog, read_streams

ORDER = Tool(
    "order_coffee",
    "Order a coffee for the caller.",
    {
        "type": "object",
        "properties": {
            "size": {"type": "string", "enum": ["large", "small"]},
            "drink": {"type": "string"},
            "shots": {"type": "integer"},
        },
        "required": ["size", "drink", "shots"],
    },
)
TIME = Tool("time", "The time of day.", {"type": "object"})
REQUEST = LlmRequest((Message("system", "Be brief."), Message("user", "A latte.")), (ORDER, TIME))
DELTAS = [
    ToolDelta("a", "order_coffee", ""),
    ToolDelta("a", "order_coffee", '{"size": "lar'),
    ToolDelta("b", "time", ""),
]

vendors = pytest.mark.parametrize("name", ["openai", "anthropic"])


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


async def chunks_of(llm: Any, request: LlmRequest = REQUEST) -> list[Any]:
    async with aclosing(llm.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


def whole(deltas: Iterable[ToolDelta]) -> dict[str, tuple[str, Any]]:
    """Each call's name and arguments, by its id."""
    texts: dict[str, str] = {}
    names: dict[str, str] = {}
    for delta in deltas:
        assert names.setdefault(delta.id, delta.name) == delta.name
        texts[delta.id] = texts.get(delta.id, "") + delta.arguments
    return {id: (names[id], json.loads(text or "{}")) for id, text in texts.items()}


@pytest.mark.wall
@vendors
def test_a_tool_call_streams_piece_by_piece(vendor: StandIn, name: str) -> None:
    async def test(llm: Any, clock: Clock) -> None:
        *deltas, usage = await chunks_of(llm)
        assert all(isinstance(delta, ToolDelta) for delta in deltas)
        assert len(deltas) > 3
        assert (deltas[0].name, deltas[0].arguments) == ("order_coffee", ""), "told as soon as it is chosen"
        assert list(whole(deltas).values()) == [("order_coffee", {"size": "large", "drink": "x", "shots": 1})]
        assert isinstance(usage, Usage)

    serve(vendor, "llm", name, test)


@pytest.mark.wall
@vendors
def test_several_calls_of_one_answer_are_told_apart(
    vendor: StandIn, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [ToolCall("order_coffee", '{"size": "small"}'), ToolCall("time", ""), ToolCall("order_coffee", "{}")]

    def all_calls(messages: Any, tools: Any) -> list[ToolCall]:
        return calls

    monkeypatch.setattr(vendor, "calls", all_calls)

    async def test(llm: Any, clock: Clock) -> None:
        *deltas, _ = await chunks_of(llm)
        assert list(whole(deltas).values()) == [
            ("order_coffee", {"size": "small"}),
            ("time", {}),
            ("order_coffee", {}),
        ]

    serve(vendor, "llm", name, test)


@pytest.mark.wall
@vendors
def test_without_tools_none_is_offered(vendor: StandIn, name: str) -> None:
    async def test(llm: Any, clock: Clock) -> None:
        chunks = await chunks_of(llm, LlmRequest(REQUEST.messages))
        assert all(isinstance(chunk, TextDelta) for chunk in chunks[:-1])

    serve(vendor, "llm", name, test)


def part(index: int | None, id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    whole = {"index": index, "id": id, "function": {key: value for key, value in function.items() if value is not None}}
    delta = {"content": None, "tool_calls": [{key: value for key, value in whole.items() if value is not None}]}
    return {"choices": [{"index": 0, "delta": delta}]}


@pytest.mark.parametrize(
    ("parts", "calls"),
    [
        ([part(0, "x", "time", ""), part(0, None, None, "{}")], [("x", "time", ""), ("x", "time", "{}")]),
        ([part(0, None, "time", "{}")], [("call_0", "time", "{}")]),
        ([part(None, "x", "time", "{}"), part(None, "y", "time", "{}")], [("x", "time", "{}"), ("y", "time", "{}")]),
        ([part(0, "x", "time", "{"), part(0, "x", "time", "}")], [("x", "time", "{"), ("x", "time", "}")]),
        ([part(0, "x", "time", "{}"), part(0, None, None, "")], [("x", "time", "{}")]),
    ],
    ids=["openai", "no ids", "no numbers", "all repeated", "an empty piece"],
)
def test_servers_that_speak_as_openai_may_number_and_name_calls_as_they_like(
    parts: list[dict[str, Any]], calls: list[tuple[str, str, str]]
) -> None:
    async def main(clock: Clock) -> None:
        llm = OpenAiLlm(Options.model_validate({}), "m", clock)
        begun: dict[int, ToolDelta] = {}
        assert [delta for each in parts for delta in llm._pieces(each, begun)] == [ToolDelta(*call) for call in calls]

    run_on("virtual", main)


# In a call -------------------------------------------------------------------------------------


class Caller:
    """A model that says a word and calls tools."""

    name = "caller"

    async def start(self, progress: Progress) -> None: ...

    async def aclose(self) -> None: ...

    async def warm(self, messages: tuple[Message, ...]) -> None: ...

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        for chunk in (DELTAS[0], TextDelta("Sure."), *DELTAS[1:], Usage(5, 0, 9)):
            yield chunk


class Notes:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def now(self) -> float:
        return 0.0

    def note(self, event: Event) -> None:
        self.events.append(event)


def test_a_tool_call_is_not_spoken() -> None:
    async def main(clock: Clock) -> None:
        notes = Notes()
        clauses = [one async for one in answer(REQUEST, reply=0, llm=Caller(), first_clause_words=5, notes=notes)]
        assert clauses == ["Sure."]
        assert [event.chunks for event in notes.events if isinstance(event, LlmFinished)] == [1]
        assert [type(event) for event in notes.events].count(LlmFirstToken) == 1

    run_on("virtual", main)


def test_a_recording_holds_tool_calls_and_replays_them(tmp_path: Path) -> None:
    log = StreamLog(tmp_path, {})

    async def record(clock: Clock) -> list[Any]:
        return await chunks_of(RecordingLlm(Caller(), log))

    async def replay(clock: Clock) -> list[Any]:
        return await chunks_of(RecordedLlm(read_streams(tmp_path), clock, "fail", print))

    said = run_on("virtual", record)
    log.close()
    assert run_on("virtual", replay) == said
    assert [chunk for chunk in said if isinstance(chunk, ToolDelta)] == DELTAS
