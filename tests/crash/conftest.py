"""Crash tests: where stacks of hangs are shown, and the marker's larger numbers."""

from __future__ import annotations

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from oracles import show_stacks_at


@pytest.fixture(autouse=True, scope="session")
def _stacks_on_the_terminal(request: pytest.FixtureRequest) -> None:
    """A hang ends the process: what pytest has captured until then would be lost."""
    show_stacks_at(request.config.stash.get(fault_handler_stderr_fd_key, 2))
