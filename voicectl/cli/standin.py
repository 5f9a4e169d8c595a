"""`voicectl standin`: a local server speaks the vendors' protocols, for rehearsals without a key or money."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.errors import EXIT_OK, MissingExtra, UsageError

if TYPE_CHECKING:
    from voicectl.standin.answers import Answer
    from voicectl.standin.delays import Draw, Wait
    from voicectl.standin.ears import Known, Library
    from voicectl.standin.faults import Fault, Service
    from voicectl.standin.voices import Voice

PORT = 8765  # as profiles/standin.yaml has it
RECORDINGS = Path("recordings")
VENDORS = "Deepgram, OpenAI, Cartesia, Anthropic and ElevenLabs"
SHORT: dict[str, Service] = {"stt": "deepgram-stt", "llm": "openai-llm", "tts": "cartesia-tts"}
"""The services of profiles/standin.yaml, by their stage."""
LINES = (
    "Hello, can you help me?",
    "I would like a large latte with oat milk, please.",
    "Can you tell me when you are open?",
    "No, that is all, thank you.",
)
"""What callers say whom it does not know."""


def standin(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes any.")] = PORT,
    delay: Annotated[
        list[str] | None,
        typer.Option(
            "--delay",
            metavar="WHAT=MS",
            help="How long it takes: stt=100, llm=lognormal:200,3000 (P50,P99), tts=any:80,400 or turn:80,90. "
            "Also llm-gap, tts-gap, s2s, s2s-gap. Repeatable.",
        ),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="RECORDING", help="Take as long as the providers of this call.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="WHAT:KIND",
            help="What goes wrong: llm:429, llm:429@2 from the second request on, tts:cut@2x1 only in that one, "
            "llm:slow-first-byte=3 for 3 s. Repeatable.",
        ),
    ] = None,
    callers: Annotated[
        list[Path] | None,
        typer.Option(
            "--callers",
            "-c",
            metavar="PATH",
            help="Callers whose audio it knows, as bench takes them. Default: recordings/, if it is there.",
        ),
    ] = None,
    says_file: Annotated[
        Path | None,
        typer.Option("--says-file", metavar="FILE", help="What callers say whom it does not know: a line each."),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="What the model says: a line an answer, or 'words => answer'. Default: what it heard.",
        ),
    ] = None,
    voice: Annotated[
        Literal["tones", "silence", "local"], typer.Option("--voice", help="How it sounds; local is the real voice.")
    ] = "tones",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the delays that are drawn.")] = 0,
    json: JsonOption = False,
) -> int:
    """Stand in for the vendors on this machine, until Ctrl-C.

    Their real SDKs speak to it. It understands nothing: it knows the callers'
    audio beforehand, and answers from a list. docs/standin.md says the rest.

    Example: voicectl standin --delay llm=lognormal:200,3000 --fault tts:cut@3
    """
    _check_installed()
    from voicectl.standin.delays import parse_delays

    faults = [parse_fault(text) for text in fault or []]
    delays = _recorded(from_) | parse_delays(delay or [], seed)
    library = _library(callers, says_file)
    answer = _answer(answers)
    speaking, stop = _voice(voice)
    try:
        return _serve(port, library, answer, speaking, delays, faults, json=json)
    finally:
        stop()


def _check_installed() -> None:
    import importlib.util

    if importlib.util.find_spec("aiohttp") is None:
        raise MissingExtra("aiohttp", "standin", where="standin")


def _serve(
    port: int,
    library: Library,
    answer: Answer,
    voice: Voice,
    delays: dict[Wait, Draw],
    faults: Sequence[Fault],
    *,
    json: bool,
) -> int:
    from voicectl.standin.server import StandIn

    count = 0

    def tell(line: str) -> None:
        nonlocal count
        count += 1
        at = console.now()
        _say_json({"at": at.isoformat(), "line": line}) if json else console.out(f"{at:%H:%M:%S.%f}"[:-3] + f" {line}")
        console.flush()

    vendor = StandIn(ear=library.ear, voice=voice, answer=answer, delays=delays, port=port, tell=tell)
    try:
        vendor.serve()
        for fault in faults:
            vendor.fault(fault)
        if json:
            _say_json({"url": vendor.url, "callers": len(library.pieces), "faults": len(faults)})
        else:
            _introduce(vendor.url, len(library.pieces))
        console.flush()
        vendor.wait()
    except KeyboardInterrupt:
        pass  # how it is ended
    finally:
        vendor.close()
    if not json:
        console.err(f"stopped after {count} lines, {len(vendor.struck)} faults struck")
    return EXIT_OK


def _say_json(value: object) -> None:
    import json

    console.out(json.dumps(value))


def _introduce(url: str, known: int) -> None:
    keys = "DEEPGRAM_API_KEY=x OPENAI_API_KEY=x CARTESIA_API_KEY=x"
    own_port = not url.endswith(f":{PORT}")
    console.out(f"stand-in for {VENDORS} on {url}")
    console.out(f"knows {known} recorded utterances" if known else "knows no recorded callers; unknown ones say lines")
    console.out()
    line = f"  {keys} voicectl bench coffee --profile standin"
    console.out(line + (" \\" if own_port else ""))
    if own_port:
        console.out(f"    --set stt.options.base_url={url} --set llm.options.base_url={url}/v1 \\")
        console.out(f"    --set tts.options.base_url={url}")
    console.out()
    console.out("Ctrl-C stops it. What it is asked:")


# What people write ------------------------------------------------------------------------------

_FAULT = re.compile(
    r"(?P<service>[\w-]+):(?P<kind>[\w-]+?)(?:@(?P<nth>\d+))?(?:x(?P<times>\d+))?(?:=(?P<seconds>\d+(?:\.\d+)?))?"
)


def parse_fault(text: str) -> Fault:
    """`llm:429`, `llm:429@2` (from the second request on), `tts:cut@2x1` (only that one),
    `llm:slow-first-byte=3` (seconds).

    Raises:
        UsageError: it cannot be read, or cannot happen to a server with one port.
    """
    from voicectl.standin.delays import unknown
    from voicectl.standin.faults import GATE_KINDS, KINDS, SERVICES, Fault

    match = _FAULT.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"cannot read the fault '{text}'", hint="Write it like llm:429, llm:429@2, tts:cut@2x1 or llm:drip=0.5"
        )
    service = SHORT.get(match["service"], match["service"])
    if service not in SERVICES:
        raise unknown("service", match["service"], [*SHORT, *SERVICES])
    kind = match["kind"]
    if kind not in KINDS:
        raise unknown("fault", kind, KINDS)
    if kind in GATE_KINDS:
        raise UsageError(
            f"'{kind}' needs a port of its own, and this has one for all", hint="Run it with: voicectl drill"
        )
    nth, times = int(match["nth"] or 1), match["times"]
    if nth < 1 or times == "0":
        raise UsageError(f"the fault '{text}' would never strike", hint="Requests are counted from 1")
    fault = Fault(service, kind, after=nth - 1, times=int(times) if times else None)
    if match["seconds"]:
        from dataclasses import replace

        fault = replace(fault, seconds=float(match["seconds"]))
    return fault


def _recorded(folder: Path | None) -> dict[Wait, Draw]:
    if folder is None:
        return {}
    from voicectl.standin.delays import recorded_delays
    from voicectl.streams import read_streams

    return recorded_delays(read_streams(folder))


def _library(callers: Sequence[Path] | None, says_file: Path | None) -> Library:
    from voicectl.standin.ears import Library

    paths = callers if callers is not None else [RECORDINGS] if RECORDINGS.is_dir() else []
    known = [one for path in paths for one in _known(path)]
    lines = _lines(says_file) if says_file else () if known else LINES
    return Library(known, lines=lines)


def _known(path: Path) -> list[Known]:
    from voicectl.audio import PIPELINE_RATE, resample
    from voicectl.bench.callers import load_callers
    from voicectl.standin.ears import Known

    return [
        Known(
            resample(said.pcm, PIPELINE_RATE).data,
            said.text or " ".join((said.slots or {}).values()) or Path(said.name).stem,
            (said.voiced_from_s, said.voiced_until_s),
        )
        for caller in load_callers(path)
        for said in caller.utterances
    ]


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or "it is not UTF-8 text").lower()
        raise UsageError(f"cannot be read: {why}", where=str(path)) from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise UsageError("has no line", where=str(path))
    return lines


def _answer(path: Path | None) -> Answer:
    from voicectl.standin.answers import by_table, echo, in_order

    if path is None:
        return echo
    lines = _lines(path)
    table = [line.partition("=>") for line in lines if "=>" in line]
    others = [line for line in lines if "=>" not in line]
    otherwise = in_order(others) if others else echo
    return by_table({key.strip(): value.strip() for key, _, value in table}, otherwise) if table else otherwise


# How it sounds ---------------------------------------------------------------------------------


def _voice(name: Literal["tones", "silence", "local"]) -> tuple[Voice, Callable[[], None]]:
    """The voice, and how to end it."""
    from voicectl.standin.voices import in_tones, silence

    if name == "local":
        return _local_voice()
    return (in_tones if name == "tones" else silence), lambda: None


def _local_voice() -> tuple[Voice, Callable[[], None]]:
    """The local TTS, in a thread with a loop of its own. Who asks waits for it, and so does everybody
    whom the stand-in serves meanwhile: its clauses take some 100 to 200 ms."""
    import asyncio
    import threading
    from contextlib import aclosing

    from voicectl.audio import Pcm, resample
    from voicectl.clock import Clock, run_on
    from voicectl.pipeline.protocols import TtsRequest
    from voicectl.providers import CATALOG

    ready = threading.Event()
    failed: list[Exception] = []
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event | None = None
    progress = console.ProgressLine()
    tts = None

    async def main(clock: Clock) -> None:
        nonlocal loop, stop, tts
        tts = CATALOG.load("tts", "local")(CATALOG.options("tts", "local").model_validate({}), None, clock)
        try:
            await tts.start(progress)
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await stop.wait()
        finally:
            await tts.aclose()

    def run() -> None:
        try:
            run_on("wall", main)
        except Exception as error:  # noqa: BLE001  raised below, in the thread that asked for it
            failed.append(error)
        finally:
            ready.set()

    async def spoken(text: str) -> bytes:
        assert tts
        async with aclosing(tts.synthesize(TtsRequest(text))) as pieces:
            return b"".join([piece async for piece in pieces])

    def speak(text: str, rate: int) -> bytes:
        assert loop and tts
        pcm = asyncio.run_coroutine_threadsafe(spoken(text), loop).result(60)
        return resample(Pcm(pcm, tts.rate), rate).data

    def end() -> None:
        if loop and stop and thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
            thread.join(5)

    thread = threading.Thread(target=run, name="stand-in voice", daemon=True)
    thread.start()
    ready.wait()
    progress.done()
    if failed:
        raise failed[0]
    return speak, end
