"""The full-screen view: what is shown in the middle of a turn, after an interruption, with an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicectl.analysis.definitions import Exchange
from voicectl.cli.screen import Keyboard, PushToTalk
from voicectl.cli.talk import Follow, Talk
from voicectl.cli.view import ansi, draw, plain
from voicectl.events import (
    AgentInterrupted,
    BreakerChanged,
    ClauseReady,
    DeviceDelay,
    DeviceLost,
    DeviceOpened,
    DeviceTroubled,
    Event,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ReplyStarted,
    SpeechStarted,
    TranscriptUpdated,
    TurnEnded,
)

HERE = Path(__file__).parent
SIZES = [(80, 24), (200, 50)]

OPENING: list[Event] = [
    DeviceOpened(at=0.0, input="USB Headset", output="Built-in Speakers", input_rate=48_000, output_rate=44_100),
    DeviceDelay(at=0.0, input=0.012, output=0.046),
    ReplyStarted(at=0.0, reply=0, turn=None, prompt="", held=False, kind="greeting"),
    ClauseReady(at=0.0, reply=0, index=0, text="Welcome to the Corner Coffee Bar. What would you like to order?"),
    PlayoutStarted(at=0.2, reply=0),
    PlayoutFinished(at=3.4, reply=0, heard="Welcome to the Corner Coffee Bar. What would you like to order?"),
    SpeechStarted(at=4.4, turn=1),
    TranscriptUpdated(at=6.2, turn=1, text="Hi, could I get a large latte with almond milk, please?", final=True),
    TurnEnded(at=7.4, turn=1, speech_end=7.0, reason="silence"),
    ReplyStarted(at=7.1, reply=1, turn=1, prompt="Hi", held=True),
    ClauseReady(at=7.3, reply=1, index=0, text="Sure, a large latte with almond milk, "),
    ClauseReady(at=7.5, reply=1, index=1, text="five dollars. Anything else?"),
    PlayoutStarted(at=7.7, reply=1),
]
MIDDLE: list[Event] = [
    PlayoutFinished(at=10.4, reply=1, heard="Sure, a large latte with almond milk, five dollars. Anything else?"),
    SpeechStarted(at=11.4, turn=2),
    TranscriptUpdated(at=12.2, turn=2, text="And could you add a little", final=False),
]
INTERRUPTED: list[Event] = [
    SpeechStarted(at=9.0, turn=2),
    AgentInterrupted(at=9.3, reply=1, turn=2, speech_at=9.0, heard="Sure, a large latte with"),
    TranscriptUpdated(at=10.2, turn=2, text="Wait, make it a small one.", final=True),
    TurnEnded(at=10.9, turn=2, speech_end=10.5, reason="silence"),
    ReplyStarted(at=10.9, reply=2, turn=2, prompt="Wait, make it a small one.", held=False),
]
FAILED: list[Event] = [
    ProviderFailed(
        at=8.0,
        stage="llm",
        provider="llm:openai",
        message="llm:openai: the request took too long and was given up after 10 s. Check the network, or choose"
        " another provider with --set llm.provider=local",
    ),
    BreakerChanged(at=8.0, stage="llm", provider="openai", state="open", why="3 failures in 10 s"),
    DeviceTroubled(at=8.1, side="output", what="underrun", seconds=0.02),
    DeviceLost(at=9.0, why="the microphone gives nothing any more"),
]
SCENES = {"middle": MIDDLE, "interrupted": INTERRUPTED, "error": FAILED}


def scene(name: str) -> Talk:
    talk = Talk("coffee", "none", providers={"vad": "local", "stt": "local", "llm": "openai", "tts": "local"})
    follow = Follow(talk)
    for event in OPENING:
        follow.happened(event)
    follow.measured([exchange(1, 712_000)])
    for event in SCENES[name]:
        follow.happened(event)
    talk.now = 12.4
    talk.caller_dbfs, talk.agent_dbfs = -31.0, -18.0
    return talk


def exchange(number: int, wait: int) -> Exchange:
    waterfall = (362_000, 0, 107_000, 32_000, 98_000, 41_000, wait - 640_000)
    return Exchange(
        number=number, name="turn", said=None, transcript="", answer="", outcome="answered", speech_end=0,
        wait=wait, stages={}, waterfall=waterfall,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_view_is_what_the_capture_shows(name: str, width: int, height: int) -> None:
    rows = draw(scene(name), width, height)
    assert "\n".join(plain(rows)) + "\n" == (HERE / f"view-{name}-{width}x{height}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("width", [20, 40, 80, 81, 132, 200])
@pytest.mark.parametrize("height", [6, 10, 24, 50])
def test_the_view_fills_the_terminal_and_never_spills(name: str, width: int, height: int) -> None:
    rows = draw(scene(name), width, height)
    assert len(rows) == height
    assert all(sum(len(text) for text, _ in row) <= width for row in rows)


def test_partials_are_dim_and_what_was_cut_is_struck_through() -> None:
    shown = "\n".join(ansi(draw(scene("middle"), 80, 24)))
    assert "\x1b[2mAnd could you add a little\x1b[0m" in shown
    shown = "\n".join(ansi(draw(scene("interrupted"), 80, 24)))
    assert "\x1b[2;9malmond milk, five dollars. Anything else?\x1b[0m" in shown


def test_the_first_turn_is_cold_and_in_no_percentile() -> None:
    talk = Talk("coffee", "none")
    follow = Follow(talk)
    follow.measured([exchange(number, 700_000) for number in range(1, 4)])
    assert talk.summary().n == 2


# Keys ------------------------------------------------------------------------------------------


class Pressed:
    def __init__(self) -> None:
        self.talk = Talk("coffee", "none")
        self.now = 100.0
        self.did: list[object] = []
        self.keys = Keyboard(
            self.talk,
            lambda: self.now,
            act=lambda act, text: self.did.append((act, text)),
            mute=self.did.append,
            mark=lambda: self.did.append("mark"),
            hang_up=lambda: self.did.append("hang up"),
        )


def test_each_key_does_what_the_last_row_says() -> None:
    pressed = Pressed()
    pressed.keys.read("mmirkq")
    assert pressed.did == [True, False, ("interrupted", ""), ("repeat", ""), "mark", "hang up"]


def test_a_typed_message_is_sent_with_enter_and_dropped_with_escape() -> None:
    pressed = Pressed()
    pressed.keys.read("ttwo lates\x7f\x7ftes, q")
    assert pressed.talk.typing == "two lattes, q"
    pressed.keys.read("\r")
    assert pressed.did == [("typed", "two lattes, q")]
    pressed.keys.read("tno")
    pressed.keys.read("\x1b")
    assert pressed.talk.typing is None
    assert len(pressed.did) == 1


def test_arrows_do_nothing() -> None:
    pressed = Pressed()
    pressed.keys.read("\x1b[A")
    assert not pressed.did


def test_a_tapped_space_talks_until_the_next_tap() -> None:
    push = PushToTalk()
    push.press(10.0)
    push.tick(12.0)
    assert push.talking
    push.press(13.0)
    assert not push.talking


def test_a_held_space_talks_until_it_is_released() -> None:
    push = PushToTalk()
    push.press(10.0)
    for repeat in range(20):
        push.press(10.5 + 0.03 * repeat)
        push.tick(10.5 + 0.03 * repeat)
        assert push.talking
    push.tick(11.5)
    assert not push.talking
