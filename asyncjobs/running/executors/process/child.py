"""The worker: serves one job after the other, and never outlives its host.

The job runs in the main thread, where signals reach it. A second thread listens: it hears that the
job must stop, brings the host's answers, and ends the process when nobody is left to work for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import copy_context
from typing import Any, NoReturn

from ....records import ErrorRecord
from ....rules.limits import MESSAGE_MAX
from ....rules.outcome import Happened, Raised
from ...context import JobStopped, Run, RunnableTask
from ...ending import error_record, exception_happened
from ...joblog import job_log
from ...logbook import JobLogHandler, logbook
from ...resources import Resource, ResourceSet
from ..base import execute
from .inbox import Inbox
from .remote import RemoteRunner
from .restore import Surroundings, cancel_leftovers
from .saying import Undisturbed
from .usage import forget_peak, limit_memory, own_cpu_seconds, own_peak_rss, rss_of
from .wire import (
    Answer,
    Begun,
    Done,
    Frames,
    GoOn,
    Log,
    Message,
    Recall,
    Recalled,
    Start,
    Stop,
    Usage,
    frame,
    outcome_of,
    to_worker,
)

STOP_SIGNAL = signal.SIGURG
"""Wakes the main thread to raise in it. Whoever else gets it ignores it."""
CUT_OFF = 113
"""Exit code of a worker that cannot reach its host any more."""
RECEIVE_BYTES = 64 * 1024


class Worker:
    """One worker process, from its birth to its end."""

    def __init__(
        self,
        connection: socket.socket,
        tasks: Mapping[str, RunnableTask],
        resources: Sequence[Resource[Any]],
        host: RemoteRunner,
    ) -> None:
        self._connection = connection
        self._tasks = tasks
        self._host = host
        self._resources = ResourceSet(resources)
        self._must_set_up = bool(resources)
        self._inbox = Inbox()
        self._run: Run | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept: set[asyncio.Task[Any]] = set()
        self._asyncio_task: asyncio.Task[Any] | None = None
        self._asked: Stop | None = None
        """The last request to stop a run, which may not have begun yet."""
        self._sending = threading.RLock()
        self._held = 0
        """Above zero while an exception from outside must not be raised in the main thread."""
        self._stop_due = False
        self._main = threading.get_ident()
        self._context = copy_context()

    def serve(self, output: int) -> NoReturn:
        """Work until the host closes its end."""
        _redirect(output)
        self._output = output
        signal.signal(STOP_SIGNAL, self._stop_signalled)
        self._held += 1
        self._surroundings = Surroundings(output)
        self._host.connect(self.send, self._undisturbed)
        keeper = _Keeper(self._undisturbed)
        job_log.handlers = [keeper, _Forward(self.send, self._undisturbed)]
        job_log.propagate = False
        threading.Thread(target=self._listen, name="asyncjobs-listen", daemon=True).start()
        with logbook(keeper):
            while (start := self._inbox.get()) is not None:
                if start.mark:
                    self.send(Begun())
                following: Start | None = start
                while following is not None:
                    following = self._serve_one(following)
        self._leave()

    def _serve_one(self, start: Start) -> Start | None:
        """Run a job, and say how it ended; the next job when that begins now."""
        if start.mark:
            os.write(self._output, start.mark)
        began = time.perf_counter()
        cpu_seconds = own_cpu_seconds()
        forget_peak()
        job_log.setLevel(start.log_level)
        happened, spent = self._attempt(start)
        spent = self._tidy() or spent
        run, self._run = self._run, None
        if run is not None:
            self._host.notepad.last_words(run)
        usage = Usage(
            own_cpu_seconds() - cpu_seconds, own_peak_rss(), rss_of("self") or 0,
            time.perf_counter() - began,
        )  # fmt: skip
        if spent:
            self._inbox.close()  # the host gives to others what has not begun
        following = self._inbox.next()
        self.send(Done(outcome_of(happened), usage, spent, following is not None))
        return following

    def _attempt(self, start: Start) -> tuple[Happened, str | None]:
        """Run the job; what happened, and why the worker cannot be used again, if so."""
        self._host.instance = start.instance
        task = self._tasks.get(start.job.task)
        if task is None:
            text = f"workers do not have task {start.job.task!r}; reload them"
            return Raised(ErrorRecord("asyncjobs.UnknownTask", text), None, "unknown_task"), None
        run = Run.of(start.job, task, self._host)
        self._stop_due = False
        self._run = run
        asked = self._asked
        if asked is not None and _meant(asked, run):  # before it had begun
            run.stop_reason = asked.reason
            self._stop_due = not task.is_async
        limit = start.memory_limit
        try:
            if self._must_set_up:
                self._set_up()
            if limit is not None:
                limit_memory(limit)
            happened = self._context.copy().run(execute, run, self._host.random, self._call)
        except BaseException as error:  # the exception from outside, just when the job had ended
            happened = exception_happened(run, error, self._host.random)
        finally:
            self._held = 1  # also when that exception has come in the midst of counting
            if limit is not None:
                limit_memory(None)
        if limit is not None and isinstance(run.cause, MemoryError):
            return _over_limit(happened, limit), "its job crossed its memory limit"
        run.cause = None
        return happened, None

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        run = self._run
        assert run is not None
        if run.task.is_async:
            return self._drive(function(*args, **kwargs))
        with self._interruptible():
            return function(*args, **kwargs)

    def _set_up(self) -> None:
        """Make what jobs share, before the first of them. It stays until the worker leaves."""
        loop = self._own_loop()
        loop.run_until_complete(self._resources.open())
        self._kept = asyncio.all_tasks(loop)
        self._must_set_up = False

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop = self._own_loop()
        self._asyncio_task = task = loop.create_task(coroutine)
        run = self._run
        assert run is not None
        if run.stop_reason is not None:  # told before there was a task to cancel
            task.cancel()
        try:
            return loop.run_until_complete(task)
        finally:
            self._asyncio_task = None

    def _tidy(self) -> str | None:
        """Put everything back as it was before the job; why that is not possible, if so."""
        self._surroundings.flush()
        if self._loop is not None and not cancel_leftovers(self._loop, self._kept):
            return "asyncio tasks of a job did not end"
        return self._surroundings.put_back()

    # Being told to stop

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The job's own code: here, and only here, the exception from outside is raised."""
        self._held -= 1
        try:
            self._raise_if_due()
            yield
        finally:
            self._held += 1

    def _stop_signalled(self, number: int, frame: object) -> None:
        self._stop_due = True
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        run = self._run
        if self._stop_due and not self._held and threading.get_ident() == self._main:
            self._stop_due = False
            if run is not None and run.stop_reason is not None:
                raise JobStopped(run.stop_reason)

    def _stop(self, stop: Stop) -> None:
        """In the listening thread."""
        run = self._run
        if run is None or not _meant(stop, run):
            return
        run.stop_reason = run.stop_reason or stop.reason
        if not run.task.is_async:
            self._stop_due = True
            signal.pthread_kill(self._main, STOP_SIGNAL)
        elif (task := self._asyncio_task) is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(task.cancel)

    # Talking

    def send(self, message: Message) -> None:
        """Say something to the host, whole, from any thread."""
        data = frame(message)
        with self._undisturbed():
            try:
                with self._sending:
                    self._connection.sendall(data)
            except OSError:
                self._die()

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """In the main thread, the exception from outside is raised after this at the earliest."""
        if threading.get_ident() != self._main:
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._raise_if_due()

    def _listen(self) -> None:
        frames = Frames()
        while True:
            try:
                piece = self._connection.recv(RECEIVE_BYTES)
            except OSError:
                piece = b""
            if not piece:
                if self._run is not None or len(self._inbox):
                    self._die()
                self._inbox.close()
                return
            for body in frames.feed(piece):
                self._hear(to_worker(body))

    def _hear(self, message: Message) -> None:
        match message:
            case Start():
                self._inbox.put(message)
            case Stop():
                self._asked = message
                self._stop(message)
            case Recall():
                self.send(Recalled(self._inbox.take_back()))
            case Answer():
                self._host.answered(message)
            case GoOn():
                self._host.notepad.go_on()

    # The end

    def _leave(self) -> NoReturn:
        if self._loop is not None:
            self._loop.run_until_complete(self._resources.close())
        self._surroundings.flush()
        os._exit(0)

    def _die(self) -> NoReturn:
        """Nobody hears of this job any more: end. The fork server ends what it has started."""
        os._exit(CUT_OFF)


def _meant(stop: Stop, run: Run) -> bool:
    return (stop.seq, stop.claim) == (run.job.seq, run.job.claim)


def _redirect(output: int) -> None:
    """What is written to the standard streams is the job's output, line by line."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def _over_limit(happened: Happened, limit: int) -> Happened:
    if not isinstance(happened, Raised):
        return happened
    text = f"needed more than its memory_limit of {limit} bytes"
    error = ErrorRecord("MemoryError", text, happened.error.traceback)
    return happened._replace(error=error, reason="memory_limit")


class _Keeper(JobLogHandler):
    """Keeps records, without being stopped midway: what writes to stderr would swallow that."""

    def __init__(self, undisturbed: Undisturbed) -> None:
        super().__init__()
        self._undisturbed = undisturbed

    def handle(self, record: logging.LogRecord) -> bool:
        with self._undisturbed():
            return super().handle(record)


class _Forward(logging.Handler):
    """Sends the records of ``current_job().logger`` to the host."""

    def __init__(self, send: Callable[[Message], None], undisturbed: Undisturbed) -> None:
        super().__init__()
        self._say = send
        self._undisturbed = undisturbed

    def emit(self, record: logging.LogRecord) -> None:
        with self._undisturbed():
            try:
                text = record.getMessage()[:MESSAGE_MAX]
                trace = None
                if record.exc_info and record.exc_info[1] is not None:
                    trace = error_record(record.exc_info[1]).traceback
                self._say(Log(record.levelno, text, record.created, trace))
            except Exception:
                self.handleError(record)
