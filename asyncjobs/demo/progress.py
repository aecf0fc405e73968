"""The progress line."""

from __future__ import annotations

import time
from typing import TextIO


class Progress:
    """One line that is redrawn on a terminal; elsewhere a new line at most once a second."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._redrawn = stream.isatty()
        self._interval = 0.1 if self._redrawn else 1.0
        self._shown_at = time.monotonic()
        self._done = 0
        self._failed = 0

    def advance(self, *, failed: bool) -> None:
        """One more file is done."""
        self._done += 1
        self._failed += failed
        if time.monotonic() - self._shown_at >= self._interval:
            self._show()

    def close(self) -> None:
        """Show where it ended."""
        self._show()
        if self._redrawn:
            print(file=self._stream, flush=True)

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        line = (
            f"  {self._done:,} of {self._total:,} files ({self._done / self._total:.0%}), "
            f"{self._failed} failed"
        )
        start, end = ("\r", "") if self._redrawn else ("", "\n")
        print(start + line, end=end, file=self._stream, flush=True)
