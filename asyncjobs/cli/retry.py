"""Run finished jobs again, from their first attempt: by ids, or all that pass filters.

By filters the failed ones, unless --state says otherwise; and only with --yes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store.base import Requeue
from . import changing
from .asked import Asked
from .changing import Verb

if TYPE_CHECKING:
    from ..inventory import BulkResult
    from ..registry import Registry

NAME = "retry"
HELP = "run finished jobs again"
add_options = changing.add_options


def run(asked: Asked) -> int:
    """Retry."""
    return changing.change(asked, Verb("retried", Requeue(()), _one, _every))


async def _one(registry: Registry, job_id: str, actor: str) -> str:
    await registry.retry(job_id, actor=actor)
    return "retried"


async def _every(registry: Registry, **options: object) -> BulkResult:
    return await registry.retry_all(**options)  # type: ignore[arg-type]
