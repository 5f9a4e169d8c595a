"""What a stand-in does wrong, to whom, and when. Pure values."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Fault:
    """From request number `after` on (0: the next), `times` requests (None: all) of `service` go wrong."""

    service: Service
    kind: FaultKind
    after: int = 0
    times: int | None = None
    seconds: float = 5.0
    pieces: int = 2
