"""Cartesia's Ink through its own SDK, asked for its text (`manual_finalize`) or ending turns itself
(`auto_finalize`, with the option `turns`).

What lives here: websockets that are open before they are needed, what goes over them, and what the
answers mean for one turn of the caller. What must not: when a turn ends (endpointing decides; Ink
only says what it thinks, as `Transcript.turn_end`).

A websocket outlives the turns of our caller, and nothing that comes over it is dated.

- Asked: a flush sends `finalize`, and every `finalize` is answered by a `flush_done`, in order. So a
  turn knows how many of them belong to the turn before, and drops what comes until then.
- With `turns`: Ink cannot be asked. A flush is answered at once where Ink has just called the end,
  else with its next `turn.eager_end` or `turn.end`, or with what is known after `_SETTLE_S`. A
  websocket left in the middle of one of Ink's turns is not used again.

Messages are read as the SDK's raw ones (`recv_bytes`): of each we need two values. The key comes from
CARTESIA_API_KEY.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import (
    FailureKind,
    ProviderError,
    VoicectlError,
    kind_of_socket,
    kind_of_status,
    masked,
    retry_after,
)
from voicectl.pipeline.protocols import Progress, SttStream, Transcript, TurnEnd

MODELS = None

_MODEL = "ink-2"
_WHERE = "stt:cartesia"
_KEY = "CARTESIA_API_KEY"
_KEEP_S = 4.0  # how often the pool is looked after
_IDLE_S = 60.0  # a websocket more than the wanted ones goes when it was not needed for so long
_ANSWER_S = 1.0  # after this a flush is answered with what is known
_SETTLE_S = 0.3  # so long after a flush, what Ink says without being asked covers it
_CLOSE_S = 1.0
_DEAF_S = 2.0  # of so much audio something is said; else the websocket is open, and dead

_TURN_ENDS: dict[str, TurnEnd] = {"turn.eager_end": "likely", "turn.resume": "resumed", "turn.end": "over"}


class Options(BaseModel):
    """How Ink listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.cartesia.ai", description="Where Cartesia, or a server that speaks as it, is.")
    turns: bool = Field(
        False, description="Ink says when a turn is over, for `strategy: provider`. Without, it is asked at each pause."
    )
    language: str = Field("en", description="Language of the caller (without `turns`; ink-2 knows only en).")
    keyterms: tuple[str, ...] = Field((), description="Words and names to expect.")
    end_threshold: float | None = Field(
        None, ge=0.05, le=0.5, description="Likelihood of a turn going on, below which Ink ends it (`turns`)."
    )
    eager_end_threshold: float | None = Field(
        None, ge=0.3, le=0.6, description="The same below which it calls the end likely (`turns`)."
    )
    end_timeout_ms: int | None = Field(
        None, ge=640, le=11_200, description="Silence after which Ink ends any turn, ms (`turns`)."
    )
    connections: int = Field(
        1, ge=1, le=100, description="Websockets kept open. As many more are opened as callers speak at once."
    )


class CartesiaStt:
    """One pool of websockets for all calls."""

    name = "cartesia"

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model or _MODEL
        self._clock = clock
        self._api_key = api_key
        self._client: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []

    async def start(self, progress: Progress) -> None:
        """Open the first websockets.

        Raises:
            ProviderError: no key, or Cartesia cannot be reached or does not accept us.
        """
        if self._client:
            return
        sdk = await self._clock.run(_import_sdk)
        url = urlsplit(self._options.base_url.rstrip("/"))
        secure = url.scheme in ("https", "wss")
        key = self._api_key or os.environ.get(_KEY)  # noqa: TID251 - no part of a spec, and not read by this SDK
        if not key:
            raise ProviderError("has no key", where=_WHERE, hint=f"Set {_KEY}", kind="refused")
        self._client = sdk.AsyncCartesia(
            api_key=key,
            base_url=url._replace(scheme="https" if secure else "http").geturl(),
            websocket_base_url=url._replace(scheme="wss" if secure else "ws").geturl(),
        )
        progress(f"connecting to cartesia {self._model}")
        self._refill()
        first = self._idle[0]
        await first.ready.wait()
        if first.error:
            await self.aclose()
            raise first.error
        self._mind(self._clock.spawn(self._keep(), name="cartesia ears keeper"))

    def open(self, start: float) -> SttStream:
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        connection = next((one for one in reversed(self._idle) if one.ready.is_set()), None)
        if connection:
            self._idle.remove(connection)
        else:  # none is open yet
            connection = self._idle.pop() if self._idle else self._connect()
        kind = _OwnTurn if self._options.turns else _AskedTurn
        return kind(connection, self._clock, self._take_back)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        self._idle.clear()
        self._open.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        if client:
            await client.close()

    def _mind(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _socket(self) -> AbstractAsyncContextManager[Any]:
        """A new websocket, as the SDK opens it."""
        options = self._options
        chosen: dict[str, Any] = {"keyterm": list(options.keyterms) or None}
        if options.turns:
            stt = self._client.stt.auto_finalize
            chosen["turn_end_threshold"] = options.end_threshold
            chosen["turn_eager_end_threshold"] = options.eager_end_threshold
            chosen["turn_end_timeout_ms"] = options.end_timeout_ms
        else:
            stt = self._client.stt.manual_finalize
            chosen["language"] = options.language
        return stt.websocket(
            model=self._model,
            encoding="pcm_s16le",
            sample_rate=PIPELINE_RATE,
            websocket_connection_options={"compression": None, "close_timeout": _CLOSE_S},
            **{name: value for name, value in chosen.items() if value is not None},
        )

    # The pool ----------------------------------------------------------------------------------

    def _connect(self) -> _Connection:
        connection = _Connection(self._socket, self._explain, self._clock, self._lost)
        self._open.add(connection)
        self._mind(connection.task)
        return connection

    def _refill(self) -> None:
        while len(self._open) < self._options.connections:
            self._idle.append(self._connect())

    def _take_back(self, connection: _Connection, *, clean: bool) -> None:
        """A turn is over. `clean`: what comes over its websocket from now on can be told from the next."""
        connection.turn = None
        if not clean:
            self._lost(connection)
            connection.task.cancel()
            if self._client:
                self._refill()
        elif connection in self._open and self._client:
            connection.idle_since = self._clock.now()
            self._idle.append(connection)

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + _KEEP_S)
            for connection in list(self._idle):
                old = connection.idle_since < self._clock.now() - _IDLE_S
                if old and len(self._open) > self._options.connections:
                    self._lost(connection)
                    connection.task.cancel()
            self._refill()

    def _explain(self, error: BaseException) -> ProviderError:
        """The one line for what the SDK or its websocket raises."""
        place = urlsplit(self._options.base_url).netloc.rpartition("@")[2]
        key = self._client.api_key if self._client else self._api_key or ""
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = None
        if status:
            what = f"{place} answers {status} to a websocket"
            hint = f"Look at {_KEY}" if status in (401, 403) else None
        elif isinstance(error, _ServerError):
            what = f"{place} says: {masked(str(error), key)}"
            hint = f"Look at {_KEY}" if error.status in (401, 403) else None
        elif code := getattr(getattr(error, "rcvd", None), "code", None):
            what = f"{place} closed the websocket ({code})"
        elif isinstance(error, OSError):
            what = f"cannot reach {place}: {(error.strerror or str(error) or 'no answer').lower()}"
            hint = "Look at the network and base_url"
        else:
            what = f"the websocket to {place} was dropped ({type(error).__name__})"
        return ProviderError(what, where=_WHERE, hint=hint, kind=_kind(error), retry_after_s=_retry_after_s(error))


class _ServerError(Exception):
    """What Cartesia says went wrong, in its own words."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(": ".join(filter(None, (message.get("title"), message.get("message")))) or "no reason given")
        self.status: int = message.get("status_code") or 0


def _kind(error: BaseException) -> FailureKind:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", 0)
    if status:
        return kind_of_status(status)
    if isinstance(error, _ServerError):
        return "failed"
    return kind_of_socket(error)


def _retry_after_s(error: BaseException) -> float | None:
    """From the answer to the handshake."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    return retry_after(headers.get("Retry-After"))


class _Connection:
    """One websocket. What is sent before it is open waits for that."""

    def __init__(
        self,
        socket: Callable[[], AbstractAsyncContextManager[Any]],
        explain: Callable[[BaseException], ProviderError],
        clock: Clock,
        lost: Callable[[_Connection], None],
    ) -> None:
        self._socket = socket
        self._explain = explain
        self._clock = clock
        self._lost = lost
        self._outbox: deque[bytes | Literal["finalize"]] = deque()  # as long as the network is behind
        self._something = asyncio.Event()  # to send, or the websocket is gone
        self._gone = False
        self.turn: _Turn | None = None
        self.ready = asyncio.Event()  # or failed
        self.error: ProviderError | None = None
        self.sent_s = 0.0  # seconds of audio
        self.owed = 0  # how many `finalize` have not been answered
        self.idle_since = clock.now()
        self.task = clock.spawn(self._run(), name="cartesia ears websocket")

    def send(self, item: bytes | Literal["finalize"]) -> None:
        """Never blocks: the one writer sends in order."""
        if isinstance(item, bytes):
            self.sent_s += len(item) / SAMPLE_WIDTH / PIPELINE_RATE
        else:
            self.owed += 1
        self._outbox.append(item)
        self._something.set()

    async def _run(self) -> None:
        import websockets

        try:
            async with self._socket() as socket:
                self.ready.set()
                reader = self._clock.spawn(self._read(socket), name="cartesia ears reader")
                try:
                    await self._write(socket)
                finally:
                    reader.cancel()
                    await asyncio.wait([reader])
                reader.result()
        except (OSError, websockets.WebSocketException, _ServerError) as error:
            self.error = self._explain(error)
        except (ValueError, AttributeError, LookupError, TypeError):
            self.error = ProviderError("says what is not its protocol", where=_WHERE, kind="protocol")
        except VoicectlError as error:
            self.error = ProviderError(error.message, where=_WHERE, hint=error.hint, kind="refused")
        finally:
            self.error = self.error or ProviderError("the websocket was closed", where=_WHERE, kind="unreachable")
            self._lost(self)
            self.ready.set()
            if self.turn:
                self.turn.fail(self.error)

    async def _write(self, socket: Any) -> None:
        while True:
            while self._outbox:
                item = self._outbox.popleft()
                if isinstance(item, bytes):
                    await socket.send_raw(item)
                else:
                    await socket.send(item)
            if self._gone:
                return
            self._something.clear()
            await self._something.wait()

    async def _read(self, socket: Any) -> None:
        try:
            while True:
                message: dict[str, Any] = json.loads(await socket.recv_bytes())
                kind: str = message["type"]
                if kind == "error":
                    raise _ServerError(message)
                if kind == "flush_done":
                    self.owed -= 1
                if self.turn:
                    self.turn.take(kind, message)
        finally:
            self._lost(self)  # before the goodbyes, which can take a while
            self._gone = True
            self._something.set()


class _Turn:
    """The speech of one caller turn, as both protocols have it."""

    _settle_s = _ANSWER_S

    def __init__(self, connection: _Connection, clock: Clock, take_back: Callable[..., None]) -> None:
        self._connection = connection
        self._clock = clock
        self._take_back = take_back
        self._text = ""  # what is final
        self._last = ""  # what is not
        self._told = ""
        self._asked: int = 0
        self._answered: int = 0
        self._from = connection.sent_s  # where this turn's audio begins
        self._given_up = 0  # the last flush that was answered without a word from Ink
        self._heard = False  # something came of this turn
        self._waiting: list[asyncio.Task[None]] = []
        self._inbox: deque[Transcript | ProviderError] = deque()  # a few a second
        self._arrived = asyncio.Event()
        self._closed = False
        connection.turn = self
        if connection.ready.is_set() and connection.error:
            self.fail(connection.error)

    def push(self, pcm: bytes) -> None:
        if pcm and not self._closed:
            self._connection.send(pcm)

    def flush(self) -> None:
        if self._closed:
            return
        self._asked += 1
        self._ask()
        if self._answered < self._asked:
            waiting = self._clock.spawn(self._wait_for(self._asked), name="cartesia answer")
            self._waiting.append(waiting)
            waiting.add_done_callback(self._waiting.remove)

    def take(self, kind: str, message: dict[str, Any]) -> None:
        """What came over the websocket."""
        raise NotImplementedError

    def fail(self, error: ProviderError) -> None:
        self._inbox.append(error)
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while not self._closed:
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            item = self._inbox.popleft()
            if isinstance(item, ProviderError):
                raise item
            yield item

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._arrived.set()
            for waiting in self._waiting:
                waiting.cancel()
            self._end()

    def _ask(self) -> None:
        """See to it that the last flush is answered."""
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _whole(self) -> str:
        """The text of the turn so far."""
        return self._text + self._last

    async def _wait_for(self, flush: int) -> None:
        await self._connection.ready.wait()
        await self._clock.sleep_until(self._clock.now() + self._settle_s)
        if self._answered < flush:
            self._given_up = flush
            self._give_up(flush)

    def _give_up(self, flush: int) -> None:
        """It was not answered."""
        self._say(flush)

    def _say(self, flush: int = 0, turn_end: TurnEnd | None = None) -> None:
        text = self._whole().strip()
        self._answered = max(self._answered, flush)
        if flush or turn_end or text != self._told:
            self._told = text
            self._inbox.append(Transcript(text, flush, turn_end))
            self._arrived.set()


class _AskedTurn(_Turn):
    """Pieces of text, each interim at first and final at last, to be put together as they are."""

    def __init__(self, connection: _Connection, clock: Clock, take_back: Callable[..., None]) -> None:
        self._foreign = connection.owed  # answers to come that belong to the turn before
        self._done = 0
        super().__init__(connection, clock, take_back)

    def take(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "flush_done":
            if self._foreign:
                self._foreign -= 1
                return
            self._done += 1
            self._heard = True
            if self._done > self._answered:
                self._say(self._done)
        elif kind == "transcript" and not self._foreign:
            self._heard = True
            text: str = message["text"]
            if message["is_final"]:
                self._text, self._last = self._text + text, ""
            else:
                self._last = text
            self._say()

    def _ask(self) -> None:
        self._connection.send("finalize")

    def _give_up(self, flush: int) -> None:
        sent_s = self._connection.sent_s - self._from
        if self._heard or sent_s < _DEAF_S:
            self._say(flush)
        else:
            said = f"cartesia says nothing to {sent_s:.1f} s of audio"
            self.fail(ProviderError(said, where=_WHERE, kind="timeout"))

    def _end(self) -> None:
        if self._connection.sent_s > self._from:
            self._connection.send("finalize")  # so that no piece of text reaches into the next turn
        self._take_back(self._connection, clean=self._done >= self._given_up)


class _OwnTurn(_Turn):
    """The whole text of one of Ink's turns each time, and what Ink thinks of its end."""

    _settle_s = _SETTLE_S

    def __init__(self, connection: _Connection, clock: Clock, take_back: Callable[..., None]) -> None:
        self._open = False  # Ink hears a turn that it has not ended
        self._ended_s: float | None = None  # how much audio was sent when it last called the end, if it holds
        super().__init__(connection, clock, take_back)

    def take(self, kind: str, message: dict[str, Any]) -> None:
        if not kind.startswith("turn."):
            return
        self._heard = True
        turn_end = _TURN_ENDS.get(kind)
        self._last = message.get("transcript", self._last)
        self._open = turn_end != "over"
        self._ended_s = self._connection.sent_s if turn_end in ("likely", "over") else None
        if turn_end == "over":
            self._text, self._last = self._whole(), ""
        flush = self._asked if self._ended_s is not None and self._asked > self._answered else 0
        self._say(flush, turn_end)

    def _ask(self) -> None:
        if self._ended_s is not None and self._connection.sent_s - self._ended_s <= _SETTLE_S:
            self._say(self._asked)

    def _end(self) -> None:
        self._take_back(self._connection, clean=not self._open and (self._heard or not self._given_up))

    def _whole(self) -> str:
        """Ink's turns are put together as they are, but for words that would become one."""
        one, other = self._text, self._last
        between = " " if one and other and not one[-1].isspace() and other[0].isalnum() else ""
        return f"{one}{between}{other}"


def _import_sdk() -> Any:
    importlib.import_module("cartesia.resources.stt.auto_finalize")
    importlib.import_module("cartesia.resources.stt.manual_finalize")
    return importlib.import_module("cartesia")
