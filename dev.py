"""The words of this project, for people, `make` and CI: needs Python 3.11 and nothing else.

python3 dev.py bench     the example agent answers the callers in recordings/
python3 dev.py test      everything CI runs
python3 dev.py setup     the environment in .venv      check    lint, types, layers
python3 dev.py schema    the JSON schemas for editors  readme   what the README shows
python3 dev.py lock      pin what setup installs
python3 dev.py bench-peers [OPTIONS]   voicectl beside Pipecat and LiveKit Agents (--help)
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BIN = ROOT / ".venv" / ("Scripts" if os.name == "nt" else "bin")
READY = ROOT / ".venv" / ".ready"
MODELS = ("moonshine-tiny-en", "qwen2.5-coder-0.5b", "smollm2-135m", "piper-joe-en", "smart-turn-v3.2")


def run(*words, **options):
    """Run a command of the environment; stop here with its exit code when it fails."""
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=ROOT, check=False, **options)
    if done.returncode:
        sys.exit(done.returncode)
    return done


def setup():
    """Make .venv anew when what it is made of has changed."""
    if sys.version_info < (3, 11):  # noqa: UP036  said in one line, where an older Python reads this file
        sys.exit(f"voicectl needs Python 3.11 or later, this is {sys.version.split()[0]}. Try: python3.11 dev.py setup")
    made_of = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    if READY.exists() and all(file.stat().st_mtime <= READY.stat().st_mtime for file in made_of):
        return
    print("setting up .venv, about a minute", flush=True)
    if not (BIN / "python").exists():
        made = subprocess.run(
            [sys.executable, "-m", "venv", ROOT / ".venv"], check=False, capture_output=True, text=True
        )
        if made.returncode:
            sys.exit(f"{made.stdout}{made.stderr}The venv module is incomplete. On Debian: apt install python3-venv")
    pip = ["-m", "pip", "install", "--disable-pip-version-check", "--constraint", "constraints.txt"]
    log = ROOT / ".venv" / "pip.log"
    with log.open("w") as file:
        wanted = [str(BIN / "python"), *pip, "--editable", ".[local,cloud,standin,echo,dev]"]
        done = subprocess.run(wanted, cwd=ROOT, check=False, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        said = [line for line in log.read_text(errors="replace").splitlines() if "ERROR: " in line]
        why = said[-1].partition("ERROR: ")[2] if said else "pip failed"
        sys.exit(f"cannot install the packages: {why} (all of it: {log}). Is the package index in reach?")
    READY.touch()


def bench():
    setup()
    run("voicectl", "bench", "coffee")


def bench_peers(*options):
    done = subprocess.run([sys.executable, "benchmarks/peers/run.py", *options], cwd=ROOT, check=False)
    sys.exit(done.returncode)


def check():
    setup()
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")
    run("lint-imports", "--no-cache")
    run("pyright", env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


def test():
    check()
    run("voicectl", "models", "pull", *MODELS)
    run("python", "-m", "pytest", "-n", "2")


def schema():
    setup()
    for kind in ("agents", "profile", "caller"):
        text = run("voicectl", "schema", kind, stdout=subprocess.PIPE).stdout
        (ROOT / ".schema" / f"{kind}.json").write_bytes(text)


def readme():
    setup()
    run("python", "tools/readme.py", "--write")


def lock():
    setup()
    listed = run("python", "-m", "pip", "freeze", "--exclude-editable", stdout=subprocess.PIPE, text=True).stdout
    pins = sorted(line for line in listed.splitlines() if not line.startswith("-"))
    (ROOT / "constraints.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")


WORDS = {word.__name__: word for word in (setup, bench, test, check, schema, readme, lock)}
WORDS["bench-peers"] = bench_peers

if __name__ == "__main__":
    word, options = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if word not in WORDS or (options and word != "bench-peers"):
        sys.exit(__doc__)
    WORDS[word](*options)
