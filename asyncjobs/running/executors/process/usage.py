"""What a process uses: memory and CPU, as the system counts it."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

_PAGE = resource.getpagesize()
_LIMITS = resource.getrlimit(resource.RLIMIT_AS)
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
PEAK_SLACK = 1024 * 1024
"""An earlier peak within this of what is used now is not worth forgetting."""


def rss_of(pid: int | str) -> int | None:
    """Bytes of memory that a process has now; ``None`` where that cannot be read, or it is gone."""
    sizes = _statm(pid)
    return None if sizes is None else sizes[1]


def _statm(pid: int | str) -> tuple[int, int] | None:
    """Bytes of address space and of memory."""
    try:
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size, rss, *_ = os.read(descriptor, 128).split()
    except (OSError, ValueError):  # it has just ended
        return None
    finally:
        os.close(descriptor)
    return int(size) * _PAGE, int(rss) * _PAGE


def own_cpu_seconds() -> float:
    """CPU seconds of this process, and of those of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def own_peak_rss() -> int:
    """The most bytes of memory that this process had since the last :func:`forget_peak`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def forget_peak() -> None:
    """Begin a new peak; where the system does not know how, it stays that of the whole life."""
    rss = rss_of("self")
    if rss is not None and own_peak_rss() > rss + PEAK_SLACK:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def limit_memory(most: int | None) -> None:
    """Let allocations fail once this process has ``most`` bytes; ``None`` lifts that again.

    Address space beyond what is used now is counted as if it were used.
    """
    soft, hard = _LIMITS
    sizes = _statm("self")
    if most is not None and sizes is not None:
        size, rss = sizes
        room = size - rss + most
        soft = room if soft == resource.RLIM_INFINITY else min(room, soft)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
