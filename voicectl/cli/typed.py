"""`voicectl run --text`: the same agent, by keyboard. No sound, no speech models; a recording all the same."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from voicectl.cli import console
from voicectl.errors import EXIT_INTERRUPTED, EXIT_OK

if TYPE_CHECKING:
    from voicectl.clock import Clock
    from voicectl.events import Event
    from voicectl.pipeline.session import Session
    from voicectl.spec import ResolvedAgent
    from voicectl.trace import Trace
    from voicectl.transports.silent import SilentLine

OVERRIDES = (
    "vad={provider: scripted}",
    "stt={provider: scripted}",
    "tts={provider: scripted, options: {ttfb_ms: 0, words_per_second: 20, speed: 1000}}",
)
"""What speaks and listens is not needed; twenty words a second are read faster than typed."""

_BREATH_S = 0.1  # between an answer and the next message: in a replay, too, the one is over first
_WAITING = 100  # lines typed ahead


def run_text(agent: ResolvedAgent, folder: Path, progress: console.ProgressLine, *, json: bool) -> int:
    """Answer what is typed, line by line, until the input ends."""
    from voicectl.clock import run_on

    async def main(clock: Clock) -> int:
        return await _main(clock, agent, folder, progress, json)

    return run_on("wall", main)


async def _main(clock: Clock, agent: ResolvedAgent, folder: Path, progress: console.ProgressLine, json: bool) -> int:
    import asyncio

    from voicectl.assemble import Engine
    from voicectl.events import AgentInterrupted, CallerActed, PlayoutFinished, ProviderFailed
    from voicectl.keys import keys_of
    from voicectl.trace import event_line
    from voicectl.transports.silent import SilentLine

    engine = Engine(agent, clock, find_key=keys_of(console.env()))
    typed: asyncio.Queue[str | None] = asyncio.Queue(_WAITING)
    quiet = asyncio.Event()  # the agent has had its say
    sessions: list[Session] = []
    echo = not console.reads_terminal()

    def happened(event: Event) -> None:
        if json:
            console.out(event_line(event).rstrip())
        match event:
            case CallerActed(text=text) if echo and not json:
                console.out(f"caller  {text}")
            case PlayoutFinished(heard=heard) | AgentInterrupted(heard=heard):
                if not json:
                    console.out(f" agent  {heard}")
                quiet.set()
            case ProviderFailed(message=message):
                console.err(f" error  {message}")
                quiet.set()
            case _:
                pass
        console.flush()

    def line(trace: Trace) -> SilentLine:
        trace.listen(happened)
        return silent

    async def answer() -> None:
        if agent.greeting or agent.notice:
            await quiet.wait()
            await clock.sleep_until(clock.now() + _BREATH_S)
        while (text := await typed.get()) is not None:
            quiet.clear()
            sessions[0].act("typed", text)
            await quiet.wait()
            await clock.sleep_until(clock.now() + _BREATH_S)
        silent.hang_up()

    silent = SilentLine(rate=agent.line.rate, clock=clock)
    try:
        await engine.start(progress)
        progress.done()
        loop = asyncio.get_running_loop()

        def read() -> None:
            for text in console.typed_lines():
                if text:
                    asyncio.run_coroutine_threadsafe(typed.put(text), loop).result()
            with suppress(RuntimeError):  # the loop is closed
                asyncio.run_coroutine_threadsafe(typed.put(None), loop)

        if console.reads_terminal() and not json:
            console.err("type, and press enter; Ctrl-D hangs up")
        threading.Thread(target=read, name="keyboard", daemon=True).start()
        answering = clock.spawn(answer(), name="answering")
        try:
            await engine.call(line, folder / "0001-keyboard", sessions.append)
        finally:
            answering.cancel()
    except asyncio.CancelledError:
        console.err(f"call kept in {folder}")
        console.err("voicectl: interrupted")
        console.leave(EXIT_INTERRUPTED)
    await engine.aclose()
    if not json:
        console.err(f"call kept in {folder}")
    return EXIT_OK
