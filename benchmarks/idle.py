"""What a runner costs that has nothing to do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .harness import Bar, Options, Row, child

TITLE = "a runner with nothing to do, against the floor with nothing to do"


def run(options: Options) -> list[Row]:
    """Let engine and floor idle side by side, each in a process of its own."""
    seconds = options.pick(smoke=1, quick=5, normal=30, full=120)
    with options.folder() as folder, ThreadPoolExecutor() as pool:
        engine, floor = pool.map(
            lambda kind: child("idle", kind, Path(folder) / f"{kind}.db", seconds),
            ("engine", "floor"),
        )
    return [
        Row(what=f"CPU seconds a minute, over {seconds} s",
            value=engine["cpu_a_minute"], unit="s", floor=floor["cpu_a_minute"],
            bar=Bar(0.1, of="value", least=False)),
        Row(what="wake-ups of the busiest thread",
            value=engine["busiest"], unit="/s", floor=floor["busiest"],
            bar=Bar(1, of="value", least=False)),
        Row(what="wake-ups of all threads", value=engine["all"], unit="/s", floor=floor["all"]),
    ]  # fmt: skip
