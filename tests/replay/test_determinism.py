"""The same recording gives the same trace, to the byte: now, again, and in any other process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from voicectl.replay.call import open_kept, replay
from voicectl.trace import event_line

ROOT = Path(__file__).resolve().parents[2]
IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from replay.test_determinism import trace_of
print(trace_of(Path(sys.argv[1])))
"""


def trace_of(folder: Path) -> str:
    return hashlib.sha256("".join(map(event_line, replay(open_kept(folder)).events)).encode()).hexdigest()


def test_a_call_of_the_virtual_clock_replays_to_itself(calls: list[Path]) -> None:
    for path in calls:
        kept = open_kept(path)
        now = replay(kept)
        assert [*map(event_line, now.events)] == [*map(event_line, kept.recording.events)]
        assert (now.left == kept.recording.left).all()
        assert (now.right == kept.recording.right).all()


def test_twenty_replays_are_equal_to_the_byte(calls: list[Path]) -> None:
    assert len({trace_of(calls[1]) for _ in range(20)}) == 1


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_so_are_those_of_another_process_with_another_hash_seed(calls: list[Path], seed: str) -> None:
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(calls[1])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == trace_of(calls[1])
