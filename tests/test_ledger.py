"""What was spent today: whole, whoever writes at once and whoever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from voicectl.errors import StorageError
from voicectl.ledger import Ledger, state_dir

DAY = date(2026, 11, 21)
FIVE = Decimal(5)


def cents(amount: str) -> Decimal:
    return Decimal(amount)


def test_what_is_reserved_counts_until_it_is_settled(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    name = ledger.reserve("coffee", DAY, cents("0.50"), FIVE)
    assert name and ledger.spent("coffee", DAY) == cents("0.50")
    ledger.settle(name, "coffee", DAY, cents("0.1234"))
    assert ledger.spent("coffee", DAY) == cents("0.1234")


def test_a_day_never_comes_above_its_cap(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.reserve("coffee", DAY, cents("4.99"), FIVE)
    assert ledger.reserve("coffee", DAY, cents("0.02"), FIVE) is None
    assert ledger.reserve("coffee", DAY, cents("0.01"), FIVE)


def test_agents_and_days_are_apart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.reserve("coffee", DAY, FIVE, FIVE)
    assert ledger.reserve("clinic", DAY, FIVE, FIVE)
    assert ledger.reserve("coffee", date(2026, 11, 22), FIVE, FIVE)
    assert ledger.spent("coffee", DAY) == FIVE


def test_a_line_that_was_cut_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.reserve("coffee", DAY, cents("0.50"), FIVE)
    file = tmp_path / "spend" / "2026-11-21.jsonl"
    file.write_bytes(file.read_bytes() + b'{"id":"1-1-a","agent":"coffee","res')
    assert ledger.spent("coffee", DAY) == cents("0.50")
    ledger.reserve("coffee", DAY, cents("0.25"), FIVE)
    assert ledger.spent("coffee", DAY) == cents("0.75")


ONE_CENT_AT_A_TIME = """
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from voicectl.ledger import Ledger
ledger, done = Ledger(Path(sys.argv[1])), 0
print("ready", flush=True)
sys.stdin.readline()
while name := ledger.reserve("coffee", date(2026, 11, 21), Decimal("0.01"), Decimal("0.60")):
    ledger.settle(name, "coffee", date(2026, 11, 21), Decimal("0.01"))
    done += 1
print(done)
"""


@pytest.mark.wall
def test_processes_at_once_spend_the_cap_and_not_a_cent_more(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_CENT_AT_A_TIME, str(tmp_path)]
    several = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for one in several:
        assert one.stdout and one.stdout.readline() == "ready\n"
    done = [int(one.communicate("go\n", timeout=60)[0]) for one in several]
    assert sum(done) == 60
    assert Ledger(tmp_path).spent("coffee", DAY) == cents("0.60")
    lines = (tmp_path / "spend" / "2026-11-21.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 120, "every line is whole"


@pytest.mark.wall
def test_a_killed_process_frees_the_ledger_and_its_call_stays_reserved(tmp_path: Path) -> None:
    killed = """
import os, signal, sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from voicectl.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.reserve("coffee", date(2026, 11, 21), Decimal("0.50"), Decimal(5))
with ledger._file(date(2026, 11, 21)):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert Ledger(tmp_path).spent("coffee", DAY) == cents("0.50")


def test_a_state_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written down: not a directory"):
        Ledger(tmp_path / "file").reserve("coffee", DAY, FIVE, FIVE)


def test_the_state_folder_is_where_the_platform_has_it() -> None:
    assert state_dir({"HOME": "/h"}, "linux") == Path("/h/.local/state/voicectl")
    assert state_dir({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "linux") == Path("/s/voicectl")
    assert state_dir({"HOME": "/h"}, "darwin") == Path("/h/Library/Application Support/voicectl")
    assert state_dir({"HOME": "/h", "VOICECTL_STATE": "/mine"}, "linux") == Path("/mine")
