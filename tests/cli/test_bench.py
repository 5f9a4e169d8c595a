"""`voicectl bench`: the run, its report and its exit code; and what is refused before or during it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Voicectl
from voicectl.recording import open_recording
from voicectl.streams import read_streams

CALLER = """\
utterances:
  - {file: 01.wav, text: "A large latte, please.", slots: {size: large}}
  - {file: 02.wav, text: "Yes, that is all."}
"""


def tone(path: Path, seconds: float = 1.2, rate: int = 16_000) -> None:
    """A tone with a little silence around it, which is speech enough for the scripted VAD."""
    samples = (6000 * np.sin(2 * np.pi * 220 / rate * np.arange(round(seconds * rate)))).astype("<i2")
    samples[: rate // 10] = samples[-rate // 5 :] = 0
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


@pytest.fixture
def shop(project: Path) -> Path:
    """A project whose agent is scripted, and one caller with two utterances."""
    caller = project / "recordings" / "guest"
    caller.mkdir(parents=True)
    tone(caller / "01.wav")
    tone(caller / "02.wav", 0.8, 44_100)
    (caller / "caller.yaml").write_text(CALLER)
    return project


def test_a_run_keeps_every_call_and_reports_how_long_callers_waited(shop: Path, voicectl: Voicectl) -> None:
    done = voicectl("bench", "--profile", "quick", "--calls", "12", "--out", "run", "--json", "report.json", "-q")
    assert (done.code, done.err) == (0, "")
    assert "modelled (virtual clock) · 12 calls · 24 turns" in done.out
    report = json.loads((shop / "report.json").read_text())
    metric = report["metrics"]["voice_to_voice_ms"]
    assert metric["n"] == 23  # the cold first one is apart
    # 100 ms to the pause, 100 of STT, 150 + 40 of LLM, 80 of TTS: the turn ends meanwhile, and the first
    # sound does not wait for a frame.
    assert metric["p50"] == pytest.approx(470, abs=5)
    assert report == json.loads((shop / "run" / "report.json").read_text())
    assert len(list((shop / "run").glob("*/call.wav"))) == 12
    call = open_recording(shop / "run" / "0001-guest")
    assert call.cut is None
    assert read_streams(call.path).cut is None


def test_a_failed_threshold_is_exit_1_and_too_few_turns_are_exit_4(shop: Path, voicectl: Voicectl) -> None:
    few = voicectl("bench", "-p", "quick", "-q", "--out", "few")
    assert few.code == 4, few.out
    agents = shop / "agents.yaml"
    agents.write_text(agents.read_text().replace("p95(voice_to_voice_ms) < 800", "p50(voice_to_voice_ms) < 100"))
    assert voicectl("bench", "-p", "quick", "-q", "--calls", "12", "--out", "slow").code == 1


def test_runs_that_are_the_same_leave_the_same_trace(shop: Path, voicectl: Voicectl) -> None:
    for run in ("a", "b"):
        voicectl("bench", "-p", "quick", "-q", "--calls", "2", "--out", run)
    for call in ("0001-guest", "0002-guest"):
        for file in ("trace.jsonl", "streams.jsonl", "call.wav"):
            assert (shop / "a" / call / file).read_bytes() == (shop / "b" / call / file).read_bytes()


def test_calls_at_once_are_each_what_they_are_alone(shop: Path, voicectl: Voicectl) -> None:
    voicectl("bench", "-p", "quick", "-q", "--calls", "6", "--out", "one")
    voicectl("bench", "-p", "quick", "-q", "--calls", "6", "--concurrency", "3", "--out", "three")
    alone = (shop / "one" / "0006-guest" / "trace.jsonl").read_bytes()
    assert (shop / "three" / "0006-guest" / "trace.jsonl").read_bytes() == alone


def test_json_to_stdout_is_all_there_is_on_stdout(shop: Path, voicectl: Voicectl) -> None:
    done = voicectl("bench", "-p", "quick", "-q", "--json", "-")
    assert json.loads(done.out)["agent"] == "coffee"
    assert "modelled (virtual clock)" in done.err


def test_callers_are_looked_for_beside_the_agents_file(
    shop: Path, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "elsewhere").mkdir()
    monkeypatch.chdir(shop / "elsewhere")
    assert voicectl("bench", "-f", "../agents.yaml", "-p", "quick", "-q").code == 4  # made, and too few turns


def test_a_run_that_never_began_does_not_block_its_folder(shop: Path, voicectl: Voicectl) -> None:
    (shop / "run").mkdir()
    (shop / "run" / "spec.yaml").write_text("left behind")
    assert voicectl("bench", "-p", "quick", "-q", "--out", "run").code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nobody"], 2, "voicectl: error: unknown agent 'nobody'. Agents in agents.yaml: coffee"),
        (["-p", "quik"], 2, "voicectl: error: unknown profile 'quik'. Did you mean 'quick'?"),
        (["--callers", "none"], 2, "none: no such file or folder"),
        (["--callers", "empty"], 2, "empty: holds no caller. Put WAV files there, or a caller.yaml with its WAVs"),
        (["--set", "turn.silence_ms=300"], 2, "--set turn.silence_ms: unknown key 'silence_ms'. Did you mean"),
        (["--out", "agents.yaml"], 2, "voicectl: error: agents.yaml: cannot keep calls here: file exists"),
        (["--out", "recordings"], 2, "voicectl: error: recordings: this folder is not empty"),
        (["--json", "no/where.json"], 2, "voicectl: error: no/where.json: cannot write the report: no such file"),
        (["--calls", "0"], 2, "voicectl: error: "),
    ],
)
def test_what_cannot_be_is_one_line_before_the_run(
    shop: Path, voicectl: Voicectl, arguments: list[str], code: int, line: str
) -> None:
    (shop / "empty").mkdir()
    done = voicectl("bench", *arguments)
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.removeprefix("voicectl: error: ").startswith(line.removeprefix("voicectl: error: ")), done.err
    assert not (shop / "runs").exists()


def test_a_bad_metric_is_refused_before_the_run(shop: Path, voicectl: Voicectl) -> None:
    agents = shop / "agents.yaml"
    agents.write_text(agents.read_text().replace("voice_to_voice_ms", "voice_to_vice_ms"))
    done = voicectl("bench", "-p", "quick")
    assert done.code == 2
    assert done.err.startswith(
        "agents.yaml:11:18: unknown metric 'voice_to_vice_ms'. Did you mean 'voice_to_voice_ms'?"
    )
    assert not (shop / "runs").exists()


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "is empty": lambda raw: b"",
    "truncated": lambda raw: raw[: len(raw) // 2],
    "not a WAV file": lambda raw: b"not a wav file at all, just text",
    "silent": lambda raw: raw[:44] + bytes(len(raw) - 44),
}


@pytest.mark.parametrize("says", SPOILT)
def test_a_wav_that_cannot_be_used_is_one_line(shop: Path, voicectl: Voicectl, says: str) -> None:
    path = shop / "recordings" / "guest" / "01.wav"
    path.write_bytes(SPOILT[says](path.read_bytes()))
    done = voicectl("bench", "-p", "quick")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "01.wav" in done.err
    assert says in done.err


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_width_and_channel_count_makes_the_same_call(
    shop: Path, voicectl: Voicectl, width: int, channels: int
) -> None:
    path = shop / "recordings" / "guest" / "02.wav"
    with wave.open(str(path), "rb") as file:
        mono = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int64)
    scaled = (mono >> 8) + 128 if width == 1 else mono << (8 * (width - 2))
    raw = scaled.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 44_100, 0, "NONE", ""))
        file.writeframes(np.repeat(raw[:, None, :], channels, axis=1).tobytes())
    done = voicectl("bench", "-p", "quick", "-q", "--out", "run")
    assert done.code == 4, done.err  # two turns carry no P95
    assert "2 turns" in done.out


def test_missing_weights_without_a_network_are_one_line(shop: Path) -> None:
    agents = shop / "agents.yaml"
    agents.write_text(agents.read_text().replace("stt: {provider: scripted}", "stt: {provider: local}"))
    nowhere = "http://127.0.0.1:9"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"PIP_INDEX_URL": f"{nowhere}/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere)
    command = [sys.executable, "-m", "voicectl", "bench", "-q"]
    done = subprocess.run(command, cwd=shop, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (3, ""), done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot fetch" in done.stderr
    assert "voicectl models pull moonshine-tiny-en" in done.stderr


@pytest.mark.wall
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_prints_the_partial_report_and_leaves_the_files_whole(shop: Path, ending: signal.Signals) -> None:
    (shop / "profiles" / "real-time.yaml").write_text("clock: wall\n")
    command = [sys.executable, "-m", "voicectl", "bench", "-p", "real-time", "--calls", "50", "--out", "run"]
    running = subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr
    said = ""
    while "call 1 of 50" not in said:  # the first call is over, the second under way
        line = running.stderr.readline()
        assert line, "the run ended by itself"
        said += line
    running.send_signal(ending)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "2 calls" in out
    whole, cut = (open_recording(path.parent) for path in sorted((shop / "run").glob("*/trace.jsonl")))
    assert whole.cut is None
    assert type(whole.events[-1]).__name__ == type(cut.events[-1]).__name__ == "CallEnded"


def test_a_full_disk_is_one_line_and_keeps_what_was_written(shop: Path) -> None:
    # A limit on the size of files stands for the full disk: the same call fails, with another number.
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
    code = limit + "import sys; sys.argv[0] = 'voicectl'; from voicectl.cli.main import run; run()"
    command = [sys.executable, "-c", code, "bench", "-p", "quick", "-q", "--out", "run"]
    done = subprocess.run(command, cwd=shop, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "cannot write: file too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert "modelled (virtual clock) · 1 call" in done.stdout  # the partial report
    call = open_recording(shop / "run" / "0001-guest")
    assert call.cut or len(call.left)
