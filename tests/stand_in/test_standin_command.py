"""`voicectl standin`: what it prints, what it understands, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from voicectl.cli import standin as command
from voicectl.errors import UsageError
from voicectl.spec import list_profiles, resolve
from voicectl.standin.faults import Fault

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "voicectl", "standin", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


@contextmanager
def serving(*arguments: str) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "voicectl", "standin", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str], beginning: str) -> str:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(beginning):
            return line.rstrip()
    raise AssertionError(f"no line begins with '{beginning}'")


@pytest.mark.wall
def test_it_says_where_it_is_and_how_to_use_it_and_stops_at_once() -> None:
    with serving() as process:
        url = line_of(process, "stand-in for").rpartition(" ")[2]
        assert "utterances" in line_of(process, "knows ")
        use = line_of(process, "  DEEPGRAM_API_KEY=")
        assert "voicectl bench coffee --profile standin" in use
        assert line_of(process, "    --set stt") == (
            f"    --set stt.options.base_url={url} --set llm.options.base_url={url}/v1 \\"
        )
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert json.load(answer)["data"] == []
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert process.returncode == 0
        assert told.startswith("stopped after")


@pytest.mark.wall
def test_each_request_is_a_line_and_the_key_is_in_none() -> None:
    with serving("--json", "--fault", "llm:429@2x1", "--delay", "llm=0") as process:
        assert process.stdout
        first = json.loads(process.stdout.readline())
        assert first["faults"] == 1
        texts: list[str] = []
        for wanted in (200, 429, 200):
            status = post(f"{first['url']}/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi."}]})
            assert status == wanted
            texts.append(json.loads(process.stdout.readline())["line"])
            if wanted == 429:
                process.stdout.readline()  # the answer's own
        assert texts[0].startswith("openai-llm: answered: 1 pieces")
        assert texts[1].startswith("openai-llm: 429")
        assert "key-of-mine" not in " ".join(texts)


def post(url: str, body: dict[str, Any]) -> int:
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer key-of-mine", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "lmm:429"], "unknown service 'lmm'. Did you mean 'llm'?"),
        (["--fault", "openai-lm:429"], "unknown service 'openai-lm'. Did you mean 'openai-llm'?"),
        (["--fault", "llm:cutt"], "unknown fault 'cutt'. Did you mean 'cut'?"),
        (["--fault", "llm"], "cannot read the fault 'llm'. Write it like llm:429"),
        (["--fault", "llm:429@0"], "the fault 'llm:429@0' would never strike"),
        (["--fault", "llm:dns"], "'dns' needs a port of its own"),
        (["--delay", "ttts=3"], "unknown delay 'ttts'. Did you mean 'tts'?"),
        (["--delay", "llm=soon"], "cannot read the delay 'llm=soon'"),
        (["--callers", "nowhere"], "nowhere: no such file or folder"),
        (["--from", "nowhere"], "nowhere"),
        (["--says-file", "nowhere.txt"], "nowhere.txt: cannot be read: no such file or directory"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(arguments: list[str], said: str) -> None:
    done = run("--port", "0", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_package_says_the_pip_line(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['aiohttp'] = None; sys.argv[1:] = ['standin']; "
    start = "from voicectl.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", hide + start], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 3
    assert done.stderr == (
        "voicectl: error: standin: needs the package 'aiohttp', which is not installed. "
        "Run: pip install 'voicectl[standin]'\n"
    )


@pytest.mark.wall
def test_a_port_that_is_taken_is_one_line() -> None:
    with serving("--json") as process:
        assert process.stdout
        port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
        done = run("--port", port)
        assert done.returncode == 3
        assert done.stderr == (
            f"voicectl: error: 127.0.0.1:{port}: the port cannot be had: address already in use. Name another: --port\n"
        )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("llm:429", Fault("openai-llm", "429")),
        ("stt:429-retry-after@2", Fault("deepgram-stt", "429-retry-after", after=1)),
        ("tts:cut@2x1", Fault("cartesia-tts", "cut", after=1, times=1)),
        ("anthropic-llm:slow-first-byte=3", Fault("anthropic-llm", "slow-first-byte", seconds=3.0)),
        ("llm:dripx2=0.5", Fault("openai-llm", "drip", times=2, seconds=0.5)),
    ],
)
def test_a_fault_is_read_as_it_is_written(text: str, fault: Fault) -> None:
    assert command.parse_fault(text) == fault


def test_answers_are_lines_or_a_table(tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("latte => One latte.\nFirst.\nSecond.\n", encoding="utf-8")
    answer = command._answer(file)
    said = [{"role": "user", "content": "Hello."}]
    assert answer(said) == "First."
    assert answer([*said, {"role": "assistant", "content": "First."}, {"role": "user", "content": "Hm."}]) == "Second."
    assert answer([{"role": "user", "content": "A large LATTE, please."}]) == "One latte."
    assert command._answer(None)(said) == "You said: Hello."


def test_an_empty_file_of_lines_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has no line"):
        command._lines(tmp_path / "empty.txt")


def test_the_profile_speaks_to_the_port_that_the_command_takes() -> None:
    from voicectl.providers import CATALOG

    assert "standin" in list_profiles(ROOT / "agents.yaml")
    agent = resolve("coffee", "standin", [], env=os.environ, catalog=CATALOG, agents_file=ROOT / "agents.yaml")
    stages = agent.stages()
    urls = {stage: getattr(choice.options, "base_url", None) for stage, choice in stages.items()}
    assert urls["stt"] == urls["tts"] == f"http://127.0.0.1:{command.PORT}"
    assert urls["llm"] == f"http://127.0.0.1:{command.PORT}/v1"
