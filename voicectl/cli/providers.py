"""`voicectl providers`: who can do each stage, and what that still needs on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from voicectl.cli import console
from voicectl.cli.options import JsonOption
from voicectl.errors import EXIT_OK, EXIT_PROVIDER, ProviderError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voicectl.clock import Clock
    from voicectl.keys import FindKey
    from voicectl.providers import StageName

LIVE_S = 10.0
"""How long a vendor may take to accept us."""


@dataclass(frozen=True, slots=True)
class _Row:
    stage: StageName
    provider: str
    models: list[str] | None
    missing_packages: list[str]
    extra: str | None
    models_not_pulled: list[str]
    missing_key: str | None
    live: str | None = None
    """What a live request came to: "ok" or why not; None: there was none."""


def providers(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only these providers; one that lacks something fails.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="One line for each, saying what it lacks.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="And let each vendor whose key is here accept it: one tiny request.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """List who can do each stage, and what is missing here.

    Without --live nobody is asked anything.

    Example: voicectl providers deepgram openai --check --live
    """
    from voicectl.keys import keys_of
    from voicectl.providers import PROVIDERS
    from voicectl.spec import did_you_mean

    every = list(dict.fromkeys(name for of_stage in PROVIDERS.values() for name in of_stage))
    for name in names or []:
        if name not in every:
            raise UsageError(f"unknown provider '{name}'", hint=did_you_mean(name, every, known_as="Providers"))
    find_key = keys_of(console.env())
    rows = [
        _row(stage, name, find_key)
        for stage, of_stage in PROVIDERS.items()
        for name in of_stage
        if not names or name in names
    ]
    if live:
        rows = _asked(rows, find_key)
    if json:
        console.out_json([asdict(row) for row in rows])
    elif check or live:
        for row in rows:
            _tell(row)
    else:
        _list(rows)
    failed = any(row.live not in (None, "ok") or (names and _lacks(row)) for row in rows)
    return EXIT_PROVIDER if failed else EXIT_OK


def _list(rows: Sequence[_Row]) -> None:
    shown = [(row.stage, row.provider, _models(row), _state(row)) for row in rows]
    console.table(("stage", "provider", "models", "state"), shown)
    if any(row.models_not_pulled for row in rows):
        console.out()
        console.out("Models are pulled when a call needs them, or now: voicectl models pull")


def _tell(row: _Row) -> None:
    """One line: `ok  stt deepgram`, or what is missing and how to get it."""
    lacks = _lacks(row) or (row.live if row.live != "ok" else None)
    accepted = ": accepts us" if row.live == "ok" else ""
    word = console.styled("no", "red") if lacks else console.styled("ok", "green")
    console.out(f"{word}  {row.stage} {row.provider}{f': {lacks}' if lacks else accepted}")


def _lacks(row: _Row) -> str | None:
    if row.missing_packages:
        return f"needs {', '.join(row.missing_packages)}. Run: pip install 'voicectl[{row.extra}]'"
    if row.missing_key:
        return f"needs a key. Set {row.missing_key}, or: voicectl keys set {row.missing_key}"
    if row.models and len(row.models_not_pulled) == len(row.models):
        return f"needs weights. Run: voicectl models pull {' '.join(row.models_not_pulled)}"
    return None


def _row(stage: StageName, name: str, find_key: FindKey) -> _Row:
    from voicectl.providers import CATALOG, KEYS
    from voicectl.weights import WEIGHTS, open_store

    models = CATALOG.models(stage, name)
    store, known = open_store(console.env()), {weights.name for weights in WEIGHTS}
    return _Row(
        stage=stage,
        provider=name,
        models=None if models is None else list(models),
        missing_packages=list(CATALOG.missing_packages(stage, name)),
        extra=CATALOG.extra(stage, name),
        models_not_pulled=[each for each in models or () if each in known and store.status(each).state != "pulled"],
        missing_key=KEYS[name] if name in KEYS and not find_key(KEYS[name]) else None,
    )


def _models(row: _Row) -> str:
    return "any" if row.models is None else ", ".join(row.models) or "-"


def _state(row: _Row) -> str:
    if row.missing_packages:
        return f"needs {', '.join(row.missing_packages)}: pip install 'voicectl[{row.extra}]'"
    if row.missing_key:
        return f"needs a key: set {row.missing_key}"
    if row.models_not_pulled:
        everything = len(row.models_not_pulled) == len(row.models or ())
        return "not pulled" if everything else f"ready ({', '.join(row.models_not_pulled)} not pulled)"
    return "ready"


# Live ------------------------------------------------------------------------------------------


def _asked(rows: Sequence[_Row], find_key: FindKey) -> list[_Row]:
    """Let the vendors whose key is here accept us, one after the other."""
    from dataclasses import replace

    from voicectl.clock import run_on
    from voicectl.providers import KEYS

    async def main(clock: Clock) -> list[_Row]:
        return [
            replace(row, live=await _accepted(row, clock, find_key))
            if row.provider in KEYS and not _lacks(row)
            else row
            for row in rows
        ]

    return run_on("wall", main)


async def _accepted(row: _Row, clock: Clock, find_key: FindKey) -> str:
    """Start it, as a call would, and close it again."""
    import asyncio

    from pydantic import ValidationError

    from voicectl.prices import DEFAULT_MODEL, find_ending, list_prices
    from voicectl.providers import CATALOG, KEYS

    known = [
        model
        for price in list_prices().prices
        if (price.stage, price.provider) == (row.stage, row.provider)
        for model in price.models
        if "*" not in model and model != DEFAULT_MODEL
    ]
    lasting = [model for model in known if not find_ending(model, row.provider)]
    try:
        options = CATALOG.options(row.stage, row.provider)()
    except ValidationError:
        return "cannot be tried without options of its own. Make a call with it"
    key = find_key(KEYS[row.provider])
    provider = CATALOG.load(row.stage, row.provider)(options, next(iter(lasting or known), None), clock, api_key=key)
    try:
        async with asyncio.timeout(LIVE_S):
            await provider.start(_unseen)
    except ProviderError as error:
        return f"{error.message}. {error.hint}" if error.hint else error.message
    except TimeoutError:
        return f"does not accept us within {LIVE_S:.0f} s"
    finally:
        await provider.aclose()
    return "ok"


def _unseen(text: str) -> None:
    """What it is doing: one line is said of it in the end."""
