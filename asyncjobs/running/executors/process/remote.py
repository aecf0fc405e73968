"""What stands for the runner inside a worker: it asks the host, over the worker's socket."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from .... import errors
from ....clock import SystemClock, to_seconds
from ....errors import AsyncJobsError, InvalidOption, RunnerNotStarted
from ....records import Accepted, Job, NewJob, Progress
from ....rules.codec import decode_plain
from ....rules.files import File, StoredFile
from ....rules.limits import check_text
from ...context import Run, RunnableTask
from .saying import RemoteNotePad, Undisturbed
from .wire import Answer, Ask, Message, Refusal

Send = Callable[[Message], None]

_pack = msgspec.msgpack.Encoder().encode


class RemoteRunner:
    """The runner of the host, as far as a job may use it. Works from any event loop."""

    def __init__(self, tasks: Mapping[str, RunnableTask]) -> None:
        self.tasks = tasks
        # The modules of tasks have made the runners that they belong to, which know them.
        self.carry = {name: one for task in tasks.values() for name, one in task.carry.items()}
        self.clock = SystemClock()
        self.now = self.clock.now
        self.random = Random()
        self.instance = ""
        self.notepad = RemoteNotePad()
        self.files = RemoteFiles(self)
        self._send: Send | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Any]] = {}

    def connect(self, send: Send, undisturbed: Undisturbed) -> None:
        """Ask through ``send`` from now on; nothing is raised from outside within the other."""
        self._send = send
        self.notepad.connect(send, undisturbed)
        self.random.seed()

    @property
    def state(self) -> Any:
        """Never there: it lives in another process."""
        raise RunnerNotStarted(
            "current_job().state is an object of the host process, and this job runs in a worker; "
            "share what jobs need with @runner.resource, which is set up once in each worker"
        )

    @property
    def completer(self) -> Any:
        """Never there: it writes through a connection of the host's process."""
        raise RunnerNotStarted(
            "complete_in() joins a transaction in the process of the runner, and this job runs in "
            "a worker; give the task executor='coroutine' or 'thread'"
        )

    async def enqueue(self, job: NewJob[Any], *, tx: Any = None) -> RemoteHandle:
        """As ``Runner.enqueue``.

        Raises:
            InvalidOption: ``tx`` is given: the host cannot join a transaction of this process.
        """
        if tx is not None:
            raise InvalidOption(
                "tx= joins a transaction in the process of the runner, and this job runs in a "
                "worker; enqueue without it, or give the task another executor"
            )
        (handle,) = await self.enqueue_many([job])
        return handle

    async def enqueue_many(self, jobs: Iterable[NewJob[Any]]) -> list[RemoteHandle]:
        """As ``Runner.enqueue_many``."""
        jobs = list(jobs)
        answers = await self.ask("enqueue", jobs)
        handles = []
        for job, answer in zip(jobs, answers, strict=True):
            accepted = None if answer is None else Accepted(*answer)
            job_id = job.id if accepted is None else accepted.job_id
            handles.append(RemoteHandle(self, job_id, existing=accepted is not None))
        return handles

    def handle(self, job_id: str) -> RemoteHandle:
        """As ``Runner.handle``."""
        return RemoteHandle(self, check_text(job_id, "job_id"))

    async def ask(self, what: str, subject: Any) -> Any:
        """Have the host do something, and wait for its answer.

        Raises:
            AsyncJobsError: what the host's own call raised.
            TimeoutError: the same.
        """
        assert self._send is not None
        number, future = self._put(what, subject)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._send(Ask(number, "forget", msgspec.Raw(_pack(None))))
            raise
        finally:
            self._asked.pop(number, None)

    def ask_here(self, what: str, subject: Any) -> Any:
        """As :meth:`ask`, holding up the thread."""
        return self._put(what, subject)[1].result()

    def _put(self, what: str, subject: Any) -> tuple[int, Future[Any]]:
        assert self._send is not None
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._asked[number] = future
        self._send(Ask(number, what, msgspec.Raw(_pack(subject))))
        return number, future

    def answered(self, answer: Answer) -> None:
        """What the host says; called by the thread that listens."""
        future = self._asked.pop(answer.number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if answer.error is None:
            future.set_result(answer.value)
        else:
            future.set_exception(error_from(answer.error))


class RemoteFiles:
    """The host's folder of files."""

    def __init__(self, runner: RemoteRunner) -> None:
        self._runner = runner

    def take(self, run: Run, file: File) -> str:
        """Have the host move a file there; the result to be stored for it.

        Raises:
            InvalidResult: it is not there, no regular file, or cannot be moved.
        """
        path = os.path.abspath(file.path)
        return str(self._runner.ask_here("keep", [path, file.name, file.media_type]))


class RemoteHandle:
    """A job's handle inside a worker; what its awaits cost is a round trip to the host."""

    __slots__ = ("_runner", "existing", "id")

    def __init__(self, runner: RemoteRunner, job_id: str, *, existing: bool = False) -> None:
        self.id = job_id
        self.existing = existing
        self._runner = runner

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def result(self, timeout: float | timedelta | None = None) -> Any:
        """As ``JobHandle.result``."""
        task, result, file = await self._runner.ask("result", [self.id, _seconds(timeout)])
        if file is not None:
            return StoredFile(*file)
        known = self._runner.tasks.get(task)
        return decode_plain(result) if known is None else known.codec.decode_result(result)

    async def wait(self, timeout: float | timedelta | None = None) -> Job:
        """As ``JobHandle.wait``."""
        return _job(await self._runner.ask("wait", [self.id, _seconds(timeout)]))

    async def job(self) -> Job:
        """As ``JobHandle.job``."""
        return _job(await self._runner.ask("job", [self.id, None]))

    async def progress(self) -> Progress | None:
        """As ``JobHandle.progress``."""
        return (await self.job()).progress

    def events(self, *arguments: Any, **options: Any) -> Any:
        """Never there: the journal is read in the process of the runner.

        Raises:
            RunnerNotStarted: whatever is asked for.
        """
        raise RunnerNotStarted(
            "events and logs are followed in the process of the runner, and this job runs in a "
            "worker; await the handle, ask for its .job(), or give the task another executor"
        )

    logs = events

    async def cancel(self, reason: str = "") -> str:
        """As ``JobHandle.cancel``."""
        return str(await self._runner.ask("cancel", [self.id, reason]))

    async def retry(self) -> None:
        """As ``JobHandle.retry``."""
        await self._runner.ask("retry", [self.id, None])

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"


def _seconds(timeout: float | timedelta | None) -> float | None:
    return None if timeout is None else to_seconds(timeout, "timeout")


def _job(plain: Any) -> Job:
    return msgspec.convert(plain, Job, strict=False)


# Errors on their way


def refusal_of(error: Exception) -> Refusal:
    """An error of the host's call, as data."""
    data = {name: value for name, value in vars(error).items() if _is_plain(value)}
    return Refusal(type(error).__name__, [str(argument) for argument in error.args], data)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def error_from(refusal: Refusal) -> Exception:
    """The other way: the error itself when it is one of the library's, else its text."""
    kind = getattr(errors, refusal.kind, None) if refusal.kind in errors.__all__ else None
    if refusal.kind == "TimeoutError":
        return TimeoutError(*refusal.args)
    if not (isinstance(kind, type) and issubclass(kind, AsyncJobsError)):
        return AsyncJobsError(f"{refusal.kind}: {' '.join(refusal.args)}")
    error = kind.__new__(kind, *refusal.args)
    error.__dict__.update(refusal.data)
    return error
