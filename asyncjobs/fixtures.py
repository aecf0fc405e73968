"""The fixtures of the pytest plugin ``asyncjobs.testing``: all of it that needs pytest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from .errors import MissingExtra

try:
    import pytest
    import pytest_asyncio
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"the fixtures of asyncjobs.testing need {error.name}: pip install pytest pytest-asyncio"
    ) from error

from .runner import Runner
from .testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the ``runner`` fixture."""
    return ManualClock()


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock, request: Any) -> AsyncIterator[Runner]:
    """A started runner on a temporary file with the manual ``clock``; ``include`` your tasks.

    ``@pytest.mark.parametrize("runner", [{"concurrency": 1}], indirect=True)`` gives it options;
    ``{"include": tasks}`` includes tasks before the start, as those with resources must be.
    """
    options: dict[str, Any] = {"clock": clock, "grace": 1.0, **getattr(request, "param", {})}
    tasks = options.pop("include", None)
    runner = Runner(tmp_path / "jobs.db", **options)
    if tasks is not None:
        runner.include(tasks)
    async with runner:
        yield runner
