"""A caller we play: what they say, and when. Pure: no clock, no files.

`CallerScript` is asked for one frame after the other and told what it hears. It behaves as a
person would: the next utterance starts a stated gap after the agent has finished, or a stated
time into the agent's answer (a barge-in, an "mhm"), or at a fixed time. It knows the agent only
by ear. Loading callers from files is `bench/callers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from voicectl.audio import FRAME_S, SAMPLE_WIDTH, Pcm, resample

_AUDIBLE_PEAK = 100  # of 32768, -50 dBFS: what a caller would call a sound
_BREATH_S = 0.2  # a shorter silence is inside what somebody says, not its end
_DUST_S = 1e-9  # what sums of floats may be off


@dataclass(frozen=True, slots=True)
class AfterAgent:
    """Starts `gap_s` after the agent has finished its answer."""

    gap_s: float = 0.9


@dataclass(frozen=True, slots=True)
class DuringAgent:
    """Starts `after_s` after the agent's answer became audible."""

    after_s: float


@dataclass(frozen=True, slots=True)
class At:
    """Starts at `at_s` of the call."""

    at_s: float


Start = AfterAgent | DuringAgent | At


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something the caller says, with the truth beside it.

    Attributes:
        pcm: the audio, at any rate.
        name: the file's name, for people.
        voiced_from_s, voiced_until_s: first and last voiced sample, seconds into `pcm`.
        text: what is said.
        slots: phrases that must be heard, by name.
        start: when it starts.
        backchannel: a listener's noise that expects no answer.
    """

    pcm: Pcm
    name: str
    voiced_from_s: float
    voiced_until_s: float
    text: str | None = None
    slots: Mapping[str, str] | None = None
    start: Start = AfterAgent()
    backchannel: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """One recorded caller. `noise` is mixed under the whole call, in a loop."""

    name: str
    utterances: tuple[Utterance, ...]
    agent: str | None = None
    noise: Pcm | None = None


class CallerScript:
    """Plays one caller, frame by frame.

    Args:
        caller: who.
        rate: samples per second of the line.
        greeted: whether the agent speaks first (the caller waits for it).
        no_answer_s: how long the caller waits for an answer before going on.
    """

    def __init__(self, caller: Caller, rate: int, *, greeted: bool, no_answer_s: float = 10.0) -> None:
        self._utterances = caller.utterances
        self._audio = [resample(utterance.pcm, rate).data for utterance in caller.utterances]
        self._noise = resample(caller.noise, rate).data if caller.noise else b""
        self._no_answer_s = no_answer_s
        self._frame_bytes = round(rate * FRAME_S) * SAMPLE_WIDTH
        self._silence = bytes(self._frame_bytes)
        self._next = 0  # the utterance that is played or comes next
        self._playing = False
        self._offset = 0
        self._noise_offset = 0
        self._waiting_since = 0.0
        self._spoke_from = 0.0  # our last words, mere "mhm"s aside
        self._spoke_until = 0.0
        self._answer_from: float | None = None  # when the agent was first heard to answer them
        self._sound_from = 0.0  # of what the agent says or last said
        self._heard_until: float | None = None
        self._expects_answer = greeted

    def frame(self, now: float) -> tuple[bytes | None, Utterance | None]:
        """The frame whose first sample is spoken at `now`, and the utterance that begins with it.

        The frame is None when the caller hangs up.
        """
        begun: Utterance | None = None
        if not self._playing:
            if self._next == len(self._utterances):
                if self._finished(now, AfterAgent()):
                    return None, None
            elif self._due(now):
                self._playing = True
                self._offset = 0
                begun = self._utterances[self._next]
                if not begun.backchannel:
                    self._spoke_from = now
                    self._spoke_until = now + begun.voiced_until_s
                    self._answer_from = None
        return self._sound(now), begun

    def index(self) -> int:
        """Number of the utterance that is played or comes next, from 0."""
        return self._next

    def hear(self, pcm: bytes, at: float) -> None:
        """The agent's frame, heard from `at` on."""
        if not pcm or _peak(pcm) < _AUDIBLE_PEAK:
            return
        if self._heard_until is None or at >= self._heard_until + _BREATH_S - _DUST_S:
            self._sound_from = at
        self._heard_until = at + FRAME_S
        # What the agent was saying when we began is no answer to us.
        answers = at >= self._spoke_until - _DUST_S and self._sound_from >= self._spoke_from - _DUST_S
        if self._answer_from is None and answers:
            self._answer_from = at

    def _due(self, now: float) -> bool:
        match self._utterances[self._next].start:
            case At(at_s):
                return now >= at_s - _DUST_S
            case DuringAgent(after_s):
                if self._answer_from is not None:
                    return now >= self._answer_from + after_s - _DUST_S
                return now >= self._waiting_since + self._no_answer_s - _DUST_S
            case AfterAgent() as rule:
                return self._finished(now, rule)

    def _finished(self, now: float, rule: AfterAgent) -> bool:
        """Whether the agent has answered and been silent for the gap; or has not answered at all."""
        if self._expects_answer and self._answer_from is None:
            return now >= self._waiting_since + self._no_answer_s - _DUST_S
        quiet_since = max(self._heard_until or 0.0, self._waiting_since)
        return now >= quiet_since + rule.gap_s - _DUST_S

    def _sound(self, now: float) -> bytes:
        frame = self._silence
        if self._playing:
            audio = self._audio[self._next]
            frame = audio[self._offset : self._offset + self._frame_bytes].ljust(self._frame_bytes, b"\0")
            self._offset += self._frame_bytes
            if self._offset >= len(audio):
                self._playing = False
                self._expects_answer = not self._utterances[self._next].backchannel
                self._next += 1
                self._waiting_since = now + FRAME_S
        return self._with_noise(frame) if self._noise else frame

    def _with_noise(self, frame: bytes) -> bytes:
        end = self._noise_offset + self._frame_bytes
        noise = self._noise[self._noise_offset : end]
        while len(noise) < self._frame_bytes:
            noise += self._noise[: self._frame_bytes - len(noise)]
        self._noise_offset = end % len(self._noise)
        mixed = np.frombuffer(frame, dtype="<i2").astype(np.int32) + np.frombuffer(noise, dtype="<i2")
        return np.clip(mixed, -32768, 32767).astype("<i2").tobytes()


def _peak(pcm: bytes) -> int:
    samples = np.frombuffer(pcm, dtype="<i2")
    return int(np.abs(samples).max(initial=0)) if samples.min(initial=0) > -32768 else 32768
