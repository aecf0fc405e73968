"""Notices that the wall clock was stepped: sleeps that were reckoned by it are wrong then."""

from __future__ import annotations

import asyncio

from ..clock import MICROSECONDS, Clock

STEP_SECONDS = 0.5


class StepWatch:
    """Compares the wall clock with the monotonic one, which nobody sets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._offset = self._measure()

    def stepped(self) -> bool:
        """Whether it was set since the last call."""
        before, self._offset = self._offset, self._measure()
        return abs(self._offset - before) > STEP_SECONDS

    def _measure(self) -> float:
        return self._clock.now() / MICROSECONDS - self._loop.time()
