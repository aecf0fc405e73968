"""Claims jobs for free slots, runs them, and reports how they ended.

A slot is given back when the job's code has returned; the outcome is on its way to disk by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from random import Random
from typing import Any

from msgspec import json
from msgspec.structs import replace

from ..clock import Clock
from ..errors import InvalidResult
from ..records import Outcome, Transition
from ..rules.limits import FLUSH_ROWS_MAX
from ..rules.outcome import Happened, Released, cancelled_instead, decide
from ..rules.window import closed_until, due_in_window
from ..running.context import Run, RunnableTask
from ..running.ending import (
    log_error,
    log_keyless,
    log_late,
    log_stubborn,
    log_unstoppable,
    refusal_happened,
    timeout_happened,
)
from ..running.executors.base import Executor, Setting
from ..running.files import FileFolder
from ..running.mailbox import Mailbox, Mailboxes
from ..states import FINISHED, Event, State
from ..store.base import Claim, ClaimResult
from ..store.group_commit import GroupCommit
from .completer import Completer
from .doorbell import Doorbell
from .notepad import NotePad
from .slots import Slots
from .tally import Tally

INTERRUPTS_MAX = 5
"""How often a job that swallows cancellation is told to stop before it is left to itself."""
FIRST_INTERRUPT_SECONDS = 0.05
"""Until it is told again; twice as long each time, so the last comes after 0.75 s."""
STOP_SECONDS = 1.2
"""How long a stopping runner waits for interrupted jobs after their grace is over."""

log = logging.getLogger("asyncjobs")


class Dispatcher:
    """The engine's middle: from claimed rows to reported outcomes."""

    _unseen: Mapping[tuple[str, int], tuple[int, int]] = {}
    """Where the next claim goes on in levels that the last one did not see to the end."""
    _capped: frozenset[str] = frozenset()
    """Queues of which the end of a run makes room for another, as the last claim found them."""
    _grace: asyncio.Future[None] | None = None
    _hurried = False

    def __init__(
        self,
        *,
        tasks: Mapping[str, RunnableTask],
        slots: Mapping[str, int],
        executors: Callable[[Setting], Iterable[Executor]],
        queues: tuple[str, ...] | None,
        instance: str,
        commit: GroupCommit[Run],
        mailboxes: Mailboxes,
        bell: Doorbell,
        completer: Completer,
        files: FileFolder,
        clock: Clock,
        random: Random,
        state: Any,
        loop_block_seconds: float,
    ) -> None:
        self.instance = instance
        self.state = state
        self.completer = completer
        self.files = files
        self.random = random
        self.loop_block_seconds = loop_block_seconds
        self.tally = Tally()
        self.draining = False
        self.stopped = False
        self.on_last_return: Callable[[], None] | None = None
        """Called when the last of the runs has returned that a stop had to leave behind."""
        self.notepad = NotePad(commit)
        self._tasks = tasks
        self._slots = Slots(slots, look=commit.look, wake=self.wake)
        self._queues = queues
        self._commit = commit
        self._mailboxes = mailboxes
        self._bell = bell
        self._clock = clock
        self.now = clock.now
        self._loop = asyncio.get_running_loop()
        self.context = copy_context()
        """In which the runner was started; each job runs in a fresh copy of it."""
        self._executors = {executor.name: executor for executor in executors(self)}
        self._runs: dict[int, Run] = {}
        """Runs without an outcome on disk, by the job's seq."""
        self._leftovers: set[Run] = set()
        """Runs that were given up but have not returned. Their jobs may have newer runs."""
        self._keyless: set[str] = set()
        """Tasks without a limit whose jobs wanted their whole key to wait."""
        self._due = True
        """Due jobs may be waiting that no claim of ours has seen."""
        self._timer: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._forget_move = clock.on_move(self.wake)
        self._known = {name: task.executor for name, task in tasks.items()}

    def learn(self, task: RunnableTask) -> None:
        """Run jobs of one more task from now on."""
        # A new dict: the writer's thread may be reading the one that its claim was given.
        self._known = {**self._known, task.name: task.executor}
        self.wake()

    def takes(self) -> str:
        """Its queues and slots as JSON, for those who want to know what a job waits for."""
        return json.encode({"queues": self._queues, "slots": self._slots.total}).decode()

    # Claiming

    def wake(self) -> None:
        """Look for due jobs: time has come, or somebody else has written."""
        self._due = True
        self._commit.look()

    def claim_request(self, *, new_jobs: bool) -> Claim | None:
        """What to claim now: nothing while nothing new can be found."""
        if self.draining:
            return None
        self._due = bool(self._known) and (self._due or new_jobs)
        slots = self._slots
        if not (self._due or slots.wanted):
            return None
        room = {name: min(free, FLUSH_ROWS_MAX) for name, free in slots.room.items() if free > 0}
        if not room:
            return None
        self._due = False
        slots.ask(room)
        return Claim(
            self.instance, self._known, room, self._queues, self._unseen, slots.probation_asked
        )

    def claimed(self, result: ClaimResult) -> None:
        """Run what was claimed, and remember when to look again."""
        self._slots.answered()
        self._slots.waiting, self._unseen = result.waiting, result.resume
        self._capped = result.capped
        if result.waiting or result.parked or result.left:
            self._bell.tell_jobs()
        for name, jobs in result.parked.items():
            log.warning(
                "%d due jobs of task %r wait: this runner does not have it; include it, or keep "
                "its former name with name=", jobs, name,
            )  # fmt: skip
        if result.expired:
            self.ended_elsewhere(result.expired)
        for job in result.jobs:
            task = self._tasks[job.task]
            if job.claim > 1:
                self._supersede(job.seq)
            self._runs[job.seq] = run = Run.of(job, task, self)
            closed = job.options is not None and closed_until(job.options, self.now())
            if self.draining or closed:
                run.ended = True  # else it counts as code of ours that does not stop
                self._report(run, Released("shutdown" if self.draining else "window"))
                continue
            self._slots.take(run)
            executor = self._executors[task.executor]
            if not executor.forceful:
                self.begins(run)
            executor.start(run)
        self.tally.started += len(result.jobs)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if result.next_run_at is not None and not self.draining:
            seconds = self._clock.seconds_until(result.next_run_at)
            if seconds is not None:
                self._timer = self._loop.call_later(seconds, self.wake)
        if self._slots.wanted:
            self._commit.look()
        self._slots.resume()
        self._check_quiet()

    def missed(self) -> None:
        """Jobs were written that no claim has looked for, or a claim was not written."""
        self._due = True
        self._slots.answered()
        self._bell.tell_jobs()
        self._slots.resume()
        self._check_quiet()

    def begins(self, run: Run) -> None:
        """Its code begins: count its time."""
        if run.timeout is not None:
            if run.timer is not None:  # its first worker has ended before it could begin
                run.timer.cancel()
            run.timer = self._loop.call_later(run.timeout, self._time_out, run)

    # Ending

    def ended(self, run: Run, happened: Happened) -> None:
        """A job's code has returned: report its outcome, free its slot."""
        if run.timer is not None:
            run.timer.cancel()
        if run.reminder is not None:
            run.reminder.cancel()
        if run.given_up:
            self._ended_late(run)
        else:
            self._report(run, happened)
        run.ended = True
        if run.job.crashes:  # nobody else is on probation
            self._slots.leave_probation(run)
        # The task's context holds the run: a circle, which would leave eight objects a job to the
        # garbage collector, and the collector with a tenth of the time.
        run.asyncio_task = None
        if not run.lending:
            self._slots.release(run.task.executor)

    def _report(self, run: Run, happened: Happened) -> None:
        job = run.job
        transition = decide(job, happened, self.now(), cancel_requested=run.stop_reason == "user")
        if transition.run_at is not None and job.options is not None:
            due_at = due_in_window(job.options, transition.run_at, transition.at)
            transition = replace(transition, run_at=due_at)
        if transition.error is not None and not run.completes_in:
            log_error(run, transition.error, transition.event)
        if transition.key_opens_at is not None and not run.limited:
            if job.task not in self._keyless:
                log_keyless(run)
            self._keyless.add(job.task)
        if run.adds:
            transition = run.complement(transition)
        if run.limited or job.queue in self._capped:
            self._due = True  # the claim that goes with this report finds the room that it makes
        self._commit.report(transition, run)

    def _ended_late(self, run: Run) -> None:
        self.tally.late_values += 1
        log_late(run)
        run.cause = None
        self._leftovers.discard(run)
        if self.on_last_return is not None and not self._leftovers:
            self.on_last_return()
        self._commit.look()  # its slot is free, and somebody may wait for us to be idle

    def landed(self, reports: Sequence[tuple[Transition, Run]], answers: Sequence[str]) -> None:
        """Outcomes are on disk: wake those who wait for them."""
        for (transition, run), answer in zip(reports, answers, strict=True):
            if transition.followed:
                self.wake()
                self._bell.tell_jobs()
            if run.limited or run.job.queue in self._capped:
                self._made_room()
            if answer == "unstorable":
                self._report_unstorable(run)
                continue
            if self._runs.get(run.job.seq) is run:
                del self._runs[run.job.seq]
            if run.completes_in and self.completer.landed(run, transition, answer):
                pass  # the stored outcome is another
            elif answer == "lost":
                self._lost(run)
            elif answer == "cancelled":
                self._deliver(run, State.CANCELLED, cancelled_instead(transition))
            elif transition.event is Event.COMPLETED:
                self._deliver(run, State.COMPLETED, transition)
            elif transition.state in FINISHED:
                self._deliver(run, transition.state, transition)
            elif transition.run_at is not None and transition.run_at <= self._clock.now():
                if self.draining:
                    self._bell.tell_jobs()
                if not self._slots.asked:  # a claim in the same transaction has seen it
                    self.wake()
            else:
                self._wake_at(transition.run_at)
            run.cause = None  # its traceback holds the run: a circle again
        self._check_quiet()

    def _made_room(self) -> None:
        """The end of a run has made room for another, which a claim that went along has seen."""
        if not self._slots.asked:
            self.wake()
            self._bell.tell_jobs()

    def _deliver(self, run: Run, state: State, t: Transition) -> None:
        if self._bell.others:
            self._bell.tell_ended(run.job.id)
        box = self._mailboxes.find(run.job.id)
        if box is not None:
            reason = run.cancel_reason or t.reason if state is State.CANCELLED else t.reason
            box.deliver(Outcome(t.task, state, reason, t.result, t.error), run.cause)

    def ended_elsewhere(self, ended: Sequence[tuple[str, Outcome]]) -> None:
        """Jobs came to their end without a run of ours; some may be queued again or followed."""
        for job_id, outcome in ended:
            self._mailboxes.deliver(job_id, outcome)
            self._bell.tell_ended(job_id)
        self._bell.tell_jobs()
        self.wake()

    def _wake_at(self, run_at: int | None) -> None:
        """A job was queued for later: look then, if nothing earlier makes us look."""
        seconds = None if run_at is None else self._clock.seconds_until(run_at)
        if seconds is None or self.draining:
            return
        when = self._loop.time() + seconds
        if self._timer is None or when < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self.wake)

    def _report_unstorable(self, run: Run) -> None:
        error = InvalidResult(f"the database refused the result of task {run.task.name!r}")
        self._report(run, refusal_happened(run, error, "invalid_result"))

    def _lost(self, run: Run) -> None:
        self.tally.lost_reports += 1
        log.warning("the outcome of job %s is refused: its run had been given up", run.job.id)

    # Stopping runs

    def _time_out(self, run: Run) -> None:
        self._interrupt(run, "timeout", 0)

    def cancel(self, seq: int, reason: str) -> None:
        """Ask a run to stop because a user cancelled the job; nothing when it does not run here."""
        run = self._runs.get(seq)
        if run is not None and not run.given_up:
            run.cancel_reason = run.cancel_reason or reason
            self._interrupt(run, "user", 0)

    def cancel_from_elsewhere(self, seq: int, claim: int, reason: str) -> None:
        """The same when another process has noted the request, unless the run was told before."""
        run = self._runs.get(seq)
        if run is not None and run.job.claim == claim and run.stop_reason is None:
            self.cancel(seq, reason)

    def _interrupt(self, run: Run, reason: str, tries: int) -> None:
        """Tell a run to stop, again if it does not, and in the end let it run without a say."""
        if run.given_up or self._runs.get(run.job.seq) is not run or self._has_ended(run):
            return
        run.stop_reason = run.stop_reason or reason
        if self._executors[run.task.executor].forceful:
            self._executors[run.task.executor].interrupt(run)
            return
        if reason == "timeout" and (run.task.executor == "thread" or tries >= INTERRUPTS_MAX):
            self._give_up(run, timeout_happened(run, self.random))
            return
        if tries >= INTERRUPTS_MAX:
            log_unstoppable(run)
            return
        self._executors[run.task.executor].interrupt(run)
        run.reminder = self._loop.call_later(
            FIRST_INTERRUPT_SECONDS * 2**tries, self._interrupt, run, reason, tries + 1
        )

    def _has_ended(self, run: Run) -> bool:
        return run.ended or (run.asyncio_task is not None and run.asyncio_task.done())

    def _give_up(self, run: Run, happened: Happened) -> None:
        """Decide the outcome of a run that cannot be stopped; its slot is its until it returns."""
        self._report(run, happened)
        run.given_up = True
        self._leftovers.add(run)
        self._slots.resume()

    def _supersede(self, seq: int) -> None:
        """Give up a run whose job starts anew: ``complete_in`` ended it, somebody retried it."""
        run = self._runs.get(seq)
        if run is not None and run.completes_in and not (run.ended or run.given_up):
            run.stop_reason = run.stop_reason or "user"
            self._executors[run.task.executor].interrupt(run)
            run.given_up = True
            self._leftovers.add(run)

    def disown_all(self) -> None:
        """Somebody has taken our runs over: stop them, their outcomes would be refused."""
        for run in list(self._runs.values()):
            self._interrupt(run, "shutdown", 0)

    # Slots

    def widen(self, executor: str, slots: int) -> None:
        """Claim for so many slots more, or fewer."""
        self._slots.widen(executor, slots)

    async def wait_lending_slot(self, run: Run, box: Mailbox) -> Outcome:
        """Wait for another job; meanwhile this one's slot is free, perhaps for that very job."""
        return await self._slots.wait_lending(run, box, self._executors[run.task.executor].lent)

    # The whole

    def held(self) -> frozenset[int]:
        """Seqs of the runs that this process holds."""
        return frozenset(self._runs)

    async def quiet(self) -> None:
        """Return once nothing runs and everything is written."""
        while self._runs or self._slots.asked:
            self._quiet.clear()
            await self._quiet.wait()

    def _check_quiet(self) -> None:
        if not (self._runs or self._slots.asked):
            self._quiet.set()

    @property
    def busy(self) -> bool:
        """Something runs."""
        return bool(self._runs)

    @property
    def idle(self) -> bool:
        """Nothing runs, nothing is being written, and no due job can be claimed."""
        return not (self._runs or self._leftovers or self._due) and self._commit.quiet

    async def stop(self, grace: float) -> list[Run]:
        """Let jobs finish for ``grace`` seconds, stop the rest, return those that do not stop.

        When it is cut short, because the engine dies meanwhile, it can be called again.
        """
        self.draining = True
        self._forget_move()
        self._forget_move = lambda: None
        for waiting in (self._timer, self._grace):
            if waiting is not None:
                waiting.cancel()
        self._grace = asyncio.ensure_future(self._quiet_within(0.0 if self._hurried else grace))
        await asyncio.wait([self._grace])
        for run in list(self._runs.values()):
            self._interrupt(run, "shutdown", 0)
        await self._quiet_within(STOP_SECONDS)
        stubborn = [
            run for run in self._runs.values() if not (run.given_up or self._has_ended(run))
        ]
        for run in stubborn:
            run.given_up = True
            self._leftovers.add(run)
            log_stubborn(run)
        for executor in self._executors.values():
            await executor.close()
        self.notepad.close()
        self.stopped = True
        return stubborn

    def hurry(self) -> None:
        """End the grace time now, or before it begins."""
        self._hurried = True
        if self._grace is not None:
            self._grace.cancel()

    async def _quiet_within(self, seconds: float) -> None:
        if self._runs or self._slots.asked:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.quiet(), seconds)
