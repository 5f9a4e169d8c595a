"""pytest plugin: every recording is a test. `pytest recordings/` replays each and fails where it diverges.

A recording is collected by its `trace.jsonl`. A run without recordings notices nothing of this file:
it imports nothing but pytest until a recording is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

_TRACE_NAME, _STREAMS_NAME = "trace.jsonl", "streams.jsonl"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name == _TRACE_NAME and (file_path.parent / _STREAMS_NAME).is_file():
        return cast(Any, _RecordingFile).from_parent(parent, path=file_path)
    return None


class _RecordingFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield cast(Any, _ReplayItem).from_parent(self, name="replay")


class _Diverged(Exception):
    """What the report shows, without a traceback."""


class _ReplayItem(pytest.Item):
    def runtest(self) -> None:
        from voicectl.replay.check import Options, check
        from voicectl.replay.show import details, headline

        outcome = check(_shown(self.path.parent), Options())
        if outcome.state == "undecided":
            pytest.skip("; ".join(outcome.undecided))
        if outcome.state != "ok":
            raise _Diverged("\n".join([f"{outcome.path}: {headline(outcome)}", *details(outcome)]))

    def repr_failure(  # pyright: ignore[reportIncompatibleMethodOverride]  # a text is one of the answers
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> object:
        return str(excinfo.value) if isinstance(excinfo.value, _Diverged) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"replay of {self.path.parent.name}"


def _shown(path: Path) -> Path:
    """As a person would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
