"""What the spec asks about providers: a contract, since specs are below providers.

`voicectl.providers.CATALOG` is the real one; tests hand in their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel

StageName = Literal["vad", "stt", "llm", "tts", "s2s", "turn_model"]
STAGES: tuple[StageName, ...] = ("vad", "stt", "llm", "tts", "s2s")
"""What agents are made of; a `turn_model` only where its endpointing listens to one."""

CHAIN: tuple[StageName, ...] = ("stt", "llm", "tts")
"""An agent has either all of these, or `s2s`."""


class Catalog(Protocol):
    def names(self, stage: StageName) -> Sequence[str]:
        """The providers of a stage."""
        ...

    def options(self, stage: StageName, name: str) -> type[BaseModel]:
        """What a provider can be told: frozen, extra keys forbidden, no secrets."""
        ...

    def models(self, stage: StageName, name: str) -> Sequence[str] | None:
        """Its models, the default first; empty: it has none to choose; None: any name may work."""
        ...
