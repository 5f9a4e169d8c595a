"""The whole matrix of faults for an agent with fallbacks, and without beside it: the figures of `voicectl drill`.

    python benchmarks/drill.py [--profile cloud-survives] [--jobs 4] [--out DIR]

13 faults x 3 stages x 3 moments, each a call over real sockets with the vendors' SDKs in real time, made twice:
236 calls with those in which nothing goes wrong, of some 20 s each. An agent that is asked to wait for
answers that do not come waits 5 s. Prints the table and the two lines that sum it up, and leaves
`drill.md`, `drill.json` and every recording in `--out`. Exit code as of `voicectl drill`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="coffee")
    parser.add_argument("--profile", default="cloud-survives")
    parser.add_argument("--jobs", type=int, default=4, help="calls at once: about a twelfth of a core each")
    parser.add_argument("--out", type=Path, help="default: below runs/")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "voicectl", "drill", asked.agent, "--profile", asked.profile]
    command += ["--no-fallback-too", "--set", "turn.no_answer_ms=5000", "--jobs", str(asked.jobs)]
    command += ["--out", str(asked.out)] if asked.out else []
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
