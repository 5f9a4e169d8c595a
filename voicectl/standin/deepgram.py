"""Deepgram's two websockets for speech to text: listen v1 (Nova) and v2 (Flux).

A request is what lies between two finals: it begins with the first word that is heard and ends with
the transcript that closes it. Listening goes on whatever becomes of the answers: they are said by a
task of their own, in order.
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

_ENDPOINTING_MS = "300"  # where the client does not say
_FLUX_EAGER_S = 0.3
_FLUX_UPDATE_S = 0.25  # it says what it has heard, if only that it was nothing, each time it has heard so much
_QUEUE = 1000  # answers that wait while one is held up; what comes beyond is lost, as is what nobody reads
_SLACK_S = 1e-9


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def nova(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "deepgram-stt") as socket:
            await _Nova(standin, socket).run()
        return socket.response

    async def flux(http: web.Request) -> web.StreamResponse:
        async with standin.socket(http, "deepgram-flux") as socket:
            await _Flux(standin, socket).run()
        return socket.response

    return [web.get("/v1/listen", nova), web.get("/v2/listen", flux)]


@dataclass(frozen=True, slots=True)
class _Said:
    """To be sent; `asked` is the request that it belongs to, None for what nobody counts."""

    message: dict[str, Any]
    asked: Request | None
    last: bool = False
    waits: bool = False


class _Listener:
    """What both have: an ear, and answers that leave in order."""

    def __init__(self, standin: StandIn, socket: Socket) -> None:
        query = socket.http.query
        self._standin = standin
        self._socket = socket
        self._ear = standin.ear(int(query.get("sample_rate", "16000")))
        self._asked: Request | None = None
        self._begun: Request | None = None
        self._outbox: asyncio.Queue[_Said] = asyncio.Queue(_QUEUE)

    async def run(self) -> None:
        self._socket.spawn(self._answer(), name="deepgram answers")
        async for message in self._socket:
            if isinstance(message, bytes):
                self.hear(message)
            else:
                self.read(json.loads(message))

    def hear(self, pcm: bytes) -> None:
        raise NotImplementedError

    def read(self, message: dict[str, Any]) -> None:
        """What the client says in words."""
        self._standin.got.append(message["type"])

    @property
    def skew_s(self) -> float:
        return self._asked.skew_s if self._asked else 0.0

    def heard_words(self) -> None:
        """There is something to be answered."""
        self._asked = self._asked or self._socket.request()

    def say(self, message: dict[str, Any], *, last: bool = False, waits: bool = False) -> None:
        if not self._outbox.full():
            self._outbox.put_nowait(_Said(message, self._asked, last, waits))
        if last:
            self._asked = None

    async def _answer(self) -> None:
        while True:
            said = await self._outbox.get()
            if said.asked and said.asked is not self._begun:
                self._begun = said.asked
                try:
                    await said.asked.begin()
                except Refused as no:
                    said.asked.done()
                    await self.refuse(no)
                    return
            if said.waits:
                await self._standin.delay("stt")
            text = json.dumps(said.message)
            if said.asked:
                text = await said.asked.piece(text, last=said.last)
            await self._socket.send_raw(text)
            if said.asked and said.last:
                said.asked.done()

    async def refuse(self, no: Refused) -> None:
        """In an open websocket: Deepgram's own error, and a close."""
        await self._socket.send(
            type="Error", description=no.message, message=no.message, variant=str(no.status), code=str(no.status)
        )
        await self._socket.close(1011 if no.status >= 500 else 1008, no.message)


class _Nova(_Listener):
    def __init__(self, standin: StandIn, socket: Socket) -> None:
        super().__init__(standin, socket)
        self._endpointing_s = float(socket.http.query.get("endpointing", _ENDPOINTING_MS)) / 1000
        self._partial = ""
        self._final = 0.0  # until where all is

    def hear(self, pcm: bytes) -> None:
        ear = self._ear
        limit = self._standin.does.endpointing_s or self._endpointing_s
        for _ in ear.hear(pcm):
            if not ear.words:
                continue
            self.heard_words()
            if ear.silence_s >= limit - _SLACK_S:
                self._results(ear.take(), speech_final=True, last=True)
            elif ear.text != self._partial:
                self._results(ear.text)
                self._partial = ear.text

    def read(self, message: dict[str, Any]) -> None:
        super().read(message)
        does = self._standin.does
        if message["type"] == "CloseStream":
            self._socket.spawn(self._socket.close(), name="deepgram close")
        elif message["type"] == "Finalize" and does.says:
            self.say({"type": "Error", "description": does.says, "variant": "x", "message": "x"})
        elif message["type"] == "Finalize":
            self._ear.flush()
            if self._ear.words:
                self.heard_words()
            text = self._ear.take()
            if does.finalize_answers:
                self._results(text, from_finalize=True, last=True)
            self._final, self._partial = self._ear.until, ""

    def _results(
        self, text: str, *, speech_final: bool = False, from_finalize: bool = False, last: bool = False
    ) -> None:
        start = self._final + self.skew_s
        message: dict[str, Any] = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": start,
            "duration": self._ear.until - self._final,
            "is_final": last,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [{"transcript": text, "confidence": 1.0, "words": []}]},
            "metadata": {
                "request_id": "stand-in",
                "model_uuid": "stand-in",
                "model_info": {"name": "stand-in", "version": "1", "arch": "stand-in"},
            },
        }
        if last:
            self._final, self._partial = self._ear.until, ""
        self.say(message, last=last, waits=from_finalize)


class _Flux(_Listener):
    def __init__(self, standin: StandIn, socket: Socket) -> None:
        super().__init__(standin, socket)
        self._turn = 0
        self._eager = False
        self._told = ""
        self._told_s = 0.0
        self.say({"type": "Connected", "request_id": "stand-in", "sequence_id": 0})

    def hear(self, pcm: bytes) -> None:
        ear = self._ear
        eager_s = self._standin.does.endpointing_s or _FLUX_EAGER_S
        for voiced in ear.hear(pcm):
            due = ear.until - self._told_s >= _FLUX_UPDATE_S - _SLACK_S
            if not ear.words:
                if due:
                    self._event("Update")
                continue
            self.heard_words()
            if voiced and self._eager:
                self._eager = False
                self._event("TurnResumed")
            elif ear.text != self._told:
                self._event("Update" if self._told else "StartOfTurn")
            elif ear.silence_s >= 2 * eager_s - _SLACK_S:
                self._event("EndOfTurn", last=True)
                self._turn, self._eager, self._told = self._turn + 1, False, ""
                ear.take()
            elif ear.silence_s >= eager_s - _SLACK_S and not self._eager:
                self._eager = True
                self._event("EagerEndOfTurn")
            elif due:
                self._event("Update")

    def read(self, message: dict[str, Any]) -> None:
        super().read(message)
        if message["type"] == "CloseStream":
            self._socket.spawn(self._socket.close(), name="deepgram close")

    def _event(self, event: str, *, last: bool = False) -> None:
        self._told, self._told_s = self._ear.text, self._ear.until
        message: dict[str, Any] = {
            "type": "TurnInfo",
            "request_id": "stand-in",
            "sequence_id": 0,
            "event": event,
            "turn_index": self._turn,
            "audio_window_start": 0.0 + self.skew_s,
            "audio_window_end": self._ear.until + self.skew_s,
            "transcript": self._ear.text,
            "words": [],
            "end_of_turn_confidence": 0.5,
        }
        self.say(message, last=last, waits=last)

    async def refuse(self, no: Refused) -> None:
        await self._socket.send(type="Error", sequence_id=0, code=str(no.status), description=no.message)
        await self._socket.close(1011 if no.status >= 500 else 1008, no.message)
