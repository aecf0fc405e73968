"""Limits by key: which jobs hold a permit, and who gets one that is given back.

A job with a limit takes a permit of its key when it is due; without one it is blocked. So the claim
never meets a job that may not run, and a full key stands in nobody's way. One that is due later is
queued like any other, and asks for its permit then: the claim sees to that before it looks for
jobs. Permits are the rows of the line that say "in", counted whenever it matters: no number is kept
that could drift. All of it happens in the transaction that makes or takes the room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from math import ceil
from typing import Any, NamedTuple

from ...clock import MICROSECONDS
from ...records import JobLimit, NewJob, Transition
from ...rules.limiting import Pace
from ...states import FINISHED, Event, State
from .transaction import Transaction, from_json, to_json

ADMITTED_MAX = 1_000
"""Jobs of a key that are admitted in one transaction; the next claim goes on."""
LATEST = 2**63 - 1
LOOK_MICROSECONDS = MICROSECONDS
"""How rarely at last one looks whether what was admitted has started, as in a paused queue."""


class Arrival(NamedTuple):
    """A new job with a limit, whose row is written."""

    seq: int
    run_at: int
    job: NewJob[Any]


def line_up(tx: Transaction, arrivals: Sequence[Arrival], *, permit: int | None = None) -> None:
    """Give new jobs, which are queued, their places; due ones without a permit are held.

    ``permit`` is the key of which they have one already: one that was changed keeps it.
    """
    # What was given last holds, and there are few different ones.
    given = dict.fromkeys(arrival.job.limit for arrival in reversed(arrivals))
    keys = _set_limits(tx, [limit for limit in reversed(given) if limit])
    rows: list[Any] = []
    waiting: list[int] = []
    for seq, run_at, job in arrivals:
        assert job.limit is not None
        limit_id = keys.ids[job.limit.name, job.limit.key]
        place = "ready" if job.limit.ordered or run_at <= tx.now else "later"
        if place == "ready" and limit_id == permit and limit_id not in keys.changed:
            place = "in"
        elif place == "ready":
            waiting.append(seq)
        # Ordered ones by seq alone, delayed or not.
        rows += (seq, limit_id, place, *((0, 0) if job.limit.ordered else (job.priority, run_at)))
    tx.write_rows("insert_limited", rows)
    _admit(tx, keys.ids.values(), queued=waiting, recalled=keys.recalled)


class _Keys(NamedTuple):
    """Keys whose limits have just been said."""

    ids: dict[tuple[str, str], int]
    changed: set[int]
    """Those of which something else was said before."""
    recalled: list[int]
    """Jobs without a permit by that, for now: they are not held yet."""


class _Said(NamedTuple):
    """What a limit allows, as it is stored."""

    running: int | None
    rate_jobs: int | None
    rate_per: int | None
    rate_burst: int | None
    ordered: bool
    stops: bool

    @classmethod
    def of(cls, limit: JobLimit) -> _Said:
        """What a job's limit says."""
        jobs, per, burst = limit.rate or (None, None, None)
        return cls(limit.running, jobs, per, burst, limit.ordered, limit.stops)

    def recalls(self, before: _Said) -> bool:
        """Whether jobs that have not started may have permits that this would not give."""
        fewer = self.running is not None and (
            before.running is None or self.running < before.running
        )
        paced = self.rate_jobs is not None and before.rate_jobs is None
        return fewer or paced or self.ordered != before.ordered


def heed_limits(tx: Transaction, limits: Sequence[JobLimit]) -> None:
    """Limits that are given now with jobs to come: their keys allow that, if they are there.

    When those jobs are made, it changes nothing any more: another one may have been given by then.
    """
    if limits:
        keys = _set_limits(tx, limits, make=False)
        _admit(tx, keys.changed, recalled=keys.recalled)


def _set_limits(tx: Transaction, limits: Sequence[JobLimit], *, make: bool = True) -> _Keys:
    """The rows of keys, changed to what was said last, or made."""
    wanted = {(limit.name, limit.key): _Said.of(limit) for limit in limits}
    kept = {(limit.name, limit.key) for limit in limits if limit.kept}
    keys = _Keys({}, set(), [])
    before: dict[tuple[str, str], _Said] = {}
    # Nearly always they are as they should be: to see that is cheaper than to write them again.
    for name, key, *said, limit_id in tx.fetch("find_limits", to_json(list(wanted)).decode()):
        before[name, key] = _Said(*said)
        keys.ids[name, key] = limit_id
    rows: list[Any] = []
    for names, now_said in wanted.items():
        if before.get(names) != now_said and (names not in kept if names in before else make):
            rows += (*names, *now_said)
    for limit_id, name, key in tx.write_rows("set_limits", rows):
        keys.ids[name, key] = limit_id
        if (name, key) in before:
            keys.changed.add(limit_id)
            keys.recalled.extend(_adapt(tx, limit_id, before[name, key], wanted[name, key]))
    return keys


def _adapt(tx: Transaction, limit_id: int, before: _Said, now: _Said) -> list[int]:
    """Have the jobs of a key stand as its new limit has it; those that need a permit by that.

    What runs goes on, and gives its permit back when it ends or comes back.
    """
    if before.stops and not now.stops:
        tx.fetch("go_on_after_failures", limit_id)
    recalled = (
        _recall(tx, limit_id, rated=before.rate_jobs is not None) if now.recalls(before) else []
    )
    if now.ordered != before.ordered:
        places = tx.fetch("realign", limit_id, now.ordered, tx.now)
        _free(tx, [seq for seq, place in places if place == "later"])
        return [seq for seq, place in places if place == "ready"]
    return recalled


def leave_line(tx: Transaction, transitions: Sequence[Transition]) -> None:
    """What becomes of the permits of runs that have ended or are to run again."""
    finished = [t.seq for t in transitions if t.state in FINISHED]
    failed = [t.seq for t in transitions if t.state is State.FAILED]
    again = [(t.seq, t.run_at) for t in transitions if t.run_at is not None]
    _count_starts(tx, [t.seq for t in transitions], {seq for seq, _ in again})
    left = _leave(tx, finished, failed) if finished else set()
    limits, recalled = _step_back(tx, again, started=True) if again else (set(), [])
    for t in transitions:
        if t.key_opens_at is not None:
            recalled += _close_key(tx, t.seq, t.key_opens_at)
    _admit(tx, left | limits, recalled=recalled)


def _count_starts(tx: Transaction, seqs: Sequence[int], again: Collection[int]) -> None:
    """See to it that runs that end count from their starts on, where keys have a rate.

    They were counted with their permits, which may have been long before. ``again`` are those that
    are queued already.
    """
    rows = tx.fetch("rated_keys", to_json(list(seqs)).decode())
    back = Counter(limit_id for limit_id, seq in rows if seq in again)
    limits = to_json(list({limit_id for limit_id, _ in rows})).decode()
    for row in tx.fetch("limit_rooms", limits, tx.now) if rows else ():
        room = _Room._make(row)
        assert room.pace is not None
        unstarted = room.unstarted - back[room.limit_id]
        started = room.started + unstarted * room.pace.interval
        if room.spent < started:
            spent = room.pace.bounded(started, tx.now)
            tx.fetch("spend_limit", max(room.spent, spent), room.limit_id)


def _step_back(
    tx: Transaction, again: Sequence[tuple[int, int]], *, started: bool
) -> tuple[set[int], list[int]]:
    """Jobs that are due later: meanwhile others of their keys may run, unless they are ordered.

    Where there is a rate, or the key is closed, one that has ``started`` needs another permit in
    any case. Answers with the keys that have got room, and the jobs that are in line for it again,
    which are not held yet.
    """
    rows = tx.fetch("step_back", to_json(again).decode(), tx.now, started)
    if not started:
        _refund(tx, [limit_id for limit_id, _, _ in rows])
    ready = [seq for _, seq, place in rows if place == "ready"]
    return {limit_id for limit_id, _, _ in rows}, ready


def step_back(tx: Transaction, later: Sequence[tuple[int, int]]) -> bool:
    """Jobs that a claim has put off; whether others may have got their permits."""
    limits, recalled = _step_back(tx, later, started=False)
    _admit(tx, limits, recalled=recalled)
    return bool(limits)


def _close_key(tx: Transaction, seq: int, opens_at: int) -> list[int]:
    """Let no job of the key start before then; those that held a permit for that already."""
    recalled: list[int] = []
    for (limit_id,) in tx.fetch("key_of_job", seq):
        # The head of an ordered key, which is due then itself, keeps it.
        recalled += _recall(tx, limit_id, due_before=opens_at)
        tx.fetch("close_limit", opens_at, tx.now, limit_id)
    return recalled


def _recall(
    tx: Transaction, limit_id: int, *, due_before: int = LATEST, rated: bool = True
) -> list[int]:
    """Take the permits of a key back from jobs that have not started; these are not held yet.

    Those that were given while it was not ``rated`` have not been counted.
    """
    recalled = [seq for (seq,) in tx.fetch("recall_permits", limit_id, due_before)]
    if rated:
        _refund(tx, [limit_id] * len(recalled))
    return recalled


def _refund(tx: Transaction, permits: Sequence[int]) -> None:
    """Permits of these keys were taken back from jobs that have not started, and will need others.

    Else such a start would count twice against the rate of its key.
    """
    for limit_id, jobs in Counter(permits).items():
        tx.fetch("refund_rate", jobs, limit_id)


def leave_waiting(tx: Transaction, seqs: Sequence[int]) -> None:
    """Jobs that were cancelled while they waited, with a permit or without."""
    _admit(tx, _leave(tx, seqs, ()))


def _leave(tx: Transaction, seqs: Sequence[int], failed: Sequence[int]) -> set[int]:
    rows = tx.fetch("leave_line", to_json(seqs).decode(), to_json(failed).decode())
    return {limit_id for (limit_id,) in rows}


def change_key(tx: Transaction, seq: int, limit: JobLimit | None) -> list[int]:
    """A finished job of a key is of another from now on, if its arguments say so.

    Answers with jobs for :func:`rejoin_line`, which have lost their permits by what the limit says.
    """
    old = [limit_id for (limit_id,) in tx.fetch("key_of_job", seq)]
    if limit is None or not old:
        return []
    # Its start has come: were it recalled by the new limit, that would be refunded.
    tx.fetch("step_aside", seq)
    keys = _set_limits(tx, [limit])
    (new,) = keys.ids.values()
    if [new] != old:
        tx.fetch("change_key", new, seq)
        _admit(tx, old)  # it may have stopped that key
        tx.fetch("delete_limits", to_json(old).decode(), tx.now)
    return keys.recalled


def rejoin_line(tx: Transaction, seqs: str, recalled: Sequence[int]) -> None:
    """Finished jobs that were queued once more, as JSON.

    In ordered keys they come before all that were enqueued after them and have not started.
    """
    rows = tx.fetch("rejoin_line", tx.now, seqs)
    later = tx.fetch("recall_later", seqs) if rows else []
    _refund(tx, [limit_id for limit_id, _ in later])
    queued = [seq for _, seq, place in rows if place == "ready"]
    recalled = [*recalled, *(seq for _, seq in later)]
    _admit(tx, {limit_id for limit_id, _, _ in rows}, queued=queued, recalled=recalled)


def forget_places(tx: Transaction, seqs: str) -> None:
    """Jobs that are deleted, as JSON; keys without jobs go with them."""
    limits = {limit_id for limit_id, _ in tx.fetch("delete_limited", seqs)}
    if limits:
        _admit(tx, limits)
        tx.fetch("delete_limits", to_json(list(limits)).decode(), tx.now)


def step_out(tx: Transaction, seq: int, *, limited: bool) -> list[tuple[int, str]]:
    """Take a waiting job that is about to be changed out of its line, if it is in one.

    Nobody gets its permit yet: it may come back with the same key, and then has its turn. What is
    to be ``limited`` has to be queued, whatever blocked it.
    """
    left: list[tuple[int, str]] = tx.fetch("delete_limited", to_json([seq]).decode())
    _note(tx, tx.fetch("step_out", seq, limited), Event.ADMITTED, State.BLOCKED, State.QUEUED)
    return left


def step_in(tx: Transaction, arrival: Arrival, left: Sequence[tuple[int, str]]) -> None:
    """Line up what was changed, and give others what it has left."""
    if arrival.job.limit is not None:
        permit = next((limit_id for limit_id, place in left if place == "in"), None)
        line_up(tx, [arrival], permit=permit)
    if left:
        limits = [limit_id for limit_id, _ in left]
        _admit(tx, limits)
        tx.fetch("delete_limits", to_json(limits).decode(), tx.now)


class Look(NamedTuple):
    """What is to be looked at next, after a look at the lines."""

    due_at: int | None
    """When the first job is due that has yet to ask for its permit."""
    opens_at: int | None
    """When the first key opens."""

    @property
    def at(self) -> int | None:
        """When to look, if ever."""
        return min((at for at in self if at is not None), default=None)


def look_at_lines(tx: Transaction) -> Look:
    """Admit what has become due, or whose key has opened, up to a number of them."""
    look = _next_look(tx)
    if look.at is None or look.at > tx.now:
        return look
    due = tx.fetch("line_due", tx.now, ADMITTED_MAX)
    opening = tx.fetch("limits_opening", tx.now, ADMITTED_MAX)
    limits = {limit_id for limit_id, _ in due}.union(limit_id for (limit_id,) in opening)
    _admit(tx, limits, recalled=[seq for _, seq in due])
    return _next_look(tx)


def _next_look(tx: Transaction) -> Look:
    return Look._make(tx.fetch("next_look")[0])


class _Room(NamedTuple):
    """A key, and how many of its jobs hold permits."""

    limit_id: int
    running: int | None
    rate_jobs: int | None
    rate_per: int
    rate_burst: int
    spent: float
    opens_at: int | None
    taken: int
    unstarted: int
    """Of those, for keys with a rate, the ones that have not started."""
    starts: str
    """When the others have, as JSON."""

    @property
    def pace(self) -> Pace | None:
        """Its rate."""
        rate = self.rate_jobs
        return None if rate is None else Pace(rate, self.rate_per, self.rate_burst)

    @property
    def started(self) -> float:
        """What is used up of its rate by the starts of those that hold permits; 0 without."""
        return 0.0 if self.pace is None else self.pace.of_starts(from_json(self.starts))

    def is_full(self, admitted: int) -> bool:
        """Whether it runs as many as it may with so many more: an end makes room, not time."""
        return self.running is not None and self.taken + admitted >= self.running

    def is_closed(self, now: int) -> bool:
        """Whether it opens later; that was by another clock if its rate says so."""
        if self.opens_at is None or self.opens_at <= now:
            return False
        return self.pace is None or not self.pace.is_overdrawn(self.spent, now)

    def free(self, now: int) -> int:
        """How many may be admitted."""
        if self.is_closed(now):
            return 0
        free = ADMITTED_MAX if self.running is None else self.running - self.taken
        if self.pace is not None:
            # Permits that nobody takes up must not pile up to a burst while nothing is claimed; and
            # those that were taken up late count from then on.
            started = self.started
            free = min(
                free,
                self.pace.room(max(self.spent, started), now),
                self.pace.room(started, now) - self.unstarted,
            )
        return max(0, min(free, ADMITTED_MAX))


def _admit(
    tx: Transaction,
    limits: Iterable[int],
    queued: Sequence[int] = (),
    recalled: Sequence[int] = (),
) -> None:
    """Give free permits to the next in line; hold those of ``queued`` that get none.

    So those that were ``recalled``, which may be parked or blocked already.
    """
    chosen = _choose(tx, limits)
    _free(tx, list(set(chosen).difference(queued)))
    _hold(tx, list(set(queued).difference(chosen)))
    _take_back(tx, list(set(recalled).difference(chosen)))


def _choose(tx: Transaction, limits: Iterable[int]) -> list[int]:
    """The jobs that get a permit now: by priority, then due time, then acceptance."""
    listed = to_json(list(limits)).decode()
    first = tx.fetch("next_in_lines", listed) if listed != "[]" else []
    if not first:
        return []
    lines = {limit_id: [seq for seq in seqs if seq is not None] for limit_id, *seqs in first}
    chosen: list[int] = []
    for row in tx.fetch("limit_rooms", to_json(list(lines)).decode(), tx.now):
        room = _Room._make(row)
        line, free = lines[room.limit_id], room.free(tx.now)
        if len(line) == 2 and free > 2:
            line += [seq for (seq,) in tx.fetch("more_in_line", room.limit_id, free - 2)]
        del line[free:]
        chosen += line
        _pace(tx, room, len(line), full=len(line) == free)
    if chosen:
        tx.fetch("take_permits", to_json(chosen).decode())
    return chosen


def _pace(tx: Transaction, room: _Room, admitted: int, *, full: bool) -> None:
    """Count starts against the key's rate; look again when time alone may open it."""
    pace, opens_at = room.pace, None
    if room.is_closed(tx.now):
        return  # it was pushed back
    spent = room.spent
    if pace is not None:
        spent = pace.bounded(max(spent, room.started), tx.now)
    if pace is not None and admitted:
        spent = pace.after(spent, tx.now, admitted)
    if admitted == ADMITTED_MAX:
        opens_at = tx.now
    elif pace is not None and full and not room.is_full(admitted):
        opens_at = pace.next_at(spent, tx.now)
        if opens_at <= tx.now:
            opens_at = _look_again(pace, opens_at, tx.now)
    if (spent, opens_at) != (room.spent, room.opens_at):
        tx.fetch("pace_limit", spent, opens_at, room.limit_id)


def _look_again(pace: Pace, opened_at: int, now: int) -> int:
    """When to see whether what is admitted has started: the longer it has not, the more rarely."""
    pause = max(ceil(pace.interval), min((now - opened_at) // 2, LOOK_MICROSECONDS))
    if pause < LOOK_MICROSECONDS:
        return now + pause
    # At full seconds: however many keys wait like this, they are one look.
    return -(-(now + pause) // LOOK_MICROSECONDS) * LOOK_MICROSECONDS


def _free(tx: Transaction, seqs: Sequence[int]) -> None:
    """Queue those that are blocked. They count as due from now on, so that keys take turns."""
    if seqs:
        rows = tx.fetch("admit", tx.now, to_json(seqs).decode())
        _note(tx, rows, Event.ADMITTED, State.BLOCKED, State.QUEUED)


def _hold(tx: Transaction, seqs: Sequence[int]) -> None:
    """Block queued jobs."""
    if seqs:
        rows = tx.fetch("hold", to_json(seqs).decode())
        _note(tx, rows, Event.HELD, State.QUEUED, State.BLOCKED)


def _take_back(tx: Transaction, seqs: Sequence[int]) -> None:
    """Block jobs that have no permit any more, and that are queued or parked."""
    if seqs:
        tx.fetch("unpark", to_json(seqs).decode())
        _hold(tx, seqs)


def _note(tx: Transaction, rows: list[Any], event: Event, old: State, new: State) -> None:
    for seq, claim, queue, task in rows:
        tx.count_move(queue, task, old.value, new.value)
        tx.note(event, (seq, claim))
