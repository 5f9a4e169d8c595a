"""`voicectl replay --sweep`: what if? A table and a plot of waits against callers cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voicectl.cli import console
from voicectl.errors import EXIT_OK


def sweep_recordings(
    folders: Sequence[Path],
    texts: Sequence[str],
    overrides: Sequence[str],
    jobs: int | None,
    *,
    json: bool,
    quiet: bool,
) -> int:
    """Replay all recordings under all settings and tell what it would have done to callers."""
    from voicectl.recording import open_recording
    from voicectl.replay.pool import cores
    from voicectl.replay.sweep import CUT_OFF_MS, as_json, check_has_effect, grid, parse_axis, plot, sweep, table

    axes = [parse_axis(text) for text in texts]
    for override in overrides:
        check_has_effect(override.partition("=")[0].strip())
    count = len(grid(axes))
    audio_s = sum(open_recording(folder).seconds for folder in folders)
    progress = console.ProgressLine(quiet=quiet, after_s=2.0)
    begun = console.seconds()
    try:
        result = sweep(
            folders,
            axes,
            overrides=overrides,
            audio_s=audio_s,
            processes=jobs or cores(),
            progress=lambda done: progress(f"{done} of {len(folders)} calls replayed {count} times"),
        )
    finally:
        progress.done()
    if json:
        console.out_json(as_json(result))
        return EXIT_OK
    console.table(*table(result))
    for setting, why in result.impossible:
        console.out(f"not possible: {', '.join(setting)}: {why}")
    console.out()
    for line in plot(result):
        console.out(line)
    console.out()
    console.out("Small letters are the P50 of voice-to-voice, large ones the P95; * is the best at both.")
    console.out(f"cost: mean wait, and {CUT_OFF_MS / 1000:.0f} s for each caller cut off, who has to say it again.")
    console.out("nearest: answers that were not recorded, and were taken from the nearest that was.")
    wall_s = console.seconds() - begun
    minutes = audio_s * len(result.rows) / 60
    console.out(
        f"{len(folders)} call{'s' * (len(folders) != 1)} × {len(result.rows)} settings, {minutes:.0f} min of audio "
        f"in {wall_s:.1f} s (modelled)"
    )
    return EXIT_OK
