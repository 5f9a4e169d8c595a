"""`voicectl drill`: what is refused before any call is made."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def voicectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voicectl", "drill", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("coffee", "-p", "cloud", "--fault", "dsn"), "unknown fault 'dsn'. Did you mean 'dns'?"),
        (("coffee", "-p", "cloud", "--stage", "vad"), "unknown stage 'vad'. Stages: stt, llm, tts"),
        (("coffee", "-p", "cloud", "--moment", "midcall"), "unknown moment 'midcall'. Did you mean 'mid-call'?"),
        (("coffee", "-p", "scripted"), "asks no vendor: there is nothing to rehearse"),
    ],
)
def test_what_cannot_be_drilled_is_told_in_a_line(arguments: tuple[str, ...], says: str) -> None:
    done = voicectl(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    done = voicectl("coffee", "-p", "cloud", "--out", str(tmp_path))
    assert (done.returncode, "this folder is not empty" in done.stderr) == (2, True)


def test_the_help_names_an_example() -> None:
    done = voicectl("--help")
    assert done.returncode == 0
    assert "voicectl drill coffee --profile cloud-survives" in re.sub(r"\s+", " ", done.stdout)
