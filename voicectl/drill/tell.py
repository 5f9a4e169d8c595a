"""A drill told to people and programs: table, summary, JSON, and the written record. Pure: outcomes in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from voicectl.analysis.percentiles import LEAST_N, Value, summarise
from voicectl.drill.cells import HEALTHY, MOMENTS, Cell, Moment
from voicectl.drill.listen import Words
from voicectl.drill.outcome import Outcome

DRILL_VERSION = 1

_WITH, _WITHOUT = "", "bare: "
LEGEND = (
    "Worst gap in ms; -2: words lost, +2: repeated, ~2: only partly heard; LOST: a turn was not answered; "
    "·: the fault found nobody to strike; !: this machine was too busy to tell; "
    "bare: without retry, timeout, breaker, hedge and fallback."
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Many cells in figures. Percentiles are over each cell's worst gap, ms; None: too few cells for one."""

    n: int
    survived: int
    p50_ms: float | None
    p95_ms: float | None
    max_ms: float
    words: Words
    wasted_usd: float
    unpriced: tuple[str, ...]
    disturbed: int


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """The cells in which something went wrong, together; a fault that found nobody to strike did not."""
    drilled = [one for one in outcomes if one.cell not in HEALTHY and one.struck]
    gaps = summarise([Value(one.worst_gap_ms, censored=not one.survived) for one in drilled])
    words = Words()
    for one in drilled:
        words += one.words
    return Summary(
        n=len(drilled),
        survived=sum(one.survived for one in drilled),
        p50_ms=gaps.p50.value,
        p95_ms=gaps.p95.value,
        max_ms=max((one.worst_gap_ms for one in drilled), default=0.0),
        words=words,
        wasted_usd=sum(one.wasted_usd for one in drilled),
        unpriced=tuple(dict.fromkeys(model for one in drilled for model in one.unpriced)),
        disturbed=sum(one.disturbed for one in drilled),
    )


_LOST_SHARE = 0.02  # of the words; more and callers ask again


def passes(outcomes: Sequence[Outcome], max_gap_ms: float) -> bool:
    """Whether the agent with its wrappers got through: no call lost (those without a fault neither), no
    word repeated and hardly one lost, and the worst gaps' P95 (with too few cells for one, the longest)
    at most so long. Where nothing was struck nothing was rehearsed."""
    helped = [one for one in outcomes if one.fallbacks]
    found = summary(helped)
    gap_ms = found.max_ms if found.p95_ms is None else found.p95_ms
    words = found.words
    clear = words.repeated == 0 and words.lost <= _LOST_SHARE * words.said
    return found.n > 0 and all(one.survived for one in helped) and clear and gap_ms <= max_gap_ms


# The table -------------------------------------------------------------------------------------


def header(outcomes: Sequence[Outcome]) -> list[str]:
    """Names of the columns."""
    return ["fault", "stage", *(f"{prefix}{moment}" for prefix, _, moment in _columns(outcomes))]


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A line for each fault and stage."""
    columns = _columns(outcomes)
    found = {(one.cell, one.fallbacks): one for one in outcomes}
    lines: list[list[str]] = []
    for (kind, stage), _ in groupby(sorted(found, key=lambda key: _order(outcomes, key[0])), key=_row):
        cells = [found.get((Cell(kind, stage, moment), fallbacks)) for _, fallbacks, moment in columns]
        lines.append([kind, "" if kind == "none" else stage, *(_cell(one) if one else "" for one in cells)])
    return lines


def _columns(outcomes: Sequence[Outcome]) -> list[tuple[str, bool, Moment]]:
    found = {(one.fallbacks, one.cell.moment) for one in outcomes}
    each = ((prefix, fallbacks) for prefix, fallbacks in ((_WITH, True), (_WITHOUT, False)))
    return [(prefix, on, moment) for prefix, on in each for moment in MOMENTS if (on, moment) in found]


def _row(key: tuple[Cell, bool]) -> tuple[Any, Any]:
    return key[0].kind, key[0].stage


def _order(outcomes: Sequence[Outcome], cell: Cell) -> int:
    """Where a row stands: as the cells were planned, whichever call ended first."""
    from voicectl.drill.cells import STAGES
    from voicectl.standin.faults import KINDS

    kind = -1 if cell.kind == "none" else KINDS.index(cell.kind)
    return kind * len(STAGES) + STAGES.index(cell.stage)


def _cell(one: Outcome) -> str:
    words = one.words
    marks = [
        f"{sign}{count}" for sign, count in zip("-+~", (words.lost, words.repeated, words.broken), strict=True) if count
    ]
    if one.lost:
        marks = ["LOST", *(mark for mark in marks if mark.startswith("+"))]
    else:
        marks = [f"{one.worst_gap_ms:.0f}", *marks]
    if not one.struck and one.cell.kind != "none":
        marks.append("·")
    if one.disturbed:
        marks.append("!")
    return " ".join(marks)


def troubles(outcomes: Sequence[Outcome]) -> list[str]:
    """What went badly although there are wrappers, a line each: what the table has no room for."""
    lines: list[str] = []
    for one in sorted((one for one in outcomes if one.fallbacks), key=lambda one: _order(outcomes, one.cell)):
        what = [one.lost] if one.lost else []
        if one.words.repeated:
            what.append(f"{one.words.repeated} words repeated")
        if one.words.lost and not one.lost:
            what.append(f"{one.words.lost} words lost")
        if one.words.broken:
            what.append(f"{one.words.broken} words broken")
        if what:
            why = [f"this machine was {one.late_ms:.0f} ms late"] if one.disturbed else one.failures[-1:]
            lines.append(f"{one.cell}: {', '.join(what)}" + (f" ({why[0]})" if why else ""))
    return lines


def summary_line(outcomes: Sequence[Outcome], *, fallbacks: bool) -> str:
    """All cells of one kind in one line."""
    found = summary([one for one in outcomes if one.fallbacks is fallbacks])
    gaps = f"worst gap P50 {_ms(found.p50_ms)}, "
    if found.p95_ms is None:
        gaps += f"longest {found.max_ms:.0f} ms (P95 takes {LEAST_N['p95']} cells)"
    else:
        gaps += f"P95 {_ms(found.p95_ms)}, longest {found.max_ms:.0f} ms"
    words = found.words
    money = f"${found.wasted_usd:.4f} wasted" + (
        f" or more ({', '.join(found.unpriced)} unpriced)" * bool(found.unpriced)
    )
    return (
        f"{'as it is' if fallbacks else 'without fallbacks'}: {found.survived} of {found.n} calls survived, {gaps}; "
        f"of {words.said} words {words.lost} lost, {words.repeated} repeated, {words.broken} broken; {money}"
        + f"; {found.disturbed} disturbed by this machine"
        * bool(found.disturbed)
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


# JSON ------------------------------------------------------------------------------------------


def report(outcomes: Sequence[Outcome], about: Mapping[str, Any], max_gap_ms: float, *, planned: int) -> dict[str, Any]:
    """Everything, as plain values. `about` says what was drilled, and when."""
    return {
        "voicectl_drill": DRILL_VERSION,
        **about,
        "max_gap_ms": max_gap_ms,
        "planned": planned,
        "made": len(outcomes),
        "passed": passes(outcomes, max_gap_ms) and len(outcomes) == planned,
        "summary": {
            name: _plain(summary(some))
            for name, some in (
                ("with_fallbacks", [one for one in outcomes if one.fallbacks]),
                ("without_fallbacks", [one for one in outcomes if not one.fallbacks]),
            )
            if some
        },
        "cells": [_outcome(one) for one in sorted(outcomes, key=lambda one: _order(outcomes, one.cell))],
    }


def _plain(found: Summary) -> dict[str, Any]:
    return {
        "n": found.n,
        "survived": found.survived,
        "worst_gap_p50_ms": _rounded(found.p50_ms),
        "worst_gap_p95_ms": _rounded(found.p95_ms),
        "worst_gap_max_ms": _rounded(found.max_ms),
        "words": _words(found.words),
        "wasted_usd": round(found.wasted_usd, 6),
        "unpriced": list(found.unpriced),
        "disturbed": found.disturbed,
    }


def _outcome(one: Outcome) -> dict[str, Any]:
    return {
        "fault": one.cell.kind,
        "stage": one.cell.stage,
        "moment": one.cell.moment,
        "fallbacks": one.fallbacks,
        "struck": one.struck,
        "survived": one.survived,
        "lost": one.lost or None,
        "worst_gap_ms": _rounded(one.worst_gap_ms),
        "turns": [
            {
                "answered": turn.answered,
                "gap_ms": None if turn.gap_s is None else _rounded(1000 * turn.gap_s),
                "silence_ms": _rounded(1000 * turn.silence_s),
                "words": _words(turn.words),
                "voices": list(turn.voices),
            }
            for turn in one.turns
        ],
        "words": _words(one.words),
        "breakers": one.breakers,
        "deeds": list(one.deeds),
        "failures": list(one.failures),
        "wasted_usd": round(one.wasted_usd, 6),
        "unpriced": list(one.unpriced),
        "late_ms": _rounded(one.late_ms),
        "recording": one.folder,
    }


def _words(words: Words) -> dict[str, int]:
    return {"said": words.said, "lost": words.lost, "repeated": words.repeated, "broken": words.broken}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


# The record --------------------------------------------------------------------------------------


def record(outcomes: Sequence[Outcome], about: Mapping[str, Any], max_gap_ms: float, *, planned: int) -> str:
    """The drill in writing, as Markdown."""
    passed = passes(outcomes, max_gap_ms) and len(outcomes) == planned
    lines = [f"# Drill of {about['agent']}, {about['date']}", ""]
    lines += [
        f"- {name.replace('_', ' ')}: {_said(value)}" for name, value in about.items() if name not in ("agent", "date")
    ]
    lines += [
        f"- asked for: every call survives, no word is repeated, worst gap P95 at most {max_gap_ms:.0f} ms",
        f"- result: **{'passed' if passed else 'not passed'}**",
        "",
    ]
    if len(outcomes) < planned:
        lines += [f"Interrupted: {len(outcomes)} of {planned} calls were made.", ""]
    for fallbacks in (True, False):
        if any(one.fallbacks is fallbacks for one in outcomes):
            lines += [f"{_capital(summary_line(outcomes, fallbacks=fallbacks))}.", ""]
    lines += _markdown(header(outcomes), rows(outcomes))
    lines += ["", LEGEND, ""]
    if found := troubles(outcomes):
        lines += ["## What went badly", "", *(f"- {line}" for line in found), ""]
    deeds = [one for one in outcomes if one.fallbacks and (one.deeds or one.breakers)]
    if deeds:
        lines += ["## What the wrappers did", ""]
        lines += [
            f"- {one.cell}: {'; '.join(one.deeds)}" for one in sorted(deeds, key=lambda one: _order(outcomes, one.cell))
        ]
        lines.append("")
    return "\n".join(lines)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said}" for name, said in value.items())  # pyright: ignore[reportUnknownVariableType]
    return ", ".join(cast("list[str]", value)) if isinstance(value, list) else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(head), ["---"] * len(head), *body]
    return [f"| {' | '.join(line)} |" for line in lines]
