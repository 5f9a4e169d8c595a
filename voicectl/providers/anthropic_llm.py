"""Anthropic's messages, through Anthropic's own SDK.

What lives here: one client whose connections all calls share and which stay open between turns,
conversations as this API demands them, streaming, cancelling, and errors as people can use them.
What must not: prompts, what tools do, retries (wrappers do that, and can be seen in the trace).

The stream is read line by line, as in the provider for OpenAI and for the same reason. The system
prompt is marked for Anthropic's prompt cache, so that of a long prompt only the first turn waits.

`warm` asks for the list of models, when no connection has been used for a while: it costs no
tokens, and the next request finds a connection open, encrypted and accepted.

The key comes from ANTHROPIC_API_KEY. It is given to the SDK, which would otherwise look for
profiles and credentials all over the machine.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.clock import Clock
from voicectl.errors import FailureKind, MissingExtra, ProviderError, kind_of_status, masked, retry_after
from voicectl.pipeline.protocols import LlmChunk, LlmRequest, Message, Progress, TextDelta, Tool, ToolDelta, Usage

MODELS = None

_WHERE = "llm:anthropic"
_KEY = "ANTHROPIC_API_KEY"
_KEEP_OPEN_S = 55.0  # servers close an idle connection after a minute or more

_BEGINS = "(The call begins.)"
_SILENT = "(The caller says nothing.)"

_KINDS: dict[str, FailureKind] = {
    "rate_limit_error": "rate_limited",
    "overloaded_error": "server",
    "api_error": "server",
    "timeout_error": "timeout",
}
"""Of errors in the middle of an answer, which have no status. All others are our fault."""


class Options(BaseModel):
    """How the model answers, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        "https://api.anthropic.com", description="Where Anthropic, or a server that speaks as it, is."
    )
    max_tokens: int = Field(1024, ge=1, le=100_000, description="Longest answer, in tokens, thinking included.")
    temperature: float | None = Field(
        None, ge=0, le=1, description="0 always takes the likeliest token; the newest models take none."
    )
    thinking: Literal["disabled", "adaptive", "between_tools"] | None = Field(
        None, description="Whether the model thinks before it answers; models differ in what they allow and omit."
    )
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="How much a model puts into its answer; low is quickest."
    )
    cache: bool = Field(True, description="Keep the tools and the system prompt in Anthropic's prompt cache.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next piece, ms.")


class AnthropicLlm:
    """Any number of answers at once."""

    name = "anthropic"

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
            MissingExtra: anthropic is not installed.
            ProviderError: no model, no key, or the server cannot be reached or does not accept us.
        """
        if self._client:
            return
        if not self._model:
            raise ProviderError("needs the name of a model", where=_WHERE, hint="Add `model:`", kind="refused")
        key = self._api_key or os.environ.get(_KEY)  # noqa: TID251 - no part of a spec
        if not key:
            raise ProviderError("has no key", where=_WHERE, hint=f"Set {_KEY}", kind="refused")
        anthropic = await self._clock.run(_import_sdk)
        progress(f"connecting to {self._place}")
        wait = anthropic.Timeout(self._options.timeout_ms / 1000)
        self._api_key = key
        self._client = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=self._options.base_url,
            max_retries=0,
            timeout=wait,
            http_client=anthropic.DefaultAsyncHttpxClient(limits=_limits(), timeout=wait),
        )
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
        answer = _Answer()
        with self._translated():
            create = self._client.messages.with_streaming_response.create
            async with create(**self._body(request)) as response:
                async for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    message: Any = json.loads(line[5:])
                    if message["type"] == "error":
                        raise self._error(None, _said(message), kind=_KINDS.get(_type(message), "refused"))
                    if piece := answer.take(message):
                        yield piece
            if not answer.whole:
                raise self._error(None, "the answer was cut", kind="unreachable")
            self._used = self._clock.now()
        yield answer.usage

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.close()

    @property
    def _place(self) -> str:
        return urlsplit(self._options.base_url).netloc.rpartition("@")[2] or "the server"

    def _body(self, request: LlmRequest) -> dict[str, Any]:
        options = self._options
        # As it is: the SDK would look through each message of the call, at every turn.
        body: dict[str, Any] = {"messages": _turns(request.messages)}
        if system := "\n\n".join(one.content for one in _system(request.messages)):
            block: dict[str, Any] = {"type": "text", "text": system}
            if options.cache:
                block["cache_control"] = {"type": "ephemeral"}  # tools come before it, and are kept with it
            body["system"] = [block]
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if options.thinking:
            body["thinking"] = {"type": options.thinking}
        if options.effort:
            body["output_config"] = {"effort": options.effort}
        if options.temperature is not None:
            body["temperature"] = options.temperature
        return {
            "model": self._model,
            "max_tokens": options.max_tokens,
            "messages": (),
            "stream": True,
            "extra_body": body,
        }

    async def _connect(self) -> None:
        """Any answer but a refusal will do: the connection is open."""
        import anthropic

        with self._translated():
            try:
                async with self._client.models.with_streaming_response.list() as response:
                    await response.read()
            except anthropic.AuthenticationError:
                raise
            except anthropic.APIStatusError:
                pass  # no such list here, or not for this key
        self._used = self._clock.now()

    @contextmanager
    def _translated(self) -> Generator[None]:
        import anthropic
        import httpx2

        try:
            yield
        except anthropic.APIStatusError as error:
            retry = retry_after(error.response.headers.get("retry-after"))
            problem = self._error(error.status_code, _said(error.body) or error.message, retry_after_s=retry)
        except (anthropic.APIConnectionError, httpx2.HTTPError) as error:
            if isinstance(error, (anthropic.APITimeoutError, httpx2.TimeoutException)):
                waited = f"does not answer within {self._options.timeout_ms} ms"
                problem = ProviderError(f"{self._place} {waited}", where=_WHERE, kind="timeout")
            else:
                why = str(error.__cause__ or error).lower().rstrip(".") or type(error).__name__
                problem = self._error(None, f"the connection failed: {why}", kind="unreachable")
        except anthropic.AnthropicError as error:
            problem = self._error(None, str(error))
        except (ValueError, KeyError, TypeError):
            problem = ProviderError(f"{self._place} sends what is no answer", where=_WHERE, kind="protocol")
        else:
            return
        raise problem from None  # the SDK's own may show the key

    def _error(
        self, status: int | None, said: str, *, kind: FailureKind = "failed", retry_after_s: float | None = None
    ) -> ProviderError:
        said = masked(said, self._api_key)
        hints = {401: f"Look at {_KEY}", 404: "Look at model and base_url", 429: "Try fewer calls at once"}
        return ProviderError(
            f"{self._place} says {status}: {said}" if status else f"{self._place}: {said}",
            where=_WHERE,
            hint=hints.get(status or 0),
            kind=kind_of_status(status) if status else kind,
            retry_after_s=retry_after_s,
        )


class _Answer:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self.whole = False
        self._calls: dict[int, ToolDelta] = {}  # the beginning of each, by the number of its block
        self._counts: dict[str, int] = {}

    def take(self, message: dict[str, Any]) -> TextDelta | ToolDelta | None:
        match message:
            case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str(text)}} if text:
                return TextDelta(text)
            case {"type": "content_block_start", "content_block": {"type": "text", "text": str(text)}} if text:
                return TextDelta(text)
            case {"type": "content_block_start", "index": index, "content_block": {"type": "tool_use"} as block}:
                self._calls[index] = ToolDelta(block["id"], block["name"], "")
                return self._calls[index]
            case {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": "input_json_delta", "partial_json": str(piece)},
            } if piece:
                call = self._calls[index]
                return ToolDelta(call.id, call.name, piece)
            case {"type": "message_start", "message": {"usage": usage}}:
                self._count(usage)
            case {"type": "message_delta", "usage": usage}:  # of the whole answer, not of this piece
                self._count(usage)
            case {"type": "message_stop"}:
                self.whole = True
            case _:
                pass  # thinking, pings, and whatever will be added
        return None

    @property
    def usage(self) -> Usage:
        """In our terms, where the prompt includes what was in the cache."""
        counts = self._counts
        fresh, written = counts.get("input_tokens"), counts.get("cache_creation_input_tokens")
        cached, said = counts.get("cache_read_input_tokens"), counts.get("output_tokens")
        return Usage(None if fresh is None else fresh + (written or 0) + (cached or 0), cached, said)

    def _count(self, usage: dict[str, Any]) -> None:
        self._counts |= {name: count for name, count in usage.items() if isinstance(count, int)}


def _system(messages: tuple[Message, ...]) -> list[Message]:
    """What is told of the whole conversation, and not at the end of it."""
    return [one for one in messages[:-1] if one.role == "system" and one.content] + [
        one for one in messages[-1:] if one.role == "system" and one.content and len(messages) == 1
    ]


def _turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The conversation as the API wants it: the caller's and the agent's turns alternate, the first and
    the last are the caller's, and none is empty. What the system says last is said in the caller's place."""
    turns: list[dict[str, Any]] = []
    for index, one in enumerate(messages, 1):
        last = 1 < index == len(messages)
        if (one.role == "system" and not last) or not one.content.strip():
            continue
        role = "user" if one.role == "system" else one.role
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n{one.content}"
        else:
            turns.append({"role": role, "content": one.content})
    if not turns or turns[0]["role"] != "user":
        turns.insert(0, {"role": "user", "content": _BEGINS})
    if turns[-1]["role"] != "user":
        turns.append({"role": "user", "content": _SILENT})
    return turns


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}


def _said(error: Any) -> str:
    """The message of an error as JSON."""
    inner: Any = cast("dict[str, Any]", error).get("error") if isinstance(error, dict) else error
    said: Any = cast("dict[str, Any]", inner).get("message") if isinstance(inner, dict) else inner
    return str(said or "")


def _type(error: dict[str, Any]) -> str:
    inner: Any = error.get("error")
    return str(cast("dict[str, Any]", inner).get("type")) if isinstance(inner, dict) else ""


def _import_sdk() -> Any:
    try:
        sdk = importlib.import_module("anthropic")
    except ModuleNotFoundError as error:
        if error.name != "anthropic":
            raise
        raise MissingExtra("anthropic", "cloud", where=_WHERE) from error
    for part in ("messages", "models"):  # else loaded in the first call
        importlib.import_module(f"anthropic.resources.{part}")
    return sdk


def _limits() -> Any:
    import httpx2

    # The default forgets a connection after 5 s, which is shorter than a turn.
    return httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=_KEEP_OPEN_S)
