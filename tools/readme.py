"""Keeps the README's output true: runs the commands it shows and compares, or writes, what they print.

A block that begins with `$ voicectl ...` inside a fence marked `console` is run in the project's
folder, and the rest of the fence must be what it prints (stdout, then stderr).

    python tools/readme.py            # exit 1 and a diff when something differs
    python tools/readme.py --write    # put today's output in
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```console\n\$ (?P<command>voicectl [^\n]*)\n(?P<output>.*?)```", re.DOTALL)
COLUMNS = 100


def output_of(command: str) -> str:
    """What the command prints, as a person at a terminal without colour would see it."""
    words = shlex.split(command)
    env = {**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if words[1] == "bench":
            words += ["--quiet", "--out", f"{folder}/run"]
        done = subprocess.run(
            [sys.executable, "-m", "voicectl.cli.main", *words[1:]],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
    return "\n".join(line for line in lines if not CHANGES.match(line)) + "\n"


CHANGES = re.compile(r"^(peak memory|machine) |.* times real time$")
"""Lines that differ from machine to machine, which the README leaves out."""


def renewed(text: str) -> str:
    """The README with every block's output as it is today."""
    return BLOCK.sub(lambda found: f"```console\n$ {found['command']}\n{output_of(found['command'])}```", text)


def main() -> int:
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = renewed(old)
    if "--write" in sys.argv[1:]:
        path.write_text(new, encoding="utf-8")
        return 0
    diff = difflib.unified_diff(old.splitlines(), new.splitlines(), "README.md", "what the program prints", lineterm="")
    lines = list(diff)
    print("\n".join(lines) or "README.md is true")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
