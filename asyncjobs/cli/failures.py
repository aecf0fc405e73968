"""Failed jobs, grouped by what they failed of: what failed last comes first.

Then retry one of a group by its id, and the others with: retry --fingerprint ... --yes
"""

from __future__ import annotations

import argparse
from functools import partial

from ..rules.limits import PAGE_MAX, check_integer
from ..store.failures import Failure
from ..store.sqlite.failing import failures
from .asked import Asked
from .screen import cut
from .times import when

NAME = "failures"
HELP = "group failed jobs by what they failed of"
LIMIT = 50
TEXT_MAX = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    most = f"at most so many groups, up to {PAGE_MAX:,}; by default {LIMIT}"
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=most)


def run(asked: Asked) -> int:
    """List the groups."""
    limit = check_integer(asked.arguments.limit, "limit", least=1, most=PAGE_MAX)
    groups = asked.database.look(partial(failures, limit=limit, kind=None))
    if asked.screen.as_json:
        asked.screen.document({"failures": groups})
    elif groups:
        asked.screen.table(
            ("FINGERPRINT", "JOBS", "TASK", "LAST", "FIRST", "JOB", "ERROR", "PLACE"),
            map(_row, groups),
        )
    return 0


def _row(group: Failure) -> tuple[str, ...]:
    error = f"{group.error_type}: {group.message}" if group.message else group.error_type
    return (
        group.fingerprint,
        f"{group.jobs:,}",
        group.task,
        when(group.last_at),
        when(group.first_at),
        group.job_id,
        cut(error, TEXT_MAX),
        cut(group.place, TEXT_MAX),
    )
