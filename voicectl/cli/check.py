"""`voicectl check`: are the files that people write in order?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicectl.cli import console
from voicectl.cli.options import AGENTS_FILE, FileOption, JsonOption, ProfileOption
from voicectl.errors import EXIT_OK, EXIT_USAGE

if TYPE_CHECKING:
    from voicectl.errors import Problem
    from voicectl.spec import ResolvedAgent
    from voicectl.transports.caller import Caller


def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Agents files, profiles, callers (default: the agents file and every profile)."
        ),
    ] = None,
    profile: ProfileOption = None,
    file: FileOption = AGENTS_FILE,
    json: JsonOption = False,
) -> int:
    """Check agents, profiles and callers.

    Every problem is told at once, each as file:line:col. An agent is checked
    alone and under each profile (with --profile: that one only). Nothing is
    loaded, called or pulled. A model that its vendor shuts down within 90 days,
    or has shut down, is a warning.

    Example: voicectl check agents.yaml --profile scripted
    """
    from voicectl.spec import list_profiles

    given = _sorted_out(files or [])
    if profile is not None:
        given.profiles = [profile]
    elif not files:
        given.profiles = list_profiles(file)
    if given.profiles or not given.callers:
        given.agents = given.agents or [file]
    found = _checked(given)
    if json:
        console.out_json(found.as_json())
    else:
        for line in found.lines():
            console.out(line)
        for problem in (*found.problems, *found.warnings):
            console.err(str(problem))
    return EXIT_USAGE if found.problems else EXIT_OK


@dataclass(slots=True)
class _Given:
    """What to check, told apart."""

    agents: list[Path] = field(default_factory=list[Path])
    profiles: list[str] = field(default_factory=list[str])
    callers: list[Path] = field(default_factory=list[Path])


@dataclass(slots=True)
class _Found:
    """What is in order, and what is not; a problem met twice is told once. Warnings spoil nothing."""

    agents: list[tuple[Path, ResolvedAgent]]
    callers: list[tuple[Path, Caller]]
    problems: dict[Problem, None]
    warnings: dict[Problem, None] = field(default_factory=dict["Problem", None])

    def lines(self) -> list[str]:
        ok = console.styled("ok", "green")
        return [
            *(f"{ok} {path}: {_agent_in_words(agent)}" for path, agent in self.agents),
            *(
                f"{ok} {path}: {caller.name} ({_count(caller.utterances, 'utterance')})"
                for path, caller in self.callers
            ),
        ]

    def as_json(self) -> dict[str, object]:
        return {
            "ok": [
                {
                    "file": str(path),
                    "agent": agent.name,
                    "profile": agent.profile,
                    "providers": _providers(agent),
                    "clock": agent.clock,
                    "thresholds": [str(threshold) for threshold in agent.thresholds],
                }
                for path, agent in self.agents
            ]
            + [{"file": str(path), "caller": caller.name} for path, caller in self.callers],
            "problems": [{"where": each.where, "message": each.message, "hint": each.hint} for each in self.problems],
            "warnings": [{"where": each.where, "message": each.message, "hint": each.hint} for each in self.warnings],
        }


def _sorted_out(files: list[Path]) -> _Given:
    """By their content: people name their files as they like."""
    from voicectl.errors import SpecError
    from voicectl.spec import ProfileSpec, load_yaml

    given = _Given()
    only_profiles_have = ProfileSpec.model_fields.keys() - {"version", "description"}
    for path in files:
        try:
            keys = set[str]() if path.is_dir() else set(load_yaml(path, env=None).root.entries)
        except SpecError:
            keys = {"agents"}  # wherever it belongs: what is wrong with it is told there
        if path.is_dir() or keys & {"utterances", "callers"}:
            given.callers.append(path)
        elif "agents" not in keys and (path.parent.name == "profiles" or keys & only_profiles_have):
            given.profiles.append(str(path))
        else:
            given.agents.append(path)
    return given


def _checked(given: _Given) -> _Found:
    from voicectl.errors import Problem, SpecError, UsageError
    from voicectl.providers import CATALOG
    from voicectl.spec import check_all

    found = _Found([], [], {})
    for path in given.agents:
        good, wrong = check_all(path, given.profiles, env=console.env(), catalog=CATALOG)
        found.agents += [(path, agent) for agent in good]
        found.problems |= dict.fromkeys(wrong)
    for path in given.callers:
        from voicectl.bench.callers import load_callers

        try:
            found.callers += [(path, caller) for caller in load_callers(path)]
        except SpecError as error:
            found.problems |= dict.fromkeys(error.problems)
        except UsageError as error:
            found.problems[Problem(error.where or str(path), error.message, error.hint)] = None
    found.warnings = dict.fromkeys(_ending_models(given))
    return found


def _ending_models(given: _Given) -> list[Problem]:
    from voicectl.errors import SpecError
    from voicectl.prices.check import ending_soon
    from voicectl.providers import CATALOG
    from voicectl.spec import find_profile, load_yaml

    profiles = (find_profile(profile, path) for path in given.agents[:1] for profile in given.profiles)
    warnings: list[Problem] = []
    for path in (*given.agents, *profiles):
        try:
            root = load_yaml(path, env=console.env()).root
        except SpecError:
            continue  # told already
        warnings += ending_soon(root, console.now().date(), CATALOG)
    return warnings


def _agent_in_words(agent: ResolvedAgent) -> str:
    under = f" under {agent.profile}" if agent.profile else ""
    clock = ", virtual clock" if agent.clock == "virtual" else ""
    thresholds = _count(agent.thresholds, "threshold")
    return f"{agent.name}{under} ({console.providers_in_words(_providers(agent))}{clock}, {thresholds})"


def _count(things: tuple[object, ...], name: str) -> str:
    return f"{len(things) or 'no'} {name}{'s' * (len(things) != 1)}"


def _providers(agent: ResolvedAgent) -> dict[str, str]:
    return {stage: choice.provider for stage, choice in agent.stages().items()}
