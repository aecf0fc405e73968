"""Hosts that behave badly around the runner, each as the smallest case that shows a fault."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asyncjobs import Runner
from tests.oracles import deadline
from tests.runner.support import until


async def test_a_host_without_file_descriptors_does_not_end_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []
    list_folder = os.listdir

    def full(path: Any = ".") -> Any:
        if len(looks) < 1 and str(path).endswith("-runners"):
            looks.append(path)
            raise OSError(24, "Too many open files")
        return list_folder(path)

    async with deadline(10), Runner(tmp_path / "jobs.db") as runner:

        @runner.task
        async def one() -> int:
            return 1

        monkeypatch.setattr(os, "listdir", full)
        await until(lambda: looks)
        await asyncio.sleep(0.05)
        assert await (await one.enqueue()) == 1
        assert runner.healthy


async def test_a_stop_beside_a_restart_leaves_the_new_start_alone(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.task
    async def one() -> int:
        return 1

    async def restart() -> None:
        await runner.stop()
        await runner.start()

    async with deadline(10):
        await runner.start()
        await asyncio.gather(restart(), runner.stop())
        assert await (await one.enqueue()) == 1
        await runner.stop()


@dataclass
class Looked:
    """Arguments whose making looks at the world, which may have changed since the enqueue."""

    number: int
    broken: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.broken:
            raise KeyError("no such thing any more")


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_arguments_whose_own_code_raises_fail_the_job_and_free_its_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    runner = Runner(tmp_path / "jobs.db", concurrency=1, threads=1)

    @runner.task(executor=executor)
    async def job(looked: Looked) -> int:
        return looked.number

    async with deadline(10), runner:
        bad = await job.options(delay=0.2).enqueue(Looked(1))
        monkeypatch.setattr(Looked, "broken", True)
        assert (await bad.wait()).state == "failed"
        monkeypatch.setattr(Looked, "broken", False)
        assert await (await job.enqueue(Looked(2))) == 2
