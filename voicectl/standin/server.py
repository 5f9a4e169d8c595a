"""The server that stands in for the vendors: one port for HTTP and websockets, in a thread of its own.

    with StandIn() as vendor:
        OpenAiLlm(Options(base_url=vendor.url + "/v1"), ...)      # a websocket's base_url is vendor.url

A vendor's wire protocol is one file, named in `VENDORS`, with a function `routes(standin)` that gives
aiohttp routes. Its handlers run on the server's loop, and have from us

    standin.socket(http, service)   async with: a websocket, its handshake, its faults (`wire.Socket`)
    standin.request(service)        with: one request over HTTP and its faults (`wire.Request`);
                                    over a websocket it is `socket.request()`
    standin.ear(rate)               what a caller's audio says (`ears.Ear`)
    standin.voice(text, rate)       how a text sounds, 16-bit mono; `standin.pieces(pcm, rate)` cuts it
    standin.answer(messages)        what the agent says to a conversation (list of role and content)
    standin.calls(messages, tools)  which tools it calls instead
    await standin.delay("llm")      waits as long as was ordered (`delays.Wait`)
    standin.clock                   the clock of that loop
    standin.does, .seen, .got       what tests order, and look at afterwards

From any other thread: `fault`, `heal`, `shut`, `drop`, `url_for`, `close`, and reading.

Faults of a port (dns, refused, tls) need a port that only the one service uses: `url_for(service)`
opens it. `StandIn(named=True)` makes its address a name, `deepgram-stt.standin.test`, that only
`names.known(standin)` knows, in the process that asks. `StandIn(tls=True)` makes it https, with a
certificate that those trust who read `authority` (SSL_CERT_FILE=standin.authority).
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from weakref import WeakSet

from aiohttp import web

from voicectl.clock import Clock, run_on
from voicectl.errors import TransportError, UsageError
from voicectl.standin.answers import Answer, ToolCall, call_first, fixed_answer
from voicectl.standin.delays import Delays, Draw, Wait
from voicectl.standin.ears import RATE, Ear, MakeEar, SampleEar
from voicectl.standin.faults import GATE_KINDS, Fault, Faults, Service, Strike
from voicectl.standin.voices import Voice, silence
from voicectl.standin.wire import Cut, Refused, Request, Socket, refused

VENDORS = (
    "voicectl.standin.deepgram",
    "voicectl.standin.deepgram_speak",
    "voicectl.standin.openai",
    "voicectl.standin.openai_audio",
    "voicectl.standin.realtime",
    "voicectl.standin.cartesia",
    "voicectl.standin.cartesia_stt",
    "voicectl.standin.anthropic",
    "voicectl.standin.elevenlabs",
)
"""The vendors' files. Each has `routes(standin) -> list[RouteDef]`."""

HOST = "127.0.0.1"
ZONE = "standin.test"  # a name that is never anybody's
PIECE_S = 0.06
_READY_S = 10.0
_TURNS = 5  # of the loop, which opening or closing a connection takes at most


@dataclass
class Behaviour:
    """What it does; tests change it as they go. Each given delay (`Delays`) goes before."""

    refuse: int | None = None
    """Answer every request with this status ..."""
    says: str = ""
    """... and this message."""
    finalize_answers: bool = True
    finalize_s: float = 0.01
    """How long a transcript takes that was asked for."""
    endpointing_s: float | None = None
    """Silence after which a caller's turn counts as over. None: what the client asks for, or the vendor's own."""
    token_s: float = 0.01
    """From one piece of an LLM's answer, or of a voice's audio, to the next."""
    break_after: int | None = None
    """Drop the connection after so many pieces of an answer or of a voice's audio."""
    spoil: str = ""
    """What OpenAI sends instead of its second piece."""
    models: int = 200
    """What OpenAI answers when it is asked for its models."""


class StandIn:
    """`with StandIn() as vendor:` serves until the block ends.

    Args:
        ear: makes an ear for audio of a rate. Default: `SampleEar`.
        voice: how a text sounds. Default: silence, 60 ms a letter.
        answer: what it says to a conversation.
        delays: how long it takes; what is not given is as `does` says.
        port: of `url`; 0 takes any.
        named, tls: how `url_for` addresses look, see the file's contract.
        tell: is given a line about each request, in the server's thread.
    """

    def __init__(
        self,
        *,
        ear: MakeEar = SampleEar,
        voice: Voice = silence,
        answer: Answer = fixed_answer,
        delays: Mapping[Wait, Draw] | None = None,
        port: int = 0,
        named: bool = False,
        tls: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.does = Behaviour()
        self.seen: list[tuple[str, dict[str, str], str]] = []
        """Path, query and key of each websocket or request."""
        self.got: list[str] = []
        """What it was asked, and what became of it, in a word each."""
        self.struck: list[Strike] = []
        """The faults that struck, in order."""
        self.bugs: list[Exception] = []
        """What went wrong that should not have; raised at the end of a `with`."""
        self.sockets: set[Socket] = set()
        self.unknown: set[str] = set()
        """Names that are not known at present."""
        self._make_ear = ear
        self.voice = voice
        self.answer = answer
        self.delays = Delays(delays)
        self.url = ""
        self.authority: Path | None = None
        """The certificate to trust, with `tls`."""
        self.clock: Clock = cast("Clock", None)  # from `serve` on
        self._port = port
        self._named = named
        self._tls = _Certificates() if tls else None
        self._tell = tell
        self._faults = Faults()
        self._gates: dict[str, _Gate] = {}
        self._runner: web.AppRunner | None = None
        self._connections: WeakSet[asyncio.Transport] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    # From other threads --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.serve()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None and self.bugs:
            raise self.bugs[0]

    def serve(self) -> None:
        """From now on. Idempotent.

        Raises:
            TransportError: the port cannot be had, or it takes too long to begin.
        """
        if self._thread:
            return
        self._thread = threading.Thread(target=self._run, name="stand-in", daemon=True)
        self._thread.start()
        if not self._ready.wait(_READY_S):
            self.close()
            raise TransportError(f"the stand-in did not begin within {_READY_S:g} s", hint="Try again")
        if self._failure:
            failure, self._failure = self._failure, None
            self.close()
            raise failure

    def close(self) -> None:
        """Idempotent; cuts whoever is still connected."""
        thread, self._thread = self._thread, None
        if thread:
            if self._loop and self._stop:
                with suppress(RuntimeError):  # it has ended already
                    self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(_READY_S)

    def wait(self) -> None:
        """Until it is closed, or Ctrl-C.

        Raises:
            Exception: what it died of.
        """
        if self._thread:
            self._thread.join()
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def fault(self, fault: Fault) -> None:
        """Let this go wrong from now on; when it returns, it does.

        Raises:
            UsageError: the stand-in was not made for it.
        """
        if fault.kind == "dns" and not self._named:
            raise UsageError("a stand-in without names cannot lose one", hint="Make it with named=True")
        if fault.kind == "tls" and not self._tls:
            raise UsageError("a stand-in without TLS cannot fail at it", hint="Make it with tls=True")
        if fault.kind in GATE_KINDS and fault.service not in self._gates:
            raise UsageError(
                f"'{fault.kind}' needs a port that only {fault.service} uses", hint="Ask url_for(service) first"
            )
        if fault.kind in GATE_KINDS and fault.after == 0:
            self._on_loop(self._strike_gate(fault))
        else:
            self._faults.add(fault)

    def heal(self) -> None:
        """From now on nothing goes wrong any more; what is silent already stays so until it is closed."""
        self._faults.clear()
        self._on_loop(self._heal())

    def drop(self) -> None:
        """Cut every websocket, as a network does."""
        self._on_loop(self._drop())

    def url_for(self, service: Service) -> str:
        """The address of a port that only this service's clients use: faults of a port then leave the
        others alone. The same each time."""
        if service not in self._gates:
            self._on_loop(self._open_gate(service))
        gate = self._gates[service]
        host = f"{service}.{ZONE}" if self._named else HOST
        return f"{'https' if self._tls else 'http'}://{host}:{gate.port}"

    @property
    def open(self) -> int:
        """How many websockets are."""
        return len(self.sockets)

    # For vendors' files ----------------------------------------------------------------------------

    def socket(self, http: web.Request, service: Service) -> Socket:
        """A websocket, not yet accepted: `async with`."""
        return Socket(self, http, service)

    def request(self, service: Service) -> Request:
        """Something is asked over HTTP: `with`."""
        return Request(self, service, None)

    def check(self, service: Service) -> None:
        """Somebody asks for what is beside the service (a list of models): refused like it, no request.

        Raises:
            Refused: a status is due.
        """
        if self.does.refuse:
            raise Refused(self.does.refuse, self.does.says or "no")
        if fault := self._faults.at_door(service, take=False):
            raise refused(fault)

    async def admit(self, service: Service) -> None:
        """Somebody asks for a websocket.

        Raises:
            Refused: a status is due.
        """
        if self.does.refuse:
            raise Refused(self.does.refuse, self.does.says or "no")
        if fault := self._faults.at_door(service, take=True):
            self.note(fault)
            raise refused(fault)

    def ear(self, rate: int = RATE) -> Ear:
        """What a caller's audio of this rate says."""
        return self._make_ear(rate)

    async def delay(self, wait: Wait) -> None:
        """Take as long as was ordered."""
        seconds = self.delays.draw(wait)
        if seconds is None:
            seconds = self.does.finalize_s if wait == "stt" else self.does.token_s
        await self.pause(seconds)

    async def pause(self, seconds: float) -> None:
        await self.clock.sleep_until(self.clock.now() + seconds)

    def pieces(self, pcm: bytes, rate: int) -> Iterator[bytes]:
        """Sound in pieces of 60 ms."""
        size = 2 * round(PIECE_S * rate)
        for start in range(0, len(pcm), size):
            yield pcm[start : start + size]

    def calls(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
        """The tools that it calls before it answers."""
        return call_first(messages, tools)

    def strike(self, service: Service) -> Fault | None:
        """A request begins."""
        return self._faults.strike(service)

    def note(self, fault: Fault) -> None:
        """It struck."""
        self.struck.append(Strike(self.clock.now(), fault.service, fault.kind))

    def tell(self, line: str) -> None:
        """Something to be read by whoever watches the server."""
        if self._tell:
            self._tell(line)

    async def shut(self, fault: Fault) -> None:
        """A fault of a port strikes because its request came."""
        await self._strike_gate(fault, noted=True)

    # The server ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            run_on("wall", self._main)
        except BaseException as error:  # noqa: BLE001  told by `serve`
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self, clock: Clock) -> None:
        self.clock, self._loop, self._stop = clock, asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._around], client_max_size=64 << 20)
        for name in VENDORS:
            app.add_routes(importlib.import_module(name).routes(self))
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.0, access_log=None)
        await self._runner.setup()
        try:
            main = self._gates[""] = _Gate(self._runner, self._port, None, self._settle)
            await main.open()
            self.url = f"http://{HOST}:{main.port}"
            self._ready.set()
            await self._stop.wait()
        finally:
            for gate in self._gates.values():
                await gate.shut()
            self._abort(None)
            await self._settle()
            await self._runner.cleanup()

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Of every request: what was asked and with which key, and how it ends where it goes wrong."""
        http = request
        websocket = http.headers.get("Upgrade", "").lower() == "websocket"
        if not websocket and http.transport and http.transport not in self._connections:
            self._connections.add(http.transport)
            self.got.append("connected")
        key = http.headers.get("Authorization") or next(
            (http.headers[name] for name in _KEYS if name in http.headers), ""
        )
        self.seen.append((http.path, dict(http.query), "".join(key.split()[-1:])))
        try:
            return await handler(http)
        except Refused as no:
            self.tell(f"{http.method} {http.path}: {no.status}")
            return no.response()
        except Cut:
            return _aborted(http)
        except web.HTTPException as other:
            self.tell(f"{http.method} {http.path}: {other.status}")
            raise
        except ConnectionError:
            self._hung_up(websocket)
            return _aborted(http)
        except asyncio.CancelledError:
            self._hung_up(websocket)
            raise
        except Exception as error:
            self.bugs.append(error)
            self.tell(f"{http.method} {http.path}: the stand-in failed: {type(error).__name__}: {error}")
            raise

    def _hung_up(self, websocket: bool) -> None:
        if not websocket:
            self.got.append("hung up")

    async def _drop(self) -> None:
        for one in list(self.sockets):
            one.abort()

    # Ports -----------------------------------------------------------------------------------------

    async def _open_gate(self, service: Service) -> None:
        assert self._runner
        context = None
        if self._tls:
            context = self._tls.context(service)
            self.authority = self._tls.authority
        gate = self._gates[service] = _Gate(self._runner, 0, context, self._settle)
        await gate.open()

    async def _strike_gate(self, fault: Fault, *, noted: bool = False) -> None:
        gate = self._gates[fault.service]
        if fault.kind == "refused":
            await gate.shut()
        elif fault.kind == "dns":
            self.unknown.add(f"{fault.service}.{ZONE}")
        elif self._tls and gate.context:
            self._tls.spoil(gate.context, fault.service)
        self._abort(gate)
        if not noted:
            self.note(fault)
        if fault.times is not None:
            self.clock.spawn(self._well_again(fault), name=f"stand-in {fault.kind}")

    async def _well_again(self, fault: Fault) -> None:
        await self.pause(fault.seconds)
        await self._mend(fault.service)

    async def _heal(self) -> None:
        for service in self._gates:
            if service:
                await self._mend(cast("Service", service))

    async def _mend(self, service: Service) -> None:
        gate = self._gates[service]
        self.unknown.discard(f"{service}.{ZONE}")
        if self._tls and gate.context:
            self._tls.mend(gate.context, service)
        await gate.open()

    async def _settle(self) -> None:
        """Let whoever is just coming in come in, or whoever is thrown out go."""
        for _ in range(_TURNS):
            await self.clock.sleep_until(0.0)

    def _abort(self, gate: _Gate | None) -> None:
        """Cut the connections of one port, or all."""
        server = self._runner.server if self._runner else None
        for connection in list(server.connections) if server else []:
            transport = connection.transport
            if transport and (gate is None or transport.get_extra_info("sockname")[1] == gate.port):
                transport.abort()

    def _on_loop(self, work: Any) -> None:
        """Do it in the server's thread, and wait for it."""
        if self._loop is None or self._thread is None:
            work.close()
            raise UsageError("the stand-in does not serve yet")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_READY_S)


_KEYS = ("Authorization", "X-API-Key", "xi-api-key", "api-key")


def _aborted(http: web.Request) -> web.Response:
    """The connection is gone at once; what is returned goes nowhere."""
    if http.transport:
        http.transport.abort()
    return web.Response()


class _Gate:
    """A port, which can be closed and opened again."""

    def __init__(
        self,
        runner: web.AppRunner,
        port: int,
        context: ssl.SSLContext | None,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self.port = port
        self.context = context
        self._runner = runner
        self._settle = settle
        self._door: socket.socket | None = None
        self._site: web.SockSite | None = None

    async def open(self) -> None:
        if self._site:
            return
        door = socket.socket()
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((HOST, self.port))
        except OSError as error:
            door.close()
            why = (error.strerror or str(error)).lower()
            where = f"{HOST}:{self.port}"
            raise TransportError(f"the port cannot be had: {why}", where=where, hint="Name another: --port") from error
        self.port = door.getsockname()[1]
        self._door = door
        self._site = web.SockSite(self._runner, door, ssl_context=self.context)
        await self._site.start()

    async def shut(self) -> None:
        site, self._site = self._site, None
        if site and self._door:
            # The loop loses a connection that it is letting in while the port is closed.
            with suppress(NotImplementedError):
                asyncio.get_running_loop().remove_reader(self._door)
            await self._settle()
            await site.stop()


class _Certificates:
    """An authority of our own, and another that nobody trusts."""

    def __init__(self) -> None:
        import trustme

        self._good, self._bad = trustme.CA(), trustme.CA()
        self._folder = tempfile.TemporaryDirectory(prefix="voicectl-standin-")
        self.authority = Path(self._folder.name) / "authority.pem"
        self._good.cert_pem.write_to_path(self.authority)

    def context(self, service: Service) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.mend(context, service)
        return context

    def mend(self, context: ssl.SSLContext, service: Service) -> None:
        _use(self._good, context, service)

    def spoil(self, context: ssl.SSLContext, service: Service) -> None:
        _use(self._bad, context, service)


def _use(authority: Any, context: ssl.SSLContext, service: Service) -> None:
    authority.issue_cert(HOST, f"{service}.{ZONE}").configure_cert(context)
