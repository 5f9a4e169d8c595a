"""What was spent today, by all processes of this user: an append-only file in the state folder.

Before a call an amount is reserved, after it the true one is written down. A call whose process was
killed in between stays at what was reserved for it: it may have spent that. One file a day,
`spend/2026-11-21.jsonl`, every line written whole under a lock; a line that was cut is left out.

    {"id": "4711-1-9f3a", "agent": "coffee", "reserved": "0.05"}
    {"id": "4711-1-9f3a", "agent": "coffee", "spent": "0.0123"}

What must not live here: prices, today's date.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal, InvalidOperation
from itertools import count
from pathlib import Path
from typing import Any

from voicectl.errors import StorageError

_numbers = count(1)


def state_dir(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The user's folder for what a program remembers: `$VOICECTL_STATE`, else where the platform has it."""
    if chosen := env.get("VOICECTL_STATE"):
        return Path(chosen).expanduser()
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    if platform == "darwin":
        return home / "Library" / "Application Support" / "voicectl"
    if platform == "win32":
        return Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local") / "voicectl" / "State"
    return Path(env.get("XDG_STATE_HOME") or home / ".local" / "state") / "voicectl"


class Ledger:
    """The spending of one user.

    All methods:

    Raises:
        StorageError: the state folder cannot be read or written.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "spend"

    def spent(self, agent: str, day: date) -> Decimal:
        """What calls of this agent cost, or may have cost, on that day."""
        with self._file(day) as file:
            return sum(_amounts(file, agent).values(), Decimal(0))

    def reserve(self, agent: str, day: date, amount: Decimal, cap: Decimal) -> str | None:
        """Set `amount` aside, and return what to settle it by. None: with it the day's cap would be exceeded."""
        with self._file(day) as file:
            if sum(_amounts(file, agent).values(), Decimal(0)) + amount > cap:
                return None
            name = f"{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"
            _append(file, {"id": name, "agent": agent, "reserved": str(amount)})
            return name

    def settle(self, name: str, agent: str, day: date, amount: Decimal) -> None:
        """The call is over, and cost this."""
        with self._file(day) as file:
            _append(file, {"id": name, "agent": agent, "spent": str(amount)})

    @contextmanager
    def _file(self, day: date) -> Generator[int]:
        """The day's file, which nobody else reads or writes meanwhile. The system frees it if we die."""
        path = self._folder / f"{day.isoformat()}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _lock(file)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise StorageError(
                f"what was spent cannot be written down: {why}",
                where=str(path),
                hint="Set VOICECTL_STATE to a folder of yours",
            ) from error


def _amounts(file: int, agent: str) -> dict[str, Decimal]:
    """By reservation: what was spent, or else what was reserved."""
    found: dict[str, Decimal] = {}
    for line in _read(file).splitlines():
        try:
            value: Any = json.loads(line)
            if value["agent"] == agent:
                found[str(value["id"])] = Decimal(value["spent"] if "spent" in value else value["reserved"])
        except (ValueError, KeyError, TypeError, InvalidOperation):
            continue  # cut by a kill
    return found


def _read(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    parts: list[bytes] = []
    while part := os.read(file, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def _append(file: int, value: Mapping[str, str]) -> None:
    line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    so_far = _read(file)
    if so_far and not so_far.endswith(b"\n"):
        line = b"\n" + line
    view = memoryview(line)
    while view:
        view = view[os.write(file, view) :]
    os.fsync(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
