"""``asyncjobs ls``: the registry's filters, pages and counts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncjobs import JobFilter, Runner
from asyncjobs.clock import MICROSECONDS
from asyncjobs.records import ErrorRecord, Note, ProgressValue
from asyncjobs.states import Event
from asyncjobs.store.journal import Annotate
from tests.store.kit import Desk

from .kit import Shell, run

DECADES = 50 * 365 * 86_400 * MICROSECONDS


async def populate(desk: Desk) -> dict[str, str]:
    """One job of each kind, a minute apart; ids by name."""
    ids = {}

    async def add(name: str, made: Any) -> None:
        ids[name] = await made
        desk.clock.advance(60)

    await add("done", desk.finished(task="mul", tags=("a", "b"), key="k1"))
    await add("failed", desk.finished(Event.FAILED, queue="mail", tags=("b",)))
    await add("cancelled", desk.finished(Event.CANCELLED, trigger="job:1"))
    await add("parked", desk.add(task="strange"))
    await desk.claim()
    await add("running", running(desk))
    await add("retrying", retrying(desk))
    await add("later", desk.add(run_at=desk.clock.now() + DECADES, tags=("c",)))
    await add("queued", desk.add(arguments='{"left":7,"place":{"city":"Lima"}}'))
    return ids


async def running(desk: Desk) -> str:
    run = await desk.start()
    progress = ProgressValue(1, 3, 10, "page 3")
    await desk.do(Annotate("here", [Note(run.seq, run.claim, 1, progress=progress)]))
    return run.id


async def retrying(desk: Desk) -> str:
    run = await desk.start()
    await desk.end(run, Event.RETRYING, run_at=desk.clock.now() + DECADES)
    return run.id


async def test_jobs_are_listed_newest_first_with_what_matters_in_their_state(
    desk: Desk, shell: Shell
) -> None:
    ids = await populate(desk)

    listed = shell("ls")

    assert listed.code == 0
    head, *rows = [re.split(r"  +", line) for line in listed.lines]
    assert head == ["ID", "TASK", "STATUS", "QUEUE", "CREATED", "TOOK", "NOTE"]
    assert [row[0] for row in rows] == list(reversed(ids.values()))
    by_id = {row[0]: row for row in rows}
    assert by_id[ids["failed"]][1:] == [
        "add", "failed", "mail", "2026-01-01 00:01:00", "0 ms", "ValueError: no",
    ]  # fmt: skip
    assert by_id[ids["running"]][-1] == "3 of 10: page 3"
    assert by_id[ids["parked"]][2:] == [
        "blocked", "default", "2026-01-01 00:03:00", "unknown_task",
    ]  # fmt: skip
    assert by_id[ids["later"]][-1].startswith("due 2075-")
    assert by_id[ids["retrying"]][-1] == "ValueError: no"
    assert by_id[ids["cancelled"]][-1] == "user"


def test_every_filter_of_the_registry_is_an_option(shell: Shell) -> None:
    options = set(re.findall(r"--([\w-]+)", shell("ls", "--help").out))

    assert {name.replace("_", "-") for name in JobFilter.__annotations__} <= options


START = datetime(2026, 1, 1, tzinfo=UTC)
FILTERS: list[tuple[list[str], JobFilter]] = [
    (["--state", "failed"], {"state": "failed"}),
    (["--state", "failed,cancelled", "--state=retrying"],
     {"state": ["failed", "cancelled", "retrying"]}),
    (["--task", "mul"], {"task": "mul"}),
    (["--queue", "mail"], {"queue": "mail"}),
    (["--tag", "b"], {"tag": "b"}),
    (["--tags-all", "a", "--tags-all", "b"], {"tags_all": ["a", "b"]}),
    (["--tags-any", "a", "--tags-any", "c"], {"tags_any": ["a", "c"]}),
    (["--key", "k1"], {"key": "k1"}),
    (["--trigger", "job:1"], {"trigger": "job:1"}),
    (["--error", "Value", "--state", "failed"], {"error": "Value", "state": "failed"}),
    (["--task", "add", "--arguments", "left=7", "--arguments", "place.city=Lima"],
     {"task": "add", "arguments": {"left": 7, "place.city": "Lima"}}),
    (["--created-after", "2026-01-01T00:04"], {"created_after": START + timedelta(minutes=4)}),
    (["--created-before", "2026-01-01T00:02Z"], {"created_before": START + timedelta(minutes=2)}),
    (["--started-after=2026-01-01 00:01", "--task=add"],
     {"started_after": START + timedelta(minutes=1), "task": "add"}),
    (["--finished-after", "2026-01-01T00:01"], {"finished_after": START + timedelta(minutes=1)}),
    (["--finished-before", "2026-01-01T00:01"], {"finished_before": START + timedelta(minutes=1)}),
    (["--run-after", "+1d", "--state", "queued"],
     {"run_after": datetime.now(UTC), "state": "queued"}),
    (["--run-before", "1m", "--state", "queued"],
     {"run_before": datetime.now(UTC), "state": "queued"}),
    (["--order", "oldest"], {}),
]  # fmt: skip


async def test_filters_find_what_the_registry_finds(desk: Desk, shell: Shell) -> None:
    await populate(desk)

    async with Runner(shell.database, queues=["nobody's"]).client() as client:
        for words, filters in FILTERS:
            page = await client.registry.list(**filters)
            found = [job["id"] for job in shell("ls", "--json", *words).document["jobs"]]
            if "--order" in words:
                found.reverse()
            assert found == [job.id for job in page.jobs], words
            assert found, words
            counted = shell("ls", "--count", *words).out
            assert counted == f"{await client.registry.count(**filters)}\n", words


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--state", "faild"], "state='faild' is not known; it is one of blocked, queued"),
        (["--tsak", "add"], "unrecognized arguments: --tsak"),
        (["--created-after", "yesterday"], "'yesterday' is no time: give 2h, 30m"),
        (["--created-after", "9999999999h"], "is no time"),
        (["--created-after", "999999999w"], "is no time"),
        (["--created-after=1h", "--created-before=2h"], "so no job could pass"),
        (["--arguments", "left"], "--arguments takes PATH=VALUE"),
        (["--arguments", "a=1", "--arguments", "a=2"], "twice for 'a'"),
        (["--arguments", 'a={"b":1}'], "arguments['a'] must be a str"),
        (["--limit", "0"], "limit=0"),
        (["--cursor", "nonsense"], "cursor is not one that list() gave out"),
        (["--order", "random"], "invalid choice: 'random'"),
        (["--task", ""], "task must not be empty"),
        (["--error", "no"], "here: --scan"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_what_would(
    desk: Desk, shell: Shell, words: list[str], complaint: str
) -> None:
    refused = shell("ls", *words)

    assert (refused.code, refused.out) == (2, "")
    assert complaint in refused.err


async def test_a_scan_is_made_when_it_is_asked_for(desk: Desk, shell: Shell) -> None:
    ids = await populate(desk)

    found = shell("ls", "--json", "--scan", "--error", "no").document

    assert [job["id"] for job in found["jobs"]] == [ids["retrying"], ids["failed"]]


async def test_pages_follow_by_cursor(desk: Desk, shell: Shell) -> None:
    ids = await populate(desk)
    found: list[str] = []
    cursor: list[str] = []

    while True:
        page = shell("ls", "--json", "--limit", 3, *cursor).document
        found += [job["id"] for job in page["jobs"]]
        if page["cursor"] is None:
            break
        cursor = ["--cursor", page["cursor"]]

    assert found == list(reversed(ids.values()))
    first = shell("ls", "--limit", 3)
    assert len(first.lines) == 4
    assert re.fullmatch(r"there are more: --cursor \w+\n", first.err)


async def test_what_no_counter_knows_is_counted_up_to_a_limit(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.cli.ls.COUNT_MAX", 2)
    for _ in range(3):
        await desk.add(tags=("x",))

    assert shell("ls", "--count").out == "3\n"
    assert shell("ls", "--count", "--tag", "x").out == "2+\n"
    assert shell("ls", "--count", "--tag", "x", "--scan").out == "3\n"
    assert shell("ls", "--count", "--tag", "x", "--json").document == {"count": 2, "exact": False}


async def test_a_listing_of_nothing_prints_nothing(desk: Desk, shell: Shell) -> None:
    nothing = shell("ls")

    assert (nothing.code, nothing.out, nothing.err) == (0, "", "")
    assert shell("ls", "--json").document == {"jobs": [], "cursor": None}


async def test_json_has_the_fields_of_a_job(desk: Desk, shell: Shell) -> None:
    await desk.finished(Event.FAILED, tags=("a",))

    (job,) = shell("ls", "--json").document["jobs"]

    assert job["state"] == job["status"] == "failed"
    assert job["arguments"] == {"left": 1, "right": 2}
    assert job["created_at"] == "2026-01-01T00:00:00Z"
    assert job["error"] == {"type": "ValueError", "message": "no", "traceback": "", "place": ""}


async def test_long_errors_are_cut_in_the_table(desk: Desk, shell: Shell) -> None:
    started = await desk.start()
    await desk.end(started, Event.FAILED, error=ErrorRecord("ValueError", "x" * 500, ""))

    row = shell("ls").lines[1]

    assert row.endswith("x…")
    assert len(row) < 200


async def test_the_database_may_be_named_before_behind_or_by_the_environment(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.add()

    assert run("--db", shell.database, "ls", "--count").out == "1\n"
    assert run("ls", "--count", "--db", shell.database).out == "1\n"
    assert run("ls", "--count", "--db", f"sqlite:///{shell.database}").out == "1\n"
    monkeypatch.setenv("ASYNCJOBS_DB", str(shell.database))
    assert run("ls", "--count").out == "1\n"
    assert run("--db", "elsewhere.db", "ls", "--count").code == 3


@pytest.mark.parametrize("words", [[], ["--db", ""], ["--db", ":memory:"], ["--db", "pg://x/y"]])
def test_without_a_database_that_can_be_opened_the_use_is_wrong(words: list[str]) -> None:
    refused = run(*words, "ls")

    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("asyncjobs: ")
