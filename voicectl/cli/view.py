"""The full-screen view of a call: a `Talk` in, rows of styled text out. Pure: it reads no clock and no terminal.

    ` coffee · profile none · 0:42          default (16000 Hz) in, default (16000 Hz) out`
    ` caller ▕██████··········▏ speaks          agent ▕················▏ silent`
    the transcript, newest at the bottom: partials dim, what an interruption cut struck through
    the last turn's wait by stage, P50 and P95 with n, the device's share, the keys

`ansi` and `plain` make strings of rows; what a terminal needs beyond that is `screen.py`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size

from voicectl.analysis.percentiles import Figure
from voicectl.cli.talk import SILENT_DBFS, Line, Talk, stage_parts

Look = str  # a key of _SGR
Row = list[tuple[str, Look]]

_SGR: dict[Look, str] = {
    "": "0",
    "bold": "1",
    "dim": "2",
    "cut": "2;9",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}
_SHADES = "█▓▒░▞▚▖"  # one for each stage, so that a bar can be read without colour
_SHORT = {
    "endpointing": "end of turn",
    "stt_final": "text",
    "llm_ttft": "first token",
    "llm_sentence": "clause",
    "tts_ttfb": "voice",
    "tts_lead_silence": "lead silence",
    "playout": "playout",
}
_QUIET_DBFS, _LOUD_DBFS = -60.0, -10.0
_WHO_WIDTH = 8
KEYS = (
    ("m", "mute"),
    ("space", "push to talk"),
    ("i", "interrupt"),
    ("t", "type"),
    ("r", "repeat"),
    ("k", "mark"),
    ("q", "hang up"),
)


def draw(talk: Talk, width: int, height: int) -> list[Row]:
    """Exactly `height` rows, none wider than `width`."""
    width, height = max(width, 20), max(height, 6)
    head = [_title(talk, width), _levels(talk, width), _rule(width)]
    foot = [_rule(width), *_last_turn(talk, width), *_figures(talk, width), _keys(talk, width)]
    room = max(1, height - len(head) - len(foot))
    said = list(_transcript(talk.lines, width, room))[-room:]
    rows = [*head, *([[("", "")]] * (room - len(said))), *said, *foot]
    return [_fit(row, width) for row in rows[-height:]]


def plain(rows: Iterable[Row]) -> list[str]:
    """Without styles: what was cut stands between ~~."""
    return ["".join(f"~~{text}~~" if look == "cut" and text else text for text, look in row).rstrip() for row in rows]


def ansi(rows: Iterable[Row]) -> list[str]:
    return ["".join(f"\x1b[{_SGR[look]}m{text}\x1b[0m" if look else text for text, look in row) for row in rows]


# The head --------------------------------------------------------------------------------------


def _title(talk: Talk, width: int) -> Row:
    minutes, seconds = divmod(int(talk.now), 60)
    left = f" {talk.agent}"
    rest = f" · profile {talk.profile} · {minutes}:{seconds:02}"
    right = "NO SOUND DEVICE " if talk.lost else f"{talk.devices} "
    room = width - cell_len(left + rest) - 2
    if cell_len(right) > room:
        right = set_cell_size(right, max(0, room - 2)).rstrip() + "… " if room > 12 else ""
    gap = " " * max(0, width - cell_len(left + rest + right))
    return [(left, "bold"), (rest, ""), (gap, ""), (right, "red" if talk.lost else "dim")]


def _levels(talk: Talk, width: int) -> Row:
    room = max(4, (width - 40) // 2)
    caller = "muted" if talk.muted else "speaks" if talk.caller_speaks else "silent"
    agent = "speaks" if talk.agent_speaks else "thinks" if talk.thinking else "silent"
    row: Row = [(" caller ", "bold"), *_meter(SILENT_DBFS if talk.muted else talk.caller_dbfs, room)]
    row += [(f" {caller:<8}", "yellow" if talk.muted else "green" if talk.caller_speaks else "dim")]
    row += [("  agent ", "bold"), *_meter(talk.agent_dbfs, room)]
    row += [(f" {agent:<8}", "cyan" if talk.agent_speaks else "dim")]
    return row


def _meter(dbfs: float, room: int) -> Row:
    share = (max(dbfs, SILENT_DBFS) - _QUIET_DBFS) / (_LOUD_DBFS - _QUIET_DBFS)
    filled = max(0, min(room, round(share * room)))
    look: Look = "red" if dbfs > -6 else "green"
    return [("▕", "dim"), ("█" * filled, look), ("·" * (room - filled), "dim"), ("▏", "dim")]


def _rule(width: int) -> Row:
    return [("─" * width, "dim")]


# The transcript --------------------------------------------------------------------------------


def _transcript(lines: Sequence[Line] | Iterable[Line], width: int, room: int) -> Iterable[Row]:
    """The last rows that fit, from the newest back."""
    rows: list[Row] = []
    for line in reversed(list(lines)):
        rows = [*_said(line, width), *rows]
        if len(rows) >= room:
            break
    return rows


def _said(line: Line, width: int) -> list[Row]:
    who = {"note": "·", "error": "error"}.get(line.who, line.who)
    look: Look = "red" if line.who == "error" else "dim" if line.open or line.who == "note" else ""
    wait = f"{line.wait_ms:.0f} ms" if line.wait_ms is not None else ""
    parts: list[tuple[str, Look]] = [(line.text, look), (line.cut, "cut")]
    if wait:
        parts.append((wait, "cyan"))
    pieces = _wrap(parts, max(10, width - _WHO_WIDTH - 2))
    whose: Look = "red" if line.who == "error" else "cyan" if line.who == "agent" else "bold"
    rows: list[Row] = []
    for number, piece in enumerate(pieces):
        name = f"{who:>{_WHO_WIDTH - 1}} " if number == 0 else " " * _WHO_WIDTH
        rows.append([(name, whose), *piece])
    return rows


def _wrap(parts: Sequence[tuple[str, Look]], width: int) -> list[Row]:
    """Styled words, as many to a row as fit."""
    rows: list[Row] = [[]]
    used = 0
    for text, look in parts:
        for word in [text] if look == "cyan" else text.split():  # a wait stays in one piece
            for piece in [word] if cell_len(word) <= width else textwrap.wrap(word, width):
                size = cell_len(piece)
                if used and used + 1 + size > width:
                    rows.append([])
                    used = 0
                before = rows[-1][-1] if rows[-1] else None
                if before and before[1] == look:
                    rows[-1][-1] = (f"{before[0]} {piece}", look)
                else:
                    if before:
                        rows[-1].append((" ", ""))
                    rows[-1].append((piece, look))
                used += size + (1 if used else 0)
    return rows


# The foot --------------------------------------------------------------------------------------


def _last_turn(talk: Talk, width: int) -> list[Row]:
    """One bar, a shade for each stage, and what each shade is."""
    last = talk.last
    parts = stage_parts(last) if last else []
    if last is None or not parts:
        return [[(" last turn  none yet", "dim")], [("", "")]]
    whole = last.wait / 1000
    head = f" last turn {whole:>5.0f} ms "
    room = max(8, width - len(head) - 1)
    bar: Row = [(head, "bold")]
    names = {stage: f"{_SHORT[stage]} {ms:.0f}" for stage, ms in parts}
    left = width - 1
    named: set[str] = set()
    for stage, _ in sorted(parts, key=lambda part: -part[1]):  # the short ones go unnamed where there is no room
        if (left := left - len(names[stage]) - 4) >= 0:
            named.add(stage)
    legend: Row = [(" ", "")]
    reached = 0.0
    drawn = 0
    for number, (stage, ms) in enumerate(parts):
        shade = _SHADES[number % len(_SHADES)]
        reached += ms
        end = round(reached / whole * room)
        bar.append((shade * max(0, end - drawn), "cyan"))
        drawn = max(drawn, end)
        if stage in named:
            legend += [(f"{shade} ", "cyan"), (f"{names[stage]}  ", "")]
    return [bar, legend]


def _figures(talk: Talk, width: int) -> list[Row]:
    found = talk.summary()
    row: Row = [(" waits  ", "bold"), (f"n={found.n}  P50 {_figure(found.p50)}  P95 {_figure(found.p95)}", "")]
    if talk.early or talk.unanswered:
        row.append((f"  {talk.early} early, {talk.unanswered} unanswered", "yellow"))
    second: Row = [(" ", "")]
    if talk.device_s is not None:
        taken, given = (1000 * one for one in talk.device_s)
        second.append((f"device {taken + given:.0f} ms of each ({taken:.0f} in, {given:.0f} out)  ", "dim"))
    common = max(talk.providers.values(), key=list(talk.providers.values()).count) if talk.providers else ""
    others = [f"{stage} {name}" for stage, name in talk.providers.items() if name != common]
    second.append((", ".join([*others, f"else {common}" if others else common]) + "  ", "dim"))
    second += [(f"{stage} {state}  ", "red") for stage, state in talk.breakers.items() if state != "closed"]
    if talk.troubles:
        second.append((f"sound stumbled {talk.troubles}×", "yellow"))
    return [row, second]


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return f"– (needs n≥{figure.needs})"
    text = f"{'> ' if figure.at_least else ''}{figure.value:.0f} ms"
    if figure.ci95 is not None:
        return f"{text} ({figure.ci95[0]:.0f}…{figure.ci95[1]:.0f})"
    return f"{text} (± n≥{figure.interval_needs})" if figure.interval_needs else text


def _keys(talk: Talk, width: int) -> Row:
    if talk.typing is not None:
        shown = talk.typing[-max(1, width - 32) :]
        return [(" say: ", "bold"), (shown + "▏", ""), ("  (enter sends, esc drops)", "dim")]
    row: Row = []
    for key, does in KEYS:
        row += [(f" {key} ", "bold"), (does, "dim")]
    return row


def _fit(row: Row, width: int) -> Row:
    """Cut what is too long; styles stay."""
    fitted: Row = []
    for text, look in row:
        size = cell_len(text)
        if size > width:
            fitted.append((set_cell_size(text, max(0, width)), look))
            break
        fitted.append((text, look))
        width -= size
    return fitted
