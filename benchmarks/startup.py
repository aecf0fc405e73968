"""How long ``import asyncjobs`` takes."""

from __future__ import annotations

from .harness import Bar, Options, Row, child, median

TITLE = "imports in fresh interpreters, on top of the dependencies"


def run(options: Options) -> list[Row]:
    """Import in many fresh interpreters; the medians."""
    times = options.pick(smoke=1, quick=7, normal=31)
    with options.folder() as cache:
        child("startup", cache=cache)  # compiles everything
        found = [child("startup", cache=cache) for _ in range(times)]
    dependencies = median(one["dependencies"] for one in found) * 1e3
    most = Bar(20, of="value", least=False)
    return [
        Row(what=f"from asyncjobs import Runner, median of {times}, dependencies loaded",
            value=median(one["package"] + one["runner"] for one in found) * 1e3, unit="ms",
            floor=dependencies, bar=most),
        Row(what="import asyncjobs alone",
            value=median(one["package"] for one in found) * 1e3, unit="ms",
            floor=dependencies, bar=most),
    ]  # fmt: skip
