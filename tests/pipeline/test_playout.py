"""Playout: what goes in comes out, and it knows which words have been heard."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.clock import Clock, run_on
from voicectl.pipeline.playout import Playout

RATE = 16_000
FRAME_S = 0.02
FRAME = 640  # bytes
SECOND = RATE * 2


def playout(*, held: bool = False) -> Playout:
    made = Playout(RATE, FRAME_S)
    made.begin(held=held)
    return made


def say(line: Playout, text: str, audio: bytes) -> None:
    line.begin_clause(text)
    line.add(audio)
    line.end_clause()


def drain(line: Playout) -> list[bytes]:
    frames: list[bytes] = []
    while frame := line.pull():
        frames.append(frame)
    return frames


# Sound ----------------------------------------------------------------------------------------

chunks_of_audio = st.lists(st.binary(max_size=900).map(lambda data: data[: len(data) // 2 * 2]), max_size=20)


@given(chunks_of_audio)
@settings(deadline=None, max_examples=100)
def test_what_goes_in_comes_out_in_whole_frames_padded_at_the_end(chunks: list[bytes]) -> None:
    line = playout()
    line.begin_clause("words")
    for chunk in chunks:
        line.add(chunk)
    frames = drain(line)
    sound = b"".join(chunks)
    assert {len(frame) for frame in frames} <= {FRAME}
    assert b"".join(frames) == sound.ljust(-(-len(sound) // FRAME) * FRAME, b"\0")


@given(chunks_of_audio, st.lists(st.booleans(), max_size=40))
@settings(deadline=None, max_examples=100)
def test_nothing_is_lost_or_doubled_when_the_line_is_faster_than_the_voice(
    chunks: list[bytes], pulls: list[bool]
) -> None:
    line = playout()
    line.begin_clause("words")
    sound = b""
    left = list(chunks)
    for pull in pulls:
        if pull:
            queued = line.queued_s
            sound += line.pull()[: round(queued * SECOND)]
        elif left:
            line.add(left.pop(0))
    for chunk in left:
        line.add(chunk)
    assert sound + b"".join(drain(line))[: round(len(b"".join(chunks)) - len(sound))] == b"".join(chunks)


def test_nothing_to_say_is_no_frame() -> None:
    line = playout()
    assert line.pull() == b""
    line.begin_clause("words")
    assert line.pull() == b""


def test_a_new_reply_forgets_the_old_one() -> None:
    line = playout()
    say(line, "Old words.", bytes(5 * FRAME))
    line.pull()
    line.begin(held=False)
    assert (line.pull(), line.queued_s, line.started, line.heard()) == (b"", 0.0, False, "")


# Hold -----------------------------------------------------------------------------------------


def test_a_held_reply_is_not_heard_until_it_is_released() -> None:
    line = playout(held=True)
    say(line, "Words.", b"\1\0" * RATE)
    assert [line.pull() for _ in range(3)] == [b""] * 3
    assert (line.started, line.heard()) == (False, "")
    line.release()
    assert line.pull() == b"\1\0" * (FRAME // 2)
    assert line.started


def test_a_held_reply_is_not_over_before_it_is_released() -> None:
    """Not even one without a sound: it failed, and the turn may yet go on."""

    async def main(clock: Clock) -> list[str]:
        line = playout(held=True)
        line.complete()
        happened: list[str] = []

        async def wait() -> None:
            await line.until_played()
            happened.append("played")

        task = clock.spawn(wait(), name="wait")
        await clock.sleep_until(1.0)
        happened.append("released")
        line.release()
        await task
        return happened

    assert run_on("virtual", main) == ["released", "played"]


# Waiting --------------------------------------------------------------------------------------


def test_there_is_room_when_no_more_than_that_is_queued() -> None:
    async def main(clock: Clock) -> float:
        line = playout()
        say(line, "Words.", bytes(4 * SECOND))

        async def tick() -> None:
            for index in range(1, 200):
                await clock.sleep_until(index * FRAME_S)
                line.pull()

        task = clock.spawn(tick(), name="line")
        await line.until_room(3.0)
        there = clock.now()
        await task
        return there

    assert run_on("virtual", main) == pytest.approx(1.0)


def test_it_is_played_when_it_is_complete_and_its_last_frame_is_on_the_line() -> None:
    async def main(clock: Clock) -> float:
        line = playout()
        line.begin_clause("Words.")

        async def tick() -> None:
            for index in range(1, 100):
                await clock.sleep_until(index * FRAME_S)
                line.pull()

        async def speak() -> None:
            line.add(bytes(FRAME))
            await clock.sleep_until(1.01)
            line.add(bytes(FRAME + 2))
            line.complete()

        tasks = [clock.spawn(tick(), name="line"), clock.spawn(speak(), name="voice")]
        await line.until_played()
        over = clock.now()
        await asyncio.wait(tasks)
        return over

    assert run_on("virtual", main) == pytest.approx(1.04)


def test_who_stopped_waiting_does_not_wake_who_waits_next() -> None:
    async def main(clock: Clock) -> bool:
        line = playout()
        first = clock.spawn(line.until_played(), name="first")
        await clock.sleep_until(0.1)
        first.cancel()
        second = clock.spawn(line.until_played(), name="second")
        await clock.sleep_until(0.2)
        waits = not second.done()
        line.complete()
        await second
        return waits and first.cancelled()

    assert run_on("virtual", main)


# What was heard -------------------------------------------------------------------------------

CLAUSES = ["One latte with milk,", " that is five dollars.", " Anything else?"]


def test_the_words_of_a_clause_are_heard_in_proportion_to_its_sound() -> None:
    line = playout()
    say(line, CLAUSES[0], bytes(8 * FRAME))
    say(line, CLAUSES[1], bytes(8 * FRAME))
    heard = [line.heard()]
    for _ in range(16):
        line.pull()
        heard.append(line.heard())
    assert heard[:9] == [
        *("", "", "One", "One", "One latte", "One latte", "One latte with", "One latte with"),
        "One latte with milk,",
    ]
    assert heard[12] == "One latte with milk, that is"
    assert heard[16] == "One latte with milk, that is five dollars."


def test_a_clause_that_is_still_being_made_is_not_heard_to_its_end() -> None:
    line = playout()
    line.begin_clause("One latte with milk,")
    line.add(bytes(5 * FRAME))
    drain(line)
    assert line.heard() == "", "a tenth of a second is no four words"
    for _ in range(100):
        line.add(bytes(FRAME))
        line.pull()
    assert line.heard() == "One latte with", "however long it gets, something is to come"
    line.end_clause()
    assert line.heard() == "One latte with milk,"


def test_the_tail_of_a_resampler_does_not_unsay_a_word() -> None:
    line = playout()
    say(line, "Bye now.", bytes(2 * FRAME))
    drain(line)
    before = line.heard()
    line.add(bytes(40))
    assert (before, line.heard()) == ("Bye now.", "Bye now.")


def test_a_clause_without_sound_counts_once_something_after_it_is_heard() -> None:
    line = playout()
    say(line, "—", b"")
    assert line.heard() == ""
    say(line, " Yes.", bytes(FRAME))
    line.pull()
    assert line.heard() == "— Yes."


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["one", "two,", "three."]), min_size=1, max_size=6).map(" ".join),
            st.lists(st.integers(0, 1500).map(lambda n: n * 2), max_size=4),
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(0, 12), max_size=25),
)
@settings(deadline=None, max_examples=60)
def test_what_was_heard_is_a_beginning_of_what_was_said_and_only_grows(
    clauses: list[tuple[str, list[int]]], pulls: list[int]
) -> None:
    line = playout()
    said = " ".join(text for text, _ in clauses).split()
    heard = [line.heard()]
    gaps = iter(pulls)

    def listen() -> None:
        for _ in range(next(gaps, 0)):
            line.pull()
            heard.append(line.heard())

    for index, (text, sizes) in enumerate(clauses):
        line.begin_clause(" " + text if index else text)
        for size in sizes:
            line.add(bytes(size))
            listen()
        line.end_clause()
        listen()
    line.complete()
    drain(line)
    heard.append(line.heard())
    words = [text.split() for text in heard]
    assert all(said[: len(some)] == some for some in words)
    assert all(len(some) <= len(more) for some, more in pairwise(words))
    if clauses[-1][1] and clauses[-1][1][-1]:
        assert words[-1] == said


def test_the_silence_after_the_last_sound_is_not_played() -> None:
    playout = Playout(8_000, 0.02)
    playout.begin(held=False)
    playout.begin_clause("One.")
    playout.add(b"\1\0" * 400 + bytes(400))
    playout.begin_clause(" Two.")
    playout.add(b"\1\0" * 400 + bytes(1_600))
    playout.add(bytes(30))
    assert playout.queued_s == pytest.approx((800 + 400 + 800 + 1_630) / 16_000)
    playout.complete()
    assert playout.queued_s == pytest.approx((800 + 400 + 800) / 16_000), "only that at the very end"
    while playout.pull():
        pass
    assert playout.heard() == "One. Two."


def test_silence_that_follows_no_queued_sound_is_left_alone() -> None:
    playout = Playout(8_000, 0.02)
    playout.begin(held=False)
    playout.begin_clause("One.")
    playout.add(b"\1\0" * 160 + bytes(640))
    playout.pull()
    playout.complete()
    assert playout.queued_s == pytest.approx(0.04)
