"""Whole calls through each cloud provider, over real sockets with the vendors' SDKs, recorded and replayed.

The caller and the voices say tone words, the LLM says back what it was asked: what an STT loses is missing
in the answer. The stand-in is gone when the recording is replayed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from standin import CANARY, StandIn

from voicectl.assemble import Engine
from voicectl.audio import Pcm
from voicectl.clock import Clock, run_on
from voicectl.events import PlayoutFinished, ProviderFailed, ProviderUsed
from voicectl.providers import CATALOG, KEYS
from voicectl.replay.call import open_kept, replay
from voicectl.replay.compare import first_departure
from voicectl.spec import resolve
from voicectl.standin.answers import echo
from voicectl.standin.ears import Library
from voicectl.standin.tones import CALLER, say, seconds
from voicectl.standin.voices import in_tones
from voicectl.trace import event_line
from voicectl.transports.caller import AfterAgent, Caller, Utterance

pytestmark = pytest.mark.wall

SAID = ("one large latte please", "and two teas")
AGENT = """\
version: 1
agents:
  coffee:
    instructions: Take orders.
    vad: {{provider: scripted}}
    stt: {stt}
    llm: {llm}
    tts: {tts}
    turn: {{endpointing: {{strategy: {strategy}, silence_ms: 400}}}}
"""
STTS = {
    "deepgram": "{provider: deepgram, options: {base_url: URL}}",
    "flux": "{provider: deepgram, model: flux-general-en, options: {base_url: URL}}",
    "openai": "{provider: openai, model: m, options: {base_url: URL/v1}}",
    "cartesia": "{provider: cartesia, options: {base_url: URL}}",
}
LLMS = {
    "openai": "{provider: openai, model: m, options: {base_url: URL/v1}}",
    "anthropic": "{provider: anthropic, model: m, options: {base_url: URL}}",
}
TTSS = {
    "cartesia": "{provider: cartesia, options: {base_url: URL}}",
    "deepgram": "{provider: deepgram, options: {base_url: URL}}",
    "openai": "{provider: openai, model: m, options: {base_url: URL/v1}}",
    "elevenlabs": "{provider: elevenlabs, options: {base_url: URL}}",
}


def agent(folder: Path, url: str, stt: str, llm: str, tts: str) -> Any:
    strategy = "provider" if stt == "flux" else "silence"
    text = AGENT.format(stt=STTS[stt], llm=LLMS[llm], tts=TTSS[tts], strategy=strategy).replace("URL", url)
    (folder / "agents.yaml").write_text(text)
    return resolve(None, None, [], env={}, catalog=CATALOG, agents_file=folder / "agents.yaml")


def caller() -> Caller:
    said = [
        Utterance(Pcm(say(text, 16_000, CALLER), 16_000), text, 0.0, seconds(text, CALLER), text, start=AfterAgent(1.2))
        for text in SAID
    ]
    return Caller("ann", tuple(said))


@pytest.mark.parametrize(
    ("stt", "llm", "tts"),
    [
        ("deepgram", "openai", "cartesia"),
        ("flux", "anthropic", "elevenlabs"),
        ("openai", "openai", "openai"),
        ("cartesia", "anthropic", "deepgram"),
    ],
)
def test_a_call_through_vendors_is_recorded_and_replays_to_the_byte_without_them(
    tmp_path: Path, stt: str, llm: str, tts: str
) -> None:
    async def main(clock: Clock) -> None:
        engine = Engine(resolved, clock, find_key=dict.fromkeys(KEYS.values(), CANARY).get)
        try:
            await engine.start(lambda text: None)
            await engine.answer(caller(), tmp_path / "call")
        finally:
            await engine.aclose()

    with StandIn(answer=echo, voice=in_tones, ear=Library(vocabulary=SAID).ear) as vendor:
        resolved = agent(tmp_path, vendor.url, stt, llm, tts)
        run_on("wall", main)
    kept = open_kept(tmp_path / "call")
    events = kept.recording.events
    assert [event for event in events if isinstance(event, ProviderFailed)] == []
    assert [event.heard for event in events if isinstance(event, PlayoutFinished)] == [f"You said: {it}" for it in SAID]
    assert {event.stage for event in events if isinstance(event, ProviderUsed)} == {"stt", "llm", "tts"}
    for path in (tmp_path / "call").iterdir():
        assert CANARY.encode() not in path.read_bytes()
    first, second = replay(kept), replay(kept)
    assert [event_line(event) for event in first.events] == [event_line(event) for event in second.events]
    assert (first.right == second.right).all()
    assert first_departure(events, first.events, kept.until) is None
