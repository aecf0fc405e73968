"""Delete jobs that do not run, with all that hangs on them: by ids, or all that pass filters.

By filters only with --yes. A key of theirs is free then: the same call would make a new job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store.base import Delete
from . import changing
from .asked import Asked
from .changing import Verb

if TYPE_CHECKING:
    from ..inventory import BulkResult
    from ..registry import Registry

NAME = "delete"
HELP = "delete jobs"
add_options = changing.add_options


def run(asked: Asked) -> int:
    """Delete."""
    return changing.change(asked, DELETE)


async def _one(registry: Registry, job_id: str, actor: str) -> str:
    await registry.delete(job_id, actor=actor)
    return "deleted"


async def _every(registry: Registry, **options: object) -> BulkResult:
    return await registry.delete_all(**options)  # type: ignore[arg-type]


DELETE = Verb("deleted", Delete(()), _one, _every)
