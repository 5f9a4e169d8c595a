"""The stand-in of the vendors (`voicectl.standin`), as the tests of the providers use it.

What it "hears" is the audio itself: 100 ms of samples around 500 are the word "w5", samples of 0 are
silence. So a test sees in a transcript which audio it was made of.
"""

from __future__ import annotations

from array import array
from typing import Any

from voicectl.clock import Clock
from voicectl.providers import CATALOG, StageName
from voicectl.standin import server
from voicectl.standin.answers import ANSWER
from voicectl.standin.ears import RATE

__all__ = ["ANSWER", "CANARY", "StandIn", "sound"]

CANARY = "key-canary-5e1f"
"""What the SDKs are given as the key. It must never be seen again."""


def sound(*words: int, seconds: float = 0.5) -> bytes:
    """Audio in which the stand-in hears these words, each for `seconds`; 0 is silence."""
    return b"".join(array("h", [word * 100] * round(seconds * RATE)).tobytes() for word in words)


class StandIn(server.StandIn):
    """`with StandIn() as vendor:` serves until the block ends."""

    def build(
        self, clock: Clock, stage: StageName, name: str, *, url: str = "", key: str | None = CANARY, **more: Any
    ) -> Any:
        """The provider, not yet started, that takes this for its vendor; `more` are its model and options."""
        self.serve()
        model = more.pop("model", "m" if stage == "llm" or name == "openai" else None)
        mine = f"{self.url}/v1" if name == "openai" else self.url
        options = CATALOG.options(stage, name).model_validate({"base_url": url or mine, **more})
        return CATALOG.load(stage, name)(options, model, clock, api_key=key)
