"""Several processes give what one gives, in the same order."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from voicectl.errors import VoicectlError
from voicectl.replay.check import Options, check
from voicectl.replay.pool import WORTH_S, cores, on_all_cores


def test_two_processes_give_the_outcomes_of_one(calls: list[Path]) -> None:
    work = partial(check, options=Options(overrides=("turn.endpointing.silence_ms=600",)))
    alone = list(on_all_cores(work, calls, audio_s=0.0, processes=2))
    together = list(on_all_cores(work, calls, audio_s=2 * WORTH_S, processes=2))
    assert [outcome.path for outcome in together] == calls
    assert together == alone
    assert cores() >= 1


def test_a_process_that_dies_is_one_clear_line() -> None:
    with pytest.raises(VoicectlError, match="a process that replayed calls died"):
        list(on_all_cores(os._exit, [1, 2], audio_s=2 * WORTH_S, processes=2))
