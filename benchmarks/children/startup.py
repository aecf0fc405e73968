"""Reports what importing takes: the dependencies first, then asyncjobs on top."""

from __future__ import annotations

import sys
import time
from importlib import import_module

DEPENDENCIES = ("asyncio", "sqlite3", "anyio", "aiosqlite", "msgspec", "msgspec.json")


def seconds_of(*names: str) -> float:
    """What importing modules takes."""
    began = time.perf_counter()
    for name in names:
        import_module(name)
    return time.perf_counter() - began


def main() -> None:
    """Report as JSON."""
    dependencies = seconds_of(*DEPENDENCIES)
    package = seconds_of("asyncjobs")
    # What ``from asyncjobs import Runner`` loads.
    runner = seconds_of("asyncjobs.runner")
    sys.stdout.write(
        f'{{"dependencies": {dependencies}, "package": {package}, "runner": {runner}}}'
    )


main()
