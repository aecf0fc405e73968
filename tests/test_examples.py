"""Every example is started, used and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from asyncjobs import Runner

ROOT = Path(__file__).parent.parent


def start(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", *arguments]


def run_example(name: str, database: Path) -> str:
    command = start(str(ROOT / "examples" / name), str(database))
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_quickstart_greets(tmp_path: Path) -> None:
    assert "hello, world" in run_example("quickstart.py", tmp_path / "jobs.db")


def test_pipeline_counts_and_names_its_children(tmp_path: Path) -> None:
    printed = run_example("pipeline.py", tmp_path / "jobs.db")
    assert "114 words" in printed
    assert "12 children" in printed


async def test_resume_goes_on_after_a_kill(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    killed = await asyncio.create_subprocess_exec(
        *start(str(ROOT / "examples" / "resume.py"), str(database)), stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    assert b"0 of 40" in await killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    await killed.communicate()

    printed = run_example("resume.py", database)

    assert "40 of 40 pieces were enqueued before" in printed
    assert f"sum {sum(n * n for n in range(40))}" in printed
    async with Runner(database, queues=["nobody"]) as runner:
        assert await runner.registry.count() == 40
        assert await runner.registry.check() == []


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "examples.web:app", "--port", str(port),
        cwd=ROOT, env={**os.environ, "JOBS_DB": str(tmp_path / "web.db")},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    while b"Uvicorn running" not in (line := await process.stderr.readline()):
        assert line, "uvicorn ended"
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.communicate()
    # uvicorn raises the signal again once it has shut down in order.
    assert process.returncode in (0, -signal.SIGTERM)


def fetch(url: str, method: str = "GET") -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
        decoded: dict[str, object] = json.load(answer)
        return decoded


async def test_web_application_answers_at_once_and_reports_the_result(server: str) -> None:
    started = await asyncio.to_thread(fetch, f"{server}/reports/may", "POST")
    again = await asyncio.to_thread(fetch, f"{server}/reports/may", "POST")
    assert (again["job"], again["existing"]) == (started["job"], True)

    status: dict[str, object] = {}
    while status.get("status") != "completed":
        status = await asyncio.to_thread(fetch, f"{server}/jobs/{started['job']}")

    assert status == {"status": "completed", "result": {"pages": 3}, "error": None}
