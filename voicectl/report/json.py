"""A run's report for programs. Versioned: fields are added, never renamed or given another meaning.

`docs/report-schema.md` says what each field means, `docs/report.schema.json` what may be in it.
Durations are milliseconds with three decimals, which is all the resolution a trace has; money is US
dollars with nine, so that a token's price is not lost.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TypedDict

from voicectl.analysis.cost import Cost, Line
from voicectl.analysis.definitions import BargeIn, Share
from voicectl.analysis.metrics import Analysis, Call, Turn
from voicectl.analysis.percentiles import LEVELS, Summary
from voicectl.analysis.verdict import Verdict, exit_code
from voicectl.report.warnings import cautions

REPORT_VERSION = 1


class MetricJson(TypedDict):
    n: int
    censored: int
    mean: float | None
    min: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    at_least: list[str]
    refused: dict[str, int]
    ci95: dict[str, list[float | None]]
    ci95_refused: dict[str, int]


class ShareJson(TypedDict):
    count: int
    total: int
    ratio: float | None


class ExchangeJson(TypedDict):
    call: str
    turn: int
    utterance: str
    outcome: str
    cold: bool
    said: str | None
    transcript: str
    answer: str
    speech_end_ms: float
    heard_ms: float | None
    voice_to_voice_ms: float
    voice_to_voice_by_stamps_ms: float | None
    stages_ms: dict[str, float]
    waterfall_ms: dict[str, float] | None
    slots: ShareJson
    words: ShareJson


class BargeInJson(TypedDict):
    at_ms: float
    stop_ms: float
    yielded: bool


class CallJson(TypedDict):
    call: str
    caller: str
    seconds: float
    ended: str | None
    cut: str | None
    greeting_ms: float | None
    barge_ins: list[BargeInJson]
    backchannels: ShareJson
    hold_ups_ms: list[float]
    thrown_away: ShareJson
    late_frames: int
    latest_frame_ms: float | None
    failures: list[str]
    switches: list[str]
    retries: int
    cost: float | None


class SpentJson(TypedDict):
    stage: str
    provider: str
    model: str | None
    requests: int
    estimated: int
    cost: float | None
    wasted: float
    audio_s: float
    characters: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    audio_in_tokens: int
    audio_out_tokens: int


class CostJson(TypedDict):
    currency: str
    total: float
    per_call: float | None
    per_minute: float | None
    wasted: float
    wasted_ratio: float | None
    at_least: bool
    not_priced: list[str]
    prices_as_of: str | None
    spent: list[SpentJson]


class ThresholdJson(TypedDict):
    threshold: str
    outcome: str
    value: float | None
    at_least: bool
    needs: int | None


class ReportJson(TypedDict):
    voicectl_report: int
    agent: str
    profile: str
    clock: str
    times: str
    interrupted: bool
    metrics: dict[str, MetricJson]
    shares: dict[str, ShareJson]
    stamps: dict[str, MetricJson]
    exchanges: list[ExchangeJson]
    calls: list[CallJson]
    cost: CostJson | None
    thresholds: list[ThresholdJson]
    exit_code: int
    warnings: list[dict[str, str]]
    machine: dict[str, str | int | float]
    peak_rss_mb: float | None
    busy_cpus: float | None


def report_json(analysis: Analysis) -> ReportJson:
    """The whole analysis as plain values, ready for `json.dumps`."""
    run = analysis.run
    return {
        "voicectl_report": REPORT_VERSION,
        "agent": run.agent,
        "profile": run.profile,
        "clock": "wall" if analysis.times == "measured" else "virtual",
        "times": analysis.times,
        "interrupted": run.interrupted,
        "metrics": {name: _metric(summary) for name, summary in analysis.durations.items()},
        "shares": {name: _share(share) for name, share in analysis.shares.items()},
        "stamps": {
            "voice_to_voice_by_stamps_ms": _metric(analysis.by_stamps),
            "stamps_minus_sound_ms": _metric(analysis.stamps_minus_sound),
        },
        "exchanges": [_exchange(turn) for turn in analysis.turns],
        "calls": [_call(call, cost) for call, cost in zip(analysis.calls, analysis.costs, strict=True)],
        "cost": _cost(analysis.cost) if analysis.cost else None,
        "thresholds": [_threshold(verdict) for verdict in analysis.verdicts],
        "exit_code": exit_code(analysis.verdicts),
        "warnings": [{"seen": one.seen, "why": one.why, "do": one.do} for one in cautions(analysis)],
        "machine": dict(run.machine),
        "peak_rss_mb": _rounded(run.peak_rss_mb),
        "busy_cpus": _rounded(run.busy_cpus),
    }


def _metric(summary: Summary) -> MetricJson:
    intervals = {name: figure.ci95 for name in LEVELS if (figure := summary.figure(name)).ci95}
    every = ("mean", "min", *LEVELS, "max")
    return {
        "n": summary.n,
        "censored": summary.censored,
        "mean": _rounded(summary.mean.value),
        "min": _rounded(summary.min.value),
        "p50": _rounded(summary.p50.value),
        "p90": _rounded(summary.p90.value),
        "p95": _rounded(summary.p95.value),
        "p99": _rounded(summary.p99.value),
        "max": _rounded(summary.max.value),
        "at_least": [name for name in every if summary.figure(name).at_least],
        "refused": {name: needs for name in every if (needs := summary.figure(name).needs) is not None},
        "ci95": {name: [_rounded(bound) for bound in ci95] for name, ci95 in intervals.items() if ci95},
        "ci95_refused": {name: needs for name in LEVELS if (needs := summary.figure(name).interval_needs) is not None},
    }


def _exchange(turn: Turn) -> ExchangeJson:
    one = turn.exchange
    fall = one.waterfall
    return {
        "call": turn.call,
        "turn": one.number,
        "utterance": one.name,
        "outcome": one.outcome,
        "cold": turn.cold,
        "said": one.said,
        "transcript": one.transcript,
        "answer": one.answer,
        "speech_end_ms": one.speech_end / 1000,
        "heard_ms": _ms(one.heard),
        "voice_to_voice_ms": one.wait / 1000,
        "voice_to_voice_by_stamps_ms": _ms(one.wait_by_stamps),
        "stages_ms": {stage: us / 1000 for stage, us in one.stages.items()},
        "waterfall_ms": {stage: us / 1000 for stage, us in zip(one.chain, fall, strict=True)} if fall else None,
        "slots": _share(one.slots),
        "words": _share(one.word_errors),
    }


def _call(call: Call, cost: Cost) -> CallJson:
    measures = call.measures
    return {
        "call": call.name,
        "caller": measures.timeline.caller,
        "seconds": round(measures.timeline.end / 1_000_000, 3),
        "ended": measures.timeline.reason,
        "cut": call.cut,
        "greeting_ms": _ms(measures.greeting),
        "barge_ins": [_barge_in(one) for one in measures.barge_ins],
        "backchannels": _share(measures.backchannels),
        "hold_ups_ms": [one / 1000 for one in measures.hold_ups],
        "thrown_away": _share(measures.thrown_away),
        "late_frames": len(measures.late_frames),
        "latest_frame_ms": _ms(max(measures.late_frames, default=None)),
        "failures": list(measures.failures),
        "switches": list(measures.switches),
        "retries": measures.retries,
        "cost": _dollars(cost.total) if call.used else None,
    }


def _barge_in(one: BargeIn) -> BargeInJson:
    return {"at_ms": one.at / 1000, "stop_ms": one.stop / 1000, "yielded": one.yielded}


def _threshold(verdict: Verdict) -> ThresholdJson:
    return {
        "threshold": str(verdict.threshold),
        "outcome": verdict.outcome,
        "value": _rounded(verdict.value),
        "at_least": verdict.at_least,
        "needs": verdict.needs,
    }


def _cost(cost: Cost) -> CostJson:
    return {
        "currency": "USD",
        "total": _dollars(cost.total),
        "per_call": None if cost.per_call is None else _dollars(cost.per_call),
        "per_minute": None if cost.per_minute is None else _dollars(cost.per_minute),
        "wasted": _dollars(cost.wasted),
        "wasted_ratio": _rounded(cost.wasted_ratio, 6),
        "at_least": bool(cost.not_priced),
        "not_priced": list(cost.not_priced),
        "prices_as_of": cost.as_of.isoformat() if cost.as_of else None,
        "spent": [_spent(line) for line in cost.lines],
    }


def _spent(line: Line) -> SpentJson:
    tally, used = line.tally, line.tally.used
    return {
        "stage": tally.stage,
        "provider": tally.provider,
        "model": tally.model,
        "requests": tally.requests,
        "estimated": tally.estimated,
        "cost": None if line.money is None else _dollars(line.money),
        "wasted": _dollars(line.wasted),
        "audio_s": used.audio_us / 1_000_000,
        "characters": used.characters,
        "prompt_tokens": used.prompt + used.cached + used.audio_in + used.audio_cached,
        "cached_tokens": used.cached + used.audio_cached,
        "completion_tokens": used.completion + used.audio_out,
        "audio_in_tokens": used.audio_in + used.audio_cached,
        "audio_out_tokens": used.audio_out,
    }


def _dollars(amount: Decimal) -> float:
    return float(round(amount, 9))


def _share(share: Share) -> ShareJson:
    return {"count": share.count, "total": share.total, "ratio": _rounded(share.ratio, 6)}


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


def _rounded(value: float | None, digits: int = 3) -> float | None:
    """JSON has no infinity: an interval that is not bounded above ends in null."""
    return None if value is None or math.isinf(value) else round(value, digits)
