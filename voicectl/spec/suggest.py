"""Did you mean: the nearest name a person may have had in mind. Pure; knows nothing of YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_UNIT = re.compile(r"_(ms|s|sec|secs|seconds|msec|millis|hz|pct|percent)$")


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like `word`, or None when none is near.

    A name that differs only in case, in `-` for `_`, or in its unit comes first; then one of which
    the word is the beginning.
    """
    known = list(names)
    stem = _stem(word)
    for name in known:
        if stem == _stem(name):
            return name
    for name in known:
        if _stem(name).startswith(f"{stem}_"):
            return name
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    return next((name for name in known if close and name.lower() == close[0]), None)


def did_you_mean(word: str, names: Iterable[str], *, known_as: str) -> str:
    """A hint: `Did you mean 'x'?`, or all names (`known_as` says what they are)."""
    known = list(names)
    guess = nearest(word, known)
    if guess is not None:
        return f"Did you mean '{guess}'?"
    return f"{known_as}: {', '.join(known)}" if known else f"{known_as}: none"


def _stem(name: str) -> str:
    return _UNIT.sub("", name.lower().replace("-", "_"))
