"""The cache of weights: pull, check, find, remove.

What lives here: the folders, the locks, the hashes. What must not: how a source is reached
(`sources.py`), anything about models.

Layout under the cache folder:

    weights/<name>/<file>     whole files with the right hash, put there by one rename
    staging/<name>/           what an interrupted pull left, used by the next one
    staging/<name>.lock       held while pulling or removing

So a file under `weights/` is always whole; only a disk or a person can spoil it later, which
`verify` finds. Once pulled, nothing here needs a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voicectl.errors import WeightsError
from voicectl.weights import sources
from voicectl.weights.table import WEIGHTS, LocalPath, Server, WeightFile, Weights, find

Progress = Callable[[str, int, int, str], None]
"""Told `(name, done_bytes, total_bytes, note)`; both are 0 for a step without a measure."""

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Status:
    """What is here of some weights, by size alone.

    `interrupted`: a pull began and did not end; the next one goes on from there.
    """

    weights: Weights
    state: Literal["pulled", "interrupted", "missing"]
    folder: Path


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file after its hash was computed again."""

    file: str
    state: Literal["ok", "missing", "corrupt"]


def cache_dir(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The user's cache folder for voicectl: `$VOICECTL_CACHE`, else where the platform keeps caches."""
    if chosen := env.get("VOICECTL_CACHE"):
        return Path(chosen).expanduser()
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    if platform == "darwin":
        return home / "Library" / "Caches" / "voicectl"
    if platform == "win32":
        return Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local") / "voicectl" / "Cache"
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "voicectl"


def open_store(env: Mapping[str, str]) -> Store:
    """The store that an environment asks for.

    Reads `VOICECTL_CACHE`, and two sources that are tried before all others:
    `VOICECTL_WEIGHTS_DIR`, a folder, and `VOICECTL_WEIGHTS_URL`, the base address of a mirror.
    """
    own: list[LocalPath | Server] = []
    if folder := env.get("VOICECTL_WEIGHTS_DIR"):
        own.append(LocalPath(Path(folder).expanduser()))
    if base := env.get("VOICECTL_WEIGHTS_URL"):
        own.append(Server(base))
    return Store(cache_dir(env), own_sources=tuple(own))


def default_store() -> Store:
    """The store of this process's environment, for providers: they are built from the spec alone,
    and where a machine keeps its caches is no part of a spec."""
    return open_store(os.environ)  # noqa: TID251 - see above


@dataclass(frozen=True, slots=True)
class Store:
    """The weights of one cache folder.

    Args:
        root: the cache folder; need not exist.
        own_sources: the user's own, tried before those of the table.
        table: the weights it knows.
    """

    root: Path
    own_sources: tuple[LocalPath | Server, ...] = ()
    table: tuple[Weights, ...] = WEIGHTS

    def path(self, name: str, file: str) -> Path:
        """Where a pulled file is, checked: its hash is computed unless it was since the file last changed.

        Raises:
            WeightsError: unknown, not pulled, not whole or not what was published; says the
                command that helps.
        """
        wanted = find(name, self.table).file(file)
        path = self._folder(name) / file
        size = _size(path)
        trouble = ""
        if size is None:
            trouble = "is not pulled"
        elif size != wanted.bytes:
            trouble = f"is damaged ({file} has {size} bytes, not {wanted.bytes})"
        elif not self._checked(path) and self._check(name, wanted) != "ok":
            trouble = f"is damaged ({file} is not what was published: its sha256 differs)"
        if trouble:
            raise WeightsError(f"the model '{name}' {trouble}", hint=f"Run: voicectl models pull {name}")
        return path

    def status(self, name: str) -> Status:
        """What is here of `name`, by size alone.

        Raises:
            WeightsError: no such weights.
        """
        weights = find(name, self.table)
        folder = self._folder(name)
        if all(_size(folder / file.name) == file.bytes for file in weights.files):
            return Status(weights, "pulled", folder)
        begun = self._staging(name).is_dir() or folder.is_dir()
        return Status(weights, "interrupted" if begun else "missing", folder)

    def verify(self, name: str) -> tuple[FileCheck, ...]:
        """Compute every hash of `name` again.

        Raises:
            WeightsError: no such weights.
        """
        return tuple(FileCheck(file.name, self._check(name, file)) for file in find(name, self.table).files)

    def remove(self, name: str) -> int:
        """Remove `name` and what an interrupted pull left of it; returns the bytes freed.

        Raises:
            WeightsError: no such weights.
        """
        find(name, self.table)
        freed = 0
        with self._lock(name, on_wait=lambda: None):
            for folder in (self._folder(name), self._staging(name)):
                freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def pull(self, names: Iterable[str], progress: Progress) -> None:
        """Bring every file of `names` here and check its hash; what is here already stays.

        Raises:
            WeightsError: unknown, out of reach, refused for its hash, or no room. What arrived
                is kept for the next try, unless its hash was wrong.
        """
        for weights in [find(name, self.table) for name in names]:
            name = weights.name

            def waiting(name: str = name) -> None:
                progress(name, 0, 0, "waiting for another pull of it to end")

            with self._lock(name, on_wait=waiting):
                staging = self._staging(name)
                staging.mkdir(parents=True, exist_ok=True)
                try:
                    for file in weights.files:
                        progress(name, 0, 0, f"checking {file.name}")
                        if self._check(name, file) != "ok":
                            self._pull_file(weights, file, staging, progress)
                except OSError as error:
                    raise WeightsError(
                        f"cannot keep the model '{name}': {error.strerror or error}",
                        where=str(error.filename or self.root),
                        hint="Free some space or set VOICECTL_CACHE to another folder.",
                    ) from error
                shutil.rmtree(staging, ignore_errors=True)
            progress(name, weights.bytes, weights.bytes, "ready")

    def _pull_file(self, weights: Weights, file: WeightFile, staging: Path, progress: Progress) -> None:
        self._need_room(weights, file)
        tried: list[str] = []
        for source in (*self.own_sources, *file.sources):
            try:
                arrived = sources.fetch(
                    source,
                    weights.name,
                    file,
                    staging,
                    lambda done, total, note: progress(weights.name, done, total, note),
                )
            except sources.SourceFailed as failure:
                tried.append(f"{sources.describe(source)}: {failure}")
                continue
            progress(weights.name, 0, 0, f"checking {file.name}")
            found = _sha256(arrived)
            if found != file.sha256:
                arrived.unlink()
                sources.discard(source, staging)
                raise WeightsError(
                    f"what the source '{sources.describe(source)}' gave for {file.name} has the sha256 {found[:12]}…,"
                    f" not {file.sha256[:12]}…, and was removed",
                    where=weights.name,
                    hint=f"Run: voicectl models pull {weights.name}; if it comes again, the source is damaged or "
                    "changed: name another with VOICECTL_WEIGHTS_DIR or VOICECTL_WEIGHTS_URL.",
                )
            self._folder(weights.name).mkdir(parents=True, exist_ok=True)
            arrived.replace(self._folder(weights.name) / file.name)
            return
        raise WeightsError(
            f"cannot fetch {file.name} ({'; '.join(tried)})",
            where=weights.name,
            hint=f"Run again when connected: voicectl models pull {weights.name} (what arrived is kept), or set "
            "VOICECTL_WEIGHTS_DIR to a folder that has the file.",
        )

    def _need_room(self, weights: Weights, file: WeightFile) -> None:
        """Say at once what would otherwise fail after minutes: the download and the joined file."""
        need = 2 * file.bytes + _SPARE_BYTES
        free = shutil.disk_usage(self.root).free
        if free < need:
            raise WeightsError(
                f"the model '{weights.name}' needs {need >> 20} MB to be pulled and {free >> 20} MB are free",
                where=str(self.root),
                hint="Free some space or set VOICECTL_CACHE to another folder.",
            )

    def _check(self, name: str, file: WeightFile) -> Literal["ok", "missing", "corrupt"]:
        path = self._folder(name) / file.name
        size = _size(path)
        if size is None:
            return "missing"
        if size != file.bytes or _sha256(path) != file.sha256:
            return "corrupt"
        with contextlib.suppress(OSError):  # a cache we may only read is checked every time
            _stamp(path).write_text(_state(path), encoding="ascii")
        return "ok"

    def _checked(self, path: Path) -> bool:
        """Whether the hash was found right and the file has not been touched since."""
        try:
            return _stamp(path).read_text(encoding="ascii") == _state(path)
        except (OSError, UnicodeDecodeError):
            return False

    def _folder(self, name: str) -> Path:
        return self.root / "weights" / name

    def _staging(self, name: str) -> Path:
        return self.root / "staging" / name

    @contextlib.contextmanager
    def _lock(self, name: str, on_wait: Callable[[], None]) -> Generator[None]:
        """Keep other processes off `name`; waits for them. The system frees it if we die."""
        folder = self.root / "staging"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WeightsError(
                f"cannot write to the cache: {error.strerror}",
                where=str(folder),
                hint="Set VOICECTL_CACHE to a folder of yours.",
            ) from error
        try:
            if not _take(handle, wait=False):
                on_wait()
                _take(handle, wait=True)
            yield
        finally:
            os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int, *, wait: bool) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(handle: int, *, wait: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _stamp(path: Path) -> Path:
    """Beside a file: its state when its hash was last found right."""
    return path.with_name(path.name + ".checked")


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
