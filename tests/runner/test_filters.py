"""Filters as users give them: what they find, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncjobs import (
    AsyncJobsError,
    Count,
    InvalidOption,
    JobFilter,
    Runner,
    ScanRequired,
    Tasks,
)
from asyncjobs.testing import ManualClock, run_until_idle

tasks = Tasks()


@tasks.task(name="visit", queue="a")
async def visit(user: Any, address: dict[str, Any]) -> None:
    if address.get("city") == "Nowhere":
        raise LookupError(f"no such place for {type(user).__name__}")


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


async def found(runner: Runner, **filters: Any) -> list[Any]:
    """The users of the jobs that pass, oldest first."""
    page = await runner.registry.list(order="oldest", **filters)
    counted = await runner.registry.count(**filters)
    assert counted == len(page.jobs)
    return [(job.arguments or {})["user"] for job in page.jobs]


@pytest.mark.parametrize(
    "value", [42, 4.5, "42", True, False, None, "", 2**63 - 1, -(2**63), "ü'\""]
)
async def test_arguments_are_found_by_value_and_type(runner: Runner, value: Any) -> None:
    values: list[Any] = [42, 1, 0, 4.5, "42", "true", "null", True, False, None, "", "{}",
                         2**63 - 1, -(2**63), "ü'\""]  # fmt: skip
    await runner.enqueue_many([visit.job(value, {}) for value in values])

    assert await found(runner, task="visit", arguments={"user": value}) == [value]


async def test_whole_number_is_found_as_int_and_as_float(runner: Runner) -> None:
    await visit.enqueue(42, {})

    assert await found(runner, task="visit", arguments={"user": 42.0}) == [42]


async def test_arguments_are_found_by_path(runner: Runner) -> None:
    await visit.enqueue(1, {"city": "Berlin", "a b": {"c'd": [1]}})
    await visit.enqueue(2, {"city": "Lima", "a b": {"c'd": "x"}})
    await visit.enqueue(3, {})

    assert await found(runner, task="visit", arguments={"address.city": "Berlin"}) == [1]
    assert await found(runner, task="visit", arguments={"address.a b.c'd": "x"}) == [2]
    assert await found(runner, task="visit", arguments={"address.city": None}) == []
    both = {"user": 2, "address.city": "Lima"}
    assert await found(runner, task="visit", arguments=both) == [2]
    assert await found(runner, task="visit", arguments={**both, "user": 1}) == []


async def test_text_is_not_taken_for_the_object_that_it_spells(runner: Runner) -> None:
    await visit.enqueue(1, {"city": {"a": 1}})
    await visit.enqueue(2, {"city": '{"a":1}'})

    assert await found(runner, task="visit", arguments={"address.city": '{"a":1}'}) == [2]


async def test_error_is_found_in_type_and_message_of_the_last_failure(runner: Runner) -> None:
    handle = await visit.enqueue(1, {"city": "Nowhere"})
    await visit.enqueue("x", {"city": "Nowhere"})
    await visit.enqueue(3, {})
    await run_until_idle(runner)
    await handle.retry()
    await run_until_idle(runner)

    assert await found(runner, state="failed", error="LookupError") == [1, "x"]
    assert await found(runner, state="failed", error="place for int") == [1]
    assert await found(runner, state="failed", error="lookuperror") == []
    assert await found(runner, state="failed", error="%") == []


async def test_several_states_and_tags(runner: Runner) -> None:
    await visit.options(tags=["a", "b"]).enqueue(1, {"city": "Nowhere"})
    await visit.options(tags=["b"]).enqueue(2, {})
    await visit.options(tags=["c"], delay=60).enqueue(3, {})
    await run_until_idle(runner)

    assert await found(runner, state=["failed", "completed"]) == [1, 2]
    assert await found(runner, state={"failed", "scheduled"}) == [1, 3]
    assert await found(runner, tags_all=["a", "b"]) == [1]
    assert await found(runner, tag="b", tags_all=["a"]) == [1]
    assert await found(runner, tags_any=["a", "b"]) == [1, 2]
    assert await found(runner, tags_any=["b", "c"], state="scheduled") == [3]
    assert await found(runner, tags_all=["b"], tags_any=["a", "c"]) == [1]


async def test_ranges_of_each_time(runner: Runner, clock: ManualClock) -> None:
    for user in range(3):
        await visit.enqueue(user, {})
        await run_until_idle(runner)
        clock.advance(10)
    middle = clock.datetime() - timedelta(seconds=20)  # when the second job did everything

    for column in ("created", "started", "finished", "run"):
        after: dict[str, Any] = {f"{column}_after": middle}
        before: dict[str, Any] = {f"{column}_before": middle}
        within: dict[str, Any] = {**after, f"{column}_before": middle + timedelta(seconds=1)}
        assert await found(runner, task="visit", **after) == [1, 2], column
        assert await found(runner, task="visit", **before) == [0], column
        assert await found(runner, task="visit", **within) == [1], column


async def test_orders(runner: Runner, clock: ManualClock) -> None:
    for user, delay in enumerate([31, 11, 21]):
        await visit.options(delay=delay).enqueue(user, {})
        clock.advance(0.001)
    listed = runner.registry.list

    async def users(**options: Any) -> list[Any]:
        return [(job.arguments or {})["user"] for job in (await listed(**options)).jobs]

    assert await users(state="scheduled") == [1, 2, 0]
    assert await users(state="scheduled", order="newest") == [2, 1, 0]
    assert await users(state="scheduled", order="oldest") == [0, 1, 2]
    for _ in range(3):
        clock.advance(11)
        await run_until_idle(runner)
    assert await users(state="completed") == [0, 2, 1]
    assert await users(state="completed", order="oldest") == [0, 1, 2]
    assert await users(order="created") == [2, 1, 0]


async def test_pages_of_every_order_are_cut_without_loss(runner: Runner) -> None:
    await runner.enqueue_many(
        [visit.options(priority=n % 3, queue=f"q{n % 2}", delay=60 + n % 5).job(n, {})
         for n in range(40)]
    )  # fmt: skip
    for order in ("newest", "oldest", "created", "run_at"):
        seen: list[str] = []
        cursor = None
        while True:
            page = await runner.registry.list(state="queued", order=order, limit=7, cursor=cursor)
            seen += [job.id for job in page.jobs]
            cursor = page.cursor
            if cursor is None:
                break
        whole = await runner.registry.list(state="queued", order=order)
        assert seen == [job.id for job in whole.jobs]
        assert len(set(seen)) == 40


async def test_filter_may_be_kept_and_reused(runner: Runner) -> None:
    broken: JobFilter = {"state": "failed", "queue": "a"}
    await visit.enqueue(1, {"city": "Nowhere"})
    await run_until_idle(runner)

    page = await runner.registry.list(**broken)

    assert [job async for job in runner.registry.iterate(**broken)] == page.jobs
    assert await runner.registry.count(**broken) == len(page.jobs) == 1


async def test_counts_with_any_filter_stop_at_ten_thousand_unless_scanned(runner: Runner) -> None:
    later = visit.options(delay=60, tags=["t"])
    await runner.enqueue_many([later.job(1, {}) for _ in range(10_000)])
    exact = await runner.registry.count(tag="t")
    await later.enqueue(1, {})

    more = await runner.registry.count(tag="t")
    whole = await runner.registry.count(tag="t", scan=True)

    assert (str(exact), str(more), str(whole)) == ("10,000", "10,000+", "10,001")
    assert isinstance(whole, Count)
    assert whole.exact


NAIVE = datetime(2030, 1, 1)
LATE = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"status": "failed"}, "'status' is no filter; they are state, task, queue"),
        ({"limits": 5}, "'limits' is no filter"),
        ({"state": []}, "state is empty"),
        ({"state": ["failed", "done"]}, "state='done' is not known"),
        ({"state": [["failed"]]}, "state="),
        ({"state": {"failed": 1}}, "state must be a list"),
        ({"tags_all": "abc"}, "tags_all must be a list, tuple or set, got str"),
        ({"tags_any": []}, "tags_any is empty"),
        ({"tags_any": [1]}, "tags_any must be a str"),
        ({"tags_all": [str(n) for n in range(33)]}, "tags_all has 33 tags; at most 32"),
        ({"error": ""}, "error must not be empty"),
        ({"error": 5}, "error must be a str"),
        ({"arguments": "user"}, "arguments must be a mapping, got str"),
        ({"arguments": {}}, "arguments has 0 paths; from 1 to 8"),
        ({"arguments": {str(n): n for n in range(9)}}, "arguments has 9 paths"),
        ({"arguments": {1: 1}}, "path in arguments must be a str"),
        ({"arguments": {"": 1}}, "path in arguments must not be empty"),
        ({"arguments": {"a..b": 1}}, r"arguments has the path 'a\.\.b'"),
        ({"arguments": {'a"': 1}}, "without quotes"),
        ({"arguments": {"a\\": 1}}, "without quotes or backslashes"),
        ({"arguments": {"a": [1]}}, r"arguments\['a'\] must be .*got list"),
        ({"arguments": {"a": float("nan")}}, r"arguments\['a'\].*got float"),
        ({"arguments": {"a": 2**63}}, r"arguments\['a'\].*got int"),
        ({"arguments": {"a": "\ud800"}}, r"arguments\['a'\].*got str"),
        ({"arguments": {"a": b"x"}}, r"arguments\['a'\].*got bytes"),
        ({"run_after": NAIVE}, "run_after=2030-01-01T00:00:00 has no time zone"),
        ({"finished_before": 5}, "finished_before must be a datetime"),
        ({"started_after": LATE, "started_before": LATE}, "started_after=2030.* is not before"),
        ({"created_after": LATE, "created_before": LATE - timedelta(1)}, "created_after=2030"),
    ],
)
async def test_wrong_filter_is_refused_naming_it(
    runner: Runner, filters: dict[str, Any], named: str
) -> None:
    registry = runner.registry
    for ask in (registry.list, registry.count, registry.retry_all, registry.cancel_all,
                registry.delete_all):  # fmt: skip
        with pytest.raises(InvalidOption, match=named):
            await ask(**filters)
    with pytest.raises(InvalidOption, match=named):
        async for _ in registry.iterate(**filters):
            pass


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"order": "priority"}, "order='priority' is not known; it is one of newest, oldest"),
        ({"order": "newest; DROP TABLE asyncjobs_jobs"}, "is not known"),
        ({"order": "run_at"}, "order='run_at' needs state="),
        ({"order": "finished_at", "state": "queued"}, "order='finished_at' needs state="),
        ({"scan": "yes"}, "scan must be True or False"),
    ],
)
async def test_wrong_order_or_scan_is_refused(
    runner: Runner, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        await runner.registry.list(**options)


async def test_value_of_an_argument_stands_in_no_message(runner: Runner) -> None:
    canary = "canary-7421"
    wrong: list[dict[str, Any]] = [{"a": canary, "b..": 1}, {"a": [canary]}, {"a": canary}]
    for arguments in wrong:
        with pytest.raises(AsyncJobsError) as raised:
            await runner.registry.list(arguments=arguments)
        assert canary not in f"{raised.value!r} {raised.value.__cause__!r}"


async def test_cursor_is_refused_by_another_filter_or_order(runner: Runner) -> None:
    await runner.enqueue_many([visit.job(n, {}) for n in range(3)])
    await run_until_idle(runner)
    cursor = (await runner.registry.list(task="visit", limit=1)).cursor
    assert cursor is not None

    others: list[dict[str, Any]] = [
        {},
        {"task": "other"},
        {"task": "visit", "queue": "a"},
        {"task": "visit", "order": "oldest"},
    ]
    for other in others:
        with pytest.raises(InvalidOption, match="another filter or order"):
            await runner.registry.list(**other, limit=1, cursor=cursor)
    again = await runner.registry.list(task="visit", limit=1, cursor=cursor)
    assert len(again.jobs) == 1


async def test_filter_without_an_index_says_what_would_help_and_runs_as_a_scan(
    runner: Runner,
) -> None:
    await visit.enqueue(1, {"city": "Nowhere"})
    await run_until_idle(runner)

    with pytest.raises(ScanRequired, match="no index serves error: add state='failed', or scan="):
        await runner.registry.list(error="place")
    with pytest.raises(ScanRequired, match="arguments: add task= or tag="):
        await runner.registry.count(arguments={"user": 1})

    assert len((await runner.registry.list(error="place", scan=True)).jobs) == 1
    assert await runner.registry.count(arguments={"user": 1}, scan=True) == 1
    assert [job.task async for job in runner.registry.iterate(error="place", scan=True)] == [
        "visit"
    ]
