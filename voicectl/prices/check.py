"""Models in a spec that have been, or soon will be, shut down. Pure: the tree and the day are handed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import cast, get_args

from voicectl.errors import Problem
from voicectl.prices import Ending, PaidStage, find_ending
from voicectl.spec import Catalog, MapNode, StageName, Where
from voicectl.spec.yaml_source import ListNode, Node, Scalar

SOON_DAYS = 90

_STAGES = frozenset(get_args(PaidStage))


@dataclass(frozen=True, slots=True)
class _Named:
    where: Where
    provider: str | None
    model: str


def ending_soon(root: Node, today: date, catalog: Catalog) -> list[Problem]:
    """A warning for each place that names such a model, also as a fallback or by naming none.

    What speaks as a vendor but is somewhere else (`base_url`) keeps its models as long as it likes.
    """
    found: list[Problem] = []
    for named in _named(root, None, catalog):
        ending = find_ending(named.model, named.provider)
        if ending and (ending.shutdown - today).days <= SOON_DAYS:
            found.append(_warning(named, ending, today))
    return found


def _warning(named: _Named, ending: Ending, today: date) -> Problem:
    days = (ending.shutdown - today).days
    when = f"is shut down on {ending.shutdown}, in {days} day{'s' * (days != 1)}"
    if days <= 0:
        when = f"was shut down on {ending.shutdown}"
    hint = f"Use '{ending.replacement}'" if ending.replacement else f"See {ending.source}"
    return Problem(str(named.where), f"warning: the model '{named.model}' of {ending.provider} {when}", hint)


def _named(node: Node, stage: str | None, catalog: Catalog) -> Iterator[_Named]:
    if isinstance(node, ListNode):
        for item in node.items:
            yield from _named(item, stage, catalog)
    if not isinstance(node, MapNode):
        return
    if stage and (here := _model_of(node, stage, catalog)):
        yield here
    for key, entry in node.entries.items():
        yield from _named(entry.value, key if key in _STAGES else stage, catalog)


def _model_of(node: MapNode, stage: str, catalog: Catalog) -> _Named | None:
    provider, model, options = _text(node, "provider"), _text(node, "model"), node.get("options")
    if isinstance(options, MapNode) and options.get("base_url"):
        return None
    if model:
        return _Named(model.where, provider.text if provider else None, model.text)
    if provider and provider.text in catalog.names(cast(StageName, stage)):
        models = catalog.models(cast(StageName, stage), provider.text)
        return _Named(provider.where, provider.text, models[0]) if models else None
    return None


def _text(node: MapNode, key: str) -> Scalar | None:
    value = node.get(key)
    return value if isinstance(value, Scalar) and isinstance(value.value, str) and not value.broken else None
