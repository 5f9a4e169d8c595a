"""The only door to the outside of the process: environment, terminal, dates, standard streams.

Results go to stdout, progress and errors to stderr. Colour only on a terminal that wants it
(`NO_COLOR`, `TERM=dumb`). Imports nothing heavy: `rich` comes when a console is asked for.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO

if TYPE_CHECKING:
    from rich.console import Console

Style = Literal["bold", "dim", "red", "green", "yellow"]

_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_PLAIN_WIDTH = 100  # of tables when no terminal says otherwise
_REDRAW_S = 0.1


def env() -> Mapping[str, str]:
    """The environment, to be handed down."""
    return os.environ


def debug() -> bool:
    """Whether people asked for tracebacks."""
    return os.environ.get("VOICECTL_DEBUG", "") not in ("", "0")


def set_debug() -> None:
    """Ask for tracebacks, here and in the processes we start."""
    os.environ["VOICECTL_DEBUG"] = "1"


def now() -> datetime.datetime:
    """The date and time, with its zone; for names and headers, never for measuring."""
    return datetime.datetime.now().astimezone()


def seconds() -> float:
    """For telling how long a command took, never for measuring a call."""
    return time.monotonic()


def out(text: str = "") -> None:
    """A line of the result."""
    print(text, file=sys.stdout)


def err(text: str) -> None:
    """A line about the result: progress, warnings, errors."""
    print(text, file=sys.stderr, flush=True)


def out_json(value: Any) -> None:
    """The result for programs."""
    import json

    out(json.dumps(value, indent=2, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))


def never_choke() -> None:
    """A character that the terminal's encoding lacks is shown by its number."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # a real stream has it
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what is buffered, so that a full disk or a closed pipe shows before the end."""
    sys.stdout.flush()


def reads_terminal() -> bool:
    """Whether somebody types, and sees what they type."""
    return sys.stdin.isatty()


def typed_lines() -> Iterator[str]:
    """Lines from stdin as they come, without their end."""
    for line in sys.stdin:
        yield line.strip()


def share_threads() -> None:
    """Let threads take turns ten times as often: the sound system's must not wait for ours."""
    sys.setswitchinterval(0.0005)


@contextlib.contextmanager
def interrupt_kills() -> Generator[None]:
    """Until the end of the block Ctrl-C ends the process as the system does: native code that loads a
    model keeps Python from hearing it for seconds. Only where nothing is to be kept yet."""
    import signal

    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def leave(code: int) -> NoReturn:
    """End this process now, whatever its threads do."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def drop_output() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def width() -> int:
    """Columns to print in."""
    return shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colour(stream: TextIO) -> bool:
    """Whether `stream` takes colour."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def styled(text: str, style: Style, stream: TextIO | None = None) -> str:
    """`text` in a style where stdout (or `stream`) takes colour."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour(stream or sys.stdout) else text


def stdout_console() -> Console:
    """A rich console for results."""
    return _rich(sys.stdout)


def stderr_console() -> Console:
    """A rich console for progress and warnings."""
    return _rich(sys.stderr)


def _rich(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(
        file=stream,
        width=None if is_terminal(stream) else width(),
        no_color=not colour(stream),
        highlight=False,
        emoji=False,
        markup=False,
    )


def secret(prompt: str) -> str:
    """A line that nobody else may read: asked for unseen on a terminal, else the first line of stdin."""
    if not is_terminal(sys.stdin):
        return sys.stdin.readline()
    import getpass

    return getpass.getpass(prompt, stream=sys.stderr)


def size(count: int) -> str:
    """Bytes for people: `491 MB`."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.{0 if count >= 10 * scale else 1}f} {unit}"
    return f"{count} B"


def providers_in_words(providers: Mapping[Any, str]) -> str:
    """Who does the work: `local`, or `vad webrtc, else local`."""
    common = max(providers.values(), key=list(providers.values()).count)
    others = [f"{stage} {provider}" for stage, provider in providers.items() if provider != common]
    return f"{', '.join(others)}, else {common}" if others else common


# The whole screen ------------------------------------------------------------------------------


def is_full_screen() -> bool:
    """Whether there is a terminal to draw on and to read keys from."""
    import importlib.util

    has_keys = importlib.util.find_spec("termios") is not None  # Windows has none
    return has_keys and is_terminal(sys.stdout) and sys.stdin.isatty()


class FullScreen:
    """The terminal's second screen, without echo, until `close`."""

    def __init__(self) -> None:
        import termios
        import tty

        self.keys_from = sys.stdin.fileno()
        self.colour = colour(sys.stdout)
        self._before = termios.tcgetattr(self.keys_from)
        tty.setcbreak(self.keys_from)
        self._put("\x1b[?1049h\x1b[?25l\x1b[2J")

    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        size = shutil.get_terminal_size((80, 24))
        return size.columns, size.lines

    def keys(self) -> str:
        return os.read(self.keys_from, 1024).decode(errors="ignore")

    def write(self, rows: Iterable[tuple[int, str]], *, clear: bool) -> None:
        """Rows by their number from 1, in one go."""
        text = "".join(f"\x1b[{number};1H{row}\x1b[K" for number, row in rows)
        begin = "\x1b[?2026h\x1b[2J" if clear else "\x1b[?2026h"
        self._put(f"{begin}{text}\x1b[?2026l")

    def close(self) -> None:
        import termios

        self._put("\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(self.keys_from, termios.TCSADRAIN, self._before)

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.write(text)
            sys.stdout.flush()


# Tables ----------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns two spaces apart; the last one wraps under itself to fit the terminal."""
    body = [list(row) for row in rows]
    widths = [max(len(row[index]) for row in [list(header), *body]) for index in range(len(header))]
    for number, row in enumerate([[name.upper() for name in header], *body]):
        for line in _lines(row, widths):
            out(styled(line, "dim") if number == 0 else line)


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    import textwrap

    head = "".join(cell.ljust(wide + 2) for cell, wide in zip(row[:-1], widths[:-1], strict=True))
    room = max(20, width() - len(head))
    last = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
    return [(head if number == 0 else " " * len(head)) + piece for number, piece in enumerate(last)]


# Progress --------------------------------------------------------------------------------------


class ProgressLine:
    """What a slow step is doing, on stderr: one line that changes on a terminal, else a line a step.

    Call it with a text (`Progress` of the pipeline), or `bytes(...)` for a download. Nothing is
    shown before `after_s`: what is quick needs no progress.
    """

    def __init__(self, *, quiet: bool = False, after_s: float = 0.0) -> None:
        self._quiet = quiet
        self._from = seconds() + after_s
        self._stream = sys.stderr
        self._live = is_terminal(sys.stderr)
        self._shown = ""
        self._drawn = 0.0

    def __call__(self, text: str) -> None:
        if text == self._shown or self._quiet or seconds() < self._from:
            return
        self._shown = text
        if self._live:
            self._draw(text)
        else:
            err(text)

    def bytes(self, name: str, done: int, total: int, note: str) -> None:
        """A download or a check: `note` says which; both numbers 0 where there is no measure."""
        if self._quiet:
            return
        if not self._live or total == 0:
            self(f"{name}: {note}")
            return
        moment = seconds()
        if moment - self._drawn < _REDRAW_S and done < total:
            return
        self._drawn = moment
        filled = round(20 * done / total)
        bar = "█" * filled + "·" * (20 - filled)
        self._draw(f"{name}  {bar}  {size(done)} of {size(total)}  {note}")

    def done(self) -> None:
        """Clear the line for what comes next."""
        if self._live:
            self._draw("")
        self._shown = ""

    def _draw(self, text: str) -> None:
        room = shutil.get_terminal_size((80, 24)).columns - 1
        shown = text if len(text) <= room else text[: room - 1] + "…"
        self._stream.write(f"\r\x1b[2K{shown}")
        self._stream.flush()
