"""What goes into one transaction, how much of it, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ..records import Transition
from .base import Claim, Disown, Insert, InsertAndClaim, Operation, Report

RunT = TypeVar("RunT")

Waiting = tuple[Any, "asyncio.Future[Any]"]
"""An operation (or a new job), and the future that its caller awaits. A plain tuple: there is one
for every job."""


class Batch(Generic[RunT]):
    """What goes into one transaction, and who waits for it."""

    def __init__(self) -> None:
        self.reports: list[tuple[Transition, RunT]] = []
        self.operations: list[Waiting] = []
        self.inserts: list[Waiting] = []
        self.claim: Claim | None = None
        self.disown: Disown | None = None

    def to_write(self, instance: str) -> list[Operation]:
        """The operations, in the order in which they are to run."""
        operations: list[Operation] = []
        if self.reports:
            operations.append(Report(instance, [transition for transition, _ in self.reports]))
        if self.disown is not None:
            operations.append(self.disown)
        operations += [operation for operation, _ in self.operations]
        if self.inserts:
            insert = Insert([job for job, _ in self.inserts])
            if self.claim is None:
                operations.append(insert)
            else:
                operations.append(InsertAndClaim(insert, self.claim))
        elif self.claim is not None:
            operations.append(self.claim)
        return operations


def weight_of(transition: Transition) -> int:
    """About how many bytes an outcome takes beside its row."""
    weight = len(transition.result) if transition.result else 0
    if transition.note is not None:
        weight += transition.note.weight
    if transition.error is not None:
        weight += len(transition.error.message) + len(transition.error.traceback)
    if transition.usage is not None:
        weight += len(transition.usage.output)
    return weight


def fitting(sizes: Sequence[int], rows: int, room: int) -> tuple[int, int]:
    """How many of the first items fit into a flush, and the bytes that are left.

    At least one fits where there is a row for it, however large it is.
    """
    total = sum(sizes)
    if len(sizes) <= rows and total <= room:
        return len(sizes), room - total
    total = 0
    for count, size in enumerate(sizes[:rows]):
        if count and total + size > room:
            return count, room - total
        total += size
    return min(len(sizes), rows), room - total
