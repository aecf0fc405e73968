"""The tasks of the demo."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from asyncjobs import Fail, Tasks, current_job

from .ledger import Ledger, Witness
from .plan import Plan
from .report import Contents, render
from .source import FileFacts, Unparsable, facts_of

PLAN = "ASYNCJOBS_DEMO_PLAN"
"""Where the host says which plan it carries out, also to its workers."""
EXECUTOR = "ASYNCJOBS_DEMO_EXECUTOR"
HOST = "ASYNCJOBS_DEMO_HOST"

tasks = Tasks()


@tasks.resource
def witness() -> Iterator[Witness]:
    """Who writes down what starts; in each worker, and in the host."""
    # Of the files that are parsed: old code is full of invalid escapes.
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    plan = Plan.load(os.environ[PLAN])
    yield Witness(Ledger(plan.folder), crash_at=plan.crash_at, host=int(os.environ[HOST]))


@tasks.task(name="demo.index_file", executor=os.environ.get(EXECUTOR, "process"))
def index_file(path: str) -> FileFacts:
    """Count what stands in one file: work for the CPU, so it runs in subprocesses.

    Raises:
        Fail: the file cannot be parsed, and trying again would not help.
    """
    witness.get().started(current_job().id)
    try:
        return facts_of(path)
    except Unparsable as error:
        raise Fail(str(error)) from error


@tasks.task(name="demo.write_report")
async def write_report(run: str, directory: str, target: str) -> str:
    """Collect the results of all files of ``run``, write the report, and return its path.

    Harmless to repeat: a crash within it leaves no half a report.
    """
    page = render(await _collect(run, directory))
    await asyncio.to_thread(_replace, Path(target), page)
    return target


async def _collect(run: str, directory: str) -> Contents:
    jobs = write_report.runner().registry.iterate(tag=run, task=index_file.name)
    completed = []
    contents = Contents(run, directory)
    async for job in jobs:
        contents.restarted += job.crashes > 0
        if job.state == "completed":
            completed.append(index_file.handle(job.id))
        else:
            path = str((job.arguments or {}).get("path"))
            contents.failed.append((path, job.error.message if job.error else str(job.reason)))
    contents.files = await asyncio.gather(*(handle.result() for handle in completed))
    return contents


def _replace(target: Path, page: str) -> None:
    unfinished = target.with_suffix(".tmp")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, target)
