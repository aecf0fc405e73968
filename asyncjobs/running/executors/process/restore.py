"""What a job may change in its process, put back after it. Module globals are shared, and stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

LEFTOVER_SECONDS = 1.0
"""How long asyncio tasks that a job has left behind get to end."""


class Surroundings:
    """The state of the process before its first job."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._environment = dict(os.environb)
        self._directory = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._handlers = _handlers()
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        refresh_random()

    def put_back(self) -> str | None:
        """Make it so again; why that is not possible, if it is not."""
        try:
            self._put_back_streams()
            if dict(os.environb) != self._environment:
                _replace_environment(self._environment)
            os.chdir(self._directory)
            os.umask(self._umask)
            for number, handler in _handlers().items():
                if handler is not self._handlers[number] and handler != self._handlers[number]:
                    signal.signal(number, self._handlers[number])
            signal.setitimer(signal.ITIMER_REAL, 0)
            refresh_random()
        except Exception as error:  # whatever it is: the next job would not find what it expects
            return f"cannot be put back as it was: {type(error).__name__}: {error}"
        return None

    def flush(self) -> None:
        """Bring what the job has printed into the pipe, whatever it made of the streams."""
        for stream in {sys.stdout, sys.stderr, *self._streams[1:]}:
            with contextlib.suppress(Exception):
                stream.flush()

    def _put_back_streams(self) -> None:
        sys.stdin, sys.stdout, sys.stderr = self._streams
        if any(stream.closed for stream in self._streams):
            raise ValueError("a standard stream was closed")
        # The job may have closed them, or sent them somewhere else.
        os.dup2(self._output, 1)
        os.dup2(self._output, 2)


# Without the enum around each answer, where that is to be had: it takes most of the time.
_getsignal = getattr(signal.getsignal, "__wrapped__", signal.getsignal)


def _handlers() -> Mapping[int, Any]:
    return {number: _getsignal(number) for number in _SIGNALS}


_SIGNALS = [
    number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)
]


def _replace_environment(environment: Mapping[bytes, bytes]) -> None:
    for name in os.environb.keys() - environment.keys():
        del os.environb[name]
    for name, value in environment.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


def refresh_random() -> None:
    """New randomness: neither a job's own seed is left, nor do forked workers draw alike."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def cancel_leftovers(loop: asyncio.AbstractEventLoop, kept: Iterable[asyncio.Task[Any]]) -> bool:
    """Cancel what a job has left behind on its loop; False when something does not end."""
    left = asyncio.all_tasks(loop) - set(kept)
    if not left:
        return True
    for task in left:
        task.cancel()
    _, pending = loop.run_until_complete(asyncio.wait(left, timeout=LEFTOVER_SECONDS))
    return not pending
