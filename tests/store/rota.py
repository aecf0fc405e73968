"""A store's schedules, and short words for what the tests do to them."""

from __future__ import annotations

from typing import Any

from asyncjobs import Every, Schedule
from asyncjobs.records import Job, NewJob
from asyncjobs.rules.schedule import check_plan, check_template, make_plan
from asyncjobs.store.base import Filter
from asyncjobs.store.schedules import Create, Declare, Declared, Synced, Tick, Ticked

from .kit import Desk


class Rota:
    """A desk, and short words for its schedules."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.store = desk.store
        self.clock = desk.clock

    def given(self, name: str = "s", *, job: NewJob[Any] | None = None, **options: Any) -> Declared:
        """A schedule of every minute, if not said otherwise."""
        template = check_template(name, job or self.desk.job())
        return Declared(name, make_plan(check_plan({"when": Every(60), **options})), template)

    async def create(self, name: str = "s", **options: Any) -> None:
        """Keep one."""
        assert await self.desk.do(Create(self.given(name, **options))) == "done"

    async def declare(self, *given: Declared, instance: str = "here", others: Any = ()) -> Synced:
        """Say what an instance has in its code."""
        synced: Synced = await self.desk.do(Declare(instance, given, others))
        return synced

    async def tick(self, seconds: float = 0.0, **options: Any) -> Ticked:
        """Let time pass, and tick."""
        self.clock.advance(seconds)
        ticked: Ticked = await self.desk.do(Tick(**options))
        return ticked

    async def get(self, name: str = "s") -> Schedule:
        """One that is there."""
        found = await self.store.schedule(name)
        assert found is not None
        return found

    async def jobs(self, name: str = "s") -> list[Job]:
        """Its jobs, oldest first."""
        what = Filter(trigger=f"schedule:{name}")
        return (await self.store.list(what, order="oldest", limit=1_000, cursor=None)).jobs

    async def last(self, name: str = "s") -> str:
        """The id of its last job."""
        last = (await self.get(name)).last_run
        assert last is not None
        return last.job_id
