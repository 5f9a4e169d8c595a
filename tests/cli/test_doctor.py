"""`voicectl doctor` and `init`: what is wrong is seen, explained, and has something to do."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transports.fake_card import FakeCard, knocks

from cli.conftest import Voicectl
from voicectl.cli.doctor import Finding, judge_delay, judge_jitter, judge_level, look_at_sound
from voicectl.clock import Clock, run_on

RATE = 16_000
NOISE = np.random.default_rng(7)


def speech(level: float, background: float = 10.0) -> np.ndarray:
    """A second of noise, speech-like in the middle of it."""
    sound = NOISE.normal(0, background, RATE * 3)
    sound[RATE : 2 * RATE] += NOISE.normal(0, level, RATE)
    return sound.clip(-32_768, 32_767).astype(np.int16)


def seen(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    assert all(one.state == "fine" or (one.why and one.do) for one in findings)
    return [(one.state, one.seen.split(":")[0].split(" dBFS")[0]) for one in findings]


def test_a_good_microphone_is_fine() -> None:
    assert judge_level(speech(3_000))[0].state == "fine"


@pytest.mark.parametrize(
    ("sound", "says"),
    [
        (np.zeros(RATE, np.int16), "nothing but zeros"),
        (speech(30, 3), "too quiet"),
        (speech(40_000), "are clipped"),
        (speech(2_500, 2_000), "a loud background"),
    ],
)
def test_a_bad_level_is_named(sound: np.ndarray, says: str) -> None:
    (finding,) = judge_level(sound)
    assert says in finding.seen
    assert finding.why and finding.do


def test_an_offset_is_named_beside_the_level() -> None:
    level, offset = judge_level(speech(3_000) + np.int16(900))
    assert level.state == "fine"
    assert offset.seen == "the signal lies +2.7% off centre"


def test_late_ticks_and_slow_devices_are_warnings() -> None:
    assert judge_jitter([0.001] * 100).state == "fine"
    assert judge_jitter([0.03] * 100).state == "warning"
    assert judge_delay(10, 50).state == "fine"
    assert judge_delay(100, 180).state == "warning"


def on_card(**card: object) -> list[Finding]:
    async def main(clock: Clock) -> list[Finding]:
        await clock.sleep_until(5.0)
        return await look_at_sound(clock, FakeCard(clock, **card), (None, None))  # type: ignore[arg-type]

    return run_on("virtual", main)


def test_the_sound_is_looked_at_as_a_run_uses_it() -> None:
    found = on_card(air=knocks(*np.arange(6.0, 12.0, 0.01)), delay_s=0.03)
    assert [one.name for one in found][:2] == ["devices", "delay"]
    assert "30 ms from the microphone" in found[1].seen


def test_no_device_is_a_fault_with_something_to_do() -> None:
    (fault,) = on_card(plugged=False)
    assert fault.state == "fault"
    assert fault.seen == "there is no microphone: the system has no input device"
    assert fault.do.startswith("Plug one in")


# run --text -----------------------------------------------------------------------------------


@pytest.mark.wall
def test_what_is_typed_is_answered_kept_and_replays(
    voicectl: Voicectl, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("A latte, please.\n\nThat is all.\n"))
    result = voicectl("run", "--text", "--out", "typed")
    assert result.code == 0
    assert result.out.splitlines() == [
        " agent  Hi!",
        "caller  A latte, please.",
        " agent  Sure, one large latte with oat milk. Anything else for you today?",
        "caller  That is all.",
        " agent  Got it. That comes to $4.50, please.",
    ]
    assert voicectl("replay", "typed").code == 0


# init ------------------------------------------------------------------------------------------


def test_a_new_project_is_right_at_once(voicectl: Voicectl, home: Path) -> None:
    result = voicectl("init", "salon")
    assert result.code == 0
    assert "cd salon" in result.out
    assert voicectl("check", "--file", str(home / "salon" / "agents.yaml")).code == 0
    assert voicectl("check", "--file", str(home / "salon" / "agents.yaml"), "--profile", "light").code == 0


def test_init_touches_nothing_that_is_there(voicectl: Voicectl, project: Path) -> None:
    before = (project / "agents.yaml").read_bytes()
    result = voicectl("init")
    assert (result.code, result.err) == (
        2,
        "voicectl: error: .: there is already agents.yaml. Choose an empty folder, or move them away\n",
    )
    assert (project / "agents.yaml").read_bytes() == before
    assert not (project / "README.md").exists()
