"""Bounded run-ahead: the one way a stage works while the next one is busy.

An async generator runs in a task of its own and may be `size` items ahead of whoever reads it,
never more. Leaving the block cancels it and waits until it has cleaned up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from voicectl.clock import Clock

T = TypeVar("T")


@asynccontextmanager
async def buffered(
    source: AsyncGenerator[T, None], *, size: int, clock: Clock, name: str
) -> AsyncGenerator[AsyncIterator[T]]:
    """Read `source` up to `size` items ahead.

    An error of the source is raised where its item would have been read, one of its cleaning up
    where the block ends.
    """
    queue: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
    room = asyncio.Semaphore(size)  # for items: that the source has ended can always be told

    async def fill() -> None:
        try:
            async for item in source:
                await room.acquire()
                queue.put_nowait((item,))
        except BaseException as error:  # handed to the reader, who is the one to handle it
            queue.put_nowait(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            queue.put_nowait(None)
        finally:
            await source.aclose()

    async def drain() -> AsyncGenerator[T]:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]

    task = clock.spawn(fill(), name=name)
    items = drain()
    try:
        yield items
    finally:
        task.cancel()
        await asyncio.wait([task])
        await items.aclose()
        if not task.cancelled() and (error := task.exception()):
            raise error
