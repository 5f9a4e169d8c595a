"""YAML -> frozen, validated values. What people write, and nothing of what happens with it.

    resolve("coffee", "scripted", ["turn.endpointing.silence_ms=300"], env=env, catalog=CATALOG)

gives a `ResolvedAgent`, or one SpecError with every problem as `file:line:col`. Other loaders
(callers) reuse `load_yaml` and `validate` with models of their own. Secrets never pass here:
keys come from the environment, and only providers read them.
"""

from __future__ import annotations

from voicectl.spec.agent import (
    AgentsFile,
    AgentSpec,
    EndpointingSpec,
    InterruptionSpec,
    Ms,
    SpecModel,
    StageSpec,
    Text,
    ThresholdField,
    TurnSpec,
    VadSpec,
)
from voicectl.spec.catalog import STAGES, Catalog, StageName
from voicectl.spec.load import (
    AGENTS_FILE,
    AgentSummary,
    ResolvedAgent,
    Stage,
    check_all,
    dump_yaml,
    find_profile,
    list_profiles,
    load_resolved,
    resolve,
    summarize,
)
from voicectl.spec.metric_names import METRICS, MetricName
from voicectl.spec.profile import ClockName, LineSpec, ProfileSpec, RunSpec
from voicectl.spec.schema import agents_schema, model_schema, profile_schema
from voicectl.spec.suggest import did_you_mean, nearest
from voicectl.spec.threshold import Threshold, ThresholdError, parse_threshold
from voicectl.spec.validation import check, fault, validate
from voicectl.spec.yaml_source import MapNode, Source, Where, load_yaml, parse_yaml

__all__ = [
    "AGENTS_FILE",
    "METRICS",
    "STAGES",
    "AgentSpec",
    "AgentSummary",
    "AgentsFile",
    "Catalog",
    "ClockName",
    "EndpointingSpec",
    "InterruptionSpec",
    "LineSpec",
    "MapNode",
    "MetricName",
    "Ms",
    "ProfileSpec",
    "ResolvedAgent",
    "RunSpec",
    "Source",
    "SpecModel",
    "Stage",
    "StageName",
    "StageSpec",
    "Text",
    "Threshold",
    "ThresholdError",
    "ThresholdField",
    "TurnSpec",
    "VadSpec",
    "Where",
    "agents_schema",
    "check",
    "check_all",
    "did_you_mean",
    "dump_yaml",
    "fault",
    "find_profile",
    "list_profiles",
    "load_resolved",
    "load_yaml",
    "model_schema",
    "nearest",
    "parse_threshold",
    "parse_yaml",
    "profile_schema",
    "resolve",
    "summarize",
    "validate",
]
