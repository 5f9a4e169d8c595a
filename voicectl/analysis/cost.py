"""Money: what a call used (`ProviderUsed`) times what it costs (`voicectl.prices`). Pure.

First `tally`: events -> quantities for each stage, provider and model, without any price, so that an
old trace can be priced again. Then `priced`: quantities x table -> dollars, exact to the last digit.

How a request is paid:

- `minute` x audio seconds / 60; `characters` x characters / 1,000,000; tokens likewise. A voice with
  both prices is paid by the character.
- cached tokens are part of the prompt, audio tokens part of those that go in or out. What a vendor
  had cached is taken to be text first, and costs as much as the rest where the table has no price
  for it: a guess must not make a call cheap.
- a model without a price is told by name, and makes every sum it is part of "at least".

Wasted is what nobody heard: requests that failed, were cut short or lost to another one, and all
that was spent on replies that were dropped before any of them was heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal

from voicectl.events import Event, LlmCancelled, LlmFinished, ProviderUsed, ReplyCancelled, TtsFinished
from voicectl.prices import Price, PriceTable

_MILLION = Decimal(1_000_000)
_MINUTE_US = Decimal(60_000_000)
_STAGES = ("stt", "llm", "tts", "s2s")
NOTHING = Decimal(0)


# What was used -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was used, in whole numbers. The three kinds of tokens of text, and of audio, do not overlap."""

    audio_us: int = 0
    characters: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Amounts)))


@dataclass(frozen=True, slots=True)
class Tally:
    """What one model of a provider was asked for. `wasted` is the part of `used` that nobody heard."""

    stage: str
    provider: str
    model: str | None
    requests: int = 0
    estimated: int = 0
    used: Amounts = field(default_factory=Amounts)
    wasted: Amounts = field(default_factory=Amounts)

    @property
    def name(self) -> str:
        """As reports call it."""
        return f"{self.stage} {self.provider} {self.model or 'default'}"


def amounts_of(event: ProviderUsed) -> Amounts:
    """The quantities of one request, told apart as they are paid."""
    audio_in, audio_out = event.audio_in_tokens or 0, event.audio_out_tokens or 0
    text_in = max(0, (event.prompt_tokens or 0) - audio_in)
    cached = min(event.cached_tokens or 0, text_in)
    audio_cached = min((event.cached_tokens or 0) - cached, audio_in)
    return Amounts(
        audio_us=round((event.audio_s or 0) * 1_000_000),
        characters=event.characters or 0,
        prompt=text_in - cached,
        cached=cached,
        completion=max(0, (event.completion_tokens or 0) - audio_out),
        audio_in=audio_in - audio_cached,
        audio_cached=audio_cached,
        audio_out=audio_out,
    )


def tally(events: Iterable[Event]) -> tuple[Tally, ...]:
    """What a call used, in the order in which it was first asked for."""
    used: list[ProviderUsed] = []
    reply_of: dict[int, int] = {}  # index into `used` -> the reply it was spent on
    waiting: dict[str, list[int]] = {"llm": [], "tts": []}
    dropped: set[int] = set()
    for event in events:
        match event:
            case ProviderUsed():
                if event.stage in waiting:
                    waiting[event.stage].append(len(used))
                used.append(event)
            case LlmFinished(reply=reply) | LlmCancelled(reply=reply):
                reply_of |= dict.fromkeys(waiting["llm"], reply)
                waiting["llm"].clear()
            case TtsFinished(reply=reply):
                reply_of |= dict.fromkeys(waiting["tts"], reply)
                waiting["tts"].clear()
            case ReplyCancelled(reply=reply):
                dropped.add(reply)
            case _:
                pass
    return merged(_tally_of(event, reply_of.get(index) in dropped) for index, event in enumerate(used))


def _tally_of(event: ProviderUsed, dropped: bool) -> Tally:
    amounts = amounts_of(event)
    wasted = amounts if event.wasted or dropped else Amounts()
    return Tally(event.stage, event.provider, event.model, 1, int(event.estimated), amounts, wasted)


def merged(tallies: Iterable[Tally]) -> tuple[Tally, ...]:
    """One for each model."""
    found: dict[tuple[str, str, str | None], Tally] = {}
    for one in tallies:
        key = (one.stage, one.provider, one.model)
        sum_ = found.get(key, Tally(*key))
        found[key] = Tally(
            *key,
            sum_.requests + one.requests,
            sum_.estimated + one.estimated,
            sum_.used + one.used,
            sum_.wasted + one.wasted,
        )
    return tuple(found.values())


# What it costs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One model of a run. `money` is None where it has no price."""

    tally: Tally
    money: Decimal | None
    wasted: Decimal


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls in money.

    Args:
        seconds: how long they are together.
        as_of: when the prices were looked up: the oldest of those used (None: none was).
    """

    lines: tuple[Line, ...]
    calls: int
    seconds: float
    as_of: date | None

    @property
    def total(self) -> Decimal:
        """Of all that has a price."""
        return sum((line.money for line in self.lines if line.money is not None), NOTHING)

    @property
    def wasted(self) -> Decimal:
        return sum((line.wasted for line in self.lines), NOTHING)

    @property
    def wasted_ratio(self) -> float | None:
        return float(self.wasted / self.total) if self.total else None

    @property
    def per_call(self) -> Decimal | None:
        return self.total / self.calls if self.calls else None

    @property
    def per_minute(self) -> Decimal | None:
        return self.total * 60 / Decimal(str(self.seconds)) if self.seconds > 0 else None

    @property
    def not_priced(self) -> tuple[str, ...]:
        """The models that nobody has a price for: the sums are at least so much."""
        return tuple(line.tally.name for line in self.lines if line.money is None)


def money(price: Price, amounts: Amounts) -> Decimal | None:
    """What these cost at that price; None when it has no unit in which they are counted."""
    if price.stage in ("llm", "s2s") and price.prompt is not None:
        return _tokens(price, amounts)
    if price.characters is not None:
        return price.characters * amounts.characters / _MILLION
    return None if price.minute is None else price.minute * amounts.audio_us / _MINUTE_US


def _tokens(price: Price, amounts: Amounts) -> Decimal:
    prompt, audio = price.prompt or NOTHING, price.audio_in or NOTHING
    paid = (
        (prompt, amounts.prompt),
        (prompt if price.cached is None else price.cached, amounts.cached),
        (price.completion or NOTHING, amounts.completion),
        (audio, amounts.audio_in),
        (audio if price.audio_cached is None else price.audio_cached, amounts.audio_cached),
        (price.audio_out or NOTHING, amounts.audio_out),
    )
    return sum((each * tokens for each, tokens in paid), NOTHING) / _MILLION


def priced(tallies: Iterable[Tally], table: PriceTable, *, calls: int = 1, seconds: float = 0.0) -> Cost:
    """What was used, in money."""
    lines: list[Line] = []
    dates: list[date] = []
    for one in sorted(tallies, key=lambda one: _STAGES.index(one.stage) if one.stage in _STAGES else len(_STAGES)):
        price = table.find(one.stage, one.provider, one.model)
        paid = money(price, one.used) if price else None
        if price is None or paid is None:
            free = not table.bills(one.stage, one.provider)
            lines.append(Line(one, NOTHING if free else None, NOTHING))
            continue
        dates.append(price.as_of)
        lines.append(Line(one, paid, money(price, one.wasted) or NOTHING))
    return Cost(tuple(lines), calls, seconds, min(dates, default=None))


def total_of(events: Sequence[Event], table: PriceTable) -> Decimal:
    """What is known to have been spent, without what has no price."""
    return priced(tally(events), table).total
