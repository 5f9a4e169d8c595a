"""JSON Schema of what people write, for editors: completion, hover texts and red lines.

The shapes come from the models; what a provider can be told and which models it has, from the
catalogue. The schema is a help while typing: `voicectl check` decides.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from pydantic import BaseModel

from voicectl.spec.agent import AgentsFile
from voicectl.spec.catalog import STAGES, Catalog, StageName
from voicectl.spec.profile import ProfileSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')


def agents_schema(catalog: Catalog) -> Schema:
    """Of `agents.yaml`."""
    schema = model_schema(AgentsFile, "voicectl agents")
    agent = schema["$defs"]["AgentSpec"]["properties"]
    for stage in STAGES:
        _know_providers(schema, agent, stage, catalog)
    _know_turn_models(schema, catalog)
    return _pruned(schema)


def profile_schema(catalog: Catalog) -> Schema:
    """Of `profiles/NAME.yaml`."""
    schema = model_schema(ProfileSpec, "voicectl profile")
    for stage in STAGES:
        _know_providers(schema, schema["properties"], stage, catalog)
    _know_turn_models(schema, catalog)
    return _pruned(schema)


def model_schema(model: type[BaseModel], title: str) -> Schema:
    """Of any file that people write as `model`."""
    schema = cast(Schema, _tidy(model.model_json_schema()))
    return {"$schema": DIALECT, "title": title} | {key: value for key, value in schema.items() if key != "title"}


def _know_turn_models(schema: Schema, catalog: Catalog) -> None:
    _know_providers(schema, schema["$defs"]["EndpointingSpec"]["properties"], "turn_model", catalog, key="audio")


def _know_providers(
    schema: Schema, properties: Schema, stage: StageName, catalog: Catalog, key: str | None = None
) -> None:
    """Give `stage` a definition of its own that knows its providers, their models and options."""
    key = key or stage
    about = properties[key]
    base: Schema = schema["$defs"][about["$ref"].rsplit("/", 1)[-1]]
    names = list(catalog.names(stage))
    cases: list[Schema] = []
    for name in names:
        models = catalog.models(stage, name)
        options = f"{stage}_{name}_options"
        inner = cast(Schema, _tidy(catalog.options(stage, name).model_json_schema()))
        for kind, value in cast(Schema, inner.pop("$defs", {})).items():
            schema["$defs"].setdefault(kind, value)
        schema["$defs"][options] = inner
        then: Schema = {"options": {"$ref": f"#/$defs/{options}"}}
        if models is not None:
            then["model"] = {"enum": list(models)} if models else False
        given: Schema = {"properties": {"provider": {"const": name}}, "required": ["provider"]}
        cases.append({"if": given, "then": {"properties": then}})
    provider = base["properties"]["provider"]
    told = {key: value for key, value in provider.items() if key in ("title", "description")}
    schema["$defs"][stage] = base | {
        "properties": base["properties"] | {"provider": told | {"enum": names}},
        "allOf": cases,
    }
    properties[key] = about | {"$ref": f"#/$defs/{stage}"}


def _pruned(schema: Schema) -> Schema:
    """Without the definitions that the stages' own have replaced."""
    used = set(_REFERENCE.findall(json.dumps(schema)))
    return schema | {"$defs": {name: value for name, value in schema["$defs"].items() if name in used}}


def _tidy(node: Any) -> Any:
    """Without what only a program needs: generated titles, defaults that are whole sections, the
    null of a key that may be left out."""
    if isinstance(node, list):
        return [_tidy(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    given = cast(Schema, node)
    if "properties" not in given and isinstance(given.get("title"), str):
        given = {key: value for key, value in given.items() if key != "title"}
    if ("default" in given and given["default"] is None) or "$ref" in given:
        given = {key: value for key, value in given.items() if key != "default"}
    choices = cast("list[Schema]", given.get("anyOf", []))
    if len(choices) == 2 and {"type": "null"} in choices:
        kept = next(choice for choice in choices if choice != {"type": "null"})
        given = {key: value for key, value in given.items() if key != "anyOf"} | kept
    return {key: _tidy(value) for key, value in given.items()}
