"""The local STT: Moonshine on onnxruntime, run over the caller's turn each time it is asked.

What lives here: the model, its tokens, turns that are longer than it can hear at once. What must
not: when to ask for good (the endpointer's business).

The model does not stream: text comes from hearing the whole turn again, some 60 ms for three
seconds of speech. So that the caller does not wait for that, the turn is heard as soon as the line
falls quiet, before anybody knows whether it is a pause; when the flush comes and there was no sound
since, its answer is ready. What was heard before is a draft for the next hearing: the decoder reads
it at once, and writes word by word only where it disagrees.

A turn of more than `_LONG_S` is cut at its quietest moment and what lies before is heard for good,
so no answer takes longer than that for one stretch.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
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
_DRAFT_MARGIN = 0.5  # of the logits: a draft this close to the best stays, so that texts do not flicker
_LOOP_LENGTHS, _LOOP_ROUNDS = (2, 8), 4  # tokens said again, how often
_DRAFT_REACH = 4  # tokens that may be too many in the draft at one place
_DRAFT_AT_ONCE = 8  # tokens that are tried again after one was wrong

_STEP_S = 0.01  # loudness is looked at in steps of this length
_HUSH_S = 0.06  # so long a quiet may be the end: shorter than a VAD is sure of, longer than most consonants' gaps
_UNDER_SPEECH = 10**-2.5  # quiet is 25 dB under the speech, in power ...
_OVER_NOISE = 10**0.6  # ... or no more than 6 dB over the line's noise ...
_CLEARLY_UNDER = 10**-1.2  # ... where that is 12 dB under the speech
_SPEECH_FADES = 10**-0.01  # a step; the loudest is forgotten by 10 dB a second
_NOISE_RISES = 10**0.002
_NO_SOUND = 1.0  # the power of the last bit
_AFTER_S = 0.1  # of silence is heard after a hush: the model finishes a word better then


class Options(BaseModel):
    """What the model may use of the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(default=1, ge=1, le=16, description="CPU threads. A second one gains little.")
    partial_ms: int = Field(
        default=1500,
        ge=0,
        le=10_000,
        description="Hear the turn so far whenever the line falls quiet, and this often while the caller speaks: "
        "the LLM can read ahead. 0: neither.",
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
        self._pcm = bytearray()  # what is not heard for good yet
        self._line = _Line()
        self._hearing_to = 0.0  # the model has heard, or is hearing, so many seconds
        self._heard: str | None = None  # the text of that; None while it is being heard
        self._draft: list[int] = []
        self._settled: list[str] = []
        self._flushes = 0
        self._answered = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._job: _Job | None = None
        self._settling = False

    def push(self, pcm: bytes) -> None:
        self._pcm += pcm
        self._line.push(pcm)
        if _seconds(self._pcm) > _LONG_S or self._partial_due():
            self._changed.set()
            asked = self._answered < self._flushes  # a flush is for what came before it
            if self._job and self._line.hushed and not self._settling and not asked:
                self._job.stop()  # what it hears is not all, and this may be the end

    def flush(self) -> None:
        self._flushes += 1
        self._changed.set()
        if self._job and not self._hears_all and not self._settling:
            self._job.stop()

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
                text = self._heard if self._hears_all else None
                if text is None:
                    # Who asks knows of a pause: this is heard to its end, quiet though it may not look.
                    text = await self._hear(margin_s=_HUSH_S)
                if text is not None and flush == self._flushes and not self._closed:
                    self._answered = flush
                    yield Transcript(self._whole(text), flush)
            elif self._partial_due():
                text = await self._hear()
                if text and not self._closed and self._answered == self._flushes:
                    yield Transcript(self._whole(text))
            else:
                self._changed.clear()
                await self._changed.wait()

    @property
    def _hears_all(self) -> bool:
        """Whether nothing but silence was pushed since what the model has heard, or is hearing."""
        return self._line.loud_until + _HUSH_S <= self._hearing_to + 1e-9

    def _partial_due(self) -> bool:
        if not self._partial_s or self._hears_all:
            return False
        return self._line.hushed or self._line.seconds - self._hearing_to >= self._partial_s - 1e-9

    def _whole(self, text: str) -> str:
        return " ".join([*self._settled, text]).strip()

    async def _hear(self, margin_s: float = 0.0) -> str | None:
        """The text of all there is; None when stopped."""
        pcm = bytes(self._pcm)
        if self._line.hushed:
            pcm += bytes(round(_AFTER_S * PIPELINE_RATE) * SAMPLE_WIDTH)
        self._hearing_to = self._line.seconds + margin_s
        self._heard = None
        tokens = await self._run(pcm)
        if tokens is None:
            self._hearing_to = 0.0
            return None
        self._draft = tokens
        self._heard = self._model.text(tokens)
        return self._heard

    async def _settle(self) -> None:
        """Hear the beginning of a long turn for good."""
        head = bytes(self._pcm[: _quietest(bytes(self._pcm))])
        self._settling = True
        try:
            tokens = await self._run(head)
        finally:
            self._settling = False
        if tokens is not None:
            self._settled.append(self._model.text(tokens))
            del self._pcm[: len(head)]
            self._draft = []
            self._hearing_to = 0.0

    async def _run(self, pcm: bytes) -> list[int] | None:
        job = self._job = _Job()
        try:
            return await self._clock.run(self._model.hear, pcm, job, self._draft)
        finally:
            job.stop()  # when this task is cancelled the thread need not go on
            self._job = None

    async def aclose(self) -> None:
        self._closed = True
        self._changed.set()
        if self._job:
            self._job.stop()


class _Line:
    """How long the caller's line has been quiet, by its loudness alone: compared with the speech
    and the noise of this turn so far."""

    def __init__(self) -> None:
        self.loud_until = 0.0
        self._steps = 0
        self._rest = b""
        self._speech = 0.0
        self._noise = float("inf")

    @property
    def seconds(self) -> float:
        return self._steps * _STEP_S

    @property
    def hushed(self) -> bool:
        """Whether something was said, and the line is quiet since."""
        return 0.0 < self.loud_until <= self.seconds - _HUSH_S + 1e-9

    def push(self, pcm: bytes) -> None:
        import numpy as np

        size = round(_STEP_S * PIPELINE_RATE) * SAMPLE_WIDTH
        data = self._rest + pcm
        whole = len(data) // size * size
        self._rest = data[whole:]
        steps = np.frombuffer(data[:whole], "<i2").astype(np.float32).reshape(-1, size // SAMPLE_WIDTH)
        powers: list[float] = np.mean(np.square(steps), axis=1).tolist()
        for power in powers:
            self._steps += 1
            self._speech = max(power, self._speech * _SPEECH_FADES)
            self._noise = min(max(power, _NO_SOUND), self._noise * _NOISE_RISES)
            noise = min(self._noise * _OVER_NOISE, self._speech * _CLEARLY_UNDER)
            if power > max(self._speech * _UNDER_SPEECH, noise):
                self.loud_until = self.seconds


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

    def hear(self, pcm: bytes, job: _Job, draft: Sequence[int] = ()) -> list[int] | None:
        """The tokens of s16le mono samples at PIPELINE_RATE; None when `job` was stopped. `draft` is
        what they may be: the nearer, the faster.

        Raises:
            ProviderError: the model failed.
        """
        import numpy as np

        if _seconds(pcm) < _SHORTEST_S:
            return []
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        job.run_options = self._onnxruntime.RunOptions()
        job.run_options.log_severity_level = 4  # being stopped is no error
        if job.stopped:
            return None
        try:
            tokens = self._decode(samples, job, draft)
        except Exception as error:  # onnxruntime's errors share no base; a stopped run is one
            if job.stopped:
                return None
            raise ProviderError("the model failed", where=_WHERE) from error
        return None if job.stopped else tokens

    def text(self, tokens: Sequence[int]) -> str:
        spelled = b"".join(self._tokens[token] for token in tokens)
        return spelled.decode("utf-8", errors="ignore").replace("▁", " ").strip()

    def _decode(self, samples: Samples, job: _Job, draft: Sequence[int]) -> list[int]:
        import numpy as np

        given = samples[np.newaxis]
        # As long as the samples, for the decoder too, although it hears frames of the encoder.
        mask = np.ones(given.shape, np.int64)
        [hidden] = self._encoder.run(None, {"input_values": given, "attention_mask": mask}, job.run_options)
        past: dict[str, Any] = {
            name: np.zeros((1, heads, 0, width), np.float32) for name, (heads, width) in self._past.items()
        }
        most = round(len(samples) / PIPELINE_RATE * _TOKENS_PER_S) + 8
        tokens: list[int] = []
        asked = [_START, *draft]
        at = 0  # in the draft
        while len(tokens) < most:
            feed = {
                "input_ids": np.array([asked], np.int64),
                "encoder_hidden_states": hidden,
                "encoder_attention_mask": mask,
                "use_cache_branch": np.array([bool(tokens)]),
                **past,
            }
            out = dict(zip(self._outputs, self._decoder.run(None, feed, job.run_options), strict=True))
            if job.stopped:
                break
            logits = out["logits"][0]
            likely: list[int] = logits.argmax(axis=-1).tolist()
            drafted = asked[1:]
            close = logits[range(len(drafted)), drafted] >= logits[:-1].max(axis=-1) - _DRAFT_MARGIN
            first = not tokens
            agreed = int(np.argmin(np.append(close, False)))
            tokens += [*drafted[:agreed], likely[agreed]]
            if tokens[-1] == _END or _repeats(tokens):
                return tokens[:-1][:most]
            for name in past:
                # The encoder's side is computed in the first step and handed back empty later.
                if first or ".decoder." in name:
                    past[name] = out[name.replace("past_key_values", "present")]
                if ".decoder." in name:
                    past[name] = past[name][:, :, : len(tokens)]  # not what the draft had wrong
            at = _resume(draft, at + agreed, tokens[-1])
            asked = [tokens[-1], *draft[at : at + _DRAFT_AT_ONCE]]
        return tokens[:most]


def _repeats(tokens: Sequence[int]) -> bool:
    """Whether the model has begun to say the same for ever, as it does where a word is cut in half."""
    return any(
        len(tokens) >= _LOOP_ROUNDS * length
        and all(tokens[-at] == tokens[-at - length] for at in range(1, (_LOOP_ROUNDS - 1) * length + 1))
        for length in range(_LOOP_LENGTHS[0], _LOOP_LENGTHS[1] + 1)
    )


def _resume(draft: Sequence[int], at: int, token: int) -> int:
    """Where the draft may go on to be right, when the model wrote `token` instead of its token `at`."""
    near = range(max(0, at - 1), min(len(draft), at + _DRAFT_REACH))
    return next((place + 1 for place in near if draft[place] == token), at + 1)


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
