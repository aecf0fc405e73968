"""``decide``: every thing that can happen to every kind of run, as one table."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest

from asyncjobs.records import ErrorRecord, Transition
from asyncjobs.rules.outcome import (
    Cancelled,
    Crashed,
    Happened,
    Raised,
    Released,
    Returned,
    Snoozed,
    cancelled_instead,
    decide,
)
from asyncjobs.states import FINISHED, MOVES, Event, State

NOW = 1_000_000_000
ERROR = ErrorRecord("ValueError", "no")
CRASH = ErrorRecord("asyncjobs.JobCrashed", "gone")


class Claimed(NamedTuple):
    seq: int = 7
    claim: int = 3
    queue: str = "mail"
    task: str = "send"
    attempt: int = 1


def becomes(event: Event, **more: object) -> Transition:
    return Transition(seq=7, claim=3, queue="mail", task="send", event=event, at=NOW, **more)  # type: ignore[arg-type]


USER = becomes(Event.CANCELLED, reason="user")

# what happened, attempt -> the decision; then the decision when somebody asked to cancel
TABLE: list[tuple[Happened, int, Transition, Transition]] = [
    (Returned(None), 1, becomes(Event.COMPLETED), becomes(Event.COMPLETED)),
    (
        Returned("[1]"),
        3,
        becomes(Event.COMPLETED, result="[1]"),
        becomes(Event.COMPLETED, result="[1]"),
    ),
    (Raised(ERROR, None), 1, becomes(Event.FAILED, reason="error", error=ERROR), USER),
    (Raised(ERROR, None), 2, becomes(Event.FAILED, reason="retries_exhausted", error=ERROR), USER),
    (
        Raised(ERROR, None, "timeout"),
        1,
        becomes(Event.FAILED, reason="timeout", error=ERROR),
        USER,
    ),
    (
        Raised(ERROR, None, "timeout"),
        2,
        becomes(Event.FAILED, reason="timeout", error=ERROR),
        USER,
    ),
    (
        Raised(ERROR, 0.0),
        1,
        becomes(Event.RETRYING, run_at=NOW, reason="error", error=ERROR),
        USER,
    ),
    (
        Raised(ERROR, 1.5, "timeout"),
        4,
        becomes(Event.RETRYING, run_at=NOW + 1_500_000, reason="timeout", error=ERROR),
        USER,
    ),
    (
        Raised(ERROR, 1.5, key_closed_for=1.5),
        1,
        becomes(
            Event.RETRYING,
            run_at=NOW + 1_500_000,
            reason="error",
            error=ERROR,
            key_opens_at=NOW + 1_500_000,
        ),
        USER,
    ),
    (
        Raised(ERROR, None, "retries_exhausted", 2.0),
        2,
        becomes(
            Event.FAILED,
            reason="retries_exhausted",
            error=ERROR,
            key_opens_at=NOW + 2_000_000,
        ),
        USER,
    ),
    (
        Snoozed(0.0),
        1,
        becomes(Event.SNOOZED, run_at=NOW, reason="snooze", uncharge=True),
        USER,
    ),
    (
        Snoozed(2.25),
        2,
        becomes(Event.SNOOZED, run_at=NOW + 2_250_000, reason="snooze", uncharge=True),
        USER,
    ),
    (
        Snoozed(1.5, 1.5),
        1,
        becomes(
            Event.SNOOZED,
            run_at=NOW + 1_500_000,
            reason="snooze",
            uncharge=True,
            key_opens_at=NOW + 1_500_000,
        ),
        USER,
    ),
    (Cancelled("job"), 1, becomes(Event.CANCELLED, reason="job"), USER),
    (Cancelled("user"), 2, USER, USER),
    (
        Released(),
        1,
        becomes(Event.RELEASED, run_at=NOW, reason="shutdown", uncharge=True),
        USER,
    ),
    (
        Released("claim_lost"),
        1,
        becomes(Event.RELEASED, run_at=NOW, reason="claim_lost", uncharge=True),
        USER,
    ),
    (
        Crashed("gone", 0, 1),
        1,
        becomes(Event.FAILED, reason="crash", uncharge=True, error=CRASH),
        USER,
    ),
    (
        Crashed("gone", 2, 3),
        1,
        becomes(Event.FAILED, reason="crash", uncharge=True, error=CRASH),
        USER,
    ),
    (
        Crashed("gone", 5, 3),
        1,
        becomes(Event.FAILED, reason="crash", uncharge=True, error=CRASH),
        USER,
    ),
    (
        Crashed("gone", 1, 3),
        2,
        becomes(Event.RESCUED, run_at=NOW, reason="crash", uncharge=True, error=CRASH),
        USER,
    ),
]


@pytest.mark.parametrize(("happened", "attempt", "decision", "with_cancel"), TABLE)
def test_decision(
    happened: Happened, attempt: int, decision: Transition, with_cancel: Transition
) -> None:
    run = Claimed(attempt=attempt)
    assert decide(run, happened, NOW) == decision
    assert decide(run, happened, NOW, cancel_requested=True) == with_cancel


@pytest.mark.parametrize(("row", "cancel_requested"), list(itertools.product(TABLE, [False, True])))
def test_every_decision_is_a_legal_move_of_a_running_job(
    row: tuple[Happened, int, Transition, Transition], cancel_requested: bool
) -> None:
    t = decide(Claimed(attempt=row[1]), row[0], NOW, cancel_requested=cancel_requested)
    sources, state = MOVES[t.event]
    assert State.RUNNING in sources
    assert t.state is state
    # Whoever ends has no next run; whoever does not has one, and never in the past.
    assert (t.run_at is None) == (t.state in FINISHED)
    assert t.run_at is None or t.run_at >= NOW
    assert t.error is None or t.state is not State.COMPLETED


def test_same_question_gets_the_same_answer() -> None:
    assert decide(Claimed(), Raised(ERROR, 1.0), NOW) == decide(Claimed(), Raised(ERROR, 1.0), NOW)


def test_result_is_not_in_the_repr() -> None:
    # In debug mode asyncio logs what a thread hands to the loop.
    assert repr(Returned('"canary"')) == "<Returned>"


def test_a_job_that_was_to_run_again_is_cancelled_instead_when_somebody_asked() -> None:
    retried = decide(Claimed(), Raised(ErrorRecord("ValueError", "x"), 1.0), NOW)

    cancelled = cancelled_instead(retried)

    assert (cancelled.event, cancelled.state) == (Event.CANCELLED, State.CANCELLED)
    assert (cancelled.run_at, cancelled.reason, cancelled.error) == (None, "user", None)
