"""The YAML of prices and of models that end, as people write it -> frozen values, or every problem with its place."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from voicectl.prices import Ending, PaidStage, Price, PriceTable
from voicectl.spec import SpecModel, Text, fault, load_yaml, validate

_NEEDS: dict[PaidStage, tuple[tuple[str, ...], ...]] = {
    "stt": (("minute",),),
    "llm": (("prompt", "completion"),),
    "tts": (("characters",), ("minute",)),
    "s2s": (("prompt", "completion", "audio_in", "audio_out"), ("minute",)),
}
"""What a stage is paid by: one of these sets of units, whole."""


def read_prices(path: Path) -> PriceTable:
    """Raises:
    SpecError: every problem of the file.
    """
    file = validate(_PricesFile, load_yaml(path, None))
    return PriceTable(tuple(entry.price(file.as_of) for entry in file.prices), frozenset(file.free), file.as_of)


def read_endings(path: Path) -> tuple[Ending, ...]:
    """Raises:
    SpecError: every problem of the file.
    """
    file = validate(_ModelsFile, load_yaml(path, None))
    return tuple(
        Ending(one.provider, one.stage, one.models, one.shutdown, one.source, one.replacement) for one in file.models
    )


def _date(value: object) -> object:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise fault(f"'{value}' is not a date", "Write it like 2026-11-21") from None


def _amount(value: object) -> object:
    """A number as it was written: 0.1 means a tenth, not the nearest fraction of two."""
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


Date = Annotated[date, BeforeValidator(_date)]
Amount = Annotated[Decimal, BeforeValidator(_amount), Field(ge=0, le=1_000_000)]
_Million = "Dollars for 1,000,000 "


class _PriceEntry(SpecModel):
    unknown_key_hint: ClassVar[str] = (
        "Known keys: provider, stage, models, as_of, source, prompt, cached, completion, audio_in, audio_cached, "
        "audio_out, characters, minute"
    )

    provider: Text = Field(description="As the spec spells it.")
    stage: PaidStage = Field(description="What it is used for.")
    models: tuple[Text, ...] = Field(min_length=1, description="Names; `*` stands for anything.")
    as_of: Date | None = Field(default=None, description="When it was looked up. Default: the file's.")
    source: Text = Field(default="your own prices", description="Where it stands.")
    prompt: Amount | None = Field(default=None, description=_Million + "tokens of text that go in.")
    cached: Amount | None = Field(default=None, description=_Million + "of these that the vendor had cached.")
    completion: Amount | None = Field(default=None, description=_Million + "tokens of text that come out.")
    audio_in: Amount | None = Field(default=None, description=_Million + "tokens of audio that go in.")
    audio_cached: Amount | None = Field(default=None, description=_Million + "of these that the vendor had cached.")
    audio_out: Amount | None = Field(default=None, description=_Million + "tokens of audio that come out.")
    characters: Amount | None = Field(default=None, description=_Million + "characters spoken.")
    minute: Amount | None = Field(default=None, description="Dollars for a minute of audio.")

    @model_validator(mode="after")
    def _whole(self) -> _PriceEntry:
        ways = _NEEDS[self.stage]
        if not any(all(getattr(self, unit) is not None for unit in way) for way in ways):
            wanted = ", or ".join(" and ".join(f"'{unit}'" for unit in way) for way in ways)
            raise fault(f"a price of {self.stage} needs {wanted}")
        return self

    def price(self, as_of: date) -> Price:
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        values["as_of"] = self.as_of or as_of
        return Price(**values)


class _PricesFile(SpecModel):
    version: Literal[1] = Field(default=1, description="Version of this format.")
    currency: Literal["USD"] = Field(default="USD", description="All amounts are in US dollars.")
    as_of: Date = Field(description="When the file was looked through last.")
    free: tuple[Text, ...] = Field(default=(), description="Providers that cost nothing.")
    prices: tuple[_PriceEntry, ...] = Field(min_length=1, description="What is charged.")


class _Ending(SpecModel):
    provider: Text
    stage: PaidStage
    models: tuple[Text, ...] = Field(min_length=1)
    shutdown: Date
    source: Text
    replacement: Text | None = None


class _ModelsFile(SpecModel):
    version: Literal[1] = 1
    as_of: Date
    models: tuple[_Ending, ...]
