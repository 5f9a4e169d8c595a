"""The same work for many recordings, on all cores. Results come in the order of the items.

A process of its own for each core: it has its own event loop, and starts clean (spawn). Starting
one costs most of a second, so a few minutes of calls stay in this process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from voicectl.errors import VoicectlError

T = TypeVar("T")
R = TypeVar("R")

WORTH_S = 1200.0
"""Seconds of audio to go through from which a second process is worth its start."""


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_all_cores(work: Callable[[T], R], items: Sequence[T], *, audio_s: float, processes: int) -> Iterator[R]:
    """`work(item)` for each item.

    Args:
        work: a function of a module, so that another process finds it.
        audio_s: how much audio that is, all in all.
        processes: how many at most.

    Raises:
        VoicectlError: a process died (out of memory, killed).
    """
    processes = min(processes, len(items))
    if processes < 2 or audio_s < WORTH_S:
        yield from map(work, items)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        for future in [pool.submit(work, item) for item in items]:
            yield future.result()
    except BrokenProcessPool as error:
        raise VoicectlError("a process that replayed calls died", hint="Try fewer at once: --jobs 1") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that started us; it ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
