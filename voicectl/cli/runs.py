"""Where runs and recordings are, for the commands that take one. `last` is the newest run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from voicectl.errors import UsageError

RECORDINGS = Path("recordings")
RUNS = Path("runs")
LAST = "last"


def _complete(incomplete: str) -> list[str]:
    return [name for name in (LAST, *sorted(str(path) for path in RUNS.glob("*"))) if name.startswith(incomplete)]


PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PATH",
        help="A recording, or a folder of recordings. Default: recordings/. `last` is the newest run.",
        autocompletion=_complete,
    ),
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="The folder of a run, or `last`: the newest in runs/.", autocompletion=_complete
    ),
]


def find_run(path: Path) -> Path:
    """The folder of a run; `last` is the newest below runs/.

    Raises:
        UsageError: there is no such run.
    """
    if str(path) != LAST or path.exists():
        if not path.is_dir():
            raise UsageError("no such run", where=str(path), hint="Make one: voicectl bench")
        return path
    runs = sorted(one for one in RUNS.glob("*") if one.is_dir())
    if not runs:
        raise UsageError(f"there is no run in {RUNS}/ yet", hint="Make one: voicectl bench")
    return max(runs, key=lambda one: one.stat().st_mtime)


def recordings_of(paths: Sequence[Path] | None) -> list[Path]:
    """Every recording in and below these folders.

    Raises:
        UsageError: there is no such folder, or no recording in it.
    """
    from voicectl.recording import find_recordings

    found: list[Path] = []
    for path in paths or [RECORDINGS]:
        here = list(find_recordings(find_run(path) if str(path) == LAST else path))
        if not here:
            raise UsageError(
                "there is no recording here", where=str(path), hint="Every call of `voicectl bench` is one"
            )
        found += here
    return list(dict.fromkeys(found))


def check_writable(path: Path) -> None:
    """Before the work, not after it.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot be written: {why}", where=str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Raises:
    StorageError: the file cannot be written.
    """
    from voicectl.trace import storage_error

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise storage_error(path, error) from error
