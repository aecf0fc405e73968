"""When a failed attempt is followed by another."""

from __future__ import annotations

import math
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs import Retry
from asyncjobs.errors import InvalidOption
from asyncjobs.rules.limits import ATTEMPTS_MAX
from asyncjobs.rules.retry import check_retry, next_delay, retry_to_builtins

SEED = 4_711


def linear(attempt: int, exception: BaseException) -> float | None:
    return float(attempt)


def delays(policy: Retry, attempts: int) -> list[float | None]:
    random = Random(SEED)
    return [policy.delay_after(n, ValueError(), random) for n in range(1, attempts + 1)]


def test_one_attempt_is_the_default() -> None:
    assert delays(Retry(), 1) == [None]


def test_attempts_count_the_first_run() -> None:
    assert delays(Retry(attempts=3, base=0, jitter=False), 4) == [0.0, 0.0, None, None]


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    policy = Retry(attempts=6, base=1.5, factor=3, cap=30, jitter=False)
    assert delays(policy, 5) == [1.5, 4.5, 13.5, 30.0, 30.0]


def test_factor_one_waits_evenly() -> None:
    assert delays(Retry(attempts=4, base=2, factor=1, jitter=False), 3) == [2.0, 2.0, 2.0]


def test_base_and_cap_may_be_timedeltas() -> None:
    policy = Retry(attempts=4, base=timedelta(minutes=1), cap=timedelta(minutes=3), jitter=False)
    assert delays(policy, 3) == [60.0, 120.0, 180.0]


def test_cap_below_the_base_is_the_wait() -> None:
    assert delays(Retry(attempts=2, base=10, cap=1, jitter=False), 1) == [1.0]


@given(attempt=st.integers(1, 40), seed=st.integers())
def test_full_jitter_is_drawn_from_zero_to_the_upper_end(attempt: int, seed: int) -> None:
    policy = Retry(attempts=50, base=0.5, factor=2, cap=100)
    delay = policy.delay_after(attempt, ValueError(), Random(seed))
    upper = min(100, 0.5 * 2 ** (attempt - 1))
    assert delay == Random(seed).uniform(0.0, upper)
    assert 0.0 <= delay <= upper


def test_jitter_spreads_over_the_whole_range() -> None:
    print("seed", SEED)
    random = Random(SEED)
    policy = Retry(attempts=2, base=10)
    drawn = [policy.delay_after(1, ValueError(), random) or 0.0 for _ in range(1_000)]
    assert min(drawn) < 0.5
    assert max(drawn) > 9.5
    assert 4.5 < sum(drawn) / len(drawn) < 5.5


@pytest.mark.parametrize("factor", [2, 2.0, 1e9])
@pytest.mark.parametrize("attempt", [1_025, ATTEMPTS_MAX - 1])
def test_huge_attempts_wait_for_the_cap(factor: float, attempt: int) -> None:
    policy = Retry(attempts=ATTEMPTS_MAX, factor=factor, cap=60, jitter=False)
    assert policy.delay_after(attempt, ValueError(), Random(SEED)) == 60.0


@pytest.mark.parametrize("factor", [2, 2.0, 1e9])
@pytest.mark.parametrize("attempt", [1, 1_025, ATTEMPTS_MAX - 1])
def test_no_base_means_no_wait_at_any_attempt(factor: float, attempt: int) -> None:
    policy = Retry(attempts=ATTEMPTS_MAX, base=0, factor=factor, jitter=False)
    assert policy.delay_after(attempt, ValueError(), Random(SEED)) == 0.0


def test_closest_base_class_decides() -> None:
    policy = Retry(
        attempts=2,
        base=1,
        jitter=False,
        per_exception={
            LookupError: Retry(attempts=5, base=10, jitter=False),
            KeyError: Retry(attempts=1),
            Exception: Retry(attempts=9, base=20, jitter=False),
        },
    )
    random = Random(SEED)
    assert policy.delay_after(1, IndexError(), random) == 10.0
    assert policy.delay_after(1, KeyError(), random) is None
    assert policy.delay_after(1, ValueError(), random) == 20.0
    assert policy.delay_after(1, KeyboardInterrupt(), random) == 1.0
    assert policy.delay_after(2, KeyboardInterrupt(), random) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": ATTEMPTS_MAX + 1}, "attempts"),
        ({"attempts": 1.0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": 10**5_000}, "attempts"),
        ({"base": -1}, "base"),
        ({"base": math.nan}, "base"),
        ({"base": "1"}, "base"),
        ({"cap": -1}, "cap"),
        ({"cap": math.inf}, "cap"),
        ({"factor": 0.99}, "factor"),
        ({"factor": math.nan}, "factor"),
        ({"factor": math.inf}, "factor"),
        ({"factor": timedelta(seconds=2)}, "factor"),
        ({"factor": "2"}, "factor"),
        ({"per_exception": {int: Retry()}}, "per_exception"),
        ({"per_exception": {"ValueError": Retry()}}, "per_exception"),
        ({"per_exception": {ValueError: 3}}, "per_exception"),
    ],
)
def test_bad_value_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        Retry(**options)


@pytest.mark.parametrize("attempts", [1, ATTEMPTS_MAX])
def test_attempts_at_the_limits_are_taken(attempts: int) -> None:
    assert Retry(attempts=attempts).attempts == attempts


# Functions


def test_function_gets_attempt_and_exception_and_says_the_wait() -> None:
    error = ValueError()
    seen = []

    def policy(attempt: int, exception: BaseException) -> float:
        seen.append((attempt, exception))
        return 2.5

    assert next_delay(policy, 3, error, Random(SEED)) == 2.5
    assert seen == [(3, error)]


@pytest.mark.parametrize(("answer", "delay"), [(None, None), (0, 0.0), (timedelta(seconds=3), 3.0)])
def test_function_may_answer_in_several_ways(answer: Any, delay: float | None) -> None:
    assert next_delay(lambda attempt, error: answer, 1, ValueError(), Random(SEED)) == delay


@pytest.mark.parametrize("answer", [-1, math.nan, "5", True])
def test_function_that_answers_nonsense_is_named(answer: Any) -> None:
    with pytest.raises(InvalidOption, match="retry function returned"):
        next_delay(lambda attempt, error: answer, 1, ValueError(), Random(SEED))


def test_policy_object_goes_the_same_way() -> None:
    policy = Retry(attempts=2, base=4, jitter=False)
    assert next_delay(policy, 1, ValueError(), Random(SEED)) == 4.0


# What a task takes, and what travels with a job


@pytest.mark.parametrize("value", [3, "twice", ValueError, {"attempts": 3}])
def test_what_is_no_policy_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="retry must be a Retry or a function"):
        check_retry(value)


def test_async_function_is_refused() -> None:
    async def policy(attempt: int, error: BaseException) -> float:
        return 1.0

    with pytest.raises(InvalidOption, match="async"):
        check_retry(policy)


def test_policies_are_taken_as_they_are() -> None:
    policy = Retry(per_exception={ValueError: Retry()})
    assert check_retry(policy) is policy
    assert check_retry(linear) is linear


@pytest.mark.parametrize("value", [Retry(per_exception={ValueError: Retry()}), next_delay])
def test_only_plain_policies_travel_with_a_job(value: Any) -> None:
    with pytest.raises(InvalidOption, match="cannot travel with one job"):
        check_retry(value, stored=True)
    assert check_retry(Retry(attempts=2), stored=True) == Retry(attempts=2)


def test_stored_policy_comes_back_equal() -> None:
    policy = Retry(attempts=7, base=timedelta(seconds=3), factor=1.5, cap=20, jitter=False)
    plain = retry_to_builtins(policy)
    assert Retry(**plain) == Retry(attempts=7, base=3.0, factor=1.5, cap=20.0, jitter=False)


@pytest.mark.parametrize("function", [lambda: 3, lambda attempt: 3, lambda a, b, c: 3])
def test_function_that_does_not_take_attempt_and_exception_is_refused(function: Any) -> None:
    with pytest.raises(InvalidOption, match=r"retry must be a function of \(attempt, exception\)"):
        check_retry(function)


def test_exceptions_that_are_no_mapping_and_a_jitter_that_is_no_flag_are_refused() -> None:
    with pytest.raises(InvalidOption, match=r"Retry\(per_exception\) must be a mapping"):
        Retry(per_exception=[ValueError])  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"Retry\(jitter\) must be True or False, got float"):
        Retry(jitter=0.5)  # type: ignore[arg-type]
