"""Workers are the same on uvloop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from . import worker_tasks as w
from .support import pids_at, workers
from .worker_tasks import Point


def test_workers_serve_are_replaced_die_and_hear_of_a_cancel_on_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with workers(tmp_path, max_jobs=5) as runner:
            handles = await runner.enqueue_many([w.mirror.job(Point(1, n)) for n in range(20)])
            assert [await handle for handle in handles] == [Point(n, 1) for n in range(20)]
            assert (await (await w.die.enqueue("kill")).wait()).reason == "crash"
            alone = await (await w.alone.enqueue("a"))
            assert alone[1] == ["a"]
            waiting = await w.leave_when_told.enqueue(str(tmp_path / "it"))
            await pids_at(tmp_path / "it")
            await waiting.cancel()
            assert await waiting == "left: user"

    uvloop.run(main())
