"""The stand-in's server itself: who hangs up, what is cut, ports that close, and what may be asked of it."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from voicectl.clock import Clock, run_on
from voicectl.errors import TransportError, UsageError
from voicectl.standin import names, server, wire
from voicectl.standin.answers import echo
from voicectl.standin.delays import in_turn
from voicectl.standin.faults import Fault
from voicectl.standin.server import StandIn

pytestmark = pytest.mark.wall

HELLO = [{"role": "user", "content": "Hello there."}]


@asynccontextmanager
async def chat(url: str, **more: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
    body = {"model": "m", "stream": True, "messages": HELLO, **more}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as answer:
        yield answer


async def chunks(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    lines = [line.decode().removeprefix("data: ").strip() async for line in answer.content]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


async def until(clock: Clock, true: Callable[[], object]) -> None:
    limit = clock.now() + 5
    while not true():
        assert clock.now() < limit, "it never happened"
        await clock.sleep_until(clock.now() + 0.002)


def test_a_client_that_hangs_up_is_noticed_while_nothing_is_sent() -> None:
    with StandIn(delays={"llm": in_turn([0.0]), "llm-gap": in_turn([60.0])}) as vendor:

        async def main(clock: Clock) -> None:
            async with chat(vendor.url) as answer:
                await answer.content.readline()
                assert "hung up" not in vendor.got
                answer.close()
                await until(clock, lambda: "hung up" in vendor.got)

        run_on("wall", main)
    assert "answered" not in vendor.got


def test_one_port_serves_http_and_websockets() -> None:
    with StandIn() as vendor:

        async def main(clock: Clock) -> None:
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{vendor.url}/v1/models") as models:
                    assert models.status == 200
                async with session.ws_connect(f"{vendor.url}/v2/listen") as listening:
                    assert (await listening.receive_json())["type"] == "Connected"
                    await until(clock, lambda: vendor.open == 1)
                    vendor.drop()
                    assert (await listening.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
                    await until(clock, lambda: vendor.open == 0)

        run_on("wall", main)


def test_the_llm_calls_a_tool_piece_by_piece_and_then_answers() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "order",
            "parameters": {
                "type": "object",
                "properties": {"drink": {"type": "string", "enum": ["latte"]}, "shots": {"type": "integer"}},
                "required": ["drink", "shots"],
            },
        },
    }
    with StandIn(answer=echo) as vendor:

        async def main(clock: Clock) -> None:
            async with chat(vendor.url, tools=[tool]) as answer:
                called = await chunks(answer)
            deltas = [chunk["choices"][0]["delta"] for chunk in called]
            calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
            assert calls[0]["function"]["name"] == "order"
            assert len(calls) > 2, "in pieces"
            arguments = "".join(call["function"]["arguments"] for call in calls)
            assert json.loads(arguments) == {"drink": "latte", "shots": 1}
            assert called[-1]["choices"][0]["finish_reason"] == "tool_calls"
            result = {"role": "tool", "tool_call_id": "call_0", "content": "done"}
            async with chat(vendor.url, tools=[tool], messages=[*HELLO, result]) as answer:
                said = await chunks(answer)
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in said)
            assert text == "You said: Hello there."

        run_on("wall", main)


def test_an_answer_need_not_stream() -> None:
    with StandIn(answer=echo) as vendor:

        async def main(clock: Clock) -> None:
            async with chat(vendor.url, stream=False) as answer:
                whole = await answer.json()
            assert whole["choices"][0]["message"]["content"] == "You said: Hello there."
            assert whole["usage"]["completion_tokens"] == 4

        run_on("wall", main)


@pytest.mark.parametrize("packet", [1, 7, 1000, 1_000_000])
def test_a_form_is_read_to_the_byte_however_it_comes(monkeypatch: pytest.MonkeyPatch, packet: int) -> None:
    sent = bytes(range(256)) * 4 + b"\r\n--x\r\n\n\r"
    got: list[dict[str, bytes]] = []

    async def take(http: web.Request) -> web.StreamResponse:
        got.append(await wire.form(http))
        return web.Response()

    async def main(clock: Clock, url: str) -> None:
        fields = aiohttp.FormData()
        fields.add_field("model", "m")
        fields.add_field("file", sent, filename="a.wav", content_type="audio/wav")
        body = fields()
        whole = await body.as_bytes()  # pyright: ignore

        async def packets() -> AsyncGenerator[bytes]:
            for at in range(0, len(whole), packet):
                yield whole[at : at + packet]

        headers = {"Content-Type": body.headers["Content-Type"]}
        async with aiohttp.ClientSession() as session, session.post(url, data=packets(), headers=headers) as answer:
            assert answer.status == 200

    only(monkeypatch, web.post("/", take))
    with StandIn() as vendor:
        run_on("wall", lambda clock: main(clock, vendor.url))
    assert got == [{"model": b"m", "file": sent}]


# Ports -----------------------------------------------------------------------------------------


def connects(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_closed_port_opens_again_at_the_same_address() -> None:
    with StandIn() as vendor:
        url = vendor.url_for("openai-llm")
        assert connects(url)
        vendor.fault(Fault("openai-llm", "refused"))
        assert not connects(url)
        assert connects(vendor.url), "only its own"
        vendor.heal()
        assert vendor.url_for("openai-llm") == url
        assert connects(url)
        assert [one.kind for one in vendor.struck] == ["refused"]


def test_a_port_that_was_closed_for_a_while_opens_by_itself() -> None:
    with StandIn() as vendor:
        url = vendor.url_for("openai-llm")
        vendor.fault(Fault("openai-llm", "refused", times=1, seconds=0.05))
        run_on("wall", lambda clock: until(clock, lambda: connects(url)))


def test_a_port_closes_when_its_request_comes() -> None:
    with StandIn() as vendor:
        url = vendor.url_for("openai-llm")
        vendor.fault(Fault("openai-llm", "refused", after=1))

        async def main(clock: Clock) -> None:
            async with chat(url) as answer:
                assert await chunks(answer)
            with pytest.raises(aiohttp.ClientError):
                async with chat(url) as answer:
                    await chunks(answer)

        run_on("wall", main)
        assert not connects(url)


def test_names_are_known_only_within_the_block_and_can_be_lost() -> None:
    with StandIn(named=True) as vendor:
        url = vendor.url_for("cartesia-tts")
        assert url.startswith("http://cartesia-tts.standin.test:")
        with names.known(vendor):
            assert connects(url)
            vendor.fault(Fault("cartesia-tts", "dns"))
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo("cartesia-tts.standin.test", 80)
            assert socket.getaddrinfo("127.0.0.1", 80)
            vendor.heal()
            assert connects(url)
        assert "known" not in socket.getaddrinfo.__qualname__


@pytest.mark.parametrize(
    ("kind", "said"),
    [("dns", "without names"), ("tls", "without TLS"), ("refused", "needs a port that only openai-llm uses")],
)
def test_a_fault_that_it_was_not_made_for_is_said(kind: Any, said: str) -> None:
    with StandIn() as vendor, pytest.raises(UsageError, match=said):
        vendor.fault(Fault("openai-llm", kind))


def test_it_can_be_closed_at_any_time_and_twice() -> None:
    StandIn().close()
    vendor = StandIn()
    vendor.serve()
    vendor.serve()
    url = vendor.url
    vendor.close()
    vendor.close()
    assert not connects(url)


def test_what_goes_wrong_in_a_vendors_file_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(http: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError

    async def main(clock: Clock, url: str) -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 500

    only(monkeypatch, web.get("/", broken))
    with pytest.raises(ZeroDivisionError), StandIn() as vendor:
        run_on("wall", lambda clock: main(clock, vendor.url))


def test_who_takes_too_long_to_begin_does_not_pass_for_one_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    on = threading.Event()
    only(monkeypatch, web.get("/", nothing), first=on.wait)
    monkeypatch.setattr(server, "_READY_S", 0.05)
    vendor = StandIn()
    try:
        with pytest.raises(TransportError, match=r"the stand-in did not begin within 0\.05 s"):
            vendor.serve()
    finally:
        on.set()
        for thread in threading.enumerate():
            if thread.name == "stand-in":
                thread.join(10)
                assert not thread.is_alive(), "it goes as soon as it can"


def test_who_waits_for_one_that_dies_hears_of_what(monkeypatch: pytest.MonkeyPatch) -> None:
    cleanup = web.AppRunner.cleanup

    async def fail(runner: web.AppRunner) -> None:
        await cleanup(runner)
        raise OSError("no more files")

    monkeypatch.setattr(web.AppRunner, "cleanup", fail)
    vendor = StandIn()
    vendor.serve()
    loop, stop = vendor._loop, vendor._stop  # pyright: ignore[reportPrivateUsage]
    assert loop and stop
    loop.call_soon_threadsafe(stop.set)
    with pytest.raises(OSError, match="no more files"):
        vendor.wait()
    vendor.close()


async def nothing(http: web.Request) -> web.StreamResponse:
    return web.Response()


def only(monkeypatch: pytest.MonkeyPatch, route: web.RouteDef, first: Callable[[], object] = list[None]) -> None:
    """The next stand-in serves nothing else, and does that first."""
    vendor = ModuleType("only_vendor")

    def routes(standin: StandIn) -> list[web.RouteDef]:
        first()
        return [route]

    vars(vendor)["routes"] = routes
    monkeypatch.setitem(sys.modules, "only_vendor", vendor)
    monkeypatch.setattr(server, "VENDORS", ("only_vendor",))
