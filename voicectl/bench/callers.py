"""Callers from files: who calls, what they say and when, with the truth beside it.

`load_callers` takes, and tells apart by what is there:

- a folder with a `caller.yaml`: one caller;
- a folder whose sub-folders have one: all of them, by name;
- a YAML file: one caller, or several under `callers:`; paths in it are relative to it;
- a WAV file, or a folder of WAVs: one call for each file, which is its only utterance. A `truth.json`
  beside them may say what must be heard, as `{"file.wav": {"slot": "phrase"}}`; it may have another
  name if it is the only JSON file of that shape.

A caller.yaml:

    version: 1
    agent: coffee                        # the agent it is meant for
    noise: {file: noise.wav, snr_db: 15} # laid under the whole call, in a loop
    utterances:
      - file: 01.wav
        text: "A large latte, please."
        slots: {size: large, coffeeDrink: latte}
        after_agent_ms: 900              # starts when the agent has been silent for so long
      - file: 02.wav
        during_agent_ms: 700             # or: so long after the agent's answer became audible
        backchannel: true                # a listener's noise: must not stop the agent, expects no answer
      - file: 03.wav
        at_ms: 12000                     # or: at this time of the call
        first_voiced_sample: 1600        # where speech begins and ends, in samples of the file;
        last_voiced_sample: 48211        # measured when left out (`analysis.audible`)

All sound is decoded here, once. The signal-to-noise ratio is the mean power of the utterances while
they are audible, over the mean power of the noise; backchannels, which are said softly, do not count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from voicectl.analysis.audible import (
    active_dbfs,
    first_audible,
    last_voiced,
    speech_threshold_dbfs,
    steady_noise_dbfs,
)
from voicectl.audio import Pcm, read_wav, rms_dbfs
from voicectl.errors import AudioFileError, Problem, SpecError, UsageError
from voicectl.spec.agent import Ms, SpecModel, Text
from voicectl.spec.validation import fault, unique, validate
from voicectl.spec.yaml_source import ListNode, MapNode, load_yaml
from voicectl.transports.caller import AfterAgent, At, Caller, DuringAgent, Start, Utterance

CALLER_FILE = "caller.yaml"
TRUTH_FILE = "truth.json"
_CALL_TRACE = "trace.jsonl"

Slots = Mapping[str, str]


def load_callers(path: Path) -> list[Caller]:
    """The callers that `path` stands for, in the order they call.

    Raises:
        UsageError: there is nothing of the kind, or something is wrong with it; a `SpecError` with
            every problem of a YAML file, an `AudioFileError` for a WAV.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        raise UsageError("no such file or folder", where=str(path))
    if path.suffix.lower() in (".yaml", ".yml"):
        return _from_yaml(path)
    if path.suffix.lower() == ".wav":
        return _from_wavs(path.parent, [path])
    raise UsageError("is neither a folder of callers, a YAML file nor a WAV file", where=str(path))


def _from_folder(folder: Path) -> list[Caller]:
    if (folder / CALLER_FILE).is_file():
        return _from_yaml(folder / CALLER_FILE)
    inside = sorted(folder.iterdir())
    files = [each / CALLER_FILE for each in inside if (each / CALLER_FILE).is_file()]
    if files:
        return [caller for file in files for caller in _from_yaml(file)]
    if (folder / _CALL_TRACE).is_file():
        raise UsageError(
            "is the recording of a call, not a caller", where=str(folder), hint="Replay it: voicectl replay"
        )
    wavs = [each for each in inside if each.suffix.lower() == ".wav" and each.is_file()]
    if not wavs:
        raise UsageError(
            "holds no caller", where=str(folder), hint=f"Put WAV files there, or a {CALLER_FILE} with its WAVs"
        )
    return _from_wavs(folder, wavs)


# Plain WAVs ------------------------------------------------------------------------------------


def _from_wavs(folder: Path, wavs: Sequence[Path]) -> list[Caller]:
    truth = _truth(folder)
    return [Caller(wav.stem, (_whole_file(wav, truth.get(wav.name)),)) for wav in wavs]


def _whole_file(wav: Path, slots: Slots | None) -> Utterance:
    pcm = read_wav(wav)
    try:
        first, last = _voiced(pcm)
    except AudioFileError as error:
        raise AudioFileError(error.message, where=str(wav), hint=error.hint) from error
    return Utterance(pcm, wav.name, first / pcm.rate, last / pcm.rate, slots=slots)


def _truth(folder: Path) -> dict[str, Slots]:
    """What must be heard, by file name; empty when nobody wrote it down."""
    named = folder / TRUTH_FILE
    if named.is_file():
        return _slots_by_file(named, _read_json(named))
    found = {path: content for path in sorted(folder.glob("*.json")) if _names_wavs(content := _read_json(path))}
    if len(found) > 1:
        raise UsageError(
            f"has more than one file of truths: {', '.join(path.name for path in found)}",
            where=str(folder),
            hint=f"Name the right one {TRUTH_FILE}",
        )
    return {name: slots for path, content in found.items() for name, slots in _slots_by_file(path, content).items()}


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"is not JSON: {error.msg[:1].lower()}{error.msg[1:]}", where=f"{path}:{error.lineno}:{error.colno}"
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"cannot be read as JSON ({error})", where=str(path)) from error


def _names_wavs(content: object) -> bool:
    return isinstance(content, dict) and any(
        str(key).lower().endswith(".wav") for key in cast("dict[object, object]", content)
    )


def _slots_by_file(path: Path, content: object) -> dict[str, Slots]:
    shape = 'Write it like {"file.wav": {"size": "large"}}'
    if not isinstance(content, dict):
        raise UsageError("must be a mapping from file names to slots", where=str(path), hint=shape)
    truth: dict[str, Slots] = {}
    for name, slots in cast("dict[str, object]", content).items():
        if not (path.parent / name).is_file():
            raise UsageError(f"speaks of '{name}', which is not there", where=str(path))
        if not isinstance(slots, dict):
            raise UsageError(f"'{name}' must be a mapping from slots to phrases", where=str(path), hint=shape)
        for slot, phrase in cast("dict[str, object]", slots).items():
            if not isinstance(phrase, str) or not phrase.strip():
                raise UsageError(f"'{name}': the slot '{slot}' must be a phrase", where=str(path), hint=shape)
        truth[name] = cast("dict[str, str]", slots)
    return truth


# caller.yaml -----------------------------------------------------------------------------------

Sample = Annotated[int, Field(ge=0)]
FileName = Annotated[str, StringConstraints(min_length=1)]


class NoiseSpec(SpecModel):
    """Noise under the whole call."""

    file: FileName = Field(description="A WAV, played in a loop.")
    snr_db: float = Field(ge=-20, le=80, description="How far the noise is below the speech.")


class UtteranceSpec(SpecModel):
    """Something the caller says."""

    unknown_key_hint: ClassVar[str] = (
        "Known keys: file, text, slots, after_agent_ms, during_agent_ms, at_ms, backchannel, first_voiced_sample, "
        "last_voiced_sample"
    )

    file: FileName = Field(description="The WAV, for example file: 01.wav")
    text: Text | None = Field(default=None, description="What is said.")
    slots: dict[str, Text] | None = Field(default=None, description="Phrases that must be heard, by name.")
    after_agent_ms: Ms | None = Field(
        default=None, ge=0, le=60_000, description="Starts when the agent has been silent for so long."
    )
    during_agent_ms: Ms | None = Field(
        default=None, ge=0, le=60_000, description="Starts so long after the agent's answer became audible."
    )
    at_ms: Ms | None = Field(default=None, ge=0, le=600_000, description="Starts at this time of the call.")
    backchannel: bool = Field(default=False, description="A listener's noise that expects no answer.")
    first_voiced_sample: Sample | None = Field(default=None, description="Where speech begins, in samples of the file.")
    last_voiced_sample: Sample | None = Field(default=None, description="Where speech ends, in samples of the file.")

    @model_validator(mode="after")
    def _one_start(self) -> UtteranceSpec:
        given = [key for key in ("after_agent_ms", "during_agent_ms", "at_ms") if getattr(self, key) is not None]
        if len(given) > 1:
            raise fault(f"'{given[0]}' and '{given[1]}' both say when it starts", "Keep one")
        return self

    @property
    def start(self) -> Start:
        if self.at_ms is not None:
            return At(self.at_ms / 1000)
        if self.during_agent_ms is not None:
            return DuringAgent(self.during_agent_ms / 1000)
        return AfterAgent() if self.after_agent_ms is None else AfterAgent(self.after_agent_ms / 1000)


def _file_name(name: str) -> str:
    """It becomes part of the name of a folder for each call."""
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise fault(f"'{name}' cannot be a caller's name", "Use letters, digits, '-', '_' and '.'")
    return name


class CallerSpec(SpecModel):
    """One caller."""

    version: Literal[1] = Field(default=1, description="Version of this format.")
    name: Annotated[str, AfterValidator(_file_name)] | None = Field(
        default=None, description="Default: the name of the folder or file."
    )
    agent: Text | None = Field(default=None, description="The agent it is meant for.")
    description: Text | None = Field(default=None, description="One line for people.")
    noise: NoiseSpec | None = Field(default=None, description="Noise under the whole call.")
    utterances: tuple[UtteranceSpec, ...] = Field(min_length=1, description="What is said, in order.")


class CallersFile(SpecModel):
    """Several callers in one file."""

    version: Literal[1] = Field(default=1, description="Version of this format.")
    callers: tuple[CallerSpec, ...] = Field(min_length=1, description="Who calls, in order.")


def _from_yaml(path: Path) -> list[Caller]:
    source = load_yaml(path, None)
    name = path.parent.resolve().name if path.name == CALLER_FILE else path.stem
    if "callers" in source.root.entries:
        specs = validate(CallersFile, source).callers
        nodes = _items(source.root, "callers")
        names = [spec.name or f"{name}-{number}" for number, spec in enumerate(specs, 1)]
    else:
        specs, nodes = (validate(CallerSpec, source),), (source.root,)
        names = [specs[0].name or name]
    problems: list[Problem] = []
    callers = [
        _caller(spec, node, each, path.parent, problems) for spec, node, each in zip(specs, nodes, names, strict=True)
    ]
    if problems:
        raise SpecError(unique(problems))
    return callers


def _caller(spec: CallerSpec, node: MapNode, name: str, folder: Path, problems: list[Problem]) -> Caller:
    """The caller; what is wrong with its files is added to `problems`."""
    utterances: list[Utterance] = []
    for each, place in zip(spec.utterances, _items(node, "utterances"), strict=True):
        pcm = _sound(folder, each.file, place, problems)
        if pcm:
            try:
                utterances.append(_said(each, pcm, place))
            except SpecError as error:
                problems += error.problems
    noise = None
    if spec.noise:
        place = cast(MapNode, node.get("noise"))
        noise = _sound(folder, spec.noise.file, place, problems)
        if noise and math.isinf(rms_dbfs(noise.data)):
            problems.append(_problem(place, "file", f"'{spec.noise.file}' is silent"))
        elif noise and utterances:
            noise = _below_speech(noise, utterances, spec.noise.snr_db)
    return Caller(name, tuple(utterances), spec.agent, noise)


def _sound(folder: Path, file: str, place: MapNode, problems: list[Problem]) -> Pcm | None:
    try:
        return read_wav(folder / file)
    except AudioFileError as error:
        problems.append(_problem(place, "file", f"'{file}' {error.message}", error.hint))
        return None


def _said(spec: UtteranceSpec, pcm: Pcm, place: MapNode) -> Utterance:
    first, last = spec.first_voiced_sample, spec.last_voiced_sample
    for key, sample in (("first_voiced_sample", first), ("last_voiced_sample", last)):
        if sample is not None and sample >= pcm.samples:
            raise SpecError([_problem(place, key, f"'{key}' is {sample}, but the file has {pcm.samples} samples")])
    try:
        first, last = _voiced(pcm, first, last)
    except AudioFileError as error:
        raise SpecError([_problem(place, "file", f"'{spec.file}' {error.message}", error.hint)]) from error
    if first > last:
        key = "first_voiced_sample" if spec.first_voiced_sample is not None else "last_voiced_sample"
        raise SpecError([_problem(place, key, f"speech cannot begin at sample {first} and end at {last}")])
    return Utterance(
        pcm=pcm,
        name=spec.file,
        voiced_from_s=first / pcm.rate,
        voiced_until_s=last / pcm.rate,
        text=spec.text,
        slots=spec.slots,
        start=spec.start,
        backchannel=spec.backchannel,
    )


def _problem(place: MapNode, key: str, message: str, hint: str | None = None) -> Problem:
    node = place.get(key)
    return Problem(str(node.where if node else place.where), message, hint)


def _items(node: MapNode, key: str) -> tuple[MapNode, ...]:
    """The mappings of a list that has been checked to be one."""
    return cast("tuple[MapNode, ...]", cast(ListNode, node.get(key)).items)


# Sound -----------------------------------------------------------------------------------------


def _voiced(pcm: Pcm, first: int | None = None, last: int | None = None) -> tuple[int, int]:
    """First and last voiced sample: as told, else as measured.

    Raises:
        AudioFileError: there is no sound, or no telling where speech ends. `where` is left to the caller.
    """
    x = pcm.array()
    threshold = speech_threshold_dbfs(x, pcm.rate)
    heard_first = first_audible(x, pcm.rate, threshold_dbfs=threshold)
    heard_last = last_voiced(x, pcm.rate, threshold_dbfs=threshold)
    if heard_first is None or heard_last is None:
        raise AudioFileError("is silent", hint="Record it again, louder")
    if last is None:
        noise = steady_noise_dbfs(x, pcm.rate, threshold_dbfs=threshold)
        if noise is not None:
            raise AudioFileError(
                f"has a background of {noise:.0f} dBFS, which hides where speech ends",
                hint=f"Say it in a {CALLER_FILE} as 'last_voiced_sample', or keep clean speech and 'noise' apart",
            )
        last = heard_last
    return (heard_first if first is None else first), last


def _below_speech(noise: Pcm, utterances: Sequence[Utterance], snr_db: float) -> Pcm:
    import numpy as np

    counted = [said.pcm for said in utterances if not said.backchannel] or [said.pcm for said in utterances]
    powers = [10 ** (_speech_dbfs(pcm) / 10) for pcm in counted]
    speech_dbfs = 10 * math.log10(sum(powers) / len(powers))
    gain = 10 ** ((speech_dbfs - snr_db - rms_dbfs(noise.data)) / 20)
    scaled = np.clip(np.rint(noise.array() * gain), -32768, 32767).astype("<i2")
    return Pcm(scaled.tobytes(), noise.rate)


def _speech_dbfs(pcm: Pcm) -> float:
    x = pcm.array()
    return active_dbfs(x, pcm.rate, threshold_dbfs=speech_threshold_dbfs(x, pcm.rate))
