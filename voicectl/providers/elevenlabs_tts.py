"""ElevenLabs' voices through its own SDK.

What lives here: one client whose connections all calls share and which stay open between clauses;
each clause is a request of its own whose audio is streamed. (The SDK speaks the websocket API only
in threads.) What must not: clauses, resampling, how much to speak ahead.

Dropping a clause closes its connection, as HTTP knows no other way to say "enough". The next one is
opened at once, so that the reply that follows an interruption does not wait for it.

The key comes from ELEVENLABS_API_KEY, and is handed over: the SDK reads it when it is imported.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.clock import Clock
from voicectl.errors import FailureKind, MissingExtra, ProviderError, kind_of_status, masked, retry_after
from voicectl.pipeline.protocols import Progress, TtsRequest

MODELS = None

_MODEL = "eleven_flash_v2_5"
_WHERE = "tts:elevenlabs"
_KEY = "ELEVENLABS_API_KEY"
_KEEP_OPEN_S = 55.0  # servers close an idle connection after a minute or more
_PIECE = 1024  # bytes, 20 ms: the SDK hands on no less


class Options(BaseModel):
    """Which voice, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        "https://api.elevenlabs.io", description="Where ElevenLabs, or a server that speaks as it, is."
    )
    voice: str = Field("JBFqnCBsd6RMkjVDRZzb", description="The voice's id.")
    language: str | None = Field(None, description="Language of the text (en), for models that want to be told.")
    speed: float | None = Field(None, ge=0.7, le=1.2, description="Speaking rate; 1 is the voice's own.")
    rate: Literal[16_000, 22_050, 24_000, 44_100] = Field(24_000, description="Samples per second; 44100 costs more.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next audio, ms.")


class ElevenLabsTts:
    """Any number of clauses at once."""

    name = "elevenlabs"

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self.rate: int = options.rate
        self._options = options
        self._model = model or _MODEL
        self._clock = clock
        self._api_key = api_key
        self._settings: Any = None
        self._http: Any = None
        self._client: Any = None
        self._opening: asyncio.Task[None] | None = None

    async def start(self, progress: Progress) -> None:
        """Open a connection.

        Raises:
            MissingExtra: elevenlabs is not installed.
            ProviderError: no key, or ElevenLabs cannot be reached or does not accept us.
        """
        if self._client:
            return
        key = self._api_key or os.environ.get(_KEY)  # noqa: TID251 - no part of a spec
        if not key:
            raise ProviderError("has no key", where=_WHERE, hint=f"Set {_KEY}", kind="refused")
        sdk = await self._clock.run(_import_sdk)
        progress(f"connecting to elevenlabs {self._model}")
        self._api_key = key
        speed = self._options.speed
        self._settings = (
            None if speed is None else importlib.import_module("elevenlabs.types").VoiceSettings(speed=speed)
        )
        wait = self._options.timeout_ms / 1000
        self._http = _http(wait)
        self._client = sdk.AsyncElevenLabs(
            api_key=key, base_url=self._options.base_url.rstrip("/"), timeout=wait, httpx_client=self._http
        )
        try:
            await self._connect()
        except ProviderError:
            await self.aclose()
            raise

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream the clause; closing the generator closes the connection it came over.

        Raises:
            ProviderError: whatever went wrong, in one line.
        """
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        if not re.search(r"\w", request.text):
            return  # nothing to say
        try:
            with self._translated():
                speak = self._client.text_to_speech.with_raw_response.stream
                async with speak(self._options.voice, **self._body(request.text)) as response:
                    self._look_at(response.headers.get("content-type", ""))
                    rest = b""
                    async for piece in response.data:
                        piece = rest + piece
                        whole = len(piece) & ~1
                        rest = piece[whole:]
                        if whole:
                            yield piece[:whole]
                    if rest:
                        said = f"{self._place} sends sound that ends within a sample"
                        raise ProviderError(said, where=_WHERE, kind="protocol")
        except (asyncio.CancelledError, GeneratorExit):
            self._open_another()
            raise

    async def aclose(self) -> None:
        http, self._http, self._client = self._http, None, None
        opening, self._opening = self._opening, None
        if opening:
            opening.cancel()
            await asyncio.wait([opening])
        if http:
            await http.aclose()

    @property
    def _place(self) -> str:
        return urlsplit(self._options.base_url).netloc.rpartition("@")[2] or "the server"

    def _body(self, text: str) -> dict[str, Any]:
        options = self._options
        chosen = {"language_code": options.language, "voice_settings": self._settings}
        return {
            "text": text,
            "model_id": self._model,
            "output_format": f"pcm_{self.rate}",
            "request_options": {"max_retries": 0, "chunk_size": _PIECE},
            **{name: value for name, value in chosen.items() if value is not None},
        }

    def _look_at(self, content_type: str) -> None:
        """What is no audio would be heard as noise."""
        if content_type.startswith(("text/", "application/json")):
            said = f"{self._place} sends {content_type.partition(';')[0]} for audio"
            raise ProviderError(said, where=_WHERE, kind="protocol")

    def _open_another(self) -> None:
        if self._client and (self._opening is None or self._opening.done()):
            self._opening = self._clock.spawn(self._try_to_connect(), name="elevenlabs connection")

    async def _try_to_connect(self) -> None:
        try:
            await self._connect()
        except ProviderError:
            pass  # then the next clause will tell

    async def _connect(self) -> None:
        """Any answer but a refusal of the key will do: the connection is open."""
        core = importlib.import_module("elevenlabs.core")
        parsing = importlib.import_module("elevenlabs.core.parse_error")
        with self._translated():
            try:
                await self._client.models.list(request_options={"max_retries": 0})
            except core.ApiError as error:
                # A key may be for speech alone.
                if error.status_code == 401 and "missing_permissions" not in str(error.body):
                    raise
            except parsing.ParsingError:
                pass  # no such list here

    @contextmanager
    def _translated(self) -> Generator[None]:
        import httpx

        core = importlib.import_module("elevenlabs.core")
        try:
            yield
        except core.ApiError as error:
            headers: dict[str, str] = error.headers or {}
            problem = self._error(error.status_code or 0, _said(error.body), retry_after(headers.get("retry-after")))
        except httpx.TimeoutException:
            waited = f"{self._place} sends nothing for {self._options.timeout_ms} ms"
            problem = ProviderError(waited, where=_WHERE, kind="timeout")
        except httpx.HTTPError as error:
            why = self._hide(str(error)).lower().rstrip(".") or type(error).__name__
            # Of a connection that was only cut, it says that it is closed.
            nonsense = isinstance(error, httpx.RemoteProtocolError) and not re.search("closed|disconnected", why)
            kind: FailureKind = "protocol" if nonsense else "unreachable"
            problem = ProviderError(f"{self._place}: the connection failed: {why}", where=_WHERE, kind=kind)
        except httpx.InvalidURL as error:
            said = f"cannot use {self._options.base_url}: {str(error).lower()}"
            problem = ProviderError(said, where=_WHERE, kind="refused")
        else:
            return
        raise problem from None  # the SDK's own may show the key

    def _error(self, status: int, said: str, retry_after_s: float | None) -> ProviderError:
        hints = {401: f"Look at {_KEY}", 404: "Look at model and voice", 429: "Try fewer calls at once"}
        return ProviderError(
            f"{self._place} says {status}: {self._hide(said) or 'no reason given'}",
            where=_WHERE,
            hint=hints.get(status),
            kind=kind_of_status(status),
            retry_after_s=retry_after_s,
        )

    def _hide(self, said: str) -> str:
        """Without the key, which some servers repeat."""
        return masked(said, self._api_key)


def _said(body: Any) -> str:
    """The message of an error: `{"detail": {"status", "message"}}`, or a line of text."""
    detail: Any = cast("dict[str, Any]", body).get("detail", "") if isinstance(body, dict) else body
    said: Any = cast("dict[str, Any]", detail).get("message") if isinstance(detail, dict) else detail
    return str(said or "")


def _import_sdk() -> Any:
    try:
        sdk = importlib.import_module("elevenlabs.client")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("elevenlabs"):
            raise
        raise MissingExtra("elevenlabs", "cloud", where=_WHERE) from error
    for part in ("types.voice_settings", "text_to_speech.client", "models.client"):  # else loaded in the first call
        importlib.import_module(f"elevenlabs.{part}")
    return sdk


def _http(wait: float) -> Any:
    import httpx

    # The default forgets a connection after 5 s, which is shorter than a turn.
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=_KEEP_OPEN_S)
    return httpx.AsyncClient(limits=limits, timeout=wait)
