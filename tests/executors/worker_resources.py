"""Tasks with what they share, both set up in each worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from asyncjobs import Tasks

tasks = Tasks()
ledger = os.environ.get("RESOURCE_LEDGER", "")


def note(word: str) -> None:
    if ledger:
        with open(ledger, "a") as file:
            file.write(f"{word} {os.getpid()}\n")


@tasks.resource
async def model() -> AsyncIterator[list[int]]:
    note("model up")
    await asyncio.sleep(0)
    yield [os.getpid()]
    note("model down")


@tasks.resource
def pool() -> Iterator[dict[str, int]]:
    note("pool up")
    yield {"pid": os.getpid()}
    note("pool down")


@tasks.task(executor="process")
def use() -> list[int]:
    return [*model.get(), pool.get()["pid"], os.getpid()]


@tasks.task(executor="process")
async def use_later() -> list[int]:
    await asyncio.sleep(0)
    return [*model.get(), pool.get()["pid"], os.getpid()]


def lines() -> list[str]:
    return Path(ledger).read_text().splitlines() if ledger else []
