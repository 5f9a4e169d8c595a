"""The arguments that several commands share, with one spelling, one help text, one completion.

Completion reads names straight from the files: it must answer before a finger is lifted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

AGENTS_FILE = Path("agents.yaml")


def _agents_file(context: typer.Context) -> Path:
    return Path(context.params.get("file") or AGENTS_FILE)


def _complete_agent(context: typer.Context, incomplete: str) -> list[str]:
    import yaml

    try:
        loaded: Any = yaml.safe_load(_agents_file(context).read_text(encoding="utf-8"))
        return [name for name in loaded["agents"] if name.startswith(incomplete)]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return []


def _complete_profile(context: typer.Context, incomplete: str) -> list[str]:
    folder = _agents_file(context).parent / "profiles"
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem.startswith(incomplete))


AgentArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="AGENT", help="Which agent (default: the first of the file).", autocompletion=_complete_agent
    ),
]
FileOption = Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The agents file.")]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="Run under this profile: a name in profiles/ or a path.",
        autocompletion=_complete_profile,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value, as line.rate=8000. Repeatable."),
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Your own prices, in YAML; they go before the list prices."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
