"""Cartesia's two websockets for speech to text: manual finalize, and auto finalize with its turns (Ink).

A request is what lies between two finals: it begins with the first word that is heard and ends with
what closes it. Listening goes on whatever becomes of the answers: they are said by a task of their
own, in order.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.wire import Refused, Request, Socket

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

_EAGER_S = 0.3
_QUEUE = 1000  # answers that wait while one is held up; what comes beyond is lost, as is what nobody reads
_SLACK_S = 1e-9


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def asked(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "cartesia-stt") as socket:
            await _Asked(standin, socket).run()
        return socket.response

    async def turns(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "cartesia-stt") as socket:
            await _Turns(standin, socket).run()
        return socket.response

    return [web.get("/stt/websocket", asked), web.get("/stt/turns/websocket", turns)]


@dataclass(frozen=True, slots=True)
class _Said:
    """To be sent; `asked` is the request that it belongs to, None for what nobody counts."""

    message: dict[str, Any]
    asked: Request | None
    last: bool
    waits: bool
    closes: bool = False


class _Listener:
    """What both have: an ear, and answers that leave in order."""

    def __init__(self, standin: StandIn, socket: Socket) -> None:
        self._standin = standin
        self._socket = socket
        self._ear = standin.ear(int(socket.http.query.get("sample_rate", "16000")))
        self._asked: Request | None = None
        self._begun: Request | None = None
        self._outbox: asyncio.Queue[_Said] = asyncio.Queue(_QUEUE)

    async def run(self) -> None:
        self._socket.spawn(self._answer(), name="cartesia answers")
        async for message in self._socket:
            if isinstance(message, bytes):
                self.hear(message)
            else:
                self.read(message)

    def hear(self, pcm: bytes) -> None:
        raise NotImplementedError

    def read(self, command: str) -> None:
        """What the client says in words."""
        raise NotImplementedError

    def heard_words(self) -> None:
        """There is something to be answered."""
        self._asked = self._asked or self._socket.request()

    def say(self, kind: str, *, last: bool = False, waits: bool = False, closes: bool = False, **message: Any) -> None:
        if not self._outbox.full():
            named = {"type": kind, "request_id": "stand-in", **message}
            self._outbox.put_nowait(_Said(named, self._asked, last, waits, closes))
        if last:
            self._asked = None

    def fail(self, status: int, said: str) -> None:
        self.say("error", title="Error", message=said, status_code=status, closes=True)

    async def _answer(self) -> None:
        while True:
            said = await self._outbox.get()
            if said.asked and said.asked is not self._begun:
                self._begun = said.asked
                try:
                    await said.asked.begin()
                except Refused as no:
                    said.asked.done()
                    await self._socket.send(type="error", title="Error", message=no.message, status_code=no.status)
                    await self._socket.close(1011 if no.status >= 500 else 1008, no.message)
                    return
            if said.waits:
                await self._standin.delay("stt")
            text = json.dumps(said.message)
            if said.asked:
                text = await said.asked.piece(text, last=said.last)
            await self._socket.send_raw(text)
            if said.asked and said.last:
                said.asked.done()
            if said.closes:
                await self._socket.close()
                return


class _Asked(_Listener):
    """Each text is what came after the last final one, to be put together as it is."""

    def __init__(self, standin: StandIn, socket: Socket) -> None:
        super().__init__(standin, socket)
        self._partial = ""
        self._between = ""

    def hear(self, pcm: bytes) -> None:
        for _ in self._ear.hear(pcm):
            if self._ear.words and self._ear.text != self._partial:
                self.heard_words()
                self._partial = self._ear.text
                self.say("transcript", text=self._between + self._partial, is_final=False)

    def read(self, command: str) -> None:
        standin = self._standin
        standin.got.append(command)
        if command not in ("finalize", "close"):
            self.fail(400, f"there is no command {command}")
        elif standin.does.says:
            self.fail(400, standin.does.says)
        elif standin.does.finalize_answers:
            self._finalize()
            if command == "close":
                self.say("done", closes=True)

    def _finalize(self) -> None:
        self._ear.flush()
        if self._ear.words:
            self.heard_words()
        if text := self._ear.take():
            self.say("transcript", text=self._between + text, is_final=True, waits=True)
            self._between = " "
        self._partial = ""
        self.say("flush_done", last=True)


class _Turns(_Listener):
    """The whole text of a turn each time."""

    def __init__(self, standin: StandIn, socket: Socket) -> None:
        super().__init__(standin, socket)
        self._eager = False
        self._told = ""
        self._between = ""
        self.say("connected")

    def hear(self, pcm: bytes) -> None:
        ear = self._ear
        eager_s = self._standin.does.endpointing_s or _EAGER_S
        for voiced in ear.hear(pcm):
            if not ear.words:
                continue
            self.heard_words()
            if not self._told:
                self.say("turn.start")
            if voiced and self._eager:
                self._eager = False
                self.say("turn.resume")
            if ear.text != self._told:
                self._told = ear.text
                self.say("turn.update", transcript=self._between + ear.text)
            elif ear.silence_s >= 2 * eager_s - _SLACK_S:
                self._end()
            elif ear.silence_s >= eager_s - _SLACK_S and not self._eager:
                self._eager = True
                self.say("turn.eager_end", transcript=self._between + ear.text)

    def read(self, command: str) -> None:
        kind = json.loads(command)["type"]
        self._standin.got.append(kind)
        if kind == "close":
            self._ear.flush()
            if self._ear.words:
                self._end()
            self._socket.spawn(self._socket.close(), name="cartesia close")
        elif kind != "config":
            self.fail(400, f"there is no command {kind}")

    def _end(self) -> None:
        self.say("turn.end", transcript=self._between + self._ear.take(), last=True, waits=True)
        self._eager, self._told, self._between = False, "", " "
