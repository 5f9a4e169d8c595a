"""A recording that breaks off opens, says where, and replays up to there. Nothing before is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from voicectl.recording import open_recording
from voicectl.replay.check import Options, check
from voicectl.replay.show import headline
from voicectl.trace import read_trace

ROOT = Path(__file__).resolve().parents[2]


def cut(folder: Path, share: float) -> None:
    """As a kill leaves it: every file ends a little before or after that share of the call."""
    whole = read_trace(folder / "trace.jsonl").events
    until = share * whole[-1].at
    (folder / "seal.json").unlink()
    for name in ("trace.jsonl", "streams.jsonl"):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        kept = [lines[0]] + [line for line in lines[1:] if _at(line) <= until]
        (folder / name).write_bytes(b"".join(kept) + (lines[len(kept)][:9] if len(kept) < len(lines) else b""))
    sound = (folder / "call.wav").read_bytes()
    samples = int(until / 0.2) * 3200
    (folder / "call.wav").write_bytes(sound[: 44 + samples * 4])


def _at(line: bytes) -> float:
    value = json.loads(line)
    return float(value.get("noted_at", value["at"]))


@pytest.mark.parametrize("seed", range(8))
def test_a_call_cut_anywhere_replays_up_to_its_cut(hasty: Path, seed: int) -> None:
    before = read_trace(hasty / "trace.jsonl").events
    cut(hasty, random.Random(seed).uniform(0.02, 0.98))
    kept = open_recording(hasty)
    assert kept.cut is not None
    assert not kept.sealed
    assert kept.events == before[: len(kept.events)]
    outcome = check(hasty, Options())
    assert outcome.state == "ok", outcome
    assert "cut" in headline(outcome)


def test_a_changed_rule_is_noticed_before_the_cut(order: Path) -> None:
    cut(order, 0.9)
    outcome = check(order, Options(overrides=("turn.endpointing.silence_ms=700",)))
    assert outcome.state == "differs"


def test_a_call_that_only_lacks_its_seal_is_whole_but_for_that(order: Path) -> None:
    events = read_trace(order / "trace.jsonl").events
    (order / "seal.json").unlink()
    kept = open_recording(order)
    assert (kept.sealed, kept.cut, kept.events) == (False, None, events)
    assert check(order, Options()).state == "ok"


def test_nothing_that_was_kept_is_lost_when_the_writer_is_killed() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "kill_test.py"), "--times", "15", "--seed", "5"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(tool, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "every folder opened" in done.stdout


def test_what_was_accepted_of_a_cut_call_is_held_to_the_byte(hasty: Path) -> None:
    cut(hasty, 0.5)
    acceptance = check(hasty, Options(accept=True)).acceptance
    assert acceptance and acceptance.expect and acceptance.trace
    (hasty / "expect.yaml").write_text(acceptance.expect, encoding="utf-8")
    (hasty / "expect.jsonl").write_text(acceptance.trace, encoding="utf-8")
    outcome = check(hasty, Options())
    assert (outcome.state, outcome.against) == ("ok", "expect.jsonl")
