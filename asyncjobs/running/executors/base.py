"""What every executor does: start a run, ask it to stop, say how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any, Protocol

from ...errors import InvalidArguments, InvalidResult
from ...rules.files import File
from ...rules.outcome import Happened, Returned
from ..context import Run, current_run
from ..ending import exception_happened, refusal_happened


class Executor(Protocol):
    """One way of running a job's code."""

    name: str
    forceful: bool
    """Whether ``interrupt`` ends the code whatever it does, and need not be called again."""

    def start(self, run: Run) -> None:
        """Run the job's code. Returns at once."""
        ...

    def interrupt(self, run: Run) -> None:
        """Ask it to stop; ``run.stop_reason`` says why."""
        ...

    def lent(self) -> None:
        """One of its runs waits for another job: meanwhile one more may run."""
        ...

    async def close(self) -> None:
        """Free what the executor holds; running code is left to itself."""
        ...


class Setting(Protocol):
    """What executors share."""

    random: Random
    loop_block_seconds: float
    """A coroutine job that holds the event loop for longer is named in the log."""
    context: Context
    """In which the runner was started; each job runs in a fresh copy of it."""

    def widen(self, executor: str, slots: int) -> None:
        """Claim for so many slots more, or fewer."""
        ...

    @property
    def busy(self) -> bool:
        """Whether jobs run."""
        ...

    def begins(self, run: Run) -> None:
        """To be told by a forceful executor when the code begins: its time limit runs from now."""
        ...

    def ended(self, run: Run, happened: Happened) -> None:
        """To be told once per run, in the event loop, when its code is no longer running."""
        ...


def execute(
    run: Run, random: Random, call: Callable[[Callable[..., Any], Any, Any], Any]
) -> Happened:
    """Run the job's code here and now, by ``call(function, args, kwargs)``; what happened."""
    current_run.set(run)
    if run.carried is not None:
        run.set_carried()
    task = run.task
    try:
        args, kwargs = task.codec.decode_arguments(run.job.arguments)
    except InvalidArguments as error:
        return refusal_happened(run, error, "invalid_arguments")
    except BaseException as error:  # a user's __post_init__ may raise anything
        return exception_happened(run, error, random)
    try:
        value = call(task.function, args, kwargs)
        return file_happened(run, value) if isinstance(value, File) else value_happened(run, value)
    except BaseException as error:
        return exception_happened(run, error, random)


def value_happened(run: Run, value: Any) -> Happened:
    """What it means that the job's code returned ``value``, which is no file."""
    try:
        return Returned(run.task.codec.encode_result(value))
    except InvalidResult as error:
        return refusal_happened(run, error, "invalid_result")


def file_happened(run: Run, file: File) -> Happened:
    """What it means that the job's code returned a file. It is moved here and now."""
    try:
        return Returned(run.host.files.take(run, file))
    except InvalidResult as error:
        return refusal_happened(run, error, "invalid_result")
