"""What only Linux offers: ties between a process and those that it starts."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

IS_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if IS_LINUX else None


def die_with_parent() -> None:
    """Be killed when the thread that forked us ends: the fork server's only one."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, also of those that called setsid."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_batch_work() -> None:
    """Never take the processor from the event loop whose message has woken this process.

    Its share of the processor stays the same. Without this the event loop stood still, in the
    midst of sending jobs, for as long as each of them took (measured: 1.5 ms a job of 5 ms).
    """
    if IS_LINUX:
        with contextlib.suppress(OSError):  # where a sandbox does not let it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def children_of(pid: int) -> list[int]:
    """The children of a process; none where they cannot be listed."""
    found = []
    for path in glob.iglob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            found += list(map(int, file.read().split()))
    return found


def descendants_of(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    found = [pid]
    for ancestor in found:
        found += children_of(ancestor)
    return found[1:]


def send_signal(pid: int, number: int, *, group: bool = False) -> None:
    """Send it, unless the process is gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)
