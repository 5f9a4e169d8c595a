"""`voicectl providers`: who can do each stage, and what that still needs on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from voicectl.cli import console
from voicectl.cli.options import JsonOption

if TYPE_CHECKING:
    from voicectl.providers import StageName


@dataclass(frozen=True, slots=True)
class _Row:
    stage: str
    provider: str
    models: list[str] | None
    missing_packages: list[str]
    models_not_pulled: list[str]
    missing_key: str | None


def providers(json: JsonOption = False) -> None:
    """List who can do each stage, and what is missing here.

    Example: voicectl providers
    """
    from voicectl.providers import PROVIDERS

    rows = [_row(stage, name) for stage, names in PROVIDERS.items() for name in names]
    if json:
        console.out_json([asdict(row) for row in rows])
        return
    shown = [(row.stage, row.provider, _models(row), _state(row)) for row in rows]
    console.table(("stage", "provider", "models", "state"), shown)
    if any(row.models_not_pulled for row in rows):
        console.out()
        console.out("Models are pulled when a call needs them, or now: voicectl models pull")


def _row(stage: StageName, name: str) -> _Row:
    from voicectl.providers import CATALOG, KEYS
    from voicectl.weights import WEIGHTS, open_store

    models = CATALOG.models(stage, name)
    store, known = open_store(console.env()), {weights.name for weights in WEIGHTS}
    return _Row(
        stage=stage,
        provider=name,
        models=None if models is None else list(models),
        missing_packages=list(CATALOG.missing_packages(stage, name)),
        models_not_pulled=[each for each in models or () if each in known and store.status(each).state != "pulled"],
        missing_key=KEYS[name] if name in KEYS and not console.env().get(KEYS[name]) else None,
    )


def _models(row: _Row) -> str:
    return "any" if row.models is None else ", ".join(row.models) or "-"


def _state(row: _Row) -> str:
    if row.missing_packages:
        return f"needs {', '.join(row.missing_packages)}: pip install 'voicectl[local]'"
    if row.missing_key:
        return f"needs a key: set {row.missing_key}"
    if row.models_not_pulled:
        everything = len(row.models_not_pulled) == len(row.models or ())
        return "not pulled" if everything else f"ready ({', '.join(row.models_not_pulled)} not pulled)"
    return "ready"
