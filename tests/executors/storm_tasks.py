"""Short jobs of every kind, each of which notes when it begins and when it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncjobs import Tasks, current_job
from tests.oracles import EffectLedger

FOLDER = "ASYNCJOBS_TEST_STORM"
DEADLY = ("exit", "kill", "spend")
"""What ends its worker, of its own accord or not."""
LIMIT = 512 * 1024 * 1024

tasks = Tasks()
_effects: EffectLedger | None = None


def effects() -> EffectLedger:
    """The ledger that all workers share."""
    global _effects
    if _effects is None:
        _effects = EffectLedger(Path(os.environ[FOLDER]) / "effects")
    return _effects


def act(how: str) -> int:
    """Do what jobs do, well or badly; the claim number."""
    job = current_job()
    effects().start(job.id, job.fence)
    print(job.id)
    match how:
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            effects().end(job.id, job.fence)
            raise ValueError(job.id)
        case "spend":
            sys.stdout.close()
        case "flood":
            os.write(1, b"x" * 200_000 + b"\n" + job.id.encode() + b"\n")
        case "progress":
            for done in range(50):
                job.progress(done)
                job.logger.debug("so far %d", done)
        case "compute":
            until = time.perf_counter() + 0.003
            while time.perf_counter() < until:
                pass
        case "long":
            time.sleep(0.12)
    effects().end(job.id, job.fence)
    return job.fence[1]


async def ask(how: str) -> int:
    """Have a child, and wait for it."""
    job = current_job()
    effects().start(job.id, job.fence)
    print(job.id)
    await (await act_warm.enqueue(how))
    effects().end(job.id, job.fence)
    return job.fence[1]


def _task(name: str, function: Callable[..., Any], **options: Any) -> Any:
    tasks.task(name=name, **options)(function)
    return next(task for task in tasks if task.name == name)


act_warm = _task("warm", act, executor="process", max_crashes=1000)
act_limited = _task(
    "limited", act, executor="process", max_crashes=1000, memory_limit=LIMIT, timeout=30
)
act_deadly = _task("deadly", act, executor="process", on_crash="fail")
act_alone = _task("alone", act, executor="isolated", max_crashes=1000)
ask_warm = _task("asking", ask, executor="process", max_crashes=1000)
