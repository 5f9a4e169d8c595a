"""A key goes to its vendor and nowhere else: a whole run against the stand-in, and everything it leaves is searched."""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Voicectl
from tests.test_keys import Keyring
from voicectl.assemble import Engine
from voicectl.cli import console
from voicectl.pipeline.protocols import Progress
from voicectl.providers import ProviderCatalog, StageName
from voicectl.standin.server import StandIn

pytestmark = pytest.mark.wall

CANARY = "sk-canary-7f3a9c"
VARIABLES = ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "CARTESIA_API_KEY")

AGENTS = """\
agents:
  coffee:
    instructions: Take orders.
    vad: {{provider: scripted}}
    stt: {{provider: deepgram, options: {{base_url: "{url}"}}}}
    llm: {{provider: openai, model: gpt-6-luna, options: {{base_url: "{url}/v1"}}, retry: 1}}
    tts: {{provider: cartesia, options: {{base_url: "{url}"}}}}
    turn: {{endpointing: {{silence_ms: 300, min_silence_ms: 200, max_silence_ms: 400}}, no_answer_ms: 1000}}
"""
CALLER = "utterances: [{file: 01.wav, at_ms: 100, first_voiced_sample: 0, last_voiced_sample: 16000, text: w50}]\n"


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.fixture
def shop(home: Path, vendor: StandIn) -> Path:
    """An agent of three vendors, and a caller in whose audio the stand-in hears a word."""
    (home / "agents.yaml").write_text(AGENTS.format(url=vendor.url))
    guest = home / "recordings" / "guest"
    guest.mkdir(parents=True)
    (guest / "caller.yaml").write_text(CALLER)
    with wave.open(str(guest / "01.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        period = (5000).to_bytes(2, "little") * 16 + (-5000).to_bytes(2, "little", signed=True) * 16
        file.writeframes(period * 500 + bytes(16_000))
    return home


def left_behind(folder: Path) -> dict[str, bytes]:
    """Every file, and every name of one."""
    return {str(path): str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def search(folder: Path, *printed: str) -> None:
    for name, content in left_behind(folder).items():
        assert CANARY.encode() not in content, name
    for text in printed:
        assert CANARY not in text


def test_a_run_leaves_no_key_anywhere(
    shop: Path, vendor: StandIn, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, CANARY)
    monkeypatch.setenv("VOICECTL_DEBUG", "1")
    done = voicectl("bench", "--out", "run", "--json", "report.json", "--budget", "1")
    assert done.code == 0, done.err
    assert {seen[2] for seen in vendor.seen} == {CANARY}, "the vendors were given it"
    report = json.loads((shop / "report.json").read_text())
    assert {one["stage"] for one in report["cost"]["spent"]} == {"stt", "llm", "tts"}
    assert report["cost"]["not_priced"] == []
    assert '"LlmFinished"' in (shop / "run" / "0001-guest" / "trace.jsonl").read_text(), "there was a conversation"
    shown = [
        voicectl(*command) for command in (("report", "run"), ("check",), ("providers", "--check"), ("keys", "list"))
    ]
    search(shop, done.out, done.err, *(one.out + one.err for one in shown))
    names = {path.name for path in (shop / "run").rglob("*")}
    assert names >= {"trace.jsonl", "streams.jsonl", "spec.yaml", "report.json"}


@pytest.mark.parametrize("status", [401, 500])
def test_a_vendor_who_repeats_the_key_finds_no_way_to_show_it(
    shop: Path, vendor: StandIn, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, CANARY)
    monkeypatch.setenv("VOICECTL_DEBUG", "1")
    vendor.does.refuse, vendor.does.says = status, f"your key {CANARY} is not good enough"
    done = voicectl("bench", "--out", "run")
    assert done.code == 3
    assert "Traceback" in done.err, "asked for, so that it is searched too"
    search(shop, done.out, done.err)
    live = voicectl("providers", "--check", "--json")
    search(shop, live.out, live.err)


def test_a_vendor_who_repeats_the_key_in_the_middle_of_a_call_does_not_get_it_into_the_trace(
    shop: Path, vendor: StandIn, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, CANARY)
    start = Engine.start

    async def start_and_spoil(engine: Engine, progress: Progress) -> None:
        await start(engine, progress)
        vendor.does.refuse, vendor.does.says = 401, f"your key {CANARY} is not good enough"

    monkeypatch.setattr(Engine, "start", start_and_spoil)
    done = voicectl("bench", "--out", "run")
    trace = (shop / "run" / "0001-guest" / "trace.jsonl").read_text()
    assert '"ProviderFailed"' in trace and "your key *** is not good enough" in trace
    search(shop, done.out, done.err)


def test_live_each_vendor_whose_key_is_here_is_asked_and_no_other(
    shop: Path, vendor: StandIn, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ProviderCatalog.options

    def there(self: ProviderCatalog, stage: StageName, name: str) -> Callable[[], object]:
        url = f"{vendor.url}/v1" if name == "openai" else vendor.url
        return lambda: known(self, stage, name).model_validate({"base_url": url})

    monkeypatch.setattr(ProviderCatalog, "options", there)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DEEPGRAM_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    done = voicectl("providers", "deepgram", "openai", "cartesia", "--live")
    lines = done.out.splitlines()
    assert "ok  stt deepgram: accepts us" in lines and "ok  llm openai: accepts us" in lines
    assert "no  tts cartesia: needs a key. Set CARTESIA_API_KEY, or: voicectl keys set CARTESIA_API_KEY" in lines
    assert done.code == 3
    vendor.does.refuse, vendor.does.says = 401, f"not with {CANARY}"
    refused = voicectl("providers", "openai", "--live")
    assert refused.code == 3 and "says 401: not with ***. Look at OPENAI_API_KEY" in refused.out
    search(shop, done.out, done.err, refused.out, refused.err)


def test_a_key_of_the_keyring_is_used_and_kept_as_well(
    shop: Path, vendor: StandIn, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = Keyring()
    keyring.kept = {("voicectl", variable): CANARY for variable in VARIABLES}
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", keyring.errors)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert not set(VARIABLES) & set(console.env())
    done = voicectl("bench", "--out", "run", "--json", "report.json")
    assert done.code == 0, done.err
    assert {seen[2] for seen in vendor.seen} == {CANARY}
    search(shop, done.out, done.err)
