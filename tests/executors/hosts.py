"""Hosts in processes of their own, to be killed, and their scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HOST = """
import asyncio, os, sys, time
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from asyncjobs import Runner
from executors import worker_tasks as w

async def main(database, *names):
    forks = "fork" in names
    names = [name for name in names if name != "fork"]
    runner = Runner(database, processes=len(names), processes_min=0, lease_seconds={lease}, grace=0)
    runner.include(w.tasks)
    async with runner:
        for name in names:
            task = next(task for task in w.tasks if task.name.endswith("." + name))
            await task.enqueue(str(Path(database).parent / name))
        if forks and os.fork() == 0:
            with open(Path(database).parent / "fork", "w") as file:
                file.write(f"{{os.getpid()}}\\n")
            time.sleep(3600)
        await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
"""


def start_host(folder: Path, *names: str, lease: float = 30.0) -> subprocess.Popen[bytes]:
    """A program that runs these tasks of ``worker_tasks`` for ever; their paths are their names."""
    script = folder / "host.py"
    script.write_text(HOST.format(root=str(ROOT), tests=str(ROOT / "tests"), lease=lease))
    return subprocess.Popen([sys.executable, str(script), str(folder / "jobs.db"), *names])


def run_program(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        [sys.executable, *arguments, str(script)] if not arguments else
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=30, check=False, cwd=script.parent,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"},
    )  # fmt: skip
