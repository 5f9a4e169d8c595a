"""What waits to be heard, and what has been: the agent's side of the line, frame by frame.

Playout holds the audio of one reply at a time, at the line's rate, gives out one frame a tick,
and knows at every instant which words the caller has heard. It decides nothing and reads no clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from voicectl.audio import SAMPLE_WIDTH

_WORD_S = 0.3
"""How long a word takes, as long as it is not known how long its clause is."""


@dataclass(slots=True)
class _Clause:
    text: str
    size: int = 0  # bytes of audio so far
    ended: bool = False
    heard: int = 0  # words


class Playout:
    """The audio queue of one call.

    Args:
        rate: samples per second of the line.
        frame_s: length of one frame in seconds.
        on_ready: told when there is something to say after there was not: the first frame need not
            wait for the line's next tick.
    """

    def __init__(self, rate: int, frame_s: float, on_ready: Callable[[], None] = lambda: None) -> None:
        self._bytes_per_second = rate * SAMPLE_WIDTH
        self._frame_bytes = round(rate * frame_s) * SAMPLE_WIDTH
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # into the first chunk
        self._queued = 0  # bytes not yet given out
        self._given = 0  # bytes of this reply given out
        self._clauses: list[_Clause] = []
        self._complete = False
        self._held = False
        self._on_ready = on_ready
        self._changed: asyncio.Future[None] | None = None
        self._awaited = 0

    @property
    def started(self) -> bool:
        """Whether any of this reply has gone on the line."""
        return self._given > 0

    @property
    def queued_s(self) -> float:
        """Seconds of audio not yet on the line."""
        return self._queued / self._bytes_per_second

    @property
    def text(self) -> str:
        """What this reply says as far as it is known, heard or not."""
        return "".join(clause.text for clause in self._clauses)

    def begin(self, *, held: bool) -> None:
        """Start a new, empty reply."""
        self._chunks.clear()
        self._offset = self._queued = self._given = 0
        self._clauses = []
        self._complete = False
        self._held = held

    def hold(self) -> None:
        """Nothing more is heard until `release`; what has been given out stays heard."""
        self._held = True

    def release(self) -> None:
        """The held reply may be heard from the next frame on."""
        self._held = False
        self._wake()
        if self._queued >= self._frame_bytes:
            self._on_ready()

    @property
    def heard_s(self) -> float:
        """Seconds of this reply that have gone on the line."""
        return self._given / self._bytes_per_second

    def begin_clause(self, text: str) -> None:
        self.end_clause()
        self._clauses.append(_Clause(text))

    def add_text(self, text: str) -> None:
        """The current clause says more: its text comes with its sound."""
        self._clauses[-1].text += text

    def end_clause(self) -> None:
        """The audio of the current clause is there to its end."""
        if self._clauses:
            self._clauses[-1].ended = True

    def add(self, pcm: bytes) -> None:
        """More audio of the current clause (s16le mono at the line's rate)."""
        if pcm:
            before = self._queued
            self._clauses[-1].size += len(pcm)
            self._chunks.append(pcm)
            self._queued += len(pcm)
            if before < self._frame_bytes <= self._queued and not self._held:
                self._on_ready()

    def complete(self) -> None:
        """No more audio will come for this reply: it ends with its last sound, and the silence after it
        is nobody's turn."""
        self._drop_silence()
        self.end_clause()
        self._complete = True
        if not self._queued:
            self._wake()

    def pull(self) -> bytes:
        """The next frame: whole, or padded with silence at the end; b"" when there is nothing to say."""
        if self._held or not self._queued:
            return b""
        first = self._chunks[0]
        end = self._offset + self._frame_bytes
        if end <= len(first):
            frame = first[self._offset : end]
            self._offset = end
            if end == len(first):
                self._chunks.popleft()
                self._offset = 0
        else:
            frame = self._gather()
        self._queued -= len(frame)
        self._given += len(frame)
        if self._queued <= self._awaited:
            self._wake()
        return frame if len(frame) == self._frame_bytes else frame.ljust(self._frame_bytes, b"\0")

    async def until_room(self, ahead_s: float) -> None:
        """Wait until at most `ahead_s` seconds are queued."""
        while self.queued_s > ahead_s:
            await self._change(round(ahead_s * self._bytes_per_second))

    async def until_played(self) -> None:
        """Wait until the completed reply is on the line to its last sample; a held one is released first."""
        while self._held or not self._complete or self._queued:
            await self._change(0)

    def heard(self) -> str:
        """The text that has gone on the line: whole clauses, and the share of words of the current one."""
        left = self._given
        text = ""
        for clause in self._clauses:
            words = clause.text.split()
            clause.heard = max(clause.heard, self._words_in(left, clause, len(words)))
            if clause.heard < len(words):
                blank = clause.text[: len(clause.text) - len(clause.text.lstrip())]
                text += blank + " ".join(words[: clause.heard])
                break
            text += clause.text
            left -= clause.size
        return text.strip()

    def _words_in(self, given: int, clause: _Clause, words: int) -> int:
        """How many of the clause's words were heard when `given` bytes of it and what follows were."""
        if given <= 0:
            return 0
        if clause.ended:
            return words if given >= clause.size else words * given // clause.size
        # Whatever its length will be, its last word is still to come.
        size = max(clause.size, round(words * _WORD_S * self._bytes_per_second))
        return min(words * given // size, words - 1)

    def _drop_silence(self) -> None:
        """Take back the digital silence after the last sound, where there is a sound still queued."""
        dropped = 0
        for back, chunk in enumerate(reversed(self._chunks), 1):
            sound = len(chunk.rstrip(b"\0"))
            sound += sound % SAMPLE_WIDTH
            if sound > (self._offset if back == len(self._chunks) else 0):
                dropped += len(chunk) - sound
                break
            dropped += len(chunk)
        else:
            return
        if dropped < self._clauses[-1].size:
            for _ in range(back - 1):
                self._chunks.pop()
            self._chunks[-1] = self._chunks[-1][:sound]
            self._clauses[-1].size -= dropped
            self._queued -= dropped

    def _gather(self) -> bytes:
        parts: list[bytes] = []
        need = self._frame_bytes
        while need and self._chunks:
            first = self._chunks[0]
            part = first[self._offset : self._offset + need]
            parts.append(part)
            need -= len(part)
            self._offset += len(part)
            if self._offset == len(first):
                self._chunks.popleft()
                self._offset = 0
        return b"".join(parts)

    def _change(self, queued: int) -> asyncio.Future[None]:
        """To wait for: what is queued has fallen to so many bytes, or something else has changed."""
        self._awaited = queued
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
            self._changed = None
