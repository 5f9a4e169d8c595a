"""How true is a replay? Calls that were made live, run again: each turn's modelled wait beside the measured one.

    python benchmarks/replay_truth.py RUN

Prints, over all turns answered both times, the distribution of the difference and the turns that
differ most; exit 1 when a call does not replay to the same turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

from voicectl.analysis.definitions import Exchange, measure
from voicectl.recording import Recording
from voicectl.replay.call import missed, open_kept, replay


def exchanges(recording: Recording) -> tuple[Exchange, ...]:
    return measure(
        recording.events, recording.rate, recording.left, recording.right, broken_off=recording.cut is not None
    ).exchanges


def main(run: Path) -> int:
    differences: list[tuple[float, str]] = []
    others: list[str] = []
    for path in sorted(trace.parent for trace in run.glob("*/trace.jsonl")):
        kept = open_kept(path)
        again = replay(kept)
        others += [f"{path.name}: {miss.message}" for miss in missed(again.events)]
        for was, now in zip(exchanges(kept.recording), exchanges(again), strict=True):
            turn = f"{path.name} turn {was.number}"
            if (was.outcome, was.transcript, was.answer) != (now.outcome, now.transcript, now.answer):
                others.append(f"{turn}: {was.outcome}, “{was.answer}” is now {now.outcome}, “{now.answer}”")
            elif was.heard is not None:
                differences.append(((now.wait - was.wait) / 1000, turn))
    sizes = sorted(abs(difference) for difference, _ in differences)
    print(f"{len(sizes)} turns answered both times; modelled minus measured, ms:")
    for label, share in (("P50", 0.5), ("P90", 0.9), ("P95", 0.95), ("max", 1.0)):
        print(f"  {label} of the size  {sizes[min(len(sizes) - 1, int(share * len(sizes)))]:.1f}")
    for difference, turn in sorted(differences, key=lambda one: -abs(one[0]))[:5]:
        print(f"  {difference:+8.1f}  {turn}")
    print("\n".join(others) if others else "every call replays to the same turns")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else __doc__)
