"""The terminal under the full-screen view: rows that changed are written, keys are read.

At most ten times a second, and only rows that differ from what is there, in one write: nothing flickers.
What keys mean is here; what is shown is `view.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from voicectl.cli import console
from voicectl.cli.view import ansi, draw, plain

if TYPE_CHECKING:
    from voicectl.cli.talk import Talk
    from voicectl.clock import Clock

REDRAW_S = 0.1
_HELD_S = 0.3  # a key that repeats is held; so long after the last repeat it is released
_REPEATS_S = 0.7  # so long a terminal waits before a held key repeats


class PushToTalk:
    """A terminal tells of no key's release: a held space talks while it repeats, a tapped one until the next tap."""

    def __init__(self) -> None:
        self.used = False
        self.talking = False
        self._last = 0.0
        self._repeats = 0

    def press(self, now: float) -> None:
        gap = now - self._last
        self._last = now
        self.used = True
        if not self.talking:
            self.talking, self._repeats = True, 0
        elif gap < (_HELD_S if self._repeats else _REPEATS_S):
            self._repeats += 1
        else:
            self.talking = False

    def tick(self, now: float) -> None:
        if self.talking and self._repeats and now - self._last > _HELD_S:
            self.talking = False


class Keyboard:
    """What each key does; `act` is the session's, None while there is none."""

    def __init__(
        self,
        talk: Talk,
        now: Callable[[], float],
        *,
        act: Callable[[str, str], None],
        mute: Callable[[bool], None],
        mark: Callable[[], None],
        hang_up: Callable[[], None],
    ) -> None:
        self._talk = talk
        self._now = now
        self._act = act
        self._mute = mute
        self._mark = mark
        self._hang_up = hang_up
        self._push = PushToTalk()

    def read(self, text: str) -> None:
        """What was typed since; an escape sequence (an arrow) is nothing."""
        if text.startswith("\x1b") and len(text) > 1:
            return
        for key in text:
            if self._talk.typing is not None:
                self._type(key)
            else:
                self._key(key)

    def tick(self) -> None:
        if self._push.used and self._push.talking:
            self._push.tick(self._now())
            if not self._push.talking:
                self._set_muted(True)

    def _key(self, key: str) -> None:
        match key:
            case "m":
                self._push = PushToTalk()
                self._set_muted(not self._talk.muted)
            case " ":
                self._push.press(self._now())
                self._set_muted(not self._push.talking)
            case "i":
                self._act("interrupted", "")
            case "r":
                self._act("repeat", "")
            case "t":
                self._talk.typing = ""
            case "k":
                self._mark()
            case "q":
                self._hang_up()
            case _:
                pass

    def _type(self, key: str) -> None:
        typed = self._talk.typing or ""
        if key in "\r\n":
            self._talk.typing = None
            if typed.strip():
                self._act("typed", typed.strip())
        elif key == "\x1b":
            self._talk.typing = None
        elif key in "\x7f\b":
            self._talk.typing = typed[:-1]
        elif key.isprintable():
            self._talk.typing = typed + key

    def _set_muted(self, muted: bool) -> None:
        self._talk.muted = muted
        self._mute(muted)


class Screen:
    """Shows a `Talk` until `close`."""

    def __init__(self, talk: Talk, clock: Clock, keyboard: Keyboard) -> None:
        self._talk = talk
        self._clock = clock
        self._keyboard = keyboard
        self._shown: list[str] = []
        self._terminal: console.FullScreen | None = None
        self._drawing: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._terminal = console.FullScreen()
        asyncio.get_running_loop().add_reader(self._terminal.keys_from, self._read)
        self._drawing = self._clock.spawn(self._draw(), name="drawing")

    def close(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is None:
            return
        asyncio.get_running_loop().remove_reader(terminal.keys_from)
        terminal.close()
        if self._drawing and self._drawing.done():
            self._drawing.result()  # it draws until here: what stopped it is told
        elif self._drawing:
            self._drawing.cancel()

    def _read(self) -> None:
        if self._terminal:
            self._keyboard.read(self._terminal.keys())

    async def _draw(self) -> None:
        while self._terminal:
            self._keyboard.tick()
            size = self._terminal.size()
            styled = ansi if self._terminal.colour else plain
            rows = styled(draw(self._talk, *size))
            before = self._shown if len(self._shown) == len(rows) else [None] * len(rows)
            changed = [(number, row) for number, row in enumerate(rows, 1) if row != before[number - 1]]
            if changed:
                self._terminal.write(changed, clear=before is not self._shown)
            self._shown = rows
            await self._clock.sleep_until(self._clock.now() + REDRAW_S)
