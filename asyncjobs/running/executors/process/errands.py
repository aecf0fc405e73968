"""What the jobs in workers ask of their host, each question an asyncio task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ...context import Run, current_run
from .remote import refusal_of
from .wire import Answer, Ask
from .worker import Worker

Errand = Callable[[Run, str, Any], Awaitable[Any]]
"""Does for a run what it asks of its host."""


class Errands:
    """Those under way."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._tasks: dict[Worker, dict[int, asyncio.Task[None]]] = {}

    def ask(self, worker: Worker, ask: Ask) -> None:
        """Do what the worker's job asks for, or forget about it."""
        run = worker.run
        tasks = self._tasks.setdefault(worker, {})
        if ask.what == "forget":
            task = tasks.get(ask.number)
            if task is not None:
                task.cancel()
        elif run is not None:
            tasks[ask.number] = asyncio.get_running_loop().create_task(
                self._do(worker, run, ask), name=f"asyncjobs-{ask.what}"
            )

    async def _do(self, worker: Worker, run: Run, ask: Ask) -> None:
        current_run.set(run)
        try:
            value = await self._errand(run, ask.what, msgspec.msgpack.decode(ask.subject))
            worker.tell(Answer(ask.number, value))
        except Exception as error:
            worker.tell(Answer(ask.number, None, refusal_of(error)))
        finally:
            self._tasks.get(worker, {}).pop(ask.number, None)

    def drop(self, worker: Worker) -> None:
        """The job has ended: nobody waits for its answers."""
        for task in self._tasks.pop(worker, {}).values():
            task.cancel()
