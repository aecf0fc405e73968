"""Every script among the examples is run; the web applications are in ``tests/embedding``."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from asyncjobs import Runner

ROOT = Path(__file__).parent.parent


def start(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", *arguments]


def run_example(name: str, *arguments: Path) -> str:
    command = start(str(ROOT / "examples" / name), *map(str, arguments))
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_quickstart_greets(tmp_path: Path) -> None:
    assert "hello, world" in run_example("quickstart.py", tmp_path / "jobs.db")


def test_pipeline_counts_and_names_its_children(tmp_path: Path) -> None:
    printed = run_example("pipeline.py", tmp_path / "jobs.db")
    assert "114 words" in printed
    assert "12 children" in printed


def test_compress_uses_workers_on_real_files(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "empty").touch()
    (folder / "large").write_bytes(b"x" * 100_000)
    printed = run_example("compress.py", tmp_path / "jobs.db", folder)

    assert "failed: an empty file" in printed
    assert "1 of 2 files: 100,000 bytes became" in printed
    assert "CPU seconds in workers" in printed


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
