"""Fixtures of the tests of workers."""

from __future__ import annotations

import pytest

from asyncjobs.running.executors.process import ahead, assigner


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is short enough for its worker to get more at once, however slow the machine is."""
    monkeypatch.setattr(ahead, "SHORT_SECONDS", 3600.0)
    monkeypatch.setattr(ahead, "LONG_SECONDS", 3600.0)
    monkeypatch.setattr(ahead, "AHEAD_SECONDS", 3600.0 * ahead.DEPTH_MAX)


@pytest.fixture
def _patient(_quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and nothing is taken back because it waits for long."""
    monkeypatch.setattr(assigner, "STALE_SECONDS", 60.0)
