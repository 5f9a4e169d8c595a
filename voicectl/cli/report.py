"""`voicectl report`: the report of a run again, with today's definitions."""

from __future__ import annotations

from typing import Annotated

import typer

from voicectl.cli import console
from voicectl.cli.bench import PRICES_NAME
from voicectl.cli.options import JsonOption, PricesOption
from voicectl.cli.runs import RunArgument, find_run
from voicectl.errors import UsageError


def report(
    run: RunArgument,
    json: JsonOption = False,
    prices: PricesOption = None,
    judge: Annotated[bool, typer.Option(help="Let the run's thresholds decide the exit code.")] = True,
) -> int:
    """Report a run again, with the definitions of today.

    Everything is computed anew from the calls that were kept, and money with
    today's prices.

    Example: voicectl report last
    """
    from dataclasses import replace

    from voicectl.analysis.metrics import analyse
    from voicectl.analysis.verdict import exit_code
    from voicectl.prices import load_prices
    from voicectl.recording import find_recordings, open_recording
    from voicectl.replay.runs import read_run
    from voicectl.report.json import report_json
    from voicectl.report.table import render_report

    folder = find_run(run)
    calls = list(find_recordings(folder))
    if not calls:
        raise UsageError("there is no call in this run", where=str(folder))
    about, thresholds = read_run(folder)
    own = folder / PRICES_NAME  # those that the run was given
    about = replace(about, prices=load_prices(prices or (own if own.is_file() else None)))
    analysis = analyse((open_recording(path) for path in calls), about, thresholds)
    if json:
        console.out_json(report_json(analysis))
    else:
        render_report(analysis, console.stdout_console())
    return exit_code(analysis.verdicts) if judge else 0
