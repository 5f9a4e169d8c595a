"""The local end-of-turn model: Smart Turn on onnxruntime hears whether a pause is the end.

What lives here: the model, and the spectrogram it looks at. What must not: what a score means for
the turn (the endpointer's business).

The model judges the last eight seconds that it is given; shorter speech stands at their end, with
silence before it. One pause costs some 115 ms of a core, so only one is judged at a time.
"""

from __future__ import annotations

import asyncio
import importlib
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import Progress, TurnModelStream
from voicectl.weights import Store, default_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

MODELS = ("smart-turn-v3.2",)

_WHERE = "turn_model:smart-turn"
_FILE = "smart-turn-v3.2-cpu.onnx"
_HEARD_S = 8  # as long as every input of the model is
_PREROLL_S = 0.3  # a detector notices speech after it began

# The spectrogram of Whisper, whose encoder the model is made of.
_FFT, _HOP, _MELS = 400, 160, 80
_TOP_HZ = 8000.0
_RANGE = 8.0  # decades below the loudest that count


class Options(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SmartTurn:
    """Smart Turn v3.2, 23 languages, from sound alone."""

    name = "smart-turn"

    def __init__(self, options: Options, model: str | None, clock: Clock, store: Store | None = None) -> None:
        self._model_name = model or MODELS[0]
        self._clock = clock
        self._store = store
        self._model: _Model | None = None
        self._turn = asyncio.Lock()

    async def start(self, progress: Progress) -> None:
        """Load the model and let it hear silence.

        Raises:
            MissingExtra: onnxruntime is not installed.
            WeightsError: the model is not pulled.
            ProviderError: it cannot be loaded.
        """
        if self._model:
            return
        onnxruntime = await self._clock.run(_import_onnxruntime)
        path = (self._store or default_store()).path(self._model_name, _FILE)
        progress(f"loading {self._model_name}")
        model = await self._clock.run(_Model, onnxruntime, path)
        await self._clock.run(model.judge, bytes(SAMPLE_WIDTH * PIPELINE_RATE), _Job())
        self._model = model

    def open(self) -> TurnModelStream:
        if self._model is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        return _Stream(self)

    async def aclose(self) -> None:
        self._model = None

    async def judge(self, pcm: bytes) -> float:
        """The probability that who says `pcm` has finished.

        Raises:
            ProviderError: the model failed, or is closed.
        """
        job = _Job()
        try:
            async with self._turn:
                if self._model is None:
                    raise ProviderError("is closed", where=_WHERE)
                return await self._clock.run(self._model.judge, pcm, job)
        finally:
            job.stop()  # when this task is cancelled the thread need not go on


class _Stream:
    """One call: its last seconds."""

    def __init__(self, provider: SmartTurn) -> None:
        self._provider = provider
        self._pcm = bytearray()
        self._end = 0  # bytes since the call began

    def push(self, pcm: bytes) -> None:
        self._pcm += pcm
        self._end += len(pcm)
        spare = len(self._pcm) - _HEARD_S * PIPELINE_RATE * SAMPLE_WIDTH
        if spare > 0:
            del self._pcm[:spare]

    async def score(self, start: float) -> float:
        first = self._end - len(self._pcm)
        want = SAMPLE_WIDTH * round((start - _PREROLL_S) * PIPELINE_RATE)
        return await self._provider.judge(bytes(self._pcm[max(0, want - first) :]))


class _Job:
    """One run of the model, which another thread may stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.run_options: Any = None

    def stop(self) -> None:
        """Leave it inside the network's next step."""
        self.stopped = True
        if self.run_options is not None:
            self.run_options.terminate = True


class _Model:
    """The network. `judge` blocks."""

    def __init__(self, onnxruntime: Any, path: Path) -> None:
        self._onnxruntime = onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the other cores think about the answer meanwhile
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # a run that was stopped is told as an error
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base
            raise ProviderError(
                f"cannot load {path.name}", where=_WHERE, hint="Check it: voicectl models verify"
            ) from error

    def judge(self, pcm: bytes, job: _Job) -> float:
        """The probability, 0..1, that who says `pcm` (PIPELINE_RATE) has finished; 0 when stopped.

        Raises:
            ProviderError: the model failed.
        """
        job.run_options = self._onnxruntime.RunOptions()
        job.run_options.log_severity_level = 4  # being stopped is no error
        if job.stopped:
            return 0.0
        given = log_mel(pcm)[None]
        try:
            [[[answer]]] = self._session.run(None, {"input_features": given}, job.run_options)
        except Exception as error:  # onnxruntime's errors share no base; a stopped run is one
            if job.stopped:
                return 0.0
            raise ProviderError("the model failed", where=_WHERE) from error
        return round(float(answer), 3)


def log_mel(pcm: bytes) -> Floats:
    """The last `_HEARD_S` of `pcm` as the model wants to see it: mel bands x windows of 10 ms.

    Loudness is taken out twice: the samples get the mean 0 and the variance 1, and levels are
    relative to the loudest point. In double precision: the network is quantised, and where it is in
    doubt the dust of single precision moves its score by a third.
    """
    import numpy as np

    total = _HEARD_S * PIPELINE_RATE
    heard = np.frombuffer(pcm, "<i2")[-total:] / 32768
    samples = np.zeros(total)
    samples[total - len(heard) :] = heard
    samples = (samples - samples.mean()) / math.sqrt(samples.var() + 1e-7)

    # Windows are centred on their hop, so half a window is mirrored at either end.
    around = np.pad(samples, _FFT // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(around, _FFT)[::_HOP][: total // _HOP]
    window, bands = _tables()
    power = np.abs(np.fft.rfft(windows * window)) ** 2
    levels = np.log10(np.maximum(power @ bands, 1e-10))
    levels = np.maximum(levels, levels.max() - _RANGE)
    return np.ascontiguousarray(((levels + 4) / 4).T, np.float32)


@lru_cache(maxsize=1)
def _tables() -> tuple[Doubles, Doubles]:
    """The window (Hann), and what each frequency adds to each band (triangles of equal area,
    equally far apart in mel)."""
    import numpy as np

    turn = np.arange(_FFT) * (2 * math.pi / _FFT)
    edges = _hz(np.linspace(0.0, _mel(_TOP_HZ), _MELS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(_FFT // 2 + 1)[:, None] * (PIPELINE_RATE / _FFT)
    slopes = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return 0.5 - 0.5 * np.cos(turn), np.maximum(slopes, 0.0) * (2.0 / (high - low))


# Slaney's mel: linear up to 1 kHz (15 mel), logarithmic above, 27 mel for a factor of 6.4.
_LINEAR_HZ, _LINEAR_MEL = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27


def _mel(hz: float) -> float:
    if hz < _LINEAR_HZ:
        return hz * _LINEAR_MEL / _LINEAR_HZ
    return _LINEAR_MEL + math.log(hz / _LINEAR_HZ) / _LOG_STEP


def _hz(mels: Doubles) -> Doubles:
    import numpy as np

    linear = mels * (_LINEAR_HZ / _LINEAR_MEL)
    return np.where(mels < _LINEAR_MEL, linear, _LINEAR_HZ * np.exp((mels - _LINEAR_MEL) * _LOG_STEP))


def _import_onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra("onnxruntime", "local", where=_WHERE) from error
