"""Recordings to replay: made once, copied for tests that change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from replay.support import make_calls


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Recordings of an orderly caller and of a hasty one. Not to be changed."""
    return make_calls(tmp_path_factory.mktemp("recordings"))


@pytest.fixture
def order(calls: list[Path], tmp_path: Path) -> Path:
    """A copy of the orderly call."""
    return Path(shutil.copytree(calls[0], tmp_path / "calls" / calls[0].name))


@pytest.fixture
def hasty(calls: list[Path], tmp_path: Path) -> Path:
    """A copy of the hasty call."""
    return Path(shutil.copytree(calls[1], tmp_path / "calls" / calls[1].name))
