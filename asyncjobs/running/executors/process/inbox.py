"""The jobs that a worker was sent: in order, and to be taken back until they begin."""

from __future__ import annotations

import contextlib
from collections import deque
from queue import SimpleQueue

from .wire import Start


class Inbox:
    """Filled and taken back from by the thread that listens, emptied by the one that works.

    Each step is one operation of a deque, which no other thread can come between.
    """

    def __init__(self) -> None:
        self._starts: deque[Start] = deque()
        self._rings: SimpleQueue[None] = SimpleQueue()
        self._closed = False

    def put(self, start: Start) -> None:
        """One more job."""
        if not self._closed:
            self._starts.append(start)
            self._rings.put(None)

    def close(self) -> None:
        """Let no job begin any more."""
        self._closed = True
        self.take_back()
        self._rings.put(None)

    def get(self) -> Start | None:
        """Wait for the next job; ``None`` when there will be no more."""
        while not self._closed:
            self._rings.get()
            start = self.next()
            if start is not None:  # else it was taken before its ring was heard, or taken back
                return start
        return None

    def next(self) -> Start | None:
        """The next job when it is here already."""
        if self._closed:  # the other thread may just have put one more
            return None
        with contextlib.suppress(IndexError):
            return self._starts.popleft()
        return None

    def take_back(self) -> int:
        """Let no job begin that has not begun: how many those are, the last that were put."""
        jobs = 0
        with contextlib.suppress(IndexError):
            while True:
                self._starts.pop()
                jobs += 1
        return jobs

    def __len__(self) -> int:
        return 0 if self._closed else len(self._starts)
