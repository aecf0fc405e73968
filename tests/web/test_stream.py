"""Server-sent events: a snapshot, what happens, the outcome; over several connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from asyncjobs import JobHandle, Retry, Runner, current_job
from asyncjobs.services.feed import WAITING_MAX
from asyncjobs.store.journal import Event
from asyncjobs.testing import ManualClock
from asyncjobs.web import stream as streams
from tests.runner.support import until

from .support import Stream, Told, application, client


@pytest.fixture
def app(runner: Runner) -> Starlette:
    return application(runner, authorize=lambda *_: True)


class Steps:
    """A task whose jobs say how far they are when they are told to, and end when told to."""

    def __init__(self, runner: Runner, **options: Any) -> None:
        self.runner = runner
        self._goals: asyncio.Queue[int | None] = asyncio.Queue()

        @runner.task(name="steps", **options)
        async def steps() -> str:
            while (goal := await self._goals.get()) is not None:
                if goal < 0:
                    raise ValueError("down")
                current_job().progress(goal, 10)
            return "done"

        self.task = steps

    async def start(self) -> JobHandle[str]:
        handle = await self.task.enqueue()
        await self.until(handle, lambda job: job.state == "running")
        return handle

    async def until(self, handle: JobHandle[Any], condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition(await handle.job()):
                await asyncio.sleep(0.001)

    def go(self, goal: int | None) -> None:
        self._goals.put_nowait(goal)

    async def said(self, handle: JobHandle[str], goal: int) -> None:
        """Say it, and wait until it is on disk."""
        self.go(goal)
        await self.until(handle, lambda job: job.progress and job.progress.done == goal)


@pytest.fixture
def steps(runner: Runner) -> Iterator[Steps]:
    steps = Steps(runner, retry=Retry(attempts=2, base=5, jitter=False))
    yield steps
    steps.go(None)  # so that the runner has nothing to wait for


def connect(app: Starlette, handle: JobHandle[Any], last_event_id: str = "") -> Stream:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    return Stream(app, f"/jobs/{handle.id}/events", headers)


async def whole(stream: Stream) -> list[Told]:
    return [told async for told in stream.events()]


async def until_event(events: AsyncIterator[Told], name: str) -> Told:
    async for told in events:
        if told.event == name:
            return told
    raise AssertionError(f"the stream ended without {name}")


# A life


async def test_stream_begins_with_a_snapshot_and_ends_with_the_outcome(
    app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    async with connect(app, handle) as stream:
        events = stream.events()
        first = await anext(events)
        steps.go(3)
        progress = await anext(events)
        steps.go(None)
        rest = [told async for told in events]

    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert stream.text.startswith("retry: ")
    assert (first.event, first.data["id"], first.data["state"]) == (
        "snapshot", handle.id, "running",
    )  # fmt: skip
    assert (progress.event, progress.data["done"], progress.data["total"]) == ("progress", 3, 10)
    assert [told.event for told in rest] == ["outcome"]
    assert rest[0].data["state"] == "completed"
    assert rest[0].data["progress"] == progress.data
    ids = [told.id for told in (first, progress, *rest)]
    assert all(ids)
    assert len(set(ids)) == 3


async def test_state_is_told_with_the_reason_for_a_retry(
    app: Starlette, steps: Steps, clock: ManualClock
) -> None:
    handle = await steps.start()
    async with connect(app, handle) as stream:
        events = stream.events()
        await anext(events)
        steps.go(-1)
        retrying = await anext(events)
        clock.advance(5)
        running = await until_event(events, "state")
        steps.go(None)
        outcome = await until_event(events, "outcome")

    assert (retrying.event, retrying.data["status"]) == ("state", "retrying")
    assert retrying.data["error"] == {"type": "ValueError", "message": "down"}
    assert retrying.data["run_at"] == "2030-01-01T00:00:05.000000Z"
    assert (running.data["state"], running.data["attempt"]) == ("running", 2)
    assert outcome.data["error"] is None


async def test_stream_of_a_finished_job_is_a_snapshot_and_the_outcome(
    app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    steps.go(None)
    await handle
    async with connect(app, handle) as stream:
        snapshot, outcome = await whole(stream)
    assert (snapshot.event, outcome.event) == ("snapshot", "outcome")
    assert snapshot.data == outcome.data
    assert (snapshot.id, bool(outcome.id)) == ("", True)


async def test_job_that_is_cancelled_has_an_outcome(app: Starlette, steps: Steps) -> None:
    handle = await steps.task.options(delay=60).enqueue()
    async with connect(app, handle) as stream:
        events = stream.events()
        await anext(events)
        await handle.cancel("out of <time>")
        (outcome,) = [told async for told in events]
    assert (outcome.event, outcome.data["state"]) == ("outcome", "cancelled")
    assert outcome.data["reason"] == "out of <time>"


async def test_job_that_is_deleted_is_gone(runner: Runner, app: Starlette, steps: Steps) -> None:
    handle = await steps.task.options(delay=60).enqueue()
    async with connect(app, handle) as stream:
        events = stream.events()
        first = await anext(events)
        await runner.registry.delete(handle.id)
        assert [told.event async for told in events] == ["gone"]
    async with connect(app, handle, first.id) as stream:
        assert stream.status == 404


async def test_only_its_own_job_is_heard(app: Starlette, steps: Steps, runner: Runner) -> None:
    @runner.task
    async def other() -> None:
        current_job().progress(1)

    handle = await steps.start()
    async with connect(app, handle) as stream:
        events = stream.events()
        await anext(events)
        await asyncio.gather(*await runner.enqueue_many([other.job() for _ in range(20)]))
        steps.go(None)
        assert [told.event async for told in events] == ["outcome"]


async def test_head_of_a_stream_has_no_body(app: Starlette, steps: Steps) -> None:
    handle = await steps.task.options(delay=60).enqueue()
    async with client(app) as asking:
        answer = await asking.head(f"/jobs/{handle.id}/events")
    assert (answer.status_code, answer.content) == (200, b"")


# Connecting again


async def test_stream_ends_after_its_time_and_goes_on_where_it_was(
    runner: Runner, steps: Steps
) -> None:
    app = application(runner, authorize=lambda *_: True, stream_seconds=0.05)
    handle = await steps.start()
    async with connect(app, handle) as stream:
        (first,) = await whole(stream)
    await steps.said(handle, 4)
    async with connect(app, handle, first.id) as stream:
        events = stream.events()
        progress = await anext(events)
        steps.go(None)
        await handle
        rest = [told async for told in events]
    if not rest:  # its time was up before the outcome
        async with connect(app, handle, progress.id) as stream:
            rest = await whole(stream)

    assert (progress.event, progress.data["done"]) == ("progress", 4)
    assert [told.event for told in rest] == ["outcome"]


async def test_outcome_that_was_missed_is_told_on_the_next_connection(
    app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    async with connect(app, handle) as stream:
        first = await anext(stream.events())
    steps.go(7)
    steps.go(None)
    await handle

    async with connect(app, handle, first.id) as stream:
        told = await whole(stream)

    assert told[-1].event == "outcome"
    assert told[-1].data["progress"]["done"] == 7
    assert "snapshot" not in [one.event for one in told]


async def test_client_that_knows_the_outcome_is_told_not_to_ask_again(
    app: Starlette, steps: Steps
) -> None:
    """A browser that nobody has told to close the stream would ask for ever."""
    handle = await steps.start()
    async with connect(app, handle) as stream:
        steps.go(None)
        live = (await whole(stream))[-1]
    async with connect(app, handle) as stream:
        later = (await whole(stream))[-1]

    for outcome in (live, later):
        async with connect(app, handle, outcome.id) as stream:
            assert (stream.status, await whole(stream)) == (204, [])
    await handle.retry()
    async with connect(app, handle, live.id) as stream:
        assert stream.status == 200
        assert (await anext(stream.events())).event == "state"
        steps.go(None)


async def test_stream_goes_on_after_a_restart(tmp_path: Path) -> None:
    first = Runner(tmp_path / "jobs.db", grace=0)
    steps = Steps(first)
    async with first:
        handle = await steps.start()
        app = application(first, authorize=lambda *_: True)
        async with connect(app, handle) as stream:
            events = stream.events()
            last = await anext(events)
            steps.go(2)
            last = await until_event(events, "progress")
    second = Runner(tmp_path / "jobs.db")
    steps = Steps(second)
    async with second:
        steps.go(None)
        app = application(second, authorize=lambda *_: True)
        async with connect(app, handle, last.id) as stream:
            told = await whole(stream)
    assert told[-1].event == "outcome"
    assert told[-1].data["state"] == "completed"
    assert "snapshot" not in [one.event for one in told]


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense", "0", "<b>", "0123456789abcdef-1-0", "{own}-999999-0", "{own}-0-0",
        "{own}-99999999999999999999-0", "é", "a" * 5_000,
    ],
)  # fmt: skip
async def test_cursor_that_cannot_be_gone_on_from_gives_a_snapshot(
    runner: Runner, app: Starlette, steps: Steps, bad: str
) -> None:
    handle = await steps.start()
    own = (await runner.cursor()).partition("-")[0]
    async with connect(app, handle, bad.format(own=own)) as stream:
        assert stream.status == 200
        assert (await anext(stream.events())).event == "snapshot"


async def test_cursor_far_behind_gives_a_snapshot(
    runner: Runner, app: Starlette, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await steps.start()
    cursor = await runner.cursor()
    for goal in (1, 2):
        await steps.said(handle, goal)
    monkeypatch.setattr(streams, "REPLAY_ROWS_MAX", 2)
    async with connect(app, handle, cursor) as stream:
        assert (await anext(stream.events())).event == "progress"
    monkeypatch.setattr(streams, "REPLAY_ROWS_MAX", 1)
    async with connect(app, handle, cursor) as stream:
        assert (await anext(stream.events())).event == "snapshot"


# Clients that go, and clients that are slow


async def test_client_that_goes_frees_everything(
    runner: Runner, app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    feed = runner.engine().feed
    before = len(asyncio.all_tasks())
    for _ in range(3):
        async with connect(app, handle) as stream:
            await anext(stream.events())
            await until(lambda: feed.listening)
        assert not feed.listening
    await until(lambda: len(asyncio.all_tasks()) <= before + 1)  # the feed's own, at its end


async def test_many_streams_share_one_reader_of_the_journal(
    runner: Runner, app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    seq = (await handle.job()).seq
    feed, reader = runner.engine().feed, runner.engine().store._reader
    statements: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connect(app, handle)) for _ in range(50)]
        await until(lambda: len(feed._by_seq[seq]) == 50)
        await reader.run(lambda c: c.set_trace_callback(statements.append))
        await steps.said(handle, 5)
        for stream in opened:
            await until_event(stream.events(), "progress")
        await reader.run(lambda c: c.set_trace_callback(None))

    reads = [text for text in statements if "WHERE position >= " in text]
    assert 0 < len(reads) < 10


def is_said(event: Event, done: int) -> bool:
    return event.progress is not None and event.progress.done == done


async def test_slow_client_keeps_a_bounded_number_and_hears_the_newest(
    runner: Runner, app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    async with connect(app, handle) as stream:
        events = stream.events()
        await anext(events)
        await until(lambda: runner.engine().feed.listening)
        stream.reads.clear()
        for goal in range(1, 5):
            await steps.said(handle, goal)
        (listener,) = runner.engine().feed._by_seq[(await handle.job()).seq]
        await until(lambda: any(is_said(event, 4) for event in listener._waiting))
        assert len(listener._waiting) <= WAITING_MAX
        stream.reads.set()
        steps.go(None)
        told = [one async for one in events]

    done = [one.data["done"] for one in told if one.event == "progress"]
    assert len(done) <= 2  # the one that was on its way, and the last
    assert told[-1].data["progress"]["done"] == 4


async def test_client_that_reads_nothing_is_let_go(
    runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LAST_SECONDS", 0.05)
    app = application(runner, authorize=lambda *_: True, stream_seconds=0.05)
    handle = await steps.start()
    stream = connect(app, handle)
    async with stream:
        stream.reads.clear()
        await asyncio.wait_for(asyncio.shield(stream._serving), 5)
    assert not runner.engine().feed.listening


async def test_silent_stream_is_kept_alive_by_comments(
    app: Starlette, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.01)
    handle = await steps.start()
    async with connect(app, handle) as stream:
        blocks = stream.blocks()
        found = [await anext(blocks) for _ in range(5)]
    assert found[2:] == [": keep-alive"] * 3


# The end


async def test_streams_end_when_the_runner_stops(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db", grace=0)
    steps = Steps(runner)
    async with runner:
        handle = await steps.start()
        app = application(runner, authorize=lambda *_: True)
        stream = connect(app, handle)
        await stream.__aenter__()
        await until(lambda: runner.engine().feed.listening)
    told = await whole(stream)
    async with asyncio.timeout(5):
        await stream._serving
    assert told[-1].event in ("snapshot", "state")
    async with client(app) as asking:
        answer = await asking.get(f"/jobs/{handle.id}/events")
    assert answer.status_code == 503


async def test_stream_that_is_behind_when_the_runner_stops_ends_in_order(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    steps = Steps(runner)
    async with runner:
        handle = await steps.start()
        app = application(runner, authorize=lambda *_: True)
        stream = connect(app, handle)
        await stream.__aenter__()
        await until(lambda: runner.engine().feed.listening)
        stream.reads.clear()
        await steps.said(handle, 1)
        steps.go(None)
        await handle
    stream.reads.set()
    told = await whole(stream)
    async with asyncio.timeout(5):
        await stream._serving
    assert [one.event for one in told] == ["snapshot", "progress"]


async def test_server_that_cancels_an_open_stream_gets_it_ended(
    runner: Runner, app: Starlette, steps: Steps
) -> None:
    handle = await steps.start()
    stream = connect(app, handle)
    await stream.__aenter__()
    await until(lambda: runner.engine().feed.listening)
    stream._serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream._serving
    assert not runner.engine().feed.listening
