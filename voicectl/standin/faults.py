"""What a stand-in does wrong, to whom, and when. Decides, and touches no socket."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, get_args

Service = Literal[
    "deepgram-stt",
    "deepgram-flux",
    "deepgram-tts",
    "openai-llm",
    "openai-tts",
    "openai-stt",
    "openai-realtime",
    "cartesia-tts",
    "cartesia-stt",
    "anthropic-llm",
    "elevenlabs-tts",
]
"""What a vendor does: the vendor and the stage."""

FaultKind = Literal[
    "429",
    "429-retry-after",
    "500",
    "401",
    "dns",
    "refused",
    "tls",
    "slow-first-byte",
    "cut",
    "silent",
    "malformed",
    "drip",
    "clock-skew",
]
"""
- 429 (with or without Retry-After: 1), 500, 401: the request, or the websocket's handshake, is
  answered with that status; on a websocket that is open already, the vendor's own error message
  of that meaning, and a close
- dns, refused, tls: open connections are cut, and no new one succeeds: the name is not known, the
  port is closed, the handshake fails
- slow-first-byte: nothing for `seconds`, then as usual
- cut: the connection is aborted after `pieces` pieces of the answer
- silent: the connection stays open and nothing comes any more after `pieces` pieces
- malformed: one piece is not what the protocol allows
- drip: each piece comes `seconds` after the one before
- clock-skew: timestamps in the answer are off by `seconds`
"""

SERVICES: tuple[Service, ...] = get_args(Service)
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

STATUSES: dict[FaultKind, int] = {"429": 429, "429-retry-after": 429, "500": 500, "401": 401}
"""Faults that are an answer with this status."""
GATE_KINDS: frozenset[FaultKind] = frozenset({"dns", "refused", "tls"})
"""Faults of a whole port, not of one request. Connections that do not come about cannot be counted:
with `times` given, the port is well again after `seconds`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """From request number `after` on (0: the next), `times` requests (None: all) of `service` go wrong."""

    service: Service
    kind: FaultKind
    after: int = 0
    times: int | None = None
    seconds: float = 5.0
    pieces: int = 2


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that struck a request, or closed a port, when: seconds of the server's clock, which is
    the monotonic clock of this machine (`Clock.now` of any loop on the wall clock)."""

    at: float
    service: Service
    kind: FaultKind


class Faults:
    """What is to go wrong now. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[_Due] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._due.append(_Due(fault, fault.after, fault.times))

    def clear(self) -> None:
        with self._lock:
            self._due.clear()

    def strike(self, service: Service) -> Fault | None:
        """A request of this service begins: what goes wrong with it."""
        with self._lock:
            struck: Fault | None = None
            for due in [due for due in self._due if due.fault.service == service]:
                if due.wait > 0:
                    due.wait -= 1
                elif struck is None:
                    struck = self._take(due)
            return struck

    def at_door(self, service: Service, *, take: bool) -> Fault | None:
        """A websocket is asked for, or (`take` is false) something that is not the service itself: the
        status to refuse it with. It is no request, so nothing that waits for one comes nearer."""
        with self._lock:
            for due in self._due:
                if due.fault.service == service and due.wait == 0 and due.fault.kind in STATUSES:
                    return self._take(due) if take else due.fault
            return None

    def _take(self, due: _Due) -> Fault:
        if due.left is not None:
            due.left -= 1
            if due.left <= 0:
                self._due.remove(due)
        return due.fault


@dataclass(slots=True)
class _Due:
    fault: Fault
    wait: int
    left: int | None
