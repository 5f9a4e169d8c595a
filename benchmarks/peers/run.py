"""voicectl beside Pipecat and LiveKit Agents: the same audio, the same stand-in vendors, the same clock.

    python benchmarks/peers/run.py [--steps single barge] [--reps 3] [--turns 12] [--frameworks voicectl]

Each framework runs with its own Deepgram, OpenAI and Cartesia clients in an environment of its own; what a
listener hears is compared with what the vendors noted. The harness (mock vendors, feeder, analysis, tables)
is taken as it is from ../shared/peers or --harness; its README says what is measured. Added is our adapter.
Everything made goes to a work folder, ~/.cache/voicectl/peers or --folder: environments, stimulus, results.
A result that is there already is not measured again; --out names a new set.

Needs Linux (taskset), and espeak-ng and sox for the stimulus. As root the runs get a priority that keeps
other programs out of the numbers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FRAMEWORKS = ("pipecat", "livekit", "voicectl")
STEPS = ("single", "barge", "late", "short", "load")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voicectl" / "peers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=["single", "barge"])
    parser.add_argument("--reps", type=int, default=3, help="how often each step is repeated")
    parser.add_argument("--turns", type=int, default=12, help="turns of a call in the step `single`")
    parser.add_argument("--sessions", nargs="+", type=int, default=[4, 8, 16, 32, 48], help="calls at once in `load`")
    parser.add_argument("--mode", choices=("default", "equal", "min"), default="default", help="of the step `load`")
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--out", default="results", help="name of the set of results")
    parser.add_argument("--folder", type=Path, default=CACHE, help="work folder")
    parser.add_argument("--harness", type=Path, default=ROOT.parent / "shared" / "peers")
    options = parser.parse_args()

    peers = harness(options.harness, options.folder)
    for name in ("mock", *options.frameworks):
        environment(name, options.folder, peers)
    stimulus(peers)
    out = options.folder / options.out
    chosen = {
        "FW": " ".join(options.frameworks),
        "REPS": " ".join(str(rep) for rep in range(1, options.reps + 1)),
        "T": str(options.turns),
        "N": " ".join(map(str, options.sessions)),
        "M": options.mode,
    }
    print(f"measuring {', '.join(options.steps)}; progress and failures: {out / 'log'}", flush=True)
    call(["bash", "matrix.sh", str(out), *options.steps], peers, env={**os.environ, **chosen})
    if not any(out.glob("*.json")):
        sys.exit(f"nothing was measured. See {out / 'log'}")
    call([sys.executable, "table.py", str(out)], peers)


def harness(source: Path, folder: Path) -> Path:
    """The harness in the work folder, with our adapter."""
    if not (source / "matrix.sh").exists():
        sys.exit(f"there is no harness in {source}. Name its folder with --harness")
    peers = folder / "peers"
    shutil.copytree(source, peers, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "results.txt"))
    shutil.copy2(HERE / "voicectl_.py", peers / "adapters")
    return peers


def environment(name: str, folder: Path, peers: Path) -> None:
    """The environment of one framework, pinned; ours is this checkout."""
    venv = folder / f"venv-{name}"
    if (venv / ".ready").exists():
        return
    print(f"setting up {venv}", flush=True)
    call([sys.executable, "-m", "venv", str(venv)], folder)
    wanted = ["--requirement", str(peers / f"requirements-{name}.txt")]
    if name == "voicectl":
        wanted = ["--constraint", str(ROOT / "constraints.txt"), "--editable", f"{ROOT}[local]"]
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call([*pip, *wanted], folder)
    (venv / ".ready").touch()


def stimulus(peers: Path) -> None:
    if (peers / "stimulus.wav").exists():
        return
    for tool in ("espeak-ng", "sox"):
        if not shutil.which(tool):
            sys.exit(f"the stimulus needs {tool}. On Debian: apt install espeak-ng sox")
    call([sys.executable, "stimulus.py", "--turns", "20"], peers)


def call(words: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(words, cwd=folder, env=env, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words[:3])} ... failed ({done.returncode})")


if __name__ == "__main__":
    main()
