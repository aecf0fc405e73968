"""Completes runs in transactions of the application, together with their effect."""

from __future__ import annotations

import logging
from typing import Any

from ..clock import Clock
from ..errors import FenceLost
from ..records import Transition
from ..rules.outcome import Returned, decide
from ..running.context import Run
from ..running.ending import log_error
from ..states import Event
from ..store.base import Report, Store
from .doorbell import Doorbell
from .resolver import Resolver

log = logging.getLogger("asyncjobs")


class Completer:
    """The way of ``complete_in``: the report of a run, written before its code has returned."""

    def __init__(self, store: Store, resolver: Resolver, bell: Doorbell, clock: Clock) -> None:
        self._store = store
        self._resolver = resolver
        self._bell = bell
        self._clock = clock

    async def complete(self, run: Run, connection: Any, result: Any) -> None:
        """Write the run's completion in the connection's open transaction.

        Raises:
            FenceLost: the run has been given up, or has ended.
            InvalidResult: the result does not fit the task's annotation.
            InvalidOption, StoreError: as ``Store.write_in``.
        """
        report = self._report(run, result)
        ((answer,),) = await self._store.write_in(connection, [report])
        self._heed(run, answer)

    def complete_here(self, run: Run, connection: Any, result: Any) -> None:
        """The same in the calling thread, with a sqlite3 connection of its own."""
        report = self._report(run, result)
        ((answer,),) = self._store.write_here(connection, [report])
        self._heed(run, answer)

    def _report(self, run: Run, result: Any) -> Report:
        returned = Returned(run.task.codec.encode_result(result))
        if run.given_up:
            raise _lost(run, "its outcome is decided already, since its time was up")
        # From here on, also when this call is cancelled: the write may happen all the same.
        run.completes_in = True
        completed = decide(run.job, returned, self._clock.now())
        return Report(run.instance, [run.complement(completed)])

    def _heed(self, run: Run, answer: str) -> None:
        if answer == "already":
            raise _lost(run, "this run has ended already, perhaps by an earlier complete_in")
        if answer != "done":
            raise _lost(run, "it was rescued, retried by hand or deleted meanwhile")

    def landed(self, run: Run, transition: Transition, answer: str) -> bool:
        """Whether the run had ended in a transaction of the application before this report of it.

        Then what its code did in the end comes second, and those who wait are told what is stored.
        """
        error = transition.error
        if answer != "already":  # rolled back: an outcome like others
            if error is not None:
                log_error(run, error, transition.event)
            return False
        if transition.event is not Event.COMPLETED:
            log.warning(
                "job %s of task %r had ended in a transaction of the application before its code "
                "ended otherwise (%s); that is disregarded",
                run.job.id, run.job.task, transition.event if error is None else error.summary,
            )  # fmt: skip
        self._resolver.doubt(run.job.id)
        self._bell.tell_ended(run.job.id)
        return True


def _lost(run: Run, why: str) -> FenceLost:
    return FenceLost(
        f"job {run.job.id} of task {run.job.task!r} cannot be completed by this run: {why}; roll "
        "the transaction back"
    )
