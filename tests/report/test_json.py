"""The JSON report: what its schema says, nothing else, and the same figures as the analysis."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from report.sample import sample
from report.schema import problems
from voicectl.analysis.definitions import STAGES
from voicectl.analysis.metrics import Run, analyse
from voicectl.report.json import report_json

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """As a reader of the file gets it."""
    return json.loads(json.dumps(report_json(sample()), allow_nan=False))


def test_the_report_is_as_its_schema_says(report: dict[str, Any]) -> None:
    assert list(problems(report, SCHEMA, SCHEMA)) == []


def test_a_run_without_calls_is_as_its_schema_says() -> None:
    empty = report_json(analyse([], Run(agent="coffee", profile="local")))
    assert list(problems(json.loads(json.dumps(empty)), SCHEMA, SCHEMA)) == []


def test_the_schema_notices_what_is_wrong(report: dict[str, Any]) -> None:
    wrong = copy.deepcopy(report)
    wrong["metrics"]["voice_to_voice_ms"]["p50"] = "fast"
    wrong["exchanges"][0]["extra"] = 1
    del wrong["clock"]
    assert [problem.split(":")[0] for problem in problems(wrong, SCHEMA, SCHEMA)] == [
        "$",
        "$.metrics.voice_to_voice_ms.p50",
        "$.exchanges[0]",
    ]


def test_the_document_names_every_field() -> None:
    told = set(re.findall(r"`(\w+)", (DOCS / "report-schema.md").read_text(encoding="utf-8")))
    fields = set(SCHEMA["properties"]) | set(SCHEMA["$defs"]["metric"]["properties"])
    assert fields | set(SCHEMA["$defs"]["exchange"]["properties"]) <= told | {"voicectl_report"}


def test_figures_are_the_analysis_figures(report: dict[str, Any]) -> None:
    waited = report["metrics"]["voice_to_voice_ms"]
    summary = sample().durations["voice_to_voice_ms"]
    assert (waited["n"], waited["censored"]) == (summary.n, summary.censored) == (97, 1)
    assert waited["p50"] == pytest.approx(summary.p50.value, abs=0.001)
    assert (waited["at_least"], waited["refused"]) == (["mean", "max"], {"p99": 100})
    assert waited["ci95"]["p95"][1] is None
    assert waited["ci95_refused"] == {"p99": 368}


def test_every_waterfall_adds_up(report: dict[str, Any]) -> None:
    answered = [one for one in report["exchanges"] if one["outcome"] == "answered"]
    assert len(answered) == 97
    for one in answered:
        assert list(one["waterfall_ms"]) == list(STAGES)
        assert sum(round(part * 1000) for part in one["waterfall_ms"].values()) == round(
            one["voice_to_voice_ms"] * 1000
        )


def test_thresholds_decide_the_exit_code(report: dict[str, Any]) -> None:
    assert [one["outcome"] for one in report["thresholds"]] == ["pass", "fail", "undecided", "pass", "fail"]
    assert report["exit_code"] == 1
