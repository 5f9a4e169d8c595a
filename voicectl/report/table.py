"""The terminal report of a run. Reads well at 80 columns and at 120; plain text where no terminal is.

Order: the answer first (how long callers waited), then the percentiles, the turns that explain them,
how far the pipeline's stamps are from the sound, what else happened, money, thresholds, warnings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import accumulate

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from voicectl.analysis.cost import Cost, Line
from voicectl.analysis.definitions import Share
from voicectl.analysis.metrics import Analysis, Turn
from voicectl.analysis.percentiles import Figure, Value, summarise
from voicectl.analysis.verdict import Verdict, value_in_words
from voicectl.report.warnings import cautions

WORST = 3
_WIDE = 110  # columns from which an interval stands beside its figure instead of under it
_ASCII = str.maketrans(
    {
        "█": "#",
        "·": "-",
        "–": "-",
        "≥": ">=",
        "±": "+-",
        "“": '"',
        "”": '"',
        "…": "...",
        "∞": "inf",
        "→": "->",
        "−": "-",
    }
)
_COLOURS = {"pass": "green", "fail": "bold red", "undecided": "yellow"}


def render_report(analysis: Analysis, console: Console) -> None:
    """Print the report."""
    with console.capture() as printed:
        for position, section in enumerate(_sections(analysis, console.width)):
            if position:
                console.print()
            console.print(section, highlight=False)
    text = re.sub(r" +$", "", printed.get(), flags=re.MULTILINE)
    console.file.write(text.translate(_ASCII) if console.options.ascii_only else text)


def _sections(analysis: Analysis, width: int) -> Iterator[RenderableType]:
    yield _headline(analysis)
    if analysis.durations["voice_to_voice_ms"].n:
        yield _percentiles(analysis, wide=width >= _WIDE)
    if analysis.counted:
        yield _waterfalls(analysis.counted, width)
        yield _stamps(analysis)
    yield _facts(analysis)
    if analysis.cost:
        yield _money(analysis.cost)
    if analysis.verdicts:
        yield _thresholds(analysis)
    if found := cautions(analysis):
        table = Table.grid(padding=(0, 2))
        for caution in found:
            table.add_row(Text("seen", "yellow"), Text(caution.seen))
            table.add_row(Text("why", "dim"), Text(caution.why))
            table.add_row(Text("do", "dim"), Text(caution.do))
        yield Group(_title("Warnings"), table)


def _title(text: str) -> Text:
    return Text(text, "bold")


# How long ----------------------------------------------------------------------------------------


def _headline(analysis: Analysis) -> Text:
    run = analysis.run
    how = "measured (wall clock)" if analysis.times == "measured" else "modelled (virtual clock)"
    waited = analysis.durations["voice_to_voice_ms"]
    text = Text.assemble((run.agent, "bold"), f" · profile {run.profile} · {how}")
    text.append(f" · {_plural(len(analysis.calls), 'call')} · {_plural(len(analysis.turns), 'turn')}\n")
    text.append("Callers waited ")
    for label, figure in (("P50", waited.p50), ("P95", waited.p95)):
        text.append(" · " if label == "P95" else "")
        text.append(f"{label} {in_ms(figure)}{' ms' if figure.value is not None else ''}", "bold cyan")
        text.append(f" ({interval(figure)})" if interval(figure) else "")
    return text


def _percentiles(analysis: Analysis, *, wide: bool) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 1 if wide else 0, 0, 1), header_style="bold")
    table.add_column("Milliseconds", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True, min_width=3)
    for label in ("P50", "P90", "P95", "P99"):
        table.add_column(label, justify="right", no_wrap=True, min_width=6 if wide else 11)
        if wide:
            table.add_column("95%", justify="left", no_wrap=True, header_style="dim", style="dim", min_width=11)
    table.add_column("max", justify="right", no_wrap=True, min_width=7)
    for name, summary in analysis.durations.items():
        if not summary.n:
            continue
        whole = name in ("voice_to_voice_ms", "barge_in_stop_ms")
        row: list[RenderableType] = [Text(_label(name) if whole else f"  {_label(name)}", "bold" if whole else "")]
        row.append(str(summary.n))
        for figure in (summary.p50, summary.p90, summary.p95, summary.p99):
            if wide:
                row += [in_ms(figure), interval(figure)]
            else:
                row.append(Text.assemble(in_ms(figure), "\n", (interval(figure), "dim")))
        table.add_row(*row, in_ms(summary.max))
    note = "Beside" if wide else "Under"
    return Group(table, Text(f"{note} each figure: its 95% interval, or how many turns that takes.", "dim"))


# Which turns -------------------------------------------------------------------------------------


def _waterfalls(counted: Sequence[Turn], width: int) -> RenderableType:
    """The median turn and the worst ones, to one scale."""
    median = counted[(len(counted) - 1) // 2]
    worst = [turn for turn in counted[::-1][:WORST] if turn is not median]
    shown = [("median turn", median), *((f"worst turn {rank}", turn) for rank, turn in enumerate(worst, 1))]
    longest = max(turn.wait_ms for _, turn in shown) or 1.0
    parts: list[RenderableType] = [
        _title("Where the wait went: the parts add up; a stage hidden behind another adds none")
    ]
    for label, turn in shown:
        parts.append(_turn_line(label, turn, width))
        parts.append(_bars(turn, longest, width - 30))
    return Group(*parts)


def _turn_line(label: str, turn: Turn, width: int) -> Text:
    line = Text.assemble(
        (f"{label}: {turn.wait_ms:.0f} ms", "cyan"), f" · {turn.call} turn {turn.exchange.number}", overflow="ellipsis"
    )
    said = turn.exchange.transcript or turn.exchange.said
    if said:
        line.append(f" · “{said}” → “{turn.exchange.answer}”", "dim")
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def _bars(turn: Turn, longest: float, width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=18, no_wrap=True)
    table.add_column(justify="right", min_width=6, no_wrap=True)
    table.add_column(no_wrap=True)
    ends = [end / 1000 for end in accumulate(turn.exchange.waterfall or (), initial=0)]
    for stage, begin, end in zip(turn.exchange.chain, ends, ends[1:], strict=False):
        if round(end) > round(begin):
            first, last = (round(at / longest * width) for at in (begin, end))
            bar = " " * min(first, width - 1) + "█" * max(1, last - first)
            # Whole milliseconds of the ends, not of the part: so the numbers shown add up as well.
            table.add_row(f"  {_label(stage)}", f"{round(end) - round(begin)}", Text(bar, "cyan"))
    return table


def _stamps(analysis: Analysis) -> RenderableType:
    table = _plain_table("Stamps against sound, ms", ("n", "min", "P50", "P95", "max"))
    sound = summarise([Value(turn.wait_ms) for turn in analysis.counted])
    for label, summary in (
        ("voice to voice in the sound", sound),
        ("by the pipeline's stamps", analysis.by_stamps),
        ("stamps minus sound, each turn", analysis.stamps_minus_sound),
    ):
        figures = (summary.min, summary.p50, summary.p95, summary.max)
        table.add_row(f"  {label}", str(summary.n), *(in_ms(figure) for figure in figures))
    return table


# What else ---------------------------------------------------------------------------------------


def _facts(analysis: Analysis) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=17, no_wrap=True)
    for label, text in _fact_lines(analysis):
        table.add_row(label, Text(text))
    return table


def _fact_lines(analysis: Analysis) -> Iterator[tuple[str, str]]:
    none, early = analysis.of("no answer"), analysis.of("early")
    finished = analysis.shares["no_answer"].total
    yield "no answer", _which(none, finished, "{:.0f} ms")
    yield "early answers", _which(early, finished, "{:.0f} ms")
    if stop := [one for call in analysis.calls for one in call.measures.barge_ins]:
        summary = analysis.durations["barge_in_stop_ms"]
        ignored = sum(not one.yielded for one in stop)
        talked_on = f"; {ignored} talked on to the end" if ignored else ""
        yield (
            "barge-ins",
            f"{len(stop)}, agent silent after P50 {in_ms(summary.p50)}, max {in_ms(summary.max)} ms{talked_on}",
        )
    backchannels = sum((call.measures.backchannels for call in analysis.calls), Share())
    if backchannels.total:
        yield "backchannels", f"{backchannels.total}, of which {backchannels.count} stopped the agent"
    if hold_ups := [one / 1000 for call in analysis.calls for one in call.measures.hold_ups]:
        summary = summarise([Value(one) for one in hold_ups])
        yield (
            "held up",
            f"{_plural(len(hold_ups), 'time')} by no interruption, "
            f"P50 {in_ms(summary.p50)}, max {in_ms(summary.max)} ms",
        )
    thrown = sum((call.measures.thrown_away for call in analysis.calls), Share())
    if thrown.total:
        yield (
            "thinking ahead",
            f"{thrown.ratio:.0%} of the answers' tokens thrown away unheard ({thrown.count} of {thrown.total})",
        )
    if switches := [line for call in analysis.calls for line in call.measures.switches]:
        yield "taken over", f"{_plural(len(switches), 'time')}, first {switches[0]}"
    if retries := sum(call.measures.retries for call in analysis.calls):
        yield "asked again", _plural(retries, "request")
    slots, errors = analysis.shares["slot_recall"], analysis.shares["word_error_rate"]
    if slots.ratio is not None:
        yield "slot recall", f"{slots.ratio:.1%} of the truth's slot words heard ({slots.count} of {slots.total})"
    if errors.ratio is not None:
        yield "word error rate", f"{errors.ratio:.1%} ({_plural(errors.count, 'error')} in {errors.total} words)"
    greetings = [call.measures.greeting / 1000 for call in analysis.calls if call.measures.greeting is not None]
    if greetings:
        summary = summarise([Value(one) for one in greetings])
        yield "greeting", f"audible after P50 {in_ms(summary.p50)}, max {in_ms(summary.max)} ms (counted apart)"
    if analysis.cold:
        cold = analysis.cold
        waited = f"{cold.wait_ms:.0f} ms" if cold.exchange.outcome == "answered" else cold.exchange.outcome
        yield "cold first turn", f"{waited}, {cold.call} turn {cold.exchange.number} (counted apart)"
    if analysis.run.peak_rss_mb is not None:
        yield "peak memory", f"{analysis.run.peak_rss_mb:.0f} MB resident"
    if analysis.run.machine:
        yield "machine", " · ".join(f"{key} {value}" for key, value in analysis.run.machine.items())


def _which(turns: Sequence[Turn], total: int, how: str) -> str:
    if not turns:
        return f"0 of {_plural(total, 'turn')}"
    some = ", ".join(f"{turn.call} turn {turn.exchange.number} ({how.format(turn.wait_ms)})" for turn in turns[:WORST])
    return f"{len(turns)} of {_plural(total, 'turn')}: {some}{', …' if len(turns) > WORST else ''}"


def _money(cost: Cost) -> RenderableType:
    """What vendors are to be paid, and for whom nobody knows a price."""
    table = _plain_table("Money, US dollars", ("n", "total", "a call", "a minute", "wasted"))
    table.columns[0].no_wrap = False  # a model's name may be long, an amount must be whole
    for line in cost.lines:
        table.add_row(f"  {line.tally.name}", str(line.tally.requests), *_line_amounts(line, cost))
    if len(cost.lines) > 1:
        wasted = "–" if cost.wasted_ratio is None else f"{cost.wasted_ratio:.0%}"
        each = (_dollars(cost.total), _dollars(cost.per_call), _dollars(cost.per_minute))
        least = "> " if cost.not_priced else ""
        requests = str(sum(line.tally.requests for line in cost.lines))
        table.add_row(Text("  together", "bold"), requests, *(Text(least + one, "bold") for one in each), wasted)
    notes = ["n: requests."]
    if cost.not_priced:
        notes.append(f"Not priced: {', '.join(cost.not_priced)}. Give a price with --prices.")
    if cost.as_of:
        notes.append(f"By prices looked up on {cost.as_of} or later; vendors change them.")
    if estimated := sum(line.tally.estimated for line in cost.lines):
        notes.append(f"{_plural(estimated, 'request')} estimated, because the vendor did not say.")
    return Group(table, Text(" ".join(notes), "dim"))


def _line_amounts(line: Line, cost: Cost) -> Iterator[str | Text]:
    if line.money is None:
        yield Text("?", "yellow")
        yield from ("", "", "")
        return
    yield _dollars(line.money)
    yield _dollars(line.money / cost.calls if cost.calls else None)
    yield _dollars(line.money * 60 / Decimal(str(cost.seconds)) if cost.seconds else None)
    yield f"{line.wasted / line.money:.0%}" if line.money else "–"


def _dollars(amount: Decimal | None) -> str:
    if amount is None:
        return "–"
    if amount and amount < Decimal("0.00005"):
        return "< 0.0001"
    return f"{amount:.4f}" if amount < 1 else f"{amount:.2f}"


def _thresholds(analysis: Analysis) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for verdict in analysis.verdicts:
        table.add_row(
            Text(f"  {verdict.outcome}", _COLOURS[verdict.outcome]), str(verdict.threshold), _measured(verdict)
        )
    return Group(_title("Thresholds"), table)


def _measured(verdict: Verdict) -> str:
    if verdict.value is None:
        return f"needs n ≥ {verdict.needs}" if verdict.needs else "these agents have no such stage"
    return f"{'> ' if verdict.at_least else ''}{value_in_words(verdict)}"


# How it is spelled -------------------------------------------------------------------------------


def _plain_table(title: str, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(title, no_wrap=True)
    for label in columns:
        table.add_column(label, justify="right", no_wrap=True, min_width=7)
    return table


def in_ms(figure: Figure) -> str:
    return "–" if figure.value is None else f"{'> ' if figure.at_least else ''}{figure.value:.0f}"


def interval(figure: Figure) -> str:
    if figure.value is None:
        return f"needs n≥{figure.needs}"
    if figure.ci95 is None:
        return f"± n≥{figure.interval_needs}" if figure.interval_needs else ""
    low, high = figure.ci95
    return f"{low:.0f}…{'∞' if math.isinf(high) else f'{high:.0f}'}"


def _label(metric: str) -> str:
    return metric.removesuffix("_ms").replace("_", " ")


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
