"""How deep JSON is nested, by its brackets, and how deep the values of jobs may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs.errors import InvalidArguments, InvalidResult
from asyncjobs.rules.codec import TaskCodec
from asyncjobs.rules.limits import LEVELS_MAX
from asyncjobs.rules.nesting import too_deep


def levels_of(value: Any) -> int:
    """By walking through it."""
    if isinstance(value, dict):
        return 1 + max(map(levels_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(levels_of, value), default=0)
    return 0


# What would lead astray who counts brackets without looking for the texts around them.
TEXT = st.text(st.sampled_from('[]{}"\\,:aé\n'), max_size=8)
JSON = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(JSON)
def test_levels_are_those_of_the_value_whatever_its_texts_hold(value: Any) -> None:
    encoded = msgspec.json.encode(value)
    levels = levels_of(value)
    assert not too_deep(encoded, levels)
    assert levels == 0 or too_deep(encoded, levels - 1)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_many_side_by_side_are_not_deep(opening: str) -> None:
    one = opening * 3 + "1" + ("]" if opening == "[" else "}") * 3
    encoded = f"[{','.join([one] * 1_000)}]".encode()
    assert not too_deep(encoded, 4)
    assert too_deep(encoded, 3)


# The limit of a job's values: the same on every interpreter, whoever calls


@dataclass
class Link:
    """Compared part by part, which takes the interpreter more of its own levels than a list."""

    next: Link | None = None


def lists(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def mappings(levels: int) -> Any:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


def chain(levels: int) -> Any:
    value = Link()
    for _ in range(levels - 1):
        value = Link(value)
    return value


def any_task(value: Any) -> Any:
    return value


def link_task(value: Link) -> Link:
    return value


def from_calls(calls: int, function: Callable[[], Any]) -> Any:
    """Call the function from so many calls within each other, as web frameworks do."""
    return function() if calls == 0 else from_calls(calls - 1, function)


KINDS = [(any_task, lists), (any_task, mappings), (link_task, chain)]


@pytest.mark.parametrize(("task", "made"), KINDS)
def test_value_of_the_deepest_nesting_comes_back_equal(
    task: Callable[..., Any], made: Callable[[int], Any]
) -> None:
    codec = TaskCodec(task, "t")
    value = made(LEVELS_MAX)

    stored = from_calls(150, lambda: codec.encode_arguments((value,), {}))
    assert codec.decode_arguments(stored) == ([], {"value": value})
    assert codec.edit_arguments({"value": 1}, {"value": value}) == stored
    assert codec.decode_result(codec.encode_result(value)) == value


@pytest.mark.parametrize(("task", "made"), KINDS)
@pytest.mark.parametrize("levels", [LEVELS_MAX + 1, 900, 1_200, 9_000, 100_000])
def test_value_that_is_nested_deeper_is_refused(
    task: Callable[..., Any], made: Callable[[int], Any], levels: int
) -> None:
    codec = TaskCodec(task, "t")
    value = made(levels)
    said = rf"nested too deeply: at most {LEVELS_MAX} levels fit"

    with pytest.raises(InvalidArguments, match=f"argument 'value' of task 't': .*{said}"):
        codec.encode_arguments((value,), {})
    with pytest.raises(InvalidArguments, match=f"argument 'value' of task 't': .*{said}"):
        codec.edit_arguments({"value": 1}, {"value": value})
    with pytest.raises(InvalidResult, match=f"task 't' returned .*{said}"):
        codec.encode_result(value)
