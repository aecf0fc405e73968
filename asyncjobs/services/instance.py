"""One live runner process, as the others see it: a locked file.

The lock is free the moment the process is gone. A stopped process keeps it, so the file's time
stamp is a lease, renewed by a thread: a blocked event loop is not death, a stopped process is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from ..errors import StoreUnavailable
from ..locks import FileLock
from .doorbell import remove_bell

LEASE_SECONDS = 30.0
RENEWALS_PER_LEASE = 6
LATE_SECONDS = 2.0
"""What a look that comes later than this after the one before counts for: who was stopped himself,
as all are on a machine that sleeps, cannot say that the others alone were."""
SUFFIX = ".lock"


def new_instance_id() -> str:
    """Random, never used again."""
    return os.urandom(8).hex()


class Instance:
    """The own file of this process in ``<database>-runners/``."""

    def __init__(self, database: str, lease_seconds: float) -> None:
        self.id = new_instance_id()
        self.folder = f"{database}-runners"
        self._lease_seconds = lease_seconds
        self._lock: FileLock | None = None
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    def start(self, on_lost: Callable[[], None], bell: str = "") -> None:
        """Put up the file and keep its lease; ``on_lost`` is called when somebody took it away.

        The file says where this process can be rung.

        Raises:
            StoreUnavailable: the folder cannot be made.
        """
        make_folder(self.folder)
        try:
            # Locked under a name that no rescuer looks at, so that nobody sees it unlocked.
            lock = FileLock(os.path.join(self.folder, f".{self.id}"))
            lock.try_acquire()
            lock.write(bell)
            lock.rename(os.path.join(self.folder, self.id + SUFFIX))
        except OSError as error:
            raise _no_place(self.folder, error) from error
        self._lock = lock
        loop = asyncio.get_running_loop()
        self._keeper = threading.Thread(
            target=self._keep, args=(loop, on_lost), name="asyncjobs-lease", daemon=True
        )
        self._keeper.start()

    def _keep(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        lock = self._lock
        assert lock is not None
        while not self._ended.wait(self._lease_seconds / RENEWALS_PER_LEASE):
            if loop.is_closed():
                return
            with contextlib.suppress(OSError):
                if not lock.still_there():
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(on_lost)
                    return
                lock.touch()

    @property
    def descriptor(self) -> int:
        """Of the locked file: who has a copy of it keeps the lock held."""
        assert self._lock is not None
        return self._lock.descriptor

    def stop(self, *, unfinished: bool = False) -> None:
        """Take the file down; with ``unfinished`` runs leave it unlocked, for whoever rescues."""
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._lock is not None and unfinished:
            self._lock.close()
        elif self._lock is not None:
            self._lock.unlink()


def make_folder(folder: str) -> None:
    """Where the instances of a database put up their files.

    Raises:
        StoreUnavailable: it cannot be made.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise _no_place(folder, error) from error


def _no_place(folder: str, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"cannot put up a file in {folder}: {error.strerror}; the directory of the database must "
        "be writable"
    )


class Neighbours:
    """The other instances of a database: who is there, and who is dead, judged by their files."""

    def __init__(self, folder: str, lease_seconds: float) -> None:
        self._folder = folder
        self._lease_seconds = lease_seconds
        self._looked_at = 0.0
        self._seen: dict[str, tuple[int, float]] = {}
        """Instance to (its file's time stamp, for how long we have looked at that).

        Wall clocks step; only a stamp that does not change for a whole lease means a stopped
        process."""
        self._bells: dict[str, str] = {}
        """Instance to where it can be rung."""

    def all(self, but: str) -> frozenset[str]:
        """Those that there are files of."""
        return frozenset(self._listed()) - {but}

    def bells(self, but: str) -> dict[str, str]:
        """Where the others can be rung, by instance; those without a bell are left out."""
        bells = {}
        for instance in self._listed():
            if instance == but:
                continue
            address = self._bells.get(instance)
            if address is None:
                try:
                    with contextlib.closing(FileLock(self._path(instance), create=False)) as lock:
                        address = lock.read()
                except OSError:  # just gone, or no lock file at all
                    continue
            bells[instance] = address
        self._bells = bells
        return {instance: address for instance, address in bells.items() if address}

    def dead(self, monotonic: float, but: str) -> Iterator[tuple[str, FileLock | None]]:
        """Each dead instance, with its lock if it could be had; hold it while rescuing."""
        looked = min(monotonic - self._looked_at, LATE_SECONDS)
        self._looked_at = monotonic
        listed = [instance for instance in self._listed() if instance != but]
        self._seen = {name: seen for name, seen in self._seen.items() if name in listed}
        for instance in listed:
            path = self._path(instance)
            try:
                stamp = os.stat(path).st_mtime_ns
                lock = FileLock(path, create=False)
            except OSError:  # just gone, or no lock file at all
                continue
            if lock.try_acquire():
                yield instance, lock
                continue
            lock.close()
            seen, seconds = self._seen.get(instance, (None, 0.0))
            seconds = seconds + looked if seen == stamp else 0.0
            self._seen[instance] = (stamp, seconds)
            if seconds > self._lease_seconds:
                yield instance, None

    def bury(self, lock: FileLock) -> None:
        """Remove what a dead instance has left, while holding its lock."""
        remove_bell(lock.read())
        lock.unlink()

    def is_alive(self, instance: str) -> bool:
        """Whether somebody holds the instance's lock: only its own process does for long."""
        try:
            lock = FileLock(self._path(instance), create=False)
        except FileNotFoundError:
            return False
        try:
            return not lock.try_acquire()
        finally:
            lock.close()

    def exists(self, instance: str) -> bool:
        """Whether the instance's file is there."""
        return os.path.exists(self._path(instance))

    def remove(self, instance: str) -> None:
        """Unlink the file of a stopped instance: it learns from that, should it wake."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(instance))

    def _path(self, instance: str) -> str:
        return os.path.join(self._folder, instance + SUFFIX)

    def _listed(self) -> list[str]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [name.removesuffix(SUFFIX) for name in names
                if name.endswith(SUFFIX) and not name.startswith(".")]  # fmt: skip
