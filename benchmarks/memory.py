"""How much memory the engine holds, and whether it grows with the jobs it has run."""

from __future__ import annotations

from pathlib import Path

from .harness import Bar, Options, Row, child

TITLE = "resident memory of a fresh process that runs awaited no-op jobs, 1,000 producers"
MB = 1_000_000


def run(options: Options) -> list[Row]:
    """Measure one process after more and more jobs, and one that only imports."""
    counts = options.pick(
        smoke=[1_000, 2_000],
        quick=[1_000, 30_000],
        normal=[1_000, 100_000],
        full=[1_000, 100_000, 1_000_000],
    )
    bare = child("memory", "--bare")["bare"] / MB
    with options.folder() as folder:
        found = child("memory", Path(folder) / "jobs.db", *counts)
    held = [found["held"][str(count)] / MB for count in counts]
    rows = [
        Row(what=f"growth from {counts[0]:,} to {counts[1]:,} jobs",
            value=held[1] - held[0], unit="MB", bar=Bar(2, of="value", least=False)),
        Row(what=f"resident after {counts[-1]:,} jobs, against interpreter and dependencies alone",
            value=held[-1], unit="MB", floor=bare, bar=Bar(45, of="value", least=False)),
        Row(what="its peak", value=found["peak"] / MB, unit="MB", floor=bare),
    ]  # fmt: skip
    if len(counts) > 2:
        rows.insert(1, Row(what=f"growth from {counts[1]:,} to {counts[2]:,} jobs",
                           value=held[2] - held[1], unit="MB",
                           bar=Bar(5, of="value", least=False)))  # fmt: skip
    return rows
