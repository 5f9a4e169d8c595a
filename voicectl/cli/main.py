"""`voicectl`: the frame of the command line. Commands, exit codes, and how an error is told.

Nothing heavy is imported here or by the command modules at their top: `voicectl --help` loads
none of numpy, pydantic, httpx, yaml, asyncio. Each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn, cast

import typer

from voicectl.cli import console
from voicectl.cli.agents import agents
from voicectl.cli.bench import bench
from voicectl.cli.check import check
from voicectl.cli.diff import diff
from voicectl.cli.doctor import doctor
from voicectl.cli.drill import drill
from voicectl.cli.init import init
from voicectl.cli.keys import keys_app
from voicectl.cli.models import models_app
from voicectl.cli.providers import providers
from voicectl.cli.recordings import recordings_app
from voicectl.cli.replay import replay
from voicectl.cli.report import report
from voicectl.cli.run import run as run_command
from voicectl.cli.schema import schema
from voicectl.cli.standin import standin
from voicectl.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_PROVIDER, EXIT_USAGE, SpecError, VoicectlError

EXIT_BUG = 70  # as sysexits.h has it: none of the documented outcomes
EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE, what a shell shows for every program whose reader left

app = typer.Typer(
    name="voicectl",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from voicectl import __version__

        console.out(f"voicectl {__version__}")
        raise typer.Exit


@app.callback()
def voicectl(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks (also: VOICECTL_DEBUG=1).")] = False,
) -> None:
    """Build, run and benchmark voice agents.

    Start here: voicectl bench --profile scripted

    Exit codes: 0 fine, 1 a threshold failed or a replay diverged, 2 usage or
    spec, 3 provider or transport, 4 undecided, 130 interrupted.
    """
    if debug:
        console.set_debug()


app.command("run")(run_command)
app.command()(init)
app.command()(doctor)
app.command()(bench)
app.command()(report)
app.command()(diff)
app.command()(replay)
app.command()(drill)
app.command()(standin)
app.add_typer(recordings_app)
app.command()(check)
app.command()(agents)
app.command()(providers)
app.add_typer(keys_app)
app.add_typer(models_app)
app.command()(schema)


def run() -> NoReturn:
    """The entry point: every outcome is an exit code, every error one line."""
    sys.exit(_outcome())


def _outcome() -> int:
    console.never_choke()
    try:
        code = app(prog_name="voicectl", standalone_mode=False)
        console.flush()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_left()
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except BrokenPipeError:
        return _reader_left()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last line of defence: told, never swallowed
        return _tell(error)
    if code == EXIT_INTERRUPTED:
        console.err("voicectl: interrupted")
    return code if isinstance(code, int) else EXIT_OK


def _reader_left() -> int:
    console.drop_output()
    return EXIT_CLOSED_PIPE


def _tell(error: Exception) -> int:
    if console.debug():
        import traceback

        console.err("".join(traceback.format_exception(error)).rstrip())
    ours = _ours(error)
    if isinstance(ours, SpecError):
        console.err(str(ours))
        return ours.exit_code
    if ours is not None:
        console.err(f"voicectl: error: {ours}")
        return ours.exit_code
    if isinstance(error, typer.TyperException):
        return _tell_usage(error)
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        console.drop_output()
        console.err(f"voicectl: error: the output cannot be written: {error.strerror}")
        return EXIT_PROVIDER
    first = " ".join(str(error).split())
    console.err(f"voicectl: error: unexpected {type(error).__name__}: {first}")
    if not console.debug():
        console.err("This is a bug. Please report it with what VOICECTL_DEBUG=1 prints.")
    return EXIT_BUG


def _ours(error: BaseException) -> VoicectlError | None:
    """The error to tell; a task group wraps what its tasks raised."""
    if isinstance(error, VoicectlError):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if (found := _ours(inner)) is not None:
                return found
    return None


def _tell_usage(error: typer.TyperException) -> int:
    context: typer.Context | None = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        console.err(error.format_message())
        return EXIT_USAGE
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    command = context.command_path if context else "voicectl"
    sentence = message if message.endswith("?") else f"{message}."
    console.err(f"voicectl: error: {sentence[:1].lower()}{sentence[1:]} Try: {command} --help")
    return EXIT_USAGE


if __name__ == "__main__":
    run()
