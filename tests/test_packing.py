"""Packed recordings come out as they went in, or not at all; and nowhere else."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from voicectl.errors import RecordingError, UsageError
from voicectl.packing import pack, unpack


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "calls" / name for name in ("0001-ada", "0002-bob")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "trace.jsonl").write_text(f"the trace of {folder.name}\n")
        (folder / "call.wav").write_bytes(bytes(100_000))
        (folder / "notes.txt").write_text("not a part of it")
    return folders


def archive(path: Path, members: dict[str, bytes], *, listed: dict[str, bytes] | None = None, version: int = 1) -> Path:
    """A packed file as somebody else might make it."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in (listed or members).items()}
    first = json.dumps({"voicectl_pack": version, "voicectl": "0", "files": files}).encode()
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {"pack.json": first, **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_what_was_packed_comes_out_equal(recordings: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "calls.tar.gz"
    assert pack(recordings, file) == hashlib.sha256(file.read_bytes()).hexdigest()
    out = unpack(file, tmp_path / "out")
    assert [path.name for path in out] == ["0001-ada", "0002-bob"]
    for before, after in zip(recordings, out, strict=True):
        assert sorted(path.name for path in after.iterdir()) == ["call.wav", "trace.jsonl"]
        for path in after.iterdir():
            assert path.read_bytes() == (before / path.name).read_bytes()


def test_the_same_recordings_pack_to_the_same_bytes(recordings: list[Path], tmp_path: Path) -> None:
    assert pack(recordings, tmp_path / "a.tar.gz") == pack(recordings, tmp_path / "b.tar.gz")


@pytest.mark.parametrize(
    "name",
    ["../trace.jsonl", "/etc/trace.jsonl", "a/../../trace.jsonl", "a/b/trace.jsonl", "a\\trace.jsonl", ".a/trace.jsonl",
     "a/.bashrc", "a/x.py", "trace.jsonl", "", "a/"],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    file = archive(tmp_path / "evil.tar.gz", {name: b"x"})
    with pytest.raises(RecordingError):
        unpack(file, tmp_path / "out")
    assert left_in(tmp_path / "out") == []
    assert left_in(tmp_path) == ["evil.tar.gz", "out"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_nothing_but_files_is_taken(tmp_path: Path, kind: bytes) -> None:
    file = tmp_path / "evil.tar.gz"
    first = json.dumps({"voicectl_pack": 1, "files": {"a/trace.jsonl": "0" * 64}}).encode()
    with tarfile.open(file, "w:gz") as tar:
        listed = tarfile.TarInfo("pack.json")
        listed.size = len(first)
        tar.addfile(listed, io.BytesIO(first))
        member = tarfile.TarInfo("a/trace.jsonl")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(RecordingError, match="does not belong in it"):
        unpack(file, tmp_path / "out")
    assert left_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("members", "listed", "says"),
    [
        ({"a/trace.jsonl": b"x"}, {"a/trace.jsonl": b"y"}, "'a/trace.jsonl' is not what was packed: its hash differs"),
        ({"a/trace.jsonl": b"x"}, {"a/trace.jsonl": b"x", "a/call.wav": b""}, "'a/call.wav' is missing from it"),
        ({"a/trace.jsonl": b"x", "a/call.wav": b""}, {"a/trace.jsonl": b"x"}, "'a/call.wav' does not belong in it"),
    ],
)
def test_what_is_not_as_listed_is_refused(
    tmp_path: Path, members: dict[str, bytes], listed: dict[str, bytes], says: str
) -> None:
    with pytest.raises(RecordingError, match=says):
        unpack(archive(tmp_path / "a.tar.gz", members, listed=listed), tmp_path / "out")
    assert left_in(tmp_path / "out") == []


def test_a_file_that_is_no_pack_is_one_clear_line(recordings: list[Path], tmp_path: Path) -> None:
    good = tmp_path / "good.tar.gz"
    pack(recordings, good)
    raw = good.read_bytes()
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as tar:
        tar.add(recordings[0] / "trace.jsonl", "trace.jsonl")
    cases = {
        "empty": b"",
        "text": b"what " * 99,
        "cut": raw[: len(raw) // 2],
        "cut early": raw[:40],
        "flipped": raw[:60] + bytes([raw[60] ^ 255]) + raw[61:],
        "other": other.read_bytes(),
        "no json": gzip.compress(gzip.decompress(raw).replace(b'"voicectl_pack"', b'voicectl_pack""')),
        "newer": archive(tmp_path / "newer.tar.gz", {"a/trace.jsonl": b"x"}, version=9).read_bytes(),
    }
    for name, data in cases.items():
        file = tmp_path / "case.tar.gz"
        file.write_bytes(data)
        with pytest.raises(RecordingError) as caught:
            unpack(file, tmp_path / "out")
        assert "\n" not in str(caught.value), name
        assert str(file) in str(caught.value), name
        assert left_in(tmp_path / "out") == [], name
    with pytest.raises(RecordingError, match="cannot be read: no such file"):
        unpack(tmp_path / "nowhere.tar.gz", tmp_path / "out")


def test_nothing_is_overwritten(recordings: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "calls.tar.gz"
    pack(recordings, file)
    (tmp_path / "out" / "0002-bob").mkdir(parents=True)
    with pytest.raises(UsageError, match="is there already"):
        unpack(file, tmp_path / "out")
    assert left_in(tmp_path / "out") == ["0002-bob"]


def test_what_cannot_be_packed_is_refused(recordings: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two of the recordings have the same name"):
        pack([recordings[0], recordings[0]], tmp_path / "a.tar.gz")
    with pytest.raises(RecordingError, match="not a recording"):
        pack([tmp_path], tmp_path / "a.tar.gz")
    spaced = recordings[0].rename(tmp_path / "a call")
    with pytest.raises(UsageError, match="this name cannot be packed"):
        pack([spaced], tmp_path / "a.tar.gz")
    assert not list(tmp_path.glob("*.tar.gz*"))
