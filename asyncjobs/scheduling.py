"""Schedules as applications see them: declared in code, or made and changed while they run."""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Never

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from .clock import new_id
from .errors import IllegalMove, InvalidOption, ScheduleExists, UnknownSchedule
from .intake import check_job
from .records import NewJob
from .rules.limits import check_text, unknown_option
from .rules.schedule import (
    SCHEDULE_NAME_MAX,
    check_plan,
    check_template,
    make_plan,
)
from .store.overview import AuditNote
from .store.schedules import (
    Create,
    Declared,
    Pause,
    Remove,
    Resume,
    RunNow,
    Scheduling,
    Update,
)

if TYPE_CHECKING:
    from .handle import JobHandle
    from .rules.timetable import At, Cron, Every
    from .runner import Runner


class ScheduleRegistrar:
    """What ``Runner`` and ``Tasks`` share: ``schedule``."""

    def __init__(self) -> None:
        self._schedules: dict[str, Declared] = {}

    def schedule(
        self,
        name: str,
        when: Cron | Every | At,
        job: NewJob[Any],
        *,
        catch_up: str = "latest",
        overlap: str = "queue",
        jitter: float | timedelta = 0.0,
        until: datetime | None = None,
        max_runs: int | None = None,
        **unknown: Never,
    ) -> None:
        """Declare that ``job`` is to be run again and again, or once: before the runner starts.

        Each time makes one job, in one process, however many run this code.

        Args:
            name: up to 200 characters; it stays, also over changes of the rest.
            when: ``Cron(...)``, ``Every(...)`` or ``At(...)``.
            job: ``task.job(...)`` or ``task.options(...).job(...)``: each job is made like it.
            catch_up: what to make of times that passed while nothing ran: ``latest``: one job, for
                the newest; ``all``: one each, for the newest 1,000; ``none``: nothing, once
                a time is more than a minute past.
            overlap: what a time brings while the last job has not finished: ``queue``: its job
                waits for that; at most one does, the newest, but with ``catch_up="all"`` each in
                its turn; ``skip``: nothing; ``allow``: its job all the same.
            jitter: each job is due up to so much later than its time, by a number that name and
                time determine; seconds or timedelta. Longer than from one time to the next only
                with ``overlap="allow"``.
            until: an aware datetime: the last possible time.
            max_runs: it ends when it has made so many jobs.

        Raises:
            InvalidOption: naming the option and its value.
            ScheduleExists: another one has the name.
        """
        if unknown:
            raise unknown_option(unknown, ScheduleRegistrar.schedule, "schedule()")
        options = {
            "when": when, "catch_up": catch_up, "overlap": overlap, "jitter": jitter,
            "until": until, "max_runs": max_runs,
        }  # fmt: skip
        self._add_schedule(_declared(name, options, job))

    def _add_schedule(self, schedule: Declared) -> None:
        if self._schedules.setdefault(schedule.name, schedule) is not schedule:
            raise ScheduleExists(f"two schedules are named {schedule.name!r}; rename one of them")


def check_declared(schedules: Iterable[Declared], tasks: Container[str]) -> list[Declared]:
    """The schedules that a runner is to start with.

    Raises:
        UnknownTask: the task of one does not belong to the runner.
    """
    schedules = list(schedules)
    for schedule in schedules:
        check_job(schedule.job, tasks, what=f"schedule {schedule.name!r}")
    return schedules


class Schedules:
    """``runner.schedules``: make, change and delete schedules while the program runs.

    From any process on the file, also ``runner.client()``; it holds for all of them at once. What
    ``runner.schedule`` declares can be paused, resumed and run now, and is changed in the code.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def create(
        self,
        name: str,
        when: Cron | Every | At,
        job: NewJob[Any],
        *,
        catch_up: str = "latest",
        overlap: str = "queue",
        jitter: float | timedelta = 0.0,
        until: datetime | None = None,
        max_runs: int | None = None,
        actor: str | None = None,
        **unknown: Never,
    ) -> None:
        """Make a schedule; it is on disk when this returns. The options are ``schedule``'s.

        Args:
            actor: who asks; then it is noted in the audit.

        Raises:
            ScheduleExists: there is one of the name.
            InvalidOption: naming the option and its value; also for a time or ``until`` that is
                past.
            UnknownTask: the task does not belong to this runner.
            RunnerNotStarted, StoreError: as :meth:`Runner.enqueue`.
        """
        if unknown:
            raise unknown_option(unknown, Schedules.create, "create()")
        options = {
            "when": when, "catch_up": catch_up, "overlap": overlap, "jitter": jitter,
            "until": until, "max_runs": max_runs,
        }  # fmt: skip
        schedule = _declared(name, options, job)
        check_job(schedule.job, self._runner.tasks, what=f"schedule {name!r}")
        if await self._write(Create(schedule, self._note(name, actor))) == "exists":
            found = await self._runner.engine().store.schedule(name)
            raise ScheduleExists(
                f"there is a schedule {name!r} already, declared in code: change it there, or give "
                "another name"
                if found is not None and found.origin == "code"
                else f"there is a schedule {name!r} already; update it, or delete it first"
            )

    async def update(
        self,
        name: str,
        *,
        when: Cron | Every | At | UnsetType = UNSET,
        job: NewJob[Any] | UnsetType = UNSET,
        catch_up: str | UnsetType = UNSET,
        overlap: str | UnsetType = UNSET,
        jitter: float | timedelta | UnsetType = UNSET,
        until: datetime | UnsetType | None = UNSET,
        max_runs: int | UnsetType | None = UNSET,
        actor: str | None = None,
        **unknown: Never,
    ) -> None:
        """Change what is given, and leave the rest. With another ``when`` it goes on from now.

        Args:
            actor: who asks; the audit has the names of what was changed.

        Raises:
            UnknownSchedule: there is none of the name.
            IllegalMove: it is declared in code: change it there.
            InvalidOption, UnknownTask: as :meth:`create`; also when there is nothing to set.
            RunnerNotStarted, StoreError: as :meth:`Runner.enqueue`.
        """
        if unknown:
            raise unknown_option(unknown, Schedules.update, "update()")
        given = {
            "when": when, "catch_up": catch_up, "overlap": overlap, "jitter": jitter,
            "until": until, "max_runs": max_runs,
        }  # fmt: skip
        options = {option: value for option, value in given.items() if value is not UNSET}
        if not options and job is UNSET:
            raise InvalidOption(
                f"update of schedule {name!r} has nothing to set: give when=, job=, catch_up=, "
                "overlap=, jitter=, until= or max_runs="
            )
        template = None
        if job is not UNSET:
            check_job(job, self._runner.tasks, what=f"schedule {name!r}")
            template = check_template(name, job)
        checked = Update(_check_name(name), check_plan(options), template)
        changed = sorted([*options, *([] if template is None else ["job"])])
        note = self._note(name, actor, changed=changed)
        await self._change(replace(checked, note=note))

    async def pause(self, name: str, *, actor: str | None = None) -> None:
        """Let it rest: no time brings a job until it is resumed. A job that runs goes on.

        Args:
            actor: who asks; then it is noted in the audit.

        Raises:
            UnknownSchedule: there is none of the name.
            RunnerNotStarted, StoreError: as :meth:`Runner.enqueue`.
        """
        await self._change(Pause(_check_name(name), self._note(name, actor)))

    async def resume(self, name: str, *, actor: str | None = None) -> None:
        """Let it go on, with its next time from now: what it has rested over is not made up for.

        Raises:
            UnknownSchedule: there is none of the name.
            RunnerNotStarted, StoreError: as :meth:`Runner.enqueue`.
        """
        await self._change(Resume(_check_name(name), self._note(name, actor)))

    async def run_now(self, name: str, *, actor: str | None = None) -> JobHandle[Any]:
        """Enqueue one of its jobs at once, whatever runs, and also while it rests.

        It counts neither as a run nor for ``max_runs``; its ``scheduled_for`` is now.

        Raises:
            UnknownSchedule: there is none of the name.
            RunnerNotStarted, StoreError: as :meth:`Runner.enqueue`.
        """
        job_id = await self._write(RunNow(_check_name(name), self._note(name, actor)))
        if job_id is None:
            raise unknown_schedule(name)
        return self._runner.handle(job_id)

    async def delete(self, name: str, *, actor: str | None = None) -> None:
        """Delete it. Its jobs stay, also those that run or wait in a queue.

        Raises:
            UnknownSchedule: there is none of the name.
            IllegalMove: it is declared in code: take it out there.
            RunnerNotStarted, StoreError: as :meth:`Runner.enqueue`.
        """
        await self._change(Remove(_check_name(name), self._note(name, actor)))

    def _note(self, name: str, actor: str | None, **more: Any) -> AuditNote | None:
        if actor is None:
            return None
        what = msgspec.json.encode({"schedule": name, **more}).decode()
        return AuditNote(new_id(self._runner.clock.now()), check_text(actor, "actor"), what)

    async def _change(self, operation: Update | Pause | Resume | Remove) -> None:
        answer = await self._write(operation)
        if answer == "missing":
            raise unknown_schedule(operation.name)
        if answer == "code":
            raise IllegalMove(
                f"schedule {operation.name!r} is declared in code, and the next start would undo "
                "this: change it there; it can be paused and resumed here"
            )

    async def _write(self, operation: Scheduling) -> Any:
        engine = self._runner.engine()
        writing = engine.commit.execute(operation)
        # Also when who awaits it is cancelled: it may be written all the same.
        writing.add_done_callback(lambda _: self._tell())
        return await writing

    def _tell(self) -> None:
        engine = self._runner.engine()
        engine.scheduler.look()
        engine.dispatcher.wake()
        engine.bell.tell_schedules()
        engine.bell.tell_jobs()


def _declared(name: str, options: dict[str, Any], job: NewJob[Any]) -> Declared:
    _check_name(name)
    template = check_template(name, job)
    return Declared(name, make_plan(check_plan(options)), template)


def _check_name(name: object) -> str:
    return check_text(name, "name", longest=SCHEDULE_NAME_MAX)


def unknown_schedule(name: str) -> UnknownSchedule:
    """What to raise for a name that no schedule has."""
    return UnknownSchedule(
        f"no schedule {name!r} is in the database; see the list of schedules for its name"
    )
