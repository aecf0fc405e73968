"""The engines, each as a fresh store; every test ends with the store's own check."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import Desk

HANG_SECONDS = 60


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "broken: breaks the store on purpose")


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """A frozen event loop ends its test, not the whole run. Proofs take as long as they take."""
    if request.node.get_closest_marker("proof"):
        yield
        return

    def bark(*_: object) -> None:
        raise TimeoutError(f"the test took longer than {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(HANG_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest_asyncio.fixture(params=["file", "memory"])
async def store(request: Any, tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteStore]:
    """A fresh store of each engine. Its invariants must hold at the end."""
    path = ":memory:" if request.param == "memory" else str(tmp_path / "jobs.db")
    store = SQLiteStore(path, clock=clock)
    await store.open()
    try:
        yield store
        if request.node.get_closest_marker("broken") is None:
            assert await store.check() == []
    finally:
        await store.close()


@pytest.fixture
def desk(store: SQLiteStore, clock: ManualClock) -> Desk:
    """The store with short words."""
    return Desk(store, clock)


@pytest_asyncio.fixture
async def file_store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteStore]:
    """A fresh store in a file, for what only files have."""
    store = SQLiteStore(str(tmp_path / "jobs.db"), clock=clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def file_desk(file_store: SQLiteStore, clock: ManualClock) -> Desk:
    """The store in a file with short words."""
    return Desk(file_store, clock)
