"""A database with a clock of its own, and the command line called within this process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock
from tests.store.kit import Desk

from .kit import Shell


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown and read as the terminal's; here that is UTC, and nothing else is set."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("ASYNCJOBS_DB", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def shell(database: Path) -> Shell:
    return Shell(database)


@pytest_asyncio.fixture
async def desk(database: Path) -> AsyncIterator[Desk]:
    """An open store; its clock stands in the past, so that what is due later is due much later."""
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    store = SQLiteStore(str(database), clock=clock)
    await store.open()
    yield Desk(store, clock)
    await store.close()
