"""Objects that options are given as: whatever does not fit them is an InvalidOption."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from asyncjobs import At, Cron, Every, InvalidOption, Limit, Rate, Retry, Unique, Window
from asyncjobs.errors import shown
from asyncjobs.rules.options import Option, check_takes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Retry(5), "Retry: too many positional arguments; it takes attempts, base"),  # type: ignore[call-arg]
        (lambda: Limit("tenant", 2), r"by name, such as Limit\(key=\.\.\.\)"),  # type: ignore[call-arg]
        (lambda: Unique("a"), r"by name, such as Unique\(by=\.\.\.\)"),  # type: ignore[call-arg]
        (lambda: Every(minutes=5), "Every has no option 'minutes'; it takes seconds, anchor$"),  # type: ignore[call-arg]
        (lambda: Every(), "Every: missing a required argument: 'seconds'"),  # type: ignore[call-arg]
        (lambda: Cron("* * * * *", zone="UTC"), "Cron has no option 'zone'"),  # type: ignore[call-arg]
        (lambda: At(), "At: missing a required argument: 'time'; it takes time$"),  # type: ignore[call-arg]
        (lambda: Rate(1, 2, 3, 4), "Rate: too many positional arguments"),  # type: ignore[call-arg]
        (lambda: Window("22:00"), "Window: missing a required argument: 'closes'"),  # type: ignore[call-arg]
        (lambda: Rate(1, jobs=2), "Rate: multiple values for argument 'jobs'"),  # type: ignore[misc]
    ],
)
def test_call_that_does_not_fit_names_what_it_takes(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message) as caught:
        make()

    assert caught.value.__suppress_context__


def test_type_error_of_something_else_is_left_alone() -> None:
    class Broken(Option, frozen=True):
        number: int

        def __post_init__(self) -> None:
            raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        Broken(1)


def test_signatures_stay_those_of_the_attributes() -> None:
    assert list(inspect.signature(Rate).parameters) == ["jobs", "per", "burst"]
    assert At(datetime(2030, 1, 1, tzinfo=UTC)) == At(time=datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("key", "takes"),
    [
        (lambda: 1, r"got one of \(\)"),
        (lambda a, b: 1, r"got one of \(a, b\)"),
        (lambda *, tenant: 1, r"got one of \(tenant\)"),
    ],
)
def test_key_function_that_does_not_take_the_arguments_is_refused_at_once(
    key: Any, takes: str
) -> None:
    with pytest.raises(InvalidOption, match=rf"Limit\(key\) must be a function of .*{takes}"):
        Limit(key=key)


@pytest.mark.parametrize("function", [lambda *both: 1, lambda a, b, c=0: 1, max])
def test_function_that_takes_them_somehow_or_does_not_tell_is_taken(function: Any) -> None:
    check_takes(function, "retry", "attempt", "exception")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None"),
        (True, "bool True"),
        (5, "int 5"),
        (10**30, f"int {10**30}"),
        (10**5_000, "int"),
        ("30", "str '30'"),
        ("\n\ud800", "str '\\n\\ud800'"),
        ("x" * 48, f"str '{'x' * 48}'"),
        ("x" * 49, "str"),
        (timedelta(seconds=5), "timedelta 0:00:05"),
        (date(2030, 1, 2), "date 2030-01-02"),
        (b"30", "bytes"),
        ([1], "list"),
        (Exception("secret"), "Exception"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_wrong_value_is_shown_where_it_is_plain_and_short(value: object, said: str) -> None:
    assert shown(value) == said
