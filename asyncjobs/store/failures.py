"""Dead letters by kind, as a store tells of them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from msgspec import Struct


class Failure(Struct, frozen=True, kw_only=True):
    """Jobs that failed alike and are failed still, as ``registry.failures`` shows them."""

    fingerprint: str
    """Of task, type of exception, and place."""
    task: str
    error_type: str
    place: str
    """``module:function:line`` in the innermost frame of the user's own code; empty for timeouts
    and crashes."""
    jobs: int
    first_at: datetime
    """When a job failed so for the first time; those that were retried or deleted count as well."""
    last_at: datetime
    job_id: str
    """The one of them that failed last."""
    message: str
    """Its error's."""


class Failing(Protocol):
    """The part of a store that groups failed jobs."""

    async def failures(self, *, limit: int, fingerprint: str | None = None) -> list[Failure]:
        """Kinds of failures that have failed jobs, or one of them; what failed last comes first."""
        ...
