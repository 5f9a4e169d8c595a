"""agents.yaml + profile + `--set` -> one `ResolvedAgent`, or every problem at once.

The overlay happens on the trees, so each value still knows the file it came from, and a bad value
is told where it was written. A `ResolvedAgent` is complete (every default filled in) and can be
dumped beside a recording and read back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

from voicectl.errors import Problem, SpecError, UsageError
from voicectl.spec.agent import (
    AgentsFile,
    BreakerSpec,
    BudgetSpec,
    FallbackSpec,
    GuardedSpec,
    HedgeSpec,
    RetrySpec,
    StageSpec,
    TimeoutSpec,
    TurnSpec,
)
from voicectl.spec.catalog import CHAIN, STAGES, Catalog, StageName
from voicectl.spec.profile import ClockName, LineSpec, ProfileSpec, RunSpec
from voicectl.spec.suggest import did_you_mean
from voicectl.spec.threshold import Threshold
from voicectl.spec.validation import check, unique
from voicectl.spec.yaml_source import (
    FLOAT_1_2,
    INT_1_2,
    Entry,
    ListNode,
    MapNode,
    Node,
    Scalar,
    Source,
    Where,
    load_yaml,
    merge,
    parse_value,
    refuse_secret,
)

AGENTS_FILE = Path("agents.yaml")
PROFILES_FOLDER = "profiles"


@dataclass(frozen=True, slots=True)
class Stage:
    """Who does one stage, checked: `options` is an instance of the provider's own model. And what helps
    when it fails."""

    provider: str
    model: str | None
    options: BaseModel
    retry: RetrySpec | None = None
    timeout: TimeoutSpec | None = None
    breaker: BreakerSpec | None = None
    hedge: HedgeSpec | None = None
    fallback: tuple[Stage, ...] = ()

    def dump(self) -> dict[str, Any]:
        told = {"retry": self.retry, "timeout": self.timeout, "breaker": self.breaker, "hedge": self.hedge}
        value: dict[str, Any] = {
            "provider": self.provider,
            "model": self.model,
            "options": self.options.model_dump(mode="json"),
            **{key: one.model_dump(mode="json", exclude_none=True) for key, one in told.items() if one},
        }
        if self.fallback:
            value["fallback"] = [one.dump() for one in self.fallback]
        return value


@dataclass(frozen=True, slots=True)
class ResolvedAgent:
    """Everything a run needs to know of its agent. Secrets are never part of it."""

    name: str
    profile: str | None
    description: str | None
    language: str
    instructions: str
    notice: str | None
    greeting: str | None
    clock: ClockName
    line: LineSpec
    vad: Stage
    vad_threshold: float
    stt: Stage | None
    llm: Stage | None
    tts: Stage | None
    s2s: Stage | None
    turn: TurnSpec
    turn_model: Stage | None
    thresholds: tuple[Threshold, ...]
    budget: BudgetSpec | None = None

    def stage(self, name: StageName) -> Stage:
        """Who does it.

        Raises:
            UsageError: nobody: an agent has either stt, llm and tts, or s2s.
        """
        found = cast("Stage | None", getattr(self, name))
        if found is None:
            does = "one model that hears and speaks by itself" if self.s2s else "stt, llm and tts"
            raise UsageError(f"the agent '{self.name}' has no {name}: it has {does}")
        return found

    def stages(self) -> dict[StageName, Stage]:
        """Those that this agent has."""
        every: tuple[StageName, ...] = (*STAGES, "turn_model")
        return {stage: self.stage(stage) for stage in every if getattr(self, stage) is not None}

    def dump(self) -> dict[str, Any]:
        """Plain values in the order people read them; `load_resolved` takes them back."""
        return {
            "name": self.name,
            "profile": self.profile,
            "description": self.description,
            "language": self.language,
            "instructions": self.instructions,
            "notice": self.notice,
            "greeting": self.greeting,
            "clock": self.clock,
            "line": self.line.model_dump(),
            "vad": {**self.vad.dump(), "threshold": self.vad_threshold},
            **{stage: self.stage(stage).dump() for stage in STAGES if stage != "vad" and getattr(self, stage)},
            "turn": self.turn.model_dump(mode="json"),
            "thresholds": [str(threshold) for threshold in self.thresholds],
            **({"budget": self.budget.model_dump(exclude_none=True)} if self.budget else {}),
        }

    def to_yaml(self) -> str:
        return dump_yaml(self.dump())


@dataclass(frozen=True, slots=True)
class AgentSummary:
    """One line of `voicectl agents`."""

    name: str
    description: str | None
    language: str
    providers: dict[StageName, str]
    thresholds: tuple[str, ...]


# Reading ---------------------------------------------------------------------------------------


def resolve(
    agent: str | None,
    profile: str | None,
    overrides: Sequence[str],
    *,
    env: Mapping[str, str],
    catalog: Catalog,
    agents_file: Path = AGENTS_FILE,
) -> ResolvedAgent:
    """The agent as it will run.

    Args:
        agent: its name (None: the first of the file).
        profile: a name in `profiles/` beside the agents file, or a path (None: no overlay).
        overrides: as `--set` gives them, `turn.endpointing.silence_ms=300`.

    Raises:
        SpecError: all problems of the agents file, the profile and the overrides.
        UsageError: there is no such agent or profile.
    """
    agents = _load_agents(agents_file, env)
    _, problems = check(AgentsFile, agents.root)
    problems = [*agents.problems, *problems]
    name, entry = _pick(agents, agent, problems)
    # The key's place is where a person looks for what is missing from the agent.
    tree: Node = MapNode(entry.where, entry.value.entries) if isinstance(entry.value, MapNode) else entry.value
    if profile is not None:
        path = find_profile(profile, agents_file)
        source = load_yaml(path, env)
        _, found = check(ProfileSpec, source.root)
        problems += [*source.problems, *found]
        tree = _overlay(tree, _fitting(source.root, tree))
    for override in overrides:
        node, found = _override(override, env)
        problems += found
        tree = _overlay(tree, node) if node else tree
    if not isinstance(tree, MapNode):
        raise SpecError(unique(problems))
    resolved, found = _resolved(tree, name, Path(profile).stem if profile else None, catalog)
    problems += found
    if resolved is None or problems:
        raise SpecError(unique(problems))
    return resolved


def load_resolved(path: Path, catalog: Catalog, overrides: Sequence[str] = ()) -> ResolvedAgent:
    """Read what `ResolvedAgent.to_yaml` wrote, and lay overrides over it as `resolve` does.

    Raises:
        SpecError: it is not that, this version of voicectl does not know its providers, or an
            override is wrong.
    """
    source = load_yaml(path, env=None)
    entries = dict(source.root.entries)
    name, profile = (entries.pop(key, None) for key in ("name", "profile"))
    tree: Node = MapNode(source.root.where, {key: one for key, one in entries.items() if not _is_null(one.value)})
    wrong: list[Problem] = []
    for override in overrides:
        node, found = _override(override, {})
        wrong += found
        tree = _overlay(tree, node) if node else tree
    names = [entry.value.text if entry and isinstance(entry.value, Scalar) else "" for entry in (name, profile)]
    is_profile = profile is not None and not _is_null(profile.value)
    resolved, problems = _resolved(cast(MapNode, tree), names[0], names[1] if is_profile else None, catalog)
    if not names[0]:
        problems.append(Problem(str(source.root.where), "missing key 'name'"))
    problems = unique([*source.problems, *wrong, *problems])
    if resolved is None or problems:
        raise SpecError(problems)
    return resolved


def summarize(agents_file: Path, env: Mapping[str, str]) -> list[AgentSummary]:
    """What `voicectl agents` lists.

    Raises:
        SpecError: all problems of the file.
    """
    source = _load_agents(agents_file, env)
    value, problems = check(AgentsFile, source.root)
    if value is None or source.problems or problems:
        raise SpecError(unique([*source.problems, *problems]))
    return [
        AgentSummary(
            name=name,
            description=agent.description,
            language=agent.language,
            providers={
                stage: spec.provider for stage in STAGES if (spec := cast("StageSpec | None", getattr(agent, stage)))
            },
            thresholds=tuple(str(threshold) for threshold in agent.thresholds),
        )
        for name, agent in value.agents.items()
    ]


def check_all(
    agents_file: Path, profiles: Sequence[str], *, env: Mapping[str, str], catalog: Catalog
) -> tuple[list[ResolvedAgent], list[Problem]]:
    """Every agent of a file, alone and under each profile: what holds, and all that does not.

    Raises:
        UsageError: there is no such profile.
    """
    good: list[ResolvedAgent] = []
    problems: list[Problem] = []
    for profile in (None, *profiles):
        try:
            source = _load_agents(agents_file, env)
            agents = source.root.get("agents")
            names = list(agents.entries) if isinstance(agents, MapNode) and agents.entries else [None]
        except SpecError as error:
            return good, [*problems, *error.problems]
        for name in names:
            try:
                good.append(resolve(name, profile, (), env=env, catalog=catalog, agents_file=agents_file))
            except SpecError as error:
                problems += error.problems
    return good, unique(problems)


def list_profiles(agents_file: Path = AGENTS_FILE) -> list[str]:
    """The names in `profiles/` beside the agents file."""
    return sorted(path.stem for path in (agents_file.parent / PROFILES_FOLDER).glob("*.y*ml"))


def find_profile(profile: str, agents_file: Path = AGENTS_FILE) -> Path:
    """The file of a profile given by name or by path.

    Raises:
        UsageError: there is none.
    """
    if "/" in profile or profile.endswith((".yaml", ".yml")):
        return Path(profile)
    for suffix in (".yaml", ".yml"):
        path = agents_file.parent / PROFILES_FOLDER / f"{profile}{suffix}"
        if path.is_file():
            return path
    hint = did_you_mean(profile, list_profiles(agents_file), known_as="Profiles")
    raise UsageError(f"unknown profile '{profile}'", hint=hint)


def _load_agents(path: Path, env: Mapping[str, str]) -> Source:
    if path == AGENTS_FILE and not path.exists():
        raise SpecError([Problem(str(path), "no such file", "Go to its folder, or name it with --file")])
    return load_yaml(path, env)


def _pick(agents: Source, wanted: str | None, problems: Sequence[Problem]) -> tuple[str, Entry]:
    node = agents.root.get("agents")
    if not isinstance(node, MapNode) or not node.entries:
        raise SpecError(unique(problems))
    if wanted is None:
        return next(iter(node.entries.items()))
    if wanted not in node.entries:
        hint = did_you_mean(wanted, node.entries, known_as=f"Agents in {agents.name}")
        raise UsageError(f"unknown agent '{wanted}'", hint=hint)
    return wanted, node.entries[wanted]


# Overlays --------------------------------------------------------------------------------------


def _overlay(base: Node, over: Node) -> Node:
    """`over` on `base`; a stage that names another provider starts afresh, because model and
    options belong to the provider. A profile's `description` and `version` are its own."""
    if not (isinstance(base, MapNode) and isinstance(over, MapNode)):
        return over
    below = dict(base.entries)
    above = {key: entry for key, entry in over.entries.items() if key not in ("description", "version")}
    for stage in STAGES:
        old, new = (_provider(entries.get(stage)) for entries in (below, above))
        if old is not None and new is not None and old != new:
            del below[stage]
    chain = [stage for stage in CHAIN if stage in above]
    if "s2s" in above and not chain:  # another kind of agent
        below = {key: entry for key, entry in below.items() if key not in CHAIN}
    elif "s2s" not in above and len(chain) == len(CHAIN):
        below.pop("s2s", None)
    return merge(MapNode(base.where, below), MapNode(over.where, above))


def _fitting(profile: MapNode, agent: Node) -> MapNode:
    """A profile without what it says of stages that this agent does not have. One that names only the
    other kind's, and all of them, means them."""
    speech = isinstance(agent, MapNode) and agent.get("s2s") is not None
    chain = [stage for stage in CHAIN if stage in profile.entries]
    if speech and chain and ("s2s" in profile.entries or len(chain) < len(CHAIN)):
        strange: tuple[StageName, ...] = CHAIN
    else:
        strange = ("s2s",) if chain and not speech else ()
    return MapNode(profile.where, {key: entry for key, entry in profile.entries.items() if key not in strange})


def _provider(entry: Entry | None) -> str | None:
    node = entry.value.get("provider") if entry and isinstance(entry.value, MapNode) else None
    return node.text if isinstance(node, Scalar) else None


_KEY_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")


def _override(text: str, env: Mapping[str, str]) -> tuple[MapNode | None, list[Problem]]:
    """`turn.endpointing.silence_ms=300` as a tree."""
    path, equals, value = text.partition("=")
    path = path.strip()
    where = Where(f"--set {path}")
    if not equals or not _KEY_PATH.fullmatch(path):
        hint = "For example: --set turn.endpointing.silence_ms=300"
        return None, [Problem(f"--set {text}", "expected KEY=VALUE", hint)]
    secrets = [found for key in path.split(".") if (found := refuse_secret(key, where))]
    if secrets:
        return None, secrets
    node, problems = parse_value(value, where, env)
    for key in reversed(path.split(".")):
        node = MapNode(where, {key: Entry(where, node)})
    return cast(MapNode, node), problems


# Meaning ---------------------------------------------------------------------------------------


def _resolved(
    tree: MapNode, name: str, profile: str | None, catalog: Catalog
) -> tuple[ResolvedAgent | None, list[Problem]]:
    spec, problems = check(RunSpec, tree)
    problems += _kind_problems(tree)
    stages: dict[StageName, Stage] = {}
    for stage in STAGES:
        node = tree.get(stage)
        if isinstance(node, MapNode):
            found, wrong = check_stage(stage, node, catalog)
            problems += wrong
            spare, wrong = _fallbacks(stage, node, catalog)
            problems += wrong
            if found is not None:
                stages[stage] = replace(found, fallback=spare)
    if spec is None:
        return None, problems
    for stage, found in stages.items():
        told = getattr(spec, stage)
        if isinstance(told, GuardedSpec):
            spare = (_guarded(one, given) for one, given in zip(found.fallback, told.fallback, strict=False))
            stages[stage] = replace(_guarded(found, told), hedge=told.hedge, fallback=tuple(spare))
    problems += _contradictions(spec, tree)
    turn = spec.turn
    if "s2s" in stages:
        turn, wrong = _without_words(turn, tree)
        problems += wrong
    problems += _absent_stages(spec, tree)
    model: Stage | None = None
    if "audio" in turn.endpointing.strategy:
        model, wrong = check_stage("turn_model", _audio_node(spec, tree), catalog)
        problems += wrong
    if problems or "vad" not in stages:
        return None, problems
    every: dict[StageName, Stage | None] = dict.fromkeys(STAGES)
    resolved = ResolvedAgent(
        name=name,
        profile=profile,
        description=spec.description,
        language=spec.language,
        instructions=spec.instructions,
        notice=spec.notice,
        greeting=spec.greeting,
        clock=spec.clock,
        line=spec.line,
        vad_threshold=spec.vad.threshold,
        turn=turn,
        turn_model=model,
        thresholds=spec.thresholds,
        budget=spec.budget,
        **cast("dict[str, Any]", every | stages),
    )
    return resolved, problems


def _kind_problems(tree: MapNode) -> list[Problem]:
    """An agent is a chain of three, or one model."""
    entries = {stage: entry for stage in (*CHAIN, "s2s") if (entry := tree.entries.get(stage))}
    empty = [stage for stage, entry in entries.items() if _is_null(entry.value)]
    if empty:
        hint = "Remove it, or give it a value"
        return [Problem(str(entries[stage].where), f"'{stage}' is empty", hint) for stage in empty]
    chain = [stage for stage in CHAIN if stage in entries]
    if "s2s" in entries and chain:
        both = f"the agent has 's2s' and also '{chain[0]}'"
        hint = "Keep either 's2s', one model that hears and speaks, or 'stt', 'llm' and 'tts'"
        return [Problem(str(entries["s2s"].where), both, hint)]
    if not entries:
        hint = "Give it 'stt', 'llm' and 'tts', or 's2s'"
        return [Problem(str(tree.where), "the agent has nothing that hears and speaks", hint)]
    if "s2s" in entries:
        return []
    what = {stage: (RunSpec.model_fields[stage].description or "").rstrip(".") for stage in CHAIN}
    missing = [stage for stage in CHAIN if stage not in entries]
    return [Problem(str(tree.where), f"missing key '{stage}'", what[stage]) for stage in missing]


def _without_words(turn: TurnSpec, tree: MapNode) -> tuple[TurnSpec, list[Problem]]:
    """How an agent without an STT takes turns: what it was not told is chosen so that it needs no words."""
    problems: list[Problem] = []

    def given(*keys: str) -> Node | None:
        node = _find(tree, "turn", *keys)
        return None if node is None or _is_null(node) else node

    def refuse(node: Node, what: str, hint: str) -> None:
        problems.append(Problem(str(node.where), f"{what}, and a speech-to-speech agent has none", hint))

    endpointing, interruption = turn.endpointing, turn.interruption
    if (node := given("endpointing", "strategy")) is None:
        endpointing = endpointing.model_copy(update={"strategy": ("silence",)})
    elif needs := [one for one in endpointing.strategy if one in ("text", "provider")]:
        refuse(node, f"the strategy '{needs[0]}' needs an STT", "Choose among silence, adaptive and audio")
    if (node := given("interruption", "min_words")) is None:
        interruption = interruption.model_copy(update={"min_words": 0})
    elif interruption.min_words:
        refuse(node, "'min_words' needs an STT", "Remove it: speech of 'min_speech_ms' interrupts")
    if node := given("filler"):
        refuse(node, "a filler needs a TTS", "Remove it")
    if node := given("max_history_turns"):
        refuse(node, "'max_history_turns' needs an LLM that is shown the conversation", "Remove it")
    speculation = turn.speculation and given("speculation") is not None
    update = {"endpointing": endpointing, "interruption": interruption, "speculation": speculation}
    return turn.model_copy(update=update), problems


def _absent_stages(spec: RunSpec, tree: MapNode) -> list[Problem]:
    """Thresholds of what this kind of agent does not have."""
    node = tree.get("thresholds")
    places = [item.where for item in node.items] if isinstance(node, ListNode) else []
    problems: list[Problem] = []
    for threshold, where in zip(spec.thresholds, places, strict=False):
        speech = threshold.metric.startswith("s2s_")
        if speech == (spec.s2s is not None) or not threshold.metric.startswith(("stt_", "llm_", "tts_", "s2s_")):
            continue
        has = "stt, llm and tts" if speech else "one speech-to-speech model"
        instead = "'llm_ttft_ms' and 'tts_ttfb_ms'" if speech else "'s2s_ttfb_ms'"
        hint = f"What it takes to answer is {instead}"
        problems.append(Problem(str(where), f"'{threshold.metric}' is not measured: the agent has {has}", hint))
    return problems


def check_stage(stage: StageName, node: MapNode, catalog: Catalog) -> tuple[Stage | None, list[Problem]]:
    """Provider, model and options against the catalogue. Shape is the caller's business."""
    provider = node.get("provider")
    if not isinstance(provider, Scalar) or not isinstance(provider.value, str) or provider.broken:
        return None, []
    names = catalog.names(stage)
    if provider.value not in names:
        hint = did_you_mean(provider.value, names, known_as="Providers")
        return None, [Problem(str(provider.where), f"unknown {stage} provider '{provider.value}'", hint)]
    problems: list[Problem] = []
    models = catalog.models(stage, provider.value)
    model = node.get("model")
    chosen = models[0] if models else None
    if isinstance(model, Scalar) and isinstance(model.value, str) and not model.broken:
        chosen = model.value
        if models is not None and chosen not in models:
            message = f"unknown {stage} model '{chosen}' of provider '{provider.value}'"
            if not models:
                message = f"the {stage} provider '{provider.value}' has no models to choose from"
            hint = did_you_mean(chosen, models, known_as="Models") if models else "Remove it"
            problems.append(Problem(str(model.where), message, hint))
    given = node.get("options")
    options = given if isinstance(given, MapNode) else MapNode(node.where, {})
    value, wrong = check(catalog.options(stage, provider.value), options)
    problems += wrong
    return (None if value is None or problems else Stage(provider.value, chosen, value)), problems


def _fallbacks(stage: StageName, node: MapNode, catalog: Catalog) -> tuple[tuple[Stage, ...], list[Problem]]:
    """Those who take over, checked like the stage itself."""
    given = node.get("fallback")
    stages: list[Stage] = []
    problems: list[Problem] = []
    for one in given.items if isinstance(given, ListNode) else [given]:
        if isinstance(one, MapNode):
            found, wrong = check_stage(stage, one, catalog)
            stages += [found] if found else []
            problems += wrong
    return tuple(stages), problems


def _guarded(stage: Stage, told: FallbackSpec) -> Stage:
    return replace(stage, retry=told.retry, timeout=told.timeout, breaker=told.breaker)


def _audio_node(spec: RunSpec, tree: MapNode) -> MapNode:
    """Where the end-of-turn model was written, or the default as if it had been."""
    node = _find(tree, "turn", "endpointing", "audio")
    given = node if isinstance(node, MapNode) else MapNode(tree.where, {})
    if given.get("provider"):
        return given
    provider = spec.turn.endpointing.audio.provider
    return MapNode(
        given.where, {**given.entries, "provider": Entry(given.where, parse_value(provider, given.where, {})[0])}
    )


def _contradictions(spec: RunSpec, tree: MapNode) -> list[Problem]:
    """What is fine key by key, but not together."""
    endpointing = spec.turn.endpointing
    problems = [found for stage in STAGES for found in _guard_contradictions(stage, getattr(spec, stage), tree)]
    if endpointing.pause_ms > endpointing.silence_ms:
        message = f"'pause_ms' ({endpointing.pause_ms}) is longer than 'silence_ms' ({endpointing.silence_ms})"
        where = _place(tree, "pause_ms", "silence_ms")
        problems.append(Problem(str(where), message, "A pause comes before the end of the turn: make it shorter"))
    return problems


def _guard_contradictions(stage: StageName, told: StageSpec, tree: MapNode) -> list[Problem]:
    problems: list[Problem] = []

    def add(message: str, hint: str, *keys: str) -> None:
        node = _find(tree, stage, *keys) or _find(tree, stage)
        problems.append(Problem(str((node or tree).where), message, hint))

    if not isinstance(told, GuardedSpec):
        return problems
    if told.retry and told.retry.first_ms > told.retry.most_ms:
        message = f"'first_ms' ({told.retry.first_ms}) is longer than 'most_ms' ({told.retry.most_ms})"
        add(message, "The first wait is the shortest", "retry")
    if told.hedge and told.hedge.after_ms and told.timeout and told.hedge.after_ms >= told.timeout.first_ms:
        message = (
            f"'hedge' begins after {told.hedge.after_ms} ms, when 'timeout' ({told.timeout.first_ms} ms) has given up"
        )
        add(message, "Make 'after_ms' shorter than the timeout's 'first_ms'", "hedge")
    return problems


def _place(tree: MapNode, *keys: str) -> Where:
    """Where the endpointing says the first of these keys, or where it is."""
    node = _find(tree, "turn", "endpointing")
    if not isinstance(node, MapNode):
        return tree.where
    given = next((found for key in keys if (found := node.get(key))), node)
    return given.where


def _find(tree: Node, *keys: str) -> Node | None:
    node: Node | None = tree
    for key in keys:
        node = node.get(key) if isinstance(node, MapNode) else None
    return node


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None and node.plain


# Writing ---------------------------------------------------------------------------------------


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Plain values as `load_yaml` reads them back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever any reader, of YAML 1.1 or 1.2, would not take for text."""


def _text(dumper: Any, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_untyped = cast(Any, _Dumper)
for _tag, _pattern in (("int", INT_1_2), ("float", FLOAT_1_2)):
    _untyped.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list("-+.0123456789"))
_untyped.add_representer(str, _text)
