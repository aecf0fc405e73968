"""Files as results: moved beside the database, given back by the handle, deleted with the job."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import File, InvalidOption, JobFailed, Runner, StoredFile, current_job
from asyncjobs.rules.files import MARK, decode_file
from asyncjobs.running.files import FileFolder
from asyncjobs.store.base import Prune
from asyncjobs.testing import ManualClock

from .support import until


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "result.csv"
    path.parent.mkdir()
    path.write_bytes(b"a;b\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db-files"


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def failure(runner: Runner, task: Any, *arguments: Any) -> str:
    with pytest.raises(JobFailed) as raised:
        await (await task.enqueue(*arguments))
    return raised.value.error_message or ""


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
@pytest.mark.parametrize("annotated", [True, False])
async def test_file_is_moved_and_given_back(
    runner: Runner, source: Path, folder: Path, executor: str, annotated: bool
) -> None:
    def in_thread() -> Any:
        return File(source, "the result.csv", "text/csv; charset=utf-8")

    async def in_loop() -> Any:
        return in_thread()

    function: Any = in_thread if executor == "thread" else in_loop
    function.__annotations__["return"] = File if annotated else Any
    handle = await runner.task(function).enqueue()
    file = await handle

    assert isinstance(file, StoredFile)
    assert (file.name, file.size) == ("the result.csv", 4)
    assert file.media_type == "text/csv; charset=utf-8"
    with file.open() as content:
        assert content.read() == b"a;b\n"
    assert not source.exists()
    assert Path(file.path).parent == folder
    assert (await runner.handle(handle.id)).path == file.path
    job = await runner.registry.get(handle.id)
    assert job.result["asyncjobs_file"]["name"] == "the result.csv"
    assert await runner.registry.check() == []


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
async def test_files_are_private_whatever_the_umask_and_their_mode(
    runner: Runner, source: Path, folder: Path, umask: int
) -> None:
    source.chmod(0o666)

    @runner.task
    async def export() -> File:
        return File(source)

    before = os.umask(umask)
    try:
        file = await (await export.enqueue())
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
    assert file.name == "result.csv"
    assert file.media_type == "application/octet-stream"


async def test_file_of_another_file_system_is_copied(
    runner: Runner, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def rename_within(old: Any, new: Any) -> None:
        if os.path.dirname(old) != os.path.dirname(new):
            raise OSError(errno.EXDEV, "another file system")
        rename(old, new)

    monkeypatch.setattr(os, "rename", rename_within)

    @runner.task
    async def export() -> File:
        return File(source)

    file = await (await export.enqueue())
    assert Path(file.path).read_bytes() == b"a;b\n"
    assert not source.exists()
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    assert kept(folder) == [os.path.basename(file.path)]


async def test_file_goes_with_its_job(runner: Runner, tmp_path: Path, folder: Path) -> None:
    @runner.task
    async def export(number: int) -> File:
        path = tmp_path / f"{number}"
        path.write_text("x")
        return File(path)

    handles = [await export.enqueue(number) for number in range(3)]
    files = [await handle for handle in handles]
    await runner.registry.delete(handles[0].id)
    assert kept(folder) == sorted(os.path.basename(file.path) for file in files[1:])
    await runner.registry.delete_all(task=export.name, dry_run=False)
    assert kept(folder) == []
    assert await runner.engine().store.gone_files(10) == []


async def test_file_goes_when_retention_takes_its_job(
    runner: Runner, source: Path, folder: Path, clock: ManualClock
) -> None:
    @runner.task
    async def export() -> File:
        return File(source)

    await (await export.enqueue())
    clock.advance(8 * 86_400)
    engine = runner.engine()
    await engine.sweeper.sweep()
    assert len(kept(folder)) == 1, "as long as the job is there"
    await engine.commit.alone(Prune({"completed": clock.now()}, 0, 99))
    await engine.sweeper.sweep()
    assert kept(folder) == []


async def test_retry_by_hand_gives_a_new_file_and_the_old_one_goes(
    runner: Runner, tmp_path: Path, folder: Path
) -> None:
    @runner.task
    async def export() -> File:
        path = tmp_path / "out"
        path.write_text(f"run {current_job().fence[1]}")
        return File(path)

    handle = await export.enqueue()
    await handle
    await handle.retry()
    second = await handle
    await runner.engine().sweeper.sweep()
    assert Path(second.path).read_text() == "run 3"
    assert kept(folder) == [os.path.basename(second.path)]
    assert await runner.registry.check() == []


async def test_files_that_nobody_reported_are_swept_at_the_next_start(
    tmp_path: Path, folder: Path, source: Path
) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.task
    async def export() -> File:
        return File(source)

    async with runner:
        file = await (await export.enqueue())
    for name in ("1-9", "99-1", "99-1.part"):
        (folder / name).write_text("left behind")
    (folder / "notes.txt").write_text("not ours")
    async with runner:
        await until(lambda: kept(folder) == [os.path.basename(file.path), "notes.txt"])


async def test_files_that_nobody_reported_are_swept_now_and_then(
    runner: Runner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runner.engine()
    monkeypatch.setattr("asyncjobs.services.sweeper.SWEEP_SECONDS", 0.0)
    folder.mkdir()
    (folder / "7-1").write_text("of a run that had been given up")
    sweeping = asyncio.create_task(engine.sweeper.run())
    await until(lambda: kept(folder) == [])
    (folder / "7-2").write_text("of another one")
    await until(lambda: kept(folder) == [])
    sweeping.cancel()


async def test_file_of_a_run_that_goes_on_is_no_orphan(
    tmp_path: Path, folder: Path, source: Path
) -> None:
    runner = Runner(tmp_path / "jobs.db")
    gate = asyncio.Event()

    @runner.task
    async def wait() -> None:
        await gate.wait()

    async with runner:
        handle = await wait.enqueue()
        await until(runner.engine().dispatcher.held)
        folder.mkdir()
        (folder / "1-1").write_text("about to be reported")
        (folder / "1-0").write_text("of an earlier run")
        await runner.engine().sweeper.sweep_orphans()
        assert kept(folder) == ["1-1"]
        gate.set()
        await handle


# What is refused


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "..\\x", "a\x00b", "a\nb", "x" * 256]
)
def test_names_that_traverse_or_mean_nothing_are_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="name"):
        File("x", name)


@pytest.mark.parametrize("name", ["x" * 255, "Übersicht May.pdf", "...", ".hidden", "a b"])
def test_other_names_are_taken(name: str) -> None:
    assert File("x", name).name == name


@pytest.mark.parametrize(
    "media_type", ["", "text", "text/", "text/csv\r\nX: y", "a b/c", "text/<b>"]
)
def test_media_types_that_are_none_are_refused(media_type: str) -> None:
    with pytest.raises(InvalidOption, match="media_type"):
        File("x", "x", media_type)


@pytest.mark.parametrize("path", [3, None, b"x", "a\x00b"])
@pytest.mark.parametrize("name", [None, "x"])
def test_paths_that_are_none_are_refused(path: Any, name: str | None) -> None:
    with pytest.raises(InvalidOption):
        File(path, name)


@pytest.mark.parametrize("copied", [False, True])
async def test_link_that_takes_the_file_s_place_at_the_last_moment_is_not_followed(
    runner: Runner, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    secret, path = tmp_path / "secret", tmp_path / "out.csv"
    secret.write_text("of somebody else")
    secret.chmod(0o644)
    rename = os.rename

    def swap_first(source: str, target: str) -> None:
        if not path.is_symlink():
            path.unlink()
            path.symlink_to(secret)
            if copied:
                raise OSError(errno.EXDEV, "another file system")
        rename(source, target)

    monkeypatch.setattr("os.rename", swap_first)

    @runner.task
    async def export() -> File:
        path.write_text("own")
        return File(path)

    assert "cannot be moved" in await failure(runner, export)
    assert kept(folder) == []
    assert secret.stat().st_mode & 0o777 == 0o644
    assert secret.read_text() == "of somebody else"


async def test_what_is_no_regular_file_fails_the_job(
    runner: Runner, tmp_path: Path, source: Path, folder: Path
) -> None:
    (tmp_path / "link").symlink_to(source)

    @runner.task
    async def export(path: str) -> File:
        return File(path, "name")

    assert "no regular file" in await failure(runner, export, str(tmp_path))
    assert "no regular file" in await failure(runner, export, str(tmp_path / "link"))
    assert "No such file" in await failure(runner, export, str(tmp_path / "missing"))
    assert source.exists()
    assert kept(folder) == []


async def test_database_in_memory_keeps_no_files(source: Path) -> None:
    runner = Runner(":memory:")

    @runner.task
    async def export() -> File:
        return File(source)

    async with runner:
        assert "keeps no files" in await failure(runner, export)
    assert source.exists()


async def test_mapping_that_looks_like_a_stored_file_is_refused(runner: Runner) -> None:
    @runner.task
    async def forge(key: str) -> Any:
        return {"asyncjobs_file": {"key": key, "name": "x", "media_type": "a/b", "size": 1}}

    assert "looks like a stored file" in await failure(runner, forge, "1-1")


@pytest.mark.parametrize("key", ["../1-1", "/etc/passwd", "1-1/../2", "1", "", "1-1\n"])
def test_key_never_leads_out_of_the_folder(key: str, tmp_path: Path) -> None:
    body = json.dumps({"key": key, "name": "x", "media_type": "a/b", "size": 1})
    with pytest.raises(InvalidOption, match="names no file"):
        decode_file(f"{MARK}{body}}}")
    outside = tmp_path / "outside"
    outside.write_text("x")
    FileFolder(lambda: str(tmp_path / "jobs.db")).remove([f"../{outside.name}", key])
    assert outside.exists()
