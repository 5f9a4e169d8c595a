"""The next takes over, and the caller hears every word once."""

from __future__ import annotations

import itertools

import pytest

from voicectl.audio import Pcm, resample
from voicectl.clock import Clock
from voicectl.errors import ProviderError
from voicectl.pipeline.protocols import LlmRequest, Message, TextDelta, ToolDelta, TtsRequest
from voicectl.resilience.fallback import GO_ON, FallbackLlm, FallbackStt, FallbackTts, Spare
from voicectl.standin.tones import BRISK, CALM, heard, listen, say, words_of

from .support import ASKED, Fake, FakeStt, Notes, Step, failure, on_clock, said, spoken, transcripts

# The LLM -----------------------------------------------------------------------------------------


def llm(notes: Notes, *fakes: Fake) -> FallbackLlm:
    return FallbackLlm("llm", [Spare(one) for one in fakes], [one.name for one in fakes], notes)


def answers(clock: Clock, *steps: Step, name: str) -> Fake:
    return Fake(clock, [*steps], name=name)


def test_the_first_is_enough_when_it_works() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one, two = answers(clock, "Sure", ", one ", "lat", "te.", name="one"), answers(clock, "No.", name="two")
        assert await said(llm(notes, one, two).generate(ASKED)) == "Sure, one latte."
        assert (two.asked, notes.events) == ([], [])

    on_clock(main)


def test_before_the_first_word_the_second_is_asked_the_same() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one, two = answers(clock, failure(), name="one"), answers(clock, "Sure.", name="two")
        assert await said(llm(notes, one, two).generate(ASKED)) == "Sure."
        assert two.asked == [ASKED]
        assert notes.lines("provider", "to", "said", "why") == ["0.00 ProviderSwitched one two  a server failure"]

    on_clock(main)


@pytest.mark.parametrize("goes_on", ["one latte. Bye.", "Sure, one latte. Bye.", "Sure, one latte", "Sure, one"])
def test_in_the_middle_it_is_asked_to_go_on_and_nothing_is_said_twice(goes_on: str) -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one = answers(clock, "Sure, ", "one", " lat", failure("unreachable"), name="one")
        two = answers(clock, *goes_on.partition(" ")[:2], goes_on.partition(" ")[2], name="two")
        words = (await said(llm(notes, one, two).generate(ASKED))).split()
        want = "Sure, one latte. Bye." if "Bye" in goes_on else "Sure, one latte" if "latte" in goes_on else "Sure, one"
        assert words == want.split()
        assert two.asked[0].messages[2:] == (Message("assistant", "Sure, one"), Message("system", GO_ON))
        assert notes.of("ProviderSwitched")[0].said == "Sure, one"

    on_clock(main)


def test_half_a_word_is_never_said() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one = answers(clock, "Sure. That will be choco", failure(), name="one")
        two = answers(clock, failure(), name="two")
        assert await said(llm(notes, one, two).generate(ASKED)) == "Sure. That will be "

    on_clock(main)


def test_when_nobody_can_go_on_the_answer_ends_if_a_sentence_was_said() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one, two = answers(clock, "Sure. And ", failure(), name="one"), answers(clock, failure(), name="two")
        assert await said(llm(notes, one, two).generate(ASKED)) == "Sure. And "
        one, two = answers(clock, "Sure, and ", failure(), name="one"), answers(clock, failure("timeout"), name="two")
        assert await said(llm(notes, one, two).generate(ASKED)) == "Sure, and ... a timeout failure"
        assert len(notes.events) == 2

    on_clock(main)


def test_a_tool_call_is_not_gone_on_with() -> None:
    class Calls(Fake):
        async def generate(self, request: LlmRequest):  # type: ignore[no-untyped-def]
            yield TextDelta("Let me see. ")
            yield ToolDelta("1", "menu", '{"si')
            raise failure()

    async def main(clock: Clock, notes: Notes) -> None:
        chain = llm(notes, Calls(clock, [], name="one"), answers(clock, "No.", name="two"))
        assert await said(chain.generate(ASKED)) == "Let me see. ... a server failure"

    on_clock(main)


def test_who_rests_is_not_warmed() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one, two = answers(clock, name="one"), answers(clock, name="two")
        chain = FallbackLlm("llm", [Spare(one, lambda: True), Spare(two)], ["one", "two"], notes)
        await chain.warm(ASKED.messages)
        assert (one.warmed, two.warmed) == (0, 1)

    on_clock(main)


# The STT -----------------------------------------------------------------------------------------


def test_the_second_hears_the_turn_from_its_beginning() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one, two = FakeStt(clock, failure("unreachable"), name="one"), FakeStt(clock, 0.1, name="two")
        stream = FallbackStt("stt", [Spare(one), Spare(two)], ["one", "two"], notes).open(2.0)
        stream.push(b"abcd")
        stream.flush()
        stream.push(b"ef")
        stream.flush()
        stream.push(b"gh")
        assert [(one.text, one.flush) for one in await transcripts(stream)] == [("6", 2)]
        assert (two.streams[0].heard, two.streams[0].start) == (b"abcdefgh", 2.0)
        assert notes.lines("provider", "to") == ["0.00 ProviderSwitched one two"]

    on_clock(main)


def test_an_stt_that_gives_up_listening_has_failed() -> None:
    class Stops(FakeStt):
        def open(self, start: float):  # type: ignore[no-untyped-def]
            stream = super().open(start)
            stream.due.put_nowait(None)  # type: ignore[attr-defined]
            return stream

    async def main(clock: Clock, notes: Notes) -> None:
        one, two = Stops(clock, 0.1, name="one"), FakeStt(clock, 0.1, name="two")
        stream = FallbackStt("stt", [Spare(one), Spare(two)], ["one", "two"], notes).open(0.0)
        stream.flush()
        assert len(await transcripts(stream)) == 1
        assert notes.lines("why") == ["0.00 ProviderSwitched stopped listening in the middle of a turn"]

    on_clock(main)


def test_a_flush_after_the_switch_has_its_own_number() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        one, two = FakeStt(clock, failure(), name="one"), FakeStt(clock, 0.1, name="two")
        stream = FallbackStt("stt", [Spare(one), Spare(two)], ["one", "two"], notes).open(0.0)

        async def asks() -> None:
            for _ in range(3):
                stream.push(b"ab")
                stream.flush()
                await clock.sleep_until(clock.now() + 1.0)

        asking = clock.spawn(asks(), name="asking")
        assert [(one.text, one.flush) for one in await transcripts(stream, 3)] == [("2", 1), ("4", 2), ("6", 3)]
        await asking

    on_clock(main)


# The TTS -----------------------------------------------------------------------------------------

TEXT = "One large latte with oat milk comes to seven dollars fifty."
RATE = 16_000


def voice(clock: Clock, text: str = TEXT, *, fails_after: int | None = None, **kind: object) -> Fake:
    """CALM at 16 kHz in pieces of 100 ms, twice as fast as it is heard; BRISK at 24 kHz with `spare`."""
    spare = "spare" in kind
    rate = 24_000 if spare else RATE
    pcm = say(text, rate, BRISK if spare else CALM)
    steps: list[Step] = [0.1]
    for number, at in enumerate(range(0, len(pcm), rate // 5)):
        if number == fails_after:
            steps.append(failure("unreachable"))
        steps += [pcm[at : at + rate // 5], 0.05]
    return Fake(clock, steps, name="brisk" if spare else "calm", rate=rate)


def tts(clock: Clock, notes: Notes, *fakes: Fake) -> FallbackTts:
    return FallbackTts("tts", [Spare(one) for one in fakes], [one.name for one in fakes], notes, clock)


def test_a_voice_that_works_is_heard_to_the_last_sample() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        chain = tts(clock, notes, voice(clock), voice(clock, spare=True))
        assert await spoken(chain.synthesize(TtsRequest(TEXT))) == say(TEXT, RATE, CALM)
        assert notes.events == []

    on_clock(main)


def test_its_first_audio_is_not_held_back() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        chain = tts(clock, notes, voice(clock), voice(clock, spare=True))
        audio = chain.synthesize(TtsRequest(TEXT))
        first = await anext(audio)
        assert round(notes.now(), 6) == 0.1
        assert len(first) >= 0.09 * RATE * 2
        await audio.aclose()

    on_clock(main)


def test_before_the_first_sound_the_other_speaks_all_of_it_at_the_first_ones_rate() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        chain = tts(clock, notes, voice(clock, fails_after=0), voice(clock, spare=True))
        assert chain.rate == RATE
        whole = resample(Pcm(say(TEXT, 24_000, BRISK), 24_000), RATE)
        assert await spoken(chain.synthesize(TtsRequest(TEXT))) == whole.data
        assert notes.lines("provider", "to", "said") == ["0.10 ProviderSwitched calm brisk "]

    on_clock(main)


@pytest.mark.parametrize("pieces", range(1, 22, 2))
def test_in_the_middle_of_a_clause_the_other_goes_on_where_it_stopped(pieces: int) -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        chain = tts(clock, notes, voice(clock, fails_after=pieces), voice(clock, spare=True))
        found = listen(await spoken(chain.synthesize(TtsRequest(TEXT))), RATE, words_of(TEXT))
        words: list[str] = []
        for one in found:  # a word that broke off is heard in two pieces, of two voices
            if not (words and words[-1] == one.word and not one.whole):
                words.append(one.word)
        again = [one for one, other in itertools.pairwise(words) if one == other]
        assert [one for number, one in enumerate(words) if not number or one != words[number - 1]] == words_of(TEXT)
        assert len(again) <= 1
        assert len([one for one in found if not one.whole]) <= 2
        assert notes.of("ProviderSwitched")[0].said == TEXT

    on_clock(main)


def test_the_rest_of_the_reply_is_spoken_by_the_same_voice_and_the_next_by_the_first() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        calm = Fake(clock, [failure()], [say("two", RATE, CALM)], name="calm")
        brisk = Fake(clock, [say("one", RATE, BRISK)], name="brisk")
        chain = tts(clock, notes, calm, brisk)
        for reply, index, want in ((1, 0, BRISK), (1, 1, BRISK), (2, 0, CALM)):
            pcm = await spoken(chain.synthesize(TtsRequest("x", reply, index)))
            assert [one.voice for one in listen(pcm, RATE, ["one", "two"])] == [want.name]

    on_clock(main)


def test_when_all_have_failed_what_there_is_was_heard_and_the_failure_is_raised() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        chain = tts(clock, notes, voice(clock, fails_after=8), Fake(clock, [failure("timeout")], name="brisk"))
        pcm = b""
        with pytest.raises(ProviderError, match="timeout"):
            async for piece in chain.synthesize(TtsRequest(TEXT)):
                pcm += piece
        assert heard(pcm, RATE, words_of(TEXT))[:3] == ["one", "large", "latte"]
        assert len(pcm) == 8 * RATE // 5

    on_clock(main)


def test_a_third_voice_goes_on_after_two() -> None:
    async def main(clock: Clock, notes: Notes) -> None:
        chain = tts(
            clock,
            notes,
            voice(clock, fails_after=6),
            voice(clock, spare=True, fails_after=17),
            voice(clock),
        )
        found = listen(await spoken(chain.synthesize(TtsRequest(TEXT))), RATE, words_of(TEXT))
        words = [one.word for one in found]
        assert [one for number, one in enumerate(words) if not number or one != words[number - 1]] == words_of(TEXT)
        assert len(notes.events) == 2

    on_clock(main)
