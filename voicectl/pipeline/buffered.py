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

    An error of the source is raised where its item would have been read.
    """
    queue: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue(maxsize=size)

    async def fill() -> None:
        try:
            async for item in source:
                await queue.put((item,))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  (handed to the reader, who is the one to handle it)
            await queue.put(error)
        else:
            await queue.put(None)
        finally:
            await source.aclose()

    async def drain() -> AsyncIterator[T]:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]

    task = clock.spawn(fill(), name=name)
    try:
        yield drain()
    finally:
        task.cancel()
        await asyncio.wait([task])
