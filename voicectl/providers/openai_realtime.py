"""OpenAI's Realtime API through OpenAI's own SDK: a model that hears and speaks by itself.

What lives here: websockets that are open before a call begins, one a call; what goes over them, and what
comes back as sound, text and news. What must not: whose turn it is. Turn detection at OpenAI is off: the
caller's speech is committed, and answered, when our own endpointing says so.

- The model's memory is the conversation at OpenAI's end. What the caller did not hear of an answer is
  taken out of it (`conversation.item.truncate`, or `delete` where they heard nothing).
- OpenAI answers one thing at a time. A new answer waits until the old one is told to be over, which was
  cancelled long before as a rule: when the caller began to speak.
- A websocket that breaks in the middle of a call is opened again; what was said is told to the new one as
  text, since the sound is gone with the old one.
- What OpenAI transcribes of the caller is made by another model, beside the conversation.

Messages are read raw from the SDK's websocket: of each we need a few values, and the SDK's models of them
cost more than all else here.

The SDK reads the key from OPENAI_API_KEY.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH, Resampler
from voicectl.clock import Clock
from voicectl.errors import FailureKind, ProviderError, VoicectlError, kind_of_status, masked, retry_after
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

SAY = "Say the following to the caller, word for word, in the language it is written in, and nothing else:\n"
"""How the model is asked for a fixed text. It is a request, not a recording."""

_WHERE = "s2s:openai"
_RATE = 24_000
_LEAST_S = 0.1  # OpenAI takes no shorter turn
_REPLACED_EVERY_S = 5.0  # websockets that are closed as soon as they are open
_KEEP_S = 1800.0  # OpenAI closes a session after an hour: one that is older when a call begins is not used
_CLOSE_S = 1.0
_IN_TOKENS_S, _OUT_TOKENS_S = 10, 20  # audio tokens a second, where OpenAI has no chance to tell


class Options(BaseModel):
    """How the model sounds and hears, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://api.openai.com/v1", description="Where OpenAI, or a server that speaks as it, is.")
    voice: str = Field("marin", description="The voice, such as marin or cedar.")
    speed: float | None = Field(None, ge=0.25, le=1.5, description="How fast it speaks; 1 is its own pace.")
    max_tokens: int | None = Field(None, ge=1, le=4096, description="Longest answer, in tokens.")
    transcription: str | None = Field(
        "gpt-transcribe", description="The model that writes down what the caller said, for the trace. null: none."
    )
    language: str | None = Field(None, description="The caller's language, for the transcription: en.")
    timeout_ms: int = Field(10_000, ge=100, le=600_000, description="Longest wait for the next piece, ms.")
    connections: int = Field(1, ge=1, le=100, description="Websockets kept open for calls to come.")


class OpenAiRealtime:
    """One websocket a call."""

    name = "openai"
    rate = _RATE

    def __init__(self, options: Options, model: str | None, clock: Clock, *, api_key: str | None = None) -> None:
        self.options = options
        self.model = model
        self.clock = clock
        self._api_key = api_key
        self._client: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._replaced = -math.inf  # when a spare one last was
        self._spare: list[_Connection] = []

    async def start(self, progress: Progress) -> None:
        """Open the first websockets.

        Raises:
            ProviderError: no model, no key, or OpenAI cannot be reached or does not accept us.
        """
        if self._client:
            return
        if not self.model:
            raise ProviderError("needs the name of a model", where=_WHERE, hint="Add `model:`", kind="refused")
        openai = await self.clock.run(_import_sdk)
        progress(f"connecting to {self._place} {self.model}")
        try:
            self._client = openai.AsyncOpenAI(
                api_key=self._api_key, base_url=self.options.base_url, max_retries=0,
                timeout=self.options.timeout_ms / 1000,
            )  # fmt: skip
        except openai.OpenAIError:
            raise ProviderError("has no key", where=_WHERE, hint="Set OPENAI_API_KEY", kind="refused") from None
        self._refill()
        first = self._spare[0]
        await first.ready.wait()
        if first.error:
            await self.aclose()
            raise first.error

    def open(self, instructions: str) -> S2sStream:
        if self._client is None:
            raise ProviderError("was asked before it was started", where=_WHERE, kind="refused")
        return _Conversation(self, instructions)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        self._spare.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        if client:
            await client.close()

    # Websockets --------------------------------------------------------------------------------

    def take(self) -> _Connection:
        """A websocket for a call, open already if one is kept. One that is still being opened may be
        refused for what was true a while ago, and is left to later calls."""
        young = self.clock.now() - _KEEP_S
        for old in [one for one in self._spare if one.since < young]:
            self._spare.remove(old)
            old.close()
        found = next((one for one in self._spare if one.opened), None)
        if found:
            self._spare.remove(found)
        self._refill()
        return found or self._connect()

    def lost(self, connection: _Connection) -> None:
        """It has ended; one that was good is replaced, unless that was done a moment ago: then by the next call."""
        if connection in self._spare:
            self._spare.remove(connection)
            now = self.clock.now()
            if self._client and connection.opened and now - self._replaced >= _REPLACED_EVERY_S:
                self._replaced = now
                self._refill()

    def connect(self) -> Any:
        """A new websocket, as the SDK opens it."""
        return self._client.realtime.connect(model=self.model)

    def _connect(self) -> _Connection:
        connection = _Connection(self)
        self._tasks.add(connection.task)
        connection.task.add_done_callback(self._tasks.discard)
        return connection

    def _refill(self) -> None:
        while len(self._spare) < self.options.connections:
            self._spare.append(self._connect())

    # Words for people --------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return urlsplit(self.options.base_url).netloc.rpartition("@")[2] or "the server"

    def late(self, what: str) -> ProviderError:
        return ProviderError(
            f"{self._place} does not {what} within {self.options.timeout_ms} ms", where=_WHERE, kind="timeout"
        )

    def refusal(self, error: Any) -> ProviderError:
        """The one line for an error that OpenAI tells, as JSON."""
        known = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
        name = f"{known.get('type')} {known.get('code')}"
        kind: FailureKind = "failed"
        if "rate_limit" in name or "429" in name or "quota" in name:
            kind = "rate_limited"
        elif "server" in name or "500" in name:
            kind = "server"
        elif "invalid" in name or "401" in name:
            kind = "refused"
        said = self._masked(str(known.get("message") or "no reason given"))
        hint = "Look at OPENAI_API_KEY" if "401" in name or "api_key" in name else None
        return ProviderError(f"{self._place}: {said}", where=_WHERE, hint=hint, kind=kind)

    def explain(self, error: BaseException) -> ProviderError:
        """The one line for what the SDK raises. Its own text is not for people: it may show the key."""
        response = getattr(error, "response", None)
        status: int | None = getattr(response, "status_code", None)
        closed: int | None = getattr(getattr(error, "rcvd", None), "code", None)
        hint = None
        retry_after_s = None
        if status:
            kind: FailureKind = kind_of_status(status)
            what = f"{self._place} answers {status} to a websocket"
            hints = {401: "Look at OPENAI_API_KEY", 403: "Look at OPENAI_API_KEY", 404: "Look at model and base_url"}
            hint = "Try fewer calls at once" if status == 429 else hints.get(status)
            retry_after_s = retry_after(getattr(response, "headers", {}).get("Retry-After"))
        elif closed:
            what = f"{self._place} closed the websocket ({closed})"
            kind = (
                "refused"
                if closed in (1003, 1007, 1008)
                else "server"
                if closed in (1011, 1012, 1013)
                else "unreachable"
            )
        elif isinstance(error, TimeoutError):
            what, kind = f"{self._place} does not answer", "timeout"
        elif isinstance(error, OSError):
            why = (error.strerror or str(error) or "no answer").lower()
            what, kind, hint = f"cannot reach {self._place}: {why}", "unreachable", "Look at the network and base_url"
        else:
            what, kind = f"the websocket to {self._place} was dropped ({type(error).__name__})", "unreachable"
        return ProviderError(self._masked(what), where=_WHERE, hint=hint, kind=kind, retry_after_s=retry_after_s)

    def _masked(self, said: str) -> str:
        key = self._client.api_key if self._client else self._api_key
        return masked(said, key).rstrip(".")


class _Connection:
    """One websocket. What is sent before it is open waits for that."""

    def __init__(self, provider: OpenAiRealtime) -> None:
        self._provider = provider
        self._outbox: deque[dict[str, Any]] = deque()  # as long as the network is behind
        self._something = asyncio.Event()  # to send, or the websocket is gone
        self._gone = False
        self.owner: _Conversation | None = None
        self.ready = asyncio.Event()  # or failed
        self.opened = False
        self.closed = False  # by us; the other side may take its time
        self.error: ProviderError | None = None
        self.since = provider.clock.now()
        self.task = provider.clock.spawn(self._run(), name="realtime websocket")

    def send(self, **message: Any) -> None:
        """Never blocks: the one writer sends in order."""
        self._outbox.append(message)
        self._something.set()

    def close(self) -> None:
        self.owner = None
        self.closed = True
        self.task.cancel()

    async def _run(self) -> None:
        import openai
        import websockets

        provider = self._provider
        try:
            async with provider.connect() as socket:
                reader = provider.clock.spawn(self._read(socket), name="realtime reader")
                try:
                    await self._write(socket)
                finally:
                    reader.cancel()
                    await asyncio.wait([reader])
                reader.result()
        except (OSError, websockets.WebSocketException, openai.OpenAIError) as error:
            self.error = self.error or provider.explain(error)
        except (ValueError, LookupError, TypeError, AttributeError):
            self.error = ProviderError("says what is not its protocol", where=_WHERE, kind="protocol")
        except VoicectlError as error:
            self.error = error if isinstance(error, ProviderError) else ProviderError(str(error), where=_WHERE)
        finally:
            provider.lost(self)
            self.error = self.error or ProviderError("the websocket was closed", where=_WHERE, kind="unreachable")
            self.ready.set()
            if self.owner:
                self.owner.lost(self.error)

    async def _write(self, socket: Any) -> None:
        while True:
            while self._outbox:
                await socket.send(self._outbox.popleft())
            if self._gone:
                return
            self._something.clear()
            await self._something.wait()

    async def _read(self, socket: Any) -> None:
        try:
            while True:
                message: dict[str, Any] = json.loads(await socket.recv_bytes())
                if message["type"] == "error" and self.owner is None:
                    raise self._provider.refusal(message["error"])
                self.opened = True
                self.ready.set()
                if self.owner:
                    self.owner.take(message)
        finally:
            self._gone = True
            self._something.set()


class _Answer:
    """One response of the model."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.id: str | None = None  # OpenAI's
        self.item: str | None = None
        self.content = 0
        self.text = ""
        self.bytes = 0
        self.asked = False
        self.cancelled = False
        self.truncated_s: float | None = None
        self._inbox: deque[S2sChunk | ProviderError] = deque()  # as long as the model's longest answer
        self._arrived = asyncio.Event()
        self.over = asyncio.Event()

    def give(self, piece: S2sChunk) -> None:
        self._inbox.append(piece)
        self._arrived.set()

    def end(self, error: ProviderError | None = None) -> None:
        if error:
            self._inbox.append(error)
        self.over.set()
        self._arrived.set()

    async def next(self) -> S2sChunk | None:
        """The next piece; None after the last."""
        while not self._inbox:
            if self.over.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._inbox.popleft()
        if isinstance(piece, ProviderError):
            raise piece
        return piece

    @property
    def seconds(self) -> float:
        return self.bytes / SAMPLE_WIDTH / _RATE


class _Conversation:
    """One call."""

    def __init__(self, provider: OpenAiRealtime, instructions: str) -> None:
        self._provider = provider
        self._instructions = instructions
        self._resampler = Resampler(PIPELINE_RATE, _RATE)
        self._unanswered: list[bytes] = []  # what was sent and not committed: the turn that is spoken
        self._committed: deque[tuple[int, float]] = deque()  # answer and seconds, until OpenAI names its item
        self._items: dict[str, tuple[int, float]] = {}
        self._said: list[list[str]] = []  # role and text, for a new websocket; one entry a turn
        self._said_in: dict[int, list[str]] = {}
        self._answers: dict[str, _Answer] = {}
        self._asked: deque[_Answer] = deque()  # not yet told to be begun
        self._last: _Answer | None = None
        self._number = 0
        self._broken: ProviderError | None = None
        self._news: asyncio.Queue[S2sNews | None] = asyncio.Queue()  # three an answer: few
        self._closed = False
        self._connection = self._begin()

    # The caller ----------------------------------------------------------------------------------

    def hear_from(self, start: float) -> None:
        self._reconnect()

    def forget(self) -> None:
        self._resampler = Resampler(PIPELINE_RATE, _RATE)
        if self._unanswered:
            self._unanswered.clear()
            self._connection.send(type="input_audio_buffer.clear")

    def push(self, pcm: bytes) -> None:
        self._append(self._resampler.push(pcm))

    def respond(self) -> AsyncGenerator[S2sChunk, None]:
        self._number += 1
        self._reconnect()
        self._append(self._resampler.flush())
        seconds = sum(map(len, self._unanswered)) / SAMPLE_WIDTH / _RATE
        if seconds >= _LEAST_S:
            self._unanswered.clear()
            self._committed.append((self._number, seconds))
            self._connection.send(type="input_audio_buffer.commit", event_id=f"commit-{self._number}")
            self._remember(self._number, "user", "")
        return self._answer(_Answer(self._number), {})

    def say(self, text: str) -> AsyncGenerator[S2sChunk, None]:
        self._number += 1
        self._reconnect()
        return self._answer(_Answer(self._number), {"instructions": SAY + text})

    def truncate(self, heard_s: float) -> None:
        answer = self._last
        if answer is None or answer.number != self._number or answer.truncated_s is not None:
            return
        answer.truncated_s = heard_s
        self._forget_unheard(answer)
        if answer.over.is_set():
            self._cut(answer)
        else:
            self._cancel(answer)  # and cut when it is over

    # What becomes known ----------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[S2sNews]:
        while (news := await self._news.get()) is not None:
            yield news

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        for answer in {answer.number: answer for answer in (*self._asked, *self._answers.values())}.values():
            if not answer.over.is_set():
                self._estimate(answer)
        self._news.put_nowait(None)

    # The websocket -----------------------------------------------------------------------------------

    def _begin(self) -> _Connection:
        """A websocket that knows who the agent is, and what was said."""
        options = self._provider.options
        transcription: dict[str, Any] | None = None
        if options.transcription:
            transcription = {"model": options.transcription}
            if options.language:
                transcription["language"] = options.language
        sound: dict[str, Any] = {"type": "audio/pcm", "rate": _RATE}
        output: dict[str, Any] = {"format": sound, "voice": options.voice}
        if options.speed is not None:
            output["speed"] = options.speed
        session: dict[str, Any] = {
            "type": "realtime",
            "instructions": self._instructions,
            "output_modalities": ["audio"],
            "audio": {
                "input": {"format": sound, "turn_detection": None, "transcription": transcription},
                "output": output,
            },
        }
        if options.max_tokens is not None:
            session["max_output_tokens"] = options.max_tokens
        connection = self._provider.take()
        connection.owner = self
        connection.send(type="session.update", session=session, event_id="session")
        return connection

    def _reconnect(self) -> None:
        """Go on with a new websocket, if the old one is gone."""
        if self._closed or not (self._connection.task.done() or self._connection.closed):
            return
        self._broken = None
        self._answers.clear()
        self._asked.clear()
        self._committed.clear()
        self._connection = self._begin()
        for role, text in self._said:
            if text:
                part = {"type": "input_text" if role == "user" else "output_text", "text": text}
                item = {"type": "message", "role": role, "content": [part]}
                self._connection.send(type="conversation.item.create", item=item)
        unanswered, self._unanswered = self._unanswered, []
        for pcm in unanswered:
            self._append(pcm)

    def lost(self, error: ProviderError) -> None:
        """The websocket has ended."""
        for answer in {id(answer): answer for answer in (*self._asked, *self._answers.values())}.values():
            if not answer.over.is_set():
                self._estimate(answer)
                answer.end(error)

    def take(self, message: dict[str, Any]) -> None:
        """What came over the websocket."""
        kind: str = message["type"]
        if kind == "error":
            self._refused(message["error"])
        elif kind == "input_audio_buffer.committed" and self._committed:
            self._items[message["item_id"]] = self._committed.popleft()
        elif kind == "conversation.item.input_audio_transcription.completed":
            self._transcribed(message["item_id"], message["transcript"])
        elif kind == "response.created" and self._asked:
            answer = self._asked.popleft()
            answer.id = message["response"]["id"]
            self._answers[message["response"]["id"]] = answer
        elif kind == "response.done":
            self._done(message["response"])
        elif answer := self._answers.get(message.get("response_id", "")):
            if kind == "response.output_audio.delta":
                pcm = base64.b64decode(message["delta"])
                answer.item, answer.content = message["item_id"], message["content_index"]
                answer.bytes += len(pcm)
                answer.give(AudioDelta(pcm))
            elif kind == "response.output_audio_transcript.delta":
                answer.text += message["delta"]
                answer.give(TextDelta(message["delta"]))
                self._remember(answer.number, "assistant", answer.text)

    def _append(self, pcm: bytes) -> None:
        if pcm and not self._closed:
            self._unanswered.append(pcm)
            self._connection.send(type="input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    # Answers -------------------------------------------------------------------------------------------

    async def _answer(self, answer: _Answer, how: dict[str, Any]) -> AsyncGenerator[S2sChunk, None]:
        timeout_s = self._provider.options.timeout_ms / 1000
        before, self._last = self._last, answer
        try:
            if before and before.asked and not before.over.is_set():
                async with _within(timeout_s, self._provider.late("stop its last answer"), self._give_up):
                    await before.over.wait()
            if self._connection.task.done() and self._connection.error:
                raise self._connection.error
            if self._broken:
                raise self._broken
            answer.asked = True
            self._asked.append(answer)
            self._connection.send(type="response.create", response=how, event_id=f"answer-{answer.number}")
            while True:
                async with _within(timeout_s, self._provider.late("answer"), self._give_up):
                    piece = await answer.next()
                if piece is None:
                    return
                yield piece
        finally:
            if not answer.over.is_set():
                self._cancel(answer)

    def _give_up(self, error: ProviderError) -> None:
        """The websocket may be open and dead: the next answer gets another."""
        self._connection.close()
        self.lost(error)

    def _cancel(self, answer: _Answer) -> None:
        if answer.asked and not answer.cancelled:
            answer.cancelled = True
            named = {"response_id": answer.id} if answer.id else {}
            self._connection.send(type="response.cancel", event_id=f"cancel-{answer.number}", **named)

    def _cut(self, answer: _Answer) -> None:
        """Take out of the model's memory what the caller did not hear."""
        if answer.item is None or answer.truncated_s is None:
            return
        if answer.truncated_s <= 0:
            self._connection.send(
                type="conversation.item.delete", item_id=answer.item, event_id=f"delete-{answer.number}"
            )
        elif answer.truncated_s < answer.seconds:
            self._connection.send(
                type="conversation.item.truncate",
                item_id=answer.item,
                content_index=answer.content,
                audio_end_ms=int(answer.truncated_s * 1000),
                event_id=f"truncate-{answer.number}",
            )

    def _done(self, response: dict[str, Any]) -> None:
        answer = self._answers.pop(response["id"], None)
        if answer is None:
            return
        used: dict[str, Any] = response.get("usage") or {}
        if used:
            went_in: dict[str, Any] = used.get("input_token_details") or {}
            came_out: dict[str, Any] = used.get("output_token_details") or {}
            self._tell(
                S2sUsage(
                    answer.number,
                    self._provider.model,
                    prompt_tokens=used.get("input_tokens"),
                    cached_tokens=went_in.get("cached_tokens"),
                    completion_tokens=used.get("output_tokens"),
                    audio_in_tokens=went_in.get("audio_tokens"),
                    audio_out_tokens=came_out.get("audio_tokens"),
                )
            )
        for item in response.get("output") or ():
            answer.item = answer.item or item.get("id")
        failed = response.get("status") == "failed"
        details: dict[str, Any] = response.get("status_details") or {}
        answer.end(self._provider.refusal(details.get("error")) if failed else None)
        self._cut(answer)

    def _refused(self, error: dict[str, Any]) -> None:
        """An error belongs to what it answers. Of what came too late (cancel, truncate) nothing follows."""
        about, _, number = str(error.get("event_id") or "").partition("-")
        if about in ("cancel", "truncate", "delete"):
            return
        if about == "commit":
            self._committed = deque(one for one in self._committed if str(one[0]) != number)
            return
        problem = self._provider.refusal(error)
        under_way = [answer for answer in (*self._asked, *self._answers.values()) if not answer.over.is_set()]
        if about == "answer":
            under_way = [answer for answer in under_way if str(answer.number) == number]
        for answer in under_way:
            if answer in self._asked:
                self._asked.remove(answer)
            answer.end(problem)
        if about == "session" or not (under_way or about):
            self._broken = problem

    def _transcribed(self, item: str, text: str) -> None:
        if item not in self._items:
            return
        number, seconds = self._items.pop(item)
        text = text.strip()
        self._remember(number, "user", text)
        self._tell(CallerSaid(number, text))
        self._tell(S2sUsage(number, self._provider.options.transcription, stage="stt", audio_s=seconds))

    def _estimate(self, answer: _Answer) -> None:
        """OpenAI had no chance to tell what this cost."""
        if answer.asked:
            heard_s = sum(seconds for number, seconds in self._items.values() if number == answer.number)
            went_in, came_out = round(heard_s * _IN_TOKENS_S), round(answer.seconds * _OUT_TOKENS_S)
            self._tell(
                S2sUsage(
                    answer.number,
                    self._provider.model,
                    prompt_tokens=went_in,
                    completion_tokens=came_out,
                    audio_in_tokens=went_in,
                    audio_out_tokens=came_out,
                    estimated=True,
                )
            )

    def _tell(self, news: S2sNews) -> None:
        self._news.put_nowait(news)

    # What was said, for a new websocket --------------------------------------------------------------

    def _remember(self, number: int, role: str, text: str) -> None:
        key = 2 * number + (role == "assistant")
        if key not in self._said_in:
            self._said_in[key] = [role, text]
            self._said.append(self._said_in[key])
        self._said_in[key][1] = text

    def _forget_unheard(self, answer: _Answer) -> None:
        words = answer.text.split()
        share = min(1.0, (answer.truncated_s or 0.0) / answer.seconds) if answer.bytes else 0.0
        self._remember(answer.number, "assistant", " ".join(words[: int(share * len(words))]))


class _within:
    """`async with`: what takes longer than `seconds` raises `error`, of which `late` is told before."""

    def __init__(self, seconds: float, error: ProviderError, late: Callable[[ProviderError], None]) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._error = error
        self._late = late

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *failed: Any) -> None:
        try:
            await self._timeout.__aexit__(*failed)
        except TimeoutError:
            self._late(self._error)
            raise self._error from None


def _import_sdk() -> Any:
    import openai

    return openai
