"""List what was done by hand, the last first: who changed what, and how many jobs that were."""

from __future__ import annotations

import argparse
from functools import partial

from ..inventory import AuditEntry
from ..rules.limits import PAGE_MAX, check_integer
from ..store.sqlite.overview import audit
from .asked import Asked
from .screen import cut, to_json
from .times import when

NAME = "audit"
HELP = "list what was done by hand, and by whom"
LIMIT = 50
TEXT_MAX = 120


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    most = f"at most so many entries, up to {PAGE_MAX:,}; by default {LIMIT}"
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=most)
    parser.add_argument("--before", type=int, metavar="POSITION", help="go on before this entry")


def run(asked: Asked) -> int:
    """List the entries."""
    arguments, screen = asked.arguments, asked.screen
    limit = check_integer(arguments.limit, "limit", least=1, most=PAGE_MAX)
    if arguments.before is not None:
        check_integer(arguments.before, "before", least=1, most=2**63 - 1)
    found = asked.database.look(partial(audit, limit=limit + 1, before=arguments.before))
    shown = found[:limit]
    before = shown[-1].position if len(found) > limit else None
    if screen.as_json:
        screen.document({"audit": shown, "before": before})
        return 0
    if shown:
        screen.table(("AT", "ACTOR", "ACTION", "CHANGED", "WHAT"), map(_row, shown))
    if before is not None:
        screen.note(f"there are more: --before {before}")
    return 0


def _row(entry: AuditEntry) -> tuple[str, ...]:
    changed = f"{entry.changed:,}"
    return (
        when(entry.at),
        entry.actor or "",
        entry.action,
        changed if not entry.skipped else f"{changed} of {entry.matched:,}",
        cut(to_json(entry.what), TEXT_MAX),
    )
