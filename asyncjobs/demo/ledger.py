"""What the demo writes down beside the library, so as not to take the library's word for it."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


class Ledger:
    """Two files that are only ever appended to: jobs that were accepted, and jobs that started.

    One ``write`` a record and no buffer: what was written survives SIGKILL. No fsync, since only
    a process dies here, not the machine.
    """

    def __init__(self, folder: str) -> None:
        self._accepted = Path(folder, "accepted.txt")
        self._started = Path(folder, "started.txt")

    def accept(self, job_ids: Iterable[str]) -> None:
        """``enqueue`` returned: from now on the library answers for these jobs."""
        _append(self._accepted, job_ids)

    def start(self, job_id: str) -> int:
        """A job's code begins to run; the how-manieth start that is, in all processes."""
        end = _append(self._started, [job_id])
        return end // (len(job_id) + 1)  # ids are of one length

    def accepted(self) -> set[str]:
        """The ids of all accepted jobs."""
        return set(_read(self._accepted))

    def starts(self) -> Counter[str]:
        """How often each job's code began to run."""
        return Counter(_read(self._started))


class Witness:
    """Jobs report their start to it, in the host or in its workers, and one start is fatal."""

    def __init__(self, ledger: Ledger, *, crash_at: int, host: int) -> None:
        self._ledger = ledger
        self._crash_at = crash_at
        self._host = host

    def started(self, job_id: str) -> None:
        """Write the start down. The ``crash_at``-th kills the host; 0 stands for none.

        Here, and not where outcomes are counted, so that a job is surely running when it happens.
        """
        if self._ledger.start(job_id) == self._crash_at:
            os.kill(self._host, signal.SIGKILL)
            threading.Event().wait()  # a worker's end is near, and this job must not


def _append(path: Path, lines: Iterable[str]) -> int:
    text = "".join(f"{line}\n" for line in lines)
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())
        return file.tell()


def _read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
