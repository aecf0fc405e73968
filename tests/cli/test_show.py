"""``asyncjobs show``: one job whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncjobs import Runner
from asyncjobs.records import ErrorRecord, JobLimit, LogEntry, Note, ProgressValue, RunUsage
from asyncjobs.rules.files import FileRecord, encode_file
from asyncjobs.states import Event
from asyncjobs.store.journal import Annotate
from asyncjobs.store.queueing import SetQueue
from asyncjobs.store.sqlite.journal import read_journal
from tests.store.kit import Desk

from .kit import Shell

ERROR = ErrorRecord("shop.Refused", "no such\norder", "Traceback:\n\tat home\nshop.Refused: no")
USAGE = RunUsage(cpu_seconds=1.5, peak_rss=3 * 2**20, output="printed\x1b[2J\nmore")


async def failed_job(desk: Desk) -> str:
    """Retried once, failed, with all that a job can have."""
    run = await desk.start(key="k-1", tags=("a", "b"), meta='{"who":"me"}', priority=5)
    desk.clock.advance(1)
    line = LogEntry(1, desk.clock.now(), "INFO", "shop", "begun\nin two lines")
    note = Note(run.seq, run.claim, 1, ProgressValue(1, 2, 4, "half"), [line])
    await desk.do(Annotate("here", [note]))
    await desk.end(run, Event.RETRYING, error=ERROR, usage=USAGE)
    (run,) = (await desk.claim()).jobs
    desk.clock.advance(61)
    await desk.end(run, Event.FAILED, reason="retries_exhausted", error=ERROR)
    return run.id


async def test_everything_that_is_known_of_a_job_is_shown(desk: Desk, shell: Shell) -> None:
    job_id = await failed_job(desk)

    shown = shell("show", job_id)

    assert (shown.code, shown.err) == (0, "")
    assert (
        shown.out
        == f"""\
job       {job_id}
task      add
status    failed (retries_exhausted)
queue     default, priority 5
created   2026-01-01 00:00:00
started   2026-01-01 00:00:01
finished  2026-01-01 00:01:02
took      1 min 1 s
attempt   2, 0 of 3 crashes, 0 snoozes
progress  2 of 4: half
failure   215c07e5101831a0
key       k-1
trigger   api
tags      a, b
instance  here

arguments
  {{
    "left": 1,
    "right": 2
  }}

meta
  {{
    "who": "me"
  }}

error
  Traceback:
      at home
  shop.Refused: no

attempts
NUMBER  STARTED                  TOOK       END       REASON             CPU    MEMORY   ERROR
1       2026-01-01 00:00:00.000  1.0 s      retrying  error              1.5 s  3.0 MiB  {{error}}
2       2026-01-01 00:00:01.000  1 min 1 s  failed    retries_exhausted                  {{error}}

output of attempt 1, claim 1
  printed\\x1b[2J
  more

timeline
  2026-01-01 00:00:00.000  enqueued
  2026-01-01 00:00:00.000  claimed    +0 ms
  2026-01-01 00:00:01.000  retrying   +1.0 s
  2026-01-01 00:00:01.000  claimed    +0 ms
  2026-01-01 00:01:02.000  failed     +1 min 1 s

log, 1 lines
  2026-01-01 00:00:01.000  INFO  shop  begun
    in two lines
""".replace("{error}", r"shop.Refused: no such\norder")
    )


async def test_a_result_is_shown(desk: Desk, shell: Shell) -> None:
    run = await desk.start()
    await desk.end(run, result='["a",{"b":"\\u202e"}]')

    assert (
        '\nresult\n  [\n    "a",\n    {\n      "b": "\\u202e"\n    }\n  ]\n'
        in shell("show", run.id).out
    )


async def test_a_file_that_a_job_returned_is_named_with_its_place(desk: Desk, shell: Shell) -> None:
    run = await desk.start()
    result = encode_file(FileRecord("1-1", "rows \u202e.csv", "text/csv", 2048))
    await desk.end(run, result=result)

    place = f"{shell.database}-files/1-1"
    assert (
        f"\nresult\n  rows \\u202e.csv, text/csv, 2.0 KiB: {place}\n" in shell("show", run.id).out
    )
    assert shell("show", run.id, "--json").document["file"] == place


@pytest.mark.parametrize("value", ["5", '{"key":"1-1"}', '{"key":"1-1","name":"a"}'])
async def test_a_result_that_mentions_the_mark_of_a_file_is_none(
    desk: Desk, shell: Shell, value: str
) -> None:
    run = await desk.start()
    await desk.end(run, result=f'{{"a":1,"asyncjobs_file":{value}}}')

    shown = shell("show", run.id, "--json")

    assert (shown.code, shown.err) == (0, "")
    assert shown.document["file"] is None
    assert '"asyncjobs_file"' in shell("show", run.id).out


async def test_json_has_the_same(desk: Desk, shell: Shell) -> None:
    job_id = await failed_job(desk)

    shown = shell("show", job_id, "--json").document

    assert shown["job"]["id"] == job_id
    assert shown["job"]["error"]["traceback"] == ERROR.traceback
    assert [run["claim"] for run in shown["attempts"]] == [1, 2]
    assert shown["attempts"][0]["output"] == USAGE.output
    kinds = [event["kind"] for event in shown["timeline"]["events"]]
    assert kinds == ["enqueued", "claimed", "retrying", "claimed", "failed"]
    assert shown["timeline"]["complete"] is True
    assert [line["text"] for line in shown["log"]["lines"]] == ["begun\nin two lines"]
    assert shown["log"]["dropped"] == 0


async def test_a_unique_beginning_of_an_id_is_enough(desk: Desk, shell: Shell) -> None:
    first = await desk.add()
    desk.clock.advance(86_400)
    second = await desk.add()

    for beginning in (second, second[:-1], second[:8], second[:8].upper()):
        assert shell("show", beginning, "--json").document["job"]["id"] == second
    ambiguous = shell("show", first[:4])
    assert (ambiguous.code, ambiguous.out) == (2, "")
    assert f"{first[:4]} is the beginning of {first}, {second}; give more" in ambiguous.err


async def test_of_many_candidates_the_first_are_named(desk: Desk, shell: Shell) -> None:
    ids = sorted([await desk.add() for _ in range(5)])

    assert f"{', '.join(ids[:3])} and more; give more" in shell("show", "0").err


@pytest.mark.parametrize("job_id", ["ffffffff", "zzz", "0%", "%", "' OR 1", "\x1b[2J", "\ud800"])
async def test_an_id_that_no_job_has_is_not_found(desk: Desk, shell: Shell, job_id: str) -> None:
    await desk.add()

    missing = shell("show", job_id)

    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("asyncjobs: no job ")
    assert missing.err.removesuffix("\n").isprintable()


@pytest.mark.parametrize("job_id", ["", " "])
async def test_an_empty_id_is_wrong_use(desk: Desk, shell: Shell, job_id: str) -> None:
    await desk.add()

    assert shell("show", job_id).code == 2
    assert "an id is empty" in shell("tail", job_id).err
    assert "an id is empty" in shell("cancel", job_id).err


async def test_ids_are_found_by_the_index(desk: Desk) -> None:
    from asyncjobs.store.sqlite.transaction import STATEMENTS

    store = desk.store
    plan = await store._reader.run(  # type: ignore[attr-defined]
        lambda connection: connection.execute(
            f"EXPLAIN QUERY PLAN {STATEMENTS['ids_from']}", ("0", 4)
        ).fetchall()
    )

    assert [re.sub(r"\(.*", "", row[3]) for row in plan] == [
        "SEARCH asyncjobs_jobs USING COVERING INDEX sqlite_autoindex_asyncjobs_jobs_1 "
    ]


async def test_a_long_journal_is_searched_for_a_bounded_time(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await failed_job(desk)
    monkeypatch.setattr("asyncjobs.cli.show.TIMELINE_SECONDS", 0.0)

    assert "the journal is long: --whole-timeline searches on" in shell("show", job_id).out
    assert shell("show", job_id, "--json").document["timeline"] == {"events": [], "complete": False}
    whole = shell("show", job_id, "--json", "--whole-timeline").document["timeline"]
    assert (len(whole["events"]), whole["complete"]) == (5, True)


async def test_the_search_ends_with_the_job(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.store.sqlite.journal.ROWS_MAX", 4)
    looked_at: list[Any] = []
    first = await desk.finished()
    for _ in range(20):
        await desk.finished()

    def counting(*what: Any) -> Any:
        looked_at.append(what)
        return read_journal(*what)

    monkeypatch.setattr("asyncjobs.cli.show.read_journal", counting)
    timeline = shell("show", first, "--json").document["timeline"]

    assert [event["kind"] for event in timeline["events"]] == ["enqueued", "claimed", "completed"]
    assert len(looked_at) == 1


async def test_a_job_without_a_journal_says_so(desk: Desk, shell: Shell) -> None:
    from asyncjobs.store.base import Prune

    job_id = await desk.finished()
    await desk.finished()
    await desk.do(Prune({}, desk.clock.now() + 1, 1_000))

    assert "the journal no longer holds it" in shell("show", job_id).out


async def test_a_job_that_waits_says_why(desk: Desk, shell: Shell) -> None:
    run = await desk.start("gone")
    later = await desk.add(run_at=4_102_444_800_000_000)
    nobody = await desk.add()

    shown = {job_id: shell("show", job_id).out for job_id in (later, nobody, run.id)}

    assert "\nwhy\n  It is due later, at 2100-01-01 00:00:00+00:00.\n" in shown[later]
    assert "No runner process that takes jobs of queue 'default' is alive.\n" in shown[nobody]
    assert "The runner process that ran it (gone) is gone;" in shown[run.id]
    assert shell("show", later, "--json").document["why"]["code"] == "scheduled"


async def test_a_job_that_a_limit_or_a_paused_queue_holds_up_says_so(
    desk: Desk, shell: Shell
) -> None:
    limit = JobLimit("add", "tenant", 1)
    first, second = [await desk.add(limit=limit) for _ in range(2)]
    mail = await desk.add(queue="mail")
    await desk.do(
        SetQueue(queue="mail", note_id="a", actor=None, action="pause", what="{}", paused=True)
    )

    shown = shell("show", mail).out
    assert "Queue 'mail' is paused; asyncjobs queues resume mail lets its jobs start." in shown
    held = f"Its key of the limit 'add' may run 1 at once, and has job {first}.\n"
    assert held in shell("show", second).out
    why = shell("show", second, "--json").document["why"]
    assert (why["code"], why["data"]["holders"]) == ("key_limit", [first])


async def test_json_has_how_many_come_before_a_job(shell: Shell) -> None:
    runner = Runner(shell.database)

    @runner.task
    async def work() -> None: ...

    async with runner:
        await runner.registry.set_queue("default", running=0)
        _, second = [await work.enqueue() for _ in range(2)]
        why = shell("show", second.id, "--json").document["why"]

    assert (why["code"], why["data"]["ahead"]) == ("queue_limit", {"count": 1, "exact": True})
    assert why["sentence"] == (
        "Queue 'default' is paused by running=0; asyncjobs queues set default --running none lets "
        "its jobs start."
    )


async def test_a_job_whose_window_is_closed_says_when_it_opens(desk: Desk, shell: Shell) -> None:
    # The command goes by the real clock.
    opens, closes = (f"{datetime.now(UTC) + timedelta(hours=hours):%H:%M}" for hours in (12, 13))
    window = f'{{"opens":"{opens}","closes":"{closes}"}}'
    job_id = await desk.add(options=f'{{"window":{window}}}')

    shown = shell("show", job_id).out
    assert "\nwhy\n  Its window is closed until 20" in shown
    assert f" {opens}:00+00:00. It may start: From {opens} to {closes} (UTC).\n" in shown


async def test_a_finished_job_needs_no_reason(desk: Desk, shell: Shell) -> None:
    job_id = await failed_job(desk)

    assert "\nwhy\n" not in shell("show", job_id).out
    assert shell("show", job_id, "--json").document["why"] is None
