"""Turns whose providers fail at random: `benchmarks/faulted_turns.py` makes ten thousand of them."""

from __future__ import annotations

import pytest

from benchmarks.faulted_turns import faulted


@pytest.mark.parametrize(("seed", "share"), [(1, 0.1), (2, 0.3), (3, 0.6)])
def test_no_turn_is_stuck_or_lost_and_no_word_repeated_or_skipped(seed: int, share: float) -> None:
    tally = faulted(300, seed, share)
    wrong = {what: tally.turns[what] for what in ("stuck", "lost", "misheard", "tasks left")}
    wrong |= {what: tally.words[what] for what in ("repeated", "skipped")}
    assert not any(wrong.values()), "\n".join([str(wrong), *tally.examples])
    assert sum(tally.turns.values()) == 300
    assert tally.turns["answered"] >= 300 * (1 - share) * 0.8
    assert tally.words["broken"] <= 0.03 * tally.words["heard"]
