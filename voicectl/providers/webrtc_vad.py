"""The WebRTC VAD: no model, a few microseconds a frame, and eager to call noise speech.

What lives here: cutting the stream into its frames. What must not: smoothing and thresholds (the
endpointer's business).
"""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import Progress, VadStream

MODELS: tuple[str, ...] = ()

_WHERE = "vad:webrtc"


class Options(BaseModel):
    """How sure it must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aggressiveness: int = Field(default=3, ge=0, le=3, description="From 0 to 3: how much is taken for noise.")


class WebrtcVad:
    """Yes or no for each 20 ms, as probability 1 or 0."""

    name = "webrtc"
    window_s = 0.02

    def __init__(self, options: Options, model: str | None, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._webrtcvad: Any = None

    async def start(self, progress: Progress) -> None:
        """Import the library.

        Raises:
            ProviderError: it cannot be imported.
        """
        try:
            self._webrtcvad = await self._clock.run(importlib.import_module, "webrtcvad")
        except ImportError as error:
            raise ProviderError(
                f"webrtcvad cannot be loaded: {error}", where=_WHERE, hint="Run: pip install webrtcvad-wheels"
            ) from error

    def open(self) -> VadStream:
        if self._webrtcvad is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        return _Stream(self._webrtcvad.Vad(self._options.aggressiveness), round(self.window_s * PIPELINE_RATE))

    async def aclose(self) -> None:
        self._webrtcvad = None


class _Stream:
    def __init__(self, vad: Any, window: int) -> None:
        self._vad = vad
        self._size = window * SAMPLE_WIDTH
        self._rest = b""

    def push(self, pcm: bytes) -> list[float]:
        data = self._rest + pcm
        whole = len(data) // self._size * self._size
        self._rest = data[whole:]
        frames = (data[at : at + self._size] for at in range(0, whole, self._size))
        return [float(self._vad.is_speech(frame, PIPELINE_RATE)) for frame in frames]
