"""``asyncjobs queues``: what waits where, what is set, and pausing."""

from __future__ import annotations

import asyncio
import re
import shlex

import pytest

from asyncjobs import Rate, Runner
from asyncjobs.states import Event
from asyncjobs.store.queueing import SetQueue
from tests.pages import blocks
from tests.store.kit import Desk

from .kit import Shell
from .test_changing import ME, audit, call, states

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


async def test_limits_and_share_of_a_queue_are_set_and_taken_away(desk: Desk, shell: Shell) -> None:
    await desk.add(queue="mail")

    words = ["--running", 5, "--rate", "100/60", "--burst", 7, "--weight", 3]
    words += ["--priority-ageing", 600, "--actor", "ops"]
    assert await call(shell, "queues", "set", "mail", *words) == (0, ["mail  set"], "")
    (mail,) = shell("queues", "--json").document["queues"]
    assert (mail["running_max"], mail["weight"], mail["priority_ageing"]) == (5, 3, 600)
    assert (mail["rate_jobs"], mail["rate_per"], mail["rate_burst"]) == (100, 60, 7)

    words = ["--running", 0, "--rate", "none", "--weight", "none", "--priority-ageing", "none"]
    code, lines, err = await call(shell, "queues", "set", "mail", *words, "--json")
    assert (code, err) == (0, "")
    assert lines == ['{"queues": [{"name": "mail", "outcome": "set", "error": null}]}']
    (mail,) = shell("queues", "--json").document["queues"]
    assert (mail["running_max"], mail["weight"], mail["priority_ageing"]) == (0, None, None)
    assert mail["rate_jobs"] is None

    newest, first = await audit(shell.database)
    assert (newest.actor, newest.action) == (ME, "set")
    assert (first.actor, first.what) == (
        "ops",
        {"queue": "mail", "running": 5, "rate": {"jobs": 100, "per": 60, "burst": 7}, "weight": 3,
         "priority_ageing": 600},
    )  # fmt: skip


async def test_calls_of_the_guide_do_what_they_say(desk: Desk, shell: Shell) -> None:
    await desk.add(queue="mail")
    (guide,) = (block for _, block in blocks("sh") if "asyncjobs queues set" in block)

    for line in guide.splitlines():
        _, *words = shlex.split(line, comments=True)
        if "drain" in words:
            assert (await call(shell, "queues", "purge", "mail", "--yes"))[0] == 0
        assert (await call(shell, *words))[::2] == (0, "")

    (mail,) = shell("queues", "--json").document["queues"]
    assert (mail["paused"], mail["running_max"], mail["weight"]) == (False, None, 3)


async def test_drain_waits_until_nothing_runs_or_is_due(shell: Shell) -> None:
    runner = Runner(shell.database)
    started, go_on = asyncio.Event(), asyncio.Event()

    @runner.task(queue="mail")
    async def work() -> None:
        started.set()
        await go_on.wait()

    async with runner:
        await work.enqueue()
        await started.wait()
        assert await call(shell, "queues", "drain", "mail", "--timeout", "0.01") == (
            1,
            [],
            "asyncjobs: after 10 ms jobs of queue 'mail' still run or are due\n",
        )
        go_on.set()
        assert await call(shell, "queues", "drain", "mail") == (0, ["mail  drained"], "")
        assert await runner.registry.audit() == []  # it changes nothing


async def test_purge_counts_first_and_deletes_what_waits_when_told_to(
    desk: Desk, shell: Shell
) -> None:
    running = (await desk.start(queue="mail")).id
    waiting = [await desk.add(queue="mail"), await desk.add(queue="mail", delay=10**15)]
    other = await desk.add(queue="other")

    would = await call(shell, "queues", "purge", "mail")
    assert would == (0, ["2 jobs would be deleted; --yes does it"], "")
    document = (await asyncio.to_thread(shell, "queues", "purge", "mail", "--json")).document
    assert document == {"matched": 2, "exact": True, "dry_run": True}
    assert await states(desk, running, *waiting) == ["running", "queued", "queued"]

    assert await call(shell, "queues", "purge", "mail", "--yes") == (0, ["2 jobs deleted"], "")
    assert await states(desk, running, *waiting, other) == ["running", "gone", "gone", "queued"]
    (entry,) = await audit(shell.database)
    assert (entry.actor, entry.action, entry.changed) == (ME, "delete", 2)
    assert entry.what == {"queue": "mail", "state": ["blocked", "queued"]}


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
        (["set", "mail"], "there is nothing to set"),
        (["set", "--running", "1"], "name the queues to set"),
        (["set", "mail", "--running", "many"], "'many' is not a whole number, nor none"),
        (["set", "mail", "--running", "-1"], "running=-1 is out of range"),
        (["set", "mail", "--rate", "0/60"], "Rate(jobs)=0 is out of range"),
        (["set", "mail", "--rate", "5/min"], "'5/min' is not a rate, such as 100/60, nor none"),
        (["set", "mail", "--rate", "none", "--burst", "5"], "--burst is part of a rate"),
        (["set", "mail", "--weight", "0"], "weight=0 would let the queue wait for ever"),
        (["pause", "mail", "--running", "0"], "--running belongs to queues set"),
        (["--priority-ageing", "none"], "--priority-ageing belongs to queues set"),
        (["drain", "mail", "--yes"], "--yes belongs to queues purge"),
        (["drain", "mail", "--timeout", "-1"], "timeout=-1 is out of range"),
        (["purge", "mail", "other"], "name the one queue to purge"),
        (["purge", "a\x1b", "--yes"], "queue='a\\x1b' has control characters"),
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
