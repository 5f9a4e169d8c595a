"""What if? All recordings replayed under each setting of a grid, and what it would have done to callers.

    parse_axis("turn.endpointing.silence_ms=200..800:100")
    parse_axis("turn.speculation=true,false")
    parse_axis("turn.endpointing.strategy=silence,[text, audio]")

What the recordings do not hold is answered by the nearest that they do hold, and counted. The
callers' side is what it was: they do not react to an agent that answers sooner or later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import product
from pathlib import Path

from voicectl.analysis.definitions import Share
from voicectl.analysis.metrics import Call, Run, measured, sum_up
from voicectl.analysis.percentiles import Summary
from voicectl.errors import SpecError, UsageError
from voicectl.events import AgentInterrupted
from voicectl.replay.call import agent_of, open_kept, replay
from voicectl.replay.pool import on_all_cores
from voicectl.spec import STAGES

CUT_OFF_MS = 5_000.0
"""What it costs a caller to be cut off: about the time to say it again."""

MOST_SETTINGS = 1_000

# The grid --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Axis:
    """One key and the values it takes, as `--set` would be given them; `named` one by one, not as a range."""

    key: str
    values: tuple[str, ...]
    named: bool = True


Setting = tuple[str, ...]
"""One value of each axis."""


_BETWEEN_VALUES = re.compile(r",(?![^\[]*\])")  # not inside a list


def parse_axis(text: str) -> Axis:
    """Read `KEY=FROM..TO:STEP` or `KEY=A,B,C`; a value may be a list, `[A, B]`.

    Raises:
        UsageError: it is neither, or the key means nothing to a replay.
    """
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not key or not values:
        raise _bad(text)
    check_has_effect(key)
    if ".." in values:
        return Axis(key, tuple(_range(text, values)), named=False)
    listed = tuple(value.strip() for value in _BETWEEN_VALUES.split(values))
    if not all(listed) or len(set(listed)) < len(listed):
        raise _bad(text)
    return Axis(key, listed)


def _range(text: str, values: str) -> Iterator[str]:
    bounds, _, step_text = values.partition(":")
    try:
        first, last = (Decimal(bound) for bound in bounds.split(".."))
        step = Decimal(step_text)
    except (InvalidOperation, ValueError):
        raise _bad(text) from None
    if not (first.is_finite() and last.is_finite() and step.is_finite()) or step <= 0 or last < first:
        raise _bad(text)
    if (last - first) / step >= MOST_SETTINGS:
        raise UsageError(f"'{text}' are more than {MOST_SETTINGS} values", hint="Take a larger step")
    value = first
    while value <= last:
        yield f"{value.normalize():f}"
        value += step


def _bad(text: str) -> UsageError:
    return UsageError(
        f"cannot read the sweep '{text}'",
        hint="Write KEY=FROM..TO:STEP or KEY=A,B,C: turn.endpointing.silence_ms=200..800:100",
    )


def check_has_effect(key: str) -> None:
    """Raises:
    UsageError: a replay plays the recorded providers, line and clock, so the key changes nothing.
    """
    top = key.split(".")[0]
    others = ("line", "clock", "description", "language", "thresholds")
    provider = (top in STAGES and key != "vad.threshold") or key.startswith("turn.endpointing.audio")
    if provider or top in others:
        raise UsageError(
            f"'{key}' changes nothing: a replay has the recorded providers, line and clock",
            hint="Change turn.*, vad.threshold, instructions or greeting",
        )


def grid(axes: Sequence[Axis]) -> list[Setting]:
    """Every combination, in the order of the axes.

    Raises:
        UsageError: there are too many.
    """
    settings = list(product(*(axis.values for axis in axes)))
    if len(settings) > MOST_SETTINGS:
        raise UsageError(f"{len(settings)} settings are more than {MOST_SETTINGS}", hint="Take larger steps")
    return settings


# The replays -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One recording under every setting."""

    path: Path
    keys: tuple[str, ...]
    settings: tuple[Setting, ...]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """One recording under one setting."""

    call: Call
    interruptions: int
    nearest: int


def try_settings(job: Job) -> list[Tried]:
    """Replay one recording under every setting.

    Raises:
        RecordingError: it cannot be replayed.
    """
    kept = open_kept(job.path)
    tried: list[Tried] = []
    for setting in job.settings:
        agent = agent_of(job.path, (*job.overrides, *_overrides(job.keys, setting)))
        nearest: list[str] = []
        now = replay(kept, agent, "nearest", nearest.append)
        interruptions = sum(isinstance(event, AgentInterrupted) for event in now.events)
        tried.append(Tried(replace(measured(now), name=str(job.path)), interruptions, len(nearest)))
    return tried


def _overrides(keys: Sequence[str], setting: Setting) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in zip(keys, setting, strict=True))


# The result ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting over all recordings.

    Args:
        waits: voice-to-voice, ms.
        early: answered before the caller had finished.
        interruptions: how often a caller stopped the agent.
        nearest: how many answers were not recorded and taken from the nearest.
        cost_ms: mean wait, and `CUT_OFF_MS` for each caller cut off, a turn.
    """

    setting: Setting
    waits: Summary
    early: Share
    no_answer: Share
    interruptions: int
    nearest: int
    cost_ms: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """All settings that are possible, and the best; and those that are not, with the reason."""

    keys: tuple[str, ...]
    rows: tuple[Row, ...]
    impossible: tuple[tuple[Setting, str], ...]

    @property
    def best(self) -> Row | None:
        return min((row for row in self.rows if row.waits.n), key=lambda row: row.cost_ms, default=None)


def sweep(
    paths: Sequence[Path],
    axes: Sequence[Axis],
    *,
    overrides: Sequence[str] = (),
    audio_s: float,
    processes: int,
    progress: Callable[[int], None],
) -> Sweep:
    """Replay all recordings under all settings.

    Args:
        overrides: changes that hold under every setting.
        audio_s: how long the recordings are together.
        progress: told after each recording how many are done.

    Raises:
        SpecError: no setting is possible, or none with a value that was named: an unknown key, a value
            out of its range.
        RecordingError: a recording cannot be replayed.
    """
    keys = tuple(axis.key for axis in axes)
    settings, impossible = _possible(paths[0], axes, overrides)
    jobs = [Job(path, keys, tuple(settings), tuple(overrides)) for path in paths]
    tried: list[list[Tried]] = []
    for one in on_all_cores(try_settings, jobs, audio_s=audio_s * len(settings), processes=processes):
        tried.append(one)
        progress(len(tried))
    rows = [_row(setting, [one[index] for one in tried]) for index, setting in enumerate(settings)]
    return Sweep(keys, tuple(rows), tuple(impossible))


def _possible(
    path: Path, axes: Sequence[Axis], overrides: Sequence[str]
) -> tuple[list[Setting], list[tuple[Setting, str]]]:
    """A pause longer than the silence is no setting; a value that is possible with no other was meant
    otherwise, when somebody named it."""
    keys = tuple(axis.key for axis in axes)
    possible: list[Setting] = []
    impossible: list[tuple[Setting, SpecError]] = []
    for setting in grid(axes):
        try:
            agent_of(path, (*overrides, *_overrides(keys, setting)))
            possible.append(setting)
        except SpecError as error:
            impossible.append((setting, error))
    for index, axis in enumerate(axes):
        good = {setting[index] for setting in possible}
        for setting, error in impossible:
            if setting[index] not in good and (axis.named or not good):
                raise SpecError([replace(one, where=_as_asked(one.where, keys)) for one in error.problems])
    return possible, [(setting, error.message) for setting, error in impossible]


def _as_asked(where: str, keys: Sequence[str]) -> str:
    """What was swept is not what was `--set`."""
    option, _, key = where.partition(" ")
    return f"--sweep {key}" if option == "--set" and key in keys else where


def _row(setting: Setting, tried: Sequence[Tried]) -> Row:
    analysis = sum_up([one.call for one in tried], Run(agent="", profile="", warm=True))
    waits, early = analysis.durations["voice_to_voice_ms"], analysis.shares["early_answer"]
    return Row(
        setting=setting,
        waits=waits,
        early=early,
        no_answer=analysis.shares["no_answer"],
        interruptions=sum(one.interruptions for one in tried),
        nearest=sum(one.nearest for one in tried),
        cost_ms=(waits.mean.value or 0.0) + CUT_OFF_MS * (early.ratio or 0.0),
    )


# For people and programs -----------------------------------------------------------------------

_HEIGHT, _WIDTH = 14, 56


def table(result: Sweep) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows. The letter is the one in the plot."""
    keys = [key.rsplit(".", 1)[-1] for key in result.keys]
    counted = ("n", "P50", "P95", "cut off", "no answer", "interrupted", "nearest", "cost", "")
    rows: list[tuple[str, ...]] = []
    for letter, row in zip(_letters(result), result.rows, strict=True):
        waits = (
            "–" if figure.value is None else f"{'> ' * figure.at_least}{figure.value:.0f} ms"
            for figure in (row.waits.p50, row.waits.p95)
        )
        early = f"{row.early.count} ({row.early.ratio or 0:.0%})"
        best = "best" if row is result.best else ""
        counts = (early, str(row.no_answer.count), str(row.interruptions), str(row.nearest), f"{row.cost_ms:.0f} ms")
        rows.append((letter, *row.setting, str(row.waits.n), *waits, *counts, best))
    return ("", *keys, *counted), rows


def _letters(result: Sweep) -> list[str]:
    many = len(result.rows) > 26
    return ["*" if row is result.best else "·" if many else chr(97 + i) for i, row in enumerate(result.rows)]


def plot(result: Sweep) -> list[str]:
    """Voice-to-voice (up) against the share of callers cut off (right): a setting's letter small at
    its P50, large at its P95; `*` is the best."""
    points: list[tuple[float, float, str]] = []
    for letter, row in zip(_letters(result), result.rows, strict=True):
        for figure, mark in ((row.waits.p95, letter.upper()), (row.waits.p50, letter)):
            if figure.value is not None and not figure.at_least:
                points.append((row.early.ratio or 0.0, figure.value, mark))
    if not points:
        return []
    right = max(max(x for x, _, _ in points), 0.01)
    low, high = min(y for _, y, _ in points), max(y for _, y, _ in points)
    span = max(high - low, 1.0)
    cells = [[" "] * (_WIDTH + 1) for _ in range(_HEIGHT + 1)]
    for x, y, mark in sorted(points, key=lambda point: point[2] == "*"):
        _put(mark, cells[round((high - y) / span * _HEIGHT)], round(x / right * _WIDTH))
    lines = [f"{high - index / _HEIGHT * span:6.0f} ┤{''.join(cells[index]).rstrip()}" for index in range(_HEIGHT + 1)]
    axis = f"{'ms':>6} └{'─' * (_WIDTH + 1)}"
    scale = f"{'':8}0%{'callers cut off':^{_WIDTH - 8}}{right:>6.0%}"
    return [*lines, axis, scale]


def _put(mark: str, line: list[str], column: int) -> None:
    """There, or beside those that are there already; the best is always in its place."""
    free = [at for at in range(len(line)) if line[at] == " " or mark == "*"]
    if free:
        line[min(free, key=lambda at: abs(at - column))] = mark


def as_json(result: Sweep) -> dict[str, object]:
    """`voicectl replay --sweep ... --json`."""
    return {
        "keys": list(result.keys),
        "cut_off_ms": CUT_OFF_MS,
        "settings": [
            {
                "setting": dict(zip(result.keys, row.setting, strict=True)),
                "n": row.waits.n,
                "p50_ms": row.waits.p50.value,
                "p95_ms": row.waits.p95.value,
                "mean_ms": row.waits.mean.value,
                "early_answer": {"count": row.early.count, "total": row.early.total},
                "no_answer": {"count": row.no_answer.count, "total": row.no_answer.total},
                "interruptions": row.interruptions,
                "nearest": row.nearest,
                "cost_ms": row.cost_ms,
                "best": row is result.best,
            }
            for row in result.rows
        ],
        "impossible": [
            {"setting": dict(zip(result.keys, setting, strict=True)), "why": why} for setting, why in result.impossible
        ],
    }
