"""How long finished jobs stay where their task says so: in the database, for every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct


class Rule(NamedTuple):
    """What a task says of its jobs in one state: ``newest`` of them, or up to an ``age``."""

    task: str
    state: str
    newest: int | None
    age: int | None
    """Microseconds."""


class Retain(Struct, frozen=True):
    """Note the rules of tasks in place of those that they had. Result: None."""

    tasks: Sequence[str]
    rules: Sequence[Rule]


class PruneRetained(Struct, frozen=True):
    """Delete jobs of one task and state up to a place (end, seq), at most ``limit``.

    Only those whose task said so when they were enqueued. Result: how many.
    """

    task: str
    state: str
    until: tuple[int, int]
    limit: int


class Shorten(Struct, frozen=True):
    """Shorten the file towards ``pages``, by at most ``limit`` unused ones. Result: by how many."""

    pages: int
    limit: int


class Retaining(Protocol):
    """The part of a store that knows how long jobs stay."""

    async def retention(self) -> list[Rule]:
        """Every rule that is noted."""
        ...

    async def edge_of(self, rule: Rule) -> tuple[int, int] | None:
        """Where those begin that the newest leave behind; ``None`` when there are none."""
        ...

    async def first_prunable(
        self, state: str, *, since: tuple[int, int], before: int
    ) -> tuple[int, int] | None:
        """The first place (end, seq), from one on, of a job that nothing keeps."""
        ...

    async def used_pages(self) -> int:
        """How many pages of the file hold something."""
        ...
