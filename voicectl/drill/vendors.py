"""Who stands in for whom in a drill: the agent's vendors, and what runs on this machine.

Two servers: one for the vendors that the agent asks first, which fail on demand, and one for those
who take over, which speak with another voice, so that it is heard who spoke. Who shares service and
address with the first is out together with it. Providers without a stand-in (local models, which
would not understand tones) are replaced by ones that do, and never fail.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import tempfile
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from voicectl.audio import PIPELINE_RATE
from voicectl.clock import Clock
from voicectl.drill.cells import service_of
from voicectl.drill.script import answer, answer_to
from voicectl.pipeline.protocols import (
    LlmChunk,
    LlmRequest,
    Message,
    Progress,
    SttStream,
    TextDelta,
    Transcript,
    TtsRequest,
)
from voicectl.providers import ProviderCatalog, StageName
from voicectl.spec import ResolvedAgent, Stage
from voicectl.standin.ears import Ear
from voicectl.standin.faults import Fault, Service
from voicectl.standin.server import HOST, ZONE, StandIn
from voicectl.standin.tones import BRISK, CALM, say
from voicectl.standin.tones import Ear as Tones

KEY = "drill"
"""What every vendor is shown as the key."""

_PIECE_S = 0.06
_VARIABLE = "SSL_CERT_FILE"
_SDKS = ("anthropic", "cartesia", "deepgram", "elevenlabs", "openai")
_DRILLED = ("stt", "llm", "tts")


class ToneEar(Ear):
    """What a stand-in hears of a caller who speaks tones: the words that were said to their end."""

    def __init__(self, rate: int, vocabulary: tuple[str, ...]) -> None:
        super().__init__()
        self._tones = Tones(rate, vocabulary)
        self._size = 2 * round(0.01 * rate)
        self._taken = 0  # of what was heard
        self._rest = b""

    def hear(self, pcm: bytes) -> Iterator[bool]:
        self._rest += pcm
        while len(self._rest) >= self._size:
            block, self._rest = self._rest[: self._size], self._rest[self._size :]
            before = self.until
            self._tones.hear(block)
            self.until = self._tones.until
            voiced = self._tones.speaking
            self.silence_s = 0.0 if voiced else self.silence_s + self.until - before
            self._collect()
            yield voiced

    def flush(self) -> None:
        self._tones.hear(self._rest)
        self._rest = b""
        self._tones.finish()
        self._collect()

    def take(self) -> str:
        heard = self._tones.heard
        self._taken = len(heard) - (len(heard) > self._taken and not heard[-1].whole)  # the rest of a word may follow
        return super().take()

    def _collect(self) -> None:
        self.words = [one.word for one in self._tones.heard[self._taken :] if one.whole]


class Vendors:
    """The stand-ins of one rehearsal: `async with`.

    Args:
        agent: whose providers they are.
        kind: what will go wrong, which some ports must be made for ("none": nothing).
        vocabulary: every word that the caller may say.
    """

    def __init__(self, agent: ResolvedAgent, kind: str, vocabulary: tuple[str, ...], clock: Clock) -> None:
        same: dict[str, Any] = {
            "ear": partial(_ear, vocabulary),
            "answer": answer_to,
            "named": kind == "dns",
            "tls": kind == "tls",
        }
        self._clock = clock
        self._vocabulary = vocabulary
        self._first = StandIn(voice=partial(_say, CALM), **same)
        self._second = StandIn(voice=partial(_say, BRISK), **same)
        self._ports: dict[int, StandIn] = {}
        self._urls: dict[tuple[Service, str], str] = {}  # by service and the vendor's own address
        self._firsts = _services((stage, agent.stage(stage)) for stage in _DRILLED)
        self._all = _services((stage, one) for stage in _DRILLED for one in _everybody(agent.stage(stage)))

    async def __aenter__(self) -> Vendors:
        try:
            for server in (self._first, self._second):
                await self._clock.run(server.serve)
            for place in self._all:  # a port each: a fault of a port strikes one service alone
                server = self._first if place in self._firsts else self._second
                url = self._urls[place] = await self._clock.run(server.url_for, place[0])
                self._ports[urlsplit(url).port or 0] = server
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in (self._first, self._second):
            await self._clock.run(server.close)

    @property
    def struck(self) -> int:
        """How many requests, or ports, the fault has struck."""
        return len(self._first.struck)

    @property
    def bugs(self) -> list[Exception]:
        """What a stand-in did wrong by itself."""
        return [*self._first.bugs, *self._second.bugs]

    def fault(self, fault: Fault) -> None:
        """Let it go wrong at those who are asked first."""
        self._first.fault(fault)

    def unknown(self, name: str, port: int) -> bool:
        """Whether one of these ports goes by a name that is not known at present."""
        server = self._ports.get(port)
        return server is not None and name in server.unknown

    def authorities(self) -> list[Path]:
        """Certificates to be trusted."""
        return [server.authority for server in (self._first, self._second) if server.authority]

    def build(self, stage: StageName, name: str, kind: Any, options: Any, model: str | None, clock: Clock) -> Any:
        """The provider, with a stand-in for its vendor; or what takes the place of one on this machine."""
        if stage not in _DRILLED:
            return kind(options, model, clock)
        service = service_of(stage, name, model)
        if service is None:
            return {"stt": ToneStt, "llm": ToneLlm, "tts": ToneTts}[stage](self._vocabulary, clock)
        url = self._urls[service, _address(options)] + _path(options)
        return kind(options.model_copy(update={"base_url": url}), model, clock, api_key=KEY)


def _ear(vocabulary: tuple[str, ...], rate: int) -> Ear:
    return ToneEar(rate, vocabulary)


def _say(voice: Any, text: str, rate: int) -> bytes:
    return say(text, rate, voice)


def _services(stages: Iterable[tuple[str, Stage]]) -> list[tuple[Service, str]]:
    """Who is asked, and where, each once."""
    found: dict[tuple[Service, str], None] = {}
    for stage, one in stages:
        if service := service_of(stage, one.provider, one.model):
            found[service, _address(one.options)] = None
    return list(found)


def _everybody(stage: Stage) -> tuple[Stage, ...]:
    return (stage, *stage.fallback)


def _address(options: Any) -> str:
    url: str = options.base_url
    return urlsplit(url).netloc


def _path(options: Any) -> str:
    """What follows the host in the vendor's own address, which is where the stand-in serves it."""
    fields: Any = options.__class__.model_fields
    url: str = fields["base_url"].default
    return urlsplit(url).path.rstrip("/")


class DrillCatalog(ProviderCatalog):
    """The providers as they are, with stand-ins for their vendors."""

    def __init__(self, vendors: Vendors) -> None:
        self._vendors = vendors

    def load(self, stage: StageName, name: str) -> type[Any]:
        kind = super().load(stage, name)
        return cast("type[Any]", partial(self._vendors.build, stage, name, kind))


def without_help(agent: ResolvedAgent) -> dict[str, Stage]:
    """Its stages with nobody who takes over and nothing that tries again."""
    return {
        stage: Stage(choice.provider, choice.model, choice.options)
        for stage in _DRILLED
        for choice in (agent.stage(stage),)
    }


# What runs on this machine -----------------------------------------------------------------------


class _Local:
    name = "local"

    def __init__(self, vocabulary: tuple[str, ...], clock: Clock) -> None:
        self._vocabulary = vocabulary
        self._clock = clock

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def aclose(self) -> None:
        """Nothing to free."""


class ToneStt(_Local):
    """Hears tones, at once."""

    def open(self, start: float) -> SttStream:
        return _ToneTurn(self._vocabulary)


class _ToneTurn:
    def __init__(self, vocabulary: tuple[str, ...]) -> None:
        self._ear = ToneEar(PIPELINE_RATE, vocabulary)
        self._flushes = 0
        self._due: asyncio.Queue[Transcript | None] = asyncio.Queue()  # a flush a pause: few

    def push(self, pcm: bytes) -> None:
        for _ in self._ear.hear(pcm):
            pass

    def flush(self) -> None:
        self._flushes += 1
        self._due.put_nowait(Transcript(self._ear.text, self._flushes))

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while (transcript := await self._due.get()) is not None:
            yield transcript

    async def aclose(self) -> None:
        self._due.put_nowait(None)


class ToneLlm(_Local):
    """Answers as the stand-ins do."""

    async def warm(self, messages: tuple[Message, ...]) -> None:
        """Nothing to warm."""

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        asked = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        for word in answer(asked).split():
            yield TextDelta(f"{word} ")


class ToneTts(_Local):
    """Speaks as the stand-ins of those who take over do."""

    rate = 24_000

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        pcm = say(request.text, self.rate, BRISK)
        size = 2 * round(_PIECE_S * self.rate)
        for at in range(0, len(pcm), size):
            yield pcm[at : at + size]


# Names and trust -------------------------------------------------------------------------------------------


def resolve_on(loop: asyncio.AbstractEventLoop, unknown: Callable[[str, int], bool]) -> None:
    """Let whoever runs on this loop find the stand-ins' names, but those that are `unknown` at a port."""
    import socket

    asked = loop.getaddrinfo

    async def answer_for(host: Any, port: Any, **more: Any) -> Any:
        name = host.decode("idna") if isinstance(host, bytes) else host
        if not isinstance(name, str) or not name.endswith(f".{ZONE}"):
            return await asked(host, port, **more)
        if unknown(name, int(port or 0)):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await asked(HOST, port, **more)

    cast("Any", loop).getaddrinfo = answer_for


class Trust:
    """Whom the SDKs of this process trust while a drill runs: they read a file that a variable names.

    One file for all calls under way, since the variable is the process's. It never holds more than a few
    certificates: the usual hundreds, which each client of an SDK reads anew, would make every call
    stumble whenever another one begins.
    """

    def __init__(self) -> None:
        import trustme

        self._folder = tempfile.TemporaryDirectory(prefix="voicectl-drill-")
        self._file = Path(self._folder.name) / "authorities.pem"
        self._nobody = trustme.CA().cert_pem.bytes()  # an empty file is none
        self._trusted: list[Path] = []
        self._write()
        self._before = os.environ.get(_VARIABLE)  # noqa: TID251 - read by OpenSSL, not by us
        os.environ[_VARIABLE] = str(self._file)  # noqa: TID251

    def add(self, authorities: Sequence[Path]) -> None:
        self._trusted += authorities
        self._write()

    def remove(self, authorities: Sequence[Path]) -> None:
        self._trusted = [one for one in self._trusted if one not in authorities]
        self._write()

    def close(self) -> None:
        """As it was before."""
        del os.environ[_VARIABLE]  # noqa: TID251
        if self._before is not None:
            os.environ[_VARIABLE] = self._before  # noqa: TID251
        self._folder.cleanup()

    def _write(self) -> None:
        self._file.write_bytes(self._nobody + b"".join(path.read_bytes() for path in self._trusted))


def import_sdks(agent: ResolvedAgent) -> None:
    """Those of the agent's vendors, ahead of the first call: it takes seconds, which no call should wait."""
    names = {one.provider for stage in _DRILLED for one in _everybody(agent.stage(stage))}
    with warnings.catch_warnings():  # of one SDK about another
        warnings.simplefilter("ignore")
        for name in sorted(names & set(_SDKS)):
            importlib.import_module(name)
