"""Names the coroutine job that holds the event loop, with the stack that held it.

A thread asks the event loop for a sign of life, and looks at what the loop is doing when none
comes. It sleeps while no job runs: an idle runner is not woken.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType

from ...records import RunUsage, in_one_line
from ..context import Run, current_run

SHARE_OF_LIMIT = 0.2
"""A question is asked every fifth of the limit, so that no hold of the whole limit is missed."""
FRAMES_MAX = 8
STACK_MAX = 1_000
JOIN_SECONDS = 1.0

log = logging.getLogger("asyncjobs")


class Watchdog:
    """Watches one event loop while jobs run on it.

    Args:
        limit_seconds: a job that holds the loop for longer is named.
        busy: whether jobs run.
        entry: the code of the coroutine that runs a job; its variable ``run`` is the run.
    """

    def __init__(self, limit_seconds: float, busy: Callable[[], bool], entry: CodeType) -> None:
        self._limit = limit_seconds
        self._pause = limit_seconds * SHARE_OF_LIMIT
        self._busy = busy
        self._entry = entry
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self.awake = False
        """True while it watches."""
        self._woken = threading.Event()
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Jobs have started: watch until none is left."""
        self.awake = True
        self._woken.set()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._watch, name="asyncjobs-watchdog", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._woken.set()
        self._answered.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)

    def _watch(self) -> None:
        while not self._ended.is_set():
            self._woken.wait()
            if self._ended.wait(self._pause) or not self._ask():
                return
            self.awake = False
            self._woken.clear()
            if self._busy():  # asked after the others, so that no start goes unseen
                self.awake = True
                self._woken.set()

    def _ask(self) -> bool:
        """False once the loop is closed. Reports what held it when it was late to answer."""
        self._answered.clear()
        asked = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:
            return False
        if self._answered.wait(self._limit - self._pause):
            return True
        culprit = self._look()
        if culprit is None:
            self._answered.wait()
            return True
        run, stack = culprit
        # Now, since its report may be made before the answer comes.
        blocks = 0 if run.usage is None else run.usage.loop_blocks
        run.usage = RunUsage(loop_blocks=blocks + 1)
        self._answered.wait()
        if not self._ended.is_set():
            log.warning(
                "job %s of task %r held the event loop for %.2f s, and everything else with it: %s",
                run.job.id, run.job.task, time.monotonic() - asked, stack,
            )  # fmt: skip
        return True

    def _look(self) -> tuple[Run, str] | None:
        """Which job the loop is in, and where; ``None`` when it is in none."""
        frame = sys._current_frames().get(self._loop_thread)
        task = asyncio.current_task(self._loop)
        if frame is None or task is None or self._answered.is_set():
            return None
        frames = list(_outwards(frame))
        run: Run | None = None
        for place, one in enumerate(frames):
            if one.f_code is self._entry:
                run, frames = one.f_locals["run"], frames[:place]
                break
        else:
            # A task that a job has started; CPython tells its context from 3.12 on.
            context = getattr(task, "get_context", lambda: None)()
            run = None if context is None else context.get(current_run)
        return None if run is None else (run, _in_one_line(frames[:FRAMES_MAX]))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _in_one_line(frames: list[FrameType]) -> str:
    """Where they are, the innermost first; no values."""
    places = [f"{f.f_code.co_qualname} ({f.f_code.co_filename}:{f.f_lineno})" for f in frames]
    return in_one_line(" < ".join(places), most=STACK_MAX)
