"""Dead letters by kind, as a store tells of them."""

from __future__ import annotations

from typing import Protocol

from ..records import Failure


class Failing(Protocol):
    """The part of a store that groups failed jobs."""

    async def failures(self, *, limit: int, fingerprint: str | None = None) -> list[Failure]:
        """Kinds of failures that have failed jobs, or one of them; what failed last comes first."""
        ...
