"""The names of everything a call is measured by: one list for specs, analysis and reports.

Names and one line each, no arithmetic: what exactly is measured from where to where is defined
in `voicectl.analysis.definitions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["duration", "ratio", "count", "money"]


@dataclass(frozen=True, slots=True)
class MetricName:
    """`duration` in milliseconds, `ratio` from 0 to 1, `count` of turns (as `rate`: their share), `money`
    of each call in US dollars."""

    name: str
    kind: MetricKind
    what: str


METRICS: tuple[MetricName, ...] = (
    MetricName("voice_to_voice_ms", "duration", "the caller's last voiced sample to the agent's first audible one"),
    MetricName("endpointing_ms", "duration", "last voiced sample to the turn's end"),
    MetricName("stt_final_ms", "duration", "the turn's end to the final transcript"),
    MetricName("llm_ttft_ms", "duration", "request to the first token of the answer"),
    MetricName("llm_sentence_ms", "duration", "first token to the first clause handed to the TTS"),
    MetricName("tts_ttfb_ms", "duration", "clause handed over to its first audio"),
    MetricName("tts_lead_silence_ms", "duration", "first audio to the first audible sample in it"),
    MetricName("s2s_ttfb_ms", "duration", "turn handed to the speech-to-speech model to its first audio"),
    MetricName("s2s_lead_silence_ms", "duration", "its first audio to the first audible sample in it"),
    MetricName("playout_ms", "duration", "first audible sample ready to heard at the caller's end"),
    MetricName("barge_in_stop_ms", "duration", "the caller's first voiced sample to the agent's last audible one"),
    MetricName("slot_recall", "ratio", "share of the truth's slot words that the STT heard"),
    MetricName("word_error_rate", "ratio", "wrong, missing and added words to words said"),
    MetricName("no_answer", "count", "turns that got no answer before the time-out"),
    MetricName("early_answer", "count", "turns answered before the caller had finished"),
    MetricName("false_cutoff", "count", "another name of early_answer"),
    MetricName("cost_per_call", "money", "what a call costs, by the table of prices"),
    MetricName("cost_per_minute", "money", "what a minute of a call costs, by the table of prices"),
)

ALIASES = {"false_cutoff": "early_answer"}

BY_NAME: dict[str, MetricName] = {metric.name: metric for metric in METRICS}
