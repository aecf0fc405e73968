"""A copy of the database while it is in use: whole, private, or not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from functools import partial

from ...errors import InvalidOption, StoreError
from .connection import Connection
from .transaction import STATEMENTS


async def back_up(connection: Connection, path: str, *, shared: bool = False) -> None:
    """Copy everything that is committed to a new file, in the connection's thread.

    It appears under its name when it is complete and on disk. Cancelling gives it up; on a
    connection that is ``shared`` with others it waits for the end instead, so as not to stop them.

    Raises:
        InvalidOption: the file is there already.
        StoreError: it cannot be written; nothing is left of it.
    """
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise _exists(path)
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}-{os.urandom(4).hex()}")
    try:
        copy = partial(_copy, unfinished=unfinished, path=path)
        await _to_the_end(connection, copy, interrupt=not shared)
    except StoreError as error:
        raise type(error)(f"cannot write the backup {path}: {error}") from error
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise StoreError(
            f"cannot write the backup {path}: {error.strerror}; give a path in a directory that "
            "exists and can be written"
        ) from error


def _exists(path: str) -> InvalidOption:
    return InvalidOption(f"{path} exists already; a backup overwrites nothing: give another path")


async def _to_the_end(connection: Connection, copy: partial[None], *, interrupt: bool) -> None:
    """Run the copy; when that is cancelled, stop it and wait until it has cleaned up."""
    running = asyncio.ensure_future(connection.run(copy))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            # Again and again, since a copy that has not begun yet cannot be interrupted.
            if interrupt:
                await connection.interrupt()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running], timeout=0.01)
        with contextlib.suppress(Exception):
            running.result()
        raise


def _copy(connection: sqlite3.Connection, *, unfinished: str, path: str) -> None:
    # Made beforehand, since SQLite would make it with the umask's mode. It takes an empty file.
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        os.chmod(unfinished, 0o600)
        connection.execute(STATEMENTS["backup"], (unfinished,))
        _sync(unfinished)
        os.link(unfinished, path)  # unlike rename, it overwrites nothing
        _sync(os.path.dirname(path))
    finally:
        os.unlink(unfinished)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
