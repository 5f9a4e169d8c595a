"""A catalogue of made-up providers and a project on disk, so that specs are tested alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from voicectl.errors import SpecError
from voicectl.spec import ResolvedAgent, StageName, resolve


class NoOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LlmOptions(NoOptions):
    max_tokens: int = Field(default=80, ge=1, le=4096, description="Longest answer.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="How free.")
    timeout_ms: int = Field(default=8000, ge=100, le=60_000, description="How long to wait.")


class FakeCatalog:
    """vad: local, webrtc · stt, tts: local, deepgram · llm: local, openai (any model)."""

    def names(self, stage: StageName) -> Sequence[str]:
        return {"vad": ("local", "webrtc"), "llm": ("local", "openai")}.get(stage, ("local", "deepgram"))

    def options(self, stage: StageName, name: str) -> type[BaseModel]:
        return LlmOptions if stage == "llm" else NoOptions

    def models(self, stage: StageName, name: str) -> Sequence[str] | None:
        if name == "openai":
            return None
        return {"stt": ("moonshine-tiny-en",), "llm": ("qwen-0.5b", "smollm2"), "tts": ("piper-joe",)}.get(stage, ())


GOOD = """\
version: 1
agents:
  coffee:
    instructions: Take orders.
    vad: {provider: local}
    stt: {provider: local}
    llm: {provider: local}
    tts: {provider: local}
"""


def write(folder: Path, text: str = GOOD, **profiles: str) -> Path:
    """An agents file and its profiles; returns the agents file."""
    path = folder / "agents.yaml"
    path.write_text(textwrap.dedent(text))
    for name, profile in profiles.items():
        (folder / "profiles").mkdir(exist_ok=True)
        (folder / "profiles" / f"{name}.yaml").write_text(textwrap.dedent(profile))
    return path


def load(path: Path, *overrides: str, profile: str | None = None, agent: str | None = None) -> ResolvedAgent:
    return resolve(agent, profile, overrides, env={"BAR": "Corner Bar"}, catalog=FakeCatalog(), agents_file=path)


def problems(path: Path, *overrides: str, profile: str | None = None) -> list[str]:
    """Every line that people would see, with the folder left out."""
    with pytest.raises(SpecError) as caught:
        load(path, *overrides, profile=profile)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]
