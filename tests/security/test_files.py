"""Nobody but the owner reads the files, whatever the umask."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncjobs import Runner


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask-000", "umask-022", "umask-077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
    }


async def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    runner = Runner(tmp_path / "jobs.db", grace=1)

    @runner.task
    async def nothing() -> None:
        return None

    async with runner:
        await (await nothing.enqueue())
        found = modes(tmp_path)
    assert {"jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-turn", "jobs.db-runners"} <= set(
        found
    )
    assert found.pop("jobs.db-runners") == 0o700
    assert any(name.startswith("jobs.db-runners/") for name in found)
    assert {name: oct(mode) for name, mode in found.items() if mode != 0o600} == {}


async def test_files_stay_private_after_the_stop_and_the_next_start(
    tmp_path: Path, umask: int
) -> None:
    for _ in range(2):
        async with Runner(tmp_path / "jobs.db", grace=1):
            pass
        found = modes(tmp_path)
        assert found.pop("jobs.db-runners") == 0o700
        assert {name: oct(mode) for name, mode in found.items() if mode != 0o600} == {}


async def test_files_left_by_a_killed_process_are_private(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from asyncjobs import Runner\n"
        "os.umask(0)\n"
        "async def main():\n"
        "    async with Runner(sys.argv[1]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "jobs.db")], capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr
    found = modes(tmp_path)
    assert "jobs.db-wal" in found
    assert found.pop("jobs.db-runners") == 0o700
    assert {name: oct(mode) for name, mode in found.items() if mode != 0o600} == {}


async def test_a_database_file_that_was_there_keeps_the_mode_it_was_given(tmp_path: Path) -> None:
    """Who shares a database with a group says so by the file's mode; it is not ours to change."""
    path = tmp_path / "jobs.db"
    path.touch(0o640)
    path.chmod(0o640)
    async with Runner(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
