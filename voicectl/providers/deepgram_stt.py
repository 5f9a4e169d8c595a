"""Deepgram through its own SDK: Nova (listen v1) and Flux (listen v2, models named `flux-*`).

What lives here: websockets that are open before they are needed, what goes over them, and what the
answers mean for one turn of the caller. What must not: when a turn ends (endpointing decides; Flux
and Nova only say what they think, as `Transcript.turn_end`).

A websocket outlives the turns: it is open and idle when the caller begins to speak, carries the
audio of that turn, and waits for the next one. Deepgram dates every answer in seconds of the audio
it got over that websocket. By this a turn knows which answers are its own, and which flush one
covers: the message that answers a `Finalize` is not promised to come.

Nova is asked (`Finalize`) at each flush. Flux is not: every quarter of a second of audio it says what
it has heard so far, and the first such message that covers a flush answers it. A websocket left in
the middle of a Flux turn is not used again.

Messages are read raw from the SDK's websocket: of each we need a handful of values, and the SDK's
models of them, word by word, cost ten times the rest.

The SDK reads the key from DEEPGRAM_API_KEY.
"""

from __future__ import annotations

import asyncio
import json
import warnings
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

_MODEL = "nova-3"
_WHERE = "stt:deepgram"
_KEEP_ALIVE_S = 4.0  # Deepgram closes a websocket that was silent for 10 s
_IDLE_S = 60.0  # a websocket more than the wanted ones goes when it was not needed for so long
_ANSWER_S = 1.0  # after this a flush is answered with what is known
_CLOSE_S = 1.0
_GOODBYE_S = 0.2  # how long the other side may take to say goodbye; the SDK's websocket waits some four times that
_DEAF_S = 2.0  # of so much audio something is said; else the websocket is open, and dead
_SLACK_S = 0.05  # an answer that ends so shortly before the flush covers it: a pause came first

_ROUND_S = 0.01
_UPDATE_S = 0.25  # Flux says something for so much audio; where it has called the end, nothing was said since

_TURN_ENDS: dict[str, TurnEnd] = {"EagerEndOfTurn": "likely", "TurnResumed": "resumed", "EndOfTurn": "over"}

_Message = Literal["Finalize", "KeepAlive"]


class Options(BaseModel):
    """How Deepgram listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.deepgram.com", description="Where Deepgram, or a server that speaks as it, is.")
    language: str = Field("en", description="Language of the caller (Nova; Flux hears it from the model's name).")
    keyterms: tuple[str, ...] = Field((), description="Words and names to expect.")
    smart_format: bool = Field(False, description="Write numbers, dates and the like for reading (Nova).")
    endpointing_ms: int = Field(
        300, ge=10, le=5000, description="Silence after which Nova says that the turn is over, ms."
    )
    eot_threshold: float = Field(0.7, ge=0.5, le=0.9, description="Confidence at which Flux ends a turn.")
    eager_eot_threshold: float | None = Field(
        0.5, ge=0.3, le=0.9, description="Confidence at which Flux calls the end of a turn likely."
    )
    eot_timeout_ms: int = Field(5000, ge=500, le=10_000, description="Silence after which Flux ends any turn, ms.")
    connections: int = Field(
        1, ge=1, le=100, description="Websockets kept open. As many more are opened as callers speak at once."
    )


class DeepgramStt:
    """One pool of websockets for all calls."""

    name = "deepgram"

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model or _MODEL
        self._flux = self._model.startswith("flux")
        self._clock = clock
        self._api_key = api_key
        self._key = ""  # as the SDK found it
        self._client: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []

    async def start(self, progress: Progress) -> None:
        """Open the first websockets.

        Raises:
            ProviderError: no key, or Deepgram cannot be reached or does not accept us.
        """
        if self._client:
            return
        await self._clock.run(_import_sdk)
        self._client = self._make_client()
        progress(f"connecting to deepgram {self._model}")
        self._refill()
        first = self._idle[0]
        await first.ready.wait()
        if first.error:
            await self.aclose()
            raise first.error
        self._mind(self._clock.spawn(self._keep(), name="deepgram keeper"))

    def open(self, start: float) -> SttStream:
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        connection = next((one for one in reversed(self._idle) if one.ready.is_set()), None)
        if connection:
            self._idle.remove(connection)
        else:  # none is open yet
            connection = self._idle.pop() if self._idle else self._connect()
        kind = _FluxTurn if self._flux else _NovaTurn
        return kind(connection, self._clock, self._take_back)

    async def aclose(self) -> None:
        self._client = None
        self._idle.clear()
        self._open.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)

    def _mind(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_client(self) -> Any:
        from deepgram import AsyncDeepgramClient
        from deepgram.core.api_error import ApiError
        from deepgram.environment import DeepgramClientEnvironment

        url = urlsplit(self._options.base_url.rstrip("/"))
        secure = url.scheme in ("https", "wss")
        http = url._replace(scheme="https" if secure else "http").geturl()
        ws = url._replace(scheme="wss" if secure else "ws").geturl()
        place = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
        key = {"api_key": self._api_key} if self._api_key else {}
        try:
            client: Any = AsyncDeepgramClient(environment=place, reconnect=False, **key)
        except ApiError:
            raise ProviderError("has no key", where=_WHERE, hint="Set DEEPGRAM_API_KEY", kind="refused") from None
        self._key = client._client_wrapper.get_headers()["Authorization"].split()[-1]
        return client

    def _socket(self) -> AbstractAsyncContextManager[Any]:
        """A new websocket, as the SDK opens it."""
        options = self._options
        sound: dict[str, Any] = {
            "model": self._model,
            "encoding": "linear16",
            "sample_rate": str(PIPELINE_RATE),
            "keyterm": list(options.keyterms) or None,
        }
        if self._flux:
            eager = options.eager_eot_threshold
            return self._client.listen.v2.connect(
                **sound,
                eot_threshold=str(options.eot_threshold),
                eager_eot_threshold=None if eager is None else str(eager),
                eot_timeout_ms=str(options.eot_timeout_ms),
            )
        return self._client.listen.v1.connect(
            **sound,
            channels="1",
            language=options.language,
            interim_results="true",
            punctuate="true",
            smart_format=str(options.smart_format).lower(),
            endpointing=str(options.endpointing_ms),
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
        """A turn is over. `clean`: what comes over its websocket from now on belongs to the next."""
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
            await self._clock.sleep_until(self._clock.now() + _KEEP_ALIVE_S)
            for connection in list(self._idle):
                old = connection.idle_since < self._clock.now() - _IDLE_S
                if old and len(self._open) > self._options.connections:
                    self._lost(connection)
                    connection.task.cancel()
                elif not self._flux:
                    connection.send("KeepAlive")
            self._refill()

    def _explain(self, error: BaseException) -> ProviderError:
        """The one line for what the SDK raises. Its own text is not for people: it shows the key."""
        place = urlsplit(self._options.base_url).netloc.rpartition("@")[2]
        status: int | None = getattr(error, "status_code", None)
        if status in (401, 403):
            what, hint = f"{place} refuses the key ({status})", "Look at DEEPGRAM_API_KEY"
        elif status == 429:
            what, hint = f"{place} has too many requests from us (429)", "Try fewer calls at once"
        elif status:
            what, hint = f"{place} answers {status} to a websocket", "Look at model, language and the other options"
        elif code := getattr(getattr(error, "rcvd", None), "code", None):
            what, hint = f"{place} closed the websocket ({code})", None
        elif isinstance(error, _ServerError):
            what, hint = f"{place} says: {masked(str(error), self._key)}", None
        elif isinstance(error, OSError):
            why = (error.strerror or str(error) or "no answer").lower()
            what, hint = f"cannot reach {place}: {why}", "Look at the network and base_url"
        else:
            what, hint = f"the websocket to {place} was dropped ({type(error).__name__})", None
        return ProviderError(what, where=_WHERE, hint=hint, kind=_kind(error), retry_after_s=_retry_after_s(error))


class _ServerError(Exception):
    """What Deepgram says went wrong, in its own words."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(str(message.get("description") or "no reason given"))
        self.code = str(message.get("code") or message.get("variant"))


def _kind(error: BaseException) -> FailureKind:
    status: int | None = getattr(error, "status_code", None)
    if isinstance(error, _ServerError):
        if not error.code.isdecimal():
            return "server" if "INTERNAL" in error.code else "failed"
        status = int(error.code)
    if status:
        return kind_of_status(status)
    return kind_of_socket(error)


def _retry_after_s(error: BaseException) -> float | None:
    """From the answer to the handshake, which the SDK's own error was raised from and does not keep."""
    answer = getattr(error, "__context__", None)
    headers: Any = getattr(answer, "headers", None) or getattr(getattr(answer, "response", None), "headers", None) or {}
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
        self._outbox: deque[bytes | _Message] = deque()  # as long as the network is behind
        self._something = asyncio.Event()  # to send, or the websocket is gone
        self._gone = False
        self.turn: _Turn | None = None
        self.ready = asyncio.Event()  # or failed
        self.error: ProviderError | None = None
        self.sent_s = 0.0  # seconds of audio, which is how Deepgram dates what it says
        self.idle_since = clock.now()
        self.task = clock.spawn(self._run(), name="deepgram websocket")

    def send(self, item: bytes | _Message) -> None:
        """Never blocks: the one writer sends in order."""
        if isinstance(item, bytes):
            self.sent_s += len(item) / SAMPLE_WIDTH / PIPELINE_RATE
        self._outbox.append(item)
        self._something.set()

    async def _run(self) -> None:
        import websockets
        from deepgram.core.api_error import ApiError

        try:
            async with self._socket() as socket:
                socket._websocket.close_timeout = _GOODBYE_S
                self.ready.set()
                reader = self._clock.spawn(self._read(socket), name="deepgram reader")
                try:
                    await self._write(socket)
                finally:
                    reader.cancel()
                    await asyncio.wait([reader])
                reader.result()
        except (ApiError, OSError, websockets.WebSocketException, _ServerError) as error:
            self.error = self._explain(error)
        except (ValueError, LookupError, TypeError):
            self.error = ProviderError("says what is not its protocol", where=_WHERE, kind="protocol")
        except VoicectlError as error:
            self.error = ProviderError(error.message, where=_WHERE, hint=error.hint, kind="refused")
        finally:
            self._lost(self)
            self.ready.set()
            if self.turn:
                closed = ProviderError("the websocket was closed", where=_WHERE, kind="unreachable")
                self.turn.fail(self.error or closed)

    async def _write(self, socket: Any) -> None:
        while True:
            while self._outbox:
                item = self._outbox.popleft()
                if item == "Finalize":
                    await socket.send_finalize()
                elif item == "KeepAlive":
                    await socket.send_keep_alive()
                else:
                    await socket.send_media(item)
            if self._gone:
                return
            self._something.clear()
            await self._something.wait()

    async def _read(self, socket: Any) -> None:
        try:
            async for text in socket._websocket:
                message: dict[str, Any] = json.loads(text)
                if message["type"] == "Error":
                    raise _ServerError(message)
                if self.turn:
                    self.turn.take(message)
        finally:
            self._lost(self)  # before the goodbyes, which can take a while
            self._gone = True
            self._something.set()


class _Turn:
    """The speech of one caller turn, as both protocols have it."""

    def __init__(self, connection: _Connection, clock: Clock, take_back: Callable[..., None]) -> None:
        self._connection = connection
        self._clock = clock
        self._take_back = take_back
        self._from = connection.sent_s  # where this turn's audio begins
        self._pieces: list[str] = []  # what is final
        self._last = ""  # what is not
        self._told = ""
        self._asked: list[float] = []  # how far the audio went at each flush
        self._answered: int = 0
        self._waiting: list[asyncio.Task[None]] = []
        self._inbox: deque[Transcript | ProviderError] = deque()  # a few a second
        self._arrived = asyncio.Event()
        self._closed = False
        self._deaf = False
        self._heard = False  # something came of this turn
        connection.turn = self
        if connection.ready.is_set() and connection.error:
            self.fail(connection.error)

    def push(self, pcm: bytes) -> None:
        if pcm and not self._closed:
            self._connection.send(pcm)

    def flush(self) -> None:
        if self._closed:
            return
        self._asked.append(self._connection.sent_s)
        self._ask()
        if self._answered < len(self._asked):
            waiting = self._clock.spawn(self._wait_for(len(self._asked)), name="deepgram answer")
            self._waiting.append(waiting)
            waiting.add_done_callback(self._waiting.remove)

    def take(self, message: dict[str, Any]) -> None:
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

    def _covered(self, until: float) -> int:
        """How many flushes an answer covers that has heard the audio up to `until`."""
        return sum(asked <= until + _SLACK_S for asked in self._asked)

    def _due(self, covered: int) -> int:
        """The number of the last flush, if it has become answerable; else 0."""
        flush = min(covered, len(self._asked))
        if flush <= self._answered:
            return 0
        self._answered = flush
        return flush

    async def _wait_for(self, flush: int) -> None:
        """An answer need not come where there is little to say."""
        await self._connection.ready.wait()
        await self._clock.sleep_until(self._clock.now() + _ANSWER_S)
        if not self._heard:
            self._deaf = True
            if (sent_s := self._connection.sent_s - self._from) >= _DEAF_S:
                said = f"deepgram says nothing to {sent_s:.1f} s of audio"
                self.fail(ProviderError(said, where=_WHERE, kind="timeout"))
                return
        if due := self._due(flush):
            self._say(due)

    def _say(self, flush: int = 0, turn_end: TurnEnd | None = None) -> None:
        text = " ".join(filter(None, (*self._pieces, self._last)))
        if flush or turn_end or text != self._told:
            self._told = text
            self._inbox.append(Transcript(text, flush, turn_end))
            self._arrived.set()


class _NovaTurn(_Turn):
    """Listen v1: pieces of text, each interim at first and final at last."""

    _finalized = 0

    def _ask(self) -> None:
        self._connection.send("Finalize")

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] != "Results":
            return
        until = min(message["start"] + message["duration"], self._connection.sent_s)
        if until <= self._from + _ROUND_S:
            return  # of the turn before
        self._heard = True
        heard: list[dict[str, Any]] = message["channel"]["alternatives"]
        text: str = heard[0]["transcript"] if heard else ""
        if not message["is_final"]:
            self._last = text
            self._say()
            return
        self._last = ""
        if text:
            self._pieces.append(text)
        if message.get("from_finalize"):
            self._finalized += 1
        # The n-th answer to a Finalize is for the n-th flush or a later one.
        flush = self._due(max(self._finalized, self._covered(until)))
        self._say(flush, "over" if message.get("speech_final") and self._pieces else None)

    def _end(self) -> None:
        self._connection.send("Finalize")  # so that no piece of text reaches into the next turn
        self._take_back(self._connection, clean=not self._deaf)


class _FluxTurn(_Turn):
    """Listen v2: the whole text of a turn each time, and what Flux thinks of its end."""

    _open = False  # Flux hears a turn that it has not ended
    _until = 0.0  # how much of the audio it has heard

    def _ask(self) -> None:
        if due := self._due(self._covered(max(self._until, self._from))):
            self._say(due)

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] != "TurnInfo":
            return
        until = min(message["audio_window_end"], self._connection.sent_s)
        if until <= self._from + _ROUND_S:
            return  # of the turn before
        self._heard = True
        turn_end = _TURN_ENDS.get(message["event"])
        self._last = message["transcript"]
        if turn_end == "over":
            self._pieces.append(self._last)
            self._last = ""
            self._open = False
        elif self._last or message["event"] != "Update":  # it also says that it has heard nothing
            self._open = True
        self._until = until + (_UPDATE_S if turn_end in ("likely", "over") else 0.0)
        self._say(self._due(self._covered(self._until)), turn_end)

    def _end(self) -> None:
        self._take_back(self._connection, clean=not self._open and not self._deaf)


def _import_sdk() -> None:
    with warnings.catch_warnings():  # it uses what `websockets` calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        import deepgram.listen.v1.client
        import deepgram.listen.v2.client  # noqa: F401
