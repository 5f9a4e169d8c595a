"""The local LLM: llama.cpp inside this process, through xllamacpp.

What lives here: the engine's parameters, streaming, cancelling. What must not: prompts, tools,
anything about the conversation beyond its messages.

What makes it fast enough to talk to is the prompt cache: the engine keeps the evaluated tokens of
the last conversation and works only on what is new. Those of other conversations it keeps in
memory and copies back, so several agents and calls can share it, one answer at a time.

Reading ahead (`warm`) is beginning an answer that nobody has asked for yet. It stops by itself at
its first words; should it be asked for while it is on its way, it is that answer. What is really
asked for does not wait for one that is not.

How an answer is cancelled: the engine calls back after each token and after each batch of the
prompt, and stops when the callback says so. A token takes 20 to 30 ms. A batch of a prompt that is
not in the cache takes up to 250 ms and cannot be cut short; the generator is closed at once all
the same, and only an answer asked for in that moment would wait.

The engine insists on an HTTP server of its own beside the calls we make. It gets a socket in a
private folder, which is removed as soon as it listens (or, where there are none, a loopback port),
and a random key: nobody can ask it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import secrets
import signal
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from voicectl.clock import Clock
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import LlmChunk, LlmRequest, Message, Progress, TextDelta, Usage
from voicectl.weights import Store, default_store

MODELS = ("qwen2.5-coder-0.5b", "smollm2-135m")

_WHERE = "llm:local"
_PROMPT_BATCH = 32  # tokens; larger is 10% faster on a cold prompt and slower to cancel
_PROMPT_CACHE_MIB = 256  # other conversations' tokens: 12 kB each for the 0.5B model
_AHEAD_TOKENS = 2  # of an answer that nobody has asked for: the first is a by-product of reading
_SPINS = "500"
_SOCKET_PATH_MAX = 100  # bytes; the system's limit is 104 or 108


class Options(BaseModel):
    """How the model answers and what it may use of the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(
        default=2, ge=1, le=64, description="CPU threads. On a machine with other work, 1 is steadier."
    )
    context: int = Field(default=2048, ge=256, le=32_768, description="Tokens of prompt and answer together.")
    max_tokens: int = Field(default=120, ge=1, le=4096, description="Longest answer, in tokens.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 always takes the likeliest token.")
    repeat_penalty: float = Field(
        default=1.1, ge=1, le=2, description="Above 1 keeps a small model from saying the same again and again."
    )
    seed: int = Field(default=1, ge=0, le=2**31, description="Of the draws at a temperature above 0.")


class LocalLlm:
    """A GGUF model on this machine's CPU. One answer at a time; others wait for their turn."""

    name = "local"

    def __init__(self, options: Options, model: str | None, clock: Clock, store: Store | None = None) -> None:
        self._options = options
        self._model = model or MODELS[0]
        self._clock = clock
        self._store = store
        self._engine: _Engine | None = None
        self._answers: set[_Answer] = set()
        self._ahead: tuple[tuple[Message, ...], _Answer] | None = None

    async def start(self, progress: Progress) -> None:
        """Load the model and let it say one token.

        Raises:
            MissingExtra: xllamacpp is not installed.
            WeightsError: the model is not pulled.
            ProviderError: it cannot be loaded.
        """
        if self._engine:
            return
        xllamacpp = await self._clock.run(_import_xllamacpp)
        store = self._store or default_store()
        [gguf] = store.status(self._model).weights.files
        path = store.path(self._model, gguf.name)
        progress(f"loading {self._model}")
        with _our_signal_handlers():
            self._engine = await self._clock.run(_Engine, xllamacpp, path, self._options)
        await self.warm((Message("user", "Hi"),))

    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Evaluate `messages`, so that conversations which begin so find them in the cache."""
        self._drop_ahead()
        answer = self._begin(messages, _AHEAD_TOKENS)
        self._ahead = messages, answer
        try:
            if not await answer.begun() and answer.task:
                await answer.task
        except asyncio.CancelledError:
            if self._ahead and self._ahead[1] is answer:  # else somebody has asked for it
                answer.abandon()
            raise

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream the answer; closing the generator stops the engine at its next token.

        Raises:
            ProviderError: the conversation is too long for the context, or the engine failed.
        """
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == request.messages and ahead[1].adopt():
            answer = ahead[1]
        else:
            if ahead:
                ahead[1].abandon()
            answer = self._begin(request.messages)
        try:
            while (chunk := await answer.next()) is not None:
                yield chunk
            if answer.task:
                await answer.task
        finally:
            answer.abandon()

    def _drop_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead:
            ahead[1].abandon()

    def _begin(self, messages: tuple[Message, ...], most_tokens: int | None = None) -> _Answer:
        """Let the engine answer; no further than `most_tokens`, unless somebody adopts it."""
        if self._engine is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        body = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "max_tokens": self._options.max_tokens,
            "temperature": self._options.temperature,
            "repeat_penalty": self._options.repeat_penalty,
            "seed": self._options.seed,
            "cache_prompt": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # a call-back during the prompt too, where it can be cancelled
        }
        answer = _Answer(most_tokens)
        answer.task = self._clock.spawn(self._run(self._engine, json.dumps(body), answer), name="local llm")
        self._answers.add(answer)
        answer.task.add_done_callback(lambda _: self._answers.discard(answer))
        return answer

    async def _run(self, engine: _Engine, body: str, answer: _Answer) -> None:
        try:
            await self._clock.run(engine.chat, body, answer.take)
        finally:
            answer.abandon()  # should this task be cancelled, the thread need not go on
            answer.end()

    async def aclose(self) -> None:
        """Free the model, once no answer runs in it any more."""
        engine, self._engine = self._engine, None
        self._drop_ahead()
        running = list(self._answers)
        for answer in running:
            answer.abandon()
        await asyncio.gather(*(answer.task for answer in running if answer.task), return_exceptions=True)
        if engine:
            await self._clock.run(engine.close)


class _Answer:
    """One answer on its way from the engine's thread to the event loop.

    `take` and `end` are called in the thread, the rest in the loop. What waits between them is at
    most `max_tokens` chunks.
    """

    def __init__(self, most_tokens: int | None = None) -> None:
        self.task: asyncio.Task[None] | None = None
        self._most_tokens = most_tokens
        self._tokens = 0
        self._abandoned = False
        self._stopped = False
        self._lock = threading.Lock()  # whether it stops is decided here, and whether it is adopted there
        self._chunks: deque[LlmChunk | ProviderError | None] = deque()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()

    def abandon(self) -> None:
        """Nobody wants it: the engine is told to stop when it calls next."""
        self._abandoned = True

    def adopt(self) -> bool:
        """Somebody wants all of it. False when it is too late: it has been stopped."""
        with self._lock:
            if not self._stopped:
                self._abandoned, self._most_tokens = False, None
            return not self._stopped

    def take(self, data: dict[str, Any]) -> bool:
        """One message of the engine. True tells it to stop."""
        if error := data.get("error"):
            self._put(_translate(error))
        for choice in data.get("choices") or ():
            if text := choice.get("delta", {}).get("content"):
                self._tokens += 1
                self._put(TextDelta(text))
        if usage := data.get("usage"):
            cached: int | None = usage.get("prompt_tokens_details", {}).get("cached_tokens")
            self._put(Usage(usage.get("prompt_tokens"), cached, usage.get("completion_tokens")))
        with self._lock:
            enough = self._most_tokens is not None and self._tokens >= self._most_tokens
            self._stopped = self._stopped or self._abandoned or enough
            return self._stopped

    def end(self) -> None:
        """No more will come."""
        self._put(None)

    async def begun(self) -> bool:
        """Wait until it has begun to answer: all that was to be read has been. False: it has no answer.

        Raises:
            ProviderError: what the engine said went wrong.
        """
        while not self._chunks:
            self._arrived.clear()
            await self._arrived.wait()
        if isinstance(self._chunks[0], ProviderError):
            raise self._chunks[0]
        return self._chunks[0] is not None

    async def next(self) -> LlmChunk | None:
        """The next chunk; None after the last.

        Raises:
            ProviderError: what the engine said went wrong.
        """
        while not self._chunks:
            self._arrived.clear()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        if isinstance(chunk, ProviderError):
            raise chunk
        return chunk

    def _put(self, chunk: LlmChunk | ProviderError | None) -> None:
        self._chunks.append(chunk)
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._arrived.set)


class _Engine:
    """The model in memory. `chat` and `close` block."""

    def __init__(self, xllamacpp: Any, gguf: Path, options: Options) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx = options.context
        params.n_parallel = 1
        params.n_batch = params.n_ubatch = _PROMPT_BATCH
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
        params.cache_ram_mib = _PROMPT_CACHE_MIB
        params.verbosity = -1
        params.ui = False
        params.endpoint_slots = False
        params.n_threads_http = 1
        params.api_keys = [secrets.token_urlsafe(24)]
        params.port = 0
        self._server: Any = None
        with tempfile.TemporaryDirectory(prefix="voicectl-") as folder:
            socket_path = str(Path(folder, "llm.sock"))
            if os.name == "posix" and len(os.fsencode(socket_path)) <= _SOCKET_PATH_MAX:
                params.hostnames = [socket_path]
            try:
                self._server = xllamacpp.Server(params)
            except RuntimeError as error:
                raise ProviderError(
                    f"cannot load {gguf.name}",
                    where=_WHERE,
                    hint="Check its weights with 'voicectl models verify', and the memory that is free.",
                ) from error

    def chat(self, body: str, on_message: Callable[[dict[str, Any]], bool]) -> None:
        """Answer `body` (a chat request, streamed), until the end or until `on_message` is true."""

        def take(message: str) -> bool:
            return on_message(json.loads(message))

        self._server.handle_chat_completions(body, take)

    def close(self) -> None:
        """Free it. Nothing may be running in `chat`."""
        self._server = None


def _import_xllamacpp() -> Any:
    """The engine's module.

    Its threads meet hundreds of times a token and by default spin while they wait. When another
    process, or our own TTS, has one of the cores, they spin the time away that the late one needs,
    and 45 tokens a second become 2. A short spin keeps the 45 and gives 15 there. The OpenMP
    library reads how long when it is loaded, and only from the environment.
    """
    env = os.environ  # noqa: TID251 - written for the library, not read
    set_here = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & env.keys()
    if set_here:
        env["GOMP_SPINCOUNT"] = _SPINS
    try:
        try:
            return importlib.import_module("xllamacpp")
        except ModuleNotFoundError as error:
            raise MissingExtra("xllamacpp", "local", where=_WHERE) from error
        except ImportError as error:
            if "libgomp" not in str(error) or not _lend_libgomp():
                raise
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise ProviderError(
            f"xllamacpp cannot be loaded: {error}",
            where=_WHERE,
            hint="If it is libgomp that is missing: apt install libgomp1",
        ) from error
    finally:
        if set_here:
            del env["GOMP_SPINCOUNT"]


def _lend_libgomp() -> bool:
    """Load the OpenMP runtime that a package carries, where the system has none.

    xllamacpp asks for it by its plain name, and a bare Debian does not have it. The `local` extra
    brings pykdtree for the copy in its wheel, which the packaging tool has given a name of its own:
    a copy with the plain name back is what the linker then finds loaded.
    """
    try:
        files = importlib.metadata.files("pykdtree") or []
    except importlib.metadata.PackageNotFoundError:
        return False
    carried = next((file for file in files if file.name.startswith("libgomp-")), None)
    if carried is None:
        return False
    renamed = carried.name.encode()
    plain = b"libgomp.so.1".ljust(len(renamed), b"\0")
    data = Path(str(carried.locate())).read_bytes().replace(renamed + b"\0", plain + b"\0")
    with tempfile.TemporaryDirectory(prefix="voicectl-") as folder:
        copy = Path(folder) / "libgomp.so.1"
        copy.write_bytes(data)
        try:
            ctypes.CDLL(str(copy), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            return False
    return True


def _translate(error: dict[str, Any]) -> ProviderError:
    if error.get("type") == "exceed_context_size_error":
        return ProviderError(
            f"the conversation has {error.get('n_prompt_tokens')} tokens and the context {error.get('n_ctx')}",
            where=_WHERE,
            hint="Raise 'context' in the llm's options, or lower turn.max_history_turns.",
        )
    return ProviderError(f"the engine failed: {error.get('message', 'no reason given')}", where=_WHERE)


@contextlib.contextmanager
def _our_signal_handlers() -> Generator[None]:
    """Keep Ctrl-C ours: the engine installs its own handlers, which would end the process."""
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ours.items():
                if handler is not None:
                    signal.signal(number, handler)
