"""`voicectl schema`: JSON Schema of the files that people write, for their editors."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voicectl.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable


class Kind(StrEnum):
    agents = "agents"
    profile = "profile"
    caller = "caller"


def schema(
    kind: Annotated[Kind, typer.Argument(help="Which file it describes.")] = Kind.agents,
) -> None:
    """Print the JSON Schema of agents.yaml, a profile or a caller.

    Editors with a YAML language server complete and check as you type when
    the first line of the file is:
    # yaml-language-server: $schema=agents.schema.json

    Example: voicectl schema agents > agents.schema.json
    """
    from voicectl.bench.callers import CallerSpec
    from voicectl.providers import CATALOG
    from voicectl.spec import agents_schema, model_schema, profile_schema

    made: dict[Kind, Callable[[], dict[str, Any]]] = {
        Kind.agents: lambda: agents_schema(CATALOG),
        Kind.profile: lambda: profile_schema(CATALOG),
        Kind.caller: lambda: model_schema(CallerSpec, "voicectl caller"),
    }
    console.out_json(made[kind]())
