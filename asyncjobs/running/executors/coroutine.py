"""Coroutine jobs: one asyncio task each, in a context of its own."""

from __future__ import annotations

import asyncio

from ...errors import InvalidArguments
from ...rules.files import File
from ..context import Run, current_run
from ..ending import exception_happened, refusal_happened
from .base import Setting, file_happened, value_happened
from .watchdog import Watchdog


class CoroutineExecutor:
    """Runs tasks on the event loop: ``async def``, or a ``def`` short enough not to hold it up."""

    name = "coroutine"
    forceful = False

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(
            setting.loop_block_seconds, lambda: setting.busy, self._execute.__code__
        )

    def start(self, run: Run) -> None:
        """Start the job's asyncio task. The run holds it, so that it cannot be collected."""
        if not self._watchdog.awake:
            self._watchdog.wake()
        # Not ``loop.create_task``: it would make up a name first, which costs a fifth of the task.
        run.asyncio_task = asyncio.Task(
            self._execute(run),
            loop=self._loop,
            name=run.task.name,
            context=self._setting.context.copy(),
        )

    def interrupt(self, run: Run) -> None:
        """Cancel the job's asyncio task."""
        if run.asyncio_task is not None:
            run.asyncio_task.cancel()

    def lent(self) -> None:
        """Nothing is bounded here."""

    async def close(self) -> None:
        """End the watchdog."""
        self._watchdog.stop()

    async def _execute(self, run: Run) -> None:
        current_run.set(run)
        if run.carried is not None:
            run.set_carried()
        task = run.task
        try:
            args, kwargs = task.codec.decode_arguments(run.job.arguments)
        except InvalidArguments as error:
            self._setting.ended(run, refusal_happened(run, error, "invalid_arguments"))
            return
        except BaseException as error:  # a user's __post_init__ may raise anything
            self._setting.ended(run, exception_happened(run, error, self._setting.random))
            return
        try:
            value = task.function(*args, **kwargs)
            if task.is_async:
                value = await value
            if isinstance(value, File):  # which is moved, perhaps to another file system
                happened = await asyncio.to_thread(file_happened, run, value)
            else:
                happened = value_happened(run, value)
        except (GeneratorExit, KeyboardInterrupt):
            # The loop is being torn down, or the user wants out: the next start rescues the job.
            raise
        except BaseException as error:
            # Also SystemExit: a job must not end the application.
            happened = exception_happened(run, error, self._setting.random)
        self._setting.ended(run, happened)
