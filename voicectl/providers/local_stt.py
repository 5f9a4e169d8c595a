"""The local STT: Moonshine on onnxruntime, run over the caller's turn each time it is asked.

What lives here: the model, its tokens, turns that are longer than it can hear at once. What must
not: when to ask for good (the endpointer's business).

The model does not stream: text comes from hearing the whole turn again, some 60 ms for three
seconds of speech. A turn of more than `_LONG_S` is cut at its quietest moment and what lies before
is heard for good, so no answer takes longer than that for one stretch.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from voicectl.audio import PIPELINE_RATE, SAMPLE_WIDTH
from voicectl.clock import Clock
from voicectl.errors import MissingExtra, ProviderError
from voicectl.pipeline.protocols import Progress, SttStream, Transcript
from voicectl.weights import Store, default_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MODELS = ("moonshine-tiny-en",)

_WHERE = "stt:local"
_LONG_S = 16.0  # the model hears up to 30 s well, at a cost that grows faster than the length
_CUT_FROM_S = 8.0  # a long turn is cut no earlier than this ...
_CUT_QUIET_S = 0.3  # ... in the middle of its quietest stretch of this length
_SHORTEST_S = 0.1  # less holds no word, and the model makes some up
_TOKENS_PER_S = 6.5  # the publisher's bound; a model that repeats itself runs into it
_START, _END = 1, 2


class Options(BaseModel):
    """What the model may use of the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(default=1, ge=1, le=16, description="CPU threads. A second one gains little.")
    partial_ms: int = Field(
        default=700,
        ge=0,
        le=10_000,
        description="Hear the turn so far this often while the caller speaks: the LLM can read ahead. 0: never.",
    )


class LocalStt:
    """Moonshine tiny, English."""

    name = "local"

    def __init__(self, options: Options, model: str | None, clock: Clock, store: Store | None = None) -> None:
        self._options = options
        self._model_name = model or MODELS[0]
        self._clock = clock
        self._store = store
        self._model: _Moonshine | None = None

    async def start(self, progress: Progress) -> None:
        """Load the model and let it hear a second of silence.

        Raises:
            MissingExtra: onnxruntime is not installed.
            WeightsError: the model is not pulled.
            ProviderError: it cannot be loaded.
        """
        if self._model:
            return
        onnxruntime = await self._clock.run(_import_onnxruntime)
        store = self._store or default_store()
        encoder, decoder, tokens = (
            store.path(self._model_name, file)
            for file in ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
        )
        progress(f"loading {self._model_name}")
        model = await self._clock.run(_Moonshine, onnxruntime, encoder, decoder, tokens, self._options.threads)
        await self._clock.run(model.hear, b"\0\0" * PIPELINE_RATE, _Job())
        self._model = model

    def open(self, start: float) -> SttStream:
        if self._model is None:
            raise ProviderError("was asked before it was started", where=_WHERE)
        return _Stream(self._model, self._clock, self._options.partial_ms / 1000)

    async def aclose(self) -> None:
        self._model = None


class _Job:
    """One run of the model, which another thread may stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.run_options: Any = None

    def stop(self) -> None:
        """Leave it at the next token, or inside the network's next step."""
        self.stopped = True
        if self.run_options is not None:
            self.run_options.terminate = True


class _Stream:
    """One turn. `push` and `flush` only take notes; one task does the hearing."""

    def __init__(self, model: _Moonshine, clock: Clock, partial_s: float) -> None:
        self._model = model
        self._clock = clock
        self._partial_s = partial_s
        self._unheard_s = 0.0  # pushed since the model last heard anything
        self._pcm = bytearray()  # what is not heard for good yet
        self._settled: list[str] = []
        self._flushes = 0
        self._answered = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._job: _Job | None = None
        self._settling = False

    def push(self, pcm: bytes) -> None:
        self._pcm += pcm
        self._unheard_s += _seconds(pcm)
        if _seconds(self._pcm) > _LONG_S or self._partial_due():
            self._changed.set()

    def flush(self) -> None:
        self._flushes += 1
        self._changed.set()
        if self._job and not self._settling:
            self._job.stop()  # what it hears is no longer all

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        """One transcript for each flush that no later one overtook, and partials between them.

        Raises:
            ProviderError: the model failed.
        """
        while not self._closed:
            if _seconds(self._pcm) > _LONG_S:
                await self._settle()
            elif self._answered < self._flushes:
                flush = self._flushes
                text = await self._hear(bytes(self._pcm))
                if text is not None and flush == self._flushes and not self._closed:
                    self._answered = flush
                    yield Transcript(self._whole(text), flush)
            elif self._partial_due():
                text = await self._hear(bytes(self._pcm))
                if text and not self._closed and self._answered == self._flushes:
                    yield Transcript(self._whole(text))
            else:
                self._changed.clear()
                await self._changed.wait()

    def _partial_due(self) -> bool:
        return 0 < self._partial_s <= self._unheard_s

    def _whole(self, text: str) -> str:
        return " ".join([*self._settled, text]).strip()

    async def _settle(self) -> None:
        """Hear the beginning of a long turn for good."""
        head = bytes(self._pcm[: _quietest(bytes(self._pcm))])
        self._settling = True
        try:
            text = await self._hear(head)
        finally:
            self._settling = False
        if text is not None:
            self._settled.append(text)
            del self._pcm[: len(head)]

    async def _hear(self, pcm: bytes) -> str | None:
        """The text of `pcm`; None when stopped."""
        job = self._job = _Job()
        self._unheard_s = 0.0
        try:
            return await self._clock.run(self._model.hear, pcm, job)
        finally:
            job.stop()  # when this task is cancelled the thread need not go on
            self._job = None

    async def aclose(self) -> None:
        self._closed = True
        self._changed.set()
        if self._job:
            self._job.stop()


class _Moonshine:
    """The two networks and the tokens. `hear` blocks; several threads may call it at a time."""

    def __init__(self, onnxruntime: Any, encoder: Path, decoder: Path, tokens: Path, threads: int) -> None:
        self._onnxruntime = onnxruntime
        self._encoder = _session(onnxruntime, encoder, threads)
        self._decoder = _session(onnxruntime, decoder, threads)
        self._tokens = _read_tokens(tokens.read_bytes())
        self._outputs: list[str] = [output.name for output in self._decoder.get_outputs()]
        self._past: dict[str, tuple[int, int]] = {
            given.name: (given.shape[1], given.shape[3])
            for given in self._decoder.get_inputs()
            if given.name.startswith("past_key_values")
        }

    def hear(self, pcm: bytes, job: _Job) -> str | None:
        """The text of s16le mono samples at PIPELINE_RATE; None when `job` was stopped.

        Raises:
            ProviderError: the model failed.
        """
        import numpy as np

        if _seconds(pcm) < _SHORTEST_S:
            return ""
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        job.run_options = self._onnxruntime.RunOptions()
        job.run_options.log_severity_level = 4  # being stopped is no error
        if job.stopped:
            return None
        try:
            tokens = self._decode(samples, job)
        except Exception as error:  # onnxruntime's errors share no base; a stopped run is one
            if job.stopped:
                return None
            raise ProviderError("the model failed", where=_WHERE) from error
        return None if job.stopped else self._text(tokens)

    def _decode(self, samples: Samples, job: _Job) -> list[int]:
        import numpy as np

        given = samples[np.newaxis]
        # As long as the samples, for the decoder too, although it hears frames of the encoder.
        mask = np.ones(given.shape, np.int64)
        [hidden] = self._encoder.run(None, {"input_values": given, "attention_mask": mask}, job.run_options)
        past: dict[str, Any] = {
            name: np.zeros((1, heads, 0, width), np.float32) for name, (heads, width) in self._past.items()
        }
        tokens: list[int] = []
        token = _START
        for step in range(round(len(samples) / PIPELINE_RATE * _TOKENS_PER_S) + 8):
            feed = {
                "input_ids": np.array([[token]], np.int64),
                "encoder_hidden_states": hidden,
                "encoder_attention_mask": mask,
                "use_cache_branch": np.array([step > 0]),
                **past,
            }
            out = dict(zip(self._outputs, self._decoder.run(None, feed, job.run_options), strict=True))
            token = int(out["logits"][0, -1].argmax())
            if token == _END or job.stopped:
                break
            tokens.append(token)
            for name in past:
                # The encoder's side is computed in the first step and handed back empty later.
                if step == 0 or ".decoder." in name:
                    past[name] = out[name.replace("past_key_values", "present")]
        return tokens

    def _text(self, tokens: list[int]) -> str:
        spelled = b"".join(self._tokens[token] for token in tokens)
        return spelled.decode("utf-8", errors="ignore").replace("▁", " ").strip()


def _session(onnxruntime: Any, path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a run that was stopped is told as an error
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are needed elsewhere
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        raise ProviderError(
            f"cannot load {path.name}", where=_WHERE, hint="Check it: voicectl models verify"
        ) from error


def _read_tokens(data: bytes) -> list[bytes]:
    """What each token spells. The file is a row of (length, bytes); a length from 128 on takes two
    bytes: its rest and how many times 128."""
    tokens: list[bytes] = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length = length - 128 + 128 * data[at]
            at += 1
        token = data[at : at + length]
        special = token.startswith(b"<") and token.endswith(b">") and len(token) > 2
        tokens.append(b"" if special else token)
        at += length
    return tokens


def _quietest(pcm: bytes) -> int:
    """The byte at which to cut a long turn."""
    import numpy as np

    samples = np.frombuffer(pcm, "<i2")[round(_CUT_FROM_S * PIPELINE_RATE) :].astype(np.float64)
    length = round(_CUT_QUIET_S * PIPELINE_RATE)
    energy = np.concatenate(([0.0], np.cumsum(samples * samples)))
    at = int(np.argmin(energy[length:] - energy[:-length])) + length // 2
    return (round(_CUT_FROM_S * PIPELINE_RATE) + at) * SAMPLE_WIDTH


def _seconds(pcm: bytes | bytearray) -> float:
    return len(pcm) / SAMPLE_WIDTH / PIPELINE_RATE


def _import_onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra("onnxruntime", "local", where=_WHERE) from error
