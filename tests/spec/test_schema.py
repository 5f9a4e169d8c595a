"""The JSON schemas say what the models and the catalogue say."""

from __future__ import annotations

from typing import Any, cast

from spec.support import FakeCatalog
from voicectl.spec import agents_schema, profile_schema


def walk(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in cast("list[Any]", node) for found in walk(item)]
    if isinstance(node, dict):
        mapping = cast("dict[str, Any]", node)
        return [mapping, *(found for value in mapping.values() for found in walk(value))]
    return []


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    for schema in (agents_schema(FakeCatalog()), profile_schema(FakeCatalog())):
        references = {found["$ref"].rsplit("/", 1)[1] for found in walk(schema) if "$ref" in found}
        assert references == set(schema["$defs"])


def test_every_key_is_described() -> None:
    for schema in (agents_schema(FakeCatalog()), profile_schema(FakeCatalog())):
        for place in [schema, *schema["$defs"].values()]:
            for name, key in place.get("properties", {}).items():
                told = schema["$defs"][key["$ref"].rsplit("/", 1)[1]] if "$ref" in key else key
                assert key.get("description") or told.get("description"), name


def test_stages_know_their_providers_models_and_options() -> None:
    stages = agents_schema(FakeCatalog())["$defs"]
    assert stages["stt"]["properties"]["provider"]["enum"] == ["local", "deepgram"]
    local, openai = stages["llm"]["allOf"]
    assert local["if"]["properties"] == {"provider": {"const": "local"}}
    assert local["then"]["properties"]["model"] == {"enum": ["qwen-0.5b", "smollm2"]}
    assert "model" not in openai["then"]["properties"]
    assert set(stages["llm_local_options"]["properties"]) == {"max_tokens", "temperature", "timeout_ms"}
    assert stages["llm_local_options"]["additionalProperties"] is False


def test_only_an_agent_must_name_its_providers() -> None:
    assert agents_schema(FakeCatalog())["$defs"]["stt"]["required"] == ["provider"]
    assert "required" not in profile_schema(FakeCatalog())["$defs"]["stt"]


def test_thresholds_and_ranges_are_in_it() -> None:
    definitions = agents_schema(FakeCatalog())["$defs"]
    assert definitions["AgentSpec"]["properties"]["thresholds"]["items"]["examples"]
    silence = definitions["EndpointingSpec"]["properties"]["silence_ms"]
    assert (silence["type"], silence["minimum"], silence["maximum"], silence["default"]) == ("integer", 50, 5000, 500)
