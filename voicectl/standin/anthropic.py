"""Anthropic's messages, as strict about a conversation as Anthropic is. Its list of models is where
OpenAI's is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from voicectl.standin.answers import text_of
from voicectl.standin.wire import Refused, Request

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

_ARGUMENTS_PIECE = 12  # letters of a tool's arguments that come at once
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
"""What an error is called; all others are invalid_request_error."""


def routes(standin: StandIn) -> list[web.RouteDef]:
    cached: set[str] = set()  # system prompts that were asked to be kept

    async def messages(http: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await http.json()
        standin.got.append("asked")
        with standin.request("anthropic-llm") as asked:
            try:
                await asked.begin()
                if wrong := _wrong(body):
                    raise Refused(400, wrong)
            except Refused as no:
                return no.response(_error(no))
            return await _Answer(standin, body, asked, cached).stream(http)

    return [web.post("/v1/messages", messages)]


class _Answer:
    """One answer: text, or the tools to be called."""

    def __init__(self, standin: StandIn, body: dict[str, Any], asked: Request, cached: set[str]) -> None:
        self._standin = standin
        self._asked = asked
        self._model = body.get("model")
        conversation = _conversation(body)
        self._calls = standin.calls(conversation, body.get("tools") or [])
        self._words = [] if self._calls else _tokens(standin.answer(conversation))
        self._prompt = _prompt(body, cached)

    async def stream(self, http: web.Request) -> web.StreamResponse:
        standin = self._standin
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        pieces = list(self._pieces())
        for number, piece in enumerate(pieces):
            await standin.delay("llm-gap" if number else "llm")
            spoilt = "event: content_block_delta\ndata: <html>\n\n"
            piece = await self._asked.piece(piece, last=number == len(pieces) - 1, spoilt=spoilt)
            await response.write(piece.encode())
        await response.write_eof()
        standin.got.append("answered")
        return response

    def _pieces(self) -> Iterator[str]:
        """Each is what comes at once: a delta and the events about it."""
        before = _event("message_start", message=self._message()) + _event("ping")
        after = ""
        count = 0
        for index, (block, deltas) in enumerate(self._blocks()):
            before += after + _event("content_block_start", index=index, content_block=block)
            for delta in deltas:
                if count == 1 and self._standin.does.spoil:
                    yield f"event: content_block_delta\ndata: {self._standin.does.spoil}\n\n"
                yield before + _event("content_block_delta", index=index, delta=delta)
                before, count = "", count + 1
            after = _event("content_block_stop", index=index)
        end = {"stop_reason": "tool_use" if self._calls else "end_turn", "stop_sequence": None}
        said = len(self._words) or sum(len(call.arguments) for call in self._calls)
        yield (
            before + after + _event("message_delta", delta=end, usage={"output_tokens": said}) + _event("message_stop")
        )

    def _blocks(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        if self._words:
            yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in self._words]
        for number, call in enumerate(self._calls):
            block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{number}", "name": call.name, "input": {}}
            starts = range(0, len(call.arguments), _ARGUMENTS_PIECE)
            parts = ["", *(call.arguments[start : start + _ARGUMENTS_PIECE] for start in starts)]
            yield block, [{"type": "input_json_delta", "partial_json": part} for part in parts]

    def _message(self) -> dict[str, Any]:
        return {
            "id": f"msg_{len(self._standin.seen)}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**self._prompt, "output_tokens": 1},
        }


def _tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def _event(kind: str, **more: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"


def _error(no: Refused) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _TYPES.get(no.status, "invalid_request_error"), "message": no.message}}


def _conversation(body: dict[str, Any]) -> list[dict[str, Any]]:
    """As OpenAI has it."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": text_of(body.get("system"))}]
    for message in body["messages"]:
        results = any(block.get("type") == "tool_result" for block in _blocks_of(message))
        messages.append({**message, "role": "tool" if results else message["role"]})
    return messages


def _blocks_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return cast("list[dict[str, Any]]", content) if isinstance(content, list) else []


def _prompt(body: dict[str, Any], cached: set[str]) -> dict[str, int]:
    """Tokens of what was asked, of which a word counts as one."""
    said = sum(len(_tokens(text_of(message.get("content")))) for message in body["messages"])
    system = text_of(body.get("system"))
    kept = any("cache_control" in block for block in _blocks_of({"content": body.get("system")}))
    known, tokens = system in cached, len(_tokens(system))
    if kept:
        cached.add(system)
    return {
        "input_tokens": said + (0 if kept else tokens),
        "cache_creation_input_tokens": tokens if kept and not known else 0,
        "cache_read_input_tokens": tokens if kept and known else 0,
    }


def _wrong(body: dict[str, Any]) -> str:
    """What Anthropic would not take."""
    messages: list[dict[str, Any]] = body.get("messages") or []
    if not isinstance(body.get("max_tokens"), int):
        return "max_tokens: Field required"
    if not messages:
        return "messages: at least one message is required"
    if any(message.get("role") not in ("user", "assistant") for message in messages):
        return 'messages: unexpected role; use the top-level "system" parameter for a system prompt'
    if messages[0]["role"] != "user":
        return 'messages: first message must use the "user" role'
    if messages[-1]["role"] == "assistant":
        return "This model does not support assistant message prefill. The conversation must end with a user message."
    if not all(_blocks_of(message) or text_of(message.get("content")).strip() for message in messages):
        return "messages: text content blocks must be non-empty"
    return ""
