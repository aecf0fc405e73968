"""Gates: what the settings of queues let through, and how they are set.

Held by the claim under the writer's lock, against the exact counters: however many processes claim,
a queue never runs more than it may.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from ...clock import to_datetime
from ...inventory import QueueStanding
from ...rules.limiting import Pace
from ..overview import HOLDERS_MAX
from ..queueing import QueueSettings, SetQueue
from .transaction import STATEMENTS, Transaction, to_json

SETTINGS = ("paused", "running", "pace", "weight", "ageing")


class Gates:
    """What each queue with settings has room for in one claim."""

    def __init__(self, tx: Transaction) -> None:
        self._now = tx.now
        self._room: dict[str, int] = {}
        self._settings: dict[str, QueueSettings] = {}
        self._taken: Counter[str] = Counter()
        if tx.has_queue_settings:
            for queue, settings, running in _read(tx.fetch("queue_settings")):
                self._settings[queue] = settings
                room = _room(settings, running + tx.running_more(queue), tx.now)
                if room is not None:
                    self._room[queue] = room
        self.capped = frozenset(
            queue for queue, settings in self._settings.items() if settings.running is not None
        )
        """Queues of which the end of one run makes room for another."""
        self.weights = {
            queue: settings.weight
            for queue, settings in self._settings.items()
            if settings.weight is not None
        }
        self.reorder = bool(self.weights) or any(
            settings.ageing is not None for settings in self._settings.values()
        )
        """Whether jobs start in another order than that of their levels."""

    def __bool__(self) -> bool:
        return bool(self._room)

    def is_open(self, queue: str) -> bool:
        """Whether one more of the queue may start."""
        return self._room.get(queue, 1) > 0

    def ageing(self, queue: str) -> int | None:
        """Microseconds after which a waiting job of the queue counts one priority higher."""
        settings = self._settings.get(queue)
        return None if settings is None else settings.ageing

    def closed(self) -> str:
        """Queues of which none may start, as JSON."""
        return to_json([queue for queue, room in self._room.items() if room <= 0]).decode()

    def take(self, queue: str) -> None:
        """One of the queue starts."""
        if queue in self._room:
            self._room[queue] -= 1
            self._taken[queue] += 1

    def settle(self, tx: Transaction) -> None:
        """Write what is used up of the queues' rates, where it has changed."""
        for queue, settings in self._settings.items():
            if settings.pace is None:
                continue
            spent = settings.pace.bounded(settings.spent, tx.now)
            if jobs := self._taken[queue]:
                spent = settings.pace.after(spent, tx.now, jobs)
            if spent != settings.spent:
                tx.fetch("spend_rate", spent, queue)

    def next_at(self, queue: str) -> int | None:
        """When a closed queue opens by time alone; ``None`` when it does not."""
        settings = self._settings[queue]
        if settings.paused or settings.pace is None:
            return None
        spent = settings.pace.after(settings.spent, self._now, self._taken[queue])
        opens_at = settings.pace.next_at(spent, self._now)
        return opens_at if opens_at > self._now else None  # open: the cap is what closes it


def _room(settings: QueueSettings, running: int, now: int) -> int | None:
    """How many may start; ``None`` for any number."""
    if settings.paused:
        return 0
    rooms = []
    if settings.running is not None:
        rooms.append(max(0, settings.running - running))
    if settings.pace is not None:
        rooms.append(max(0, settings.pace.room(settings.spent, now)))
    return min(rooms, default=None)


def _read(rows: list[Any]) -> list[tuple[str, QueueSettings, int]]:
    return [
        (
            queue,
            QueueSettings(
                bool(paused), cap, Pace(*rate) if rate[0] else None, spent, weight, ageing
            ),
            running,
        )
        for queue, paused, cap, weight, ageing, *rate, spent, running in rows
    ]


def read_settings(connection: sqlite3.Connection) -> dict[str, QueueSettings]:
    """What is set, by queue."""
    rows = connection.execute(STATEMENTS["queue_settings"]).fetchall()
    return {queue: settings for queue, settings, _ in _read(rows)}


def standing_of(connection: sqlite3.Connection, queue: str, now: int) -> QueueStanding | None:
    """How a queue stands to what is set for it; ``None`` where nothing is."""
    rows = connection.execute(STATEMENTS["queue_settings"]).fetchall()
    for name, settings, running in _read(rows):
        if name == queue:
            return _standing(connection, queue, settings, running, now)
    return None


def _standing(
    connection: sqlite3.Connection, queue: str, settings: QueueSettings, running: int, now: int
) -> QueueStanding:
    holders: list[tuple[str]] = []
    if settings.running is not None:
        values = (queue, HOLDERS_MAX)
        holders = connection.execute(STATEMENTS["running_of_queue"], values).fetchall()
    opens_at = None if settings.pace is None else settings.pace.next_at(settings.spent, now)
    return QueueStanding(
        paused=settings.paused,
        running_max=settings.running,
        running=running,
        holders=tuple(job_id for (job_id,) in holders),
        opens_at=None if opens_at is None or opens_at <= now else to_datetime(opens_at),
    )


def set_queue(tx: Transaction, operation: SetQueue) -> None:
    """Change what is set for a queue; a row that says nothing goes."""
    queue = operation.queue
    stored = {name: settings for name, settings, _ in _read(tx.fetch("queue_settings"))}
    old = stored.get(queue, QueueSettings())
    given = {name: getattr(operation, name) for name in SETTINGS}
    new = replace(old, **{name: value for name, value in given.items() if value is not UNSET})
    if new.nothing:
        tx.fetch("drop_queue_settings", queue)
    else:
        pace = new.pace
        rate = (None, None, None) if pace is None else (pace.jobs, pace.per, pace.burst)
        tx.fetch("set_queue", queue, new.paused, new.running, new.weight, new.ageing, *rate)
    if new.weight != old.weight:
        tx.fetch("drop_turns")  # what they have had was by other weights
    tx.fetch(
        "add_audit", operation.note_id, tx.now, operation.actor, operation.action, operation.what,
        1, 1,
    )  # fmt: skip
