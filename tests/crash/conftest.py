"""Crash tests: where stacks of hangs are shown, and the marker's larger numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from _pytest.faulthandler import fault_handler_stderr_fd_key

from tests.oracles import show_stacks_at

from .hosts import Host, Nursery


@pytest.fixture(autouse=True, scope="session")
def _stacks_on_the_terminal(request: pytest.FixtureRequest) -> None:
    """A hang ends the process: what pytest has captured until then would be lost."""
    show_stacks_at(request.config.stash.get(fault_handler_stderr_fd_key, 2))


@pytest.fixture(autouse=True, scope="session")
def _nursery() -> Iterator[None]:
    """One for all tests."""
    Host.nursery = Nursery()
    yield
    Host.nursery.close()


@pytest_asyncio.fixture(autouse=True)
async def _no_host_survives() -> AsyncIterator[None]:
    """A failed test does not leave its hosts behind."""
    yield
    for host in list(Host.alive):
        await host.abandon()
