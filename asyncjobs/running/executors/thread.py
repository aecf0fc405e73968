"""Thread jobs: a bounded pool of our own daemon threads.

The standard pool's threads are joined at interpreter exit, so one stuck job would keep the process
from ending; anyio's stay until the application's own root task ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any

from ...rules.outcome import Happened
from ..context import Run
from .base import Setting, execute

JOIN_SECONDS = 0.5
"""How long closing waits for idle threads to end, all together."""


class ThreadExecutor:
    """Runs tasks in threads, which cannot be interrupted, only asked.

    An ``async def`` task gets an event loop of its own there.
    """

    name = "thread"
    forceful = False

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Run, Context] | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._busy = 0

    def start(self, run: Run) -> None:
        """Hand the job to an idle thread, or to a new one. The dispatcher bounds their number."""
        self._busy += 1
        if self._busy > len(self._threads):
            thread = threading.Thread(
                target=self._work, name=f"asyncjobs-thread-{len(self._threads)}", daemon=True
            )
            self._threads.add(thread)
            thread.start()
        self._queue.put((run, self._setting.context.copy()))

    def interrupt(self, run: Run) -> None:
        """Nothing can be done: the job sees ``stop_requested`` when it looks."""

    def lent(self) -> None:
        """Nothing is bounded here."""

    async def close(self) -> None:
        """End the idle threads; those inside a job end with it."""
        for _ in self._threads:
            self._queue.put(None)
        idle = len(self._threads) - self._busy
        deadline = self._loop.time() + JOIN_SECONDS
        while idle > 0 and self._loop.time() < deadline:
            alive = sum(thread.is_alive() for thread in self._threads)
            if alive <= self._busy:
                break
            await asyncio.sleep(0.001)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            run, context = item
            happened = context.run(self._execute, run)
            # The loop may be closed by now: the outcome is lost with it, and the job rescued.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended, run, happened)
            del item, run, context, happened

    def _execute(self, run: Run) -> Happened:
        def call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            return asyncio.run(value) if run.task.is_async else value

        return execute(run, self._setting.random, call)

    def _ended(self, run: Run, happened: Happened) -> None:
        self._busy -= 1
        self._setting.ended(run, happened)
