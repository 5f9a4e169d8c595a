"""What a run cost the machine: memory, and who else kept it busy. Linux says more than others."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import resource
import sys
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def settled() -> Generator[None]:
    """What is loaded stays until the block ends, and the garbage collector need not look at it: with four
    SDKs imported a full collection takes 0.1 s, in which no frame goes out."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Usage:
    """Counts from where it is made."""

    def __init__(self) -> None:
        self._busy, self._idle = _cpu_seconds()
        self._own = _own_cpu_seconds()
        self._peak_rss = 0

    def look(self) -> None:
        """Note the memory now, while worker processes still live."""
        scale = 1 if sys.platform == "darwin" else 1024
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        self._peak_rss = max(self._peak_rss, own + sum(_peak_rss(pid) for pid in _children()))

    def peak_rss_mb(self) -> float:
        """Most resident memory of this process and the workers it had when last looked at, together."""
        self.look()
        return self._peak_rss / 1e6

    def busy_cpus(self) -> float | None:
        """CPUs that other processes kept busy meanwhile, on average; None where it is not known."""
        busy, idle = _cpu_seconds()
        total = (busy - self._busy) + (idle - self._idle)
        if total <= 0:
            return None
        others = (busy - self._busy) - (_own_cpu_seconds() - self._own)
        return max(0.0, others / total * (os.cpu_count() or 1))

    def machine(self) -> dict[str, str | int | float]:
        """Plain facts for the report; nothing that names the machine."""
        return {
            "cpus": os.cpu_count() or 1,
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        }


def _children() -> list[int]:
    """The processes this one has started and that still run; none where there is no /proc."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in path.read_text(encoding="ascii").split()]
    return found


def _peak_rss(pid: int) -> int:
    """Bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _cpu_seconds() -> tuple[float, float]:
    """(busy, idle) seconds of all CPUs since boot; zeros where there is no /proc/stat."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0, 0.0
    user, nice, system, idle, iowait, irq, softirq, steal = (int(field) for field in fields)
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq + steal) / ticks, (idle + iowait) / ticks


def _own_cpu_seconds() -> float:
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in times)
