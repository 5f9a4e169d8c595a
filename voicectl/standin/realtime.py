"""OpenAI's Realtime websocket: sound in, sound and text out, and a memory that can be cut.

Of the protocol there is what a client needs that takes turns by itself (no turn detection here): the
session, the input buffer, responses one at a time, items that are truncated, deleted or told, and
transcripts of what the caller said.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.openai import words_of
from voicectl.standin.wire import Refused, Request, Socket

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

RATE = 24_000
LEAST_S = 0.1
IN_TOKENS_S, OUT_TOKENS_S = 10, 20
"""Audio tokens a second."""


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def talk(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "openai-realtime") as socket:
            await _Talk(standin, socket).run()
        return socket.response

    return [web.get("/v1/realtime", talk)]


@dataclass
class _Item:
    """One turn as the model remembers it. `seconds` is its sound's length."""

    id: str
    role: str
    text: str
    seconds: float = 0.0


@dataclass
class _Response:
    id: str
    item: _Item
    task: asyncio.Task[None] | None = None
    words: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


class _Talk:
    """One websocket, which is one conversation."""

    def __init__(self, standin: StandIn, socket: Socket) -> None:
        self._standin = standin
        self._socket = socket
        self._ear = standin.ear(RATE)
        self._buffer = 0  # bytes not committed
        self._session: dict[str, Any] = {}
        self._items: list[_Item] = []
        self._response: _Response | None = None
        self._number = 0

    async def run(self) -> None:
        await self._send("session.created", session={"type": "realtime", "object": "realtime.session"})
        async for message in self._socket:
            event: dict[str, Any] = json.loads(message)
            handle = getattr(self, "_on_" + event["type"].replace(".", "_"), None)
            if handle is None:
                await self._error(event, "invalid_value", f"Invalid value: '{event['type']}'.")
            else:
                await handle(event)

    # What the client says ----------------------------------------------------------------------------

    async def _on_session_update(self, event: dict[str, Any]) -> None:
        if self._standin.does.says:
            await self._error(event, "invalid_value", self._standin.does.says)
            return
        self._session = event["session"]
        await self._send("session.updated", session=self._session)

    async def _on_input_audio_buffer_append(self, event: dict[str, Any]) -> None:
        pcm = base64.b64decode(event["audio"])
        self._buffer += len(pcm)
        for _ in self._ear.hear(pcm):
            pass

    async def _on_input_audio_buffer_clear(self, event: dict[str, Any]) -> None:
        self._standin.got.append("clear")
        self._buffer = 0
        self._ear.flush()
        self._ear.take()
        await self._send("input_audio_buffer.cleared")

    async def _on_input_audio_buffer_commit(self, event: dict[str, Any]) -> None:
        self._standin.got.append("commit")
        seconds = self._buffer / 2 / RATE
        if seconds < LEAST_S:
            what = (
                f"Error committing input audio buffer: buffer too small. Expected at least 100ms, got {seconds:.2f}s."
            )
            await self._error(event, "input_audio_buffer_commit_empty", what)
            return
        self._buffer = 0
        self._ear.flush()
        item = _Item(self._id("item"), "user", self._ear.take(), seconds)
        before = self._items[-1].id if self._items else None
        self._items.append(item)
        await self._send("input_audio_buffer.committed", item_id=item.id, previous_item_id=before)
        shown = {"id": item.id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        await self._send("conversation.item.added", item=shown, previous_item_id=before)
        if self._session.get("audio", {}).get("input", {}).get("transcription"):
            self._socket.spawn(self._transcribe(item), name=f"realtime {item.id}")

    async def _on_conversation_item_create(self, event: dict[str, Any]) -> None:
        given: dict[str, Any] = event["item"]
        text = " ".join(part.get("text", "") for part in given.get("content", ()))
        item = _Item(given.get("id") or self._id("item"), given["role"], text)
        self._items.append(item)
        self._standin.got.append(f"told {item.role}: {text}")
        await self._send("conversation.item.added", item={**given, "id": item.id})

    async def _on_conversation_item_truncate(self, event: dict[str, Any]) -> None:
        item = self._find(event["item_id"])
        seconds = event["audio_end_ms"] / 1000
        if item is None or seconds > item.seconds + 0.001:
            await self._error(event, "invalid_value", "Audio content of that length is not there.")
            return
        words = item.text.split()
        item.text = " ".join(words[: int(seconds / item.seconds * len(words))])
        item.seconds = seconds
        self._standin.got.append(f"truncate {event['audio_end_ms']}")
        same = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
        await self._send("conversation.item.truncated", **same)

    async def _on_conversation_item_delete(self, event: dict[str, Any]) -> None:
        item = self._find(event["item_id"])
        if item is None:
            await self._error(event, "item_delete_invalid_item_id", "There is no such item.")
            return
        self._items.remove(item)
        self._standin.got.append("delete")
        await self._send("conversation.item.deleted", item_id=item.id)

    async def _on_response_create(self, event: dict[str, Any]) -> None:
        if self._response:
            code = "conversation_already_has_active_response"
            await self._error(event, code, "Conversation already has an active response in progress.")
            return
        self._standin.got.append("respond")
        self._response = response = _Response(self._id("resp"), _Item(self._id("item"), "assistant", ""))
        response.task = self._socket.spawn(self._respond(response, event), name=f"realtime {response.id}")

    async def _on_response_cancel(self, event: dict[str, Any]) -> None:
        response = self._response
        if response is None or event.get("response_id") not in (None, response.id):
            await self._error(event, "response_cancel_not_active", "Cancellation failed: no active response found.")
            return
        self._standin.got.append("cancel")
        if response.task:
            response.task.cancel()
        await self._finish(response, "cancelled")

    # What the model says -----------------------------------------------------------------------------

    async def _respond(self, response: _Response, event: dict[str, Any]) -> None:
        with self._socket.request() as asked:
            try:
                await asked.begin()
            except Refused as no:
                kind = {429: "rate_limit_error", 401: "invalid_request_error"}.get(no.status, "server_error")
                await self._error(event, {401: "invalid_api_key"}.get(no.status, str(no.status)), no.message, kind)
                await self._socket.close(1011 if no.status >= 500 else 1008, no.message)
                return
            same = {"response_id": response.id, "item_id": response.item.id, "output_index": 0, "content_index": 0}
            await self._send("response.created", response={"id": response.id, "status": "in_progress"})
            text = self._text(event.get("response") or {})
            item: dict[str, Any] = {"id": response.item.id, "type": "message", "role": "assistant", "content": []}
            self._items.append(response.item)
            await self._send("response.output_item.added", response_id=response.id, output_index=0, item=item)
            await self._speak(response, text, asked, same)
            await self._send("response.output_audio.done", **same)
            last = self._event("response.output_audio_transcript.done", **same, transcript=text)
            await self._socket.send_raw(await asked.piece(json.dumps(last), last=True))
            await self._finish(response, "completed")

    async def _speak(self, response: _Response, text: str, asked: Request, same: dict[str, Any]) -> None:
        pieces = list(self._standin.pieces(self._standin.voice(text, RATE), RATE))
        words = words_of(text)
        told = 0
        for number, pcm in enumerate(pieces, 1):
            await self._standin.delay("s2s" if number == 1 else "s2s-gap")
            share = -(-len(words) * number // len(pieces))
            if said := "".join(words[told:share]):
                response.words += words[told:share]
                response.item.text += said
                told = share
                await self._send("response.output_audio_transcript.delta", **same, delta=said)
            delta = self._event("response.output_audio.delta", **same, delta=base64.b64encode(pcm).decode())
            data = await asked.piece(json.dumps(delta))
            response.seconds += len(pcm) / 2 / RATE
            response.item.seconds = response.seconds
            await self._socket.send_raw(data)

    async def _finish(self, response: _Response, status: str) -> None:
        self._response = None
        audio_in = round(sum(item.seconds for item in self._items if item.role == "user") * IN_TOKENS_S)
        text_in = len(words_of(self._session.get("instructions", "")))
        audio_out, text_out = round(response.seconds * OUT_TOKENS_S), len(response.words)
        usage = {
            "total_tokens": audio_in + text_in + audio_out + text_out,
            "input_tokens": audio_in + text_in,
            "output_tokens": audio_out + text_out,
            "input_token_details": {"text_tokens": text_in, "audio_tokens": audio_in, "cached_tokens": 0},
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }
        reason = {"type": "cancelled", "reason": "client_cancelled"} if status == "cancelled" else None
        item = {"id": response.item.id, "type": "message", "role": "assistant", "status": status}
        output = [item] if response.item in self._items else []
        shown = {"id": response.id, "status": status, "status_details": reason, "output": output, "usage": usage}
        await self._send("response.done", response=shown)

    async def _transcribe(self, item: _Item) -> None:
        await self._standin.delay("stt")
        usage = {"type": "duration", "seconds": item.seconds}
        await self._send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item.id,
            content_index=0,
            transcript=item.text,
            usage=usage,
        )

    def _text(self, wanted: dict[str, Any]) -> str:
        """The answer; or, where it was told to say a text, what stands after the first line."""
        if instructions := wanted.get("instructions"):
            return instructions.partition("\n")[2] or instructions
        messages = [{"role": "system", "content": self._session.get("instructions", "")}]
        messages += [{"role": item.role, "content": item.text} for item in self._items]
        self._standin.got.append("knows " + " | ".join(f"{item.role}: {item.text}" for item in self._items))
        return self._standin.answer(messages)

    # The wire ----------------------------------------------------------------------------------------

    async def _send(self, kind: str, **more: Any) -> None:
        await self._socket.send_raw(json.dumps(self._event(kind, **more)))

    async def _error(self, event: dict[str, Any], code: str, message: str, kind: str = "invalid_request_error") -> None:
        error = {"type": kind, "code": code, "message": message, "param": None, "event_id": event.get("event_id")}
        await self._send("error", error=error)

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "event_id": self._id("event"), **more}

    def _id(self, what: str) -> str:
        self._number += 1
        return f"{what}_{self._number:06}"

    def _find(self, id: str) -> _Item | None:
        return next((item for item in self._items if item.id == id), None)
