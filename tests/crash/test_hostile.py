"""Hosts that behave badly around the runner, each as the smallest case that shows a fault."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import Runner
from tests.oracles import deadline
from tests.runner.support import until


async def test_a_host_without_file_descriptors_does_not_end_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
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
