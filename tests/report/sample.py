"""A run with something of everything, and the reports it gives: `python -m report.sample` rewrites them.

Run it in tests/ after a wanted change of the report, and read the difference.
"""

from __future__ import annotations

import io
from pathlib import Path

from analysis.fabricate import Fabricated
from rich.console import Console

from voicectl.analysis.metrics import Analysis, Run, analyse
from voicectl.events import FrameLate
from voicectl.report.table import render_report
from voicectl.spec.threshold import parse_threshold

HERE = Path(__file__).resolve().parent
WIDTHS = (80, 120)
THRESHOLDS = (
    "p95(voice_to_voice_ms) < 1300",
    "p50(voice_to_voice_ms) < 600",
    "p99(tts_ttfb_ms) < 300",
    "rate(slot_recall) >= 90%",
    "count(no_answer) <= 0",
)


def sample() -> Analysis:
    """24 calls of four turns, one of which nobody answers, one answered early, one barge-in, one "mhm"."""
    calls = [_call(number) for number in range(24)]
    run = Run(
        agent="coffee",
        profile="local",
        peak_rss_mb=1044.25,
        machine={"cpus": 2, "system": "Linux", "python": "3.11.7"},
        busy_cpus=0.71,
    )
    return analyse([call.recording() for call in calls], run, [parse_threshold(text) for text in THRESHOLDS])


def _call(number: int) -> Fabricated:
    call, at = Fabricated(name=f"{number + 1:04}-ada"), 1.0
    call.reply(None, 0.02, lead=0.08, until=0.8)
    orders = ("A large latte, please.", "Make it a double shot.", "With [oat] milk and two sugars.", "That's all.")
    for turn, text in enumerate(orders):
        if turn == 1 and number % 2:
            at = _thought_ahead(call, at + 0.9, text, 0.5 + number / 100)
            continue
        wait = 0.6 + (number * 7 + turn * 5) % 24 / 50 + (0.9 if (number, turn) == (9, 2) else 0)
        at = call.exchange(at + 0.9, wait, text=text, slots={"order": text} if turn == 2 else None)
    if number == 3:
        call.say(at + 1, at + 2, text="Hello?", name="05.wav")
        at += 12
    if number == 5:
        call.say(at + 1, at + 3, text="I would like a tea.", name="05.wav")
        first = call.turn(at + 1, at + 1.8, ended=0.3, final=0.2, text="I would")
        second = call.turn(at + 2.5, at + 3, ended=0.3, final=0.2, text="like a tea")
        call.reply(first, at + 2.3, until=at + 2.9, stopped_by=second)
        call.reply(second, at + 3.7, until=at + 4.5)
        at += 5
    if number == 6:
        call.say(at - 0.5, at + 0.5, during_agent=True, text="Wait, a small one.", name="05.wav")
        second = call.turn(at - 0.5, at + 0.5, ended=0.3, final=0.25, text="Wait, a tall one.")
        call.reply(second, at + 1.2, until=at + 2.0)
        call.say(at + 1.5, at + 1.7, backchannel=True, text="mhm", name="06.wav")
        at += 3
    if number == 8:
        call.note(FrameLate(at=1.0, late=0.085), FrameLate(at=2.0, late=0.031))
    return call.end(at + 1)


def _thought_ahead(call: Fabricated, begin: float, text: str, silence: float) -> float:
    """An exchange whose answer was ready before the endpointer was sure."""
    end = begin + 1.0
    call.say(begin, end, text=text)
    turn = call.turn(begin, end, ended=silence, final=0.18, text=text)
    call.reply(
        turn, end + silence + 0.02, begun=end + 0.18, token=0.07, clause=0.12, audio=0.2, until=end + silence + 1
    )
    return end + silence + 1


def rendered(analysis: Analysis, width: int, *, encoding: str = "utf-8", terminal: bool = False) -> str:
    """What the report prints."""
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    colours = "standard" if terminal else None
    render_report(analysis, Console(file=file, width=width, force_terminal=terminal, color_system=colours, _environ={}))
    file.flush()
    return buffer.getvalue().decode(encoding)


def golden(width: int) -> Path:
    return HERE / f"report-{width}.txt"


if __name__ == "__main__":
    for width in WIDTHS:
        golden(width).write_text(rendered(sample(), width), encoding="utf-8")
