"""The frame: exit codes, one line an error, and a help that loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

import voicectl.spec
from cli.conftest import AGENTS, Voicectl
from voicectl import __version__
from voicectl.cli import main
from voicectl.errors import ProviderError

HEAVY = ("numpy", "pydantic", "httpx", "yaml", "asyncio", "rich", "openai", "sounddevice")


def commands() -> list[list[str]]:
    def below(app: typer.Typer, before: list[str]) -> list[list[str]]:
        found = [
            [*before, command.name or getattr(command.callback, "__name__", "")] for command in app.registered_commands
        ]
        for group in app.registered_groups:
            assert group.typer_instance is not None
            found += below(group.typer_instance, [*before, str(group.typer_instance.info.name)])
        return found

    return below(main.app, [])


def python(code: str, **more: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(main.__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); {code}"
    return subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, **more)  # type: ignore[call-overload]


def test_help_loads_nothing_heavy() -> None:
    # Typer itself needs pydantic to show a number with a range, so below the top it is allowed.
    code = (
        "from voicectl.cli.main import _outcome\n"
        f"for command in [[]] + {commands()!r}:\n"
        "    sys.argv = ['voicectl', *command, '--help']\n"
        "    assert _outcome() == 0, command\n"
        f"    loaded = [name for name in {HEAVY!r} if name in sys.modules and not (command and name == 'pydantic')]\n"
        "    assert not loaded, (command, loaded)\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_shows_an_example(voicectl: Voicectl, command: list[str]) -> None:
    shown = voicectl(*command, "--help")
    assert shown.code == 0
    assert f"Example: voicectl {' '.join(command)}" in shown.out
    assert max(len(line) for line in shown.out.splitlines()) <= 80


def test_version(voicectl: Voicectl) -> None:
    assert voicectl("--version").out == f"voicectl {__version__}\n"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["chck"], "voicectl: error: no such command 'chck'. Did you mean 'check'? Try: voicectl --help\n"),
        (["check", "--fast"], "voicectl: error: no such option: --fast. Try: voicectl check --help\n"),
        (["agents", "--file"], "voicectl: error: option '--file' requires an argument. Try: voicectl --help\n"),
        (["models", "drop"], "voicectl: error: no such command 'drop'. Try: voicectl models --help\n"),
        (
            ["schema", "x"],
            "voicectl: error: invalid value for 'kind': 'x' is not one of 'agents', 'profile', 'caller'. "
            "Try: voicectl schema --help\n",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(voicectl: Voicectl, args: list[str], line: str) -> None:
    result = voicectl(*args)
    assert (result.code, result.out, result.err) == (2, "", line)


def test_without_arguments_the_help_is_shown(voicectl: Voicectl) -> None:
    assert voicectl().err.startswith("Usage: voicectl")


# What a command may raise ----------------------------------------------------------------------


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(voicectl.spec, "summarize", fail)


def test_our_errors_are_one_line_with_their_exit_code(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ProviderError("answered 401", where="llm:openai", hint="Set OPENAI_API_KEY")
    raising(monkeypatch, error)
    result = voicectl("agents")
    assert (result.code, result.err) == (3, "voicectl: error: llm:openai: answered 401. Set OPENAI_API_KEY\n")


def test_an_error_in_a_group_of_tasks_is_still_ours(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ExceptionGroup("two", [ValueError("x"), ExceptionGroup("in", [ProviderError("gone")])]))
    result = voicectl("agents")
    assert (result.code, result.err) == (3, "voicectl: error: gone\n")


def test_a_bug_is_two_lines_and_a_traceback_only_on_demand(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("division\nby zero"))
    result = voicectl("agents")
    assert result.code == 70
    assert result.err == (
        "voicectl: error: unexpected ZeroDivisionError: division by zero\n"
        "This is a bug. Please report it with what VOICECTL_DEBUG=1 prints.\n"
    )
    result = voicectl("--debug", "agents")
    assert result.code == 70
    assert "Traceback" in result.err


def test_control_c_ends_with_130(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    result = voicectl("agents")
    assert (result.code, result.err) == (130, "voicectl: interrupted\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import os; from voicectl.cli import console, main; reader, writer = os.pipe(); os.dup2(writer, 1);"
        "os.close(writer); os.close(reader); sys.argv = ['voicectl', '--version']; main.run()"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_without_unicode_shows_what_it_can(home: Path) -> None:
    (home / "agents.yaml").write_text(AGENTS.replace("Takes orders.", "Café"), encoding="utf-8")
    code = "from voicectl.cli import main; sys.argv = ['voicectl', 'agents'] + sys.argv[1:]; main.run()"
    for more, shown in ((code, "Caf\\xe9"), (code.replace("'agents'", "'agents', '--json'"), "Caf\\u00e9")):
        done = python(more, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
        assert (done.returncode, done.stderr) == (0, "")
        assert shown in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    done = python("import os; from voicectl.cli import main; os.dup2(os.open('/dev/full', os.O_WRONLY), 1);"
                  "sys.argv = ['voicectl', '--version']; main.run()")  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == "voicectl: error: the output cannot be written: No space left on device\n"
