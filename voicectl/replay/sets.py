"""Many recordings together: the thresholds of a folder, and what the command ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voicectl.analysis.metrics import Run, sum_up
from voicectl.analysis.verdict import Verdict
from voicectl.errors import EXIT_FAILED, EXIT_OK, EXIT_UNDECIDED, EXIT_USAGE
from voicectl.recording import is_recording
from voicectl.replay.check import Outcome
from voicectl.replay.expect import EXPECT_NAME, load_set_expectation


@dataclass(frozen=True, slots=True)
class SetVerdict:
    """One threshold of a folder's `expect.yaml`."""

    path: Path
    verdict: Verdict


def judge_sets(folders: Sequence[Path], outcomes: Sequence[Outcome]) -> list[SetVerdict]:
    """Hold the thresholds of each folder against the calls in and below it, but those that went on live.

    Raises:
        SpecError: with every problem of an `expect.yaml`.
    """
    found: list[SetVerdict] = []
    for folder in folders:
        expected = None if is_recording(folder) else load_set_expectation(folder)
        if expected:
            mine = [one for one in outcomes if not one.live and one.path.is_relative_to(folder)]
            calls = [replace(one.call, name=str(one.path)) for one in mine if one.call]
            verdicts = sum_up(calls, Run(agent="", profile="", warm=True), expected.thresholds).verdicts
            found += [SetVerdict(folder / EXPECT_NAME, verdict) for verdict in verdicts]
    return found


def exit_code(outcomes: Sequence[Outcome], verdicts: Sequence[SetVerdict]) -> int:
    """2 where a recording cannot be replayed, 1 where one diverged or a threshold failed, 4 where one is undecided."""
    states = {outcome.state for outcome in outcomes}
    results = {one.verdict.outcome for one in verdicts}
    if "refused" in states:
        return EXIT_USAGE
    if "differs" in states or "fail" in results:
        return EXIT_FAILED
    return EXIT_UNDECIDED if "undecided" in states | results else EXIT_OK
