"""``asyncjobs failures``: groups of failed jobs, and the way from there to a retry."""

from __future__ import annotations

import asyncio
import re

from asyncjobs.states import Event
from tests.store.kit import Desk

from .kit import Shell


async def test_groups_are_listed_what_failed_last_first(desk: Desk, shell: Shell) -> None:
    for _ in range(3):
        await desk.finished(Event.FAILED)
        desk.clock.advance(60)
    last = await desk.finished(Event.FAILED, task="mul")

    listed = shell("failures")

    assert listed.code == 0
    head, *rows = [re.split(r"  +", line) for line in listed.lines]
    assert head[:3] == ["FINGERPRINT", "JOBS", "TASK"]
    assert [row[1:3] for row in rows] == [["1", "mul"], ["3", "add"]]
    assert rows[0][5:7] == [last, "ValueError: no"]
    (group, _) = shell("failures", "--json").document["failures"]
    assert (group["job_id"], group["jobs"], group["message"]) == (last, 1, "no")
    assert len(shell("failures", "--limit", "1").lines) == 2
    assert group["fingerprint"] in shell("show", last).out


async def test_group_is_counted_and_retried_by_its_fingerprint(desk: Desk, shell: Shell) -> None:
    for task in ("add", "add", "mul"):
        await desk.finished(Event.FAILED, task=task)
    groups = shell("failures", "--json").document["failures"]
    (fingerprint,) = [group["fingerprint"] for group in groups if group["jobs"] == 2]

    assert shell("ls", "--count", "--fingerprint", fingerprint).out == "2\n"
    retried = await asyncio.to_thread(shell, "retry", "--fingerprint", fingerprint, "--yes")
    assert retried.out == "2 jobs retried\n"

    (left,) = shell("failures", "--json").document["failures"]
    assert left["task"] == "mul"


def test_nothing_failed_and_wrong_limits(shell: Shell) -> None:
    assert shell("failures").out == ""
    assert shell("failures", "--limit", "0").code == 2
    assert shell("ls", "--fingerprint", "x").code == 2
