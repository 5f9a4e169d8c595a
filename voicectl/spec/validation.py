"""A tree of YAML values + a pydantic model -> a frozen instance, or every problem with its place.

Pydantic says what is wrong and along which path; the tree says where that was written. The hints
know what people get wrong: a unit left off, seconds for milliseconds, a phone number that YAML
takes for a number, a key one level too high, a word misspelt.

A model's own validator reports through `fault(message, hint)`. A model may carry
`unknown_key_hint: ClassVar[str]`, told when nothing better is known of a stray key.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from voicectl.errors import Problem, SpecError
from voicectl.spec.suggest import nearest
from voicectl.spec.yaml_source import ListNode, MapNode, Node, Scalar, Source, Where, kind, plain

M = TypeVar("M", bound=BaseModel)

_FAULT = "fault"


def fault(message: str, hint: str | None = None) -> PydanticCustomError:
    """What a pydantic validator raises to say exactly this."""
    return PydanticCustomError(_FAULT, "{message}", {"message": message, "hint": hint})


def validate(model: type[M], source: Source) -> M:
    """The file as a value.

    Raises:
        SpecError: with every problem of the file.
    """
    value, problems = check(model, source.root)
    problems = unique([*source.problems, *problems])
    if value is None or problems:
        raise SpecError(problems)
    return value


def check(model: type[M], node: MapNode) -> tuple[M | None, list[Problem]]:
    """The value if there is one, and all that is wrong. A value whose `${NAME}` could not be
    resolved is not told twice, but leaves no value."""
    try:
        return model.model_validate(plain(node)), []
    except ValidationError as error:
        found = [(_find(model, node, details["loc"]), details) for details in error.errors(include_url=False)]
        # Of the alternatives of a union, the one that goes deeper into the value is the one meant;
        # and a list whose items are all wrong is not an empty list.
        deeper = {id(parent) for spot, _ in found for parent in spot.parents}
        return None, unique(
            _problem(spot, details)
            for spot, details in found
            if not spot.broken and not (_superficial(details) and id(spot.node) in deeper)
        )


def _superficial(details: ErrorDetails) -> bool:
    return details["type"].endswith("_type") or details["type"] == "too_short"


def unique(problems: Iterable[Problem]) -> list[Problem]:
    """Without repetition, in the order of the file where all are of one file."""
    return sorted(dict.fromkeys(problems), key=lambda problem: _position(problem.where))


def _position(where: str) -> tuple[str, int, int]:
    parts = where.rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return parts[0], int(parts[1]), int(parts[2])
    return where, 0, 0


# From pydantic's path to a place ---------------------------------------------------------------


@dataclass(slots=True)
class _Spot:
    """Where a pydantic path leads in the tree, and what the model wants there."""

    key: str
    """The last key on the way, for people; "" at the root."""
    key_where: Where
    node: Node | None
    """None: the key is missing."""
    broken: bool
    wants: FieldInfo | None
    owner: type[BaseModel] | None
    """The model that holds `key`."""
    parents: tuple[Node, ...] = ()
    """Every node on the way."""


def _find(model: type[BaseModel], root: MapNode, path: tuple[int | str, ...]) -> _Spot:
    spot = _Spot("", root.where, root, False, None, None)
    annotation: Any = model
    for part in path:
        node = spot.node
        if isinstance(part, int) and isinstance(node, ListNode) and part < len(node.items):
            spot.parents += (node,)
            spot.node, spot.key_where, annotation = node.items[part], node.items[part].where, _inner(annotation)
        elif isinstance(part, str) and isinstance(node, MapNode):
            owner = _model(annotation)
            fields = owner.model_fields if owner else {}
            if part not in node.entries and part not in fields:
                # Pydantic's own signpost (a union's branch, a validator), not a key; one of them
                # says that the key itself is wrong.
                spot.node = None if part == "[key]" else node
                continue
            entry = node.entries.get(part)
            spot = _Spot(
                key=part,
                key_where=entry.where if entry else spot.key_where,
                node=entry.value if entry else None,
                broken=False,
                wants=fields.get(part),
                owner=owner,
                parents=(*spot.parents, node),
            )
            annotation = fields[part].annotation if part in fields else _inner(annotation)
    spot.broken = spot.node is not None and _any_broken(spot.node)
    return spot


def _any_broken(node: Node) -> bool:
    return isinstance(node, Scalar) and node.broken


def _unwrap(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without `Annotated`, `Optional` and the like."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _unwrap(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for alternative in get_args(annotation):
            yield from _unwrap(alternative)
    else:
        yield annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    for alternative in _unwrap(annotation):
        if isinstance(alternative, type) and issubclass(alternative, BaseModel):
            return alternative
    return None


def _inner(annotation: Any) -> Any:
    """What a list or mapping holds."""
    for alternative in _unwrap(annotation):
        args = get_args(alternative)
        origin = get_origin(alternative)
        if origin in (list, tuple, set, frozenset):
            return args[0]
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return args[1]
    return None


# From pydantic's words to ours -----------------------------------------------------------------


def _problem(spot: _Spot, details: ErrorDetails) -> Problem:
    error = details["type"]
    context: dict[str, Any] = details.get("ctx", {})
    where = str(spot.node.where if spot.node is not None else spot.key_where)
    name = f"'{spot.key}'" if spot.key else "the file"
    node = spot.node

    if error == "missing":
        return Problem(str(spot.key_where), f"missing key {name}", _example(spot.wants))
    if error == "extra_forbidden":
        return _unknown_key(spot)
    if error == _FAULT:
        return Problem(where, str(context["message"]), context["hint"])
    if isinstance(node, Scalar) and node.value is None and node.plain:
        return Problem(str(spot.key_where), f"{name} is empty", "Remove it, or give it a value")
    if error == "literal_error":
        return _unknown_value(spot, where, details["input"])
    if error in ("model_type", "dict_type", "model_attributes_type"):
        return Problem(where, f"{name} must be a mapping ('key: value' lines), not {_kind(node)}")
    if error in ("tuple_type", "list_type", "set_type", "frozen_set_type"):
        return Problem(where, f"{name} must be a list ('- item' lines or [a, b]), not {_kind(node)}")
    if error == "string_type":
        return _not_text(name, where, node)
    if error.startswith(("int_", "float_", "bool_")):
        wanted = {"i": "a whole number", "f": "a number", "b": "true or false"}[error[0]]
        shown = f"'{node.text}'" if isinstance(node, Scalar) else _kind(node)
        return Problem(where, f"{name} must be {wanted}, not {shown}", _unit_hint(spot))
    if error in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return Problem(where, f"{name} must be {_range(spot, context)}, not {details['input']}", _unit_hint(spot))
    if error in ("string_too_short", "too_short") and context.get("min_length") == 1:
        return Problem(where, f"{name} must not be empty")
    message = details["msg"].removeprefix("Value error, ")
    return Problem(where, f"{name}: {message[:1].lower()}{message[1:]}")


def _kind(node: Node | None) -> str:
    return kind(node) if node is not None else "nothing"


def _example(wants: FieldInfo | None) -> str | None:
    if wants is None or not wants.description:
        return None
    return wants.description.split(". ")[0].rstrip(".")


def _unknown_key(spot: _Spot) -> Problem:
    where, owner = str(spot.key_where), spot.owner
    message = f"unknown key '{spot.key}'"
    if owner is None:
        return Problem(where, message)
    guess = nearest(spot.key, owner.model_fields) or next(_deeper(owner, spot.key), None)
    hint = f"Did you mean '{guess}'?" if guess else getattr(owner, "unknown_key_hint", None)
    if guess and guess.endswith("_ms") and spot.key.endswith(("_s", "_sec", "_secs", "_seconds")):
        hint = f"Did you mean '{guess}' (in milliseconds)?"
    return Problem(where, message, hint or f"Known keys: {', '.join(owner.model_fields)}")


def _deeper(owner: type[BaseModel], key: str, depth: int = 2) -> Iterator[str]:
    """Where `key` would be at home, below the place it was written at."""
    for name, field in owner.model_fields.items():
        inner = _model(field.annotation) if depth else None
        if inner is None:
            continue
        if key in inner.model_fields:
            yield f"{name}.{key}"
        for rest in _deeper(inner, key, depth - 1):
            yield f"{name}.{rest}"


def _unknown_value(spot: _Spot, where: str, given: object) -> Problem:
    annotation = spot.wants.annotation if spot.wants else None
    known = [
        str(value).lower() if isinstance(value, bool) else str(value)
        for alternative in _unwrap(annotation)
        if get_origin(alternative) is Literal
        for value in cast("tuple[object, ...]", get_args(alternative))
    ]
    guess = nearest(str(given), known)
    hint = f"Did you mean '{guess}'?" if guess else None
    allowed = " or ".join(filter(None, [", ".join(known[:-1]), known[-1] if known else None]))
    return Problem(where, f"'{spot.key}' must be {allowed}, not {given!r}", hint)


def _not_text(name: str, where: str, node: Node | None) -> Problem:
    if not isinstance(node, Scalar):
        return Problem(where, f"{name} must be text, not {_kind(node)}")
    return Problem(
        where, f"{name} must be text, but YAML reads {node.text} as {kind(node)}", f'Quote it: "{node.text}"'
    )


# Numbers ---------------------------------------------------------------------------------------

_TO_MS = (("ms", 1.0), ("msec", 1.0), ("seconds", 1000.0), ("sec", 1000.0), ("s", 1000.0))


def _bounds(wants: FieldInfo | None) -> tuple[float | None, float | None]:
    low = high = None
    for part in wants.metadata if wants else ():
        for name in ("ge", "gt"):
            low = getattr(part, name, None) if getattr(part, name, None) is not None else low
        for name in ("le", "lt"):
            high = getattr(part, name, None) if getattr(part, name, None) is not None else high
    return low, high


def _range(spot: _Spot, context: Mapping[str, Any]) -> str:
    low, high = _bounds(spot.wants)
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    for name, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if name in context:
            return f"{words} {context[name]:g}"
    return "in range"


def _unit_hint(spot: _Spot) -> str | None:
    """For a key in milliseconds: the number that was probably meant."""
    if not spot.key.endswith("_ms") or not isinstance(spot.node, Scalar):
        return None
    low, high = _bounds(spot.wants)

    def plausible(ms: float) -> bool:
        return ms == int(ms) and (low is None or ms >= low) and (high is None or ms <= high)

    text = spot.node.text.strip().lower()
    for unit, scale in _TO_MS:
        number = _float(text.removesuffix(unit)) if text.endswith(unit) else None
        if number is not None:
            ms = number * scale
            return f"The unit is in the key: write {ms:g}" if plausible(ms) else "The unit is milliseconds"
    number = _float(text)
    if number is not None and (low is None or number < low) and plausible(number * 1000):
        return f"The unit is milliseconds: did you mean {number * 1000:g}?"
    return "The unit is milliseconds"


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
