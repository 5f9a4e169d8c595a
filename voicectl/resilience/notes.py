"""Where wrappers write what they decided: the call they work for, or nowhere. Nothing of its own.

A wrapper notes on the stage's stream that is under way, at the moment of the decision, so that a
recording holds it with that stream (`streams.Noted`) and a replay notes it again.
"""

from __future__ import annotations

from typing import Protocol

from voicectl.events import Event


class CallNotes(Protocol):
    """The clock and the trace of one call."""

    def now(self) -> float:
        """Seconds of the call."""
        ...

    def note(self, event: Event) -> None: ...


class NoNotes:
    """For what belongs to no call: warming up before the first."""

    def now(self) -> float:
        return 0.0

    def note(self, event: Event) -> None:
        """Nobody reads it."""
