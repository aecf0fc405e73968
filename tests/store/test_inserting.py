"""Insert: rows for what is new, answers for what is there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from asyncjobs.clock import new_id
from asyncjobs.records import Accepted
from asyncjobs.store.base import Delete, Insert

from .kit import SECOND, Desk


async def test_new_job_is_queued_and_due_at_once(desk: Desk) -> None:
    job = desk.job()
    assert await desk.insert(job) == [None]
    row = await desk.get(job.id)
    assert (row.state, row.status, row.task, row.queue) == ("queued", "queued", "add", "default")
    assert (row.attempt, row.claim, row.crashes, row.snoozes) == (0, 0, 0, 0)
    assert row.run_at == row.created_at == desk.clock.datetime()
    assert (row.started_at, row.finished_at, row.instance, row.reason) == (None, None, None, None)


async def test_everything_that_a_job_carries_comes_back(desk: Desk) -> None:
    job = desk.job(
        arguments='{"text":"\\u2028 \'quoted\\" \\\\ é"}',
        priority=-100,
        max_crashes=7,
        key='k\'ey \\ "1"',
        trigger="import",
        tags=("b", "a", "ü"),
        meta='{"who":"me"}',
        options='{"timeout":3.0}',
    )
    await desk.insert(job)
    row = await desk.get(job.id)
    assert row.arguments == {"text": "\u2028 'quoted\" \\ é"}
    assert (row.priority, row.max_crashes, row.key, row.trigger) == (-100, 7, job.key, "import")
    assert (row.tags, row.meta) == (("b", "a", "ü"), {"who": "me"})
    (claimed,) = (await desk.claim()).jobs
    assert (claimed.arguments, claimed.meta) == (job.arguments, job.meta)
    assert claimed.options == job.options


async def test_job_without_arguments_has_no_payload_and_lists_as_empty(desk: Desk) -> None:
    job_id = await desk.add(arguments="{}")
    assert (await desk.get(job_id)).arguments == {}
    (claimed,) = (await desk.claim()).jobs
    assert (claimed.payload, claimed.arguments, claimed.meta) == (None, None, None)


async def test_job_with_meta_alone_keeps_it(desk: Desk) -> None:
    job_id = await desk.add(arguments="{}", meta='{"a":1}')
    assert (await desk.get(job_id)).meta == {"a": 1}
    (claimed,) = (await desk.claim()).jobs
    assert (claimed.arguments, claimed.meta) == ("{}", '{"a":1}')


async def test_delay_counts_from_acceptance(desk: Desk) -> None:
    job = desk.job(delay=10 * SECOND)
    desk.clock.advance(5)
    await desk.insert(job)
    row = await desk.get(job.id)
    assert row.run_at == desk.clock.datetime() + timedelta(seconds=10)
    assert row.status == "scheduled"


async def test_same_job_twice_is_one_row(desk: Desk) -> None:
    job = desk.job()
    await desk.insert(job)
    assert await desk.insert(job) == [Accepted(job.id, False)]
    assert await desk.count() == 1


async def test_same_job_twice_in_one_batch_is_one_row(desk: Desk) -> None:
    job = desk.job()
    assert await desk.insert(job, job) == [None, Accepted(job.id, False)]
    assert await desk.count() == 1


async def test_same_job_in_two_operations_of_one_write_is_one_row(desk: Desk) -> None:
    job = desk.job()
    first, second = await desk.store.write([Insert([job]), Insert([job, desk.job()])])
    assert (first, second) == ([None], [Accepted(job.id, False), None])
    assert await desk.count() == 2


async def test_same_finished_job_again_is_not_enqueued_anew(desk: Desk) -> None:
    job = desk.job()
    await desk.insert(job)
    await desk.end((await desk.claim()).jobs[0])
    assert await desk.insert(job) == [Accepted(job.id, False)]
    assert (await desk.get(job.id)).state == "completed"


@pytest.mark.parametrize("known", ["first", "middle", "last"])
async def test_known_job_among_new_ones_does_not_disturb_them(desk: Desk, known: str) -> None:
    jobs = [desk.job() for _ in range(5)]
    place = {"first": 0, "middle": 2, "last": 4}[known]
    await desk.insert(jobs[place])
    expected = [Accepted(job.id, False) if i == place else None for i, job in enumerate(jobs)]
    assert await desk.insert(*jobs) == expected
    assert await desk.count() == 5


async def test_same_key_with_same_arguments_answers_with_the_first_job(desk: Desk) -> None:
    first, second = desk.job(key="k"), desk.job(key="k")
    await desk.insert(first)
    assert await desk.insert(second) == [Accepted(first.id, False)]
    assert await desk.store.get(second.id) is None


async def test_same_key_is_the_same_whatever_the_order_of_argument_names(desk: Desk) -> None:
    first = desk.job(key="k", arguments='{"a":1,"b":2}')
    second = desk.job(key="k", arguments='{"b":2,"a":1}')
    await desk.insert(first)
    assert await desk.insert(second) == [Accepted(first.id, False)]


async def test_same_key_with_other_arguments_is_a_conflict(desk: Desk) -> None:
    first = desk.job(key="k")
    await desk.insert(first)
    answers = await desk.insert(desk.job(key="k", arguments='{"left":3}'))
    assert answers == [Accepted(first.id, conflict=True)]
    assert await desk.count() == 1


async def test_no_arguments_and_some_arguments_under_one_key_conflict(desk: Desk) -> None:
    first = desk.job(key="k", arguments="{}")
    await desk.insert(first)
    assert await desk.insert(desk.job(key="k")) == [Accepted(first.id, conflict=True)]
    assert await desk.insert(desk.job(key="k", arguments="{}")) == [Accepted(first.id, False)]


async def test_key_belongs_to_one_task(desk: Desk) -> None:
    await desk.insert(desk.job(key="k"))
    assert await desk.insert(desk.job(key="k", task="mul")) == [None]


async def test_key_of_a_finished_job_still_holds(desk: Desk) -> None:
    job_id = await desk.finished(key="k")
    assert await desk.insert(desk.job(key="k")) == [Accepted(job_id, False)]


async def test_keys_that_repeat_within_one_batch(desk: Desk) -> None:
    first = desk.job(key="k")
    again, other = desk.job(key="k"), desk.job(key="k", arguments="{}")
    answers = await desk.insert(first, again, other, desk.job(key="else"))
    assert answers == [None, Accepted(first.id, False), Accepted(first.id, conflict=True), None]
    assert await desk.count() == 2


async def test_known_id_with_a_key_answers_with_its_row(desk: Desk) -> None:
    job = desk.job(key="k")
    await desk.insert(job)
    assert await desk.insert(job) == [Accepted(job.id, False)]


async def test_together_inserts_nothing_when_one_conflicts(desk: Desk) -> None:
    first = desk.job(key="k")
    await desk.insert(first)
    new = desk.job()
    conflicting = desk.job(key="k", arguments="{}")
    answers = await desk.insert(new, conflicting, desk.job(key="other"), together=True)
    assert answers[1] == Accepted(first.id, conflict=True)
    assert await desk.count() == 1
    assert await desk.store.get(new.id) is None
    # The key of the job that was not inserted is free.
    assert await desk.insert(desk.job(key="other")) == [None]


async def test_together_accepts_jobs_that_are_there_already(desk: Desk) -> None:
    known, new = desk.job(), desk.job()
    await desk.insert(known)
    assert await desk.insert(known, new, together=True) == [Accepted(known.id, False), None]
    assert await desk.count() == 2


async def test_not_together_inserts_the_others_of_a_conflict(desk: Desk) -> None:
    await desk.insert(desk.job(key="k"))
    new = desk.job()
    await desk.insert(desk.job(key="k", arguments="{}"), new)
    assert await desk.store.get(new.id) is not None


async def test_nothing_to_insert_is_no_error(desk: Desk) -> None:
    assert await desk.insert() == []
    assert await desk.insert(together=True) == []


@pytest.mark.parametrize("jobs", [1, 127, 128, 129, 1_000, 10_000])
async def test_batches_of_every_size_go_in_whole(desk: Desk, jobs: int) -> None:
    batch = [desk.job(tags=("t",), key=f"k{i}") for i in range(jobs)]
    assert await desk.insert(*batch, together=True) == [None] * jobs
    assert await desk.count("queued") == jobs
    assert (await desk.get(batch[-1].id)).tags == ("t",)


async def test_seqs_follow_acceptance_and_are_not_reused_after_deletion(desk: Desk) -> None:
    job_id = await desk.finished()
    gone = (await desk.get(job_id)).seq
    await desk.do(Delete([job_id]))
    assert (await desk.get(await desk.add())).seq > gone


async def test_ids_of_another_origin_are_taken_as_they_are(desk: Desk) -> None:
    job_id = new_id(0)
    await desk.insert(desk.job(id=job_id))
    assert (await desk.get(job_id)).id == job_id


async def test_value_that_sqlite_cannot_hold_leaves_the_store_usable(desk: Desk) -> None:
    with pytest.raises(UnicodeEncodeError):
        await desk.insert(desk.job(), desk.job(trigger="\ud800"))
    assert await desk.count() == 0
    await desk.add()
    assert await desk.count() == 1
