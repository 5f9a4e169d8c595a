"""A run: the folder that one `bench` leaves behind, with its calls in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from voicectl.analysis.metrics import Run
from voicectl.providers import CATALOG
from voicectl.recording import SPEC_NAME, is_recording
from voicectl.spec import Threshold, load_resolved

REPORT_NAME = "report.json"


def read_run(folder: Path) -> tuple[Run, tuple[Threshold, ...]]:
    """What only the run knew of itself, as far as it wrote it down; and its thresholds.

    A single recording is a run of one call.

    Raises:
        SpecError: its spec cannot be read by this voicectl.
    """
    spec = folder / SPEC_NAME
    agent = load_resolved(spec, CATALOG) if spec.is_file() else None
    told = _report(folder / REPORT_NAME)
    machine = told.get("machine")
    run = Run(
        agent=agent.name if agent else folder.name,
        profile=(agent.profile if agent else None) or "none",
        peak_rss_mb=_number(told.get("peak_rss_mb")),
        busy_cpus=_number(told.get("busy_cpus")),
        machine=cast("dict[str, str | int | float]", machine) if isinstance(machine, dict) else {},
        interrupted=told.get("interrupted") is True,
    )
    return run, agent.thresholds if agent and not is_recording(folder) else ()


def _report(path: Path) -> Mapping[str, Any]:
    """The report that was written after the run; a run that was killed has none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
