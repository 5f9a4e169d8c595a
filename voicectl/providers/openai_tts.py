"""OpenAI's voices, or those of any server that speaks as it, through OpenAI's own SDK.

What lives here: one client whose connections all calls share and which stay open between clauses,
one request a clause, its audio as it arrives (`audio.speech.with_streaming_response`, raw PCM). A
clause that is dropped takes its connection with it. What must not: clauses, resampling, retries.

Nobody announces a clause, so a connection is kept warm all the time: where none has been used for a
while, the list of models is asked for, which costs nothing.

The SDK reads the key from OPENAI_API_KEY. No model is the default: those there are have dates on
which they are shut down (`voicectl check` knows them).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import FailureKind, ProviderError, kind_of_status, masked, retry_after
from voicectl.pipeline.protocols import Progress, TtsRequest

MODELS = None

_WHERE = "tts:openai"
_KEEP_OPEN_S = 55.0  # servers close an idle connection after a minute or more
_OTHER = ("application/json", "text/", "audio/mpeg", "audio/wav", "audio/x-wav", "audio/ogg", "audio/flac", "audio/aac")
"""What would be noise if it were played; servers that cannot make PCM send it all the same."""
_PIECE = 4800  # bytes, 100 ms: a server that sends all at once is not handed on as one


class Options(BaseModel):
    """Which voice, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.openai.com/v1", description="Where OpenAI, or a server that speaks as it, is.")
    voice: str = Field("marin", description="The voice's name.")
    instructions: str | None = Field(None, description="How to speak: tone, pace, accent (not every model listens).")
    speed: float | None = Field(None, ge=0.25, le=4, description="Speaking rate; 1 is the voice's own.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next audio, ms.")


class OpenAiTts:
    """Any number of clauses at once. Audio is s16le mono at `rate`."""

    name = "openai"
    rate = 24_000

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model
        self._clock = clock
        self._api_key = api_key
        self._client: Any = None
        self._used = 0.0  # when a connection last was
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, progress: Progress) -> None:
        """Open a connection.

        Raises:
            ProviderError: no model, no key, or the server cannot be reached or does not accept us.
        """
        if self._client:
            return
        if not self._model:
            raise ProviderError("needs the name of a model", where=_WHERE, hint="Add `model:`", kind="refused")
        openai = await self._clock.run(_import_sdk)
        progress(f"connecting to {self._place}")
        options = self._options
        wait = openai.Timeout(options.timeout_ms / 1000)
        limits = _limits()
        try:
            self._client = openai.AsyncOpenAI(
                api_key=self._api_key,
                base_url=options.base_url,
                max_retries=0,
                timeout=wait,
                http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=wait),
            )
        except openai.OpenAIError:
            raise ProviderError("has no key", where=_WHERE, hint="Set OPENAI_API_KEY", kind="refused") from None
        try:
            await self._connect()
        except ProviderError:
            await self.aclose()
            raise
        self._keeper = self._clock.spawn(self._keep(), name="openai voice keeper")

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream the clause; closing the generator closes the connection it comes over.

        Raises:
            ProviderError: whatever went wrong, in one line.
        """
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        if not re.search(r"\w", request.text):
            return  # nothing to say
        rest = b""
        with self._translated():
            create = self._client.audio.speech.with_streaming_response.create
            async with create(**self._body(request.text)) as response:
                if (form := response.headers.get("content-type", "")).startswith(_OTHER):
                    said = f"{self._place} sends {form.partition(';')[0]} where pcm was asked for"
                    raise ProviderError(said, where=_WHERE, hint="Look at model and base_url", kind="protocol")
                async for piece in response.iter_bytes():
                    rest += piece
                    for start in range(0, len(rest) - SAMPLE_WIDTH + 1, _PIECE):
                        yield rest[start : min(start + _PIECE, len(rest) // SAMPLE_WIDTH * SAMPLE_WIDTH)]
                    rest = rest[len(rest) // SAMPLE_WIDTH * SAMPLE_WIDTH :]
            self._used = self._clock.now()
            if rest:
                raise ValueError("sound that ends within a sample")

    async def aclose(self) -> None:
        keeper, self._keeper = self._keeper, None
        client, self._client = self._client, None
        if keeper:
            keeper.cancel()
            await asyncio.wait([keeper])
        if client:
            await client.close()

    @property
    def _place(self) -> str:
        return urlsplit(self._options.base_url).netloc.rpartition("@")[2] or "the server"

    def _body(self, text: str) -> dict[str, Any]:
        options = self._options
        chosen = {"instructions": options.instructions, "speed": options.speed}
        return {
            "model": self._model,
            "voice": options.voice,
            "input": text,
            "response_format": "pcm",  # 24 kHz, s16le, mono
            **{name: value for name, value in chosen.items() if value is not None},
        }

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep_until(self._used + _KEEP_OPEN_S)
            if self._clock.now() - self._used >= _KEEP_OPEN_S:
                try:
                    await self._connect()
                except ProviderError:
                    self._used = self._clock.now()  # who asks for a clause will hear of it

    async def _connect(self) -> None:
        """Any answer but a refusal will do: the connection is open."""
        import openai

        with self._translated():
            try:
                async with self._client.models.with_streaming_response.list() as response:
                    await response.read()
            except openai.AuthenticationError:
                raise
            except openai.APIStatusError:
                pass  # no such list here, or not for this key
        self._used = self._clock.now()

    @contextmanager
    def _translated(self) -> Generator[None]:
        import httpx2
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            problem = self._error(
                error.status_code, _said(error.body) or error.message, kind_of_status(error.status_code)
            )
            problem.retry_after_s = retry_after(error.response.headers.get("retry-after"))
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            if isinstance(error, (openai.APITimeoutError, httpx2.TimeoutException)):
                waited = f"does not answer within {self._options.timeout_ms} ms"
                problem = ProviderError(f"{self._place} {waited}", where=_WHERE, kind="timeout")
            else:
                why = str(error.__cause__ or error).lower().rstrip(".") or type(error).__name__
                nonsense = any(isinstance(one, httpx2.RemoteProtocolError) for one in (error, error.__cause__))
                cut = not nonsense or "closed" in why or "disconnected" in why
                problem = self._error(None, f"the connection failed: {why}", "unreachable" if cut else "protocol")
        except openai.OpenAIError as error:
            problem = self._error(None, str(error), "failed")
        except ValueError:
            problem = ProviderError(f"{self._place} sends what is not its protocol", where=_WHERE, kind="protocol")
        else:
            return
        raise problem from None  # the SDK's own may show the key

    def _error(self, status: int | None, said: str, kind: FailureKind) -> ProviderError:
        key = self._client.api_key if self._client else self._api_key
        said = masked(said, key)
        hints = {
            400: "Look at voice and the other options",
            401: "Look at OPENAI_API_KEY",
            404: "Look at model and base_url",
            429: "Try fewer calls at once",
        }
        what = f"{self._place} says {status}: {said}" if status else f"{self._place}: {said}"
        return ProviderError(what, where=_WHERE, hint=hints.get(status or 0), kind=kind)


def _said(error: Any) -> str:
    """The message of an error as JSON."""
    said: Any = cast("dict[str, Any]", error).get("error", error) if isinstance(error, dict) else error
    said = cast("dict[str, Any]", said).get("message") if isinstance(said, dict) else said
    return str(said or "")


def _import_sdk() -> Any:
    import openai

    return openai


def _limits() -> Any:
    import httpx2

    # The default forgets a connection after 5 s, which is shorter than a turn.
    return httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=_KEEP_OPEN_S + 5)
