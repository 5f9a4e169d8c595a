"""What a run cost the machine: memory, and who else kept it busy. Linux says more than others."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path


class Usage:
    """Counts from where it is made."""

    def __init__(self) -> None:
        self._busy, self._idle = _cpu_seconds()
        self._own = _own_cpu_seconds()

    def peak_rss_mb(self) -> float:
        """Most resident memory of this process and, added, of its largest child (worker processes)."""
        scale = 1 if sys.platform == "darwin" else 1024
        own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return (own + child) * scale / 1e6

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
