"""Events in words that a person understands. Pure.

4.58 s  the caller paused (turn 1)
5.08 s  turn 1 ended after 500 ms of silence
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

from voicectl.events import (
    AgentInterrupted,
    AgentPaused,
    AgentResumed,
    BackchannelHeard,
    BreakerChanged,
    CallEnded,
    CallStarted,
    ClauseReady,
    Event,
    FillerPlayed,
    FrameLate,
    HedgeDecided,
    HedgeStarted,
    LlmCancelled,
    LlmFinished,
    LlmFirstToken,
    LlmRequested,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ProviderRetried,
    ProviderSwitched,
    ProviderTimedOut,
    ProviderUsed,
    ReplyCancelled,
    ReplyCommitted,
    ReplyStarted,
    S2sCancelled,
    S2sFinished,
    S2sFirstAudio,
    S2sRequested,
    SpeechPaused,
    SpeechStarted,
    TranscriptUpdated,
    TtsFinished,
    TtsFirstAudio,
    TtsRequested,
    TurnDropped,
    TurnEnded,
    TurnJudged,
    UtterancePlayed,
)

_LONGEST = 70  # characters of a quoted text


def tell(event: Event) -> str:
    """One line: when it was true, and what happened."""
    return f"{event.at:.2f} s  {what(event)}"


def what(event: Event) -> str:
    """What happened, without the time."""
    match event:
        case CallStarted(caller=caller, agent=agent):
            return f"the call began: {caller} calls {agent}"
        case CallEnded(reason=reason):
            return f"the call ended: {reason}"
        case UtterancePlayed(index=index, name=name):
            return f"the caller's utterance {index + 1} began ({name})"
        case FrameLate(late=late):
            return f"a frame came {late * 1000:.0f} ms late"
        case SpeechStarted(turn=turn):
            return f"the caller spoke (turn {turn})"
        case SpeechPaused(turn=turn):
            return f"the caller paused (turn {turn})"
        case TranscriptUpdated(turn=turn, text=text, final=final):
            return f"the STT heard {quoted(text)}{'' if final else ' so far'} (turn {turn})"
        case TurnJudged(turn=turn, wait=wait, reason=reason):
            return f"turn {turn} ends after {wait * 1000:.0f} ms of silence: {reason}"
        case TurnEnded(turn=turn, reason=reason):
            return f"turn {turn} ended {'after ' if reason.endswith('of silence') else ': '}{reason}"
        case TurnDropped(turn=turn, reason=reason):
            return f"turn {turn} gets no answer: {reason}"
        case BackchannelHeard(turn=turn, text=text):
            return f"the caller said {quoted(text)} while the agent went on (turn {turn})"
        case ReplyStarted(turn=None, reply=reply, kind=kind):
            return f"the agent began its {'greeting' if kind == 'answer' else kind} (reply {reply})"
        case ReplyStarted(turn=turn, reply=reply, prompt=prompt, held=held):
            ahead = " ahead" if held else ""
            return f"the agent began to think{ahead} about {quoted(prompt)} (reply {reply} to turn {turn})"
        case ReplyCommitted(reply=reply):
            return f"reply {reply} may be heard"
        case ReplyCancelled(reply=reply, reason=reason):
            return f"reply {reply} was dropped unheard: {reason}"
        case LlmRequested(reply=reply):
            return f"the LLM was asked (reply {reply})"
        case LlmFirstToken(reply=reply):
            return f"the LLM's first token came (reply {reply})"
        case LlmFinished(reply=reply, text=text):
            return f"the LLM had answered {quoted(text)} (reply {reply})"
        case ClauseReady(reply=reply, index=index, text=text):
            return f"clause {index + 1} was complete: {quoted(text)} (reply {reply})"
        case TtsRequested(reply=reply, index=index):
            return f"the TTS was asked for clause {index + 1} (reply {reply})"
        case TtsFirstAudio(reply=reply, index=index):
            return f"the first audio of clause {index + 1} came (reply {reply})"
        case TtsFinished(reply=reply, index=index, seconds=seconds):
            return f"clause {index + 1} is {seconds:.2f} s long (reply {reply})"
        case S2sRequested(reply=reply):
            return f"the speech-to-speech model was asked (reply {reply})"
        case S2sFirstAudio(reply=reply):
            return f"the first audio of its answer came (reply {reply})"
        case S2sFinished(reply=reply, text=text, seconds=seconds):
            return f"its answer was complete: {quoted(text)}, {seconds:.2f} s long (reply {reply})"
        case S2sCancelled(reply=reply, seconds=seconds):
            return f"its answer was stopped after {seconds:.2f} s of sound (reply {reply})"
        case PlayoutStarted(reply=reply):
            return f"the agent began to speak (reply {reply})"
        case PlayoutFinished(reply=reply, heard=heard):
            return f"the agent had said {quoted(heard)} (reply {reply})"
        case AgentInterrupted(reply=reply, turn=turn, heard=heard):
            return f"the caller interrupted the agent after {quoted(heard)} (reply {reply}, turn {turn})"
        case AgentPaused(reply=reply, turn=turn):
            return f"the agent fell quiet for the caller (reply {reply}, turn {turn})"
        case AgentResumed(reply=reply, turn=turn):
            return f"the agent went on where it had stopped (reply {reply}, turn {turn})"
        case FillerPlayed(reply=reply, text=text):
            return f"the caller heard a filler, {quoted(text)} (reply {reply})"
        case LlmCancelled(reply=reply, chunks=chunks):
            return f"the LLM was stopped after {chunks} pieces of its answer (reply {reply})"
        case ProviderFailed(stage=stage, provider=provider, message=message):
            how = "was asked for what was not recorded" if provider.endswith(":recorded") else "failed"
            return f"the {stage.upper()} {how}: {message.removeprefix(f'{provider}: ')}"
        case ProviderRetried(stage=stage, provider=provider, attempt=attempt, wait=wait, why=why):
            return f"the {stage.upper()} {provider} is asked again in {wait * 1000:.0f} ms (attempt {attempt}: {why})"
        case ProviderTimedOut(stage=stage, provider=provider, what=missing, after=after):
            return f"the {stage.upper()} {provider} was given up: no {missing} within {after * 1000:.0f} ms"
        case BreakerChanged(stage=stage, provider=provider, state=state, why=why):
            then = {"open": "is left alone", "half-open": "may be tried", "closed": "is asked again"}.get(state, state)
            return f"the {stage.upper()} {provider} {then}: {why}"
        case ProviderSwitched(stage=stage, provider=provider, to=to, why=why, said=said):
            after = f" after {quoted(said)}" if said else ""
            return f"the {stage.upper()} {to} took over from {provider}{after}: {why}"
        case HedgeStarted(stage=stage, provider=provider, second=second, after=after):
            other = "a second time" if second == provider else f"and {second} as well"
            return f"the {stage.upper()} {provider} was asked {other}: silent for {after * 1000:.0f} ms"
        case HedgeDecided(stage=stage, winner=winner):
            return f"the {winner} of two requests to the {stage.upper()} answered"
        case ProviderUsed(stage=stage, provider=provider):
            return f"the {stage.upper()} {provider} used {_used(event)}"
        case _:
            return _spelt_out(event)


_UNITS = {
    "audio_s": "s of audio",
    "characters": "characters",
    "prompt_tokens": "prompt tokens",
    "cached_tokens": "of them cached",
    "completion_tokens": "completion tokens",
    "audio_in_tokens": "tokens of audio heard",
    "audio_out_tokens": "tokens of audio spoken",
}


def _used(event: ProviderUsed) -> str:
    """Quantities, and what became of them."""
    values = {unit: getattr(event, name) for name, unit in _UNITS.items()}
    used = ", ".join(f"{value:g} {unit}" for unit, value in values.items() if value is not None) or "nothing it told"
    marks = [mark for mark, so in (("estimated", event.estimated), ("wasted", event.wasted)) if so]
    return f"{used} ({', '.join(marks)})" if marks else used


def _spelt_out(event: Event) -> str:
    """For an event that has no words of its own yet."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(event).__name__).lower()
    values = values_of(event)
    return f"{name} ({', '.join(f'{key} {value}' for key, value in values.items())})" if values else name


def values_of(event: Event) -> Mapping[str, object]:
    """The fields of an event besides its times."""
    names = [field.name for field in fields(event) if field.name not in ("at", "noted_at")]
    return {name: getattr(event, name) for name in names}


def quoted(text: str) -> str:
    """In quotation marks, and not too long."""
    plain = " ".join(text.split())
    return f"“{plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1].rstrip() + '…'}”"
