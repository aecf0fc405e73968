"""``asyncjobs queues``: what waits where, what is set, and pausing."""

from __future__ import annotations

import asyncio
import re

import pytest

from asyncjobs import Rate, Runner
from asyncjobs.states import Event
from asyncjobs.store.queueing import SetQueue
from tests.store.kit import Desk

from .kit import Shell
from .test_changing import ME, audit, call

HEAD = ["QUEUE", "STATUS", "DUE", "SCHEDULED", "RETRYING", "RUNNING", "BLOCKED", "DUE SINCE",
        "SERVED BY", "LIMITS"]  # fmt: skip
SINCE = "2026-01-01 00:00:00"


def setting(queue: str, **options: object) -> SetQueue:
    defaults = {"note_id": "1", "actor": None, "action": "set", "what": "{}"}
    return SetQueue(queue=queue, **{**defaults, **options})  # type: ignore[arg-type]


async def test_queues_are_listed_with_what_waits_and_what_is_set(desk: Desk, shell: Shell) -> None:
    await desk.start(queue="mail")
    again = await desk.start(queue="mail")
    await desk.end(again, Event.RETRYING, run_at=desk.clock.now())
    await desk.add(queue="mail")
    await desk.add(queue="mail", delay=10**15)
    await desk.add(queue="other", task="strange")
    await desk.claim(queues=("other",))
    await desk.do(setting("mail", paused=True, running=5, pace=Rate(100, per=60).pace()))
    await desk.do(setting("quiet", running=0))
    await desk.do(setting("slow", weight=3, ageing=600_000_000))

    listed = shell("queues")

    assert listed.code == 0
    head, *rows = [re.split(r"  +", line) for line in listed.lines]
    assert head == HEAD
    assert rows == [
        ["mail", "paused, unserved", *"11110", SINCE, "nobody", "5 at once, 100 in 1 min 0 s"],
        ["other", "unserved", "0", "0", "0", "0", "1", "nobody"],
        ["quiet", "open", "0", "0", "0", "0", "0", "nobody", "0 at once"],
        ["slow", "open", *"00000", "nobody", "weight 3, one priority higher every 10 min 0 s"],
    ]
    assert [line.split()[0] for line in shell("queues", "--paused").lines[1:]] == ["mail"]
    mail, *_, slow = shell("queues", "--json").document["queues"]
    assert (mail["name"], mail["paused"], mail["running_max"]) == ("mail", True, 5)
    assert (mail["rate_jobs"], mail["rate_per"], mail["rate_burst"]) == (100, 60.0, 10)
    assert (slow["weight"], slow["priority_ageing"]) == (3, 600.0)
    assert (mail["counts"]["queued"], mail["counts"]["running"]) == (3, 1)
    assert mail["scheduled"] == mail["retrying"] == {"count": 1, "exact": True}
    assert mail["oldest_due"] == "2026-01-01T00:00:00Z"


async def test_queues_name_the_live_processes_that_take_their_jobs(shell: Shell) -> None:
    runners = [Runner(shell.database, queues=["mail", *more]) for more in (["web"], [], [])]

    @runners[0].task(queue="mail")
    async def work() -> None: ...

    async with runners[0], runners[1], runners[2]:
        ids = [runner.engine().dispatcher.instance for runner in runners]
        await (await work.enqueue())
        await work.options(queue="web", delay=60).enqueue()
        await work.options(queue="wbe", delay=60).enqueue()
        listed, document = shell("queues"), shell("queues", "--json").document

    status, served = zip(
        *[(cells[1], cells[-1]) for cells in (re.split(r"  +", line) for line in listed.lines[1:])],
        strict=True,
    )
    assert status == ("open", "unserved", "open")
    assert served == (f"{ids[0]} {ids[1]} and 1 more", "nobody", ids[0])
    shown = {queue["name"]: queue["instances"] for queue in document["queues"]}
    assert shown == {"mail": ids, "wbe": [], "web": ids[:1]}
    assert [queue["unserved"] for queue in document["queues"]] == [False, True, False]


async def test_due_jobs_are_a_limit_where_not_all_others_are_counted(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await desk.add(delay=10**15)
    await desk.add()
    monkeypatch.setattr("asyncjobs.cli.queues.COUNT_MAX", 2)

    (_, row) = shell("queues").lines

    assert re.split(r"  +", row)[2:4] == ["up to 2", "2+"]


async def test_queues_are_paused_and_resumed(desk: Desk, shell: Shell) -> None:
    await desk.add(queue="mail")

    assert await call(shell, "queues", "pause", "mail", "--actor", "ops") == (
        0,
        ["mail  paused"],
        "",
    )
    assert (await desk.claim()).jobs == []
    assert await call(shell, "queues", "resume", "mail") == (0, ["mail  resumed"], "")
    assert len((await desk.claim()).jobs) == 1

    entries = [(entry.actor, entry.action, entry.what) for entry in await audit(shell.database)]
    assert entries == [(ME, "resume", {"queue": "mail"}), ("ops", "pause", {"queue": "mail"})]


async def test_queue_without_jobs_is_paused_and_its_name_doubted(desk: Desk, shell: Shell) -> None:
    code, lines, err = await call(shell, "queues", "pause", "mial", "--json")

    assert (code, err) == (0, "asyncjobs: queue mial has no jobs until now; is that its name?\n")
    assert lines == ['{"queues": [{"name": "mial", "outcome": "paused", "error": null}]}']
    (queue,) = shell("queues", "--paused", "--json").document["queues"]
    assert queue["name"] == "mial"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["pause"], "name the queues to pause"),
        (["resume", "mail", "--paused"], "--paused only lists"),
        (["stop", "mail"], "invalid choice: 'stop'"),
        (["pause", "a\x1b"], "queue='a\\x1b' has control characters"),
    ],
)
async def test_what_makes_no_sense_changes_nothing(
    desk: Desk, shell: Shell, words: list[str], complaint: str
) -> None:
    await desk.add(queue="mail")

    code, lines, err = await call(shell, "queues", *words)

    assert (code, lines) == (2, [])
    assert complaint in err
    assert shell("queues", "--paused").out == ""


async def test_live_application_goes_on_when_its_queue_is_resumed(shell: Shell) -> None:
    runner = Runner(shell.database)

    @runner.task(queue="mail")
    async def work() -> int:
        return 1

    async with runner:
        await runner.registry.pause_queue("mail")
        handle = await work.enqueue()
        waiting = asyncio.ensure_future(handle.result(timeout=30))
        assert (await call(shell, "queues", "resume", "mail"))[0] == 0
        assert await waiting == 1
