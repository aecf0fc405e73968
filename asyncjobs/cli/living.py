"""Which runner processes are alive, for who has none of their locks open."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from .checkup import LEASE_SECONDS


def living(database: str) -> Callable[[str], bool]:
    """Tells of an instance of the database whether it lives."""

    @cache
    def is_alive(instance: str) -> bool:
        # Only here: locks bring asyncio along.
        from ..services.instance import Neighbours

        try:
            return Neighbours(f"{database}-runners", LEASE_SECONDS).is_alive(instance)
        except OSError:  # another user's: somebody has it
            return True

    return is_alive
