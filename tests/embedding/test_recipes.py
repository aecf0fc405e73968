"""Every recipe in ``examples/embed_*.py``: started, used and stopped under a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from asyncjobs import Runner

from .servers import ROOT, serving

UVICORN = "uvicorn examples.embed_{}:{} --host 127.0.0.1 --port {}"
COMMANDS = {
    "fastapi": UVICORN.format("fastapi", "app", "{}"),
    "starlette": UVICORN.format("starlette", "app", "{}"),
    "litestar": UVICORN.format("litestar", "app", "{}"),
    "quart": UVICORN.format("quart", "app", "{}"),
    "django": UVICORN.format("django", "application", "{}"),
    "aiohttp": "aiohttp.web -H 127.0.0.1 -P {} examples.embed_aiohttp:make_app",
}
JOBS = 60


async def start(client: httpx.AsyncClient, number: int) -> str:
    answer = await client.post(f"/double/{number}")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job"])


@pytest.mark.parametrize("framework", COMMANDS)
async def test_recipe_runs_jobs_and_drains_them_at_sigterm(
    framework: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    command = COMMANDS[framework].format(unused_tcp_port).split()
    with serving(tmp_path, unused_tcp_port, *command) as server:
        async with server.client() as client:
            first = await start(client, 21)
            answer = await client.get(f"/jobs/{first}")
            accepted = await asyncio.gather(*(start(client, number) for number in range(JOBS)))
        server.stop()  # while they run

    assert (answer.status_code, answer.json()) == (200, {"result": 42}), answer.text
    assert list((tmp_path / "jobs.db-runners").iterdir()) == []
    async with Runner(tmp_path / "jobs.db", queues=["none"]) as runner:
        assert await runner.registry.count() == 1 + JOBS
        assert await runner.registry.check() == []
        jobs = [await runner.registry.get(job_id) for job_id in accepted]
    assert [job.result for job in jobs] == [2 * number for number in range(JOBS)]
    assert {(job.state, job.attempt, job.crashes) for job in jobs} == {("completed", 1, 0)}


def test_every_recipe_is_tested() -> None:
    there = {path.stem.removeprefix("embed_") for path in ROOT.glob("examples/embed_*.py")}
    assert there == set(COMMANDS)


def test_django_recipe_tells_the_server_that_the_runner_cannot_start(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    (tmp_path / "jobs.db").write_text("this is no database")
    command = COMMANDS["django"].format(unused_tcp_port).split()

    with (
        pytest.raises(AssertionError, match="Application startup failed"),
        serving(tmp_path, unused_tcp_port, *command),
    ):
        pass
