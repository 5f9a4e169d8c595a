"""OpenAI's transcription, or that of any server that speaks as it, through OpenAI's own SDK.

What lives here: one client whose connections all calls share. It takes no audio as it is spoken: each
flush sends the whole turn so far as one WAV (`audio.transcriptions.create(stream=True)`), and the
text comes back in pieces, which are partials until it is all there. A flush that is overtaken is
dropped with its request. What must not: when a turn ends (it has no opinion), retries.

Nobody announces a flush, so a connection is kept warm all the time: where none has been used for a
while, the list of models is asked for, which costs nothing.

The SDK reads the key from OPENAI_API_KEY. No model is the default: most of those there are have dates
on which they are shut down (`voicectl check` knows them).
"""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import FailureKind, ProviderError, kind_of_status, masked, retry_after
from voicectl.pipeline.protocols import Progress, SttStream, Transcript

MODELS = None

_WHERE = "stt:openai"
_KEEP_OPEN_S = 55.0  # servers close an idle connection after a minute or more
_CLOSE_S = 1.0
_SHORTEST_S = 0.1  # of less, OpenAI makes an error


class Options(BaseModel):
    """How it listens, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.openai.com/v1", description="Where OpenAI, or a server that speaks as it, is.")
    language: str | None = Field("en", description="Language of the caller, as ISO-639-1. null: it finds out.")
    prompt: str | None = Field(None, description="Words and names to expect, as a text they occur in.")
    temperature: float | None = Field(None, ge=0, le=1, description="0 always takes the likeliest word.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next piece, ms.")


class OpenAiStt:
    """Any number of turns at once."""

    name = "openai"

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model
        self._clock = clock
        self._api_key = api_key
        self._client: Any = None
        self._used = 0.0  # when a connection last was
        self._tasks: set[asyncio.Task[None]] = set()

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
        self._mind(self._clock.spawn(self._keep(), name="openai ears keeper"))

    def open(self, start: float) -> SttStream:
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        return _Turn(self._texts, self._ask)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        if client:
            await client.close()

    @property
    def _place(self) -> str:
        return urlsplit(self._options.base_url).netloc.rpartition("@")[2] or "the server"

    def _mind(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ask(self, work: Any) -> asyncio.Task[None]:
        return self._mind(self._clock.spawn(work, name="openai transcription"))

    async def _texts(self, pcm: bytes) -> AsyncGenerator[tuple[str, bool], None]:
        """The text so far, and whether that is all of it.

        Raises:
            ProviderError: whatever went wrong, in one line.
        """
        with self._translated():
            create = self._client.audio.transcriptions.with_streaming_response.create
            async with create(**self._body(pcm)) as response:
                if response.headers.get("content-type", "").startswith("application/json"):
                    yield str(json.loads(await response.read())["text"]), True  # a server that does not stream
                    return
                text, whole = "", False
                async for line in response.iter_lines():
                    data = line[5:].strip() if line.startswith("data:") else ""
                    if not data or data == "[DONE]":
                        continue  # the body only ends now, and one read to its end frees its connection
                    event = json.loads(data)
                    if error := event.get("error"):
                        raise self._error(None, _said(error), _kind_of(error))
                    if event["type"] == "transcript.text.delta":
                        text += event["delta"]
                        yield text, False
                    elif event["type"] == "transcript.text.done":
                        whole = True
                        yield str(event["text"]), True
                if not whole:
                    raise self._error(None, "the answer broke off", "unreachable")
            self._used = self._clock.now()

    def _body(self, pcm: bytes) -> dict[str, Any]:
        options = self._options
        chosen = {"language": options.language, "prompt": options.prompt, "temperature": options.temperature}
        return {
            "model": self._model,
            "file": ("turn.wav", _wav(pcm), "audio/wav"),
            "response_format": "json",
            "stream": True,
            **{name: value for name, value in chosen.items() if value is not None},
        }

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep_until(self._used + _KEEP_OPEN_S)
            if self._clock.now() - self._used >= _KEEP_OPEN_S:
                try:
                    await self._connect()
                except ProviderError:
                    self._used = self._clock.now()  # who asks for a text will hear of it

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
        except (ValueError, AttributeError, LookupError, TypeError):
            problem = ProviderError(f"{self._place} sends what is not its protocol", where=_WHERE, kind="protocol")
        else:
            return
        raise problem from None  # the SDK's own may show the key

    def _error(self, status: int | None, said: str, kind: FailureKind) -> ProviderError:
        key = self._client.api_key if self._client else self._api_key
        said = masked(said, key)
        hints = {
            400: "Look at language and the other options",
            401: "Look at OPENAI_API_KEY",
            404: "Look at model and base_url",
            429: "Try fewer calls at once",
        }
        what = f"{self._place} says {status}: {said}" if status else f"{self._place}: {said}"
        return ProviderError(what, where=_WHERE, hint=hints.get(status or 0), kind=kind)


class _Turn:
    """The speech of one caller turn, kept whole: a minute is 2 MB, and OpenAI takes 25."""

    def __init__(
        self,
        texts: Callable[[bytes], AsyncGenerator[tuple[str, bool], None]],
        ask: Callable[[Any], asyncio.Task[None]],
    ) -> None:
        self._texts = texts
        self._ask = ask
        self._pcm = bytearray()
        self._flushes = 0
        self._asking: asyncio.Task[None] | None = None
        self._told = ""
        self._inbox: deque[Transcript | ProviderError] = deque()  # one a word, for as long as it takes to read them
        self._arrived = asyncio.Event()
        self._closed = False

    def push(self, pcm: bytes) -> None:
        if not self._closed:
            self._pcm += pcm

    def flush(self) -> None:
        if self._closed:
            return
        self._flushes += 1
        if self._asking:
            self._asking.cancel()
            self._asking = None
        if len(self._pcm) < _SHORTEST_S * PIPELINE_RATE * SAMPLE_WIDTH:
            self._put(Transcript("", self._flushes))
        else:
            self._asking = self._ask(self._transcribe(self._flushes, bytes(self._pcm)))

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
        self._closed = True
        self._arrived.set()
        if self._asking:
            self._asking.cancel()

    async def _transcribe(self, flush: int, pcm: bytes) -> None:
        try:
            async with aclosing(self._texts(pcm)) as texts:
                async for text, whole in texts:
                    text = text.strip()
                    if whole:
                        self._told = text
                        self._put(Transcript(text, flush))
                        self._asking = None  # what is left ends by itself, and leaves its connection to the next
                    elif not self._told.startswith(text):  # each flush begins from the first word again
                        self._told = text
                        self._put(Transcript(text))
        except ProviderError as error:
            self._put(error)

    def _put(self, item: Transcript | ProviderError) -> None:
        self._inbox.append(item)
        self._arrived.set()


def _wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(SAMPLE_WIDTH)
        wav.setframerate(PIPELINE_RATE)
        wav.writeframes(pcm)
    return file.getvalue()


def _kind_of(error: Any) -> FailureKind:
    """Of an error in the middle of an answer, which has no status."""
    known = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    name = f"{known.get('type')} {known.get('code')}"
    if "rate_limit" in name or "429" in name:
        return "rate_limited"
    return "server" if "server" in name or "overloaded" in f"{name} {error}" else "failed"


def _said(error: Any) -> str:
    """The message of an error as JSON."""
    said: Any = cast("dict[str, Any]", error).get("message") if isinstance(error, dict) else error
    return str(said or "")


def _import_sdk() -> Any:
    import openai

    return openai


def _limits() -> Any:
    import httpx2

    # The default forgets a connection after 5 s, which is shorter than a turn.
    return httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=_KEEP_OPEN_S + 5)
