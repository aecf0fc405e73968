"""Binding a call to names, and calling with what was stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs.errors import InvalidArguments, InvalidOption
from asyncjobs.rules.signature import Signature


# What a wrong call of them raises is the measure, not ``inspect.Signature.bind``: in 3.13.0 it
# takes a positional-only name that is given by keyword for one of ``**named``, and misses nothing.
def plain(a: int, b: int = 2, *, c: int = 3) -> Any:
    return a, b, c


def positional(a: int, b: int = 2, /, c: int = 3) -> Any:
    return a, b, c


def rest(a: int, b: int = 2, *more: int) -> Any:
    return a, b, more


def extra(a: int, **named: int) -> Any:
    return a, named


def both(a: int, /, b: int = 2, *more: int, c: int = 3, **named: int) -> Any:
    return a, b, more, c, named


def nothing() -> Any:
    return ()


FUNCTIONS = [plain, positional, rest, extra, both, nothing]
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((), {"a": 1}),
    ((1, 5), {}),
    ((1,), {"b": 5}),
    ((1, 5, 6), {}),
    ((1, 5, 6, 7), {}),
    ((1,), {"c": 9}),
    ((1, 5), {"c": 9}),
    ((1,), {"a": 2}),
    ((1, 5), {"b": 6}),
    ((1,), {"z": 9}),
    ((1,), {"a": 2, "z": 9}),
    ((), {"b": 5}),
    ((), {"c": 5, "a": 1}),
    ((1, 5, 6), {"b": 1}),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_call_of_stored_arguments_is_the_call_that_was_made(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    signature = Signature(function, "t")
    try:
        called = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidArguments, match="task 't'"):
            signature.bind(args, kwargs)
        return
    bound = signature.bind(args, kwargs)
    again, named = signature.call_arguments(dict(bound))
    assert function(*again, **named) == called


@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(st.integers(0, 9), max_size=5).map(tuple),
    kwargs=st.dictionaries(
        st.sampled_from(["a", "b", "c", "more", "named", "z"]), st.integers(0, 9)
    ),
)
def test_binding_agrees_with_python(
    function: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    signature = Signature(function, "t")
    try:
        called = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidArguments):
            signature.bind(args, kwargs)
        return
    again, named = signature.call_arguments(signature.bind(args, kwargs))
    assert function(*again, **named) == called


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "needs the argument 'a'"),
        ((1, 2, 3), {}, "takes 2 positional arguments, got 3"),
        ((1,), {"a": 2}, "got the argument 'a' twice"),
        ((1,), {"z": 2, "y": 3}, "has no argument 'y', 'z'"),
    ],
)
def test_message_says_what_is_wrong(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message):
        Signature(plain, "t").bind(args, kwargs)


def test_message_never_holds_a_value() -> None:
    for args, kwargs in (
        (("canary",) * 9, {}),
        (("canary",), {"a": "canary"}),
        ((), {"z": "canary"}),
    ):
        with pytest.raises(InvalidArguments) as refused:
            Signature(plain, "t").bind(args, kwargs)
        assert "canary" not in str(refused.value)


def test_method_is_bound_without_self() -> None:
    class Mailer:
        def send(self, to: str) -> str:
            return to

    assert Signature(Mailer().send, "t").bind(("a",), {}) == {"to": "a"}


def test_types_come_from_the_annotations() -> None:
    signature = Signature(both, "t")
    assert signature.types == {
        "a": int,
        "b": int,
        "more": list[int],
        "c": int,
        "named": dict[str, int],
    }
    assert signature.returns is Any


def test_annotation_that_names_nothing_is_refused() -> None:
    def broken(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InvalidOption, match="annotations of task 't' cannot be resolved"):
        Signature(broken, "t")


# A job may be stored by one version of the task and run by another


def test_new_parameter_with_a_default_takes_it() -> None:
    def newer(a: int, b: int = 7) -> Any:
        return a, b

    args, kwargs = Signature(newer, "t").call_arguments({"a": 1})
    assert newer(*args, **kwargs) == (1, 7)


def test_new_parameter_before_the_rest_takes_its_default() -> None:
    def newer(a: int, b: int = 7, *more: int) -> Any:
        return a, b, more

    args, kwargs = Signature(newer, "t").call_arguments({"a": 1, "more": [2, 3]})
    assert newer(*args, **kwargs) == (1, 7, (2, 3))


def test_new_positional_parameter_before_a_stored_one_takes_its_default() -> None:
    def newer(a: int = 5, b: int = 7, /) -> Any:
        return a, b

    args, kwargs = Signature(newer, "t").call_arguments({"b": 1})
    assert newer(*args, **kwargs) == (5, 1)


def test_missing_parameter_without_a_default_is_named() -> None:
    with pytest.raises(InvalidArguments, match="needs the argument 'a'"):
        Signature(plain, "t").call_arguments({"b": 1})
