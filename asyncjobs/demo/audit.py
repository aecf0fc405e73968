"""What a sceptic wants to know, asked of a runner that had no part in the work."""

from __future__ import annotations

from dataclasses import dataclass

from asyncjobs import Runner

from .ledger import Ledger
from .plan import Plan


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The registry held against the ledger."""

    accepted: int
    completed: int
    failed: int
    restarted: int
    """Jobs that a crash cut off and that were started again."""
    lost: int
    """Accepted jobs that have no row, or no outcome."""
    enqueued_twice: int
    """Rows beyond one for each file and one for the report."""
    run_twice: int
    """Jobs whose code ran more often than crashes explain."""
    violations: int
    """Broken invariants that ``registry.check()`` found."""

    @property
    def passed(self) -> bool:
        """True when every promise was kept."""
        return not (self.lost or self.enqueued_twice or self.run_twice or self.violations)


async def audit(plan: Plan) -> Audit:
    """Compare what was accepted and started with what the database says."""
    ledger = Ledger(plan.folder)
    async with Runner(plan.database, queues=[plan.run]) as runner:
        jobs = {job.id: job async for job in runner.registry.iterate(tag=plan.run)}
        violations = await runner.registry.check()
    accepted = ledger.accepted()
    done = {job_id for job_id, job in jobs.items() if job.finished}
    crashes = {job_id: job.crashes for job_id, job in jobs.items()}
    starts = ledger.starts()
    return Audit(
        accepted=len(accepted),
        completed=sum(job.state == "completed" for job in jobs.values()),
        failed=sum(job.state == "failed" for job in jobs.values()),
        restarted=sum(count > 0 for count in crashes.values()),
        lost=len(accepted - done),
        enqueued_twice=max(0, len(jobs) - len(plan.files) - 1),
        run_twice=sum(count > 1 + crashes.get(job_id, 0) for job_id, count in starts.items()),
        violations=len(violations),
    )
