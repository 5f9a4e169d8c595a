"""What vendors charge and which models they end: two dated tables, as YAML in the package.

What lives here: the tables (`prices.yaml`, `models.yaml`, people's own prices) and looking a model up in
them. What must not: arithmetic on money (`voicectl.analysis.cost`), today's date, the network.

Amounts are `Decimal`: cents that are added up must not drift.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal

DEFAULT_MODEL = "default"
"""How the tables call the model of a provider to which the spec names none."""

PaidStage = Literal["stt", "llm", "tts", "s2s"]

_TABLE = Path(__file__).with_name("prices.yaml")
_MODELS = Path(__file__).with_name("models.yaml")
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|20\d{6})$")


# Prices ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Price:
    """What some models of a provider cost, in dollars: tokens and characters for a million, audio for a
    minute. None: not paid by this."""

    provider: str
    stage: PaidStage
    models: tuple[str, ...]
    as_of: date
    source: str
    prompt: Decimal | None = None
    cached: Decimal | None = None
    completion: Decimal | None = None
    audio_in: Decimal | None = None
    audio_cached: Decimal | None = None
    audio_out: Decimal | None = None
    characters: Decimal | None = None
    minute: Decimal | None = None


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All prices, those that win first.

    Args:
        free: providers that cost nothing, unless an entry names them.
        as_of: when the table was looked through last.
    """

    prices: tuple[Price, ...]
    free: frozenset[str]
    as_of: date

    def find(self, stage: str, provider: str, model: str | None) -> Price | None:
        """The price of a model; None: nobody has told us."""
        mine = [price for price in self.prices if (price.stage, price.provider) == (stage, provider)]
        return next((price for name in _names(model) for price in mine if _is_one_of(name, price.models)), None)

    def bills(self, stage: str, provider: str) -> bool:
        """Whether using this provider is to be noted: somebody is paid for it, or is said to be."""
        return provider not in self.free or any(
            (price.stage, price.provider) == (stage, provider) for price in self.prices
        )

    def under(self, own: PriceTable) -> PriceTable:
        """This table with another one's entries before its own."""
        return PriceTable(own.prices + self.prices, own.free | self.free, max(self.as_of, own.as_of))


NO_PRICES = PriceTable((), frozenset(), date.min)


@cache
def list_prices() -> PriceTable:
    """The table of the package."""
    from voicectl.prices.files import read_prices

    return read_prices(_TABLE)


def load_prices(own: Path | None = None) -> PriceTable:
    """The table of the package, under the prices of a file of one's own.

    Raises:
        SpecError: every problem of that file.
    """
    from voicectl.prices.files import read_prices

    return list_prices() if own is None else list_prices().under(read_prices(own))


# Models that end ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """Models that are shut down on a day, and what their vendor says to use instead."""

    provider: str
    stage: PaidStage
    models: tuple[str, ...]
    shutdown: date
    source: str
    replacement: str | None = None


@cache
def endings() -> tuple[Ending, ...]:
    """The table of the package."""
    from voicectl.prices.files import read_endings

    return read_endings(_MODELS)


def find_ending(model: str, provider: str | None = None, table: Iterable[Ending] | None = None) -> Ending | None:
    """When a model ends; None: as far as is known it does not. Without a provider any one's model is meant."""
    known = [one for one in (endings() if table is None else table) if provider in (None, one.provider)]
    return next((one for name in _names(model) for one in known if _is_one_of(name, one.models)), None)


# Names -------------------------------------------------------------------------------------------


def _names(model: str | None) -> tuple[str, ...]:
    """As the table may have it: itself, or that of which it is a dated snapshot."""
    if model is None:
        return (DEFAULT_MODEL,)
    plain = _SNAPSHOT.sub("", model)
    return (model,) if plain == model else (model, plain)


def _is_one_of(name: str, models: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in models)
