"""When does the caller speak, pause, and finish? Pure: speech probabilities in, facts out.

No clock, no audio, no asyncio. `Endpointer.feed` takes one VAD window at a time and returns what
became true in it. Facts are dated to the window in which they were true, not to the one in which
they were noticed. The strategy here is silence: a turn ends `silence_s` after its last voiced
window.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndpointingRules:
    """How silence becomes a turn's end. Seconds, but for `threshold` (speech probability)."""

    threshold: float = 0.5
    min_speech_s: float = 0.09
    """Speech shorter than this is noise."""
    pause_s: float = 0.096
    """A pause this long asks the STT and lets the agent begin to think."""
    silence_s: float = 0.5
    """A silence this long ends the turn."""
    sustain_s: float = 0.45
    """Speech this long is meant: it may interrupt the agent without a look at its words."""


@dataclass(frozen=True, slots=True)
class Started:
    """The caller began to speak at `at` (a new turn)."""

    at: float


@dataclass(frozen=True, slots=True)
class Sustained:
    """The speech that began at `at` has lasted `sustain_s`."""

    at: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The caller may have finished: the last voiced window ended at `at`."""

    at: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The caller went on at `at`, in the same turn."""

    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over; its last voiced window ended at `at`."""

    at: float
    reason: str


Fact = Started | Sustained | Paused | Resumed | Ended

_HYSTERESIS = 0.15  # once speaking, a window this much under the threshold still is speech ...
_LEAST_SHARE = 0.5  # ... but never one under this share of it: silence must stay silence


class Endpointer:
    """Follows one caller. Windows come in order, each `window_s` long, without gaps."""

    def __init__(self, rules: EndpointingRules, window_s: float) -> None:
        self._rules = rules
        self._window_s = window_s
        self._windows = 0
        self._in_turn = False
        self._paused = False
        self._run_from: float | None = None  # start of the current run of speech windows
        self._sustained = False
        self._voiced_until = 0.0
        self._pause_at = 0.0

    def feed(self, probability: float) -> list[Fact]:
        """The facts of the next window."""
        start = self._windows * self._window_s
        self._windows += 1
        end = self._windows * self._window_s
        rules = self._rules
        facts: list[Fact] = []
        speaking = self._in_turn and not self._paused
        threshold = rules.threshold
        if speaking:
            threshold = max(threshold - _HYSTERESIS, threshold * _LEAST_SHARE)
        if probability >= threshold:
            if self._run_from is None:
                self._run_from = start
                self._sustained = False
            self._voiced_until = end
            if not speaking and _reached(end - self._run_from, rules.min_speech_s):
                facts.append(Resumed(self._run_from) if self._in_turn else Started(self._run_from))
                self._in_turn, self._paused = True, False
                speaking = True
            if speaking and not self._sustained and _reached(end - self._run_from, rules.sustain_s):
                self._sustained = True
                facts.append(Sustained(self._run_from))
            return facts
        if not speaking and self._run_from is not None:
            # A blip too short to count as speech does not shorten the silence it fell into.
            self._run_from = None
            self._voiced_until = self._pause_at
        silence = end - self._voiced_until
        if speaking and _reached(silence, rules.pause_s):
            self._paused = True
            self._run_from = None
            self._pause_at = self._voiced_until
            facts.append(Paused(self._voiced_until))
        if self._paused and _reached(silence, rules.silence_s):
            self._in_turn = self._paused = False
            facts.append(Ended(self._voiced_until, f"{rules.silence_s * 1000:.0f} ms of silence"))
        return facts


def _reached(duration: float, limit: float) -> bool:
    """Whether a sum of whole windows has reached the limit, blind to float dust."""
    return duration >= limit - 1e-9
