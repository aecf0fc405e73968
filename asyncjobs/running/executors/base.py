"""What every executor does: start a run, ask it to stop, say how it ended."""

from __future__ import annotations

from contextvars import Context
from random import Random
from typing import Any, Protocol

from ...errors import InvalidResult
from ...rules.outcome import Happened, Returned
from ..context import Run
from ..ending import refusal_happened


class Executor(Protocol):
    """One way of running a job's code."""

    name: str

    def start(self, run: Run) -> None:
        """Run the job's code. Returns at once."""
        ...

    def interrupt(self, run: Run) -> None:
        """Ask it to stop; ``run.stop_reason`` says why."""
        ...

    async def close(self) -> None:
        """Free what the executor holds; running code is left to itself."""
        ...


class Setting(Protocol):
    """What executors share."""

    random: Random
    context: Context
    """In which the runner was started; each job runs in a fresh copy of it."""

    def ended(self, run: Run, happened: Happened) -> None:
        """To be told once per run, in the event loop, when its code is no longer running."""
        ...


def value_happened(run: Run, value: Any) -> Happened:
    """What it means that the job's code returned ``value``."""
    try:
        return Returned(run.task.codec.encode_result(value))
    except InvalidResult as error:
        return refusal_happened(run, error, "invalid_result")
