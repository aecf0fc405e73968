"""Limits by key as applications use them: on tasks and on calls, with keys from the arguments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs import (
    InvalidOption,
    JobOutcome,
    Limit,
    Rate,
    Retry,
    RetryLater,
    Runner,
    Snooze,
    Tasks,
    UnknownJob,
    current_job,
)
from asyncjobs.testing import ManualClock, run_until_idle

from .support import assert_nothing_spins, until


class Rooms:
    """Who is in which room, and how many there ever were at once."""

    def __init__(self) -> None:
        self.now: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.order: list[Any] = []
        self.opened = asyncio.Event()
        self.opened.set()

    async def visit(self, room: object, visitor: object = None) -> None:
        self.order.append(visitor)
        self.now[room] += 1
        self.most[room] = max(self.most[room], self.now[room])
        await self.opened.wait()
        await asyncio.sleep(0)
        self.now[room] -= 1


tasks = Tasks()


@tasks.task(name="sync", limit=Limit(key="tenant", running=2))
async def sync(tenant: str, page: int = 0) -> int:
    await current_job().state.visit(tenant, page)
    return page


@tasks.task(name="post", limit=Limit(key="account", ordered=True), retry=Retry(attempts=2, base=0))
async def post(account: int, number: int, fails: int = 0) -> int:
    await current_job().state.visit(account, (number, current_job().attempt))
    if current_job().attempt <= fails:
        raise ValueError("refused")
    return number


@pytest_asyncio.fixture
async def rooms() -> Rooms:
    return Rooms()


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock, rooms: Rooms) -> AsyncIterator[Runner]:
    """One whose jobs share the rooms; its invariants hold at the end."""
    async with Runner(tmp_path / "jobs.db", clock=clock, grace=0, state=rooms) as runner:
        runner.include(tasks)
        yield runner
        assert await runner.registry.check() == []


async def test_each_key_runs_up_to_its_cap(runner: Runner, rooms: Rooms) -> None:
    rooms.opened.clear()
    handles = await runner.enqueue_many([sync.job(f"t{n % 5}", n) for n in range(50)])
    await until(lambda: sum(rooms.now.values()) == 10)
    assert set(rooms.now.values()) == {2}
    rooms.opened.set()
    assert await asyncio.gather(*handles) == list(range(50))
    assert set(rooms.most.values()) == {2}


async def test_jobs_that_come_one_by_one_are_limited_as_well(runner: Runner, rooms: Rooms) -> None:
    rooms.opened.clear()
    handles = [await sync.enqueue("t", n) for n in range(20)]
    await until(lambda: rooms.now["t"] == 2)
    rooms.opened.set()
    await asyncio.gather(*handles)
    assert rooms.most == {"t": 2}


async def test_waiting_job_says_what_it_waits_for(runner: Runner, rooms: Rooms) -> None:
    rooms.opened.clear()
    handles = [await sync.enqueue("t") for _ in range(3)]
    await until(lambda: rooms.now["t"] == 2)
    job = await handles[2].job()
    assert (job.state, job.reason) == ("blocked", "limit")
    page = await runner.registry.list(state="blocked")
    assert [found.id for found in page.jobs] == [handles[2].id]
    rooms.opened.set()
    await handles[2]
    kinds = [event.kind async for event in handles[2].events()]
    assert kinds == ["enqueued", "held", "admitted", "claimed", "completed"]


async def test_nothing_spins_while_every_key_is_full(runner: Runner, rooms: Rooms) -> None:
    rooms.opened.clear()
    await runner.enqueue_many([sync.job(f"t{n % 3}") for n in range(60)])
    await until(lambda: sum(rooms.now.values()) == 6)
    await assert_nothing_spins(runner)
    rooms.opened.set()


async def test_two_runners_on_one_file_hold_a_key_together(tmp_path: Path) -> None:
    rooms = Rooms()
    runners = [Runner(tmp_path / "jobs.db", state=rooms) for _ in range(2)]
    own = []
    for runner in runners:
        task = runner.task(name="sync", limit=Limit(key="tenant", running=2))(sync.function)
        own.append(task)
    rooms.opened.clear()
    async with runners[0], runners[1]:
        jobs = [own[n % 2].job(f"t{n % 7}", n) for n in range(140)]
        handles = [await runners[n % 2].enqueue(job) for n, job in enumerate(jobs)]
        await until(lambda: sum(rooms.now.values()) == 14)
        rooms.opened.set()
        await asyncio.wait_for(asyncio.gather(*handles), 20)
        assert await runners[0].registry.check() == []
    assert max(rooms.most.values()) == 2


async def test_ordered_key_keeps_its_order_over_retries_and_priorities(
    runner: Runner, rooms: Rooms
) -> None:
    handles = [
        await post.options(priority=number).enqueue(1, number, int(number % 3 == 0))
        for number in range(9)
    ]
    await asyncio.gather(*handles)
    numbers = [number for number, _ in rooms.order]
    assert numbers == sorted(numbers)
    assert rooms.most == {1: 1}


async def test_key_stops_after_a_failure_until_the_job_is_retried(
    runner: Runner, rooms: Rooms
) -> None:
    stopping = post.options(
        limit=Limit(key="account", ordered=True, after_failure="stop"), retry=Retry(attempts=1)
    )
    first = await stopping.enqueue(1, 1, 1)
    second = await stopping.enqueue(1, 2)
    assert (await first.wait()).state == "failed"
    await run_until_idle(runner)
    assert (await second.job()).state == "blocked"
    await runner.registry.delete(first.id)
    assert await second == 2


async def test_limit_of_a_call_takes_the_place_of_the_tasks(runner: Runner, rooms: Rooms) -> None:
    wider = sync.options(limit=Limit(key="tenant", running=4))
    rooms.opened.clear()
    handles = [await wider.enqueue("t", n) for n in range(20)]
    await until(lambda: rooms.now["t"] == 4)
    rooms.opened.set()
    await asyncio.gather(*handles)
    assert rooms.most == {"t": 4}


async def test_tasks_share_a_limit_by_its_name(runner: Runner, rooms: Rooms) -> None:
    shared = Limit(name="api", running=1)

    @runner.task(name="read", limit=shared)
    async def read() -> None:
        await rooms.visit("api")

    @runner.task(name="write", limit=shared)
    async def write() -> None:
        await rooms.visit("api")

    handles = [await (read, write)[n % 2].enqueue() for n in range(10)]
    await asyncio.gather(*handles)
    assert rooms.most == {"api": 1}


async def test_rate_of_a_key_follows_the_clock(
    runner: Runner, rooms: Rooms, clock: ManualClock
) -> None:
    paced = sync.options(limit=Limit(key="tenant", rate=Rate(6, per=60)))
    await runner.enqueue_many([paced.job("t", n) for n in range(20)])
    done = []
    for _ in range(13):
        await run_until_idle(runner)
        done.append(await runner.registry.count(state="completed"))
        clock.advance(10)
    assert done == list(range(1, 14))


async def test_start_warns_of_tasks_that_share_a_limit_and_do_not_agree_on_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(str(tmp_path / "shared.db"))
    for name, running, ordered in (
        ("a", 1, False), ("b", 4, False), ("c", 1, False), ("d", 1, True),
    ):  # fmt: skip
        limit = Limit(name="shared", running=running, ordered=ordered)
        runner.task(name=name, limit=limit)(lambda: None)
    runner.task(name="own", limit=Limit(running=7))(lambda: None)
    async with runner:
        pass
    said = [record.getMessage() for record in caplog.records if "share" in record.getMessage()]
    assert [line.partition(":")[0] for line in said] == [
        "tasks 'a' and 'b' share the limit 'shared', but give it different values",
        "tasks 'a' and 'd' share the limit 'shared', but give it different values",
    ]


async def test_snooze_pushes_the_whole_key_back_and_costs_no_attempt(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(name="calls", limit=Limit(key="host", running=1))
    async def calls(host: str) -> int:
        if clock.now() < opens_at:
            raise Snooze(60, whole_key=True)
        return current_job().attempt

    opens_at = clock.now() + 150_000_000
    first, second = await calls.enqueue("a"), await calls.enqueue("a")
    await run_until_idle(runner)
    for _ in range(3):
        states = {(await handle.job()).status for handle in (first, second)}
        assert states == {"scheduled", "blocked"}
        clock.advance(60)
        await run_until_idle(runner)
    assert [await first, await second] == [1, 1]


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_job_pushes_its_whole_key_back(
    runner: Runner, clock: ManualClock, executor: str
) -> None:
    limit = Limit(key="tenant", running=1)
    options: dict[str, Any] = {"limit": limit, "retry": Retry(attempts=2)}

    refused: list[str] = []

    def refuse(tenant: str) -> int:
        if tenant == "busy" and not refused:
            refused.append(current_job().id)
            raise RetryLater(60, whole_key=True)
        return current_job().attempt

    @runner.task(name="coroutine", **options)
    async def asked(tenant: str) -> int:
        return refuse(tenant)

    asked_in_thread = runner.task(name="thread", **options)(refuse)
    task = asked if executor == "coroutine" else asked_in_thread
    first, *others = [await task.enqueue("busy") for _ in range(3)]
    assert await (await task.enqueue("idle")) == 1
    await run_until_idle(runner)
    states = [(await handle.job()).status for handle in (first, *others)]
    assert states == ["retrying", "blocked", "blocked"]
    clock.advance(60)
    assert await asyncio.gather(first, *others) == [2, 1, 1]
    assert refused == [first.id]


async def test_callback_of_a_limited_task_takes_its_turn(runner: Runner, rooms: Rooms) -> None:
    @runner.task(name="after", limit=Limit(running=1))
    async def after(outcome: JobOutcome) -> None:
        await rooms.visit("after", outcome.job_id)

    before = sync.options(on_complete=after)
    handles = [await before.enqueue(f"t{n}") for n in range(5)]
    await asyncio.gather(*handles)
    await run_until_idle(runner)
    assert rooms.most["after"] == 1
    assert await runner.registry.count(task="after", state="completed") == 5


KEYS: dict[str, tuple[Callable[[Mapping[str, Any]], Any], str]] = {
    "raises": (
        lambda arguments: arguments["nobody"],
        "raised KeyError; it is called with one mapping",
    ),
    "none": (lambda _: None, "must be a str or an int, got NoneType"),
    "flag": (lambda _: True, "got bool"),
    "empty": (lambda _: "", "takes 0 bytes"),
    "long": (lambda _: "é" * 513, "takes 1026 bytes"),
    "surrogate": (lambda _: "\ud800", "unpaired surrogates"),
}


@pytest.mark.parametrize("name", KEYS)
async def test_key_that_means_nothing_is_refused_without_its_value(
    runner: Runner, name: str
) -> None:
    key, message = KEYS[name]
    with pytest.raises(InvalidOption, match=message) as caught:
        await sync.options(limit=Limit(key=key, running=1)).enqueue("canary")
    assert "canary" not in str(caught.value)
    assert await runner.registry.count() == 0


async def test_key_of_the_longest_size_and_numbers_and_defaults_are_taken(runner: Runner) -> None:
    for key in (lambda _: "é" * 512, lambda _: 7, lambda arguments: arguments["page"], "page"):
        await (await sync.options(limit=Limit(key=key, running=1)).enqueue("t"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"running": -1}, r"Limit\(running\)=-1"),
        ({"running": 2, "ordered": True}, "running=2 contradicts"),
        ({"ordered": "yes"}, r"Limit\(ordered\) must be True or False"),
        ({"after_failure": "stop"}, "needs ordered=True"),
        ({"after_failure": "skip", "ordered": True}, r"Limit\(after_failure\)='skip'"),
        ({"rate": 5}, r"Limit\(rate\) must be a Rate"),
        ({"key": ""}, r"Limit\(key\) must not be empty"),
        ({"key": 5}, r"Limit\(key\) must be a str"),
        ({"key": sync.function}, r"Limit\(key\) must not be an async function"),
        ({"name": ""}, r"Limit\(name\)"),
    ],
)
def test_limit_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Limit(**options)


def test_limits_that_do_not_fit_the_task_are_refused() -> None:
    with pytest.raises(InvalidOption, match="task 'x' has no parameter 'nobody'"):

        @Tasks().task(name="x", limit=Limit(key="nobody"))
        async def x(somebody: int) -> None: ...

    with pytest.raises(InvalidOption, match="no parameter 'nobody'"):
        sync.options(limit=Limit(key="nobody"))
    with pytest.raises(InvalidOption, match="limit must be a Limit such as"):
        sync.options(limit=2)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="has a limit by key, and a JobOutcome has no key"):

        @Tasks().task(name="y", on_complete=keyed)
        async def y() -> None: ...


@tasks.task(name="keyed", limit=Limit(key="outcome"))
async def keyed(outcome: JobOutcome) -> None: ...


# What a job waits for


async def test_job_tells_who_holds_the_permits_and_how_many_are_before_it(
    runner: Runner, rooms: Rooms
) -> None:
    rooms.opened.clear()
    handles = [await sync.enqueue("t", n) for n in range(6)]
    (urgent,) = await runner.enqueue_many([sync.options(priority=9).job("t")])
    await until(lambda: rooms.now["t"] == 2)
    standing = await runner.registry.limit_of(handles[5].id)
    assert standing is not None
    assert (standing.name, standing.key, standing.running) == ("sync", "t", 2)
    assert (standing.place, standing.ahead) == ("ready", 4)
    assert standing.holders == (handles[0].id, handles[1].id)
    first = await runner.registry.limit_of(urgent.id)
    assert first is not None
    assert first.ahead == 0
    rooms.opened.set()
    await asyncio.gather(*handles)
    ended = await runner.registry.limit_of(handles[5].id)
    assert ended is not None
    assert (ended.place, ended.opens_at) == (None, None)


async def test_job_tells_what_keeps_its_key_closed(runner: Runner, clock: ManualClock) -> None:
    paced = sync.options(limit=Limit(key="tenant", rate=Rate(6, per=60)))
    handles = [await paced.enqueue("t") for _ in range(2)]
    await run_until_idle(runner)
    standing = await runner.registry.limit_of(handles[1].id)
    assert standing is not None
    assert standing.opens_at == clock.datetime() + timedelta(seconds=10)

    stopping = post.options(
        limit=Limit(key="account", ordered=True, after_failure="stop"), retry=Retry(attempts=1)
    )
    first, second = await stopping.enqueue(1, 1, 1), await stopping.enqueue(1, 2)
    await first.wait()
    standing = await runner.registry.limit_of(second.id)
    assert standing is not None
    assert standing.stopped_by == first.id


async def test_job_without_a_limit_has_no_line(runner: Runner) -> None:
    @runner.task(name="free")
    async def free() -> None: ...

    assert await runner.registry.limit_of((await free.enqueue()).id) is None
    with pytest.raises(UnknownJob):
        await runner.registry.limit_of("nobody")
