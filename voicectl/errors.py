"""Every error a user can meet, and the exit code it ends with.

    VoicectlError                     what happened · where · what to do next
    ├── UsageError            2       the command line asks for something that cannot be
    │   ├── SpecError         2       agents.yaml / profile / caller: all problems of a file at once
    │   ├── AudioFileError    2       a WAV that cannot be used
    │   └── RecordingError    2       a recording that cannot be opened, or is not what it says it is
    ├── ProviderError         3       a model or vendor failed
    │   ├── MissingExtra      3       an optional package is not installed: says the pip line
    │   └── WeightsError      3       model weights are missing, corrupted or out of reach
    ├── TransportError        3       the line (WAV, microphone, phone) failed
    ├── StorageError          3       what was to be kept could not be written
    └── VirtualTimeError      3       something that needs real time was used on the virtual clock

Exit codes are an API: 0 fine · 1 a threshold failed or a replay diverged · 2 usage or spec ·
3 provider or transport · 4 undecided · 130 interrupted. Nothing here imports anything of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PROVIDER = 3
EXIT_UNDECIDED = 4
EXIT_INTERRUPTED = 130


class VoicectlError(Exception):
    """An error with one clear line.

    Args:
        message: what happened, lower case, no full stop.
        where: the place a person can go to (`agents.yaml:14:10`, a path, a provider).
        hint: what to do next, as a sentence.
    """

    exit_code = EXIT_PROVIDER

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        line = f"{self.where}: {self.message}" if self.where else self.message
        return f"{line}. {self.hint}" if self.hint else line


class UsageError(VoicectlError):
    """The command line asks for something that cannot be."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file people write: `where` is `file:line:col`."""

    where: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        line = f"{self.where}: {self.message}"
        return f"{line}. {self.hint}" if self.hint else line


class SpecError(UsageError):
    """All problems of a spec file at once; `str()` gives one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a SpecError needs at least one problem")
        first = problems[0]
        super().__init__(first.message, where=first.where, hint=first.hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class AudioFileError(UsageError):
    """A sound file that cannot be used; `where` names it."""


class RecordingError(UsageError):
    """A recording that cannot be opened, or is not what it says it is."""


FailureKind = Literal["failed", "timeout", "unreachable", "rate_limited", "server", "refused", "protocol"]
"""Why a provider failed, as far as it tells what to do about it:

- timeout: no answer in time; unreachable: no connection, or it was cut (DNS, TCP, TLS, socket)
- rate_limited: too much was asked (429); server: its own fault (5xx)
- refused: our fault, and the same next time (key, model, request: 4xx); protocol: it sent nonsense
- failed: anything else, nothing is known
"""


class ProviderError(VoicectlError):
    """A model or vendor failed; `where` is `stage:provider`.

    Args:
        kind: why, as wrappers (retry, breaker, fallback) need it.
        retry_after_s: how long the vendor asks us to wait, where it says so.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        kind: FailureKind = "failed",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.kind: FailureKind = kind
        self.retry_after_s = retry_after_s


def kind_of_status(status: int) -> FailureKind:
    """What an HTTP status other than 2xx means. 529 is "overloaded", which is no fault of ours."""
    if status == 429:
        return "rate_limited"
    if status == 408:
        return "timeout"
    return "server" if status >= 500 else "refused"


def kind_of_socket(error: BaseException) -> FailureKind:
    """What it means that a websocket failed, by the codes it was closed with (RFC 6455, 7.4), if it was."""
    if isinstance(error, TimeoutError):
        return "timeout"
    sent, received = (getattr(getattr(error, side, None), "code", None) for side in ("sent", "rcvd"))
    if received in (1003, 1007, 1008):
        return "refused"
    if received in (1011, 1012, 1013):
        return "server"
    return "protocol" if sent in (1002, 1007) and not received else "unreachable"


def masked(said: str, key: str | None) -> str:
    """What a vendor or an SDK says, in one line and without the key, which some repeat, if in small letters."""
    said = " ".join(said.split())
    key = (key or "").strip()
    return re.sub(re.escape(key), "***", said, flags=re.IGNORECASE) if key else said


def retry_after(header: object) -> float | None:
    """The seconds of a Retry-After header. None: it was not sent, or holds a date."""
    try:
        seconds = float(str(header))
    except ValueError:
        return None
    return seconds if 0 <= seconds < inf else None


class MissingExtra(ProviderError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, *, where: str | None = None) -> None:
        super().__init__(
            f"needs the package '{package}', which is not installed",
            where=where,
            hint=f"Run: pip install 'voicectl[{extra}]'",
        )


class WeightsError(ProviderError):
    """Model weights are missing, corrupted or out of reach."""


class TransportError(VoicectlError):
    """The line (WAV, microphone, phone) failed."""


class StorageError(VoicectlError):
    """What was to be kept could not be written (full disk, no permission)."""


class VirtualTimeError(VoicectlError):
    """Something that needs real time was used on the virtual clock, or nothing can happen any more."""
