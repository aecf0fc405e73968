"""Which jobs count as the same, and what options cannot mean together."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from asyncjobs import InvalidOption, Tasks, Unique
from asyncjobs.records import UNIQUE, Hold, NewJob

tasks = Tasks()


@tasks.task
async def sync(user_id: int, names: set[str] | None = None, full: bool = False) -> None: ...


def job_of(*args: Any, unique: Unique, **kwargs: Any) -> NewJob[None]:
    return sync.options(unique=unique).job(*args, **kwargs)


def hold_of(job: NewJob[Any]) -> Hold:
    assert job.hold is not None
    return job.hold


def key(*args: Any, by: str | tuple[str, ...] | None = None, **kwargs: Any) -> str:
    key = job_of(*args, unique=Unique(by=by), **kwargs).key
    assert key is not None
    return key


def test_job_without_uniqueness_holds_nothing() -> None:
    assert (sync.job(1).key, sync.job(1).hold) == (None, None)


def test_all_arguments_make_the_key_however_they_are_given() -> None:
    assert key(1) == key(user_id=1) == key(1, None, False) == key(1, full=False)
    assert len({key(1), key(2), key(1, full=True), key(1, {"a"})}) == 4


def test_sets_are_the_same_in_any_order() -> None:
    assert key(1, {"a", "b", "c"}) == key(1, {"c", "b", "a"})


def test_chosen_arguments_make_the_key_in_any_order_of_their_names() -> None:
    assert key(1, full=True, by=("user_id",)) == key(1, full=False, by=("user_id",))
    assert key(1, by=("user_id",)) != key(2, by=("user_id",))
    assert key(1, by=("user_id", "full")) == key(1, {"a"}, by=("full", "user_id"))
    assert key(1, by=("user_id",)) != key(1, by=("user_id", "full"))


def test_no_argument_makes_all_jobs_of_the_task_the_same() -> None:
    assert key(1, by=()) == key(2, {"a"}, full=True, by=())


def test_value_cannot_pass_for_the_end_of_another() -> None:
    @tasks.task(unique=Unique(), name="pair")
    async def pair(left: str, right: str) -> None: ...

    keys = {
        pair.job(left, right).key for left, right in [("a", "b"), ("a\nright\nb", ""), ("", "")]
    }
    assert len(keys) == 3


def test_text_is_the_key_itself_and_never_meets_arguments() -> None:
    digest = key(1)
    assert key(1, by="all users") == f"{UNIQUE}=all users"
    assert key(1, by=digest[1:]) != digest


def test_arguments_do_not_stand_in_the_key() -> None:
    assert "canary" not in key(1, {"canary-7541"})
    assert len(key(1, {"x" * 100_000})) == 23


def test_default_that_cannot_be_stored_is_no_hindrance() -> None:
    @tasks.task(unique=Unique(), name="odd")
    async def odd(value: Any = object()) -> None: ...  # noqa: B008

    assert odd.job().key == odd.job().key
    assert odd.job().key != odd.job(1).key


def test_unfinished_and_the_existing_one_are_the_default() -> None:
    hold = hold_of(job_of(1, unique=Unique()))
    assert (hold.held, hold.on_conflict) == ("unfinished", "existing")


def test_seconds_are_a_window_and_so_is_throttle() -> None:
    for job in (
        sync.options(unique=Unique(while_=90)).job(1),
        sync.options(unique=Unique(while_=timedelta(seconds=90))).job(1),
        sync.options(throttle=90).job(1),
    ):
        assert (hold_of(job).held, hold_of(job).microseconds) == ("window", 90_000_000)


def test_debounce_puts_the_job_off_and_is_bounded() -> None:
    job = sync.options(debounce=5).job(1)
    assert job.hold is not None
    assert (job.delay, job.hold.microseconds, job.hold.longest) == (
        5_000_000,
        5_000_000,
        50_000_000,
    )
    job = sync.options(debounce=5, debounce_max=7, unique=Unique(by=("user_id",))).job(1)
    assert job.hold is not None
    assert job.hold.longest == 7_000_000
    assert job.key == key(1, by=("user_id",))


def test_any_of_these_options_of_a_call_takes_the_place_of_the_tasks() -> None:
    @tasks.task(debounce=5, unique=Unique(by=("number",)), name="noted")
    async def noted(number: int) -> None: ...

    assert (noted.job(1).delay, noted.options(priority=1).job(1).delay) == (5_000_000, 5_000_000)
    once = noted.options(unique=Unique(by="other")).job(1)
    assert once.delay is None
    assert once.hold is not None
    assert once.hold.held == "unfinished"
    keyed = noted.options(key="k", delay=1).job(1)
    assert (keyed.key, keyed.hold, keyed.delay) == ("k", None, 1_000_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unique": "queued"}, "unique must be a Unique, got str"),
        ({"unique": True}, "unique must be a Unique, got bool"),
        ({"throttle": 0}, "throttle=0 would hold for no time"),
        ({"throttle": -1}, "throttle=-1 is out of range"),
        ({"throttle": "60"}, "throttle must be seconds"),
        ({"debounce": 0}, "debounce=0 would hold for no time"),
        ({"debounce": timedelta(0)}, "debounce=0 would hold for no time"),
        ({"debounce": -0.5}, "debounce=-0.5 is out of range"),
        ({"debounce": 5, "debounce_max": 0}, "debounce_max=0 would hold for no time"),
        ({"debounce": 5, "debounce_max": 4}, "debounce_max=4 is shorter than debounce=5"),
        ({"debounce_max": 4}, "debounce_max needs debounce"),
        ({"debounce": 1, "throttle": 1}, "throttle and debounce contradict"),
        ({"unique": Unique(while_="queued"), "throttle": 1}, "Unique(while_) and throttle"),
        ({"unique": Unique(while_=5), "debounce": 1}, "Unique(while_) and debounce"),
        (
            {"unique": Unique(on_conflict="raise"), "debounce": 1},
            "Unique(on_conflict) and debounce",
        ),
        ({"unique": Unique(by=("user",))}, "Unique(by) names the argument 'user'"),
    ],
)
def test_options_that_cannot_mean_anything_are_named(options: Any, message: str) -> None:
    async def plain(user_id: int) -> None: ...

    with pytest.raises(InvalidOption) as of_task:
        tasks.task(**options)(plain)
    with pytest.raises(InvalidOption) as of_job:
        sync.options(**options)
    assert message in str(of_task.value)
    assert message in str(of_job.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "k", "unique": Unique()}, "key contradicts unique"),
        ({"key": "k", "throttle": 5}, "key contradicts unique"),
        ({"delay": 5, "debounce": 5}, "delay and at contradict debounce"),
    ],
)
def test_options_of_a_call_that_contradict_are_named(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        sync.options(**options)


def test_delay_contradicts_the_debounce_of_the_task() -> None:
    @tasks.task(debounce=5, name="late")
    async def late() -> None: ...

    with pytest.raises(InvalidOption, match="delay and at contradict debounce"):
        late.options(delay=5)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"by": ""}, "Unique(by) must not be empty"),
        ({"by": "x" * 1025}, "Unique(by) is 1025 characters long; at most 1024 fit"),
        ({"by": "a\nb"}, "control characters"),
        ({"by": 5}, "a text or a tuple of argument names, got int"),
        ({"by": {"user_id"}}, "a text or a tuple of argument names, got set"),
        ({"by": ("user_id", "user_id")}, "names an argument twice"),
        ({"by": (5,)}, "Unique(by) must be a str, got int"),
        ({"while_": "running"}, "Unique(while_)='running' is not known"),
        ({"while_": 0}, "Unique(while_)=0 would hold for no time"),
        ({"while_": -1}, "Unique(while_)=-1 is out of range"),
        ({"while_": float("nan")}, "Unique(while_)=nan is out of range"),
        ({"on_conflict": "ignore"}, "Unique(on_conflict)='ignore' is not known"),
    ],
)
def test_attributes_that_cannot_mean_anything_are_named(attributes: Any, message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Unique(**attributes)
    assert message in str(caught.value)


def test_key_of_exactly_1024_characters_fits() -> None:
    assert key(1, by="x" * 1024) == f"{UNIQUE}={'x' * 1024}"


def test_text_of_a_task_that_is_the_name_of_an_argument_is_refused() -> None:
    async def plain(user_id: int) -> None: ...

    with pytest.raises(InvalidOption, match=r"write by=\('user_id',\)"):
        tasks.task(unique=Unique(by="user_id"))(plain)
    # Of a call the text comes from data, and may be any.
    assert key(1, by="user_id") == f"{UNIQUE}=user_id"
