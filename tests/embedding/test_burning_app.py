"""Process jobs under a real server with several web processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncjobs import Runner
from tests.oracles import living_in

from .burning_app import GRACE_SECONDS
from .servers import serving

COMMAND = "uvicorn tests.embedding.burning_app:app --port {} --workers 2 --no-access-log"
JOBS = 40
STOP_SECONDS = GRACE_SECONDS + 4.0
"""The grace, and what it takes two interpreters and their supervisor to end on a busy machine."""


async def start(client: httpx.AsyncClient, task: str, *arguments: object) -> str:
    answer = await client.post(f"/start/{task}", json=arguments)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job"])


async def result(client: httpx.AsyncClient, job_id: str) -> Any:
    return (await client.get(f"/jobs/{job_id}")).json()["result"]


@pytest.mark.timed
async def test_workers_of_several_web_processes_share_the_jobs_and_end_with_them(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with serving(tmp_path, unused_tcp_port, *COMMAND.format(unused_tcp_port).split()) as server:
        async with server.client() as client:
            servers = set()
            for task in ("meet", "meet_alone"):
                met = [await start(client, task, "pipe", first) for first in (True, False)]
                pids = [await result(client, job_id) for job_id in met]
                assert len({worker for _, worker in pids}) == 2
                servers |= {parent for parent, _ in pids}
            endless = await start(client, "burn_for_ever", "endless")
            burning = [await start(client, "burn", 0.02) for _ in range(JOBS)]
            await result(client, burning[0])
        server.until((tmp_path / "endless").exists)
        began = time.monotonic()
        server.stop()  # while they run
        seconds = time.monotonic() - began

    assert len(servers) == 2  # each web process has a fork server of its own
    assert [pid for session in servers for pid in living_in(session)] == []
    assert seconds < STOP_SECONDS
    assert list((tmp_path / "jobs.db-runners").iterdir()) == []
    async with Runner(tmp_path / "jobs.db").client() as runner:
        assert await runner.registry.check() == []
        given_back = await runner.registry.get(endless)
        jobs = await asyncio.gather(*map(runner.registry.get, burning))
    assert (given_back.state, given_back.reason, given_back.attempt) == ("queued", "shutdown", 0)
    assert {job.crashes for job in jobs} == {0}
    assert {(job.state, job.attempt) for job in jobs} <= {("completed", 1), ("queued", 0)}
