"""Tasks of the load that run in workers, which must be able to import them."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path

from asyncjobs import Tasks, current_job
from tests.oracles import EffectLedger

UNLIMITED_CRASHES = 1_000

tasks = Tasks()


_c = ctypes.PyDLL(None)  # whose calls keep the GIL


def _write(descriptor: int, line: bytes) -> None:
    _c.write(descriptor, line, len(line))


def _run(effects: EffectLedger, seconds: float, work: Callable[[], object]) -> int:
    """Work, with a sign of life every now and then; the claim number."""
    job = current_job()
    effects.start(job.id, job.fence)
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            work()
            effects.alive(job.id, job.fence)
    finally:
        effects.end(job.id, job.fence)
        effects.close()
    return job.fence[1]


def burn(ledgers: str, seconds: float) -> int:
    """Compute."""
    return _run(EffectLedger(Path(ledgers) / "effects"), seconds, lambda: sum(range(20_000)))


def hold(ledgers: str, seconds: float) -> int:
    """Hold the GIL: no other thread of the worker runs meanwhile, and none sees the host's end."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        effects = EffectLedger(Path(ledgers) / "effects", _write)
        return _run(effects, seconds, lambda: _c.usleep(1000))
    finally:
        sys.setswitchinterval(usual)


TASKS = [
    tasks.task(executor=executor, name=f"{function.__name__} {executor}",
               max_crashes=UNLIMITED_CRASHES)(function)
    for executor in ("process", "isolated")
    for function in (burn, hold)
]  # fmt: skip
