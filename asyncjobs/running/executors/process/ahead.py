"""Claiming ahead of free workers, while jobs are so short that each way to them would be felt.

A claim is a commit, half a millisecond on a good disk, and each word between host and worker wakes
a process: with jobs of 5 ms on two cores a fifth of the time went there. So while jobs are short, a
worker is given several at once, for as long as ``AHEAD_SECONDS``, and is heard when half of them
should be done. Long jobs are not claimed ahead: one that waits here could run in another process.
"""

from __future__ import annotations

from collections.abc import Callable

AHEAD_SECONDS = 0.05
"""How much work each worker has before it."""
SHORT_SECONDS = 0.02
LONG_SECONDS = 0.05
DEPTH_MAX = 16
"""How many jobs a worker has before it at most, beside the running one."""
HEAR_SECONDS = 0.02
"""How long what a worker says may wait at most while it has more to do."""
WEIGHT = 0.1
"""Of the newest job in the average."""
EXECUTOR = "process"


class Ahead:
    """Decides by how long jobs take; ``widen`` says how many slots there are for them."""

    def __init__(self, processes: int, widen: Callable[[str, int], None]) -> None:
        self._processes = processes
        self._widen = widen
        self._average = LONG_SECONDS
        self.depth = 0
        """How many jobs each worker is given beside the one that it runs."""

    def took(self, seconds: float) -> None:
        """A job has ended after so long."""
        self._average += (min(seconds, 1.0) - self._average) * WEIGHT
        depth = self.depth
        if self._average > LONG_SECONDS:
            self._change(0)
        elif depth or self._average < SHORT_SECONDS:
            wanted = min(DEPTH_MAX, max(1, int(AHEAD_SECONDS / max(self._average, 1e-6))))
            if not depth or wanted >= 2 * depth or 2 * wanted <= depth:
                self._change(wanted)

    def stop(self) -> None:
        """Claim for free workers only, until jobs are short again."""
        self._average = LONG_SECONDS
        self._change(0)

    def _change(self, depth: int) -> None:
        more = (depth - self.depth) * self._processes
        self.depth = depth
        if more:
            self._widen(EXECUTOR, more)

    def hear_in(self, jobs: int) -> float:
        """Seconds until a worker that has so many jobs should have done half of them."""
        return min(HEAR_SECONDS, self._average * jobs / 2)
