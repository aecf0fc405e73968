"""Files held by ``flock``: free the moment their process is gone, also after SIGKILL.

A forked child inherits the descriptor and with it the lock, so the lock of a dead parent would
stay held for as long as any child of the application lives. Hence every descriptor is closed in
forked children.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
import weakref

CONTENT_MAX = 4_096

_FIRST_PAUSE_SECONDS = 0.000_05
_LONGEST_PAUSE_SECONDS = 0.001

_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """One file, and the exclusive lock on it."""

    def __init__(self, path: str, *, create: bool = True) -> None:
        self.path = path
        # Not to hang where somebody has put something else in its place.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if create else 0)
        self._descriptor = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise OSError(errno.EINVAL, "this is no lock file", path)
        if create:
            os.fchmod(self._descriptor, 0o600)
        _open_locks.add(self)

    @property
    def descriptor(self) -> int:
        """Of the open file."""
        return self._descriptor

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self, wait_seconds: float) -> bool:
        """Take the lock, waiting a bounded time; blocks the calling thread."""
        if self.try_acquire():
            return True
        deadline = time.monotonic() + wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(pause)
            if self.try_acquire():
                return True
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        return False

    def release(self) -> None:
        """Give the lock back; the file stays open."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def touch(self) -> None:
        """Set the file's times to now."""
        os.utime(self._descriptor)

    def write(self, text: str) -> None:
        """Make ``text`` the content of the file, for others to read."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, os.fsencode(text), 0)

    def read(self) -> str:
        """The content of the file."""
        return os.fsdecode(os.pread(self._descriptor, CONTENT_MAX, 0))

    def still_there(self) -> bool:
        """False when somebody has unlinked the file under us."""
        return os.fstat(self._descriptor).st_nlink > 0

    def rename(self, path: str) -> None:
        """Move the locked file to ``path``; the lock goes along."""
        os.rename(self.path, path)
        self.path = path

    def close(self) -> None:
        """Close the file, and with it free the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        _open_locks.discard(self)

    def unlink(self) -> None:
        """Remove the file while holding it, then close it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.close()


def _close_in_child() -> None:
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
