"""When nobody speaks: is the caller still there? Pure: times in, what to say out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdleRules:
    """After `after_s` of silence each prompt is said in turn, then the goodbye, and the agent hangs up."""

    after_s: float
    prompts: tuple[str, ...] = ()
    goodbye: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """Say this. `last`: it is the goodbye, and the agent hangs up when it has been heard."""

    text: str
    last: bool


class IdleWatch:
    """Follows one call. It begins to count when the line falls silent."""

    def __init__(self, rules: IdleRules) -> None:
        self._rules = rules
        self._since: float | None = None
        self._said = 0

    def answered(self) -> None:
        """The caller said something: they are there."""
        self._said = 0
        self._since = None

    def tick(self, now: float, busy: bool) -> Say | None:
        """What is due at `now`. `busy`: somebody speaks or thinks."""
        if busy or self._since is None:
            self._since = None if busy else now
            return None
        if now - self._since < self._rules.after_s - 1e-9:
            return None
        self._since = None
        prompts = self._rules.prompts
        if self._said < len(prompts):
            self._said += 1
            return Say(prompts[self._said - 1], last=False)
        return Say(self._rules.goodbye, last=True)
