"""Other processes' files: whatever stands in the folder, nobody is hurt by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncjobs import Runner
from asyncjobs.locks import FileLock
from asyncjobs.services.doorbell import PREFIX, SUFFIX
from asyncjobs.services.instance import Instance, Neighbours, make_folder


def text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe no address")


ODD: dict[str, Callable[[Path], None]] = {
    "bytes": text,
    "folder": Path.mkdir,
    "pipe": lambda path: os.mkfifo(path),
    "dangling": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", ODD)
async def test_odd_file_among_the_locks_hurts_nobody(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "jobs.db-runners"
    folder.mkdir()
    ODD[kind](folder / "0123456789abcdef.lock")
    async with Runner(tmp_path / "jobs.db") as runner:

        @runner.task
        async def nothing() -> None:
            pass

        await (await nothing.enqueue())
        await runner.engine()._tick()
        assert runner.healthy


async def test_bell_of_a_dead_process_is_removed_with_its_lock(tmp_path: Path) -> None:
    database = str(tmp_path / "jobs.db")
    bell = tmp_path / "jobs.db-runners" / f"{PREFIX}dead{SUFFIX}"
    dead = Instance(database, 30.0)
    make_folder(dead.folder)
    dead.start(lambda: None, str(bell))
    bell.touch()
    neighbours = Neighbours(dead.folder, 30.0)
    assert neighbours.bells(but="me") == {dead.id: str(bell)}
    assert list(neighbours.dead(0.0, but="me")) == []

    dead.stop(unfinished=True)  # as when it is killed: the lock is free, the files are there
    ((instance, lock),) = neighbours.dead(0.0, but="me")
    assert instance == dead.id
    assert lock is not None
    neighbours.bury(lock)
    assert list(Path(dead.folder).iterdir()) == []


async def test_neighbour_is_stopped_when_looked_at_for_a_lease_and_not_when_nobody_looked(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "jobs.db-runners"
    folder.mkdir()
    lock = FileLock(str(folder / "other.lock"))
    lock.try_acquire()
    neighbours = Neighbours(str(folder), 30.0)

    def dead(monotonic: float) -> list[str]:
        return [instance for instance, _ in neighbours.dead(monotonic, but="me")]

    assert [dead(seconds) for seconds in range(10)] == [[]] * 10
    assert dead(3600) == []  # the machine was asleep
    assert [dead(3600 + seconds) for seconds in range(1, 20)] == [[]] * 19
    assert dead(3620) == ["other"]
    lock.unlink()


async def test_folder_whose_name_is_no_text_serves_as_well(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    lock = FileLock(str(folder / "x.lock"))
    lock.write(str(folder / "asyncjobs-x.bell"))
    assert lock.read() == str(folder / "asyncjobs-x.bell")
    lock.unlink()
