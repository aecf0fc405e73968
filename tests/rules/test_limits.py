"""Limits: below, at and above each."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest

from asyncjobs.errors import InvalidOption
from asyncjobs.rules.limits import (
    LEVELS_MAX,
    META_MAX,
    NAME_MAX,
    TAGS_MAX,
    check_choice,
    check_integer,
    check_meta,
    check_priority,
    check_tags,
    check_text,
)


@pytest.mark.parametrize("length", [1, NAME_MAX - 1, NAME_MAX])
def test_text_up_to_its_limit_is_taken(length: int) -> None:
    assert check_text("x" * length, "queue") == "x" * length


@pytest.mark.parametrize("length", [NAME_MAX + 1, 1_000_000])
def test_text_over_its_limit_is_refused(length: int) -> None:
    with pytest.raises(InvalidOption, match=f"queue is {length} characters long; at most 255"):
        check_text("x" * length, "queue")


@pytest.mark.parametrize(
    "value", ["", "a\nb", "a\x00", "\x7f", "\x9b", "\ud800", "a\u2028b", "a\u2029b"]
)
def test_text_that_would_spoil_a_line_is_refused(value: str) -> None:
    with pytest.raises(InvalidOption, match="queue") as refused:
        check_text(value, "queue")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("value", ["ü", "日本", "a b", "'; DROP TABLE", "👍", "\xa0"])
def test_text_of_every_language_is_taken(value: str) -> None:
    assert check_text(value, "queue") == value


@pytest.mark.parametrize("value", [None, 1, b"x", ["x"]])
def test_text_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="queue must be a str"):
        check_text(value, "queue")


def test_subclass_of_str_becomes_a_plain_str() -> None:
    class Name(str):
        __slots__ = ()

    assert type(check_text(Name("x"), "queue")) is str


@pytest.mark.parametrize("value", [-101, 101, 10**20, pytest.param(10**5_000, id="huge")])
def test_priority_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InvalidOption, match=r"priority.* from -100 to 100"):
        check_priority(value)


@pytest.mark.parametrize("value", [-100, -99, 0, 99, 100])
def test_priority_in_range_is_taken(value: int) -> None:
    assert check_priority(value) == value


@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_integer_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="n must be an int"):
        check_integer(value, "n", least=0, most=9)


def test_choice_is_one_of_its_words() -> None:
    assert check_choice("a", "mode", ("a", "b")) == "a"
    with pytest.raises(InvalidOption, match="mode='c' is not known; it is one of a, b"):
        check_choice("c", "mode", ("a", "b"))


@pytest.mark.parametrize("count", [0, 1, TAGS_MAX - 1, TAGS_MAX])
def test_tags_up_to_the_limit_are_taken_in_order(count: int) -> None:
    tags = [f"t{number}" for number in range(count)]
    assert check_tags(iter(tags)) == tuple(tags)


def test_too_many_tags_are_refused() -> None:
    with pytest.raises(InvalidOption, match="33 tags; at most 32"):
        check_tags([f"t{number}" for number in range(TAGS_MAX + 1)])


def test_repeated_tags_count_once() -> None:
    assert check_tags(["b", "a", "b"] * 40) == ("b", "a")


@pytest.mark.parametrize("value", ["tag", 5, None])
def test_tags_of_another_type_are_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="tags must be a sequence of str"):
        check_tags(value)


def test_tag_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidOption, match="tags must be a str, got int"):
        check_tags([1])


def test_meta_is_stored_as_json() -> None:
    assert check_meta({"a": [1, None, {"b": 1.5}]}) == '{"a":[1,null,{"b":1.5}]}'
    assert check_meta({}) is None


@pytest.mark.parametrize("length", [META_MAX - 9, META_MAX - 8])
def test_meta_up_to_its_limit_is_taken(length: int) -> None:
    assert check_meta({"a": "x" * length}) is not None


def test_meta_over_its_limit_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"meta takes 65537 .* at most 65536"):
        check_meta({"a": "x" * (META_MAX - 7)})


def test_meta_is_measured_in_bytes() -> None:
    with pytest.raises(InvalidOption, match="meta takes"):
        check_meta({"a": "ü" * (META_MAX // 2)})


def nested(levels: int) -> dict[str, Any]:
    deep: dict[str, Any] = {}
    for _ in range(levels - 1):
        deep = {"a": deep}
    return deep


@pytest.mark.parametrize(
    "value",
    [
        {1: "a"},
        {"a": float("nan")},
        {"a": (1, 2)},
        {"a": {1, 2}},
        {"a": b"x"},
        {"a": object()},
        {"a": "\ud800"},
        UserDict(a=1),
    ],
)
def test_meta_that_is_not_plain_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="meta must hold plain JSON values"):
        check_meta(value)


def test_meta_may_be_nested_up_to_the_limit() -> None:
    assert check_meta(nested(LEVELS_MAX)) is not None


@pytest.mark.parametrize("levels", [LEVELS_MAX + 1, 2_000, 100_000])
def test_meta_that_is_nested_too_deeply_is_refused(levels: int) -> None:
    with pytest.raises(InvalidOption, match="meta is nested too deeply: at most 200 levels fit"):
        check_meta(nested(levels))


@pytest.mark.parametrize("value", [None, [1], "a"])
def test_meta_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="meta must be a mapping"):
        check_meta(value)
