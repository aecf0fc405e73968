"""A runner as a whole program: it runs until the system asks it to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import RunnerClosed

if TYPE_CHECKING:
    from .runner import Runner
    from .services.engine import Engine

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run_until_signalled(runner: Runner, live: Callable[[], Engine | None]) -> None:
    """Run jobs until a signal: the first drains within the grace time, a second stops at once.

    ``live`` gives the engine, from the first moment of its start. Raises as ``Runner.run``.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask() -> None:
        engine = live()
        if engine is not None and asked.is_set():
            engine.hurry()
        elif engine is not None:
            engine.give_up_starting()
        asked.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, ask)
    try:
        async with runner:
            await _asked_or_failed(runner.engine(), asked)
    except RunnerClosed:
        if not asked.is_set():  # else it was told to stop while it was starting
            raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _asked_or_failed(engine: Engine, asked: asyncio.Event) -> None:
    waiting = asyncio.create_task(asked.wait())
    try:
        await engine.until(waiting)
    finally:
        waiting.cancel()
