"""`voicectl init`: a new project that runs at once, with no key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voicectl.cli import console
from voicectl.errors import UsageError

AGENTS = """\
# yaml-language-server: $schema=.schema/agents.json
# Your agents. Everything runs on this machine with no key: see `voicectl providers` for others.
# Check your changes with `voicectl check`.
version: 1

agents:
  receptionist:
    description: Answers the phone at a hair salon.
    language: en
    instructions: |
      You are the receptionist of the Mill Street Hair Salon and answer the phone. You are friendly and brief.
      We are open Tuesday to Saturday from nine to six. A haircut takes half an hour and costs thirty dollars.
      Answer in one or two short spoken sentences, no lists, no markdown. For example:
      Caller: I need a haircut. You: Of course. Which day suits you?
      Caller: Friday at ten, please. You: You are booked for Friday at ten. Anything else?
      Caller: Are you open on Sunday? You: Sorry, we are closed on Sunday.
    greeting: "Mill Street Hair Salon, how can I help you?"
    vad: {provider: local}
    stt: {provider: local, model: moonshine-tiny-en}
    llm: {provider: local, model: qwen2.5-coder-0.5b, options: {max_tokens: 80, temperature: 0}}
    tts: {provider: local, model: piper-joe-en}
    thresholds:
      - p50(voice_to_voice_ms) < 900
      - rate(no_answer) < 5%
"""

PROFILE = """\
# yaml-language-server: $schema=../.schema/profile.json
description: A language model a fifth of the size. Faster and lighter; it invents facts.
llm: {provider: local, model: smollm2-135m}
"""

CI = """\
# Every push: is the spec right, and do the recorded calls still go as they went? No key, no model, seconds.
name: calls
on: [push, pull_request]
jobs:
  calls:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.11"}
      - run: pip install voicectl
      - run: voicectl check
      - run: if [ -d recordings ]; then voicectl replay recordings/ --file agents.yaml; fi
"""

README = """\
# A voice agent

    voicectl check           is agents.yaml right?
    voicectl doctor          microphone, speaker, models: what is missing, and what to do
    voicectl run             talk to the agent; q or Ctrl-C hangs up

Every call is kept in `runs/`:

    voicectl report last     how long the caller waited, and for what
    voicectl replay last     the call again, with today's agent

Make a test of a call that went well, and your CI (`.github/workflows/calls.yml`) replays it with every push:

    cp -r runs/NAME/0001-microphone recordings/first-call
    voicectl replay recordings/first-call --accept

Under another profile: `voicectl run --profile light`.
"""

IGNORE = "runs/\n"

FILES = {
    "agents.yaml": AGENTS,
    "profiles/light.yaml": PROFILE,
    "README.md": README,
    ".gitignore": IGNORE,
    ".github/workflows/calls.yml": CI,
}


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new project's folder; it may exist.")] = Path(),
) -> None:
    """Begin a new project: an agent that runs at once, a profile, a CI file.

    Nothing that is there already is touched.

    Example: voicectl init salon
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise UsageError(
            f"there is already {', '.join(there)}", where=str(folder), hint="Choose an empty folder, or move them away"
        )
    try:
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot be written: {why}", where=str(error.filename or folder)) from error
    for name in FILES:
        console.out(f"wrote {folder / name}")
    console.out()
    console.out("Now:")
    if folder != Path():
        console.out(f"  cd {folder}")
    console.out("  voicectl run      talk to it (fetches the models the first time: 620 MB)")
    console.out("  voicectl doctor   when something is not as it should be")
