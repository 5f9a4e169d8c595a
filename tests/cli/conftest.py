"""The command line in this process: arguments in, exit code and both streams out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from voicectl.cli import main

AGENTS = """\
version: 1
agents:
  coffee:
    description: Takes orders.
    instructions: Take orders.
    greeting: Hi!
    vad: {provider: scripted}
    stt: {provider: scripted}
    llm: {provider: scripted}
    tts: {provider: scripted}
    thresholds: [p95(voice_to_voice_ms) < 800]
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Voicectl = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a cache of its own and 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("VOICECTL_DEBUG", None)
    return tmp_path


@pytest.fixture
def project(home: Path) -> Path:
    (home / "agents.yaml").write_text(AGENTS)
    (home / "profiles").mkdir()
    (home / "profiles" / "quick.yaml").write_text("clock: virtual\n")
    return home


@pytest.fixture
def voicectl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Voicectl:
    def run(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["voicectl", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.run()
        captured = capsys.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return run
