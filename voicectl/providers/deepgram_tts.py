"""Deepgram's Aura voices through its own SDK (speak v1).

What lives here: websockets that are open before they are needed, one clause at a time on each, since
the protocol has no name for what it is speaking: audio is that of the text sent before, `Flushed`
is its end. Clauses spoken at once have a websocket each. Dropping one sends `Clear`, and its
websocket is used again when Deepgram says `Cleared`: what comes before that is nobody's. What must
not: clauses, resampling, how much to speak ahead.

Deepgram takes 20 flushes a minute over a websocket. One that has had so many rests, and another is
opened: a lively call says more clauses than that.

Messages are read raw from the SDK's websocket, where audio is binary. The SDK reads the key from
DEEPGRAM_API_KEY. The voice is the model's name.
"""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import SAMPLE_WIDTH
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
from voicectl.pipeline.protocols import Progress, TtsRequest

MODELS = None

_MODEL = "aura-2-thalia-en"
_WHERE = "tts:deepgram"
_KEEP_S = 4.0  # how often the pool is looked after
_IDLE_S = 60.0  # a websocket more than the wanted ones goes when it was not needed for so long
_CLEAR_S = 1.0  # a websocket that is not clear by then is given up
_CLOSE_S = 1.0
_GOODBYE_S = 0.2  # how long the other side may take to say goodbye; the SDK's websocket waits some four times that
_FLUSHES, _FLUSHES_S = 20, 60.0  # so many flushes in so long, over one websocket


class Options(BaseModel):
    """How Aura speaks, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.deepgram.com", description="Where Deepgram, or a server that speaks as it, is.")
    speed: float | None = Field(None, ge=0.7, le=1.5, description="Speaking rate; 1 is the voice's own.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next audio, ms.")
    connections: int = Field(
        2, ge=1, le=100, description="Websockets kept open. As many more are opened as clauses are spoken at once."
    )


class DeepgramTts:
    """One pool of websockets for all calls. Audio is s16le mono at `rate`."""

    name = "deepgram"
    rate = 24_000

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model or _MODEL
        self._clock = clock
        self._api_key = api_key
        self._key = ""  # as the SDK found it
        self._client: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Line] = set()
        self._idle: list[_Line] = []

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
        self._mind(self._clock.spawn(self._keep(), name="deepgram voice keeper"))

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream the clause; closing the generator clears what is left of it.

        Raises:
            ProviderError: whatever went wrong, in one line.
        """
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        if not re.search(r"\w", request.text):
            return  # nothing to say, for which there would be no audio and perhaps no end
        stale = True  # for all we know: a websocket that was idle may turn out to be closed
        while True:
            line = self._borrow() if stale else self._connect()
            was_open = line.ready.is_set()
            try:
                await line.say(request.text)
                while pcm := await line.next(self._options.timeout_ms / 1000):
                    stale = False
                    yield pcm
                return
            except ProviderError as error:
                if not (stale and was_open and line.error) or error.kind != "unreachable":
                    raise
                stale = False
            finally:
                await self._give_back(line)

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
        return self._client.speak.v1.connect(
            model=self._model,
            encoding="linear16",
            sample_rate=str(self.rate),
            speed=self._options.speed,
        )

    # The pool ----------------------------------------------------------------------------------

    def _connect(self) -> _Line:
        if self._client is None:
            raise ProviderError("was closed", where=_WHERE, kind="refused")
        line = _Line(self._socket, self._explain, self._clock, self._lost, self._cleared)
        self._open.add(line)
        self._mind(line.task)
        return line

    def _refill(self) -> None:
        while len(self._open) < self._options.connections:
            self._idle.append(self._connect())

    def _borrow(self) -> _Line:
        """The websocket that was used last, of those that are open and may be flushed now."""
        fit = [line for line in reversed(self._idle) if not line.tired]
        line = next((line for line in fit if line.ready.is_set()), fit[0] if fit else None)
        if line is None:
            return self._connect()
        self._idle.remove(line)
        return line

    async def _give_back(self, line: _Line) -> None:
        if line.over:
            self._cleared(line)
        else:
            await line.clear()

    def _cleared(self, line: _Line) -> None:
        """Nothing more comes over it that anybody has asked for before."""
        if line in self._open and line not in self._idle and self._client:
            line.since = self._clock.now()
            self._idle.append(line)

    def _lost(self, line: _Line) -> None:
        self._open.discard(line)
        if line in self._idle:
            self._idle.remove(line)

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + _KEEP_S)
            for line in list(self._open):
                idle_s = self._clock.now() - line.since
                spare = line in self._idle and idle_s > _IDLE_S and len(self._open) > self._options.connections
                if spare or (line.clearing and idle_s > _CLEAR_S):
                    self._lost(line)
                    line.task.cancel()
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
            what, hint = f"{place} answers {status} to a websocket", "Look at model and the other options"
        elif isinstance(error, _ServerError):
            what, hint = f"{place} says: {masked(str(error), self._key)}", None
        elif code := getattr(getattr(error, "rcvd", None), "code", None):
            what, hint = f"{place} closed the websocket ({code})", None
        elif isinstance(error, OSError):
            why = (error.strerror or str(error) or "no answer").lower()
            what, hint = f"cannot reach {place}: {why}", "Look at the network and base_url"
        else:
            what, hint = f"the websocket to {place} was dropped ({type(error).__name__})", None
        return ProviderError(what, where=_WHERE, hint=hint, kind=_kind(error), retry_after_s=_retry_after_s(error))


class _Line:
    """One websocket. `error` tells that, and why, it is of no more use."""

    def __init__(
        self,
        socket: Callable[[], AbstractAsyncContextManager[Any]],
        explain: Callable[[BaseException], ProviderError],
        clock: Clock,
        lost: Callable[[_Line], None],
        cleared: Callable[[_Line], None],
    ) -> None:
        self._open_socket = socket
        self._explain = explain
        self._clock = clock
        self._lost = lost
        self._cleared = cleared
        self._socket: Any = None
        self._pieces: deque[bytes | ProviderError] = deque()  # at most a clause
        self._arrived = asyncio.Event()
        self._flushed: deque[float] = deque(maxlen=_FLUSHES)  # when
        self.over = True  # no clause is being spoken
        self.clearing = False
        self.since = clock.now()  # idle, or clearing
        self.ready = asyncio.Event()  # or failed
        self.error: ProviderError | None = None
        self.task = clock.spawn(self._run(), name="deepgram voice websocket")

    @property
    def tired(self) -> bool:
        """One flush more would be one too many."""
        full = len(self._flushed) == _FLUSHES
        return full and self._clock.now() - self._flushed[0] < _FLUSHES_S

    async def say(self, text: str) -> None:
        from deepgram.speak.v1.types import SpeakV1Text

        await self.ready.wait()
        if self.error:
            raise self.error
        self._pieces.clear()
        self._arrived.clear()
        self.over = False
        self._flushed.append(self._clock.now())
        await self._send(lambda: self._socket.send_text(SpeakV1Text(text=text, type="Speak")))
        await self._send(lambda: self._socket.send_flush())

    async def next(self, timeout: float) -> bytes:
        """The next audio of the clause; b"" after the last."""
        if not self._pieces:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                said = f"deepgram sends nothing for {timeout:g} s"
                raise ProviderError(said, where=_WHERE, kind="timeout") from None
        piece = self._pieces.popleft()
        if isinstance(piece, ProviderError):
            raise piece
        return piece

    async def clear(self) -> None:
        """Drop the clause that is being spoken."""
        if self.error or not self._socket:
            self.over = True
            return
        self.clearing, self.since = True, self._clock.now()
        try:
            await self._send(lambda: self._socket.send_clear())
        except ProviderError:
            pass  # then nothing is being spoken

    async def _send(self, send: Callable[[], Any]) -> None:
        import websockets

        try:
            await send()
        except (OSError, websockets.WebSocketException) as error:
            self.error = self.error or self._explain(error)
            raise self.error from None

    def _put(self, piece: bytes | ProviderError) -> None:
        if not self.over and not self.clearing:
            self._pieces.append(piece)
            self._arrived.set()

    async def _run(self) -> None:
        import websockets
        from deepgram.core.api_error import ApiError

        try:
            async with self._open_socket() as socket:
                self._socket = socket
                socket._websocket.close_timeout = _GOODBYE_S
                self.ready.set()
                try:
                    await self._read(socket._websocket)
                finally:
                    self._lost(self)  # before the goodbyes, which can take a while
        except (ApiError, OSError, websockets.WebSocketException, _ServerError) as error:
            self.error = self.error or self._explain(error)
        except (ValueError, LookupError, TypeError):
            self.error = ProviderError("says what is not its protocol", where=_WHERE, kind="protocol")
        except VoicectlError as error:
            self.error = ProviderError(error.message, where=_WHERE, hint=error.hint, kind="refused")
        finally:
            self.error = self.error or ProviderError("the websocket was closed", where=_WHERE, kind="unreachable")
            self._lost(self)
            self.ready.set()
            self._put(self.error)

    async def _read(self, messages: Any) -> None:
        async for message in messages:
            if isinstance(message, str):
                self._take(json.loads(message))
            elif len(message) % SAMPLE_WIDTH:
                raise ValueError("sound that ends within a sample")
            elif message:
                self._put(message)

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "Flushed":
                self._put(b"")
                self.over = True
            case "Cleared" if self.clearing:
                self.clearing, self.over = False, True
                self._cleared(self)
            case "Error":
                raise _ServerError(message)
            case "Warning" if "flush" in str(message).lower() or "limit" in str(message).lower():
                limited = self._explain(_ServerError(message))
                limited.kind = "rate_limited"
                self._put(limited)
            case _:
                pass


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


def _import_sdk() -> None:
    with warnings.catch_warnings():  # it uses what `websockets` calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        import deepgram.speak.v1.client  # noqa: F401
