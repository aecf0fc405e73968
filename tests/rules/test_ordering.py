"""The order of starts: turns of queues, then priority with age, due time, acceptance."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from asyncjobs.errors import InvalidOption
from asyncjobs.rules.ordering import Turns, check_ageing, check_weight, place
from tests.oracles import seed_of

HOUR = 3_600_000_000


def started(turns: Turns, queues: str, starts: int) -> str:
    """Whose jobs start when all of these queues are full; of equal ones the first."""
    taken = ""
    for _ in range(starts):
        queue = min(queues, key=turns.of)
        turns.take(queue)
        taken += queue
    return taken


def test_starts_of_full_queues_are_as_their_weights_and_evenly_spread() -> None:
    assert started(Turns({}, {"a": 3}), "ab", 8) == "abaaabaa"


def test_queue_without_a_weight_counts_as_one_beside_those_that_have_one() -> None:
    shares = Counter(started(Turns({}, {"a": 2, "b": 1}), "abcd", 500))
    assert shares == {"a": 200, "b": 100, "c": 100, "d": 100}


def test_without_weights_all_turns_are_alike() -> None:
    turns = Turns({}, {})
    assert started(turns, "ab", 3) == "aaa"
    assert turns.left() == {}


@pytest.mark.parametrize("weights", [{"a": 3, "b": 1}, {"a": 7, "b": 5}, {"a": 1_000, "b": 1}])
def test_shares_are_the_same_however_starts_are_divided_into_claims(
    weights: dict[str, int],
) -> None:
    chance = random.Random(seed_of("turns"))
    ahead: dict[str, int] = {}
    shares: Counter[str] = Counter()
    total = sum(weights.values())
    for _ in range(2_000):
        turns = Turns(ahead, weights)
        shares.update(started(turns, "ab", chance.randrange(1, 10)))
        ahead = turns.left()
        assert all(0 < steps <= 720_720_000 for steps in ahead.values())
    expected = shares.total() * weights["a"] / total
    assert abs(shares["a"] - expected) <= 1 + expected / 100_000


def test_queue_that_had_nothing_to_do_has_no_claim_to_what_it_missed() -> None:
    turns = Turns({}, {"a": 1, "b": 1})
    started(turns, "a", 1_000)
    assert Counter(started(Turns(turns.left(), {"a": 1, "b": 1}), "ab", 10)) == {"a": 5, "b": 5}


def test_queue_starts_within_as_many_starts_as_the_weights_of_the_others() -> None:
    weights = {"a": 1_000, "b": 500, "c": 1}
    assert "c" in started(Turns({}, weights), "abc", 1_501)
    assert started(Turns({"c": 720_720_000}, weights), "abc", 1_600).count("c") >= 1


def standing(priority: int, waited: int, *, ageing: int | None = None) -> tuple[int, ...]:
    now = 1_000 * HOUR
    return place(0, priority, now - waited, 7, now=now, ageing=ageing)


def test_order_is_turn_then_priority_then_due_time_then_acceptance() -> None:
    places = [
        place(turn, priority, run_at, seq, now=HOUR, ageing=None)
        for turn in (0, 1)
        for priority in (1, 0, -1)
        for run_at in (5, 6)
        for seq in (1, 2)
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("waited", "priority"),
    [(0, 0), (HOUR - 1, 0), (HOUR, 1), (99 * HOUR, 99), (100 * HOUR, 100), (999 * HOUR, 100)],
)
def test_waiting_job_rises_by_one_a_span_up_to_the_highest(waited: int, priority: int) -> None:
    assert standing(0, waited, ageing=HOUR)[1] == -priority
    assert standing(0, waited)[1] == 0


def test_what_falls_due_after_its_first_spans_never_overtakes_a_job() -> None:
    chance = random.Random(seed_of("ageing"))
    for _ in range(2_000):
        priority = chance.randrange(-100, 101)
        bound = (100 - priority) * HOUR
        waited = chance.randrange(400 * HOUR)
        other = waited - bound - 1 - chance.randrange(HOUR)  # due after the bound
        if other >= 0:
            mine = standing(priority, waited, ageing=HOUR)
            assert mine < standing(chance.randrange(-100, 101), other, ageing=HOUR)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (0, "weight=0 would let the queue wait for ever; pause_queue"),
        (-1, "weight=-1 is out of range: from 1 to 1000"),
        (1_001, "weight=1001 is out of range"),
        (1.5, "weight must be an int, got float"),
        (True, "weight must be an int, got bool"),
        (False, "weight must be an int, got bool"),
        ("3", "weight must be an int, got str"),
    ],
)
def test_weight_that_means_nothing_is_refused(weight: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        check_weight(weight)


def test_smallest_and_largest_weight_are_taken() -> None:
    assert (check_weight(1), check_weight(1_000)) == (1, 1_000)


@pytest.mark.parametrize("span", [0, -1, 0.999, float("nan"), "60", None, True])
def test_span_that_means_nothing_is_refused(span: Any) -> None:
    with pytest.raises(InvalidOption, match="priority_ageing"):
        check_ageing(span)
    assert check_ageing(1) == 1_000_000
