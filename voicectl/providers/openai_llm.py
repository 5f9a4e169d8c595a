"""OpenAI's chat completions, or any server that speaks them, through OpenAI's own SDK.

What lives here: one client whose connections all calls share and which stay open between turns,
streaming, cancelling, and errors as people can use them. What must not: prompts, what tools do, retries
(wrappers do that, and can be seen in the trace).

The stream is read line by line (`with_streaming_response`) rather than as the SDK's typed chunks:
of each we need one string, and the validation of a chunk costs more than all else here.

`warm` asks for the list of models, when no connection has been used for a while: it costs no
tokens, and the next request finds a connection open, encrypted and accepted.

The SDK reads the key from OPENAI_API_KEY.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.clock import Clock
from voicectl.errors import FailureKind, ProviderError, kind_of_status, masked, retry_after
from voicectl.pipeline.protocols import LlmChunk, LlmRequest, Message, Progress, TextDelta, Tool, ToolDelta, Usage

MODELS = None

_WHERE = "llm:openai"
_KEEP_OPEN_S = 55.0  # servers close an idle connection after a minute or more
_OPENAI = "https://api.openai.com/v1"


class Options(BaseModel):
    """How the model answers, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(_OPENAI, description="Where OpenAI, or a server that speaks as it, is.")
    max_tokens: int | None = Field(None, ge=1, le=100_000, description="Longest answer, in tokens.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 always takes the likeliest token.")
    reasoning_effort: str | None = Field(
        None, description="How long a reasoning model thinks first: none, minimal, low, ..."
    )
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next piece, ms.")


class OpenAiLlm:
    """Any number of answers at once."""

    name = "openai"

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self._options = options
        self._model = model
        self._clock = clock
        self._api_key = api_key
        self._client: Any = None
        self._used = 0.0  # when a connection last was

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

    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Open a connection, if none has been used for a while."""
        if self._clock.now() - self._used >= _KEEP_OPEN_S:
            await self._connect()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream the answer; closing the generator closes the connection it came over.

        Raises:
            ProviderError: whatever went wrong, in one line.
        """
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        usage: dict[str, Any] = {}
        calls: dict[int, ToolDelta] = {}
        with self._translated():
            create = self._client.chat.completions.with_streaming_response.create
            async with create(**self._body(request)) as response:
                async for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        continue  # the body only ends now, and one read to its end frees its connection
                    message = json.loads(data)
                    if not isinstance(message, dict):
                        raise ValueError("not an object")
                    message = cast("dict[str, Any]", message)
                    for piece in self._pieces(message, calls):
                        yield piece
                    usage = message.get("usage") or usage
            self._used = self._clock.now()
        if usage:
            details: dict[str, Any] = usage.get("prompt_tokens_details") or {}
            yield Usage(usage.get("prompt_tokens"), details.get("cached_tokens"), usage.get("completion_tokens"))

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.close()

    @property
    def _place(self) -> str:
        return urlsplit(self._options.base_url).netloc.rpartition("@")[2] or "the server"

    def _body(self, request: LlmRequest) -> dict[str, Any]:
        options = self._options
        # Servers that speak as OpenAI know the name it has given up.
        longest = "max_completion_tokens" if options.base_url == _OPENAI else "max_tokens"
        chosen = {
            longest: options.max_tokens,
            "temperature": options.temperature,
            "reasoning_effort": options.reasoning_effort,
        }
        return {
            "model": self._model,
            "messages": (),
            # As they are: the SDK would look through each message of the call, at every turn.
            "extra_body": {
                "messages": [{"role": one.role, "content": one.content} for one in request.messages],
                **({"tools": [_function(tool) for tool in request.tools]} if request.tools else {}),
            },
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in chosen.items() if value is not None},
        }

    def _pieces(self, message: dict[str, Any], calls: dict[int, ToolDelta]) -> list[TextDelta | ToolDelta]:
        """What a message says; `calls` keeps the beginning of each tool call, by its number in the answer."""
        if error := message.get("error"):
            raise self._error(None, _said(error), _kind_of(error))
        choices: list[dict[str, Any]] = message.get("choices") or []
        deltas: list[dict[str, Any]] = [choice.get("delta") or {} for choice in choices]
        text = "".join(delta.get("content") or "" for delta in deltas)
        pieces: list[TextDelta | ToolDelta] = [TextDelta(text)] if text else []
        parts: list[dict[str, Any]] = [part for delta in deltas for part in delta.get("tool_calls") or ()]
        for part in parts:
            number, id = part.get("index") or 0, part.get("id") or ""
            function: dict[str, Any] = part.get("function") or {}
            begun = calls.get(number)
            new = begun is None or (id and id != begun.id)  # some servers number all of them 0
            if new or begun is None:  # and some have no ids
                begun = calls[number] = ToolDelta(id or f"call_{number}", function.get("name") or "", "")
            if new or function.get("arguments"):
                pieces.append(replace(begun, arguments=function.get("arguments") or ""))
        return pieces

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
            problem = ProviderError(f"{self._place} sends what is not JSON", where=_WHERE, kind="protocol")
        except (AttributeError, LookupError, TypeError):
            problem = ProviderError(f"{self._place} sends what is not its protocol", where=_WHERE, kind="protocol")
        else:
            return
        raise problem from None  # the SDK's own may show the key

    def _error(self, status: int | None, said: str, kind: FailureKind) -> ProviderError:
        key = self._client.api_key if self._client else self._api_key
        said = masked(said, key)
        hints = {401: "Look at OPENAI_API_KEY", 404: "Look at model and base_url", 429: "Try fewer calls at once"}
        what = f"{self._place} says {status}: {said}" if status else f"{self._place}: {said}"
        return ProviderError(what, where=_WHERE, hint=hints.get(status or 0), kind=kind)


def _function(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


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
    return httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=_KEEP_OPEN_S)
