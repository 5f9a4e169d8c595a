"""What was said in this call, as the LLM is shown it: of the agent's words only those that were heard."""

from __future__ import annotations

from voicectl.pipeline.protocols import Message


class History:
    """The conversation of one call.

    Args:
        instructions: the system prompt.
        max_turns: how many past turns of the caller the LLM is shown (None: all).
    """

    def __init__(self, instructions: str, max_turns: int | None = None) -> None:
        self._system = Message("system", instructions)
        self._max_turns = max_turns
        self._messages: list[Message] = []

    @property
    def last_heard(self) -> str:
        """What the caller last heard the agent say."""
        return next((message.content for message in reversed(self._messages) if message.role == "assistant"), "")

    def add(self, prompt: str, heard: str) -> None:
        """A reply is over: what it answered ("" for nothing), and what of it was heard."""
        if prompt:
            self._messages.append(Message("user", prompt))
        if heard:
            self._messages.append(Message("assistant", heard))

    def conversation(self, text: str) -> tuple[Message, ...]:
        """Who the agent is, what was said, and what the caller says now."""
        return (self._system, *self._recent(), Message("user", text))

    def _recent(self) -> list[Message]:
        if self._max_turns is None:
            return self._messages
        users = [index for index, message in enumerate(self._messages) if message.role == "user"]
        return self._messages if len(users) <= self._max_turns else self._messages[users[-self._max_turns] :]
