"""What holds for every recording there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicectl.analysis.definitions import STAGES, Measures, measure
from voicectl.recording import Recording, find_recordings
from voicectl.replay.call import open_kept, replay

ROOT = Path(__file__).resolve().parents[2]
KEPT = sorted(find_recordings(ROOT / "recordings")) if (ROOT / "recordings").is_dir() else []


def measures_of(recording: Recording) -> Measures:
    return measure(recording.events, recording.rate, recording.left, recording.right)


def stages_add_up(measures: Measures) -> int:
    """How many turns were looked at."""
    answered = [exchange for exchange in measures.exchanges if exchange.outcome == "answered"]
    for exchange in answered:
        assert exchange.waterfall is not None
        assert len(exchange.waterfall) == len(STAGES)
        assert sum(exchange.waterfall) == exchange.wait
        assert min(exchange.waterfall) >= 0
    return len(answered)


def test_the_stages_of_every_turn_add_up_to_voice_to_voice(calls: list[Path]) -> None:
    for path in calls:
        kept = open_kept(path)
        assert stages_add_up(measures_of(kept.recording))
        assert stages_add_up(measures_of(replay(kept, on_miss="nearest")))


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_so_do_those_of_the_recordings_of_this_project(path: Path) -> None:
    kept = open_kept(path)
    assert stages_add_up(measures_of(kept.recording))
    assert stages_add_up(measures_of(replay(kept, on_miss="nearest")))
