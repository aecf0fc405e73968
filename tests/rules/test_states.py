"""The table of states and moves."""

from __future__ import annotations

from typing import get_args

import pytest

from asyncjobs.clock import to_microseconds
from asyncjobs.records import derived_state
from asyncjobs.rules.outcome import Happened
from asyncjobs.states import DERIVED_STATES, FINISHED, MOVES, Event, State


def test_every_event_stands_in_the_table() -> None:
    assert set(MOVES) == set(Event)


def test_every_state_can_be_reached_and_left() -> None:
    assert {state for _, state in MOVES.values() if state is not None} == set(State)
    assert frozenset().union(*(sources for sources, _ in MOVES.values())) == set(State)


@pytest.mark.parametrize("event", Event)
def test_running_jobs_are_left_only_by_their_own_run_a_rescue_or_a_cancel(event: Event) -> None:
    own = {Event.COMPLETED, Event.FAILED, Event.RETRYING, Event.SNOOZED, Event.RELEASED}
    sources, state = MOVES[event]
    leaves = State.RUNNING in sources and state is not State.RUNNING
    assert leaves == (event in own | {Event.RESCUED, Event.CANCELLED})


@pytest.mark.parametrize("event", Event)
def test_finished_jobs_are_left_only_by_hand_or_by_retention(event: Event) -> None:
    sources, _ = MOVES[event]
    assert bool(sources & FINISHED) == (event in {Event.REQUEUED, Event.DELETED, Event.PRUNED})


def test_only_waiting_jobs_start() -> None:
    assert MOVES[Event.CLAIMED] == (frozenset({State.QUEUED, State.BLOCKED}), State.RUNNING)


def test_states_are_stored_as_their_words() -> None:
    assert [state.value for state in State] == [state.name.lower() for state in State]
    assert not DERIVED_STATES & {state.value for state in State}


@pytest.mark.parametrize(
    ("state", "attempt", "run_at", "shown"),
    [
        (State.QUEUED, 0, 5, "queued"),
        (State.QUEUED, 0, 6, "scheduled"),
        (State.QUEUED, 1, 5, "retrying"),
        (State.QUEUED, 1, 6, "retrying"),
        (State.RUNNING, 1, 6, "running"),
        (State.COMPLETED, 2, 6, "completed"),
        (State.BLOCKED, 0, 6, "blocked"),
    ],
)
def test_derived_state(state: State, attempt: int, run_at: int, shown: str) -> None:
    assert derived_state(state, attempt=attempt, run_at=run_at, now=5) == shown


def test_everything_that_can_happen_is_known_to_the_tests() -> None:
    names = {kind.__name__ for kind in get_args(Happened)}
    assert names == {"Returned", "Raised", "Snoozed", "Cancelled", "Released", "Crashed"}
    assert to_microseconds(1) == 1_000_000
