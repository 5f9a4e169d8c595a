"""Callers from files: every shape that is accepted, and a clear line for each mistake."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from voicectl.analysis.audible import active_dbfs
from voicectl.audio import WavWriter, rms_dbfs
from voicectl.bench.callers import load_callers
from voicectl.errors import AudioFileError, SpecError, UsageError
from voicectl.transports.caller import AfterAgent, At, DuringAgent

RATE = 16_000
RECORDINGS = Path(__file__).resolve().parents[2] / "recordings"


def spoken(dbfs: float = -20, *, lead_s: float = 0.1, seconds: float = 0.5, tail_s: float = 0.2) -> NDArray[np.float64]:
    """Something like speech: syllables of 100 ms with dips between, in silence."""
    at = np.arange(round(seconds * RATE)) / RATE
    rise = 0.3 + np.abs(np.sin(np.pi * 10 * at + 0.2))
    x = rise * np.cos(2 * np.pi * 220 * at)
    x *= 32768 * 10 ** (dbfs / 20) / np.sqrt(np.mean(x * x))
    return np.concatenate([np.zeros(round(lead_s * RATE)), x, np.zeros(round(tail_s * RATE))])


def write(path: Path, x: NDArray[np.float64] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with WavWriter(path, RATE, 1) as writer:
        writer.write(np.rint(spoken() if x is None else x).astype("<i2").tobytes())
    return path


def caller(folder: Path, text: str, *wavs: str) -> Path:
    for wav in wavs:
        write(folder / wav)
    path = folder / "caller.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def problems(path: Path) -> list[str]:
    """What is told, with the folder's name left out."""
    with pytest.raises(SpecError) as caught:
        load_callers(path)
    return [line.replace(f"{path}/", "").replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]


# Shapes ----------------------------------------------------------------------------------------


def test_a_folder_with_a_caller_file_is_one_caller(tmp_path: Path) -> None:
    caller(
        tmp_path / "busy",
        """\
        version: 1
        agent: coffee
        description: All there is.
        utterances:
          - {file: 01.wav, text: "A latte, please.", slots: {coffeeDrink: latte}}
          - {file: 02.wav, during_agent_ms: 700, backchannel: true}
          - {file: 03.wav, at_ms: 12000}
          - {file: 04.wav, after_agent_ms: 250, first_voiced_sample: 1000, last_voiced_sample: 9000}
        """,
        "01.wav",
        "02.wav",
        "03.wav",
        "04.wav",
    )
    (one,) = load_callers(tmp_path / "busy")
    assert (one.name, one.agent, one.noise) == ("busy", "coffee", None)
    first, second, third, fourth = one.utterances
    assert (first.name, first.text, first.slots) == ("01.wav", "A latte, please.", {"coffeeDrink": "latte"})
    assert first.start == AfterAgent(0.9)
    assert first.voiced_from_s == pytest.approx(0.1, abs=0.002)
    assert first.voiced_until_s == pytest.approx(0.6, abs=0.002)
    assert first.pcm.seconds == 0.8
    assert (second.start, second.backchannel) == (DuringAgent(0.7), True)
    assert third.start == At(12.0)
    assert fourth.start == AfterAgent(0.25)
    assert (fourth.voiced_from_s, fourth.voiced_until_s) == (1000 / RATE, 9000 / RATE)


def test_a_folder_of_callers_gives_them_by_name(tmp_path: Path) -> None:
    for name in ("b-late", "a-early"):
        caller(tmp_path / name, "utterances: [{file: 01.wav}]", "01.wav")
    (tmp_path / "README.md").write_text("Not a caller.")
    (tmp_path / "notes").mkdir()
    assert [one.name for one in load_callers(tmp_path)] == ["a-early", "b-late"]


def test_a_yaml_file_may_hold_several_callers(tmp_path: Path) -> None:
    write(tmp_path / "sound" / "hi.wav")
    path = tmp_path / "people.yaml"
    path.write_text(
        textwrap.dedent(
            """\
            version: 1
            callers:
              - {name: patient, agent: clinic, utterances: [{file: sound/hi.wav}]}
              - {utterances: [{file: sound/hi.wav}, {file: sound/hi.wav, text: Hi again.}]}
            """
        )
    )
    patient, other = load_callers(path)
    assert (patient.name, patient.agent, len(patient.utterances)) == ("patient", "clinic", 1)
    assert (other.name, other.agent, len(other.utterances)) == ("people-2", None, 2)


def test_a_folder_of_wavs_is_one_call_for_each_file(tmp_path: Path) -> None:
    for name in ("two.wav", "one.WAV"):
        write(tmp_path / name)
    (tmp_path / "orders.json").write_text(json.dumps({"two.wav": {"size": "twelve ounce"}}))
    (tmp_path / "package.json").write_text('{"name": "something else"}')
    one, two = load_callers(tmp_path)
    assert (one.name, one.utterances[0].slots) == ("one", None)
    assert (two.name, two.utterances[0].slots) == ("two", {"size": "twelve ounce"})
    assert two.utterances[0].voiced_until_s == pytest.approx(0.6, abs=0.002)
    (alone,) = load_callers(tmp_path / "two.wav")
    assert alone.utterances[0].slots == {"size": "twelve ounce"}


def test_truth_json_comes_before_any_other(tmp_path: Path) -> None:
    write(tmp_path / "one.wav")
    (tmp_path / "old.json").write_text('{"one.wav": {"size": "small"}}')
    (tmp_path / "truth.json").write_text('{"one.wav": {"size": "large"}}')
    assert load_callers(tmp_path)[0].utterances[0].slots == {"size": "large"}


def test_noise_comes_scaled_to_its_distance_from_the_speech(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal(RATE) * 300
    write(tmp_path / "noise.wav", noise)
    write(tmp_path / "02.wav", spoken(-35))
    caller(
        tmp_path,
        """\
        noise: {file: noise.wav, snr_db: 15}
        utterances:
          - {file: 01.wav}
          - {file: 02.wav, during_agent_ms: 100, backchannel: true}
        """,
        "01.wav",
    )
    (one,) = load_callers(tmp_path)
    assert one.noise
    speech = one.utterances[0].pcm
    assert active_dbfs(speech.array(), RATE) - rms_dbfs(one.noise.data) == pytest.approx(15, abs=0.1)


def test_a_faint_recording_is_measured_at_its_own_level(tmp_path: Path) -> None:
    write(tmp_path / "faint.wav", spoken(-47))
    (one,) = load_callers(tmp_path)
    assert one.utterances[0].voiced_until_s == pytest.approx(0.6, abs=0.003)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RECORDINGS.glob("*/caller.yaml")))
def test_the_recordings_load(name: str) -> None:
    (one,) = load_callers(RECORDINGS / name)
    assert one.name == name
    assert one.agent == name.split("-")[0]
    assert 3 <= len(one.utterances) <= 6
    for said in one.utterances:
        assert said.text
        assert 0.09 < said.voiced_from_s < 0.13
        assert 0.10 < said.pcm.seconds - said.voiced_until_s < 0.20
        assert said.backchannel or said.slots


# Mistakes --------------------------------------------------------------------------------------


def test_all_problems_of_a_caller_file_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    write(tmp_path / "silent.wav", np.zeros(RATE))
    (tmp_path / "text.wav").write_text("hello")
    caller(
        tmp_path,
        """\
        version: 1
        noise: {file: silent.wav, snr_db: 15}
        utterances:
          - file: missing.wav
          - file: silent.wav
          - file: text.wav
          - {file: 01.wav, last_voiced_sample: 99999}
          - {file: 01.wav, first_voiced_sample: 9000, last_voiced_sample: 8000}
        """,
        "01.wav",
    )
    assert problems(tmp_path) == [
        "caller.yaml:2:15: 'silent.wav' is silent",
        "caller.yaml:4:11: 'missing.wav' cannot be read: No such file or directory",
        "caller.yaml:5:11: 'silent.wav' is silent. Record it again, louder",
        "caller.yaml:6:11: 'text.wav' is not a WAV file. Convert it to 16-bit PCM WAV",
        "caller.yaml:7:40: 'last_voiced_sample' is 99999, but the file has 12800 samples",
        "caller.yaml:8:41: speech cannot begin at sample 9000 and end at 8000",
    ]


def test_keys_and_values_that_cannot_be_are_told_with_their_places(tmp_path: Path) -> None:
    path = caller(
        tmp_path,
        """\
        utterances:
          - {file: 01.wav, at_ms: 100, after_agent_ms: 100}
          - {file: 01.wav, after_agent_s: 1}
          - {file: 01.wav, at_ms: -1}
          - {file: 01.wav, slots: {size: 12}}
          - {text: No file.}
        noise: {file: noise.wav}
        agnet: coffee
        """,
        "01.wav",
    )
    assert problems(path) == [
        "caller.yaml:2:5: 'after_agent_ms' and 'at_ms' both say when it starts. Keep one",
        "caller.yaml:3:20: unknown key 'after_agent_s'. Did you mean 'after_agent_ms' (in milliseconds)?",
        "caller.yaml:4:27: 'at_ms' must be from 0 to 600000, not -1. The unit is milliseconds",
        "caller.yaml:5:34: 'size' must be text, but YAML reads 12 as the number 12. Quote it: \"12\"",
        "caller.yaml:6:5: missing key 'file'. The WAV, for example file: 01.wav",
        "caller.yaml:7:1: missing key 'snr_db'. How far the noise is below the speech",
        "caller.yaml:8:1: unknown key 'agnet'. Did you mean 'agent'?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- list\n", "caller.yaml:1:1: expected 'key: value' lines, found a list"),
        ("", "caller.yaml:1:1: the file is empty"),
        ("utterances: []\n", "caller.yaml:1:13: 'utterances' must not be empty"),
        ("callers: []\n", "caller.yaml:1:10: 'callers' must not be empty"),
        (
            "name: ../up\nutterances: [{file: 01.wav}]\n",
            "caller.yaml:1:7: '../up' cannot be a caller's name. Use letters",
        ),
        ("version: 2\nutterances: [{file: 01.wav}]\n", "caller.yaml:1:10: 'version' must be 1"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = caller(tmp_path, text, "01.wav")
    (line,) = problems(path)
    assert line.startswith(told)


def test_a_noisy_file_says_how_to_tell_where_speech_ends(tmp_path: Path) -> None:
    noisy = spoken(-20, lead_s=0.5, tail_s=1.0)
    noisy += np.random.default_rng(1).standard_normal(len(noisy)) * 200
    write(tmp_path / "01.wav", noisy)
    with pytest.raises(AudioFileError, match=r"01\.wav: has a background of -4\d dBFS, which hides where speech ends"):
        load_callers(tmp_path)
    caller(tmp_path, "utterances: [{file: 01.wav, last_voiced_sample: 15999}]")
    assert load_callers(tmp_path)[0].utterances[0].voiced_until_s == 15999 / RATE


def test_what_is_no_caller_is_refused_with_the_place(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(UsageError) as caught:
            load_callers(path)
        assert caught.value.exit_code == 2
        return str(caught.value).replace(f"{tmp_path}", "DIR")

    assert told(tmp_path / "nowhere") == "DIR/nowhere: no such file or folder"
    assert told(tmp_path) == "DIR: holds no caller. Put WAV files there, or a caller.yaml with its WAVs"
    (tmp_path / "notes.txt").write_text("hi")
    assert told(tmp_path / "notes.txt") == "DIR/notes.txt: is neither a folder of callers, a YAML file nor a WAV file"
    write(tmp_path / "0001-coffee" / "call.wav")
    (tmp_path / "0001-coffee" / "trace.jsonl").write_text("")
    assert told(tmp_path / "0001-coffee").startswith("DIR/0001-coffee: is the recording of a call, not a caller")
    write(tmp_path / "quiet" / "01.wav", np.zeros(RATE))
    assert told(tmp_path / "quiet") == "DIR/quiet/01.wav: is silent. Record it again, louder"


def test_a_truth_that_cannot_be_is_refused_with_the_place(tmp_path: Path) -> None:
    write(tmp_path / "01.wav")
    truth = tmp_path / "truth.json"

    def told(text: str) -> str:
        truth.write_text(text)
        with pytest.raises(UsageError) as caught:
            load_callers(tmp_path)
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert told('{"01.wav": }') == "truth.json:1:12: is not JSON: expecting value"
    assert told("[]").startswith("truth.json: must be a mapping from file names to slots")
    assert told('{"02.wav": {}}') == "truth.json: speaks of '02.wav', which is not there"
    assert told('{"01.wav": "large"}').startswith("truth.json: '01.wav' must be a mapping from slots to phrases")
    assert told('{"01.wav": {"size": 12}}').startswith("truth.json: '01.wav': the slot 'size' must be a phrase")
    truth.unlink()
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('{"01.wav": {}}')
    with pytest.raises(UsageError, match=r"more than one file of truths: a\.json, b\.json"):
        load_callers(tmp_path)
