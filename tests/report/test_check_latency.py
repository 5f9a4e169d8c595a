"""The check that is not ours agrees with the report, and notices when the report is wrong."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voicectl.audio import Pcm, WavWriter, mulaw_table, resample

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_latency.py"
RATE = 16_000
# In seconds: where each utterance is voiced, and where the agent is heard. The second is a barge-in.
CALLER = ((1.0, 2.0), (3.4, 4.4), (6.3, 7.1))
AGENT = ((0.1, 0.6), (2.7, 3.9), (5.1, 5.6))
WAITS = (700.0, 700.0, None)


def write_wav(path: Path, channels: list[NDArray[np.int16]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with WavWriter(path, RATE, len(channels)) as wav:
        wav.write(np.stack(channels, axis=1).astype("<i2").tobytes())


def write_mulaw(path: Path, samples: NDArray[np.int16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.array(mulaw_table())
    codes = np.array([np.argmin(np.abs(table - sample)) for sample in samples], np.uint8).tobytes()
    head = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 7, 1, 8_000, 8_000, 1, 8, b"data", len(codes))
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(head) + len(codes), b"WAVE") + head + codes)


def speech(seconds: float, generator: np.random.Generator, rate: int = RATE) -> NDArray[np.int16]:
    """A burst of smoothed noise between 100 ms of silence."""
    noise = np.convolve(generator.normal(0, 4000, round(seconds * rate)), np.ones(5) / 2, "same")
    silence = np.zeros(rate // 10)
    return np.concatenate((silence, noise, silence)).astype(np.int16)


def make_run(folder: Path, *, phone: bool = False, noise: float = 0.0) -> dict[str, Any]:
    """A run of one call below `folder`, its caller beside it; returns the report."""
    generator = np.random.default_rng(5)
    left, right = (np.zeros(RATE * 18, np.int16) for _ in range(2))
    left += generator.normal(0, noise, len(left)).astype(np.int16) if noise else 0
    script = ["version: 1", "utterances:"]
    for number, (begin, end) in enumerate(CALLER, 1):
        path = folder / "recordings" / "ada" / f"{number:02}.wav"
        rate = 8_000 if phone else RATE
        said = speech(end - begin, generator, rate)
        if phone:
            write_mulaw(path, said)
        else:
            write_wav(path, [said])
        on_line = resample(Pcm(said.tobytes(), rate), RATE).array()
        at = round((begin - 0.1) * RATE)
        left[at : at + len(on_line)] += on_line
        last = len(said) - rate // 10 - 1
        script += [
            f"  - file: {path.name}",
            f"    first_voiced_sample: {rate // 10}",
            f"    last_voiced_sample: {last}",
        ]
    (folder / "recordings" / "ada" / "caller.yaml").write_text("\n".join(script) + "\n")
    for begin, end in AGENT:
        right[round(begin * RATE) : round(end * RATE)] = 6_000 * (-1) ** np.arange(
            round(end * RATE) - round(begin * RATE)
        )
    write_wav(folder / "run" / "0001-ada" / "call.wav", [left, right])
    exchanges = [
        {
            "call": "0001-ada",
            "turn": turn,
            "utterance": f"{turn:02}.wav",
            "outcome": "no answer" if wait is None else "answered",
            "voice_to_voice_ms": 10_000 if wait is None else wait,
        }
        for turn, wait in enumerate(WAITS, 1)
    ]
    return {"calls": [{"call": "0001-ada", "caller": "ada"}], "exchanges": exchanges}


def check(folder: Path, report: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "run" / "report.json").write_text(json.dumps(report))
    command = [sys.executable, "-I", str(TOOL), str(folder / "run"), "--callers", str(folder / "recordings")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("phone", "noise"), [(False, 0.0), (True, 0.0), (False, 700.0)])
def test_the_check_finds_what_is_there(tmp_path: Path, phone: bool, noise: float) -> None:
    done = check(tmp_path, make_run(tmp_path, phone=phone, noise=noise))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 turns within 10 ms" in done.stdout
    worst = re.search(r"largest difference ([\d.]+) ms", done.stdout)
    assert worst is not None
    assert float(worst[1]) < 1.0


@pytest.mark.parametrize(("turn", "field", "value"), [(0, "voice_to_voice_ms", 712.0), (2, "outcome", "answered")])
def test_the_check_notices_a_wrong_report(tmp_path: Path, turn: int, field: str, value: object) -> None:
    report = make_run(tmp_path)
    report["exchanges"][turn][field] = value
    done = check(tmp_path, report)
    assert done.returncode == 1
    assert done.stdout.count("<-- differs") == 1


def test_the_check_does_not_use_what_it_checks() -> None:
    assert not re.search(r"^\s*(import|from) voicectl", TOOL.read_text(encoding="utf-8"), re.MULTILINE)
