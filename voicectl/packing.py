"""Recordings as one file, to hand on: `NAME.tar.gz` with the hash of every file in it.

The first member, `pack.json`, lists the files and their hashes. What comes out is what went in, or
nothing at all. An archive comes from anywhere, so only plain files of the names a recording has are
taken from it, into folders beside one another.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from voicectl import __version__
from voicectl.errors import RecordingError, UsageError
from voicectl.recording import FILE_NAMES, TRACE_NAME
from voicectl.trace import storage_error

PACK_VERSION = 1
LIST_NAME = "pack.json"
SUFFIX = ".tar.gz"

_MOST_FILES = 100_000
_LONGEST_LIST = 50_000_000
_FOLDER = re.compile(r"\w[\w.+-]*", re.ASCII)
_PIECE = 1 << 20


def pack(folders: Sequence[Path], target: Path) -> str:
    """Put recordings into one file and return its hash.

    The same recordings give the same bytes: no dates, no owners.

    Raises:
        RecordingError: a folder is no recording.
        UsageError: two have the same name, or a name that cannot be packed.
        StorageError: the file cannot be written.
    """
    files = {f"{folder.name}/{path.name}": path for folder in folders for path in _files(folder)}
    if len({folder.name for folder in folders}) < len(folders):
        raise UsageError("two of the recordings have the same name", hint="Pack them apart")
    for folder in folders:
        if not _FOLDER.fullmatch(folder.name):
            raise UsageError("this name cannot be packed", where=str(folder), hint="Use letters, digits, - and _")
    partial = target.with_name(f".{target.name}.new")
    try:
        hashes = {name: _sha256(path) for name, path in files.items()}
        listed = json.dumps({"voicectl_pack": PACK_VERSION, "voicectl": __version__, "files": hashes}, indent=1)
        with (
            partial.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            _add(tar, LIST_NAME, io.BytesIO(listed.encode()), len(listed.encode()))
            for name, path in files.items():
                with path.open("rb") as file:
                    _add(tar, name, file, path.stat().st_size)
        sha256 = _sha256(partial)
        partial.replace(target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return sha256


def _files(folder: Path) -> list[Path]:
    found = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
    if not any(path.name == TRACE_NAME for path in found):
        raise RecordingError(f"not a recording: it has no {TRACE_NAME}", where=str(folder))
    return found


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    tar.addfile(member, file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, into: Path) -> list[Path]:
    """Take the recordings out of a packed file, below `into`.

    Raises:
        RecordingError: it is not such a file, or is not as it was packed. Nothing is left behind.
        UsageError: a recording of the same name is there already.
        StorageError: they cannot be written.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=into))
    except OSError as error:
        raise storage_error(into, error) from error
    try:
        names = _take_out(archive, scratch)
        there = next((name for name in names if (into / name).exists()), None)
        if there is not None:
            raise UsageError("is there already", where=str(into / there), hint="Choose another folder: --into")
        for name in names:
            (scratch / name).rename(into / name)
        return [into / name for name in names]
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        why = " ".join(str(error).split())
        raise RecordingError(f"not a packed recording: {why[:1].lower()}{why[1:]}", where=str(archive)) from error
    except OSError as error:
        raise storage_error(into, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _take_out(archive: Path, scratch: Path) -> list[str]:
    """Write every listed file below `scratch`; returns the names of the recordings."""
    try:
        file = archive.open("rb")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RecordingError(f"cannot be read: {why}", where=str(archive)) from error
    with file, tarfile.open(fileobj=file, mode="r|gz") as tar:
        members = iter(tar)
        hashes = _read_list(tar, next(members, None), archive)
        left = dict(hashes)
        for member in members:
            sha256 = left.pop(member.name, None)
            content = tar.extractfile(member) if member.isreg() else None
            if sha256 is None or content is None:
                raise RecordingError(f"'{member.name}' does not belong in it", where=str(archive))
            path = scratch / member.name
            path.parent.mkdir(exist_ok=True)
            digest = hashlib.sha256()
            with path.open("wb") as out:
                while piece := content.read(_PIECE):
                    digest.update(piece)
                    out.write(piece)
            if digest.hexdigest() != sha256:
                raise RecordingError(f"'{member.name}' is not what was packed: its hash differs", where=str(archive))
    if left:
        raise RecordingError(f"'{next(iter(left))}' is missing from it", where=str(archive))
    return sorted({name.split("/")[0] for name in hashes})


def _read_list(tar: tarfile.TarFile, first: tarfile.TarInfo | None, archive: Path) -> dict[str, str]:
    """The names, all of them plain, and their hashes."""
    content = tar.extractfile(first) if first and first.isreg() and first.name == LIST_NAME else None
    if content is None or first is None or first.size > _LONGEST_LIST:
        raise RecordingError("not a packed recording: it does not begin with its list", where=str(archive))
    try:
        value: Any = json.loads(content.read())
        version, files = value["voicectl_pack"], cast("dict[str, str]", value["files"])
        plain = len(files) <= _MOST_FILES and all(_is_plain(name) for name in files)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise RecordingError("not a packed recording: its list cannot be read", where=str(archive)) from None
    if version != PACK_VERSION:
        raise RecordingError(
            f"pack version {version} cannot be read, this voicectl knows {PACK_VERSION}", where=str(archive)
        )
    if not plain:
        raise RecordingError("its list names files that no recording has", where=str(archive))
    return files


def _is_plain(name: str) -> bool:
    folder, _, file = name.partition("/")
    return _FOLDER.fullmatch(folder) is not None and file in FILE_NAMES
