"""`voicectl models`: the weights of the local models, in the user's cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.errors import EXIT_OK, EXIT_PROVIDER, EXIT_USAGE

if TYPE_CHECKING:
    from voicectl.weights import FileCheck, Store

models_app = typer.Typer(
    name="models", no_args_is_help=True, rich_markup_mode=None, help="List, pull, verify and remove model weights."
)


def _complete_model(incomplete: str) -> list[str]:
    from voicectl.weights import WEIGHTS

    return [weights.name for weights in WEIGHTS if weights.name.startswith(incomplete)]


ModelsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="MODEL", help="Names of models.", autocompletion=_complete_model)
]


def _store() -> Store:
    from voicectl.weights import open_store

    return open_store(console.env())


def _names(given: Sequence[str] | None, pulled_only: bool) -> list[str]:
    """The names asked for; without any, all (or all that are here)."""
    from voicectl.weights import WEIGHTS, find

    if given:
        return [find(name).name for name in given]
    store = _store()
    return [each.name for each in WEIGHTS if not pulled_only or store.status(each.name).state != "missing"]


@models_app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List the models, whether they are here, their size and licence.

    Example: voicectl models list
    """
    from voicectl.weights import WEIGHTS

    store = _store()
    states = {weights.name: store.status(weights.name).state for weights in WEIGHTS}
    words = {"missing": "not pulled"}
    if json:
        console.out_json(
            [
                {
                    "name": weights.name,
                    "stage": weights.stage,
                    "bytes": weights.bytes,
                    "licence": weights.licence,
                    "publisher": weights.publisher,
                    "sha256_from": weights.sha256_from,
                    "state": states[weights.name],
                    "files": [
                        {"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in weights.files
                    ],
                }
                for weights in WEIGHTS
            ]
        )
        return
    rows = [
        (
            weights.name,
            weights.stage,
            console.size(weights.bytes),
            weights.licence,
            words.get(states[weights.name], states[weights.name]),
        )
        for weights in WEIGHTS
    ]
    console.table(("model", "stage", "size", "licence", "state"), rows)
    console.out()
    console.out(f"cache: {store.root}")


@models_app.command("pull")
def pull(models: ModelsArgument = None) -> None:
    """Fetch models into the cache and check them (default: all).

    What is here already stays; an interrupted pull goes on where it was.

    Example: voicectl models pull moonshine-tiny-en
    """
    from voicectl.weights import find

    names = _names(models, pulled_only=False)
    console.err(f"pulling {', '.join(names)} ({console.size(sum(find(name).bytes for name in names))})")
    line = console.ProgressLine()
    try:
        _store().pull(names, line.bytes)
    finally:
        line.done()
    for name in names:
        console.out(f"{console.styled('ok', 'green')} {name}")


@models_app.command("verify")
def verify(models: ModelsArgument = None, json: JsonOption = False) -> int:
    """Compute every hash again (default: of all models here).

    Example: voicectl models verify
    """
    store, line = _store(), console.ProgressLine()
    checks: dict[str, tuple[FileCheck, ...]] = {}
    for name in _names(models, pulled_only=True):
        line(f"checking {name}")
        checks[name] = store.verify(name)
    line.done()
    if json:
        console.out_json(
            {name: [{"file": each.file, "state": each.state} for each in found] for name, found in checks.items()}
        )
    else:
        for name, found in checks.items():
            _say(name, found)
        if not checks:
            console.out("no models are here yet. Run: voicectl models pull")
    sound = all(each.state == "ok" for found in checks.values() for each in found)
    return EXIT_OK if sound else EXIT_PROVIDER


def _say(name: str, checks: tuple[FileCheck, ...]) -> None:
    wrong = [f"{each.file} is {each.state}" for each in checks if each.state != "ok"]
    if wrong:
        console.err(f"{name}: {', '.join(wrong)}. Run: voicectl models pull {name}")
    else:
        console.out(f"{console.styled('ok', 'green')} {name}")


@models_app.command("rm")
def remove(
    models: ModelsArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All models.")] = False,
) -> int:
    """Remove models from the cache.

    Example: voicectl models rm smollm2-135m
    """
    if bool(models) == everything:
        console.err("voicectl: error: name the models to remove, or --all. Try: voicectl models rm --help")
        return EXIT_USAGE
    store = _store()
    for name in _names(models, pulled_only=True):
        freed = store.remove(name)
        console.out(f"removed {name} ({console.size(freed)})")
    return EXIT_OK
