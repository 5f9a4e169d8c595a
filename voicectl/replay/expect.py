"""`expect.yaml`: what a replay of a recording must do, read, judged and written.

    version: 1
    trace: exact                      # exact · recorded (the default) · any
    thresholds: [max(voice_to_voice_ms) < 1200]
    exchanges:
      - turn: 1
        heard: {contains: [latte, almond milk], wer: 10%}
        said: "Sure, one large latte."
    events:
      must: [AgentInterrupted]
      must_not: [{event: TurnDropped, reason: no words}]

`exact` holds every event against `expect.jsonl`, the trace of the replay that was accepted;
`recorded` holds the turns and words against the call as it was. A folder of recordings may have an
expect.yaml as well: thresholds of the whole set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from voicectl.analysis.definitions import Exchange
from voicectl.analysis.metrics import Call
from voicectl.analysis.words import word_errors, words
from voicectl.errors import Problem
from voicectl.events import EVENTS, Event
from voicectl.replay.tell import quoted
from voicectl.spec import (
    MapNode,
    SpecModel,
    Text,
    ThresholdField,
    did_you_mean,
    dump_yaml,
    fault,
    load_yaml,
    validate,
)
from voicectl.spec.yaml_source import ListNode, Node

EXPECT_NAME = "expect.yaml"
EXPECT_TRACE_NAME = "expect.jsonl"

# What people write -----------------------------------------------------------------------------


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise fault(f"'{value}' is not a regular expression: {error}") from None
    return value


def _share(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        return float(match[1]) / 100
    return value


def _named_text(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


def _named_event(value: object) -> object:
    return {"event": value} if isinstance(value, str) else value


class TextExpectation(SpecModel):
    """What a text must be; all of what is given must hold."""

    text: Text | None = Field(default=None, description="The same words; case and punctuation do not count.")
    wer: Annotated[float | None, BeforeValidator(_share)] = Field(
        default=None, ge=0, le=1, description="So many words may differ from `text`, or from what was really said: 10%."
    )
    contains: Annotated[tuple[Text, ...], BeforeValidator(_list)] = Field(
        default=(), description="Words that must be in it, in this order."
    )
    matches: Annotated[str, AfterValidator(_pattern)] | None = Field(
        default=None, description="A regular expression that must be found in it."
    )


class ExchangeExpectation(SpecModel):
    """What one utterance of the caller must come to."""

    turn: int = Field(ge=1, description="Which one, from 1, as reports number them.")
    outcome: Literal["answered", "early", "no answer"] | None = Field(default=None, description="How it must end.")
    heard: Annotated[TextExpectation, BeforeValidator(_named_text)] | None = Field(
        default=None, description="What the STT must have made of it."
    )
    said: Annotated[TextExpectation, BeforeValidator(_named_text)] | None = Field(
        default=None, description="What the caller must have heard of the answer."
    )


class EventExpectation(SpecModel):
    """An event by its name, and by values of its fields where they matter."""

    model_config = ConfigDict(frozen=True, extra="allow")

    event: str = Field(description="Its name in the trace: AgentInterrupted.")
    count: int | None = Field(default=None, ge=0, description="How many times. Default: at least once.")

    @model_validator(mode="after")
    def _known(self) -> EventExpectation:
        kind = EVENTS.get(self.event)
        if kind is None:
            raise fault(f"unknown event '{self.event}'", did_you_mean(self.event, EVENTS, known_as="Events"))
        names = [field.name for field in fields_of(kind)]
        for key in self.model_extra or {}:
            if key not in names:
                raise fault(f"{self.event} has no field '{key}'", did_you_mean(key, names, known_as="Fields"))
        return self

    def among(self, events: Sequence[Event]) -> int:
        """How many of them it is."""
        wanted: Mapping[str, object] = self.model_extra or {}
        return sum(
            type(event).__name__ == self.event and all(getattr(event, key) == value for key, value in wanted.items())
            for event in events
        )

    def __str__(self) -> str:
        wanted = ", ".join(f"{key} {value}" for key, value in (self.model_extra or {}).items())
        return f"{self.event} ({wanted})" if wanted else self.event


EventField = Annotated[EventExpectation, BeforeValidator(_named_event)]


class EventsExpectation(SpecModel):
    """What must happen, and what must not."""

    must: tuple[EventField, ...] = Field(default=(), description="Events that must happen.")
    must_not: tuple[EventField, ...] = Field(default=(), description="Events that must not happen.")

    @field_validator("must_not")
    @classmethod
    def _uncounted(cls, value: tuple[EventExpectation, ...]) -> tuple[EventExpectation, ...]:
        if any(event.count is not None for event in value):
            raise fault("'count' is for events that must happen", "Write it under 'must': count: 0 is never")
        return value


class SetExpectation(SpecModel):
    """What all recordings of a folder must keep together."""

    version: Literal[1] = Field(default=1, description="Version of this format.")
    thresholds: tuple[ThresholdField, ...] = Field(default=(), description="As an agent's: rate(early_answer) < 2%.")


class Expectation(SetExpectation):
    """The whole of a recording's `expect.yaml`."""

    trace: Literal["exact", "recorded", "any"] = Field(
        default="recorded", description="exact: every event as accepted. recorded: turns and words as in the call."
    )
    exchanges: tuple[ExchangeExpectation, ...] = Field(default=(), description="What was heard and said, by turn.")
    events: EventsExpectation = Field(default_factory=EventsExpectation, description="What must and must not happen.")


# Reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """An expectation and where each part of it was written."""

    spec: Expectation
    root: MapNode

    def where(self, *path: str | int) -> str:
        """The place of a part, `expect.yaml:7:5`."""
        node: Node = self.root
        for key in path:
            if isinstance(key, int) and isinstance(node, ListNode):
                node = node.items[key]
            elif isinstance(key, str) and isinstance(node, MapNode) and (inner := node.get(key)):
                node = inner
        return str(node.where)


def load_expectation(folder: Path) -> Expected | None:
    """The expectation of a recording, if it has one.

    Raises:
        SpecError: with every problem of the file.
    """
    path = folder / EXPECT_NAME
    if not path.is_file():
        return None
    source = load_yaml(path, env=None)
    return Expected(validate(Expectation, source), source.root)


def load_set_expectation(folder: Path) -> SetExpectation | None:
    """The expectation of a folder of recordings, if it has one.

    Raises:
        SpecError: with every problem of the file.
    """
    path = folder / EXPECT_NAME
    return validate(SetExpectation, load_yaml(path, env=None)) if path.is_file() else None


# Judging ---------------------------------------------------------------------------------------


def unmet(expected: Expected, call: Call, events: Sequence[Event]) -> list[Problem]:
    """What is not as expected, each with its place in the file. Thresholds and trace are others' matter."""
    problems: list[Problem] = []
    exchanges = {exchange.number: exchange for exchange in call.measures.exchanges}
    for index, wanted in enumerate(expected.spec.exchanges):
        where = expected.where("exchanges", index)
        exchange = exchanges.get(wanted.turn)
        if exchange is None:
            problems.append(Problem(where, f"there is no turn {wanted.turn}: the call has {len(exchanges)}"))
            continue
        problems += [Problem(expected.where("exchanges", index, key), text) for key, text in _misses(wanted, exchange)]
    for key, wanteds in (("must", expected.spec.events.must), ("must_not", expected.spec.events.must_not)):
        for index, wanted in enumerate(wanteds):
            if message := _miscounted(wanted, wanted.among(events), never=key == "must_not"):
                problems.append(Problem(expected.where("events", key, index), message))
    return problems


def _misses(wanted: ExchangeExpectation, exchange: Exchange) -> list[tuple[str, str]]:
    """(key, what is wrong) of one exchange."""
    found: list[tuple[str, str]] = []
    turn = f"turn {wanted.turn}"
    if wanted.outcome is not None and exchange.outcome != wanted.outcome:
        found.append(("outcome", f"{turn} was to be '{wanted.outcome}' and is '{exchange.outcome}'"))
    for key, who, text, truth, rule in (
        ("heard", "the STT heard", exchange.transcript, exchange.said, wanted.heard),
        ("said", "the agent said", exchange.answer, None, wanted.said),
    ):
        if rule and (wrong := _wrong(rule, text, truth)):
            found.append((key, f"{turn}: {who} {quoted(text)}, {wrong}"))
    return found


def _wrong(rule: TextExpectation, text: str, truth: str | None) -> str | None:
    reference = rule.text if rule.text is not None else truth
    if rule.wer is not None:
        if reference is None:
            return "and there is nothing to count its errors against: add 'text'"
        errors, total = word_errors(reference, text)
        share = errors / max(1, total)
        if share > rule.wer:
            return f"{share:.0%} of the words of {quoted(reference)} are wrong, {rule.wer:.0%} may be"
    elif rule.text is not None and words(rule.text) != words(text):
        return f"not {quoted(rule.text)}"
    said = words(text)
    rest = said
    for part in rule.contains:
        wanted = words(part)
        at = next((i for i in range(len(rest) - len(wanted) + 1) if rest[i : i + len(wanted)] == wanted), None)
        if at is None:
            return f"without {quoted(part)}{' where it belongs' if len(rest) < len(said) else ''}"
        rest = rest[at + len(wanted) :]
    if rule.matches is not None and not re.search(rule.matches, text):
        return f"which does not match '{rule.matches}'"
    return None


def _miscounted(wanted: EventExpectation, count: int, *, never: bool) -> str | None:
    if never:
        return f"{wanted} must not happen, and happened {_times(count)}" if count else None
    if wanted.count is None:
        return None if count else f"{wanted} must happen, and did not"
    must = f"{wanted} must happen {_times(wanted.count)}"
    return None if count == wanted.count else f"{must}, and happened {_times(count)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# Accepting -------------------------------------------------------------------------------------

_HEADER = "# What a replay of this call must do. `voicectl replay --accept` writes today's behaviour; edit it freely.\n"


def accepted(old: Expected | None, call: Call) -> str | None:
    """`expect.yaml` as it should be from now on; None when the old one holds.

    Of an old one only what was heard and said is renewed, and only where it does not hold any
    more. Thresholds and events are a person's decision and stay.
    """
    today = {exchange.number: exchange for exchange in call.measures.exchanges}
    if old is None:
        value = {"trace": "exact", "exchanges": [_today(exchange) for exchange in today.values()]}
        return _HEADER + dump_yaml({"version": 1, **value})
    before = old.spec.model_dump(mode="json", exclude_defaults=True)
    after = dict(before)
    if old.spec.exchanges:
        after["exchanges"] = [
            _renewed(wanted, today[wanted.turn]) for wanted in old.spec.exchanges if wanted.turn in today
        ]
    return None if after == before else _HEADER + dump_yaml({"version": 1, **after})


def _today(exchange: Exchange) -> dict[str, Any]:
    outcome = None if exchange.outcome == "unfinished" else exchange.outcome
    entry = {"turn": exchange.number, "outcome": outcome, "heard": exchange.transcript, "said": exchange.answer}
    return {key: value for key, value in entry.items() if value}


def _renewed(wanted: ExchangeExpectation, exchange: Exchange) -> dict[str, Any]:
    """The same keys, with today's value where the old one does not hold."""
    fresh = _today(exchange)
    stale = {key for key, _ in _misses(wanted, exchange)}
    entry = wanted.model_dump(mode="json", exclude_defaults=True)
    renewed = {key: fresh.get(key) if key in stale else value for key, value in entry.items()}
    return {key: value for key, value in renewed.items() if value is not None}
