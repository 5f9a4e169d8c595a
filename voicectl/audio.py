"""Sound as the house carries it: signed 16-bit little-endian samples, and the WAV files they live in.

What lives here: `Pcm`, reading any WAV a person may bring, writing a call as it happens, streaming
resampling, level. No clock, no asyncio, no device. What counts as *audible* is in
`analysis/audible.py`.

Reading and resampling are our own, on numpy alone: the reader because the usual library is
copyleft and the standard one refuses float, µ-law and extensible files; the resampler because its
sums of whole numbers are exact, so the same call gives the same bytes on every machine and however
the audio was cut into frames.

numpy is imported on first use: this is the ground floor, and `voicectl --help` stands on it too.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from voicectl.errors import AudioFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_WIDTH = 2  # bytes
FRAME_S = 0.020
PIPELINE_RATE = 16_000

_MIN_RATE, _MAX_RATE = 2_000, 768_000
_MAX_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class Pcm:
    """Mono sound in memory.

    Args:
        data: signed 16-bit little-endian samples.
        rate: samples a second.
    """

    data: bytes
    rate: int

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.data) // SAMPLE_WIDTH

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def array(self) -> NDArray[np.int16]:
        """The samples as a read-only array over the same bytes."""
        import numpy as np

        return np.frombuffer(self.data, "<i2", count=self.samples)


def rms_dbfs(data: bytes) -> float:
    """Level of s16le samples in dB, 0 for a constant at full scale, -inf for digital silence."""
    import numpy as np

    samples = np.frombuffer(data, "<i2", count=len(data) // SAMPLE_WIDTH).astype(np.float64)
    mean_square = float(np.mean(samples * samples)) if samples.size else 0.0
    return 10 * math.log10(mean_square / 32768.0**2) if mean_square else -math.inf


# ---------------------------------------------------------------------------------- reading WAV

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_CODEC_NAMES = {
    0x0002: "Microsoft ADPCM",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0040: "G.721 ADPCM",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x0064: "G.726 ADPCM",
    0x0161: "Windows Media Audio",
    0xF1AC: "FLAC",
}
_OTHER_FORMATS = (
    (b"RIFX", "a big-endian WAV (RIFX)"),
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
    (b"\xff\xfb", "MP3"),
    (b"\xff\xf3", "MP3"),
    (b"FORM", "AIFF"),
    (b".snd", "AU"),
    (b"#!AMR", "AMR"),
    (b"caff", "CAF"),
    (b"\x1aE\xdf\xa3", "WebM or Matroska"),
)
_CONVERT = "Convert it to 16-bit PCM WAV"

# Tools that write to a pipe cannot know the length and promise "as much as fits".
_ENDLESS_BYTES = 0x7FFFF000


@dataclass(frozen=True, slots=True)
class _Format:
    codec: int
    channels: int
    rate: int
    width: int  # bytes of one sample of one channel


def read_wav(path: str | os.PathLike[str]) -> Pcm:
    """The sound of a WAV file, mixed down to mono, at the rate the file has.

    Integer of 8, 16, 24 and 32 bits, float of 32 and 64 bits, µ-law and A-law, plain or extensible,
    any number of channels (their mean).

    Raises:
        AudioFileError: it is no WAV, is cut short, holds no samples, or has another codec.
    """
    import numpy as np

    where = os.fspath(path)
    raw = _read_bytes(path)
    fmt, start, length = _find_sound(raw, where)
    frame = fmt.width * fmt.channels
    held = len(raw) - start
    if length < _ENDLESS_BYTES and length > held:
        byte_rate = frame * fmt.rate
        raise AudioFileError(
            f"is truncated: its header promises {length / byte_rate:.2f} s, the file holds {held / byte_rate:.2f} s",
            where=where,
            hint="Copy or record it again",
        )
    frames = min(length, held) // frame
    if not frames:
        raise AudioFileError("holds no samples", where=where)
    samples = _decode(raw[start : start + frames * frame], fmt)
    if fmt.channels > 1:
        samples = samples.reshape(-1, fmt.channels).mean(axis=1, dtype=np.float64)
    return Pcm(_to_int16(samples).tobytes(), fmt.rate)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    where = os.fspath(path)
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise AudioFileError(f"cannot be read: {error.strerror or error}", where=where) from error
    if not raw:
        raise AudioFileError("is empty (0 bytes)", where=where)
    if raw[:4] not in (b"RIFF", b"RF64", b"BW64") or raw[8:12] != b"WAVE":
        kind = next((name for magic, name in _OTHER_FORMATS if raw.startswith(magic)), None)
        if raw[4:8] == b"ftyp":
            kind = "MP4 or M4A"
        raise AudioFileError(f"is not a WAV file{f' but {kind}' if kind else ''}", where=where, hint=_CONVERT)
    return raw


def _find_sound(raw: bytes, where: str) -> tuple[_Format, int, int]:
    """The format, and where the samples start and how many bytes the header promises."""
    fmt: _Format | None = None
    at = 12
    while at + 8 <= len(raw):
        name, length = struct.unpack_from("<4sI", raw, at)
        at += 8
        if name == b"fmt ":
            fmt = _parse_format(raw[at : at + length], where)
        elif name == b"data":
            if fmt is None:
                raise AudioFileError("is a damaged WAV: its samples come before their format", where=where)
            return fmt, at, length
        at += length + (length & 1)
    raise AudioFileError("is a damaged WAV: it ends before its samples begin", where=where)


def _parse_format(chunk: bytes, where: str) -> _Format:
    if len(chunk) < 16:
        raise AudioFileError("is a damaged WAV: its format chunk is too short", where=where)
    codec, channels, rate, _, frame, _ = struct.unpack_from("<HHIIHH", chunk)
    if codec == _EXTENSIBLE and len(chunk) >= 26:
        (codec,) = struct.unpack_from("<H", chunk, 24)
    widths = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8), _ALAW: (1,), _MULAW: (1,)}.get(codec)
    if widths is None:
        name = _CODEC_NAMES.get(codec, f"codec 0x{codec:04x}")
        raise AudioFileError(f"is a WAV with {name} inside, which is not supported", where=where, hint=_CONVERT)
    if not 1 <= channels <= _MAX_CHANNELS:
        raise AudioFileError(f"is a damaged WAV: it says it has {channels} channels", where=where)
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioFileError(f"is a damaged WAV: it says it has {rate} samples a second", where=where)
    width, rest = divmod(frame, channels)
    if rest or width not in widths:
        raise AudioFileError(
            f"is a damaged WAV: {frame} bytes for {channels} samples do not go together", where=where, hint=_CONVERT
        )
    return _Format(codec, channels, rate, width)


def _decode(raw: bytes, fmt: _Format) -> NDArray[np.float64] | NDArray[np.int16]:
    """Samples on the 16-bit scale, channels still interleaved."""
    import numpy as np

    if fmt.codec in (_ALAW, _MULAW):
        table = np.array(alaw_table() if fmt.codec == _ALAW else mulaw_table(), np.int16)
        return table[np.frombuffer(raw, np.uint8)]
    if fmt.codec == _FLOAT:
        floats = np.frombuffer(raw, f"<f{fmt.width}").astype(np.float64)
        # A damaged float can be anything; not-a-number is silence, the rest is held at full scale.
        return np.nan_to_num(np.clip(floats, -1.0, 1.0)) * 32768
    if fmt.width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.int16) - 128) << 8
    if fmt.width == 2:
        return np.frombuffer(raw, "<i2")
    if fmt.width == 3:
        octets = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int32)
        wide = (octets[:, 2] << 24) | (octets[:, 1] << 16) | (octets[:, 0] << 8)
    else:
        wide = np.frombuffer(raw, "<i4")
    return wide / 65536.0


def _to_int16(samples: NDArray[np.float64] | NDArray[np.int16]) -> NDArray[np.int16]:
    import numpy as np

    if samples.dtype == np.int16:
        return samples.astype("<i2", copy=False)
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2")


@lru_cache(maxsize=1)
def mulaw_table() -> tuple[int, ...]:
    """The 256 sample values of G.711 µ-law, by code."""

    def value(code: int) -> int:
        code = ~code & 0xFF
        magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 0x07)) - 0x84
        return -magnitude if code & 0x80 else magnitude

    return tuple(value(code) for code in range(256))


@lru_cache(maxsize=1)
def alaw_table() -> tuple[int, ...]:
    """The 256 sample values of G.711 A-law, by code."""

    def value(code: int) -> int:
        code ^= 0x55
        segment = code >> 4 & 0x07
        magnitude = (code & 0x0F) << 4 | 0x08
        if segment:
            magnitude = magnitude + 0x100 << segment - 1
        return magnitude if code & 0x80 else -magnitude

    return tuple(value(code) for code in range(256))


# ---------------------------------------------------------------------------- a call being written

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_RIFF_SIZE_AT, _DATA_SIZE_AT = 4, 40
_MAX_SIZE = 0xFFFFFFFF


class WavWriter:
    """A 16-bit WAV that grows while a call runs, and is whole whenever the process dies.

    Nothing is held back in the process: each `write` reaches the operating system, and the header
    is a valid one from the first byte on. Its sizes follow about a second behind; a reader that goes
    by the file's own length (`read_wav_channels`) misses nothing.

    A full disk is the caller's to handle: `OSError` comes out as it is, and the file then ends on a
    whole frame of all channels.
    """

    def __init__(self, path: str | os.PathLike[str], rate: int, channels: int) -> None:
        self.path = Path(path)
        self.rate = rate
        self.channels = channels
        self._frame = SAMPLE_WIDTH * channels
        self._bytes = 0
        self._noted = 0
        self._fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
        try:
            self._append(self._header())
        except OSError:
            self.close()
            raise

    @property
    def seconds(self) -> float:
        """How much sound was written so far."""
        return self._bytes / self._frame / self.rate

    def write(self, interleaved: bytes) -> None:
        """Append whole frames: one s16le sample of each channel in turn."""
        if len(interleaved) % self._frame:
            raise ValueError(f"{len(interleaved)} bytes are no whole frames of {self.channels} channels")
        self._append(interleaved)
        self._bytes += len(interleaved)
        if self._bytes - self._noted >= self._frame * self.rate:
            self._note_sizes()

    def close(self) -> None:
        """Write the final sizes; harmless when called twice."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            self._note_sizes(fd)
        finally:
            os.close(fd)

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            raise ValueError(f"{self.path} is closed")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            # Half a frame at the end would swap the channels of all that is written after it.
            with contextlib.suppress(OSError):
                whole = _HEADER.size + self._bytes
                os.ftruncate(self._fd, whole)
                os.lseek(self._fd, whole, os.SEEK_SET)
            raise

    def _note_sizes(self, fd: int | None = None) -> None:
        """Overwrite the two sizes in place, which needs no room on the disk."""
        fd = self._fd if fd is None else fd
        if os.lseek(fd, 0, os.SEEK_END) < _HEADER.size:
            return
        # The RIFF size last: a reader takes both for true when that one fits the file, and the process
        # may die between the two.
        for at, size in ((_DATA_SIZE_AT, self._bytes), (_RIFF_SIZE_AT, self._bytes + _HEADER.size - 8)):
            os.lseek(fd, at, os.SEEK_SET)
            os.write(fd, struct.pack("<I", min(size, _MAX_SIZE)))
        os.lseek(fd, 0, os.SEEK_END)
        self._noted = self._bytes

    def _header(self) -> bytes:
        return _HEADER.pack(
            *(b"RIFF", _HEADER.size - 8, b"WAVE"),
            *(b"fmt ", 16, _PCM, self.channels, self.rate, self._frame * self.rate, self._frame, SAMPLE_WIDTH * 8),
            *(b"data", 0),
        )


def read_wav_channels(path: str | os.PathLike[str]) -> tuple[int, list[NDArray[np.int16]]]:
    """Rate and channels of a 16-bit WAV that may still be growing or whose writer was killed.

    Where the header's sizes do not fit the file they are stale, and the file's own length counts.
    """
    import numpy as np

    where = os.fspath(path)
    raw = _read_bytes(path)
    fmt, start, length = _find_sound(raw, where)
    if fmt.codec != _PCM or fmt.width != SAMPLE_WIDTH:
        raise AudioFileError("is not a 16-bit PCM WAV", where=where, hint=_CONVERT)
    (riff_size,) = struct.unpack_from("<I", raw, _RIFF_SIZE_AT)
    sizes_fit = riff_size + 8 == len(raw) and start + length <= len(raw)
    frames = (length if sizes_fit else len(raw) - start) // (fmt.width * fmt.channels)
    table = np.frombuffer(raw, "<i2", count=frames * fmt.channels, offset=start).reshape(-1, fmt.channels)
    return fmt.rate, [table[:, channel].copy() for channel in range(fmt.channels)]


# ------------------------------------------------------------------------------------- resampling

# A Kaiser-windowed sinc of 24 zero crossings a side: flat to 83% of the narrower band, at least
# 75 dB down where aliases start. It looks ahead 1.5 ms at 16 kHz, 3 ms at 8 kHz.
_CROSSINGS = 24
_KAISER_BETA = 8.0
_ROLL_OFF = 0.93
# Coefficients are whole numbers, so every product and sum is one too, far below 2**53: exact in
# float64 whatever the order of summation.
_UNIT = 1 << 24
# A product this small stays on the thread that asks for it: the others belong to the models.
_PRODUCTS_AT_ONCE = 1 << 18


@lru_cache(maxsize=32)
def _filter(up: int, down: int) -> NDArray[np.float64]:
    """One row of coefficients for each of the `up` positions between two input samples."""
    import numpy as np

    cutoff = min(1.0, up / down) * _ROLL_OFF
    reach = math.ceil(_CROSSINGS / min(1.0, up / down))
    offsets = np.arange(up)[:, None] / up + (reach - 1) - np.arange(2 * reach)[None, :]
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1 - (offsets / reach) ** 2)))
    rows = np.sinc(cutoff * offsets) * window
    whole = np.rint(rows / rows.sum(axis=1, keepdims=True) * _UNIT)
    # Each row sums to the unit exactly, so a constant stays that constant.
    whole[:, reach - 1] += _UNIT - whole.sum(axis=1)
    return whole


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """Some outputs of a block: `block_outputs[first:last] = inputs[at : at + len(matrix)] @ matrix`."""

    first: int
    last: int
    at: int
    matrix: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Block:
    """The pattern that repeats: `outputs` samples of `inputs`, made tile by tile.

    A tile takes about as many inputs as the filter is long. So one matrix product of many blocks
    does twice the multiplications that are needed, and none of the copying of a window an output.
    """

    outputs: int
    inputs: int
    width: int  # inputs a block looks at, with those of its neighbours
    at_once: int  # blocks made in one go
    tiles: tuple[_Tile, ...]


@lru_cache(maxsize=32)
def _block(up: int, down: int) -> _Block:
    import numpy as np

    rows = _filter(up, down)
    taps = rows.shape[1]
    repeats = -(-taps // down)
    outputs, inputs = repeats * up, repeats * down
    step = max(1, taps * up // down)
    tiles: list[_Tile] = []
    for first in range(0, outputs, step):
        last = min(first + step, outputs)
        at, end = first * down // up, (last - 1) * down // up + taps
        matrix = np.zeros((end - at, last - first))
        for output in range(first, last):
            before, between = divmod(output * down, up)
            matrix[before - at : before - at + taps, output - first] = rows[between]
        tiles.append(_Tile(first, last, at, matrix))
    at_once = max(1, _PRODUCTS_AT_ONCE // max(tile.matrix.size for tile in tiles))
    return _Block(outputs, inputs, inputs + taps, at_once, tuple(tiles))


class Resampler:
    """A stream of s16le mono samples brought to another rate.

    `push` gives what can be known so far, `flush` the rest; n samples in give
    `ceil(n * to_rate / from_rate)` out, sample k at the moment k / to_rate of the input. The bytes do
    not depend on how the input was cut, not even in the middle of a sample.

    Args:
        from_rate: samples a second that come in.
        to_rate: samples a second that go out.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"cannot resample from {from_rate} to {to_rate} samples a second")
        common = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._reach = math.ceil(_CROSSINGS * max(1.0, self._down / self._up))
        self.lookahead_s = 0.0 if from_rate == to_rate else self._reach / from_rate
        self._start()

    def _start(self) -> None:
        import numpy as np

        self._odd = b""
        self._pushed = 0
        self._pulled = 0
        self._held = np.zeros(self._reach - 1)  # input from before what the next output needs
        self._held_from = 1 - self._reach  # the input position of the first held sample

    def push(self, data: bytes) -> bytes:
        data = self._odd + data
        whole = len(data) - len(data) % SAMPLE_WIDTH
        self._odd = data[whole:]
        if self._up == self._down:
            return data[:whole]
        import numpy as np

        self._pushed += whole // SAMPLE_WIDTH
        self._held = np.concatenate((self._held, np.frombuffer(data, "<i2", count=whole // SAMPLE_WIDTH)))
        return self._pull_until(-(-(self._pushed - self._reach) * self._up // self._down))

    def flush(self) -> bytes:
        """The tail; what is pushed next is a new stream. Half a sample left over is dropped."""
        if self._up == self._down:
            self._start()
            return b""
        import numpy as np

        self._held = np.concatenate((self._held, np.zeros(self._reach)))
        tail = self._pull_until(-(-self._pushed * self._up // self._down))
        self._start()
        return tail

    def _pull_until(self, end: int) -> bytes:
        """The outputs up to position `end`, all of whose inputs are held."""
        import numpy as np

        block = _block(self._up, self._down)
        made: list[bytes] = []
        while self._pulled < end:
            skip = self._pulled % block.outputs  # made before, of the first block
            stop = skip + end - self._pulled
            count = min(-(-stop // block.outputs), block.at_once)
            if count == 2:
                count = 1  # of one block, only the tiles that are wanted need to be made
            inputs = np.zeros((count - 1) * block.inputs + block.width)
            held = self._held[: len(inputs)]
            inputs[: len(held)] = held
            sums = np.empty((count, block.outputs))
            for tile in block.tiles:
                if count > 1 or (skip < tile.last and tile.first < stop):
                    shape, strides = (count, len(tile.matrix)), (block.inputs * 8, 8)
                    windows = np.ndarray(shape, np.float64, inputs, tile.at * 8, strides)
                    sums[:, tile.first : tile.last] = np.ascontiguousarray(windows) @ tile.matrix
            outputs = sums.ravel()[skip:stop]
            made.append(_to_int16(outputs / _UNIT).tobytes())
            self._pulled += len(outputs)
            # What is kept begins where the next block does.
            spent = self._pulled // block.outputs * block.inputs - (self._reach - 1) - self._held_from
            self._held = self._held[spent:]
            self._held_from += spent
        return b"".join(made)


def resample(pcm: Pcm, rate: int) -> Pcm:
    """The whole sound at another rate."""
    if pcm.rate == rate:
        return pcm
    resampler = Resampler(pcm.rate, rate)
    return Pcm(resampler.push(pcm.data) + resampler.flush(), rate)
