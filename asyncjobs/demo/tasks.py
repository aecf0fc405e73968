"""The tasks of the demo."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from asyncjobs import Fail, Tasks, current_job

from .report import Contents, render
from .source import FileFacts, Unparsable, facts_of

tasks = Tasks()


@tasks.task(name="demo.index_file")
def index_file(path: str) -> FileFacts:
    """Count what stands in one file. A plain ``def``: it runs in a thread, beside the event loop.

    Raises:
        Fail: the file cannot be parsed, and trying again would not help.
    """
    job = current_job()
    job.state.started(job.id)
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
