"""When does the caller speak, pause, and finish? Pure: speech probabilities and evidence in, facts out.

No clock, no audio, no asyncio. `Endpointer.feed` takes one VAD window at a time and returns what
became true in it. Facts are dated to the window in which they were true, not to the one in which
they were noticed.

A pause ends the turn when its silence has lasted as long as it must:

- `silence`: always `silence_s`.
- `adaptive`: what this caller's pauses have taught instead of `silence_s`. A pause that was spoken on
  after makes it a little longer than that pause; each turn's end brings it nearer to `min_silence_s`.
- `text` (`hear`), `audio` (`score`): each gives a probability that the caller has finished. Their
  odds are multiplied; what comes out moves the wait from there towards `min_silence_s` (finished) or
  `max_silence_s` (not). What has not come yet, and may never, cannot make the wait shorter: a turn is
  not ended early on half of the evidence.
- `provider` (`provider_said`): the STT ends the turn, at once. By itself it leaves the VAD's silence
  only as the last resort, `max_silence_s`; beside others its "likely" and "resumed" are evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from voicectl.pipeline.finished import judge
from voicectl.pipeline.protocols import TurnEnd

Scores = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class EndpointingRules:
    """How silence becomes a turn's end. Seconds, but for `threshold` (speech probability)."""

    threshold: float = 0.5
    min_speech_s: float = 0.09
    """Speech shorter than this is noise."""
    pause_s: float = 0.096
    """A pause this long asks the STT and lets the agent begin to think."""
    silence_s: float = 0.5
    """A silence this long ends the turn, where nothing says otherwise."""
    sustain_s: float = 0.45
    """Speech this long is meant: it may interrupt the agent without a look at its words."""
    sustain_adds_up: bool = False
    """All speech of a turn counts for that, without its pauses; else only what is said in one go."""
    notice_s: float = 0.0
    """Speech this long makes the agent listen up; 0: never."""
    strategies: tuple[str, ...] = ("silence",)
    """What decides: `silence`, `adaptive`, `text`, `audio`, `provider`, or several of them."""
    min_silence_s: float = 0.2
    """The silence after a turn that is surely finished."""
    max_silence_s: float = 1.5
    """The silence after a turn that is surely not. A longer one ends any turn."""
    language: str = "en"
    """What the caller speaks, as `text` must know."""


@dataclass(frozen=True, slots=True)
class Started:
    """The caller began to speak at `at` (a new turn). `echo`: it is the agent's own sound, heard back."""

    at: float
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Noticed:
    """The speech that began at `at` has lasted `notice_s`."""

    at: float


@dataclass(frozen=True, slots=True)
class Sustained:
    """The speech that began at `at` has lasted `sustain_s`, by itself or with what came before."""

    at: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The caller may have finished: the last voiced window ended at `at`."""

    at: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What is now known of the pause that began at `at`: `wait_s` of silence will end the turn.

    `scores`: each strategy's probability, 0..1, that the caller has finished.
    """

    at: float
    wait_s: float
    scores: Scores
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The caller went on at `at`, in the same turn."""

    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over; its last voiced window ended at `at`."""

    at: float
    reason: str
    scores: Scores = ()


Fact = Started | Noticed | Sustained | Paused | Resumed | Judged | Ended

_HYSTERESIS = 0.15  # once speaking, a window this much under the threshold still is speech ...
_LEAST_SHARE = 0.5  # ... but never one under this share of it: silence must stay silence
_SUREST = 0.98  # no piece of evidence is surer: two that disagree must be able to cancel out
_LONGER = 1.25  # who paused for so long may pause a little longer next time
_SHORTEN = 0.15  # how far each turn's end brings `adaptive` towards its shortest
_PROVIDER: dict[TurnEnd, float] = {"likely": 0.8, "resumed": 0.2}  # the STT's word, as evidence


class Endpointer:
    """Follows one caller. Windows come in order, each `window_s` long, without gaps."""

    def __init__(self, rules: EndpointingRules, window_s: float) -> None:
        self._rules = rules
        self._window_s = window_s
        self._windows = 0
        self._in_turn = False
        self._paused = False
        self._run_from: float | None = None  # start of the current run of speech windows
        self._noticed = False
        self._sustained = False
        self._spoken_s = 0.0  # before the current run, where that counts
        self._voiced_until = 0.0
        self._pause_at = -math.inf  # of the last pause, also when it became the turn's end
        self._judge = _Judge(rules)

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
                self._noticed = self._sustained = False
            self._voiced_until = end
            lasted = end - self._run_from
            if not speaking and _reached(lasted, rules.min_speech_s):
                facts.append(self._begin(self._run_from))
                speaking = True
            if speaking and rules.notice_s and not self._noticed and _reached(lasted, rules.notice_s):
                self._noticed = True
                facts.append(Noticed(self._run_from))
            if speaking and not self._sustained and _reached(self._spoken_s + lasted, rules.sustain_s):
                self._sustained = True
                facts.append(Sustained(self._run_from))
            return facts
        if not speaking and self._run_from is not None:
            # A blip too short to count as speech does not shorten the silence it fell into.
            self._run_from = None
            self._voiced_until = self._pause_at
        if speaking and _reached(self._silence_s, rules.pause_s):
            self._paused = True
            if rules.sustain_adds_up and self._run_from is not None:
                self._spoken_s += self._voiced_until - self._run_from
            self._run_from = None
            self._pause_at = self._voiced_until
            facts.append(Paused(self._pause_at))
            facts += self._judged(self._judge.pause())
        return facts + self._end_if_over()

    def hear(self, text: str, question: str = "") -> list[Fact]:
        """The transcript of the turn up to the current pause; `question`: what the agent said last."""
        if "text" not in self._rules.strategies:
            return []
        finish = judge(text, question, self._rules.language)
        return self._learn("text", finish.score, finish.reason)

    def score(self, probability: float) -> list[Fact]:
        """The end-of-turn model's opinion of the current pause."""
        return self._learn("audio", probability, "")

    def provider_said(self, turn_end: TurnEnd) -> list[Fact]:
        """What the STT says of the turn's end."""
        if "provider" not in self._rules.strategies or not self._in_turn:
            return []
        if turn_end == "over":
            if not self._paused:
                self._pause_at = self._voiced_until
            return [self._end("the STT ended the turn")]
        return self._learn("provider", _PROVIDER[turn_end], f"the STT says '{turn_end}'")

    # ---------------------------------------------------------------------------------------------

    @property
    def _silence_s(self) -> float:
        return self._windows * self._window_s - (self._pause_at if self._paused else self._voiced_until)

    def _begin(self, at: float) -> Started | Resumed:
        fact = Resumed(at) if self._in_turn else Started(at)
        self._judge.went_on(at - self._pause_at)
        self._in_turn, self._paused = True, False
        return fact

    def _learn(self, strategy: str, score: float, reason: str) -> list[Fact]:
        if not self._paused or strategy not in self._rules.strategies:
            return []
        return [*self._judged(self._judge.learn(strategy, score, reason)), *self._end_if_over()]

    def _judged(self, changed: bool) -> list[Fact]:
        judge = self._judge
        return [Judged(self._pause_at, judge.wait_s, judge.scores, judge.reason)] if changed else []

    def _end_if_over(self) -> list[Fact]:
        if not self._paused or self._run_from is not None or not _reached(self._silence_s, self._judge.wait_s):
            return []
        if self._judge.silence_only:
            return [self._end(f"{self._rules.silence_s * 1000:.0f} ms of silence")]
        return [self._end(f"{self._silence_s * 1000:.0f} ms of silence; {self._judge.reason}")]

    def _end(self, reason: str) -> Ended:
        ended = Ended(self._pause_at, reason, self._judge.scores)
        self._in_turn = self._paused = False
        self._spoken_s = 0.0
        self._run_from = None
        self._judge.ended()
        return ended


class _Judge:
    """How long the silence of the current pause must last, and why."""

    def __init__(self, rules: EndpointingRules) -> None:
        self.silence_only = set(rules.strategies) <= {"silence"}
        self._rules = rules
        self._adaptive = "adaptive" in rules.strategies
        self._awaited = [strategy for strategy in ("text", "audio") if strategy in rules.strategies]
        self._stt_decides = set(rules.strategies) == {"provider"}
        self._usual_s = rules.silence_s if self.silence_only else min(rules.silence_s, rules.max_silence_s)
        self._known: dict[str, tuple[float, str]] = {}
        self.wait_s = self._wait()

    @property
    def scores(self) -> Scores:
        return tuple((strategy, score) for strategy, (score, _) in self._known.items())

    @property
    def reason(self) -> str:
        parts = [f"{name} {score:.2f}" + f" ({why})" * bool(why) for name, (score, why) in self._known.items()]
        parts += [f"no {strategy}" for strategy in self._awaited if strategy not in self._known]
        if self._adaptive:
            parts.append(f"this caller's pauses {self._usual_s * 1000:.0f} ms")
        return ", ".join(parts) or "the STT did not end the turn"

    def pause(self) -> bool:
        """A new pause, of which nothing is known; whether the wait is another than `silence_s`."""
        self._known.clear()
        self.wait_s = self._wait()
        return self._adaptive and self.wait_s != self._rules.silence_s

    def learn(self, strategy: str, score: float, reason: str) -> bool:
        """Whether the evidence changes the wait."""
        self._known[strategy] = (score, reason)
        before, self.wait_s = self.wait_s, self._wait()
        return self.wait_s != before

    def went_on(self, gap_s: float) -> None:
        """The caller spoke on after `gap_s`, also when the turn had been thought over."""
        if self._adaptive and gap_s <= self._rules.max_silence_s:
            self._usual_s = max(self._usual_s, min(gap_s * _LONGER, self._rules.max_silence_s))

    def ended(self) -> None:
        if self._adaptive:
            self._usual_s -= _SHORTEN * (self._usual_s - min(self._rules.min_silence_s, self._usual_s))
        self._known.clear()

    def _wait(self) -> float:
        usual = self._usual_s
        if self.silence_only:
            return usual
        if self._stt_decides:
            return self._rules.max_silence_s
        odds = sum(_log_odds(score) for score, _ in self._known.values())
        sure = math.tanh(odds / 2)  # -1 surely not finished, 0 no idea, 1 surely finished
        if sure > 0 and any(strategy not in self._known for strategy in self._awaited):
            sure = 0.0
        towards = min(self._rules.min_silence_s, usual) if sure > 0 else self._rules.max_silence_s
        return round(usual + abs(sure) * (towards - usual), 3)


def _log_odds(probability: float) -> float:
    kept = min(max(probability, 1 - _SUREST), _SUREST)
    return math.log(kept / (1 - kept))


def _reached(duration: float, limit: float) -> bool:
    """Whether a sum of whole windows has reached the limit, blind to float dust."""
    return duration >= limit - 1e-9
