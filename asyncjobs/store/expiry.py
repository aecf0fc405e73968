"""Jobs that nobody started in time: what ends them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Expire(Struct, frozen=True):
    """Cancel waiting jobs whose time to be started is over, at most ``limit``.

    Result: ``(id, outcome)`` of each.
    """

    limit: int


class Expiring(Protocol):
    """The part of a store that says when to look for such jobs."""

    expiry_written: bool
    """Set when a job that expires was written, and at first; for who looks to unset."""

    async def next_expiry(self) -> int | None:
        """When the next waiting job expires, or since when one has; ``None`` when none will."""
        ...
