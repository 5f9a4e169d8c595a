"""`voicectl check`: are the files that people write in order?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicectl.cli import console
from voicectl.cli.options import AGENTS_FILE, FileOption, JsonOption, ProfileOption
from voicectl.errors import EXIT_OK, EXIT_USAGE

if TYPE_CHECKING:
    from voicectl.errors import Problem
    from voicectl.spec import ResolvedAgent


def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]...", help="Agents files and profiles (default: agents.yaml, profiles/)."),
    ] = None,
    profile: ProfileOption = None,
    file: FileOption = AGENTS_FILE,
    json: JsonOption = False,
) -> int:
    """Check agents and profiles, and say every problem as file:line:col.

    Each agent is checked alone and under each profile (with --profile: that
    one only). Nothing is loaded, called or pulled.

    Example: voicectl check agents.yaml --profile scripted
    """
    from voicectl.providers import CATALOG
    from voicectl.spec import check_all, list_profiles

    agents_files, profiles = _sorted_out(files or [], file)
    if profile is not None:
        profiles = [profile]
    elif not files:
        profiles = list_profiles(file)
    good: list[tuple[Path, ResolvedAgent]] = []
    problems: dict[Problem, None] = {}
    for path in agents_files:
        found, wrong = check_all(path, profiles, env=console.env(), catalog=CATALOG)
        good += [(path, agent) for agent in found]
        problems |= dict.fromkeys(wrong)
    if json:
        console.out_json({"ok": [_summary(path, agent) for path, agent in good], "problems": _as_dicts(problems)})
        return EXIT_USAGE if problems else EXIT_OK
    for path, agent in good:
        console.out(_line(path, agent))
    for problem in problems:
        console.err(str(problem))
    return EXIT_USAGE if problems else EXIT_OK


def _sorted_out(files: list[Path], agents_file: Path) -> tuple[list[Path], list[str]]:
    """Agents files and profiles told apart by their content; profiles go over `agents_file`."""
    from voicectl.errors import SpecError
    from voicectl.spec import load_yaml

    agents_files: list[Path] = []
    profiles: list[str] = []
    for path in files:
        try:
            keys = load_yaml(path, env=None).root.entries
        except SpecError:
            keys = {"agents": None}  # `check_all` tells what is wrong with it
        if "agents" in keys or path.parent.name != "profiles":
            agents_files.append(path)
        else:
            profiles.append(str(path))
    return agents_files or [agents_file], profiles


def _line(path: Path, agent: ResolvedAgent) -> str:
    under = f" under {agent.profile}" if agent.profile else ""
    count = len(agent.thresholds)
    thresholds = f"{count} threshold{'s' * (count != 1)}" if count else "no thresholds"
    clock = ", virtual clock" if agent.clock == "virtual" else ""
    ok = console.styled("ok", "green")
    return f"{ok} {path}: {agent.name}{under} ({console.providers_in_words(_providers(agent))}{clock}, {thresholds})"


def _providers(agent: ResolvedAgent) -> dict[str, str]:
    from voicectl.spec import STAGES

    return {stage: agent.stage(stage).provider for stage in STAGES}


def _summary(path: Path, agent: ResolvedAgent) -> dict[str, object]:
    return {
        "file": str(path),
        "agent": agent.name,
        "profile": agent.profile,
        "providers": _providers(agent),
        "clock": agent.clock,
        "thresholds": [str(threshold) for threshold in agent.thresholds],
    }


def _as_dicts(problems: dict[Problem, None]) -> list[dict[str, str | None]]:
    return [{"where": each.where, "message": each.message, "hint": each.hint} for each in problems]
