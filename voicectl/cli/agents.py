"""`voicectl agents`: the agents of a file."""

from __future__ import annotations

from voicectl.cli import console
from voicectl.cli.options import AGENTS_FILE, FileOption, JsonOption


def agents(file: FileOption = AGENTS_FILE, json: JsonOption = False) -> None:
    """List the agents of agents.yaml.

    Example: voicectl agents --json
    """
    from voicectl.spec import summarize

    found = summarize(file, console.env())
    if json:
        console.out_json(
            [
                {
                    "name": agent.name,
                    "description": agent.description,
                    "language": agent.language,
                    "providers": agent.providers,
                    "thresholds": agent.thresholds,
                }
                for agent in found
            ]
        )
        return
    rows = [
        (agent.name, agent.language, console.providers_in_words(agent.providers), agent.description or "")
        for agent in found
    ]
    console.table(("agent", "lang", "providers", "description"), rows)
