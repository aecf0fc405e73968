"""``asyncjobs audit``: who did what by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asyncjobs.states import Event
from asyncjobs.store.base import Filter, Requeue, Slice
from asyncjobs.store.overview import AuditNote
from tests.store.kit import Desk

from .kit import Shell, files_of, run
from .test_changing import ME, call
from .test_queues import setting

HEAD = ["AT", "ACTOR", "ACTION", "CHANGED", "WHAT"]
SINCE = "2026-01-01 00:00:00"


async def test_what_was_done_is_listed_the_last_first(desk: Desk, shell: Shell) -> None:
    await desk.finished(Event.FAILED)
    (waiting, failed) = await desk.add(), 1
    note = AuditNote("2", "ann", '{"task":"add"}')
    await desk.do(setting("mail", paused=True))
    await desk.do(Slice(Requeue(()), note, Filter(states=("failed",)), [failed, 2]))
    assert (await call(shell, "cancel", waiting))[0] == 0

    listed = shell("audit")

    assert listed.code == 0
    head, first, *rows = [re.split(r"  +", line) for line in listed.lines]
    assert head == HEAD
    assert first[1:] == [ME, "cancel", "1", f'{{"id": "{waiting}"}}']
    assert rows == [
        [SINCE, "ann", "retry", "1 of 2", '{"task": "add"}'],
        [SINCE, "set", "1", "{}"],
    ]


async def test_audit_goes_on_before_a_position(desk: Desk, shell: Shell) -> None:
    for number in range(3):
        await desk.do(setting(f"q{number}", paused=True, note_id=str(number)))

    first = shell("audit", "--limit", "2")
    assert (len(first.lines), first.err) == (3, "there are more: --before 2\n")
    document = shell("audit", "--limit", "2", "--json").document
    assert [entry["position"] for entry in document["audit"]] == [3, 2]
    assert document["before"] == 2
    rest = shell("audit", "--before", "2", "--json").document
    assert [entry["position"] for entry in rest["audit"]] == [1]
    assert rest["before"] is None


async def test_nothing_done_lists_nothing(desk: Desk, shell: Shell) -> None:
    assert (shell("audit").code, shell("audit").out) == (0, "")
    assert shell("audit", "--json").document == {"audit": [], "before": None}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--limit", "0"], "limit=0 is out of range"),
        (["--before", "0"], "before=0 is out of range"),
        (["--before", "x"], "invalid int value: 'x'"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    desk: Desk, shell: Shell, words: list[str], complaint: str
) -> None:
    ran = shell("audit", *words)

    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


def test_looking_makes_no_database(tmp_path: Path) -> None:
    assert run("--db", tmp_path / "none.db", "audit").code == 3
    assert files_of(tmp_path) == {}
