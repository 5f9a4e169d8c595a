"""Tables that fit, progress that stays quiet in a pipe, colour only where it is wanted."""

from __future__ import annotations

import io

import pytest

from voicectl.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_last_column_wraps_under_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console.table(("name", "what"), [("a", "some words that do not fit in one line"), ("longer", "short")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME    WHAT",
        "a       some words that do not fit in",
        "        one line",
        "longer  short",
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (491_400_064, "491 MB"), (4_794, "4.8 kB")]
)
def test_sizes(count: int, text: str) -> None:
    assert console.size(count) == text


def test_in_a_pipe_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = console.ProgressLine()
    line("loading a")
    line("loading a")
    for done in range(10):
        line.bytes("b", done, 10, "fetching")
    line.done()
    assert capsys.readouterr().err == "loading a\nb: fetching\n"


def test_on_a_terminal_one_line_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    line = console.ProgressLine()
    line("x" * 60)
    line.bytes("b", 10, 10, "")
    line.done()
    drawn = terminal.getvalue().split("\r\x1b[2K")
    assert drawn[1] == "x" * 38 + "…"
    assert drawn[2].startswith("b  ████")
    assert drawn[-1] == ""


@pytest.mark.parametrize(("variables", "wanted"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert console.colour(Terminal()) is wanted
    assert console.colour(io.StringIO()) is False


def test_providers_in_words() -> None:
    assert console.providers_in_words({"vad": "local", "stt": "local", "llm": "local"}) == "local"
    assert console.providers_in_words({"vad": "webrtc", "stt": "local", "llm": "local"}) == "vad webrtc, else local"
