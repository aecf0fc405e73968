"""Tasks: plain callables that can also be enqueued."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, TypeVar, cast

import msgspec
from msgspec import UNSET, UnsetType

from .clock import SystemClock, new_id
from .errors import InvalidOption, UnknownTask, shown
from .records import Callback, JobLimit, NewJob
from .rules.callbacks import outcome_parameter
from .rules.carrying import Carry, with_carried
from .rules.codec import TaskCodec
from .rules.files import File
from .rules.joboptions import JobOptions, check_timeout, first_options, next_options
from .rules.limiting import Limit, check_limit, key_of
from .rules.limits import (
    check_log_level,
    check_memory_limit,
    check_text,
    unknown_option,
)
from .rules.retention import Keep, check_keeps
from .rules.retry import Retry, RetryPolicy, check_retry
from .rules.uniqueness import Unique, next_uniqueness, uniqueness
from .rules.window import Window
from .running.catalogue import calling_module, made
from .running.context import current_run
from .running.functions import (
    check_executor,
    check_function,
    check_retry_timeouts,
    default_name,
    is_async,
)

if TYPE_CHECKING:
    from .handle import JobHandle
    from .runner import Runner

P = ParamSpec("P")
R = TypeVar("R")

_SYSTEM_CLOCK = SystemClock()


class Task(Generic[P, R]):
    """A function that can be called here and now, as ever, or enqueued as a job."""

    def __init__(
        self,
        function: Callable[P, Any],
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
        **unknown: Never,
    ) -> None:
        if unknown:
            raise _unknown_of_task(unknown)
        check_function(function, Task)
        self.function = function
        self.module = calling_module()
        self.is_async = is_async(function)
        self.name = check_text(name if name is not None else default_name(function), "name")
        self.executor = check_executor(executor, asynchronous=self.is_async)
        self.memory_limit = check_memory_limit(memory_limit, self.executor)
        self.retry: RetryPolicy = Retry() if retry is None else check_retry(retry)
        self.timeout = None if timeout is None else check_timeout(timeout)
        self.retry_timeouts = check_retry_timeouts(retry_timeouts, self.executor)
        self.log_level = check_log_level(log_level)
        self.keep: Mapping[str, Keep] = check_keeps(
            limit, completed=keep_completed, failed=keep_failed, cancelled=keep_cancelled
        )
        self._options = first_options(
            queue=queue, priority=priority, on_crash=on_crash, max_crashes=max_crashes,
            uniqueness=uniqueness(function, unique, throttle, debounce, debounce_max),
            expires=expires, own_retention=bool(self.keep), keep_result=keep_result, window=window,
            on_complete=_callback(on_complete, "on_complete"),
            on_failure=_callback(on_failure, "on_failure"),
            limit=check_limit(limit, function, self.name),
        )  # fmt: skip
        self._stand_alone()
        # pyright does not see that a cached property is read like a property.
        made.add(self)  # pyright: ignore[reportArgumentType]
        # Not its ``__dict__``: a function's own ``retry`` or ``name`` (tenacity puts one there)
        # would take the place of the task's.
        update_wrapper(cast("Any", self), function, updated=())

    def _stand_alone(self) -> None:
        """It belongs to no runner yet."""
        self.carry: Carry = {}
        """Context variables that travel with its jobs, as its runner says."""
        self._runners: list[Runner] = []
        self._started: list[Runner] = []
        self._now = _SYSTEM_CLOCK.now

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"

    @cached_property
    def codec(self) -> TaskCodec:
        """How arguments and results are stored.

        Made at first use: annotations may name what is defined later in the module.
        """
        return TaskCodec(self.function, self.name)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """One job, checked and ready for ``runner.enqueue``; nothing is stored yet.

        Raises:
            InvalidArguments: the arguments do not fit the signature, or would not come back equal.
        """
        return self._make_job(self._options, args, kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, JobHandle[R]]:
        """Store one job; it is on disk when the await returns.

        Cancelling this call leaves open whether the job was stored. To repeat it safely, keep the
        ``NewJob`` of :meth:`job` and enqueue that again.

        Raises:
            InvalidArguments: see :meth:`job`.
            RunnerNotStarted, RunnerClosed: no runner with this task is running.
            StoreBusy, StoreFull, StoreError: nothing is known to be stored.
        """
        # Not ``async``: one coroutine less on the path of every job.
        return self.runner().enqueue(self._make_job(self._options, args, kwargs))

    def options(
        self,
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        key: str | None = None,
        tags: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
        trigger: str | None = None,
        timeout: float | timedelta | UnsetType | None = UNSET,
        retry: Retry | UnsetType | None = UNSET,
        on_crash: str | None = None,
        max_crashes: int | None = None,
        expires: float | timedelta | datetime | UnsetType | None = UNSET,
        keep_result: bool | None = None,
        window: Window | UnsetType | None = UNSET,
        on_complete: Task[Any, Any] | UnsetType | None = UNSET,
        on_failure: Task[Any, Any] | UnsetType | None = UNSET,
        limit: Limit | UnsetType | None = UNSET,
        unique: Unique | UnsetType | None = UNSET,
        throttle: float | timedelta | UnsetType | None = UNSET,
        debounce: float | timedelta | UnsetType | None = UNSET,
        debounce_max: float | timedelta | None = None,
        **unknown: Never,
    ) -> TaskOptions[P, R]:
        """The same task with other options for the jobs that are made from the result.

        Args:
            delay: run this much later; seconds or timedelta, from 0.
            at: run at this aware datetime; not together with ``delay``.
            priority: -100 to 100; larger is sooner.
            queue: another queue.
            key: idempotency key, up to 1,024 characters, per task: while a job with it exists,
                the same arguments give that job's handle, others raise ``KeyConflict``.
            tags: up to 32, to find the job by.
            meta: plain JSON values to keep with the job.
            trigger: what caused the job; by default ``api``, or ``job:<id>`` inside a job.
            on_crash, max_crashes: ``retry`` after a crash, up to so many (1 to 1,000), or ``fail``.
            expires: seconds or timedelta from enqueue on, or an aware datetime: not started by
                then, the job is cancelled and its handle raises ``JobExpired``.
            timeout, retry, keep_result, window, on_complete, on_failure, limit: as the task's.
            unique, throttle, debounce, debounce_max: in place of all of these of the task.
            Where the default is ``UNSET``, ``None`` is none, whatever the task has.

        Raises:
            InvalidOption: naming the option and its value.
        """
        if unknown:
            raise _unknown_of_job(unknown)
        return TaskOptions(self, next_options(
            self._options, delay=delay, at=at, priority=priority, queue=queue, key=key, tags=tags,
            uniqueness=next_uniqueness(self.function, unique, throttle, debounce, debounce_max),
            meta=meta, trigger=trigger, timeout=timeout, retry=retry, on_crash=on_crash,
            max_crashes=max_crashes, expires=expires, keep_result=keep_result, window=window,
            on_complete=_next_callback(on_complete, "on_complete"), now=self._now(),
            on_failure=_next_callback(on_failure, "on_failure"),
            limit=limit if limit is UNSET else check_limit(limit, self.function, self.name),
        ))  # fmt: skip

    def handle(self, job_id: str) -> JobHandle[R]:
        """A typed handle of a job of this task, in any process, after any restart."""
        return self.runner().handle(job_id)

    def runner(self) -> Runner:
        """The running runner that has this task.

        Raises:
            UnknownTask: no runner has it.
            RunnerNotStarted, RunnerClosed: none that has it is running.
            InvalidOption: several are.
        """
        if len(self._started) == 1:
            return self._started[0]
        if self._started:
            raise InvalidOption(
                f"task {self.name!r} belongs to {len(self._started)} running runners; "
                "use runner.enqueue(task.job(...)) to say which"
            )
        if self._runners:
            raise self._runners[-1].not_running()
        raise UnknownTask(f"task {self.name!r} belongs to no runner; call runner.include(tasks)")

    def _make_job(
        self, options: JobOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> NewJob[R]:
        rule = options.uniqueness
        arguments = self.codec.encode_arguments(
            args, kwargs, deterministic=options.key is not None or rule is not None
        )
        trigger = options.trigger
        if trigger is None:
            run = current_run.get(None)
            trigger = "api" if run is None else f"job:{run.job.id}"
        now = self._now()
        return NewJob(
            new_id(now),
            self.name,
            arguments,
            options.queue,
            now,
            options.run_at,
            options.delay,
            options.priority,
            options.max_crashes,
            options.key if rule is None else rule.key(arguments),
            trigger,
            options.tags,
            options.meta,
            with_carried(options.stored, self.carry) if self.carry else options.stored,
            options.expires,
            options.expires_at,
            options.own_retention,
            None if options.limit is None else self._job_limit(options.limit, args, kwargs),
            None if rule is None else rule.hold,
        )

    @property
    def limit(self) -> Limit | None:
        """What its jobs are limited by, unless an option of theirs says otherwise."""
        return self._options.limit

    def limit_of(self, stored: str) -> JobLimit | None:
        """What a job with these stored arguments is limited by.

        Raises:
            InvalidOption: they have no key.
        """
        limit = self._options.limit
        if limit is None:
            return None
        args, kwargs = self.codec.decode_arguments(stored)
        return self._job_limit(limit, tuple(args), kwargs)

    def _job_limit(self, limit: Limit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobLimit:
        arguments = self.codec.signature.bind_with_defaults(args, kwargs)
        return limit.of_job(self.name, key_of(limit, arguments, self.name))

    # The runner's side

    def join(self, runner: Runner) -> None:
        """The runner has this task from now on."""
        self._runners.append(runner)
        self.carry = runner.carry

    def start(self, runner: Runner) -> None:
        """The runner is running from now on. Resolves the annotations, so that they fail here.

        Raises:
            InvalidOption: an annotation cannot be resolved or checked, or contradicts an option.
        """
        # The codec is made here, so that a wrong annotation is found at start.
        if self.codec.signature.returns is File and not self._options.keep_result:
            raise InvalidOption(
                f"task {self.name!r} returns a File, which is kept with its job; "
                "keep_result=False contradicts that"
            )
        self._started.append(runner)
        self._now = runner.clock.now
        self.carry = runner.carry

    def stop(self, runner: Runner) -> None:
        """The runner is no longer running."""
        if runner in self._started:
            self._started.remove(runner)
        self._now = self._started[-1].clock.now if self._started else _SYSTEM_CLOCK.now
        self.carry = self._started[-1].carry if self._started else {}


class AsyncTask(Task[P, R]):
    """A task made from ``async def``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function itself: no job."""
        called: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return called


class SyncTask(Task[P, R]):
    """A task made from ``def``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: no job."""
        value: R = self.function(*args, **kwargs)
        return value


class TaskOptions(Generic[P, R]):
    """A task with options for its next jobs: ``task.options(...)``."""

    def __init__(self, task: Task[P, R], options: JobOptions) -> None:
        self._task = task
        self._options = options

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """As :meth:`Task.job`, with these options."""
        return self._task._make_job(self._options, args, kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, JobHandle[R]]:
        """As :meth:`Task.enqueue`, with these options.

        Raises:
            KeyConflict: the key belongs to a job with other arguments.
        """
        task = self._task
        return task.runner().enqueue(task._make_job(self._options, args, kwargs))

    def __repr__(self) -> str:
        return f"<TaskOptions of {self._task!r}>"


def _unknown_of_task(given: dict[str, Never]) -> InvalidOption:
    hint = "{0} is a job's: give it to task.options({0}=...)"
    return unknown_option(given, Task.__init__, "a task", elsewhere=Task.options, hint=hint)


def _unknown_of_job(given: dict[str, Never]) -> InvalidOption:
    hint = "{0} is the task's: give it to @runner.task({0}=...)"
    return unknown_option(given, Task.options, "options()", elsewhere=Task.__init__, hint=hint)


def _next_callback(task: object, option: str) -> Callback | UnsetType | None:
    return UNSET if task is UNSET else _callback(task, option)


def _callback(task: object, option: str) -> Callback | None:
    """What is kept with a job of the task that is to follow it."""
    if task is None:
        return None
    if not isinstance(task, Task):
        raise InvalidOption(f"{option} must be a task, got {shown(task)}")
    own = task._options
    if own.limit is not None and own.limit.key is not None:
        raise InvalidOption(
            f"{option}: task {task.name!r} has a limit by key, and a JobOutcome has no key; leave "
            "key= out, so that all its jobs share one"
        )
    return Callback(
        task=task.name,
        parameter=outcome_parameter(task.function, option, task.name),
        queue=own.queue,
        priority=own.priority,
        max_crashes=own.max_crashes,
        options=msgspec.Raw((own.stored or "null").encode()),
        expires=own.expires,
        own_retention=own.own_retention,
        limit=None if own.limit is None else own.limit.of_job(task.name, ""),
    )
