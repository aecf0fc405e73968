"""A file that may not grow any more, by the kernel's word: needs a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracles import deadline, nothing_left

from .hosts import Host


@pytest.mark.proof
async def test_a_file_size_limit_is_survived_and_nothing_is_lost(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    async with deadline(60), nothing_left(database):
        host = await Host.start("limited", database)
        words = [await host.line() for _ in range(4)]
        code, log = await host.ended()
    assert words == ["refused", "kept", "room", "clean"], log
    assert code == 0
