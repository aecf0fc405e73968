"""Claiming ahead of free workers, while jobs are so short that the next claim would be felt.

A claim is a commit, half a millisecond on a good disk: with jobs of 5 ms, a worker that has to wait
for it stands still for a tenth of the time. So one more job for each worker is claimed meanwhile.
Long jobs are not claimed ahead: one that waits here could run in another process.
"""

from __future__ import annotations

from collections.abc import Callable

SHORT_SECONDS = 0.02
LONG_SECONDS = 0.05
WEIGHT = 0.1
"""Of the newest job in the average."""
EXECUTOR = "process"


class Ahead:
    """Decides by how long jobs take; ``widen`` says how many slots there are for them."""

    def __init__(self, slots: int, widen: Callable[[str, int], None]) -> None:
        self._slots = slots
        self._widen = widen
        self._average = LONG_SECONDS
        self.on = False

    def took(self, seconds: float) -> None:
        """A job has ended after so long."""
        self._average += (min(seconds, 1.0) - self._average) * WEIGHT
        if not self.on and self._average < SHORT_SECONDS:
            self.on = True
            self._widen(EXECUTOR, self._slots)
        elif self.on and self._average > LONG_SECONDS:
            self.stop()

    def stop(self) -> None:
        """Claim for free workers only, until jobs are short again."""
        self._average = LONG_SECONDS
        if self.on:
            self.on = False
            self._widen(EXECUTOR, -self._slots)
