"""Cartesia's voices through its own SDK.

What lives here: one websocket for all calls, on which each clause is a context of its own: its end
is the context's `done`, and dropping it is the context's `cancel`. (One context a reply would let
the melody run on from clause to clause, but within it only a forced flush tells where a clause's
audio ends.) What must not: clauses, resampling, how much to speak ahead.

Audio comes as JSON with base64. It is read as the SDK's raw messages (`recv_bytes`) and sorted by
context here, since its own contexts make a validated model of each chunk; and without compression,
which would be most of the work.

The key comes from CARTESIA_API_KEY.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import itertools
import json
import os
import re
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

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

_MODEL = "sonic-3"
_WHERE = "tts:cartesia"
_KEY = "CARTESIA_API_KEY"
_STEADY_S = 1.0  # a websocket that was open for so long is opened again when it is dropped


class Options(BaseModel):
    """Which voice, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.cartesia.ai", description="Where Cartesia, or a server that speaks as it, is.")
    voice: str = Field("9626c31c-bec5-4cca-baa8-f8ba9e84c8bc", description="The voice's id.")
    language: str = Field("en", description="Language of the text.")
    speed: float | None = Field(None, ge=0.6, le=1.5, description="Speaking rate; 1 is the voice's own.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next audio, ms.")


class CartesiaTts:
    """Any number of clauses at once."""

    name = "cartesia"
    rate = 24_000

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model or _MODEL
        self._clock = clock
        self._api_key = api_key
        self._client: Any = None
        self._line: _Line | None = None
        self._names = itertools.count(1)

    async def start(self, progress: Progress) -> None:
        """Open the websocket.

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
        try:
            await self._connected()
        except ProviderError:
            await self.aclose()
            raise

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream the clause; closing the generator cancels its context.

        Raises:
            ProviderError: whatever went wrong, in one line.
        """
        if not re.search(r"\w", request.text):
            return  # nothing to say, which Cartesia would call an error
        timeout = self._options.timeout_ms / 1000
        stale = True  # for all we know: a websocket that was idle may turn out to be closed
        while True:
            was_open = self._line is not None and self._line.ready.is_set()
            line = await self._connected()
            context = line.open(f"{request.reply}-{request.index}-{next(self._names)}")
            try:
                await line.send(self._request(context.name, request.text))
                while pcm := await context.next(timeout):
                    stale = False
                    yield pcm
                return
            except ProviderError as error:
                if error.kind == "timeout" and self._clock.now() - line.heard_at > 0.9 * timeout:
                    line.give_up(error)  # of the others on it, too, nothing is heard any more
                elif stale and was_open and error is line.error:
                    stale = False
                    continue
                raise
            finally:
                await line.close(context)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        line, self._line = self._line, None
        if line:
            await line.aclose()
        if client:
            await client.close()

    def _request(self, context: str, text: str) -> dict[str, Any]:
        options = self._options
        request: dict[str, Any] = {
            "context_id": context,
            "model_id": self._model,
            "transcript": text,
            "voice": {"mode": "id", "id": options.voice},
            "language": options.language,
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": self.rate},
            "continue": False,
        }
        if options.speed is not None:
            request["generation_config"] = {"speed": options.speed}
        return request

    async def _connected(self) -> _Line:
        """The websocket, opened anew where it was dropped."""
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        line = self._line
        if line is None or line.error:
            line = self._line = _Line(self._client, self._place, self._clock, self._dropped)
        await line.ready.wait()
        if line.error:
            raise line.error
        return line

    def _dropped(self, line: _Line) -> None:
        """Between two calls a websocket may be closed; the next clause should not wait for a new one."""
        steady = self._clock.now() - line.since >= _STEADY_S
        if self._client and line is self._line and steady:
            self._line = _Line(self._client, self._place, self._clock, self._dropped)

    @property
    def _place(self) -> str:
        return urlsplit(self._options.base_url).netloc.rpartition("@")[2]


class _Context:
    """One clause on its way: `next` gives its audio."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False
        self._pieces: deque[bytes | ProviderError] = deque()  # at most a clause
        self._arrived = asyncio.Event()

    def put(self, piece: bytes | ProviderError) -> None:
        """b"" after the last."""
        self._pieces.append(piece)
        self.over = self.over or not piece or isinstance(piece, ProviderError)
        self._arrived.set()

    async def next(self, timeout: float) -> bytes:
        if not self._pieces:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                said = f"cartesia sends nothing for {timeout:g} s"
                raise ProviderError(said, where=_WHERE, kind="timeout") from None
        piece = self._pieces.popleft()
        if isinstance(piece, ProviderError):
            raise piece
        return piece


class _Line:
    """One websocket, from its opening to its end. `error` tells that, and why, it is of no more use."""

    def __init__(self, client: Any, place: str, clock: Clock, dropped: Any) -> None:
        self._client = client
        self._place = place
        self._dropped = dropped
        self._contexts: dict[str, _Context] = {}
        self._socket: Any = None
        self._clock = clock
        self.since = self.heard_at = clock.now()
        self.ready = asyncio.Event()  # or failed
        self.error: ProviderError | None = None
        self._task = clock.spawn(self._run(), name="cartesia websocket")

    def open(self, name: str) -> _Context:
        self._contexts[name] = context = _Context(name)
        return context

    async def send(self, message: dict[str, Any]) -> None:
        import websockets

        try:
            await self._socket.send(message)
        except (OSError, websockets.WebSocketException) as error:
            self.error = self.error or self._explain(error)
            raise self.error from None

    def give_up(self, error: ProviderError) -> None:
        """It is open, and dead."""
        self.error = self.error or error
        self._task.cancel()

    async def close(self, context: _Context) -> None:
        """Drop the context; what is still being made of it is cancelled."""
        del self._contexts[context.name]
        if not context.over and not self.error:
            try:
                await self.send({"context_id": context.name, "cancel": True})
            except ProviderError:
                pass  # then nothing is being made

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        import websockets

        options = {"compression": None, "close_timeout": 1}
        try:
            async with self._client.tts.websocket_connect(websocket_connection_options=options) as socket:
                self._socket = socket
                self.ready.set()
                while True:
                    message = await socket.recv_bytes()
                    self.heard_at = self._clock.now()
                    self._take(json.loads(message))
        except (OSError, websockets.WebSocketException) as error:
            self.error = self.error or self._explain(error)
        except (ValueError, AttributeError, TypeError):
            self.error = ProviderError(f"{self._place} sends what is not its protocol", where=_WHERE, kind="protocol")
        except VoicectlError as error:
            self.error = ProviderError(error.message, where=_WHERE, hint=error.hint, kind="refused")
        finally:
            self.error = self.error or ProviderError("was closed", where=_WHERE, kind="unreachable")
            self.ready.set()
            for context in self._contexts.values():
                context.put(self.error)
            self._dropped(self)

    def _take(self, message: dict[str, Any]) -> None:
        context = self._contexts.get(message.get("context_id") or "")
        match message.get("type"):
            case "chunk" if context and (pcm := base64.b64decode(message.get("data") or "")):
                context.put(pcm)
            case "done" if context:
                context.put(b"")
            case "error":
                said = self._hide(": ".join(filter(None, (message.get("title"), message.get("message")))))
                kind = _kind_of_status(message.get("status_code"))
                error = ProviderError(f"{self._place} says: {said or 'no reason given'}", where=_WHERE, kind=kind)
                for one in [context] if context else self._contexts.values():
                    one.put(error)
            case _:
                pass

    def _explain(self, error: BaseException) -> ProviderError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = None
        if status:
            what = f"{self._place} answers {status} to a websocket"
            hint = f"Look at {_KEY}" if status in (401, 403) else None
        elif isinstance(error, OSError):
            what = f"cannot reach {self._place}: {(error.strerror or str(error) or 'no answer').lower()}"
            hint = "Look at the network and base_url"
        else:
            what = f"the websocket to {self._place} was dropped: {self._hide(str(error))}"
        kind, wait = _kind(error), _retry_after_s(error)
        return ProviderError(what, where=_WHERE, hint=hint, kind=kind, retry_after_s=wait)

    def _hide(self, said: str) -> str:
        """Without the key, which some servers repeat."""
        return masked(said, self._client.api_key)


def _kind(error: BaseException) -> FailureKind:
    if status := getattr(getattr(error, "response", None), "status_code", None):
        return _kind_of_status(status)
    return kind_of_socket(error)


def _kind_of_status(status: int | None) -> FailureKind:
    if not status:
        return "failed"
    return kind_of_status(status)


def _retry_after_s(error: BaseException) -> float | None:
    """From the answer to the handshake."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    return retry_after(headers.get("Retry-After"))


def _import_sdk() -> Any:
    return importlib.import_module("cartesia.resources.tts") and importlib.import_module("cartesia")
