"""`voicectl replay`, `recordings`, `report` and `diff`, as a person meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from replay.support import make_calls

from cli.conftest import Voicectl


@pytest.fixture
def recordings(home: Path) -> Path:
    """Two recordings in recordings/ of the folder we stand in."""
    make_calls(home / "recordings")
    (home / "recordings" / "agents.yaml").unlink()
    return Path("recordings")


SHORTER = ("--set", "turn.endpointing.silence_ms=400")


def test_recordings_that_do_as_they_did_are_ok(voicectl: Voicectl, recordings: Path) -> None:
    result = voicectl("replay")
    assert result.code == 0
    assert result.out.count("as recorded") == 2
    assert re.search(r"^2 calls: 2 ok · \d\.\d min of audio in \d+\.\d s, \d+ times real time$", result.out, re.M)
    assert result.err == ""


def test_one_that_diverges_is_exit_1_and_the_first_differing_event(voicectl: Voicectl, recordings: Path) -> None:
    result = voicectl("replay", "recordings/0001-order", *SHORTER)
    assert result.code == 1
    assert re.search(r"^FAIL  recordings/0001-order  3 turns · 21.1 s · differs from trace.jsonl$", result.out, re.M)
    assert re.search(r"^        - +\d+\.\d\d s  turn 1 ended after 500 ms of silence$", result.out, re.M)
    assert re.search(r"^        \+ +\d+\.\d\d s  turn 1 ended after 400 ms of silence$", result.out, re.M)


def test_accepting_shows_what_changes_and_is_then_the_expectation(voicectl: Voicectl, recordings: Path) -> None:
    assert voicectl("replay", "--accept").code == 0
    first = json.loads(voicectl("replay", "--json").out)
    assert [call["against"] for call in first["calls"]] == ["expect.jsonl"] * 2
    assert voicectl("replay", *SHORTER).code == 1
    shown = voicectl("replay", "--accept", "recordings/0001-order", *SHORTER)
    assert shown.code == 0
    assert re.search(r"^-\d+\.\d\d s  turn 1 ended after 500 ms of silence$", shown.out, re.M)
    assert re.search(r"^\+\d+\.\d\d s  turn 1 ended after 400 ms of silence$", shown.out, re.M)
    assert voicectl("replay", "recordings/0001-order", *SHORTER).code == 0
    assert voicectl("replay", "recordings/0001-order").code == 1


def test_programs_get_json_junit_and_annotations(
    voicectl: Voicectl, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (recordings / "0002-hasty" / "streams.pcm").write_bytes(b"")
    result = voicectl("replay", *SHORTER, "--json", "--junit", "replay.xml")
    assert result.code == 2
    told = json.loads(result.out)
    assert (told["voicectl_replay"], told["exit_code"]) == (1, 2)
    one, two = told["calls"]
    assert (one["state"], two["state"]) == ("differs", "refused")
    assert one["difference"]["was"]["event"] == one["difference"]["now"]["event"] == "TurnEnded"
    assert "its hash differs" in two["problems"][0]["message"]
    suite = ElementTree.parse("replay.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "1")
    line = one["difference"]["line"]
    assert f"::error file=recordings/0001-order/trace.jsonl,line={line},title=replay of 0001-order::" in result.err
    assert "::error file=recordings/0002-hasty/streams.pcm,title=" in result.err


def test_thresholds_of_a_folder_hold_for_all_its_calls(voicectl: Voicectl, recordings: Path) -> None:
    expect = recordings / "expect.yaml"
    expect.write_text("thresholds: [max(voice_to_voice_ms) < 5000, count(no_answer) <= 0]\n")
    assert voicectl("replay").code == 0
    expect.write_text("thresholds: [max(voice_to_voice_ms) < 50]\n")
    result = voicectl("replay")
    assert result.code == 1
    assert re.search(r"^FAIL  recordings/expect.yaml: max\(voice_to_voice_ms\) < 50: \d+$", result.out, re.M)
    expect.write_text("thresholds: [p99(voice_to_voice_ms) < 5000]\n")
    result = voicectl("replay")
    assert result.code == 4
    assert "takes 100 turns" in result.out
    expect.write_text("threshold: []\n")
    result = voicectl("replay")
    assert (result.code, result.err) == (
        2,
        "recordings/expect.yaml:1:1: unknown key 'threshold'. Did you mean 'thresholds'?\n",
    )


def test_only_one_turn_is_told(voicectl: Voicectl, recordings: Path) -> None:
    result = voicectl("replay", "recordings/0001-order", "--only", "turn=2")
    assert result.code == 0
    assert "the STT heard “With oat milk.” (turn 2)" in result.out
    assert "turn 1" not in result.out


def test_a_sweep_is_a_table_and_a_plot(voicectl: Voicectl, recordings: Path) -> None:
    result = voicectl("replay", "--sweep", "turn.endpointing.silence_ms=300..700:200")
    assert result.code == 0
    assert re.search(r"SILENCE_MS +N +P50 +P95 +CUT OFF", result.out)
    assert len(re.findall(r"^[a-z*·] +\d00 ", result.out, re.M)) == 3
    assert result.out.count(" best\n") == 1
    assert "callers cut off" in result.out
    assert re.search(r"2 calls × 3 settings, \d min of audio in \d+\.\d s \(modelled\)", result.out)
    told = json.loads(voicectl("replay", "--sweep", "turn.speculation=true,false", "--json").out)
    assert [one["setting"] for one in told["settings"]] == [{"turn.speculation": "true"}, {"turn.speculation": "false"}]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "nowhere"], "nowhere: no such recording. A recording is a folder."),
        (["replay", "last"], "there is no run in runs/ yet. Make one: voicectl bench"),
        (["replay", "empty"], "empty: there is no recording here. Every call of `voicectl bench` is one"),
        (["replay", "--only", "3"], "cannot read --only 3. Write it like: --only turn=3"),
        (["replay", "--sweep", "turn.x"], "cannot read the sweep 'turn.x'. Write KEY=FROM..TO:STEP or"),
        (["replay", "--sweep", "turn.speculation=true,false", "--accept"], "--sweep goes with --set, --jobs and"),
        (["replay", "--accept", "--only", "turn=1"], "--accept takes whole calls"),
        (["replay", "--set", "llm.model=x"], "'llm.model' changes nothing: a replay has the recorded providers"),
        (["replay", "--profile", "quick"], "agents.yaml: no such file"),
        (["replay", "--junit", "nowhere/x.xml"], "nowhere/x.xml: cannot be written: no such file or directory"),
        (["recordings", "rm", "empty"], "empty: is no recording, so it stays"),
        (["recordings", "unpack", "nowhere.tar.gz"], "nowhere.tar.gz: cannot be read: no such file or directory"),
        (["report", "nowhere"], "nowhere: no such run. Make one: voicectl bench"),
        (["report", "empty"], "empty: there is no call in this run"),
        (["diff", "recordings", "nowhere"], "nowhere: no such run"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    voicectl: Voicectl, recordings: Path, arguments: list[str], says: str
) -> None:
    Path("empty").mkdir()
    result = voicectl(*arguments)
    assert result.code == 2
    assert says in result.err + result.out
    assert result.err.count("\n") <= 1


def test_recordings_are_listed_shown_verified_and_removed(voicectl: Voicectl, recordings: Path) -> None:
    listed = voicectl("recordings", "list")
    assert listed.code == 0
    assert re.search(r"recordings/0001-order +coffee +– +virtual +3 +21\.1 s +sealed", listed.out)
    shown = voicectl("recordings", "show", "recordings/0002-hasty", "--turn", "1")
    assert "the caller spoke (turn 1)" in shown.out
    assert "turn 3" not in shown.out
    assert json.loads(voicectl("recordings", "show", "recordings/0002-hasty", "--json").out)["events"]

    verified = voicectl("recordings", "verify")
    assert (verified.code, verified.out) == (0, "ok recordings/0001-order\nok recordings/0002-hasty\n")
    (recordings / "0001-order" / "seal.json").unlink()
    (recordings / "0002-hasty" / "call.wav").write_bytes(b"RIFF")
    verified = voicectl("recordings", "verify")
    assert verified.code == 2
    assert verified.out == "cut recordings/0001-order: its writer was stopped before it was sealed\n"
    assert "recordings/0002-hasty/call.wav: is not what was recorded" in verified.err
    assert voicectl("recordings", "list").code == 2

    (recordings / "0001-order" / "notes.txt").write_text("mine")
    removed = voicectl("recordings", "rm", "recordings/0001-order", "recordings/0002-hasty")
    assert removed.out == (
        "removed recordings/0001-order, but not what else is in it: notes.txt\nremoved recordings/0002-hasty\n"
    )
    assert [path.name for path in recordings.rglob("*")] == ["0001-order", "notes.txt"]


def test_recordings_travel_as_one_file(voicectl: Voicectl, recordings: Path) -> None:
    packed = voicectl("recordings", "pack", "-o", "calls.tar.gz")
    assert re.fullmatch(r"calls.tar.gz: 2 recordings, \d+ kB, sha256 [0-9a-f]{64}\n", packed.out)
    assert voicectl("recordings", "unpack", "calls.tar.gz", "--into", "elsewhere").code == 0
    assert voicectl("replay", "elsewhere").code == 0
    assert "is there already" in voicectl("recordings", "unpack", "calls.tar.gz").err


def test_a_run_is_reported_again_and_compared(voicectl: Voicectl, home: Path) -> None:
    for silence in ("500", "700"):
        make_calls(home / "runs" / silence, f"turn.endpointing.silence_ms={silence}")
    report = voicectl("report", "runs/500")
    assert report.code == 0
    assert "Callers waited P50" in report.out
    assert json.loads(voicectl("report", "last", "--json").out)["times"] == "modelled"
    diff = voicectl("diff", "runs/500", "runs/700")
    assert diff.code == 0
    assert re.search(r"^voice to voice P50 +\d+ ms +\d+ ms +\+\d+ ms", diff.out, re.M)
    assert "0001-order first differs:" in diff.out
    assert "turn 1 ended after 700 ms of silence" in diff.out
    told = json.loads(voicectl("diff", "runs/500", "runs/500", "--json").out)
    assert told["calls"] == {"0001-order": None, "0002-hasty": None}


@pytest.mark.parametrize("command", ["replay", "report", "diff", "recordings list", "recordings pack"])
def test_help_has_an_example(voicectl: Voicectl, command: str) -> None:
    result = voicectl(*command.split(), "--help")
    assert result.code == 0
    assert f"Example: voicectl {command.split()[0]}" in result.out
