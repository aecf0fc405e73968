"""Registrars: what gives functions to runners as tasks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, overload

from .errors import TaskExists
from .rules.limiting import Limit
from .rules.retry import RetryPolicy
from .rules.uniqueness import Unique
from .rules.window import Window
from .running.functions import is_async, where
from .running.resources import Resource, ResourceRegistrar
from .scheduling import ScheduleRegistrar
from .store.schedules import Declared
from .tasks import AsyncTask, SyncTask, Task

P = ParamSpec("P")
R = TypeVar("R")


class _Decorator:
    """``@tasks.task``, with parentheses and without, for both kinds of function."""

    def __init__(self, options: dict[str, Any], add: Callable[[Task[Any, Any]], None]) -> None:
        self._options = options
        self._add = add

    # The overloads overlap: an ``async def`` is also a function that returns something. The first
    # that fits decides, as it does at run time.
    @overload
    def __call__(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R]) -> SyncTask[P, R]: ...

    def __call__(self, function: Callable[..., Any]) -> Any:
        kind: type[Task[Any, Any]] = AsyncTask if is_async(function) else SyncTask
        task = kind(function, **self._options)
        self._add(task)
        return task


class TaskRegistrar(ResourceRegistrar, ScheduleRegistrar):
    """What ``Runner`` and ``Tasks`` share: ``task``, ``resource`` and ``schedule``."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, Task[Any, Any]] = {}

    @overload
    def task(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...

    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        executor: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        retry_timeouts: bool | None = None,
        priority: int = 0,
        on_crash: str = "retry",
        max_crashes: int | None = None,
        memory_limit: int | None = None,
        log_level: str | int = "INFO",
        expires: float | timedelta | None = None,
        keep_completed: int | timedelta | None = None,
        keep_failed: int | timedelta | None = None,
        keep_cancelled: int | timedelta | None = None,
        keep_result: bool = True,
        window: Window | None = None,
        on_complete: Task[Any, Any] | None = None,
        on_failure: Task[Any, Any] | None = None,
        limit: Limit | None = None,
        unique: Unique | None = None,
        throttle: float | timedelta | None = None,
        debounce: float | timedelta | None = None,
        debounce_max: float | timedelta | None = None,
    ) -> _Decorator: ...

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Make a task of a function: ``@runner.task`` or ``@runner.task(queue="mail", ...)``.

        Args:
            name: by default ``module.qualname``; rows name the task by it, so keep it.
            queue: where its jobs wait.
            executor: ``coroutine`` (default of ``async def``), ``thread`` (default of ``def``),
                ``process`` (a subprocess that serves many jobs) or ``isolated`` (one of its own).
            retry: a ``Retry``, or a function ``(attempt, exception) -> seconds | None``. By
                default one attempt.
            timeout: seconds for each attempt; by default none.
            retry_timeouts: whether a timeout counts as a failure to retry; by default yes, but
                not in a thread, which still runs.
            priority: -100 to 100; larger is sooner.
            on_crash: what follows when the process dies during a run: ``retry`` or ``fail``.
            max_crashes: crashes after which the job fails; 3 by default.
            memory_limit: bytes of memory that a job may have in a worker, from 16 MiB; it fails
                with reason ``memory_limit``. By default none.
            log_level: what its jobs log from this level on is kept with them.
            expires: seconds or timedelta from enqueue on: a job that is not started by then is
                cancelled, and its handle raises ``JobExpired``. By default never.
            keep_completed, keep_failed, keep_cancelled: how many finished jobs stay (an int: the
                newest) or how long (a timedelta). By default as long as the runner says.
            keep_result: ``False``: what its jobs return is not stored. Handles that are held in
                the process where a job ends get it; all others raise ``ResultNotKept``.
            window: the hours in which its jobs may start, such as ``Window("22:00", "06:00")``.
            on_complete: a task whose job is enqueued in the commit that completes a job of this
                one; it gets the ``JobOutcome`` as its only argument.
            on_failure: the same when a job has failed or was cancelled.
            limit: a ``Limit``: how many jobs of a key may run at once, or start in a period.
            unique: at most one job that is the same: see ``Unique``.
            throttle: at most one job with the same arguments is accepted in so many seconds.
            debounce: a job runs so many seconds after the last one with the same arguments was
                enqueued; with ``unique=Unique(by=...)``, the last arguments win.
            debounce_max: seconds after the first, at most; by default ten times as many.

        Raises:
            InvalidOption: naming the option and its value.
            TaskExists: another task has the name.
        """
        decorator = _Decorator(options, self._add_task)
        return decorator if function is None else decorator(function)

    def _add_task(self, task: Task[Any, Any]) -> None:
        self._check_name(task)
        self._tasks[task.name] = task

    def _check_name(self, task: Task[Any, Any]) -> None:
        other = self._tasks.get(task.name)
        if other is not None and other is not task:
            raise TaskExists(
                f"two tasks are named {task.name!r}: {where(other.function)} and "
                f"{where(task.function)}; give one of them name="
            )


class Tasks(TaskRegistrar):
    """Tasks of a module that must not import the runner; ``runner.include(tasks)`` adds them."""

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter(list(self._tasks.values()))

    @property
    def resources(self) -> tuple[Resource[Any], ...]:
        """What these tasks share while a runner runs, in the order in which it is set up."""
        return tuple(self._resources)

    @property
    def schedules(self) -> tuple[Declared, ...]:
        """The schedules that come with these tasks."""
        return tuple(self._schedules.values())

    def __repr__(self) -> str:
        return f"<Tasks {', '.join(self._tasks)}>"
