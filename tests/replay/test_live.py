"""From a miss on with the real provider: marked, and joined to what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.support import make_calls, utterance
from voicectl.assemble import Engine, rules_of
from voicectl.clock import Clock, run_on
from voicectl.events import LlmFinished, ProviderFailed
from voicectl.providers.recorded import replayed
from voicectl.recording import Recording
from voicectl.replay.call import Kept, open_kept, run_again
from voicectl.replay.check import Options, check
from voicectl.replay.live import or_live
from voicectl.replay.show import headline
from voicectl.transports.caller import AfterAgent, Caller

BRIEF = ("instructions=You are brief.",)


def with_live(kept: Kept, live: list[str]) -> Recording:
    """With the agent's own providers for what was not recorded, on the virtual clock."""

    async def main(clock: Clock) -> Recording:
        engine = Engine(kept.agent, clock)
        providers = or_live(replayed(kept.streams, clock), engine.providers, live.append)
        return await run_again(kept, rules_of(kept.agent), providers, clock)

    return run_on("virtual", main)


def test_what_was_recorded_is_not_asked_again(order: Path) -> None:
    live: list[str] = []
    kept = open_kept(order)
    now = with_live(kept, live)
    assert live == []
    assert [type(event) for event in now.events] == [type(event) for event in kept.recording.events]


def test_a_changed_prompt_is_answered_by_the_real_model(order: Path) -> None:
    live: list[str] = []
    now = with_live(open_kept(order, BRIEF), live)
    assert not [event for event in now.events if isinstance(event, ProviderFailed)]
    assert len([event for event in now.events if isinstance(event, LlmFinished)]) == 3
    assert len([text for text in live if "this conversation was not recorded" in text]) == 3


def test_other_turns_are_heard_by_the_real_stt(hasty: Path) -> None:
    live: list[str] = []
    now = with_live(open_kept(hasty, ("turn.endpointing.silence_ms=1400", "turn.speculation=false")), live)
    assert not [event for event in now.events if isinstance(event, ProviderFailed)]
    assert any("the STT was not asked for" in text for text in live)


@pytest.mark.wall
def test_live_runs_on_the_wall_clock_and_says_so(tmp_path: Path) -> None:
    quick = Caller("quick", (utterance("1.wav", (0.1, 0.5), text="Hello.", start=AfterAgent(0.1)),))
    scripted = ("greeting=Hi.", "llm.options.replies=[Bye.]", "tts.options.words_per_second=10")
    (path,) = make_calls(tmp_path / "calls", *scripted, callers=[quick])
    outcome = check(path, Options(on_miss="live", overrides=BRIEF))
    assert len(outcome.live) == 1
    assert "1 answered live, on the wall clock" in headline(outcome)
    assert outcome.call
    assert outcome.call.measures.timeline.clock == "wall"
    assert outcome.state == "ok"
