"""Sound in and out: any WAV in, a call's WAV out, rates between."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voicectl.audio import (
    Pcm,
    Resampler,
    WavWriter,
    alaw_table,
    mulaw_table,
    read_wav,
    read_wav_channels,
    resample,
    rms_dbfs,
)
from voicectl.errors import AudioFileError

_EXTENSIBLE_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def wav(
    data: bytes,
    *,
    codec: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    width: int = 2,
    extensible: bool = False,
    promised: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    frame = width * channels
    tag = 0xFFFE if extensible else codec
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, width * 8)
    if extensible:
        fmt += struct.pack("<HHIH", 22, width * 8, 0, codec) + _EXTENSIBLE_TAIL
    body = b"fmt " + struct.pack("<I", len(fmt)) + fmt + before
    body += b"data" + struct.pack("<I", len(data) if promised is None else promised) + data
    body += b"\0" * (len(data) & 1) + after
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)


def tone(rate: int, seconds: float, hz: float = 440.0, peak: float = 10_000.0) -> bytes:
    at = np.arange(round(rate * seconds)) / rate
    return (peak * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


def read(folder: Path, content: bytes) -> Pcm:
    path = folder / "in.wav"
    path.write_bytes(content)
    return read_wav(path)


def problem(folder: Path, content: bytes) -> str:
    with pytest.raises(AudioFileError) as caught:
        read(folder, content)
    assert caught.value.where == str(folder / "in.wav")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{caught.value.where}: ")


# Reading ---------------------------------------------------------------------------------------

Encode = Callable[[NDArray[np.int16]], bytes]


def _int24(x: NDArray[np.int16]) -> bytes:
    return b"".join(b"\0" + struct.pack("<h", int(sample)) for sample in x)


def _g711(table: tuple[int, ...]) -> Encode:
    values = np.array(table)
    return lambda x: bytes(int(np.abs(values - int(sample)).argmin()) for sample in x)


ENCODINGS: dict[str, tuple[int, int, Encode, float]] = {
    # codec, width, encoder, largest error on the 16-bit scale
    "8-bit": (1, 1, lambda x: ((x.astype(np.int32) >> 8) + 128).astype(np.uint8).tobytes(), 255),
    "16-bit": (1, 2, lambda x: x.astype("<i2").tobytes(), 0),
    "24-bit": (1, 3, _int24, 0),
    "32-bit": (1, 4, lambda x: (x.astype(np.int32) << 16).astype("<i4").tobytes(), 0),
    "float": (3, 4, lambda x: (x / 32768).astype("<f4").tobytes(), 0),
    "double": (3, 8, lambda x: (x / 32768).astype("<f8").tobytes(), 0),
    "mu-law": (7, 1, _g711(mulaw_table()), 645),
    "A-law": (6, 1, _g711(alaw_table()), 513),
}
samples = st.lists(st.integers(-32768, 32767), min_size=1, max_size=40).map(lambda x: np.array(x, np.int16))


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("name", ENCODINGS)
@given(x=samples)
@settings(max_examples=25)
def test_every_encoding_gives_the_samples_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, extensible: bool, x: NDArray[np.int16]
) -> None:
    codec, width, encode, tolerance = ENCODINGS[name]
    folder = tmp_path_factory.mktemp("wav")
    pcm = read(folder, wav(encode(x), codec=codec, width=width, rate=44_100, extensible=extensible))
    assert pcm.rate == 44_100
    assert np.abs(pcm.array().astype(int) - x).max() <= tolerance


@given(x=samples, channels=st.integers(1, 8))
@settings(max_examples=25)
def test_channels_are_mixed_down_to_their_mean(
    tmp_path_factory: pytest.TempPathFactory, x: NDArray[np.int16], channels: int
) -> None:
    table = np.stack([x >> shift for shift in range(channels)], axis=1).astype("<i2")
    pcm = read(tmp_path_factory.mktemp("wav"), wav(table.tobytes(), channels=channels))
    assert np.abs(pcm.array() - table.mean(axis=1)).max() <= 0.5


def test_the_laws_are_those_of_the_standard() -> None:
    assert [mulaw_table()[code] for code in (0x00, 0x7F, 0x80, 0xFF, 0xEF)] == [-32124, 0, 32124, 0, 132]
    assert [alaw_table()[code] for code in (0x00, 0x55, 0xD5, 0xAA, 0x2A)] == [-5504, -8, 8, 32256, -32256]
    assert len(set(mulaw_table())) == 255  # it has two zeros
    assert len(set(alaw_table())) == 256


def test_other_chunks_are_passed_over(tmp_path: Path) -> None:
    junk = chunk(b"LIST", b"odd") + chunk(b"fact", bytes(4))
    assert read(tmp_path, wav(b"\1\0\2\0", before=junk, after=junk)).data == b"\1\0\2\0"


def test_a_piped_wav_that_promises_as_much_as_fits_is_read_to_its_end(tmp_path: Path) -> None:
    for promised in (0xFFFFFFFF, 0x7FFFF000):
        assert read(tmp_path, wav(b"\1\0\2\0", promised=promised)).samples == 2


def test_floats_that_are_no_sound_stay_in_range(tmp_path: Path) -> None:
    floats = np.array([np.nan, np.inf, -np.inf, 1e30, 1.0, -1.0], "<f4")
    pcm = read(tmp_path, wav(floats.tobytes(), codec=3, width=4))
    assert pcm.array().tolist() == [0, 32767, -32768, 32767, 32767, -32768]


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    good = wav(tone(16_000, 0.1))
    convert = "Convert it to 16-bit PCM WAV"
    assert problem(tmp_path, b"") == "is empty (0 bytes)"
    assert problem(tmp_path, b"hello") == f"is not a WAV file. {convert}"
    assert problem(tmp_path, b"ID3\4" + bytes(40)) == f"is not a WAV file but MP3. {convert}"
    assert problem(tmp_path, b"\0\0\0\x20ftypM4A ") == f"is not a WAV file but MP4 or M4A. {convert}"
    assert problem(tmp_path, b"RIFX" + good[4:]).startswith("is not a WAV file but a big-endian WAV (RIFX)")
    assert problem(tmp_path, wav(b"")) == "holds no samples"
    assert problem(tmp_path, good[:1000]) == (
        "is truncated: its header promises 0.10 s, the file holds 0.03 s. Copy or record it again"
    )
    assert problem(tmp_path, good[:30]) == "is a damaged WAV: its format chunk is too short"
    assert problem(tmp_path, good[:36]) == "is a damaged WAV: it ends before its samples begin"
    assert problem(tmp_path, wav(bytes(8), codec=0x11)) == (
        f"is a WAV with IMA ADPCM inside, which is not supported. {convert}"
    )
    assert problem(tmp_path, wav(bytes(8), codec=0x1234)).startswith("is a WAV with codec 0x1234 inside")
    assert problem(tmp_path, wav(bytes(8), channels=0)) == "is a damaged WAV: it says it has 0 channels"
    assert problem(tmp_path, wav(bytes(8), rate=3)) == "is a damaged WAV: it says it has 3 samples a second"
    assert problem(tmp_path, wav(bytes(10), width=5)).startswith("is a damaged WAV: 5 bytes for 1 samples")
    with pytest.raises(AudioFileError, match=r"none\.wav: cannot be read: No such file"):
        read_wav(tmp_path / "none.wav")
    with pytest.raises(AudioFileError, match="cannot be read"):
        read_wav(tmp_path)


@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=6),
    st.integers(0, 120),
)
@settings(max_examples=300)
def test_damage_gives_an_audio_file_error_or_sound(
    tmp_path_factory: pytest.TempPathFactory, name: str, extensible: bool, hits: list[tuple[int, int]], cut: int
) -> None:
    codec, width, encode, _ = ENCODINGS[name]
    content = bytearray(wav(encode(np.arange(10, dtype=np.int16)), codec=codec, width=width, extensible=extensible))
    for at, value in hits:
        content[at % len(content)] = value
    path = tmp_path_factory.mktemp("wav") / "in.wav"
    path.write_bytes(bytes(content[: len(content) - cut] if cut < len(content) else content))
    try:
        pcm = read_wav(path)
    except AudioFileError as error:
        assert error.where == str(path)
    else:
        assert 0 < pcm.samples <= len(content)
        assert pcm.seconds > 0
    try:
        rate, channels = read_wav_channels(path)
    except AudioFileError:
        pass
    else:
        assert rate > 0
        assert channels


# Writing ---------------------------------------------------------------------------------------

STEREO = np.stack([np.arange(48_000), -np.arange(48_000)], axis=1).astype("<i2")


def test_a_written_call_is_read_back_channel_by_channel(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    with WavWriter(path, 16_000, 2) as writer:
        for start in range(0, 48_000, 320):
            writer.write(STEREO[start : start + 320].tobytes())
        assert writer.seconds == 3.0
    writer.close()
    rate, (left, right) = read_wav_channels(path)
    assert rate == 16_000
    assert np.array_equal(left, STEREO[:, 0])
    assert np.array_equal(right, STEREO[:, 1])
    assert read_wav(path).seconds == 3.0
    with pytest.raises(ValueError, match="is closed"):
        writer.write(bytes(4))


def test_the_file_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    writer = WavWriter(path, 16_000, 2)
    assert read_wav_channels(path)[1][0].size == 0
    for start in range(0, 48_000, 4_800):
        writer.write(STEREO[start : start + 4_800].tobytes())
        assert read_wav_channels(path)[1][1].size == start + 4_800
        if start + 4_800 >= 16_000:
            # Other players go by the header, which is at most a second behind.
            assert struct.unpack("<I", path.read_bytes()[40:44])[0] >= (start + 4_800 - 16_000) * 4
    writer.close()


@pytest.mark.wall
def test_a_killed_writer_leaves_all_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    code = (
        "import sys; from voicectl.audio import WavWriter\n"
        "writer = WavWriter(sys.argv[1], 16000, 2)\n"
        "for _ in range(70): writer.write(b'\\1\\0\\2\\0' * 320)\n"
        "print('written', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    _, (left, right) = read_wav_channels(path)
    assert left.tolist() == [1] * 320 * 70
    assert right.tolist() == [2] * 320 * 70


@pytest.mark.parametrize("sizes", [0, 1])
def test_a_writer_killed_between_its_two_sizes_leaves_all_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: int
) -> None:
    path = tmp_path / "call.wav"
    writer = WavWriter(path, 16_000, 2)
    writer.write(b"\1\0\2\0" * 16_000)  # the sizes are those of a second now
    writer.write(b"\1\0\2\0" * 15_000)
    writing, left = os.write, sizes

    def dies(fd: int, data: bytes) -> int:
        nonlocal left
        if len(data) == 4:
            if not left:
                raise KeyboardInterrupt
            left -= 1
        return writing(fd, data)

    monkeypatch.setattr(os, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        writer.write(b"\1\0\2\0" * 1_000)
    _, (caller, agent) = read_wav_channels(path)
    assert (len(caller), len(agent)) == (32_000, 32_000)


def test_half_a_frame_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    with WavWriter(path, 16_000, 2) as writer:
        writer.write(STEREO[:100].tobytes())
    path.write_bytes(path.read_bytes() + b"\7\7\7")
    assert read_wav_channels(path)[1][0].size == 100


def test_a_chunk_that_an_editor_added_is_not_sound(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(wav(STEREO[:100].tobytes(), channels=2, after=chunk(b"LIST", b"edited by a person")))
    assert read_wav_channels(path)[1][0].size == 100


def test_a_full_disk_is_told_as_it_is_and_leaves_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "call.wav"
    writer = WavWriter(path, 16_000, 2)
    writer.write(STEREO[:100].tobytes())
    real = os.write
    room = 6

    def full(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, data[:room])
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            writer.write(STEREO[100:200].tobytes())
    assert caught.value.errno == errno.ENOSPC
    writer.write(STEREO[200:300].tobytes())
    writer.close()
    _, (left, right) = read_wav_channels(path)
    assert np.array_equal(left, np.concatenate([STEREO[:100, 0], STEREO[200:300, 0]]))
    assert np.array_equal(right, -left)
    assert read_wav(path).samples == 200


def test_only_whole_frames_can_be_written(tmp_path: Path) -> None:
    with WavWriter(tmp_path / "call.wav", 16_000, 2) as writer, pytest.raises(ValueError, match="no whole frames"):
        writer.write(bytes(6))


# Resampling ------------------------------------------------------------------------------------

RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])


@given(
    from_rate=RATES,
    to_rate=RATES,
    data=st.binary(min_size=0, max_size=3_000),
    cuts=st.lists(st.integers(0, 3_000), max_size=12),
)
@settings(max_examples=60)
def test_the_result_does_not_depend_on_how_the_input_is_cut(
    from_rate: int, to_rate: int, data: bytes, cuts: list[int]
) -> None:
    whole = Resampler(from_rate, to_rate)
    expected = whole.push(data) + whole.flush()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = Resampler(from_rate, to_rate)
    got = b"".join(pieces.push(data[start:end]) for start, end in itertools.pairwise(edges))
    assert got + pieces.flush() == expected
    assert len(expected) // 2 == -(-(len(data) // 2) * to_rate // from_rate)
    # After flush it is a new stream.
    assert pieces.push(data) + pieces.flush() == expected


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(8_000, 16_000), (24_000, 16_000), (22_050, 16_000), (48_000, 8_000), (16_000, 44_100)]
)
def test_a_tone_keeps_its_pitch_level_and_time(from_rate: int, to_rate: int) -> None:
    out = resample(Pcm(tone(from_rate, 0.5, 1_000), from_rate), to_rate).array()
    expected = np.frombuffer(tone(to_rate, 0.5, 1_000), "<i2")
    inside = slice(to_rate // 50, -to_rate // 50)
    error = np.abs(out.astype(int) - expected)[inside].max()
    assert error <= 3


def test_what_the_lower_rate_cannot_hold_is_taken_out() -> None:
    out = resample(Pcm(tone(48_000, 0.5, 8_600), 48_000), 16_000)
    assert rms_dbfs(out.data[1_000:-1_000]) < rms_dbfs(tone(48_000, 0.5)) - 70


def test_a_constant_stays_that_constant() -> None:
    out = resample(Pcm(struct.pack("<h", 1_234) * 4_410, 44_100), 16_000).array()
    assert set(out[100:-100].tolist()) == {1_234}


def test_it_looks_ahead_a_few_milliseconds() -> None:
    for from_rate, to_rate, most_s in ((22_050, 16_000, 0.002), (8_000, 16_000, 0.0035), (16_000, 8_000, 0.0035)):
        resampler = Resampler(from_rate, to_rate)
        got = len(resampler.push(tone(from_rate, 0.1))) / 2 / to_rate
        assert 0.1 - most_s <= got < 0.1
        assert resampler.lookahead_s <= most_s


def test_equal_rates_change_nothing() -> None:
    resampler = Resampler(16_000, 16_000)
    assert resampler.push(b"\1\2\3") + resampler.push(b"\4\5") + resampler.flush() == b"\1\2\3\4"
    assert resampler.lookahead_s == 0


def test_full_scale_does_not_wrap_around() -> None:
    square = np.where(np.arange(4_000) // 20 % 2, 32767, -32768).astype("<i2")
    out = resample(Pcm(square.tobytes(), 16_000), 24_000).array().astype(int)
    assert np.abs(np.diff(out)).max() < 65_536
    assert (np.sign(out[15:30]) == -1).all()


def test_level_is_in_decibels_of_full_scale() -> None:
    assert rms_dbfs(b"") == -np.inf
    assert rms_dbfs(bytes(100)) == -np.inf
    assert rms_dbfs(struct.pack("<h", -32768) * 10) == 0
    assert rms_dbfs(tone(16_000, 1.0, 100, 3276.8)) == pytest.approx(-23.01, abs=0.02)
