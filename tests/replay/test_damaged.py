"""Damaged recordings: one clear line each, never a traceback, never a wrong figure."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from voicectl.errors import EXIT_USAGE, RecordingError, StorageError
from voicectl.recording import (
    FILE_NAMES,
    SEALED_NAMES,
    begin,
    check_seal,
    find_recordings,
    open_recording,
    seal,
    show,
)
from voicectl.replay.check import Options, Outcome, check


def edited(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


def unsealed(harm: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(folder: Path) -> None:
        (folder / "seal.json").unlink()
        harm(folder)

    return both


def truncated(name: str, share: float) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(share * len(raw))])

    return harm


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("edited", edited("trace.jsonl", '"turn":1', '"turn":2'), r"trace.jsonl: is not what was recorded: its hash"),
    ("edited spec", edited("spec.yaml", "500", "300"), r"spec.yaml: is not what was recorded"),
    ("cut sound", truncated("call.wav", 0.5), r"call.wav: is not what was recorded"),
    ("cut streams", truncated("streams.pcm", 0.5), r"streams.pcm: is not what was recorded"),
    ("empty trace", truncated("trace.jsonl", 0), r"trace.jsonl: is not what was recorded"),
    ("no streams", lambda path: (path / "streams.jsonl").unlink(), r"streams.jsonl is missing, which was sealed"),
    ("no trace", lambda path: (path / "trace.jsonl").unlink(), r"trace.jsonl is missing, which was sealed"),
    ("broken seal", truncated("seal.json", 0.5), r"seal.json: this is not a seal: it cannot be read"),
    ("other seal", edited("seal.json", '"call.wav"', '"../../etc/passwd"'), r"not a seal: it lists other files"),
    ("newer", edited("seal.json", '_recording": 1', '_recording": 9'), r"recording version 9 cannot be read, this"),
    ("newer trace", unsealed(edited("trace.jsonl", '_trace":1', '_trace":7')), r"trace version 7 cannot be read"),
    ("newer streams", unsealed(edited("streams.jsonl", "_streams\":1", "_streams\":7")), r"streams version 7 cannot"),
    ("no spec", unsealed(lambda path: (path / "spec.yaml").unlink()), r"cannot be replayed: it has no spec.yaml"),
    ("no sound", unsealed(lambda path: (path / "call.wav").unlink()), r"not a recording: it has no call.wav"),
    ("no streams file", unsealed(lambda path: (path / "streams.jsonl").unlink()), r"cannot read the streams: no such"),
    ("no TTS audio", unsealed(truncated("streams.pcm", 0.3)), r"streams.jsonl:\d+: points to audio that is not there"),
    ("text", unsealed(edited("trace.jsonl", '"at":', '"at":x')), r"trace.jsonl:\d+: this line is not JSON"),
    ("not a number", unsealed(edited("trace.jsonl", '"at":0.0', '"at":NaN')), r"trace.jsonl:2: this line is not JSON"),
    ("a list", unsealed(edited("streams.jsonl", '"p":[', '"p":[[')), r"streams.jsonl:\d+: this line is not JSON"),
    ("wrong type", unsealed(edited("trace.jsonl", '"turn":1', '"turn":"1"')), r"jsonl:\d+: .* is not a whole number"),
    ("wrong item", unsealed(edited("streams.jsonl", '"p":[0', '"p":["a"')), r"streams.jsonl:\d+: .*"),
    ("odd event", unsealed(edited("trace.jsonl", "SpeechStarted", "SpeechStopped")), r"unknown event 'SpeechStopped'"),
    ("odd spec", unsealed(edited("spec.yaml", "silence_ms: 500", "silence_ms: soon")), r"spec.yaml:\d+:\d+: 'silence"),
    ("odd provider", unsealed(edited("spec.yaml", "provider: scripted", "provider: gone")), r"unknown vad provider"),
    ("mono", unsealed(lambda path: _mono(path / "call.wav")), r"call.wav: has 1 channel, a call has two"),
]  # fmt: skip


def _mono(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[22:24], raw[32:34] = b"\1\0", b"\2\0"
    path.write_bytes(raw)


def lines_of(outcome: Outcome) -> list[str]:
    return [str(problem) for problem in outcome.problems]


@pytest.mark.parametrize(("harm", "says"), [damage[1:] for damage in DAMAGES], ids=[damage[0] for damage in DAMAGES])
def test_a_damaged_recording_is_one_clear_line(order: Path, harm: Callable[[Path], object], says: str) -> None:
    harm(order)
    outcome = check(order, Options())
    assert outcome.state == "refused"
    assert re.search(says, lines_of(outcome)[0]), lines_of(outcome)
    assert not any("\n" in line for line in lines_of(outcome))


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_always_noticed(order: Path, seed: int) -> None:
    draw = random.Random(seed)
    path = order / draw.choice(SEALED_NAMES)
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)
    with pytest.raises(RecordingError, match=rf"{path.name}: is not what was recorded") as caught:
        open_recording(order)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("seed", range(40))
def test_without_its_seal_a_damaged_recording_never_raises_anything_else(order: Path, seed: int) -> None:
    draw = random.Random(seed)
    (order / "seal.json").unlink()
    path = order / draw.choice(("trace.jsonl", "streams.jsonl", "spec.yaml", "call.wav"))
    raw = bytearray(path.read_bytes())
    reach = 60 if path.suffix == ".wav" else len(raw)
    for _ in range(draw.choice((1, 1, 3))):
        raw[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    path.write_bytes(raw[: draw.choice((len(raw), draw.randrange(len(raw))))])
    outcome = check(order, Options())
    assert not any("\n" in line for line in lines_of(outcome))


def test_a_seal_holds_every_file_of_the_call_and_nothing_written_later(order: Path) -> None:
    assert check_seal(order)
    assert sorted(path.name for path in order.iterdir()) == sorted({*SEALED_NAMES, "seal.json"})
    (order / "expect.yaml").write_text("trace: any\n")
    assert check_seal(order)
    assert set(FILE_NAMES) > set(SEALED_NAMES)
    (order / "trace.jsonl").write_text("")
    seal(order)
    with pytest.raises(RecordingError, match="not a voicectl trace"):
        open_recording(order)


def test_a_damaged_expectation_is_one_clear_line(order: Path) -> None:
    (order / "expect.yaml").write_bytes(b"trace: [\xff")
    outcome = check(order, Options())
    assert "expect.yaml:1:9: is not UTF-8 text" in lines_of(outcome)[0]
    (order / "expect.yaml").write_text("trace: exact")
    (order / "expect.jsonl").write_text("{}\n")
    assert "expect.jsonl: not a voicectl trace" in lines_of(check(order, Options()))[0]


def test_a_recording_is_hidden_until_every_file_has_its_first_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "0001"
    hidden = begin(folder)
    (hidden / "trace.jsonl").write_text('{"voicectl_trace":1}\n')
    assert list(find_recordings(tmp_path)) == []
    show(hidden, folder)
    assert list(find_recordings(tmp_path)) == [folder]
    with pytest.raises(StorageError, match=r"0001: cannot write: a recording is there already"):
        begin(folder)
