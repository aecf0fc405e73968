"""For tests of applications: a runner on a temporary file, and a clock that is moved by hand.

Put ``pytest_plugins = ["asyncjobs.testing"]`` into the root ``conftest.py``; the fixtures need
pytest-asyncio. The rest needs neither, and serves any program.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from .clock import to_datetime, to_instant, to_microseconds, to_seconds
from .runner import Runner

__all__ = ["ManualClock", "run_until_idle"]

# Loaded by pytest when this module is its plugin: who only imports it needs no pytest.
pytest_plugins = ["asyncjobs.fixtures"]

START = datetime(2030, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that stands still until it is moved: delays and retries come when the test says.

    Timeouts of running jobs are not moved by it: they measure real time.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = to_instant(start, "start")
        self._callbacks: list[Callable[[], None]] = []

    def now(self) -> int:
        """The instant, in microseconds UTC."""
        return self._now

    def seconds_until(self, instant: int) -> float | None:
        """``None``: waiting does not bring the instant nearer."""
        return None

    def on_move(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` at every move. Returns how to stop that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def advance(self, seconds: float | timedelta) -> None:
        """Move forward; wakes every runner on this clock."""
        self.move_to(self._now + to_microseconds(to_seconds(seconds, "seconds")))

    def move_to(self, instant: int | datetime) -> None:
        """Move to an instant, also backwards, as machines' clocks are stepped."""
        self._now = to_instant(instant, "instant") if isinstance(instant, datetime) else instant
        for callback in list(self._callbacks):
            callback()

    # Last in the class: after it "datetime" means this method, also to the type checkers.
    def datetime(self) -> datetime:
        """The instant as an aware datetime."""
        return to_datetime(self._now)


async def run_until_idle(runner: Runner) -> None:
    """Return once nothing runs, nothing that is due is queued, and everything is on disk.

    Jobs that are due later wait for the clock: advance it and call this again.
    """
    await runner.engine().idle()
