"""Amazon Nova Sonic, a model that hears and speaks, through AWS' own SDK, which needs Python 3.12.

What lives here: conversations, each answer as an exchange of its own, and errors as people can use
them. What must not: when to answer, how much of an answer was heard.

Nova keeps what it has said and cannot be told that nobody heard it, nor when to answer but by the end
of the sound. So an exchange (a bidirectional stream) is opened when the caller begins to speak; it is
told what was really said so far, hears the turn as it is spoken, and ends with its answer. Several of
them share one HTTP/2 connection. An exchange lasts 8 minutes at most, a call as long as it likes.

Nova would answer by itself after a long pause; it is asked for its most patient way, and an answer that
comes before it is asked for waits.

The credentials are found as AWS finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import importlib.util
import itertools
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import FailureKind, MissingExtra, ProviderError
from voicectl.pipeline.protocols import (
    AudioDelta,
    CallerSaid,
    Progress,
    S2sChunk,
    S2sNews,
    S2sStream,
    S2sUsage,
    TextDelta,
)

MODELS = None

_MODEL = "amazon.nova-2-sonic-v1:0"
_WHERE = "s2s:nova-sonic"
_NEEDS = (3, 12)
_PACKAGES = ("aws_sdk_bedrock_runtime", "awscrt")
_FRAME = round(0.032 * PIPELINE_RATE) * SAMPLE_WIDTH  # what AWS asks to send at once
_LINGER_S = 3.0  # what an answer cost is told after it
_CLOSE_S = 1.0
_PROMPT = "call"
_BEGINS = "(The call begins.)"
_SILENT = "(The caller says nothing.)"
_LPCM: dict[str, Any] = {
    "mediaType": "audio/lpcm",
    "sampleSizeBits": 16,
    "channelCount": 1,
    "encoding": "base64",
    "audioType": "SPEECH",
}

_KINDS: dict[str, FailureKind] = {
    "ThrottlingException": "rate_limited",
    "ServiceQuotaExceededException": "rate_limited",
    "InternalServerException": "server",
    "ServiceUnavailableException": "server",
    "ModelErrorException": "server",
    "ModelStreamErrorException": "server",
    "ModelNotReadyException": "server",
    "ModelTimeoutException": "timeout",
    "ClientTimeoutError": "timeout",
    "AccessDeniedException": "refused",
    "ValidationException": "refused",
    "ResourceNotFoundException": "refused",
    "SmithyIdentityError": "refused",
    "AwsCrtError": "unreachable",
    "SmithyHTTPError": "unreachable",
    "OSError": "unreachable",
    "ConnectionError": "unreachable",
    "EventError": "protocol",
}
"""By the name of the SDK's exception, or of one it is derived from."""

_HINTS = {
    "AccessDeniedException": "Look at the credentials, the region and the access to the model",
    "SmithyIdentityError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "ValidationException": "Look at model and region",
    "ResourceNotFoundException": "Look at model and region",
    "ThrottlingException": "Try fewer calls at once",
}


class Options(BaseModel):
    """Which voice, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str = Field("us-east-1", description="AWS region that has the model.")
    base_url: str | None = Field(None, description="Where Bedrock, or a server that speaks as it, is.")
    voice: str = Field("matthew", description="The voice's name.")
    max_tokens: int = Field(1024, ge=1, le=10_000, description="Longest answer, in tokens.")
    temperature: float | None = Field(None, ge=0, le=1, description="0 always takes the likeliest token.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next piece, ms.")


class NovaSonic:
    """Any number of conversations at once."""

    name = "nova-sonic"
    rate = 24_000

    def __init__(self, options: Options, model: str | None, clock: Clock, *, transport: Any = None) -> None:
        self.options = options
        self.model = model or _MODEL
        self.clock = clock
        self.client: Any = None
        self._transport = transport

    async def start(self, progress: Progress) -> None:
        """Make the client; it connects when the first caller speaks.

        Raises:
            MissingExtra: AWS' SDK is not installed.
            ProviderError: this Python is too old, or there are no credentials.
        """
        if self.client:
            return
        if sys.version_info < _NEEDS:
            wanted, this = ".".join(map(str, _NEEDS)), ".".join(map(str, sys.version_info[:3]))
            hint = "There run: pip install 'voicectl[aws]'"
            raise ProviderError(
                f"needs Python {wanted} or later; this is {this}", where=_WHERE, hint=hint, kind="refused"
            )
        for package in _PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, "aws", where=_WHERE)
        progress(f"preparing {self.model}")
        self.client = await self._make_client()

    def open(self, instructions: str) -> S2sStream:
        if self.client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        return _Conversation(self, instructions)

    async def aclose(self) -> None:
        client, self.client = self.client, None
        if client:
            await client.close()

    async def _make_client(self) -> Any:
        sdk, config, crt = await self.clock.run(_import_sdk)
        told: dict[str, Any] = {
            "region": self.options.region,
            "transport": self._transport or crt.AWSCRTHTTPClient(),
            # A second try is a wrapper's business; this one would send the stream's beginning again.
            "max_attempts": 1,
        }
        if self.options.base_url:
            told["endpoint_uri"] = self.options.base_url
        client = sdk.AsyncBedrockRuntimeClient(config=await config.AsyncBedrockRuntimeConfig.resolve(**told))
        try:  # a stream without credentials would wait for ever
            found = await client._ensure_setup()
            await found.aws_credentials_identity_resolver.get_identity(properties={})
        except Exception:  # noqa: BLE001 - each way of finding them fails in its own
            await client.close()
            hint = _HINTS["SmithyIdentityError"]
            raise ProviderError("has no credentials", where=_WHERE, hint=hint, kind="refused") from None
        return client


@dataclass(slots=True, eq=False)
class _Said:
    """Something of the conversation as Nova is told it, and of ours how long its sound was."""

    role: str
    text: str
    seconds: float = 0.0


class _Conversation:
    """One call."""

    def __init__(self, nova: NovaSonic, instructions: str) -> None:
        self._nova = nova
        self._instructions = instructions
        self._said: list[_Said] = []
        self._hearing: _Exchange | None = None
        self._exchanges: set[_Exchange] = set()
        self._answers = 0
        self._news: asyncio.Queue[S2sNews | None] = asyncio.Queue()  # two an answer: few
        self._closed = False

    def hear_from(self, start: float) -> None:
        """What was spoken at several times is heard as one."""

    def forget(self) -> None:
        hearing, self._hearing = self._hearing, None
        if hearing:
            hearing.stop()

    def push(self, pcm: bytes) -> None:
        if self._hearing is None:
            self._hearing = self._exchange()
            self._hearing.listen()
        self._hearing.push(pcm)

    def respond(self) -> AsyncGenerator[S2sChunk, None]:
        exchange, self._hearing = self._hearing, None
        if exchange is None:
            exchange = self._exchange()
            exchange.ask(_SILENT)
        else:
            exchange.end_of_sound()
        return self._answer(exchange, _SILENT)

    def say(self, text: str) -> AsyncGenerator[S2sChunk, None]:
        exchange = self._exchange()
        exchange.ask(f"Say exactly this and nothing else: {text}")
        return self._answer(exchange, "")

    def truncate(self, heard_s: float) -> None:
        if not self._said or self._said[-1].role != "ASSISTANT":
            return
        last = self._said[-1]
        words = last.text.split()
        share = min(1.0, heard_s / last.seconds) if last.seconds else 0.0
        last.text = " ".join(words[: round(share * len(words))])

    async def __aiter__(self) -> AsyncIterator[S2sNews]:
        while (news := await self._news.get()) is not None:
            yield news

    async def aclose(self) -> None:
        if self._closed:
            return
        tasks = [exchange.task for exchange in self._exchanges]
        for exchange in list(self._exchanges):
            exchange.stop()
        if tasks:
            await asyncio.wait(tasks)
        self._closed = True
        self._news.put_nowait(None)

    def _exchange(self) -> _Exchange:
        exchange = _Exchange(self._nova, self._instructions, tuple(self._said), self._news.put_nowait)
        self._exchanges.add(exchange)
        exchange.task.add_done_callback(lambda _: self._exchanges.discard(exchange))
        return exchange

    def _answer(self, exchange: _Exchange, otherwise: str) -> AsyncGenerator[S2sChunk, None]:
        self._answers += 1
        exchange.asked(self._answers)
        return self._chunks(exchange, otherwise)

    async def _chunks(self, exchange: _Exchange, otherwise: str) -> AsyncGenerator[S2sChunk, None]:
        """What is said becomes part of the conversation; how much of it stays, `truncate` tells."""
        mine = _Said("ASSISTANT", "")
        try:
            while chunk := await exchange.next(self._nova.options.timeout_ms / 1000):
                if mine not in self._said:
                    if exchange.heard:
                        self._news.put_nowait(CallerSaid(exchange.answer, exchange.heard))
                    if caller := exchange.heard or otherwise:
                        self._said.append(_Said("USER", caller))
                    self._said.append(mine)
                if isinstance(chunk, TextDelta):
                    mine.text += chunk.text
                else:
                    mine.seconds += len(chunk.pcm) / SAMPLE_WIDTH / self._nova.rate
                yield chunk
        finally:
            if not exchange.over:
                exchange.stop()


class _Exchange:
    """One stream: a turn of the caller and its answer. `next` gives the answer's pieces."""

    def __init__(
        self, nova: NovaSonic, instructions: str, said: tuple[_Said, ...], tell: Callable[[S2sNews], None]
    ) -> None:
        self._nova = nova
        self._tell = tell
        self.answer = 0  # its number, when it is asked for
        self.heard = ""  # of the caller, as text
        self.over = False  # the answer is all there
        self._blocks: dict[str, tuple[str, str, str]] = {}  # type, role and stage of what is being sent to us
        self._usage: dict[str, Any] = {}
        self._names = itertools.count(1)
        self._sound = ""  # the name of the block that the caller's sound goes into
        self._rest = bytearray()
        self._spoken = False
        self._stopped = False
        self._halves: list[Any] = []  # of the stream
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()  # a turn of the caller
        self._in: asyncio.Queue[S2sChunk | ProviderError | None] = asyncio.Queue()  # an answer
        self._begin(instructions, said)
        self.task = nova.clock.spawn(self._run(), name="nova sonic")

    # What Nova is sent -------------------------------------------------------------------------

    def listen(self) -> None:
        """The caller's sound follows."""
        self._sound = f"sound-{next(self._names)}"
        sound = {**_LPCM, "sampleRateHertz": PIPELINE_RATE}
        more = {"type": "AUDIO", "interactive": True, "role": "USER", "audioInputConfiguration": sound}
        self._send("contentStart", contentName=self._sound, **more)

    def push(self, pcm: bytes) -> None:
        self._rest += pcm
        while len(self._rest) >= _FRAME:
            self._send_sound(_FRAME)

    def end_of_sound(self) -> None:
        if self._rest:
            self._send_sound(len(self._rest))
        self._send("contentEnd", contentName=self._sound)

    def ask(self, text: str) -> None:
        self._text("USER", text, interactive=True)

    def _begin(self, instructions: str, said: tuple[_Said, ...]) -> None:
        options = self._nova.options
        inference: dict[str, Any] = {"maxTokens": options.max_tokens}
        if options.temperature is not None:
            inference["temperature"] = options.temperature
        turns = {"endpointingSensitivity": "LOW"}
        start = {"inferenceConfiguration": inference, "turnDetectionConfiguration": turns}
        self._out.put_nowait({"sessionStart": start})
        sound = {**_LPCM, "sampleRateHertz": self._nova.rate, "voiceId": options.voice}
        text = {"mediaType": "text/plain"}
        self._send("promptStart", textOutputConfiguration=text, audioOutputConfiguration=sound)
        self._text("SYSTEM", instructions)
        for role, words in _history(said):
            self._text(role, words)

    def _text(self, role: str, text: str, *, interactive: bool = False) -> None:
        name = f"text-{next(self._names)}"
        kind = {"type": "TEXT", "interactive": interactive, "role": role}
        self._send("contentStart", contentName=name, **kind, textInputConfiguration={"mediaType": "text/plain"})
        self._send("textInput", contentName=name, content=text)
        self._send("contentEnd", contentName=name)

    def _send_sound(self, size: int) -> None:
        pcm = bytes(self._rest[:size])
        del self._rest[:size]
        self._send("audioInput", contentName=self._sound, content=base64.b64encode(pcm).decode())

    def _send(self, kind: str, **body: Any) -> None:
        self._out.put_nowait({kind: {"promptName": _PROMPT, **body}})

    # What it answers ---------------------------------------------------------------------------

    async def next(self, timeout: float) -> S2sChunk | None:
        """The next piece; None after the last."""
        try:
            async with asyncio.timeout(timeout):
                piece = await self._in.get()
        except TimeoutError:
            said = f"bedrock sends nothing for {1000 * timeout:.0f} ms"
            raise ProviderError(said, where=_WHERE, kind="timeout") from None
        if isinstance(piece, ProviderError):
            raise piece
        return piece

    def asked(self, answer: int) -> None:
        """It is wanted now, as answer number `answer`."""
        self.answer = answer
        if self.task.done():
            self._tell(self._cost())

    def stop(self) -> None:
        if not self._stopped:  # a second time would disturb the closing
            self._stopped = True
            self.task.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        kind, body = next(iter(message["event"].items()))
        match kind:
            case "contentStart":
                fields = json.loads(body.get("additionalModelFields") or "{}")
                self._blocks[body["contentId"]] = (body["type"], body["role"], fields.get("generationStage", ""))
            case "textOutput":
                self._take_text(self._blocks[body["contentId"]], body["content"].strip())
            case "audioOutput":
                self._in.put_nowait(AudioDelta(base64.b64decode(body["content"], validate=True)))
            case "contentEnd":
                what, role, stage = self._blocks.pop(body["contentId"])
                last = body.get("stopReason") in ("END_TURN", "INTERRUPTED")
                if role == "ASSISTANT" and last and (what == "AUDIO" or stage == "FINAL"):
                    self._finish()
            case "completionEnd":
                self._finish()
            case "usageEvent":
                self._usage = body
            case _:
                pass

    def _take_text(self, block: tuple[str, str, str], text: str) -> None:
        _, role, stage = block
        if role == "USER":
            self.heard = f"{self.heard} {text}".strip()
        elif role == "ASSISTANT" and stage == "SPECULATIVE":  # later it says again what it has said
            self._in.put_nowait(TextDelta(f" {text}" if self._spoken else text))
            self._spoken = True

    def _finish(self) -> None:
        """The answer is there; what it cost may follow."""
        if self.over:
            return
        self.over = True
        self._in.put_nowait(None)
        self._send("promptEnd")
        self._out.put_nowait({"sessionEnd": {}})

    async def _run(self) -> None:
        try:
            await self._exchange()
            if not self.over:
                raise ProviderError("the answer was cut", where=_WHERE, kind="unreachable")
        except ProviderError as error:
            self._in.put_nowait(error)
        except Exception as error:  # noqa: BLE001 - whatever the SDK and what is below it raise
            self._in.put_nowait(_explain(error))
        finally:
            self._in.put_nowait(None)
            if self.answer:
                self._tell(self._cost())
            for half in self._halves:
                await _close(half, self._nova.clock)

    async def _exchange(self) -> None:
        clock, models = self._nova.clock, importlib.import_module("aws_sdk_bedrock_runtime.models")
        asking = models.InvokeModelWithBidirectionalStreamOperationInput(model_id=self._nova.model)
        stream = await self._nova.client.invoke_model_with_bidirectional_stream(asking)
        sending = clock.spawn(self._send_all(stream.input_stream, models), name="nova sonic sending")
        try:
            _, answers = await stream.await_output()
            self._halves += [stream.input_stream, answers]  # of a stream that was refused nobody reads one half
            while event := await self._event(answers):
                try:
                    self._take(json.loads(event.value.bytes_))
                except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
                    raise ProviderError("bedrock sends what is no answer", where=_WHERE, kind="protocol") from None
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def _event(self, answers: Any) -> Any:
        try:
            async with asyncio.timeout(_LINGER_S if self.over else None):
                return await answers.receive()
        except TimeoutError:
            return None

    async def _send_all(self, stream: Any, models: Any) -> None:
        while True:
            payload = json.dumps({"event": await self._out.get()}).encode()
            part = models.BidirectionalInputPayloadPart(bytes_=payload)
            try:
                await stream.send(models.InvokeModelWithBidirectionalStreamInputChunk(value=part))
            except OSError:
                return  # whoever reads will hear why

    def _cost(self) -> S2sUsage:
        used = self._usage
        details: dict[str, dict[str, dict[str, int]]] = used.get("details") or {}
        total = details.get("total", {})
        heard, spoken = total.get("input", {}), total.get("output", {})
        return S2sUsage(
            self.answer,
            self._nova.model,
            prompt_tokens=used.get("totalInputTokens"),
            completion_tokens=used.get("totalOutputTokens"),
            audio_in_tokens=heard.get("speechTokens"),
            audio_out_tokens=spoken.get("speechTokens"),
            estimated=not self.over,
        )


def _history(said: tuple[_Said, ...]) -> list[tuple[str, str]]:
    """What was said so far, as Nova takes it: the caller first, and by turns."""
    turns: list[tuple[str, str]] = []
    for one in said:
        if not one.text.strip():
            continue
        if turns and turns[-1][0] == one.role:
            turns[-1] = (one.role, f"{turns[-1][1]} {one.text}")
        else:
            turns.append((one.role, one.text))
    return [("USER", _BEGINS), *turns] if turns and turns[0][0] != "USER" else turns


async def _close(half: Any, clock: Clock) -> None:
    """What nobody reads any more cannot be closed in order: the SDK would wait, even when it is cancelled
    once."""
    closing = clock.spawn(half.close(), name="nova sonic closing")
    await asyncio.wait([closing], timeout=_CLOSE_S)
    for _ in range(5):
        if closing.done():
            break
        closing.cancel()
        await asyncio.wait([closing], timeout=_CLOSE_S / 10)
    if closing.done() and not closing.cancelled():
        closing.exception()  # then it is closed, too


def _explain(error: Exception) -> ProviderError:
    names = [kind.__name__ for kind in type(error).__mro__]
    known = next((name for name in names if name in _KINDS), "")
    said = " ".join(str(error).split()) or names[0]
    cause = " ".join(str(error.__cause__ or "").split())
    what = f"bedrock: {said.rstrip('.').lower() if known == 'OSError' else said}"
    if known == "OSError" and cause:
        what += f": {cause}"
    return ProviderError(what, where=_WHERE, hint=_HINTS.get(known), kind=_KINDS.get(known, "failed"))


def _import_sdk() -> tuple[Any, Any, Any]:
    importlib.import_module("aws_sdk_bedrock_runtime.models")
    return (
        importlib.import_module("aws_sdk_bedrock_runtime.client"),
        importlib.import_module("aws_sdk_bedrock_runtime.config"),
        importlib.import_module("smithy_http.aio.crt"),
    )
