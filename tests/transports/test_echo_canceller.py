"""Echo cancellation: the agent's voice goes out of the caller's side, the caller stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from voicectl.errors import MissingExtra, UsageError
from voicectl.transports import echo_canceller as module
from voicectl.transports.echo_canceller import EchoCanceller

RATE = 16_000
FRAME = 320
needs_package = pytest.mark.skipif(not module.available(), reason="the extra 'echo' is not installed")


def voice(seed: int, seconds: float) -> npt.NDArray[np.float64]:
    """Bursts of coloured noise, as loud as speech."""
    draw = np.random.default_rng(seed)
    sound = np.convolve(draw.standard_normal(round(seconds * RATE)), np.hanning(12), "same")
    bursts = np.repeat(draw.random(round(seconds * 5)) > 0.35, RATE // 5)
    return 2_500 * sound[: len(bursts)] * bursts


def heard(agent: npt.NDArray[np.float64], caller: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    canceller = EchoCanceller(RATE)
    said = agent.astype("<i2")
    out: list[bytes] = []
    for index in range(len(caller) // FRAME):
        ahead = index + 3  # what is sent is heard 60 ms later
        canceller.said(said[ahead * FRAME : (ahead + 1) * FRAME].tobytes(), ahead * FRAME / RATE)
        frame = caller[index * FRAME : (index + 1) * FRAME].astype("<i2").tobytes()
        out.append(canceller.clean(frame, index * FRAME / RATE))
    return np.frombuffer(b"".join(out), "<i2").astype(np.float64)


def decibels(sound: npt.NDArray[np.float64]) -> float:
    return 10 * float(np.log10((sound**2).mean() + 1e-9))


@needs_package
@pytest.mark.parametrize("level", [-10, -20, -30])
def test_the_agents_voice_goes_out(level: int) -> None:
    agent = voice(1, 12.0)
    echo = np.concatenate([np.zeros(round(0.05 * RATE)), agent])[: len(agent)] * 10 ** (level / 20)
    out = heard(agent, echo)
    late = slice(6 * RATE, len(out))
    assert decibels(echo[late]) - decibels(out[late]) > 15


@needs_package
def test_a_caller_alone_stays() -> None:
    caller = voice(2, 6.0)
    out = heard(np.zeros(len(caller)), caller)
    assert abs(decibels(caller) - decibels(out)) < 3


def test_a_rate_it_cannot_do_and_a_missing_package_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"line\.rate: echo cannot be cancelled at 11025 samples a second"):
        EchoCanceller(11_025)
    monkeypatch.setattr(module, "available", lambda: False)
    with pytest.raises(MissingExtra, match=r"pip install 'voicectl\[echo\]'"):
        EchoCanceller(RATE)
