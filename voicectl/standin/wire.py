"""One request and one websocket, as a vendor's file sees them; what goes wrong with them happens here.

What lives here: counting pieces, waiting, cutting and spoiling them, and noticing that the other side
has hung up. What must not: any vendor's words, and whose turn it is to go wrong (`faults.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from email.parser import BytesParser
from email.policy import HTTP
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from aiohttp import WSMsgType, web

from voicectl.standin.faults import GATE_KINDS, STATUSES, Fault, Service

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

Data = TypeVar("Data", str, bytes)

_CLOSE_S = 1.0


class Refused(Exception):
    """This request, or this websocket, is answered with a status. Who catches it says so in the
    vendor's own words; where nobody does, it becomes an answer in OpenAI's shape."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"Retry-After": f"{self.retry_after_s:.0f}"}

    def response(self, body: dict[str, Any] | None = None) -> web.Response:
        """The answer over HTTP; `body` is the vendor's shape of an error."""
        shown = body or {"error": {"message": self.message, "type": "stand_in", "code": str(self.status)}}
        return web.json_response(shown, status=self.status, headers=self.headers)


class Cut(Exception):
    """The connection is to be aborted. Not for catching: the server does it."""


MESSAGES = {
    401: "the stand-in was told to refuse the key",
    429: "the stand-in was told that there are too many requests",
    500: "the stand-in was told to fail",
}


def refused(fault: Fault) -> Refused:
    status = STATUSES[fault.kind]
    return Refused(status, MESSAGES[status], 1.0 if fault.kind == "429-retry-after" else None)


async def form(http: web.Request) -> dict[str, bytes]:
    """The fields of a form (multipart/form-data), read whole: where the client's packets end must not matter."""
    head = f"Content-Type: {http.headers.get('Content-Type', '')}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + await http.read())
    if not message.is_multipart():
        raise Refused(400, "the body is no form")
    fields: dict[str, bytes] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content
    return fields


class Request:
    """Somebody asked for something: an answer, a clause, or the words between two finals.

    `begin()` once before the first piece, then each piece through `piece()`. Everything that was
    ordered to go wrong goes wrong in these two.
    """

    def __init__(self, standin: StandIn, service: Service, socket: Socket | None) -> None:
        self.service: Service = service
        self.pieces = 0
        """How many went out."""
        self._standin = standin
        self._socket = socket
        self._since = standin.clock.now()
        self._first: float | None = None
        self._how = ""
        self._told = False
        self._noted = False
        self.fault: Fault | None = standin.strike(service)
        """What goes wrong with it."""

    @property
    def skew_s(self) -> float:
        """What to add to every timestamp in the answer."""
        if self.fault and self.fault.kind == "clock-skew":
            self._note()
            return self.fault.seconds
        return 0.0

    async def begin(self) -> None:
        """Before anything is answered.

        Raises:
            Refused: answer with that.
            Cut: let it pass through.
        """
        standin, fault = self._standin, self.fault
        if standin.does.refuse and not self._socket:
            self._how = str(standin.does.refuse)
            raise Refused(standin.does.refuse, standin.does.says or "no")
        if fault is None:
            return
        if fault.kind in STATUSES:
            self._note()
            self._how = str(STATUSES[fault.kind])
            raise refused(fault)
        if fault.kind in GATE_KINDS:
            self._note()
            self._how = fault.kind
            await standin.shut(fault)
            raise Cut
        if fault.kind == "slow-first-byte":
            self._note()
            await standin.pause(fault.seconds)

    async def piece(self, data: Data, *, last: bool = False, spoilt: Data | None = None) -> Data:
        """`data` as it is to be sent, when it is. `last`: nothing comes after it; a fault that waited
        for a later piece strikes now. `spoilt`: what is sent instead of a piece that must not make
        sense; otherwise a JSON text that breaks off, or sound that ends within a sample.

        Raises:
            Cut: let it pass through.
        """
        fault = self.fault
        if not self._listening and self.pieces == self._standin.does.break_after:
            self._how = "cut"
            raise Cut
        if fault and fault.kind == "drip" and self.pieces:
            self._note()
            await self._standin.pause(fault.seconds)
        if fault and not self._noted and (last or self.pieces >= fault.pieces):
            if fault.kind == "cut":
                self._note()
                self._how = "cut"
                raise Cut
            if fault.kind == "silent":
                self._note()
                self._how = "silent"
                await self._silence()
            if fault.kind == "malformed":
                self._note()
                data = spoilt if spoilt is not None else _spoil(data)
        self.pieces += 1
        if self._first is None:
            self._first = self._standin.clock.now()
        return data

    def done(self, how: str = "answered") -> None:
        """It is over; the first word on how stays."""
        if self._told:
            return
        self._told = True
        now = self._standin.clock.now()
        first = f", first after {1000 * (self._first - self._since):.0f} ms" if self._first is not None else ""
        took = f"{self.pieces} pieces in {1000 * (now - self._since):.0f} ms{first}"
        self._standin.tell(f"{self.service}: {self._how or how}: {took}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.done("hung up" if kind and issubclass(kind, (asyncio.CancelledError, ConnectionError)) else "answered")

    @property
    def _listening(self) -> bool:
        return self.service.endswith("-stt") or self.service == "deepgram-flux"

    async def _silence(self) -> NoReturn:
        if self._socket:
            self._socket.muted = True
        await self._standin.clock.never()
        raise AssertionError

    def _note(self) -> None:
        if not self._noted and self.fault:
            self._noted = True
            self._standin.note(self.fault)


def _spoil(data: Data) -> Data:
    if isinstance(data, bytes):
        return data[: len(data) // 2 * 2 - 1]
    return data[: len(data) // 2]


class Socket:
    """A websocket of one of the vendor's clients.

        async with standin.socket(http, "cartesia-tts") as socket:
            async for message in socket:  # str or bytes, until the client closes
                ...
        return socket.response

    On entering, the handshake may be refused. On leaving, its tasks are cancelled.
    """

    def __init__(self, standin: StandIn, http: web.Request, service: Service) -> None:
        self.http = http
        self.response = web.WebSocketResponse(compress=False, timeout=_CLOSE_S, max_msg_size=0)
        self.muted = False
        """It stays open, and nothing leaves it any more."""
        self._standin = standin
        self._service: Service = service
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._standin.admit(self._service)
        await self.response.prepare(self.http)
        self._standin.sockets.add(self)
        self._standin.tell(f"{self._service}: websocket {self.http.path} opened")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._standin.sockets.discard(self)
        for task in self._tasks:
            task.cancel()
        if kind is not None and issubclass(kind, Cut):
            self.abort()
            return True
        return kind is not None and issubclass(kind, ConnectionError)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        async for message in self.response:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                yield message.data

    def request(self) -> Request:
        """Something is asked over it."""
        return Request(self._standin, self._service, self)

    async def send(self, **message: Any) -> None:
        """As JSON."""
        await self.send_raw(json.dumps(message))

    async def send_raw(self, data: str | bytes) -> None:
        if self.muted:
            await self._standin.clock.never()
        if isinstance(data, str):
            await self.response.send_str(data)
        else:
            await self.response.send_bytes(data)

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """A task that ends with the websocket. A `Cut` of it cuts the websocket."""
        task = self._standin.clock.spawn(self._guarded(work), name=name)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before it began
        self._tasks.append(task)
        return task

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.response.close(code=code, message=reason.encode()[:120])

    def abort(self) -> None:
        """As a network does."""
        if self.http.transport:
            self.http.transport.abort()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Cut:
            self.abort()
        except ConnectionError:
            pass  # the other side is gone
        except Exception as error:  # noqa: BLE001  shown when the server is closed
            self._standin.bugs.append(error)
            self.abort()
