"""Bedrock as Nova Sonic speaks through it, in memory, for AWS' own SDK (Python 3.12 and later).

It takes the place of the SDK's HTTP/2 transport and no more: what it is sent was signed and framed by
the SDK, and what it answers is framed, checked and parsed by it. It is as strict about the order of
events as the documentation of Nova Sonic is.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
from io import BytesIO
from typing import Any

from voicectl.clock import Clock

WORDS = ("Sure, I can do that.", "Anything else?")


class Bedrock:
    SUPPORTS_DUPLEX_STREAMING = True
    TIMEOUT_EXCEPTIONS = (TimeoutError,)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refuse: tuple[int, str, str] | None = None
        """Answer with this status, this exception and this message."""
        self.raises: tuple[str, str] | None = None
        """Send this exception, with this message, after the first sound."""
        self.cut = False
        """End the stream after the first sound."""
        self.spoil = b""
        """What is sent after the first sound."""
        self.exchanges: list[list[tuple[str, dict[str, Any]]]] = []
        """What each was sent: the kind and the body of every event."""
        self.signed: list[str] = []
        """How each request was signed."""
        self.ended = 0
        self._tasks: list[asyncio.Task[None]] = []

    def __deepcopy__(self, memo: Any) -> Bedrock:
        return self

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def send(self, request: Any, **more: Any) -> Any:
        fields, aio = importlib.import_module("smithy_http"), importlib.import_module("smithy_http.aio")
        types = importlib.import_module("smithy_core.aio.types")
        self.signed.append(request.fields["Authorization"].as_string())

        def response(status: int, kind: str, body: Any, **headers: str) -> Any:
            told = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
            sent = fields.Fields([fields.Field(name=name, values=[value]) for name, value in told.items()])
            return aio.HTTPResponse(status=status, fields=sent, body=body)

        if self.refuse:
            status, name, message = self.refuse
            body = json.dumps({"message": message}).encode()
            return response(status, "application/json", body, x_amzn_errortype=name)
        answers = types.AsyncBytesProvider(max_buffered_chunks=1000)
        got: list[tuple[str, dict[str, Any]]] = []
        self.exchanges.append(got)
        self._tasks.append(self.clock.spawn(self._serve(request.body, answers, got), name="bedrock"))
        return response(200, "application/vnd.amazon.eventstream", answers)

    async def _serve(self, body: Any, answers: Any, got: list[tuple[str, dict[str, Any]]]) -> None:
        events = importlib.import_module("smithy_aws_event_stream.events")
        reader = importlib.import_module("smithy_core.aio.types").AsyncBytesReader(body)
        talking: asyncio.Task[None] | None = None
        kinds: dict[str, dict[str, Any]] = {}
        try:
            while outer := await events.Event.decode_async(reader):
                if not outer.message.payload:
                    break  # the end, signed
                assert ":chunk-signature" in outer.message.headers
                inner = events.Event.decode(BytesIO(outer.message.payload))
                sent = json.loads(base64.b64decode(json.loads(inner.message.payload)["bytes"]))
                [(kind, told)] = sent["event"].items()
                _check(kind, told, got, kinds)
                got.append((kind, told))
                if kind == "contentEnd":
                    block = kinds.pop(told["contentName"])
                    if block["role"] == "USER" and block["interactive"]:
                        talking = self.clock.spawn(self._talk(answers, got, events), name="nova talks")
                        self._tasks.append(talking)
                elif kind == "sessionEnd":
                    if talking:
                        await asyncio.wait([talking])
                    await answers.close()
        finally:
            self.ended += 1

    async def _talk(self, answers: Any, got: list[tuple[str, dict[str, Any]]], events: Any) -> None:
        async def frame(payload: bytes, kind: str = "chunk", of: str = "event") -> None:
            headers = {":content-type": "application/json", ":message-type": of}
            headers[f":{of}-type"] = kind
            await answers.write(events.EventMessage(headers=headers, payload=payload).encode())

        async def tell(kind: str, **more: Any) -> None:
            inner = json.dumps({"event": {kind: {"sessionId": "s", "promptName": "call", **more}}}).encode()
            await frame(json.dumps({"bytes": base64.b64encode(inner).decode()}).encode())

        async def text(id: str, role: str, stage: str, words: str, stop: str) -> None:
            fields = json.dumps({"generationStage": stage})
            await tell("contentStart", contentId=id, type="TEXT", role=role, additionalModelFields=fields)
            await tell("textOutput", contentId=id, role=role, content=words)
            await tell("contentEnd", contentId=id, type="TEXT", stopReason=stop)

        sound = b"".join(base64.b64decode(told["content"]) for kind, told in got if kind == "audioInput")
        asked = [told["content"] for kind, told in got if kind == "textInput"][-1]
        await tell("completionStart", completionId="c")
        if sound:
            await text("heard", "USER", "FINAL", f"{len(sound) // 32} ms", "PARTIAL_TURN")
        says = [asked.partition(": ")[2]] if asked.startswith("Say exactly") else list(WORDS)
        for index, words in enumerate(says):
            last = index == len(says) - 1
            await text(f"plan {index}", "ASSISTANT", "SPECULATIVE", words, "PARTIAL_TURN")
            await tell("contentStart", contentId=f"sound {index}", type="AUDIO", role="ASSISTANT")
            for _ in range(5):
                await self.clock.sleep_until(self.clock.now() + 0.01)
                pcm = base64.b64encode(bytes(2 * 2400)).decode()
                await tell("audioOutput", contentId=f"sound {index}", content=pcm)
                if self.raises:
                    await frame(json.dumps({"message": self.raises[1]}).encode(), self.raises[0], "exception")
                if self.spoil:
                    await frame(json.dumps({"bytes": base64.b64encode(self.spoil).decode()}).encode())
                if self.cut:
                    return await answers.close()
            stop = "END_TURN" if last else "PARTIAL_TURN"
            await tell("contentEnd", contentId=f"sound {index}", type="AUDIO", stopReason=stop)
        total = {"input": {"speechTokens": 20, "textTokens": 7}, "output": {"speechTokens": 30, "textTokens": 9}}
        await tell("usageEvent", details={"total": total}, totalInputTokens=27, totalOutputTokens=39)
        await text("said", "ASSISTANT", "FINAL", " ".join(says), "END_TURN")
        return None


def _check(
    kind: str, told: dict[str, Any], got: list[tuple[str, dict[str, Any]]], open_: dict[str, dict[str, Any]]
) -> None:
    """Events in the order that Nova demands."""
    before = [name for name, _ in got]
    match kind:
        case "sessionStart":
            assert before == []
        case "promptStart":
            assert before == ["sessionStart"]
        case "contentStart":
            assert told["contentName"] not in open_
            first = "contentStart" not in before
            assert (told["role"] == "SYSTEM") == first, "the system prompt comes first"
            texts = [body for name, body in got if name == "contentStart" and body["role"] != "SYSTEM"]
            assert texts or first or told["role"] == "USER", "the caller begins"
            open_[told["contentName"]] = told
        case "textInput" | "audioInput":
            assert open_[told["contentName"]]["type"] == kind.removesuffix("Input").upper()
            assert told["content"]
        case "promptEnd" | "sessionEnd":
            assert not open_
        case _:
            assert kind == "contentEnd"
