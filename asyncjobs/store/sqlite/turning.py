"""Candidates of a claim where queues have weights, or let waiting jobs rise."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ...records import Claimed
from ...rules.ordering import Turns, place
from .gates import Gates
from .transaction import Transaction

SEQ, QUEUE, RUN_AT = map(Claimed.__struct_fields__.index, ("seq", "queue", "run_at"))

_Placed = tuple[tuple[int, ...], Any]
Due = Callable[[str, int], Iterator[Any]]
"""The due jobs of a queue and priority, oldest due first."""


class Line:
    """The line of all levels: ``chosen`` are those that the claim has taken out of it."""

    def __init__(self, tx: Transaction, gates: Gates, chosen: Sequence[Any]) -> None:
        self._now = tx.now
        self._gates = gates
        self._chosen = chosen
        self._counted = 0
        ahead = dict(tx.fetch("turns")) if gates.weights else {}
        self._turns = Turns(ahead, gates.weights)

    def candidates(self, levels: Iterable[tuple[str, int]], due: Due) -> Iterator[Any]:
        """The due jobs of all levels (queue, priority), as :mod:`rules.ordering` says."""
        levels_of: defaultdict[str, list[int]] = defaultdict(list)
        for queue, priority in levels:
            levels_of[queue].append(priority)
        lines = {
            queue: heapq.merge(*[self._placed(due, queue, priority) for priority in priorities])
            for queue, priorities in levels_of.items()
        }
        heads: list[_Placed] = []
        for queue, line in lines.items():
            self._join(heads, queue, line)
        while heads:
            _, row = heapq.heappop(heads)
            yield row
            self._count()
            self._join(heads, row[QUEUE], lines[row[QUEUE]])

    def _placed(self, due: Due, queue: str, priority: int) -> Iterator[_Placed]:
        ageing = self._gates.ageing(queue)
        for row in due(queue, priority):
            yield place(0, priority, row[RUN_AT], row[SEQ], now=self._now, ageing=ageing), row

    def _join(self, heads: list[_Placed], queue: str, line: Iterator[_Placed]) -> None:
        """The queue's next job, if any, at its queue's turn."""
        for (_, *standing), row in islice(line, 1):
            heapq.heappush(heads, ((self._turns.of(queue), *standing), row))

    def _count(self) -> None:
        for row in self._chosen[self._counted :]:
            self._turns.take(row[QUEUE])
        self._counted = len(self._chosen)

    def settle(self, tx: Transaction) -> None:
        """Keep whose turn it is."""
        self._count()
        if self._counted and self._gates.weights:
            tx.fetch("drop_turns")
            left = self._turns.left()
            tx.write_rows("insert_turns", [value for turn in left.items() for value in turn])
