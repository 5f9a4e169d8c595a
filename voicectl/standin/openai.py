"""OpenAI's list of models and chat completions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.answers import ToolCall, text_of
from voicectl.standin.faults import Service
from voicectl.standin.wire import Request

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

_ARGUMENTS_PIECE = 12  # letters of a tool's arguments that come at once


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def models(http: web.Request) -> web.StreamResponse:
        standin.check(_asking(http))
        status = standin.does.models
        if status != 200:
            return web.json_response({"error": {"message": standin.does.says}}, status=status)
        return web.json_response({"object": "list", "data": []})

    async def chat(http: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await http.json()
        standin.got.append("asked")
        with standin.request("openai-llm") as asked:
            await asked.begin()
            answer = _Answer(standin, body, asked)
            if not body.get("stream"):
                return await answer.whole()
            return await answer.stream(http)

    return [web.get("/v1/models", models), web.post("/v1/chat/completions", chat)]


def _asking(http: web.Request) -> Service:
    """Anthropic and ElevenLabs have their lists of models at the same place, and take any."""
    if "anthropic-version" in http.headers:
        return "anthropic-llm"
    return "elevenlabs-tts" if "xi-api-key" in http.headers else "openai-llm"


class _Answer:
    """One answer: text, or the tools to be called."""

    def __init__(self, standin: StandIn, body: dict[str, Any], asked: Request) -> None:
        self._standin = standin
        self._asked = asked
        options: dict[str, Any] = body.get("stream_options") or {}
        self._usage_wanted = bool(options.get("include_usage"))
        messages: list[dict[str, Any]] = body.get("messages") or []
        tools: list[dict[str, Any]] = body.get("tools") or []
        self._calls = standin.calls(messages, tools) if body.get("tool_choice") != "none" else []
        self._words = [] if self._calls else words_of(standin.answer(messages))
        self._same = {
            "id": f"chatcmpl-{len(standin.seen)}",
            "created": round(standin.clock.now() + asked.skew_s),
            "model": body.get("model"),
        }
        self._prompt = messages

    async def whole(self) -> web.Response:
        await self._standin.delay("llm")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._words) or None}
        if self._calls:
            message["tool_calls"] = [_call(index, call) for index, call in enumerate(self._calls)]
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        text = json.dumps({**self._same, "object": "chat.completion", "choices": [choice], "usage": self._usage()})
        text = await self._asked.piece(text, last=True)
        return web.Response(text=text, content_type="application/json")

    async def stream(self, http: web.Request) -> web.StreamResponse:
        standin = self._standin
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        for number, (event, last) in enumerate(_with_last(self._events())):
            await standin.delay("llm-gap" if number else "llm")
            event = await self._asked.piece(event, last=last, spoilt="<html>")
            await response.write(f"data: {event}\n\n".encode())
        await response.write_eof()
        standin.got.append("answered")
        return response

    def _events(self) -> Iterator[str]:
        for index, delta in enumerate(self._deltas()):
            if index == 1 and self._standin.does.spoil:
                yield self._standin.does.spoil
            yield self._chunk(delta, None)
        yield self._chunk({}, self._finish)
        if self._usage_wanted:
            yield json.dumps({**self._same, "object": _CHUNK, "choices": [], "usage": self._usage()})
        yield "[DONE]"

    def _deltas(self) -> Iterator[dict[str, Any]]:
        for word in self._words:
            yield {"content": word}
        for index, call in enumerate(self._calls):
            yield {"tool_calls": [_call(index, ToolCall(call.name, ""))]}
            for start in range(0, len(call.arguments), _ARGUMENTS_PIECE):
                piece = call.arguments[start : start + _ARGUMENTS_PIECE]
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    @property
    def _finish(self) -> str:
        return "tool_calls" if self._calls else "stop"

    def _chunk(self, delta: Mapping[str, Any], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps({**self._same, "object": _CHUNK, "choices": [choice]})

    def _usage(self) -> dict[str, Any]:
        return usage(self._prompt, self._words or [call.arguments for call in self._calls])


_CHUNK = "chat.completion.chunk"


def words_of(text: str) -> list[str]:
    """A text in pieces as a model makes them, about."""
    return re.findall(r"\s*\S+", text)


def usage(messages: Sequence[Mapping[str, Any]], words: Sequence[str]) -> dict[str, Any]:
    """Tokens, of which a word counts as one. All but what the caller said last were seen before."""
    counts = [len(words_of(text_of(message.get("content")))) for message in messages]
    prompt, seen = sum(counts), sum(counts[:-1])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(words),
        "total_tokens": prompt + len(words),
        "prompt_tokens_details": {"cached_tokens": seen},
    }


def _call(index: int, call: ToolCall) -> dict[str, Any]:
    return {
        "index": index,
        "id": f"call_{index}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _with_last(events: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Each with whether it is the last."""
    before: str | None = None
    for event in events:
        if before is not None:
            yield before, False
        before = event
    if before is not None:
        yield before, True
