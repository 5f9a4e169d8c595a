"""`voicectl recordings`: the calls that were kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.cli.runs import PathsArgument, recordings_of
from voicectl.errors import EXIT_OK, EXIT_USAGE, RecordingError

if TYPE_CHECKING:
    from voicectl.recording import Recording

recordings_app = typer.Typer(
    name="recordings", no_args_is_help=True, rich_markup_mode=None, help="List, show, verify, remove and pack calls."
)
RecordingArgument = Annotated[Path, typer.Argument(metavar="RECORDING", help="The folder of one call.")]


@recordings_app.command("list")
def list_recordings(paths: PathsArgument = None, json: JsonOption = False) -> int:
    """List the recordings in a folder and below it.

    Example: voicectl recordings list runs/
    """
    from voicectl.recording import open_recording

    found: list[dict[str, Any]] = []
    for folder in recordings_of(paths):
        try:
            found.append(_facts(open_recording(folder)))
        except RecordingError as error:
            found.append({"recording": str(folder), "state": "damaged", "problem": str(error)})
    if json:
        console.out_json(found)
    else:
        header = ("recording", "agent", "profile", "clock", "turns", "length", "state")
        console.table(header, [_row(facts) for facts in found])
    return EXIT_USAGE if any(facts["state"] == "damaged" for facts in found) else EXIT_OK


def _facts(recording: Recording) -> dict[str, Any]:
    from voicectl.events import CallEnded, CallStarted, TurnEnded

    started = next((event for event in recording.events if isinstance(event, CallStarted)), None)
    ended = next((event for event in recording.events if isinstance(event, CallEnded)), None)
    return {
        "recording": str(recording.path),
        "state": "sealed" if recording.sealed else "cut",
        "agent": recording.header.get("agent"),
        "profile": recording.header.get("profile"),
        "voicectl": recording.header.get("voicectl"),
        "caller": started.caller if started else None,
        "clock": started.clock if started else None,
        "seconds": round(recording.seconds, 3),
        "turns": sum(isinstance(event, TurnEnded) for event in recording.events),
        "ended": ended.reason if ended else None,
        "cut": recording.cut,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    if facts["state"] == "damaged":
        return (facts["recording"], "", "", "", "", "", facts["problem"])
    state = facts["cut"] or facts["state"]
    shown = (facts["agent"] or "–", facts["profile"] or "–", facts["clock"] or "–", str(facts["turns"]))
    return (facts["recording"], *shown, f"{facts['seconds']:.1f} s", state)


@recordings_app.command("show")
def show(
    recording: RecordingArgument,
    turn: Annotated[int | None, typer.Option("--turn", min=1, help="Only this turn of the caller.")] = None,
    json: JsonOption = False,
) -> None:
    """Tell what happened in a call, event by event.

    Example: voicectl recordings show recordings/0001-coffee-order --turn 2
    """
    from voicectl.recording import open_recording
    from voicectl.replay.compare import of_turn
    from voicectl.replay.show import event_json
    from voicectl.replay.tell import tell

    opened = open_recording(recording)
    facts = _facts(opened)
    events = opened.events if turn is None else of_turn(opened.events, turn)
    if json:
        console.out_json({**facts, "events": [event_json(event) for event in events]})
        return
    for key, value in facts.items():
        if value is not None:
            console.out(f"{key:<10} {value}")
    console.out()
    for event in events:
        console.out(tell(event))


@recordings_app.command("verify")
def verify(paths: PathsArgument = None, json: JsonOption = False) -> int:
    """Compute the hashes again and read every file. Exit 2 when one is not what was recorded.

    Example: voicectl recordings verify recordings/
    """
    from voicectl.recording import STREAMS_NAMES, open_recording
    from voicectl.streams import read_streams

    found: list[tuple[Path, str, str]] = []
    for folder in recordings_of(paths):
        try:
            opened = open_recording(folder)
            if all((folder / name).is_file() for name in STREAMS_NAMES):
                read_streams(folder)
            why = opened.cut or "its writer was stopped before it was sealed"
            found.append((folder, "sealed", "") if opened.sealed else (folder, "cut", why))
        except RecordingError as error:
            found.append((folder, "damaged", str(error)))
    if json:
        console.out_json([{"recording": str(path), "state": state, "why": why or None} for path, state, why in found])
    for path, state, why in [] if json else found:
        word = {"sealed": console.styled("ok", "green"), "cut": console.styled("cut", "yellow")}.get(state, "")
        console.out(f"{word} {path}{f': {why}' if why else ''}") if word else console.err(f"voicectl: error: {why}")
    return EXIT_USAGE if any(state == "damaged" for _, state, _ in found) else EXIT_OK


@recordings_app.command("rm")
def remove(recordings: Annotated[list[Path], typer.Argument(metavar="RECORDING...", help="Folders of calls.")]) -> None:
    """Remove recordings. Only what belongs to one is removed.

    Example: voicectl recordings rm runs/20261121-101500-coffee/0003-coffee-noisy
    """
    from voicectl.recording import FILE_NAMES, is_recording
    from voicectl.trace import storage_error

    for folder in recordings:
        if not is_recording(folder):
            raise RecordingError("is no recording, so it stays", where=str(folder))
    for folder in recordings:
        try:
            for name in FILE_NAMES:
                (folder / name).unlink(missing_ok=True)
            others = sorted(path.name for path in folder.iterdir())
            if not others:
                folder.rmdir()
        except OSError as error:
            raise storage_error(folder, error) from error
        console.out(f"removed {folder}" + (f", but not what else is in it: {', '.join(others)}" if others else ""))


@recordings_app.command("pack")
def pack(
    paths: PathsArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path(
        "recordings.tar.gz"
    ),
) -> None:
    """Put recordings into one file, with the hash of every file in it.

    Example: voicectl recordings pack runs/20261121-101500-coffee -o calls.tar.gz
    """
    from voicectl.packing import pack as pack_up

    folders = recordings_of(paths)
    sha256 = pack_up(folders, out)
    size = console.size(out.stat().st_size)
    console.out(f"{out}: {len(folders)} recording{'s' * (len(folders) != 1)}, {size}, sha256 {sha256}")


@recordings_app.command("unpack")
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `pack` wrote.")],
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where to.")] = Path("recordings"),
) -> None:
    """Take recordings out of a packed file. It is as it was packed, or nothing is written.

    Example: voicectl recordings unpack calls.tar.gz --into recordings
    """
    from voicectl.packing import unpack as take_out

    for folder in take_out(file, into):
        console.out(f"{console.styled('ok', 'green')} {folder}")
