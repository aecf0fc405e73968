"""What a worker's processes write to their standard streams: the last of it is kept."""

from __future__ import annotations

import asyncio
import os

OUTPUT_MAX = 64 * 1024
"""Bytes kept of one run."""
READ_BYTES = 64 * 1024


class Output:
    """The reading end of one worker's pipe. Bounded, however much is written."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        self._cut = False
        """Whether the beginning of what is kept was let go, and the first mark with it."""
        self._open = True
        self.resume()

    def pause(self) -> None:
        """Read only when it is taken; whoever has written 64 KiB waits meanwhile."""
        if self._open:
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Read what is written as it is."""
        if self._open:
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> bool:
        try:
            piece = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:  # no process has the other end any more
            self.close()
            return False
        self._kept += piece
        if len(self._kept) > 4 * OUTPUT_MAX:
            self._cut = True
            del self._kept[: -3 * OUTPUT_MAX]  # a run's own, and what the next ones have written
        return len(piece) == READ_BYTES

    def take(self, mark: bytes = b"") -> str:
        """What was written since the last call: its end, as text that can be stored.

        With a ``mark``: what stands behind the first one, and before the next, which is kept.
        """
        kept = self._kept
        while self._open and not (mark and kept.count(mark) > 1) and self._read():
            pass
        start = 0 if self._cut or mark not in kept else kept.find(mark) + len(mark)
        self._cut = False
        end = kept.find(mark, start) if mark else -1
        taken = bytes(kept[start:] if end < 0 else kept[start:end])
        del kept[: start + len(taken)]
        if not taken:
            return ""
        text = taken[-OUTPUT_MAX:].decode("utf-8", "backslashreplace")
        storable = text.replace("\x00", "\\x00").encode()[-OUTPUT_MAX:]
        return storable.decode("utf-8", "ignore")

    def count(self, mark: bytes) -> int:
        """How often the mark was written since the last call of :meth:`take`."""
        while self._open and self._read():
            pass
        return self._kept.count(mark) + self._cut

    def close(self) -> None:
        """Close this end: what is written from now on ends its writer, by SIGPIPE."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
