"""Arguments and results come back as themselves, or are refused by name."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from asyncjobs.errors import ArgumentsTooLarge, InvalidArguments, InvalidOption, InvalidResult
from asyncjobs.rules.codec import TaskCodec, decode_plain
from asyncjobs.rules.limits import ARGUMENTS_MAX, LEVELS_MAX, RESULT_MAX

T = TypeVar("T")
UserId = NewType("UserId", int)
BERLIN = ZoneInfo("Europe/Berlin")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


@dataclass
class Address:
    street: str
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Customer:
    id: UUID
    address: Address | None
    since: datetime
    limits: dict[str, Decimal]


class Point(Struct):
    x: int
    y: float = 0.0


class Box(Struct, Generic[T]):
    content: T
    more: list[T] = []


class Circle(Struct, tag=True):
    r: float


class Square(Struct, tag=True):
    a: float


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    depth: int
    name: str


class Name(str):
    __slots__ = ()


def codec_of(kind: Any) -> TaskCodec:
    def task(value): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    task.__annotations__ = {"value": kind, "return": kind}
    return TaskCodec(task, "t")


def there_and_back(codec: TaskCodec, value: Any) -> Any:
    args, kwargs = codec.decode_arguments(codec.encode_arguments((value,), {}))
    assert args == []
    result = codec.decode_result(codec.encode_result(value))
    assert result == kwargs["value"]
    assert type(result) is type(kwargs["value"])
    return kwargs["value"]


VALUES: list[tuple[Any, Any]] = [
    (int, 0),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 0.1),
    (float, -0.0),
    (float, 5e-324),
    (float, 1.7976931348623157e308),
    (bool, True),
    (str, ""),
    (str, 'a"\\\n\x00\u2028é👍'),
    (type(None), None),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"ab")),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("1E+400")),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (Mode, Mode.FAST),
    (datetime, datetime(2030, 1, 2, 3, 4, 5, 6)),
    (datetime, datetime(2030, 1, 2, tzinfo=timezone(timedelta(hours=-5)))),
    (datetime, datetime(2030, 7, 2, 12, tzinfo=BERLIN)),
    (date, date(2030, 1, 2)),
    (time, time(1, 2, 3, 4)),
    (timedelta, timedelta(days=-3, microseconds=1)),
    (Path, Path("/ä b/c")),
    (PurePosixPath, PurePosixPath("x")),
    (Name, Name("x")),
    (UserId, UserId(5)),
    (Literal["a", 3], 3),
    (Annotated[int, Meta(ge=0)], 4),
    (Address, Address("x", ["y"])),
    (Customer, Customer(UUID(int=1), Address("s"), datetime(2030, 1, 1), {"a": Decimal("0.1")})),
    (Point, Point(1, 2.5)),
    (Circle | Square, Square(2.0)),
    (Pair, Pair(1, "a")),
    (Options, {"depth": 3}),
    (Optional[Point], None),  # noqa: UP045 - as people write it
    (Point | None, Point(1)),
    (list[Point], [Point(1), Point(2)]),
    (tuple[int, str], (1, "a")),
    (tuple[UUID, ...], (UUID(int=1), UUID(int=2))),
    (set[int], {1, 2}),
    (frozenset[Colour], frozenset({Colour.RED})),
    (dict[str, Point], {"a": Point(1)}),
    (dict[int, str], {1: "a", -2: "b"}),
    (dict[UUID, int], {UUID(int=3): 1}),
    (deque, deque([1, 2])),
    (deque[int], deque([1, 2])),
    (deque[UUID], deque([UUID(int=1)])),
    (list[deque[datetime]], [deque([datetime(2030, 1, 1)])]),
    (Box[int], Box(1, [2])),
    (Box[Box[Decimal]], Box(Box(Decimal(1)))),
    (dict[str, list[tuple[Colour, Decimal | None]]], {"a": [(Colour.RED, None)]}),
    (Any, None),
    (Any, [1, "a", None, {"b": [1.5, True]}]),
    (Any, {"a": {}}),
]


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_value_comes_back_as_itself(kind: Any, value: Any) -> None:
    back = there_and_back(codec_of(kind), value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("moment", [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)])
def test_datetime_in_the_hour_when_clocks_change_comes_back(moment: datetime, fold: int) -> None:
    # Python calls such a datetime unequal to every datetime of another zone.
    value = moment.replace(tzinfo=BERLIN, fold=fold)
    codec = codec_of(dict[str, list[datetime]])
    back = there_and_back(codec, {"a": [value]})["a"][0]
    assert back.timestamp() == value.timestamp()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(JSON)
def test_every_json_value_comes_back_equal(value: Any) -> None:
    assert there_and_back(codec_of(Any), value) == value


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.decimals() | st.uuids() | st.datetimes(timezones=st.none() | st.timezones()) | st.dates()
    | st.timedeltas() | st.complex_numbers() | st.sampled_from([Colour.RED, Level.LOW, Mode.FAST]),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=4)
    | st.sets(st.integers() | st.text(), max_size=4)
    | st.builds(deque, st.lists(inner, max_size=3)),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400)
@given(ANYTHING)
def test_whatever_is_given_comes_back_equal_or_is_refused(value: Any) -> None:
    codec = codec_of(Any)
    try:
        stored = codec.encode_arguments((value,), {})
    except InvalidArguments:
        return
    assert codec.decode_arguments(stored)[1]["value"] == value


@given(st.builds(Customer, st.uuids(), st.none() | st.builds(
    Address, st.text(st.characters(exclude_categories=["Cs"]))), st.datetimes(),
    st.dictionaries(st.sampled_from("abc"), st.decimals(allow_nan=False))))  # fmt: skip
def test_dataclasses_of_every_content_come_back_equal(value: Customer) -> None:
    assert there_and_back(codec_of(Customer), value) == value


def deeply(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


REFUSED: dict[str, tuple[Any, Any]] = {
    "NaN": (Any, math.nan),
    "NaN as float": (float, math.nan),
    "NaN in Optional": (float | None, math.nan),
    "NaN within": (list[float], [1.0, math.nan]),
    "infinity": (float, math.inf),
    "minus infinity": (Any, {"a": -math.inf}),
    "Decimal NaN": (Decimal, Decimal("NaN")),
    "Decimal signalling NaN": (Decimal, Decimal("sNaN")),
    "int keys": (Any, {1: "a"}),
    "None key": (Any, {None: "a"}),
    "tuple keys": (Any, {(1, 2): "a"}),
    "set of objects": (set, {object()}),
    "plain set": (Any, {1}),
    "lambda": (Any, lambda: None),
    "function within": (Any, {"a": [print]}),
    "class": (Any, int),
    "module": (Any, math),
    "lone surrogate": (str, "a\ud800"),
    "lone surrogate in a key": (Any, {"\udfff": 1}),
    "lone surrogate in a path": (Path, Path("a\udc80")),
    "integer beyond 64 bits": (int, 2**64),
    "integer far beyond": (Any, 10**30),
    "negative beyond 64 bits": (int, -(2**63) - 1),
    "integer beyond within": (list[int], [1, 2**70]),
    "one level too many": (Any, deeply(LEVELS_MAX + 1)),
    "deep nesting": (Any, deeply(2_000)),
    "deeper nesting": (Any, deeply(100_000)),
    "plain tuple": (Any, (1, 2)),
    "tuple within": (list, [(1, 2)]),
    "plain dataclass": (Any, Address("x")),
    "plain Struct": (Any, Point(1)),
    "plain NamedTuple": (Any, Pair(1, "a")),
    "plain datetime": (Any, datetime(2030, 1, 1)),
    "plain bytes": (Any, b"x"),
    "plain Decimal": (Any, Decimal("1.5")),
    "plain UUID": (Any, UUID(int=1)),
    "plain enum": (Any, Colour.RED),
    "complex": (complex, 1j),
    "generator": (Any, (number for number in [1])),
    "memoryview": (Any, memoryview(b"x")),
    "str for int": (int, "5"),
    "int for str": (str, 5),
    "bool for int": (int, True),
    "float for int": (int, 1.5),
    "None for int": (int, None),
    "wrong element": (list[int], [1, "a"]),
    "wrong length": (tuple[int, int], (1,)),
    "wrong choice": (Literal["a"], "b"),
    "below the least": (Annotated[int, Meta(ge=0)], -1),
    "another dataclass": (Address, Point(1)),
    "missing field": (Options, {"depth": "deep"}),
    "unknown field": (Address, {"street": "x", "number": 3}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_value_that_would_not_come_back_is_refused_by_name(name: str) -> None:
    kind, value = REFUSED[name]
    with pytest.raises(InvalidArguments, match="argument 'value' of task 't'"):
        codec_of(kind if kind is not complex else Any).encode_arguments((value,), {})


@pytest.mark.parametrize("name", REFUSED)
def test_result_that_would_not_come_back_is_refused(name: str) -> None:
    kind, value = REFUSED[name]
    if value is None:
        return  # a task that returns nothing has returned None
    with pytest.raises(InvalidResult, match="task 't' returned"):
        codec_of(kind if kind is not complex else Any).encode_result(value)


def test_refused_argument_is_found_among_others() -> None:
    def task(good: int, bad: Any, *, named: float = 1.0) -> None: ...

    codec = TaskCodec(task, "t")
    with pytest.raises(InvalidArguments, match="argument 'bad'"):
        codec.encode_arguments((1, object()), {})
    with pytest.raises(InvalidArguments, match="argument 'named'"):
        codec.encode_arguments((1, 2), {"named": math.inf})


CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Colour, CANARY),
        (Literal["a", "b"], CANARY),
        (Annotated[str, Meta(max_length=3)], CANARY),
        (Annotated[str, Meta(pattern="^x$")], CANARY),
        (UUID, CANARY),
        (datetime, CANARY),
        (Decimal, CANARY),
        (bytes, CANARY),
        (int, CANARY),
        (dict[int, int], {CANARY: 1}),
        (dict[str, int], {CANARY: CANARY}),
        (Address, {CANARY: 1}),
        (Circle | Square, {"type": CANARY}),
        (Any, {CANARY: object()}),
        (Any, {CANARY: "\ud800"}),
        (Any, {1: CANARY}),
        (Any, CANARY * 100_000),
        (Any, [CANARY, math.nan]),
        (Any, Address(CANARY)),
        (Colour, f"x' - at `$.{CANARY}`"),
        (int, [CANARY]),
    ],
)
def test_message_never_holds_a_value(kind: Any, value: Any) -> None:
    codec = codec_of(kind)
    with pytest.raises(InvalidArguments) as refused:
        codec.encode_arguments((value,), {})
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(InvalidResult) as refused_result:
        codec.encode_result(value if len(str(value)) < 10**5 else object())
    assert "canary" not in str(refused_result.value)


def test_message_about_stored_arguments_never_holds_a_value() -> None:
    codec = codec_of(Colour)
    stored = msgspec.json.encode({"value": f"x' - at `$.{CANARY}`"}).decode()
    with pytest.raises(InvalidArguments) as refused:
        codec.decode_arguments(stored)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(("length", "fits"), [(-1, True), (0, True), (1, False)])
def test_arguments_are_limited_to_a_mebibyte_of_json(length: int, fits: bool) -> None:
    codec = codec_of(str)
    value = "x" * (ARGUMENTS_MAX - len('{"value":""}') + length)
    if fits:
        codec.encode_arguments((value,), {})
    else:
        with pytest.raises(ArgumentsTooLarge, match=r"take 1048577 bytes .* at most 1048576"):
            codec.encode_arguments((value,), {})


def test_limit_counts_bytes_and_not_characters() -> None:
    with pytest.raises(ArgumentsTooLarge):
        codec_of(str).encode_arguments(("ü" * (ARGUMENTS_MAX // 2),), {})


@pytest.mark.parametrize(("length", "fits"), [(-1, True), (0, True), (1, False)])
def test_results_are_limited_to_16_mebibytes_of_json(length: int, fits: bool) -> None:
    value = "x" * (RESULT_MAX - 2 + length)
    if fits:
        assert codec_of(str).encode_result(value) is not None
    else:
        with pytest.raises(InvalidResult, match=r"returned 16777217 bytes .* at most 16777216"):
            codec_of(str).encode_result(value)


@dataclass
class Parcel:
    weight: float


def test_value_of_another_type_than_annotated_is_named_by_both() -> None:
    codec = codec_of(Parcel)
    with pytest.raises(InvalidArguments, match=r"argument 'value'.*: expected Parcel, got dict$"):
        codec.encode_arguments(({"weight": 1.0},), {})
    with pytest.raises(InvalidResult, match=r"task 't' returned .*: expected Parcel, got dict$"):
        codec.encode_result({"weight": 1.0})


def test_part_of_another_type_than_annotated_is_no_matter_of_annotating() -> None:
    with pytest.raises(InvalidArguments, match="a list would not come back equal") as refused:
        codec_of(list[Parcel]).encode_arguments(([{"weight": 1.0}],), {})
    assert "the very types that it names" in str(refused.value)
    assert "annotate" not in str(refused.value)


def test_value_without_an_annotation_is_told_to_get_one() -> None:
    with pytest.raises(InvalidArguments, match="annotate the parameter with its type"):
        codec_of(Any).encode_arguments(((1, 2),), {})


def test_deterministic_text_does_not_depend_on_order() -> None:
    codec = codec_of(Any)
    one = codec.encode_arguments(({"a": 1, "b": 2},), {}, deterministic=True)
    other = codec.encode_arguments(({"b": 2, "a": 1},), {}, deterministic=True)
    assert one == other
    sets = codec_of(set[int])
    assert sets.encode_arguments(({5, 1, 3},), {}, deterministic=True) == '{"value":[1,3,5]}'


def test_no_arguments_are_an_empty_object() -> None:
    def task() -> None: ...

    codec = TaskCodec(task, "t")
    assert codec.encode_arguments((), {}) == "{}"
    assert codec.decode_arguments(None) == codec.decode_arguments("{}") == ([], {})


def test_result_without_an_annotation_is_plain_json() -> None:
    def task(): ...  # type: ignore[no-untyped-def]  # noqa: ANN202

    codec = TaskCodec(task, "t")
    assert codec.decode_result(codec.encode_result({"a": [1]})) == {"a": [1]}
    assert codec.encode_result(None) is None
    with pytest.raises(InvalidResult, match="annotate the return type"):
        codec.encode_result((1, 2))


def test_task_that_promises_nothing_may_not_return_something() -> None:
    def task() -> None: ...

    with pytest.raises(InvalidResult):
        TaskCodec(task, "t").encode_result(5)


def test_task_that_promises_something_may_not_return_none() -> None:
    with pytest.raises(InvalidResult):
        codec_of(int).encode_result(None)


def test_stored_result_that_fits_no_longer_is_given_as_plain_json() -> None:
    assert codec_of(Point).decode_result('{"z":1}') == {"z": 1}
    assert codec_of(Point).decode_result(None) is None
    assert decode_plain(None) is None
    assert decode_plain("[1]") == [1]


def test_value_whose_equality_raises_is_refused() -> None:
    class Odd(dict):  # type: ignore[type-arg]
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None

    with pytest.raises(InvalidArguments, match="argument 'value'"):
        codec_of(Any).encode_arguments((Odd(a=1),), {})


@pytest.mark.parametrize("kind", [complex, Callable[[], None], dict[Point, int], type])
def test_annotation_that_json_cannot_hold_is_refused_when_the_task_is_made(kind: Any) -> None:
    codec: TaskCodec | None = None
    with pytest.raises((InvalidOption, InvalidArguments)):
        codec = codec_of(kind)
        codec.encode_arguments((object(),), {})


# Jobs that were stored by an older version of the task


def test_new_parameter_with_a_default_is_filled_in() -> None:
    def task(a: int, b: int = 5) -> None: ...

    assert TaskCodec(task, "t").decode_arguments('{"a":1}') == ([], {"a": 1})


def test_removed_parameter_is_ignored_in_stored_jobs() -> None:
    def task(a: int) -> None: ...

    codec = TaskCodec(task, "t")
    assert codec.decode_arguments('{"a":1,"gone":{"deep":[1]}}') == ([], {"a": 1})
    with pytest.raises(InvalidArguments, match="has no argument 'gone'"):
        codec.encode_arguments((1,), {"gone": 2})


@pytest.mark.parametrize("stored", ['{"old":1}', "{}", None])
def test_renamed_parameter_is_named_as_missing(stored: str | None) -> None:
    def task(new: int) -> None: ...

    with pytest.raises(InvalidArguments, match="needs the argument 'new'"):
        TaskCodec(task, "t").decode_arguments(stored)


def test_parameter_of_another_type_is_named() -> None:
    def task(a: UUID) -> None: ...

    with pytest.raises(InvalidArguments, match="no longer fit task 't': argument 'a'"):
        TaskCodec(task, "t").decode_arguments('{"a":1}')


def test_new_field_of_a_dataclass_with_a_default_is_filled_in() -> None:
    args, kwargs = codec_of(Address).decode_arguments('{"value":{"street":"x","number":3}}')
    assert kwargs == {"value": Address("x")}
    assert args == []
