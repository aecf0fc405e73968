"""The process that runs the jobs: ``python -m asyncjobs.demo.host PLAN``.

The first one is killed half-way. The second does exactly the same: whatever it finds done is not
done again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from asyncjobs import AsyncJobsError, JobError, JobHandle, Runner, StoreUnavailable

from .ledger import Ledger
from .plan import Plan
from .progress import Progress
from .source import FileFacts
from .tasks import HOST, index_file, tasks, write_report

BULK = 10_000
GRACE_SECONDS = 1.0


def main() -> int:
    """Run the jobs of the plan: 0 done, 1 failed, 2 the database cannot be used, 130 told to end.

    Standard input is the line to the parent: when it closes, the host ends.
    """
    plan = Plan.load(sys.argv[1])
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(filename=plan.log, level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ[HOST] = str(os.getpid())
    try:
        asyncio.run(_run(plan))
    except asyncio.CancelledError:
        return 130
    except AsyncJobsError as error:
        print(f"asyncjobs demo: {error}", file=sys.stderr)
        return 2 if isinstance(error, StoreUnavailable) else 1
    return 0


async def _run(plan: Plan) -> None:
    _end_with_parent()
    ledger = Ledger(plan.folder)
    runner = Runner(
        plan.database,
        queues=[plan.run],
        grace=GRACE_SECONDS,
    )
    runner.include(tasks)
    async with runner:
        handles = await _attach(runner, plan, ledger)
        await _follow(handles)
        report = write_report.options(queue=plan.run, tags=[plan.run], key=plan.run)
        handle = await report.enqueue(plan.run, plan.directory, plan.report)
        ledger.accept([handle.id])
        await handle


def _end_with_parent() -> None:
    """Stop in order when the parent is gone, however it went: no orphan goes on working."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def leave() -> None:
        loop.remove_reader(sys.stdin.fileno())
        task.cancel()

    loop.add_reader(sys.stdin.fileno(), leave)


async def _attach(runner: Runner, plan: Plan, ledger: Ledger) -> list[JobHandle[FileFacts]]:
    """Handles of all files' jobs: of those that are there by their tag, the others enqueued."""
    found = [job async for job in runner.registry.iterate(tag=plan.run, task=index_file.name)]
    known = {job.key for job in found}
    handles = [index_file.handle(job.id) for job in found]
    missing = [
        index_file.options(queue=plan.run, tags=[plan.run], key=key).job(f"{plan.directory}/{name}")
        for number, name in enumerate(plan.files)
        if (key := f"{plan.run}/{number}") not in known
    ]
    for start in range(0, len(missing), BULK):
        accepted = await runner.enqueue_many(missing[start : start + BULK])
        ledger.accept(handle.id for handle in accepted)
        handles += accepted
    if found:
        finished = sum(job.finished for job in found)
        cut_off = sum(job.crashes > 0 for job in found)
        print(
            f"Found {len(found):,} jobs by tag {plan.run}: {finished:,} finished, {cut_off} cut "
            f"off by the crash. Enqueued {len(missing)} more.",
            flush=True,
        )
    return handles


async def _follow(handles: list[JobHandle[FileFacts]]) -> None:
    progress = Progress(len(handles), sys.stdout)

    async def follow(handle: JobHandle[FileFacts]) -> None:
        failed = False
        try:
            await handle
        except JobError:
            failed = True  # its reason is in the registry; the report lists it
        progress.advance(failed=failed)

    await asyncio.gather(*map(follow, handles))
    progress.close()


if __name__ == "__main__":
    sys.exit(main())
