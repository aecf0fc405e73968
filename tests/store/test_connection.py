"""What opening a database leaves behind when it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from asyncjobs import StoreUnavailable
from asyncjobs.store.sqlite.connection import connect


async def test_a_place_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.enumerate()

    with pytest.raises(StoreUnavailable):
        await connect(str(tmp_path))

    assert threading.enumerate() == before
