"""Deepgram's websocket for text to speech (speak v1, Aura): one text after the other, without names.

A request is what is spoken for one `Flush`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.wire import Refused, Socket

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

_FLUSHES, _FLUSHES_S = 20, 60.0  # so many in so long; Deepgram warns of one more, and does nothing


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def speak(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "deepgram-tts") as socket:
            await _Speaker(standin, socket).run()
        return socket.response

    return [web.get("/v1/speak", speak)]


class _Speaker:
    def __init__(self, standin: StandIn, socket: Socket) -> None:
        self._standin = standin
        self._socket = socket
        self._rate = int(socket.http.query.get("sample_rate", "24000"))
        self._text = ""
        self._flushed: deque[float] = deque(maxlen=_FLUSHES)
        self._speaking: asyncio.Task[None] | None = None
        self._number = 0

    async def run(self) -> None:
        socket = self._socket
        named = {"model_name": socket.http.query.get("model", ""), "model_version": "1", "model_uuid": "stand-in"}
        await socket.send(type="Metadata", request_id="stand-in", **named)
        async for text in socket:
            message: dict[str, Any] = json.loads(text)
            self._standin.got.append(message["type"])
            match message["type"]:
                case "Speak":
                    self._text += message["text"]
                case "Flush":
                    await self._flush()
                case "Clear":
                    if self._speaking:
                        self._speaking.cancel()
                    self._text, self._speaking = "", None
                    await socket.send(type="Cleared", sequence_id=self._number)
                case "Close":
                    socket.spawn(socket.close(), name="deepgram close")
                case _:
                    await socket.close(1008, "no such message")

    async def _flush(self) -> None:
        now = self._standin.clock.now()
        if len(self._flushed) == _FLUSHES and now - self._flushed[0] < _FLUSHES_S:
            said = f"no more than {_FLUSHES} flushes in {_FLUSHES_S:.0f} s"
            await self._socket.send(type="Warning", description=said, code="TOO_MANY_FLUSHES")
            return
        self._flushed.append(now)
        text, self._text = self._text, ""
        before = self._speaking
        self._speaking = self._socket.spawn(self._speak(text, before), name="deepgram voice")

    async def _speak(self, text: str, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait([before])
        standin, socket = self._standin, self._socket
        if standin.does.says:
            await socket.send(type="Error", description=standin.does.says, code="x")
            await socket.close(1008, "error")
            return
        with socket.request() as asked:
            try:
                await asked.begin()
            except Refused as no:
                await socket.send(type="Error", description=no.message, code=str(no.status))
                await socket.close(1011 if no.status >= 500 else 1008, no.message)
                return
            for number, pcm in enumerate(standin.pieces(standin.voice(text, self._rate), self._rate)):
                await standin.delay("tts-gap" if number else "tts")
                await socket.send_raw(await asked.piece(pcm))
            done = {"type": "Flushed", "sequence_id": self._number}
            self._number += 1
            await socket.send_raw(await asked.piece(json.dumps(done), last=True))
            standin.got.append("spoken")
