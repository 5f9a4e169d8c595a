"""A stand-in for Deepgram, OpenAI and Cartesia on loopback, to be spoken to by their real SDKs.

It speaks the wire protocols, in a thread of its own, and can be told to misbehave. What it "hears"
is the audio itself: 100 ms of samples around 500 are the word "w5", samples of 0 are silence. So a
test sees in a transcript which audio it was made of.
"""

from __future__ import annotations

import asyncio
import base64
import http
import json
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import h11
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from voicectl.clock import Clock
from voicectl.providers import CATALOG, StageName

CANARY = "key-canary-5e1f"
"""What the SDKs are given as the key. It must never be seen again."""

WORD_S = 0.1
RATE = 16_000
ANSWER = "Sure, I can do that for you. Is there anything else that you need today?"


def sound(*words: int, seconds: float = 0.5) -> bytes:
    """Audio in which the stand-in hears these words, each for `seconds`; 0 is silence."""
    return b"".join(array("h", [word * 100] * round(seconds * RATE)).tobytes() for word in words)


@dataclass
class Behaviour:
    """What it does; tests change it as they go."""

    refuse: int | None = None
    """Answer every request with this status ..."""
    says: str = ""
    """... and this message."""
    finalize_answers: bool = True
    finalize_s: float = 0.01
    """How long Deepgram takes to answer a Finalize."""
    endpointing_s: float = 0.3
    token_s: float = 0.01
    """From one piece of an LLM's answer, or of a voice's audio, to the next."""
    break_after: int | None = None
    """Drop the connection after so many pieces."""
    spoil: str = ""
    """What OpenAI sends instead of its second piece."""
    models: int = 200
    """What OpenAI answers when it is asked for its models."""


class StandIn:
    """`with StandIn() as vendor:` serves until the block ends."""

    def __init__(self) -> None:
        self.does = Behaviour()
        self.seen: list[tuple[str, dict[str, str], str]] = []
        """Path, query and key of each websocket or request."""
        self.got: list[str] = []
        """What it was asked, and what became of it, in a word each."""
        self._sockets: set[ServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-in")
        self._servers: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.ws = self.http = ""

    def __enter__(self) -> Self:
        self.serve()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def build(
        self, clock: Clock, stage: StageName, name: str, *, url: str = "", key: str | None = CANARY, **more: Any
    ) -> Any:
        """The provider, not yet started, that takes this for its vendor; `more` are its model and options."""
        self.serve()
        model = more.pop("model", "m" if stage == "llm" else None)
        mine = f"{self.http}/v1" if stage == "llm" else self.ws
        options = CATALOG.options(stage, name).model_validate({"base_url": url or mine, **more})
        return CATALOG.load(stage, name)(options, model, clock, api_key=key)

    def serve(self) -> None:
        """From now on. Idempotent."""
        if not self._thread.is_alive():
            self._thread.start()
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    def close(self) -> None:
        if not self._thread.is_alive():
            self._loop.close()
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def drop(self) -> None:
        """Cut every websocket, as a network does."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(10)

    @property
    def open(self) -> int:
        """How many websockets are."""
        return len(self._sockets)

    async def _open(self) -> None:
        ws = await serve(self._serve, "127.0.0.1", 0, process_request=self._admit, ping_interval=None, close_timeout=1)
        web = await asyncio.start_server(self._answer_http, "127.0.0.1", 0)
        self._servers = [ws, web]
        self.ws, self.http = (f"http://127.0.0.1:{next(iter(one.sockets)).getsockname()[1]}" for one in (ws, web))

    async def _close(self) -> None:
        await self._drop()
        for server in self._servers:
            server.close()
        await self._servers[0].wait_closed()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _drop(self) -> None:
        for socket in list(self._sockets):
            socket.transport.abort()

    # Websockets --------------------------------------------------------------------------------

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        headers: Headers = request.headers
        key = headers.get("Authorization", headers.get("X-API-Key", "")).split()[-1:]
        url = urlsplit(request.path)
        self.seen.append((url.path, {name: values[0] for name, values in parse_qs(url.query).items()}, "".join(key)))
        if self.does.refuse:
            return connection.respond(http.HTTPStatus(self.does.refuse), self.does.says or "no")
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        self._sockets.add(socket)
        path = urlsplit(socket.request.path if socket.request else "").path
        kind: dict[str, Callable[[ServerConnection], Any]] = {
            "/v1/listen": self._nova,
            "/v2/listen": self._flux,
            "/tts/websocket": self._cartesia,
        }
        try:
            await kind[path](socket)
        except ConnectionClosed:
            pass
        finally:
            self._sockets.discard(socket)

    async def _nova(self, socket: ServerConnection) -> None:
        ear = Ear()
        final = 0.0

        async def say(text: str, *, is_final: bool, speech_final: bool = False, from_finalize: bool = False) -> None:
            alternative: dict[str, Any] = {"transcript": text, "confidence": 1.0, "words": []}
            await send(
                socket,
                type="Results",
                channel_index=[0, 1],
                start=final,
                duration=ear.until - final,
                is_final=is_final,
                speech_final=speech_final,
                from_finalize=from_finalize,
                channel={"alternatives": [alternative]},
                metadata={
                    "request_id": "r",
                    "model_uuid": "u",
                    "model_info": {"name": "n", "version": "1", "arch": "a"},
                },
            )

        async for message in socket:
            if isinstance(message, bytes):
                for _ in ear.hear(message):
                    if ear.words and ear.silence_s >= self.does.endpointing_s - 1e-9:
                        await say(ear.take(), is_final=True, speech_final=True)
                        final = ear.until
                    elif ear.words:
                        await say(ear.text, is_final=False)
                continue
            kind = json.loads(message)["type"]
            self.got.append(kind)
            if kind == "Finalize" and self.does.says:
                await send(socket, type="Error", description=self.does.says, variant="x", message="x")
            elif kind == "Finalize":
                await asyncio.sleep(self.does.finalize_s)
                ear.flush()
                text = ear.take()
                if self.does.finalize_answers:
                    await say(text, is_final=True, from_finalize=True)
                final = ear.until

    async def _flux(self, socket: ServerConnection) -> None:
        ear = Ear()
        turn = 0
        eager = False

        async def say(event: str) -> None:
            await send(
                socket,
                type="TurnInfo",
                request_id="r",
                sequence_id=0,
                event=event,
                turn_index=turn,
                audio_window_start=0.0,
                audio_window_end=ear.until,
                transcript=ear.text,
                words=[],
                end_of_turn_confidence=0.5,
            )

        await send(socket, type="Connected", request_id="r", sequence_id=0)
        async for message in socket:
            if not isinstance(message, bytes):
                continue
            for word in ear.hear(message):
                if not ear.words:
                    continue
                if word and eager:
                    eager = False
                    await say("TurnResumed")
                elif word:
                    await say("StartOfTurn" if len(ear.words) == 1 else "Update")
                elif ear.silence_s >= 2 * self.does.endpointing_s - 1e-9:
                    await say("EndOfTurn")
                    turn, eager = turn + 1, False
                    ear.take()
                elif ear.silence_s >= self.does.endpointing_s - 1e-9 and not eager:
                    eager = True
                    await say("EagerEndOfTurn")

    async def _cartesia(self, socket: ServerConnection) -> None:
        contexts: dict[str, asyncio.Task[None]] = {}
        async for message in socket:
            request = json.loads(message)
            context = request["context_id"]
            if request.get("cancel"):
                self.got.append("cancel")
                contexts.pop(context).cancel()
                continue
            self.got.append("speak")
            contexts[context] = asyncio.create_task(self._speak(socket, context, request))
            self._tasks.add(contexts[context])

    async def _speak(self, socket: ServerConnection, context: str, request: dict[str, Any]) -> None:
        same = {"context_id": context, "done": False, "status_code": 206}
        text = request["transcript"]
        if self.does.says:
            await send(socket, **same, type="error", title="Bad request", message=self.does.says)
            return
        pcm = base64.b64encode(bytes(2 * round(0.06 * request["output_format"]["sample_rate"]))).decode()
        for index in range(len(text)):  # 60 ms of silence a letter
            if index == self.does.break_after:
                await self._drop()
            await send(socket, **same, type="chunk", data=pcm, step_time=1.0)
            await asyncio.sleep(self.does.token_s)
        await send(socket, **{**same, "done": True, "status_code": 200}, type="done")
        self.got.append("spoken")

    # HTTP ----------------------------------------------------------------------------------------

    async def _answer_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        self.got.append("connected")
        try:
            while (request := await _request(connection, reader)) is not None:
                path, key, body = request
                self.seen.append((path, {}, key))
                await self._reply(connection, writer, path, body)
                connection.start_next_cycle()
        except (ConnectionError, h11.ProtocolError, asyncio.CancelledError):
            self.got.append("hung up")
        finally:
            writer.close()

    async def _reply(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]
    ) -> None:
        async def out(event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
            writer.write(connection.send(event) or b"")
            await writer.drain()

        status = self.does.refuse or (self.does.models if path == "/v1/models" else 200)
        if status != 200 or path == "/v1/models":
            text: dict[str, Any] = (
                {"error": {"message": self.does.says}} if status != 200 else {"object": "list", "data": []}
            )
            await out(h11.Response(status_code=status, headers=[("content-type", "application/json")]))
            await out(h11.Data(data=json.dumps(text).encode()))
            await out(h11.EndOfMessage())
            return
        self.got.append("asked")
        await out(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")]))
        async for index, event in _counted(self._events(body)):
            if index == self.does.break_after:
                writer.transport.abort()
                raise ConnectionError
            await asyncio.sleep(self.does.token_s)
            if writer.transport.is_closing():
                raise ConnectionError
            await out(h11.Data(data=f"data: {event}\n\n".encode()))
        await out(h11.EndOfMessage())
        self.got.append("answered")

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        words = ANSWER.replace(" ", "\0 ").split("\0")
        for index, word in enumerate(words):
            if index == 1 and self.does.spoil:
                yield self.does.spoil
            yield json.dumps({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        yield json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
            yield json.dumps({"choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 8}}})
        yield "[DONE]"


class Ear:
    """Words of what was heard since the last `take`."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.silence_s = 0.0
        self.until = 0.0
        self._samples = array("h")

    def hear(self, pcm: bytes) -> Iterator[int]:
        """The words of each 100 ms that this completes, 0 for silence; `until` follows them."""
        self._samples.frombytes(pcm)
        size = round(WORD_S * RATE)
        while len(self._samples) >= size:
            block, self._samples = self._samples[:size], self._samples[size:]
            self.until += WORD_S
            yield self._add(block)

    def _add(self, block: array[int]) -> int:
        word = round(sum(map(abs, block)) / len(block) / 100)
        self.silence_s = 0.0 if word else self.silence_s + WORD_S
        if word and (not self.words or self.words[-1] != f"w{word}"):
            self.words.append(f"w{word}")
        return word

    def flush(self) -> None:
        if self._samples:
            self._add(self._samples)
            self.until += len(self._samples) / RATE
            self._samples = array("h")

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def take(self) -> str:
        text, self.words = self.text, []
        return text


async def send(socket: ServerConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def _counted(events: AsyncIterator[str]) -> AsyncIterator[tuple[int, str]]:
    index = 0
    async for event in events:
        yield index, event
        index += 1


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[str, str, dict[str, Any]] | None:
    """Path, key and body of the next request; None when there is none."""
    path = key = ""
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            path = event.target.decode()
            key = dict(event.headers).get(b"authorization", b"none").decode().split()[-1]
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return path, key, json.loads(body) if body else {}
        elif isinstance(event, h11.ConnectionClosed):
            return None
