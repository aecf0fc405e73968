"""The folder beside the database where files are kept that jobs returned."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable

from ..errors import InvalidResult
from ..rules.files import File, FileRecord, StoredFile, decode_file, encode_file, is_key
from .context import Run

PART = ".part"
"""Ends the name of a file that is being copied."""


class FileFolder:
    """``<database>-files``. Made when the first file comes; readable by its owner alone."""

    def __init__(self, database: Callable[[], str]) -> None:
        self._database = database
        """Asked when it is needed: a relative path resolves at start."""

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{self._database()}-files"

    def take(self, run: Run, file: File) -> str:
        """Move a file here; the result to be stored for it. To be called in a thread.

        Raises:
            InvalidResult: it is not there, no regular file, cannot be moved, or is not to be kept.
        """
        if self._database() == ":memory:":
            raise InvalidResult("a database in memory keeps no files; return its content or path")
        if not run.keep_result:
            raise InvalidResult(
                "a File is kept with its job, which keep_result=False contradicts: leave the "
                "option out, or return the path of a file that you look after"
            )
        key = f"{run.job.seq}-{run.job.claim}"
        try:
            if not stat.S_ISREG(os.lstat(file.path).st_mode):
                raise InvalidResult(f"{file.path!a}, returned as a File, is no regular file")
            size = self._move(file.path, key)
        except OSError as error:
            raise InvalidResult(
                f"{file.path!a}, returned as a File, cannot be moved to {self.path}: "
                f"{error.strerror}"
            ) from error
        return encode_file(FileRecord(key, file.name, file.media_type, size))

    def _move(self, source: str, key: str) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        target = os.path.join(self.path, key)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target + PART)
            os.rename(target + PART, target)
            os.unlink(source)
        size = _make_private(target)
        _sync_folder(self.path)
        return size

    def stored(self, result: str) -> StoredFile:
        """The file of a stored result."""
        record = decode_file(result)
        path = os.path.join(self.path, record.key)
        return StoredFile(path, record.name, record.media_type, record.size)

    def keys(self) -> list[str]:
        """Names of all that is here, files that are being copied included."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return [name for name in names if is_key(name.removesuffix(PART))]

    def remove(self, keys: Iterable[str]) -> None:
        """Delete these, where they are there."""
        for key in keys:
            if is_key(key.removesuffix(PART)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, key))


def _copy(source: str, target: str) -> None:
    import shutil  # not with the runner: it brings all compressions along

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with (
        os.fdopen(_open(source), "rb") as reading,
        os.fdopen(os.open(target, flags, 0o600), "wb") as writing,
    ):
        shutil.copyfileobj(reading, writing, 1024 * 1024)


def _make_private(path: str) -> int:
    """Give the file to its owner alone, and to the disk, before the outcome speaks of it; its size.

    Whoever may write where it came from may have put a link in its place since it was looked at.
    """
    try:
        descriptor = _open(path)
    except OSError:
        os.unlink(path)
        raise
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
