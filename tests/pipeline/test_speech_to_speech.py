"""Whole calls with a model that hears and speaks by itself, on the virtual clock: no STT, no LLM, no TTS.

Turns are taken by our VAD; how long the caller speaks stands for the words that nobody tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tests.pipeline.calls import HangsUp, after, during, says, story
from tests.replay.support import CALLERS
from voicectl.analysis.definitions import ALL_STAGES, S2S_STAGES, STAGES
from voicectl.analysis.metrics import Run, analyse
from voicectl.assemble import Engine
from voicectl.clock import Clock, run_on
from voicectl.errors import ProviderError, RecordingError, SpecError, UsageError
from voicectl.events import (
    AgentInterrupted,
    AgentPaused,
    AgentResumed,
    BackchannelHeard,
    CallEnded,
    LlmRequested,
    PlayoutFinished,
    PlayoutStarted,
    ProviderFailed,
    ProviderUsed,
    ReplyCancelled,
    ReplyStarted,
    S2sCancelled,
    S2sFinished,
    S2sFirstAudio,
    S2sRequested,
    TranscriptUpdated,
    TtsRequested,
    TurnDropped,
    TurnEnded,
    UtterancePlayed,
)
from voicectl.pipeline.endpointing import EndpointingRules
from voicectl.pipeline.idle import IdleRules
from voicectl.pipeline.protocols import S2sStream, SpeechProviders
from voicectl.pipeline.session import AgentRules, Session
from voicectl.pipeline.turn_taking import TurnRules
from voicectl.providers import CATALOG
from voicectl.providers.recorded import replayed
from voicectl.providers.scripted import S2sOptions, ScriptedConversation, ScriptedS2s, ScriptedVad, VadOptions
from voicectl.recording import open_recording
from voicectl.replay.call import open_kept, replay
from voicectl.replay.compare import first_difference
from voicectl.replay.live import or_live
from voicectl.report.json import report_json
from voicectl.report.table import render_report
from voicectl.spec import ResolvedAgent, load_resolved, parse_threshold, resolve
from voicectl.trace import Trace
from voicectl.transports.caller import Caller, Utterance
from voicectl.transports.wav import WavTransport

LONG = "Sure, one large latte with oat milk coming up in a minute. Anything else for you today?"
RULES = AgentRules(
    "coffee",
    "Take orders.",
    "",
    EndpointingRules(pause_s=0.13, notice_s=0.128, sustain_s=0.7),
    TurnRules(speculate=False, min_words=0),
)


class Model(ScriptedS2s):
    """The scripted model; keeps its conversations, and may fail."""

    def __init__(self, options: S2sOptions, clock: Clock, trace: Trace, fails: Sequence[int]) -> None:
        super().__init__(options, None, clock)
        self.trace = trace
        self.fails = fails
        self.conversations: list[ScriptedConversation] = []
        self._truth = self.truth

    def truth(self, start: float, end: float) -> str:
        played = self.trace.of(UtterancePlayed)
        return " ".join(one.text or "" for one in played if one.voiced_from < end and one.voiced_until > start)

    def open(self, instructions: str) -> S2sStream:
        conversation = ScriptedConversation(self._options, self.rate, self._clock, self._truth)
        self.conversations.append(conversation)
        if self.fails:
            respond, fails, asked = conversation.respond, self.fails, [0]

            def failing() -> Any:
                asked[0] += 1
                return _fail() if asked[0] in fails else respond()

            conversation.respond = failing
        return conversation


async def _fail() -> Any:
    raise ProviderError("the connection was cut", where="s2s:scripted")
    yield


@dataclass(kw_only=True)
class Call:
    """A call to be made. Times in seconds."""

    caller: Sequence[Utterance]
    replies: tuple[str, ...] = ("One latte.",)
    rules: AgentRules = RULES
    fails: Sequence[int] = ()
    hang_up_at: float | None = None
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    trace: Trace = field(default_factory=Trace)

    def run(self) -> Call:
        run_on("virtual", self.made)
        return self

    async def made(self, clock: Clock) -> None:
        options = S2sOptions.model_validate({"replies": self.replies, **self.more})
        self.model = Model(options, clock, self.trace, self.fails)
        greeted = bool(self.rules.greeting)
        wav = WavTransport(
            Caller("ann", tuple(self.caller)), rate=16_000, greeted=greeted, clock=clock, trace=self.trace
        )
        line = wav if self.hang_up_at is None else HangsUp(wav, self.hang_up_at)
        providers = SpeechProviders(ScriptedVad(VadOptions.model_validate({}), None, clock), self.model)
        await Session(self.rules, providers, line, clock, self.trace).run()
        self.left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    @property
    def remembers(self) -> list[str]:
        return [f"{who}: {text}" for who, text in self.model.conversations[0].remembers]


def test_a_turn_is_handed_to_the_model_when_it_has_ended_and_its_text_comes_later() -> None:
    call = Call(caller=[says("A latte, please.", 0.5)]).run()
    kinds = (TurnEnded, ReplyStarted, S2sRequested, S2sFirstAudio, PlayoutStarted, TranscriptUpdated, S2sFinished)
    assert story(call.trace, *kinds, PlayoutFinished, CallEnded) == [
        "2.00 TurnEnded 1 '500 ms of silence'",
        "2.00 ReplyStarted 0 1 '' False",
        "2.00 S2sRequested 0",
        "2.30 S2sFirstAudio 0",
        "2.30 PlayoutStarted 0",
        "2.33 S2sFinished 0 'One latte.'",
        "2.40 TranscriptUpdated 1 'A latte, please.'",
        "2.96 PlayoutFinished 0 'One latte.'",
        "3.90 CallEnded 'caller hung up'",
    ]
    assert not call.trace.of(LlmRequested)
    assert not call.trace.of(TtsRequested)
    assert call.remembers == ["caller: A latte, please.", "agent: One latte."]
    assert call.left == []


def test_the_model_gets_the_speech_with_its_beginning_and_not_the_silence_before() -> None:
    call = Call(caller=[says("A latte, please.", 0.5)]).run()
    used = call.trace.of(ProviderUsed)
    # 0.3 s before the speech, 1 s of it, 0.5 s of silence after it: 10 tokens a second.
    assert [(one.stage, one.provider, one.audio_in_tokens, one.audio_out_tokens) for one in used] == [
        ("s2s", "scripted", 18, 14)
    ]


def test_who_speaks_on_over_the_agent_interrupts_and_the_model_forgets_what_was_not_heard() -> None:
    call = Call(
        caller=[says("A latte, please.", 0.5), says("No, a mocha instead.", during(1.0), 1.5)],
        replies=(LONG, "One mocha."),
    ).run()
    [interrupted] = call.trace.of(AgentInterrupted)
    [paused] = call.trace.of(AgentPaused)
    assert paused.at < interrupted.at + 0.05, "it fell quiet at once"
    assert interrupted.heard
    assert LONG.startswith(interrupted.heard)
    assert len(interrupted.heard) < len(LONG) / 2
    assert call.remembers == [
        "caller: A latte, please.",
        f"agent: {interrupted.heard}",
        "caller: No, a mocha instead.",
        "agent: One mocha.",
    ]
    assert call.trace.of(PlayoutFinished)[-1].heard == "One mocha."


def test_a_short_sound_over_the_agent_holds_it_up_and_it_goes_on() -> None:
    call = Call(
        caller=[says("A latte, please.", 0.5), says("Mhm.", during(1.0), 0.4, backchannel=True)],
        replies=(LONG,),
    ).run()
    assert len(call.trace.of(AgentPaused)) == len(call.trace.of(AgentResumed)) == 1
    assert not call.trace.of(AgentInterrupted)
    assert [one.heard for one in call.trace.of(PlayoutFinished)] == [LONG]
    assert [one.text for one in call.trace.of(BackchannelHeard)] == [""]
    assert [one.reason for one in call.trace.of(TurnDropped)] == ["backchannel"]
    assert call.remembers == ["caller: A latte, please.", f"agent: {LONG}"]


def test_short_words_one_after_the_other_add_up_to_an_interruption() -> None:
    caller = [
        says("A latte, please.", 0.5),
        says("No,", during(1.0), 0.4),
        says("wait,", 4.0, 0.4),
    ]
    adds_up = replace(RULES, endpointing=replace(RULES.endpointing, sustain_adds_up=True))
    one, two = (Call(caller=caller, replies=(LONG, "Yes?"), rules=rules).run() for rules in (RULES, adds_up))
    started = [event.at for event in one.trace.of(UtterancePlayed)]
    assert started[2] - started[1] < 0.9, "one turn"
    assert not one.trace.of(AgentInterrupted)
    assert len(two.trace.of(AgentInterrupted)) == 1
    assert two.trace.of(PlayoutFinished)[-1].heard == "Yes?"


def test_a_dropped_sound_is_no_part_of_the_next_turn() -> None:
    call = Call(
        caller=[
            says("A latte, please.", 0.5),
            says("Mhm.", during(1.0), 0.4, backchannel=True),
            says("And a mocha.", after(1.2)),
        ],
        replies=(LONG, "One mocha."),
    ).run()
    assert [one.text for one in call.trace.of(TranscriptUpdated)] == ["A latte, please.", "And a mocha."]


def test_a_nod_at_the_end_of_the_agents_question_answers_it() -> None:
    call = Call(
        caller=[says("A latte, please.", 0.5), says("Yes.", during(5.2), 0.4)],
        replies=(LONG, "Then that is all."),
    ).run()
    assert [one.heard for one in call.trace.of(PlayoutFinished)] == [LONG, "Then that is all."]
    assert call.remembers[2:] == ["caller: Yes.", "agent: Then that is all."]


def test_who_goes_on_before_the_answer_is_heard_takes_it_back_and_the_model_hears_both_parts() -> None:
    call = Call(
        caller=[says("A latte", 0.5), says("with oat milk.", 2.05)],
        replies=("One latte.", "Never."),
        more={"ttfb_ms": 400},
    ).run()
    assert [one.reason for one in call.trace.of(ReplyCancelled)] == ["caller went on"]
    assert len(call.trace.of(S2sCancelled)) == 1
    assert [one.heard for one in call.trace.of(PlayoutFinished)] == ["One latte."]
    assert call.remembers == ["caller: A latte", "caller: with oat milk.", "agent: One latte."]
    assert [one.wasted for one in call.trace.of(ProviderUsed)] == [True, False]


def test_thinking_ahead_at_a_pause_answers_sooner_and_is_dropped_when_the_caller_goes_on() -> None:
    ahead = replace(RULES, turns=replace(RULES.turns, speculate=True))
    one = Call(caller=[says("A latte, please.", 0.5)], rules=ahead).run()
    assert story(one.trace, ReplyStarted, PlayoutStarted) == [
        "1.64 ReplyStarted 0 1 '' True",
        "2.00 PlayoutStarted 0",
    ]
    two = Call(caller=[says("A latte", 0.5), says("with oat milk.", 1.8)], rules=ahead).run()
    assert [one.heard for one in two.trace.of(PlayoutFinished)] == ["One latte."]
    assert two.remembers == ["caller: A latte", "caller: with oat milk.", "agent: One latte."]


def test_what_is_said_to_an_agent_that_cannot_be_interrupted_is_answered_when_it_has_finished() -> None:
    rules = replace(RULES, turns=replace(RULES.turns, interruptible=False))
    call = Call(
        caller=[says("A latte, please.", 0.5), says("No, a mocha.", during(1.0), 1.5)],
        replies=(LONG, "One mocha."),
        rules=rules,
    ).run()
    assert not call.trace.of(AgentInterrupted)
    assert [one.heard for one in call.trace.of(PlayoutFinished)] == [LONG, "One mocha."]
    assert call.remembers[2:] == ["caller: No, a mocha.", "agent: One mocha."]


def test_the_greeting_and_the_idle_prompts_are_said_by_the_model() -> None:
    rules = replace(RULES, greeting="Hi there!", idle=IdleRules(2.0, ("Still there?",), "Goodbye."))
    call = Call(caller=[says("A latte, please.", after(0.5)), says("Hello?", 60.0)], rules=rules).run()
    assert [one.kind for one in call.trace.of(ReplyStarted)] == ["greeting", "answer", "idle prompt", "goodbye"]
    heard = [one.heard for one in call.trace.of(PlayoutFinished)]
    assert heard == ["Hi there!", "One latte.", "Still there?", "Goodbye."]
    assert call.trace.of(CallEnded)[0].reason == "agent hung up"


def test_who_speaks_before_the_greeting_is_heard_first() -> None:
    rules = replace(RULES, greeting="Hi there!")
    call = Call(caller=[says("A latte, please.", 0.05, 1.5)], rules=rules, more={"ttfb_ms": 500}).run()
    assert [one.reason for one in call.trace.of(ReplyCancelled)] == ["caller spoke first"]
    assert [one.heard for one in call.trace.of(PlayoutFinished)] == ["One latte."]
    assert call.remembers == ["caller: A latte, please.", "agent: One latte."]


def test_a_model_that_fails_is_told_and_the_call_goes_on() -> None:
    call = Call(caller=[says("A latte, please.", 0.5), says("Hello?", 5.0)], fails=[1]).run()
    assert [(one.stage, one.message) for one in call.trace.of(ProviderFailed)] == [
        ("s2s", "s2s:scripted: the connection was cut")
    ]
    assert call.trace.of(PlayoutFinished)[-1].heard == "One latte."


def test_a_call_that_ends_in_the_middle_of_an_answer_leaves_nothing_behind() -> None:
    call = Call(caller=[says("A latte, please.", 0.5)], replies=(LONG,), hang_up_at=3.0).run()
    assert [one.reason for one in call.trace.of(ReplyCancelled)] == ["call ended"]
    assert call.left == []
    # What was heard of it was paid for, not wasted.
    assert [one.wasted for one in call.trace.of(ProviderUsed)] == [False]


def test_the_same_call_is_the_same_every_time() -> None:
    def lines() -> str:
        said = [says("A latte", 0.5), says("with oat milk.", 2.05), says("No!", during(1.0), 1.2)]
        return Call(caller=said, replies=(LONG, "Fine.")).run().trace.lines()

    assert lines() == lines()


# From the spec to the report -------------------------------------------------------------------

AGENT = """\
version: 1
agents:
  coffee:
    instructions: You take orders on the phone.
    greeting: Hi! What can I get you?
    vad: {provider: scripted}
    s2s: {provider: scripted}
"""


def resolved(folder: Path, *overrides: str, text: str = AGENT, **profiles: str) -> ResolvedAgent:
    path = folder / "agents.yaml"
    path.write_text(text, encoding="utf-8")
    for name, profile in profiles.items():
        (folder / "profiles").mkdir(exist_ok=True)
        (folder / "profiles" / f"{name}.yaml").write_text(profile, encoding="utf-8")
    profile = next(iter(profiles), None)
    return resolve(None, profile, ["clock=virtual", *overrides], env={}, catalog=CATALOG, agents_file=path)


def problems(folder: Path, more: str, text: str = AGENT) -> list[str]:
    """What is wrong with the agent when this is said besides."""
    with pytest.raises(SpecError) as caught:
        resolved(folder, text=text + more)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two calls on the virtual clock."""
    folder = tmp_path_factory.mktemp("speech")
    agent = resolved(folder)

    async def main(clock: Clock) -> None:
        engine = Engine(agent, clock)
        await engine.start(lambda text: None)
        for caller in CALLERS:
            await engine.answer(caller, folder / "calls" / caller.name)
        await engine.aclose()

    run_on("virtual", main)
    return folder / "calls"


def test_a_recording_replays_to_the_byte_and_twice_the_same(kept: Path) -> None:
    for path in sorted(kept.iterdir()):
        call = open_kept(path)
        first, second = replay(call), replay(call)
        assert first_difference(call.recording.events, first.events) is None
        assert first.events == second.events
        assert (first.right == call.recording.right).all()


def test_the_report_has_the_stages_that_exist_and_no_others(kept: Path) -> None:
    recordings = [open_recording(path) for path in sorted(kept.iterdir())]
    thresholds = [parse_threshold(one) for one in ("p50(s2s_ttfb_ms) < 400", "p50(llm_ttft_ms) < 400")]
    analysis = analyse(recordings, Run(agent="coffee", profile="none"), thresholds)
    answered = analysis.of("answered")
    assert len(answered) >= 5
    for turn in answered:
        one = turn.exchange
        assert set(one.stages) == {"endpointing", "s2s_ttfb", "s2s_lead_silence", "playout"}
        assert sum(one.waterfall or ()) == one.wait
        assert one.stages["s2s_ttfb"] == 300_000
        assert one.transcript
    report = report_json(analysis)
    stages = [name for name in report["metrics"] if name not in ("voice_to_voice_ms", "barge_in_stop_ms")]
    assert stages == ["endpointing_ms", "s2s_ttfb_ms", "s2s_lead_silence_ms", "playout_ms"]
    [waterfall] = {tuple(one["waterfall_ms"]) for one in report["exchanges"] if one["waterfall_ms"]}
    assert waterfall == ("endpointing", "s2s_ttfb", "s2s_lead_silence", "playout")
    assert [(one["outcome"], one["needs"]) for one in report["thresholds"]] == [("pass", None), ("undecided", None)]
    printed = Console(width=100, file=StringIO(), record=True)
    render_report(analysis, printed)
    text = cast("StringIO", printed.file).getvalue()
    assert "s2s ttfb" in text
    assert "these agents have no such stage" in text
    assert not any(word in text for word in ("stt final", "llm ttft  ", "llm sentence", "tts ttfb"))


def test_an_agent_with_a_chain_of_three_has_no_stage_of_the_other_kind() -> None:
    assert not set(STAGES) & {"s2s_ttfb", "s2s_lead_silence"}
    assert set(ALL_STAGES) == set(STAGES) | set(S2S_STAGES)


def test_an_agent_takes_turns_without_words_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    turn = resolved(tmp_path).turn
    assert turn.endpointing.strategy == ("silence",)
    assert turn.interruption.min_words == 0
    assert turn.speculation is False
    told = "    turn: {speculation: true, endpointing: {strategy: adaptive}}\n"
    turn = resolved(tmp_path, text=AGENT + told).turn
    assert (turn.speculation, turn.endpointing.strategy) == (True, ("adaptive",))


def test_the_spec_of_a_recording_reads_back_the_same(tmp_path: Path) -> None:
    agent = resolved(tmp_path)
    (tmp_path / "spec.yaml").write_text(agent.to_yaml())
    assert load_resolved(tmp_path / "spec.yaml", CATALOG) == agent
    assert list(agent.stages()) == ["vad", "s2s"]
    with pytest.raises(UsageError, match="the agent 'coffee' has no llm: it has one model that hears and speaks"):
        agent.stage("llm")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            "    llm: {provider: scripted}\n",
            "agents.yaml:7:5: the agent has 's2s' and also 'llm'. "
            "Keep either 's2s', one model that hears and speaks, or 'stt', 'llm' and 'tts'",
        ),
        (
            "    turn: {endpointing: {strategy: [audio, text]}}\n",
            "agents.yaml:8:36: the strategy 'text' needs an STT, and a speech-to-speech agent has none. "
            "Choose among silence, adaptive and audio",
        ),
        (
            "    turn: {interruption: {min_words: 2}}\n",
            "agents.yaml:8:38: 'min_words' needs an STT, and a speech-to-speech agent has none. "
            "Remove it: speech of 'min_speech_ms' interrupts",
        ),
        (
            "    turn: {filler: {}}\n",
            "agents.yaml:8:20: a filler needs a TTS, and a speech-to-speech agent has none. Remove it",
        ),
        (
            "    thresholds: [p50(llm_ttft_ms) < 300]\n",
            "agents.yaml:8:18: 'llm_ttft_ms' is not measured: the agent has one speech-to-speech model. "
            "What it takes to answer is 's2s_ttfb_ms'",
        ),
    ],
    ids=["both", "text", "min_words", "filler", "threshold"],
)
def test_what_does_not_go_together_is_one_line(tmp_path: Path, more: str, line: str) -> None:
    assert problems(tmp_path, more) == [line]


def test_an_agent_with_nothing_that_speaks_is_one_line(tmp_path: Path) -> None:
    assert problems(tmp_path, "", AGENT.replace("    s2s: {provider: scripted}\n", "")) == [
        "agents.yaml:3:3: the agent has nothing that hears and speaks. Give it 'stt', 'llm' and 'tts', or 's2s'"
    ]


def test_a_profile_makes_an_agent_of_the_other_kind_or_speaks_of_both(tmp_path: Path) -> None:
    chain = "stt: {provider: scripted}\nllm: {provider: scripted}\ntts: {provider: scripted}\n"
    speech = "s2s: {provider: scripted, options: {ttfb_ms: 200}}\n"
    three = AGENT.replace("    s2s: {provider: scripted}\n", "".join(f"    {line}\n" for line in chain.splitlines()))

    def kind(text: str, profile: str) -> Sequence[str]:
        return [*resolved(tmp_path, text=text, p=profile).stages()][1:]

    assert kind(AGENT, speech) == kind(three, speech) == kind(AGENT, chain + speech) == ["s2s"]
    assert kind(three, chain) == kind(AGENT, chain) == kind(three, chain + speech) == ["stt", "llm", "tts"]
    assert kind(AGENT, "llm: {provider: scripted}\n") == ["s2s"], "it has no LLM to change"
    assert list(resolved(tmp_path, "s2s.provider=scripted", text=three).stages()) == ["vad", "s2s"]


def test_a_call_that_went_on_live_could_not_be_remembered(kept: Path) -> None:
    streams = open_kept(kept / "order").streams

    async def main(clock: Clock) -> None:
        parts = replayed(streams, clock)
        with pytest.raises(RecordingError, match="would not remember what was said before"):
            or_live(parts, parts, print)

    run_on("virtual", main)
