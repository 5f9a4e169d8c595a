"""`voicectl keys`: keys in the system's keyring. They are never shown."""

from __future__ import annotations

from typing import Annotated

import typer

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.errors import EXIT_OK, EXIT_USAGE, UsageError

keys_app = typer.Typer(
    name="keys", no_args_is_help=True, rich_markup_mode=None, help="Keep keys in the system's keyring."
)


def _complete(incomplete: str) -> list[str]:
    from voicectl.providers import KEYS

    return sorted({name for name in KEYS.values() if name.startswith(incomplete)})


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The variable, or the provider: OPENAI_API_KEY.", autocompletion=_complete)
]


@keys_app.command("list")
def list_keys(json: JsonOption = False) -> None:
    """List which keys are here, and where.

    Example: voicectl keys list
    """
    from voicectl.keys import place_of
    from voicectl.providers import KEYS

    rows = [(provider, variable, place_of(variable, console.env())) for provider, variable in KEYS.items()]
    if json:
        console.out_json([{"provider": one, "variable": variable, "in": place} for one, variable, place in rows])
        return
    console.table(("provider", "variable", "key"), [(*names, place or "missing") for *names, place in rows])


@keys_app.command("set")
def set_key(name: NameArgument) -> int:
    """Ask for a key, or read it from stdin, and keep it.

    The environment goes before the keyring.

    Example: voicectl keys set OPENAI_API_KEY
    """
    from voicectl.keys import set_key

    variable = _variable(name)
    key = console.secret(f"{variable}: ").strip()
    if not key:
        raise UsageError("no key was given", where=variable)
    set_key(variable, key)
    console.err(f"{variable} is in the keyring")
    return EXIT_OK


@keys_app.command("rm")
def remove_key(name: NameArgument) -> int:
    """Take a key out of the keyring.

    Example: voicectl keys rm OPENAI_API_KEY
    """
    from voicectl.keys import remove_key

    variable = _variable(name)
    if not remove_key(variable):
        console.err(f"{variable} is not in the keyring")
        return EXIT_USAGE
    return EXIT_OK


def _variable(name: str) -> str:
    from voicectl.providers import KEYS
    from voicectl.spec import did_you_mean

    variable = KEYS.get(name, name)
    if variable not in KEYS.values():
        raise UsageError(
            f"no provider has a key of the name '{name}'",
            hint=did_you_mean(name, sorted(set(KEYS.values())), known_as="Keys"),
        )
    return variable
