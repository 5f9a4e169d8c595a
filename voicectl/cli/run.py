"""`voicectl run`: talk to the agent, here and now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voicectl.cli import console
from voicectl.cli.bench import new_folder, pull_weights, write_json
from voicectl.cli.machine import Usage, settled
from voicectl.cli.options import AGENTS_FILE, AgentArgument, FileOption, ProfileOption, SetOption
from voicectl.cli.typed import OVERRIDES, run_text
from voicectl.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from voicectl.cli.talk import Follow, Line, Talk, Tap
    from voicectl.clock import Clock
    from voicectl.events import Event
    from voicectl.pipeline.protocols import Transport
    from voicectl.pipeline.session import Session
    from voicectl.spec import ResolvedAgent
    from voicectl.trace import Trace
    from voicectl.transports.microphone import Microphone

CALL = "0001-microphone"
_ECHOES = 3  # so many looks in a row, a quarter of a second apart
_MEASURE_AFTER_S = 0.4  # an answer is measured when so much of it is in the recording


def run(
    agent: AgentArgument = None,
    profile: ProfileOption = None,
    file: FileOption = AGENTS_FILE,
    input: Annotated[
        str | None, typer.Option("--input", "-i", metavar="DEVICE", help="The microphone, by name or number.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DEVICE", help="The speaker, by name or number.")
    ] = None,
    devices: Annotated[bool, typer.Option("--devices", help="List the sound devices and end.")] = False,
    hold: Annotated[
        int | None,
        typer.Option(
            "--hold",
            min=5,
            max=1000,
            metavar="MS",
            help="How much sound the device may hold back: more where it stumbles.",
        ),
    ] = None,
    headphones: Annotated[
        bool, typer.Option("--headphones", help="Nothing of the agent comes back: leave the caller's sound as it is.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, metavar="S", help="Hang up after so many seconds.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where the call is kept. Default: below runs/.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="No sound: type, and read the answers.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the full-screen view.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what is said and the summary.")] = False,
    set_: SetOption = None,
) -> int:
    """Talk to an agent with this machine's microphone and speaker.

    The call is kept like every other: voicectl report last shows its
    figures, voicectl replay last plays it again. Ctrl-C ends it.

    Example: voicectl run coffee --input headset
    """
    if devices:
        return _list_devices()
    from voicectl.clock import run_on
    from voicectl.providers import CATALOG
    from voicectl.spec import resolve

    overrides = [*(OVERRIDES if text else ()), *(set_ or [])]
    as_written = resolve(agent, profile, set_ or [], env=console.env(), catalog=CATALOG, agents_file=file)
    if text and as_written.s2s:
        raise UsageError("--text needs an agent that reads: 's2s' only hears", hint="Leave --text away")
    resolved = resolve(agent, profile, overrides, env=console.env(), catalog=CATALOG, agents_file=file)
    # Without --out the folder is made when there is something to keep.
    make_folder = partial(new_folder, out, resolved)
    if out is not None or text:
        folder = make_folder()
        make_folder = partial(Path, folder)
    progress = console.ProgressLine(quiet=quiet or json)
    try:
        pull_weights(resolved, progress)
        if text:
            return run_text(resolved, make_folder(), progress, json=json)
        cancels = not headphones and _cancels_echo(resolved.line.rate)
        job = _Job(resolved, make_folder, progress, (input, output), hold, seconds, _show(json, plain, quiet), cancels)

        async def main(clock: Clock) -> int:
            return await _main(clock, job)

        return run_on("wall", main)
    finally:
        progress.done()


def _cancels_echo(rate: int) -> bool:
    from voicectl.transports.echo_canceller import RATES, available

    return available() and rate in RATES


def _list_devices() -> int:
    from voicectl.transports.sound_card import PortAudio

    rows = [
        (
            str(one.number),
            str(one.inputs or "-"),
            str(one.outputs or "-"),
            str(one.rate),
            one.name + " (default)" * (one.default_input or one.default_output),
        )
        for one in PortAudio().devices()
    ]
    console.table(("no", "in", "out", "rate", "name"), rows)
    return EXIT_OK


# The call --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    agent: ResolvedAgent
    make_folder: Callable[[], Path]
    progress: console.ProgressLine
    devices: tuple[str | None, str | None]
    hold_ms: int | None
    seconds: float | None
    show: Callable[[_Call], Show]
    cancels_echo: bool


@dataclass(slots=True)
class _Call:
    """The call under way, for those who show and steer it."""

    clock: Clock
    agent: ResolvedAgent
    mic: Microphone
    talk: Talk
    folder: Path | None = None
    trace: Trace | None = None
    session: Session | None = None


class Show:
    """How a call is shown. This one shows nothing."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def line(self, line: Line) -> None:
        """A line of the talk is as it will stay."""

    def begin(self) -> None:
        """The line is open: speak."""

    def end(self) -> None:
        """Give the terminal back. Idempotent."""


async def _main(clock: Clock, job: _Job) -> int:
    """One call, and what is told of it. Once it is interrupted nothing is waited for."""
    import asyncio

    from voicectl.assemble import Engine
    from voicectl.cli.talk import Talk
    from voicectl.keys import keys_of
    from voicectl.transports.microphone import Microphone
    from voicectl.transports.sound_card import PortAudio

    console.share_threads()
    usage = Usage()
    engine = Engine(job.agent, clock, find_key=keys_of(console.env()))
    card = PortAudio(job.hold_ms / 1000 if job.hold_ms else None)
    mic = Microphone(rate=job.agent.line.rate, clock=clock, input=job.devices[0], output=job.devices[1], card=card)
    talk = Talk(job.agent.name, job.agent.profile or "none")
    talk.providers = {
        stage: " or ".join(one.provider for one in (choice, *choice.fallback))
        for stage, choice in job.agent.stages().items()
    }
    call = _Call(clock, job.agent, mic, talk)
    interrupted = False
    try:
        with console.interrupt_kills():
            await _ready(clock, engine, mic, job.progress)
        call.folder = job.make_folder()
        job.progress.done()
        with settled():
            await _hold(call, engine, job)
    except asyncio.CancelledError:
        interrupted = True
    except BaseException:
        await mic.aclose()
        await engine.aclose()
        raise
    usage.look()
    code = EXIT_OK
    if call.folder and (call.folder / CALL).is_dir():
        code = _tell(job, usage, call, interrupted=interrupted)
    if interrupted:
        # Models may still be loading in threads that nobody can stop, and nothing is left to be kept.
        console.err("voicectl: interrupted")
        console.leave(EXIT_INTERRUPTED)
    await mic.aclose()
    await engine.aclose()
    return code


async def _ready(clock: Clock, engine: Any, mic: Microphone, progress: console.ProgressLine) -> None:
    """Open the devices while the models load; who fails first is told."""
    import asyncio

    tasks = [
        clock.spawn(mic.open(), name="opening the sound devices"),
        clock.spawn(engine.start(progress), name="starting the agent"),
    ]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


async def _hold(call: _Call, engine: Any, job: _Job) -> None:
    from voicectl.cli.talk import Follow, Tap

    tap = Tap(job.agent.line.rate, call.talk)
    follow = Follow(call.talk)
    show = job.show(call)

    def line(trace: Trace) -> Transport:
        call.mic.note = trace.append
        call.trace = trace

        def happened(event: Event) -> None:
            show.event(event)
            for each in follow.happened(event):
                show.line(each)

        trace.listen(happened)
        if not job.cancels_echo:
            return call.mic
        from voicectl.transports.echo_canceller import EchoCanceller, WithoutEcho

        return WithoutEcho(call.mic, EchoCanceller(job.agent.line.rate))

    def on_session(session: Session) -> None:
        call.session = session
        show.begin()

    measuring = call.clock.spawn(_measure(call, tap, follow, show), name="measuring")
    listening = call.clock.spawn(_listen_for_echo(call, show, job.cancels_echo), name="listening for echo")
    limit = call.clock.spawn(_limit(call, job.seconds), name="time limit")
    try:
        assert call.folder
        await engine.call(line, call.folder / CALL, on_session, tap)
    finally:
        measuring.cancel()
        listening.cancel()
        limit.cancel()
        show.end()


async def _limit(call: _Call, seconds: float | None) -> None:
    if seconds is not None:
        while call.session is None:
            await call.clock.sleep_until(call.clock.now() + 0.05)
        await call.clock.sleep_until(call.clock.now() + seconds)
        call.mic.hang_up()


async def _listen_for_echo(call: _Call, show: Show, cancels: bool) -> None:
    """Say once that the microphone hears the agent, and what to do."""
    from voicectl.cli.talk import Line

    heard = 0
    while heard < _ECHOES:
        await call.clock.sleep_until(call.clock.now() + 0.25)
        if call.session and call.talk.agent_speaks:
            heard = heard + 1 if call.session.hears_itself() else 0
    do = "turn the speaker down, or use a headset" if cancels else "use a headset, or: pip install 'voicectl[echo]'"
    show.line(call.talk.add(Line("note", f"the microphone hears the agent: {do}", call.talk.now)))


async def _measure(call: _Call, tap: Tap, follow: Follow, show: Show) -> None:
    """Measure each answer as the report will, once it can be heard."""
    from voicectl.cli.talk import exchanges
    from voicectl.events import PlayoutStarted

    done = 0
    while True:
        await call.clock.sleep_until(call.clock.now() + _MEASURE_AFTER_S / 2)
        trace = call.trace
        if trace is None:
            continue
        begun = trace.of(PlayoutStarted)
        if len(begun) == done or call.talk.now < begun[-1].at + _MEASURE_AFTER_S:
            continue
        done = len(begun)
        found = await call.clock.run(exchanges, tuple(trace.events), call.agent.line.rate, tap.snapshot())
        line = follow.measured(found)
        if line is not None and not line.open:
            show.line(line)


# The end ---------------------------------------------------------------------------------------


def _tell(job: _Job, usage: Usage, call: _Call, *, interrupted: bool) -> int:
    """The report's figures in a few lines; the whole report is kept beside the call."""
    from voicectl.analysis.metrics import Run, analyse
    from voicectl.recording import open_recording
    from voicectl.report.json import report_json

    about = Run(
        agent=job.agent.name,
        profile=job.agent.profile or "none",
        peak_rss_mb=usage.peak_rss_mb(),
        machine=usage.machine(),
        busy_cpus=usage.busy_cpus(),
        interrupted=interrupted,
    )
    folder = call.folder
    assert folder
    analysis = analyse([open_recording(folder / CALL)], about, job.agent.thresholds)
    write_json(folder / "report.json", report_json(analysis))
    for text in _summary(analysis, call.talk):
        console.err(text)
    console.err(f"call kept in {folder}: voicectl report last, voicectl replay last")
    return EXIT_OK


def _summary(analysis: Any, talk: Talk) -> list[str]:
    from voicectl.report.table import in_ms, interval

    answered = len(analysis.of("answered"))
    figures = analysis.durations["voice_to_voice_ms"]
    told = [f"{answered} answered turn{'s' * (answered != 1)}"]
    told += [f"{len(found)} {what}" for what in ("early", "no answer") if (found := analysis.of(what))]
    text = " · ".join(told)
    for label, figure in (("P50", figures.p50), ("P95", figures.p95)):
        unit = " ms" if figure.value is not None else ""
        beside = f" ({interval(figure)})" if interval(figure) else ""
        text += f" · {label} {in_ms(figure)}{unit}{beside}"
    lines = [f"{text} · n={figures.n}"]
    if analysis.cold is not None and analysis.cold.exchange.outcome == "answered":
        lines[0] += f" · first turn, apart: {analysis.cold.wait_ms:.0f} ms"
    if talk.device_s is not None:
        taken, given = (1000 * one for one in talk.device_s)
        lines.append(
            f"of each wait the device takes {taken + given:.0f} ms: {taken:.0f} from the microphone,"
            f" {given:.0f} to the speaker"
        )
    if talk.troubles:
        lines.append(f"the sound stumbled {talk.troubles} times: try --hold 120, or voicectl doctor")
    return lines


# Showing ---------------------------------------------------------------------------------------


def _show(json: bool, plain: bool, quiet: bool) -> Callable[[_Call], Show]:
    if json:
        return lambda call: _JsonLines()
    if plain or quiet or not console.is_full_screen():
        return lambda call: _Plain(call, quiet)
    return _FullScreen


class _FullScreen(Show):
    """The whole terminal, and keys."""

    def __init__(self, call: _Call) -> None:
        from voicectl.cli.screen import Keyboard, Screen

        self._call = call
        keyboard = Keyboard(
            call.talk,
            call.clock.now,
            act=lambda act, text: call.session.act(act, text) if call.session else None,
            mute=lambda muted: setattr(call.mic, "muted", muted),
            mark=self._mark,
            hang_up=call.mic.hang_up,
        )
        self._screen = Screen(call.talk, call.clock, keyboard)

    def begin(self) -> None:
        self._screen.open()

    def end(self) -> None:
        self._screen.close()
        for line in self._call.talk.lines:
            _print(line)

    def _mark(self) -> None:
        from voicectl.events import MomentMarked

        if self._call.session:
            self._call.session.note(MomentMarked(at=self._call.session.now()))


def _print(line: Line) -> None:
    wait = f"  ({line.wait_ms:.0f} ms)" if line.wait_ms is not None else ""
    cut = f" ~~{line.cut}~~" if line.cut else ""
    console.out(f"{line.who:>6}  {line.text}{cut}{wait}")


class _JsonLines(Show):
    """Each event as the trace has it."""

    def event(self, event: Event) -> None:
        from voicectl.trace import event_line

        console.out(event_line(event).rstrip())
        console.flush()


class _Plain(Show):
    """Who said what, and how long the answer took."""

    def __init__(self, call: _Call, quiet: bool) -> None:
        self._call = call
        self._quiet = quiet
        self._shown: dict[int, bool] = {}  # whether with its wait

    def begin(self) -> None:
        if not self._quiet:
            console.err(f"listening: {self._call.mic.describe()}. Speak; Ctrl-C ends the call")

    def line(self, line: Line) -> None:
        waited = line.wait_ms is not None
        before = self._shown.get(id(line))
        if before is None:
            _print(line)
        elif waited and not before:
            console.out(f"{'':>6}  ({line.wait_ms:.0f} ms)")
        self._shown[id(line)] = waited
        console.flush()
