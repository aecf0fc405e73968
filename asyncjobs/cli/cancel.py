"""Cancel unfinished jobs: by ids, or all that pass filters. Running ones are asked to stop.

By filters only with --yes.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ..errors import IllegalMove
from ..rules.limits import KEY_MAX, check_text
from ..store.base import Cancel
from . import changing
from .asked import Asked
from .changing import Verb

if TYPE_CHECKING:
    from ..inventory import BulkResult
    from ..registry import Registry

NAME = "cancel"
HELP = "cancel jobs"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("--reason", metavar="TEXT", help="stands on the jobs; by default user")
    changing.add_options(parser)


def run(asked: Asked) -> int:
    """Cancel."""
    reason = asked.arguments.reason or ""
    if reason:
        check_text(reason, "reason", longest=KEY_MAX)
    verb = Verb("cancelled", Cancel(()), partial(_one, reason), partial(_every, reason))
    return changing.change(asked, verb)


async def _one(reason: str, registry: Registry, job_id: str, actor: str) -> str:
    answer = await registry.cancel(job_id, reason, actor=actor)
    if answer == "finished":
        raise IllegalMove(f"job {job_id} is finished; only unfinished jobs can be cancelled")
    return answer


async def _every(reason: str, registry: Registry, **options: object) -> BulkResult:
    return await registry.cancel_all(reason, **options)  # type: ignore[arg-type]
