"""Cartesia's websocket for text to speech, with its contexts."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.wire import Refused, Socket

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def speak(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "cartesia-tts") as socket:
            await _serve(standin, socket)
        return socket.response

    return [web.get("/tts/websocket", speak)]


async def _serve(standin: StandIn, socket: Socket) -> None:
    contexts: dict[str, asyncio.Task[None]] = {}
    async for message in socket:
        request: dict[str, Any] = json.loads(message)
        name = request["context_id"]
        if request.get("cancel"):
            standin.got.append("cancel")
            if name in contexts:
                contexts.pop(name).cancel()
            continue
        standin.got.append("speak")
        contexts[name] = socket.spawn(_speak(standin, socket, name, request), name=f"cartesia {name}")


async def _speak(standin: StandIn, socket: Socket, context: str, request: dict[str, Any]) -> None:
    same = {"context_id": context, "done": False, "status_code": 206}
    if standin.does.says:
        await socket.send(**same, type="error", title="Bad request", message=standin.does.says)
        return
    with socket.request() as asked:
        try:
            await asked.begin()
        except Refused as no:
            failed = {**same, "done": True, "status_code": no.status}
            await socket.send(**failed, type="error", title="Error", message=no.message)
            await socket.close(1011 if no.status >= 500 else 1008, no.message)
            return
        rate: int = request["output_format"]["sample_rate"]
        for number, pcm in enumerate(standin.pieces(standin.voice(request["transcript"], rate), rate)):
            await standin.delay("tts-gap" if number else "tts")
            chunk = {**same, "type": "chunk", "data": base64.b64encode(pcm).decode(), "step_time": 1.0}
            await socket.send_raw(await asked.piece(json.dumps(chunk)))
        done = {**same, "done": True, "status_code": 200, "type": "done"}
        await socket.send_raw(await asked.piece(json.dumps(done), last=True))
        standin.got.append("spoken")
