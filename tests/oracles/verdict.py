"""The judgement over a drained database and its ledgers: what is lost, doubled, stale, illegal."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from asyncjobs.states import FINISHED, Event
from asyncjobs.store.sqlite.check import violations

from .ledger import AckLedger, EffectLedger, Start

GIVEN_BACK = (Event.RETRYING, Event.SNOOZED, Event.RELEASED, Event.RESCUED, Event.REQUEUED)
"""Events after which a job may start once more."""


@dataclass
class Verdict:
    """Counts, and what stands behind them. All lists empty: the promise was kept."""

    acked: int = 0
    starts: int = 0
    crashes: int = 0
    lost: list[str] = field(default_factory=list)
    """Acknowledged ids without a row, or whose row is not finished; answers taken back."""
    double: list[str] = field(default_factory=list)
    """Jobs that started more often than they were given back, or twice under one fence."""
    stale: list[str] = field(default_factory=list)
    """Outcomes that are not of the job's highest fence; runs that overlap."""
    illegal: list[str] = field(default_factory=list)
    """Whatever ``registry.check()`` finds."""

    @property
    def clean(self) -> bool:
        """Nothing was found."""
        return not (self.lost or self.double or self.stale or self.illegal)

    def __str__(self) -> str:
        return (
            f"acked {self.acked}, starts {self.starts}, crashes {self.crashes}, "
            f"lost {len(self.lost)}, double {len(self.double)}, stale {len(self.stale)}, "
            f"illegal {len(self.illegal)}"
        )


def judge(
    database: Path, acks: AckLedger, effects: EffectLedger, *, overlap: bool = False
) -> Verdict:
    """Judge a database that nobody has open and whose jobs were all let finish.

    The jobs are expected to return their claim number. ``overlap=True`` allows a given-up run to
    go on beside the newer one, as a stopped and continued process does.
    """
    connection = sqlite3.connect(database)
    try:
        verdict = Verdict()
        verdict.illegal = [f"{v.rule}: {v.examples}" for v in violations(connection)]
        rows = {
            row[0]: row
            for row in connection.execute(
                "SELECT j.id, j.seq, j.state, j.claim, j.crashes, r.result FROM asyncjobs_jobs AS j"
                " LEFT JOIN asyncjobs_results AS r ON r.seq = j.seq"
            )
        }
        given_back = _given_back(connection)
    finally:
        connection.close()
    runs = effects.runs()
    verdict.crashes = sum(row[4] for row in rows.values())
    verdict.starts = sum(map(len, runs.values()))
    _judge_acks(verdict, rows, acks)
    for job_id, starts in runs.items():
        if job_id in rows:
            _judge_runs(verdict, rows[job_id], starts, given_back, overlap=overlap)
        else:
            verdict.lost.append(f"{job_id} ran but has no row")
    return verdict


def _given_back(connection: sqlite3.Connection) -> Counter[int]:
    times: Counter[int] = Counter()
    for kind, jobs in connection.execute("SELECT kind, jobs FROM asyncjobs_journal"):
        if kind in GIVEN_BACK:
            times.update(json.loads(jobs)[::2])
    return times


def _judge_acks(verdict: Verdict, rows: dict[str, tuple[object, ...]], acks: AckLedger) -> None:
    lines = acks.lines()
    words: dict[str, set[str]] = {}
    for line in lines:
        words.setdefault(line.word, set()).add(line.job_id)
    accepted = words.get("job", set())
    retried = words.get("retried", set()) | words.get("retry-asked", set())
    verdict.acked = len(accepted)
    for job_id in accepted - words.get("deleted", set()):
        row = rows.get(job_id)
        if row is None:
            verdict.lost.append(f"{job_id} has no row")
        elif row[2] not in FINISHED:
            verdict.lost.append(f"{job_id} is still {row[2]}")
    for job_id in words.get("cancelled", set()) - retried:
        if job_id in rows and rows[job_id][2] != "cancelled":
            verdict.lost.append(f"{job_id} was cancelled, and is {rows[job_id][2]}")
    for line in lines:
        if line.word == "result" and line.job_id not in retried:
            row = rows.get(line.job_id)
            if row is None or row[2] != "completed" or row[5] != line.value:
                verdict.stale.append(f"{line.job_id} was awaited as {line.value}, the row: {row}")


def _judge_runs(
    verdict: Verdict,
    row: tuple[object, ...],
    starts: list[Start],
    given_back: Counter[int],
    *,
    overlap: bool,
) -> None:
    job_id, seq, state, claim, _, result = row
    assert isinstance(seq, int)
    assert isinstance(claim, int)
    fences = Counter(start.claim for start in starts)
    if len(starts) > 1 + given_back[seq]:
        verdict.double.append(f"{job_id}: {len(starts)} starts, given back {given_back[seq]} times")
    if max(fences.values()) > 1:
        verdict.double.append(f"{job_id}: one fence started twice {fences}")
    if max(fences) > claim:
        verdict.stale.append(f"{job_id}: ran under claim {max(fences)}, the row has {claim}")
    if state == "completed" and result is not None and int(str(result)) != claim:
        verdict.stale.append(f"{job_id}: the result is of claim {result}, the row has {claim}")
    ordered = sorted(starts, key=lambda start: start.claim)
    for earlier, later in itertools.pairwise(ordered):
        if later.started < earlier.started:
            verdict.stale.append(f"{job_id}: claim {later.claim} began before {earlier.claim}")
        if not overlap and earlier.seen > later.started:
            verdict.double.append(f"{job_id}: {earlier.claim} still ran when {later.claim} began")
