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
        self._loop.add_reader(descriptor, self._read)
        self._open = True

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
            del self._kept[:-OUTPUT_MAX]
        return len(piece) == READ_BYTES

    def take(self) -> str:
        """What was written since the last call: its end, as text that can be stored."""
        while self._open and self._read():
            pass
        if not self._kept:
            return ""
        text = bytes(self._kept[-OUTPUT_MAX:]).decode("utf-8", "backslashreplace")
        self._kept.clear()
        storable = text.replace("\x00", "\\x00").encode()[-OUTPUT_MAX:]
        return storable.decode("utf-8", "ignore")

    def close(self) -> None:
        """Close this end: what is written from now on ends its writer, by SIGPIPE."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
