"""Delays of the stand-in: what people write, what is drawn, and what a recording gives. No clock."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from voicectl.errors import RecordingError, UsageError
from voicectl.standin.delays import Delays, Draw, in_turn, parse_delays, recorded_delays
from voicectl.streams import (
    LlmAsked,
    LlmSaid,
    Streams,
    SttFlushed,
    SttHeard,
    TtsAsked,
    TtsSpoke,
    read_streams,
)


def drawn(draw: Draw, count: int) -> list[float]:
    return [draw() for _ in range(count)]


def test_a_lognormal_delay_has_the_p50_and_the_p99_that_were_asked_for() -> None:
    delays = sorted(drawn(parse_delays(["llm=lognormal:200,3000"])["llm"], 40_000))
    assert delays[20_000] == pytest.approx(0.200, rel=0.04)
    assert delays[39_600] == pytest.approx(3.000, rel=0.12)


def test_the_same_seed_draws_the_same_delays_whatever_else_is_drawn() -> None:
    alone = drawn(parse_delays(["llm=lognormal:200,3000"], seed=7)["llm"], 5)
    both = parse_delays(["tts=lognormal:80,400", "llm=lognormal:200,3000"], seed=7)
    mixed = [(both["tts"](), both["llm"]()) for _ in range(5)]
    assert [llm for _, llm in mixed] == alone
    assert [tts for tts, _ in mixed] != alone
    assert drawn(parse_delays(["llm=lognormal:200,3000"], seed=8)["llm"], 5) != alone


def test_fixed_any_and_turn_are_what_they_say() -> None:
    delays = parse_delays(["stt=100", "tts=any:80,90,400", "llm=turn:200,250", "llm-gap=0"])
    assert drawn(delays["stt"], 3) == [0.1] * 3
    assert set(drawn(delays["tts"], 100)) == {0.08, 0.09, 0.4}
    assert drawn(delays["llm"], 3) == [0.2, 0.25, 0.2]
    assert drawn(delays["llm-gap"], 2) == [0.0, 0.0]


def test_what_is_not_said_is_left_to_the_stand_in() -> None:
    delays = Delays({"stt": in_turn([0.1])})
    assert delays.draw("stt") == 0.1
    assert delays.draw("llm") is None


def test_an_unknown_delay_says_which_was_meant() -> None:
    with pytest.raises(UsageError, match=r"unknown delay 'llm-gaps'. Did you mean 'llm-gap'\?"):
        parse_delays(["llm-gaps=20"])


@pytest.mark.parametrize("text", ["llm", "llm=", "llm=fast", "llm=-1", "llm=lognormal:3000,200", "llm=lognormal:200"])
def test_what_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot read the delay 'llm.*Write it like stt=100"):
        parse_delays([text])


# Recordings ------------------------------------------------------------------------------------


def test_a_recording_gives_each_delay_in_the_order_it_had() -> None:
    chunks = (
        SttFlushed(at=1.0, id=1, flush=1, end=1.0),
        SttHeard(at=1.02, id=1, text="a partial"),
        SttHeard(at=1.1, id=1, text="words", flush=1),
        LlmAsked(at=1.1, id=1, messages=()),
        LlmSaid(at=1.4, id=1, text="Sure,"),
        LlmSaid(at=1.45, id=1, text=" I can."),
        TtsAsked(at=1.45, id=1, text="Sure, I can."),
        TtsSpoke(at=1.55, id=1, offset=0, size=2),
        TtsSpoke(at=1.56, id=1, offset=2, size=2),
        LlmAsked(at=5.0, id=2, messages=()),
        LlmSaid(at=5.2, id=2, text="Yes."),
    )
    delays = recorded_delays(Streams({}, chunks, b"", None))
    assert drawn(delays["llm"], 3) == pytest.approx([0.3, 0.2, 0.3])
    assert drawn(delays["llm-gap"], 1) == pytest.approx([0.05])
    assert drawn(delays["stt"], 2) == pytest.approx([0.1, 0.1])
    assert drawn(delays["tts"], 1) == pytest.approx([0.1])
    assert drawn(delays["tts-gap"], 1) == pytest.approx([0.01])


def test_a_real_recording_can_be_taken() -> None:
    folder = Path(__file__).parents[2] / "recordings" / "coffee-order"
    delays = recorded_delays(read_streams(folder))
    assert {"stt", "llm", "llm-gap", "tts"} <= set(delays)
    assert all(0 <= delay < 10 for draw in delays.values() for delay in itertools.islice(drawn(draw, 20), 20))


def test_a_recording_of_nobody_is_refused() -> None:
    with pytest.raises(RecordingError, match="holds no answer"):
        recorded_delays(Streams({}, (), b"", None))
