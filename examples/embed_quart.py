"""Quart. Run it: ``uvicorn examples.embed_quart:app``, or with hypercorn."""

import asyncio
from collections.abc import AsyncGenerator

from quart import Quart

from asyncjobs import Runner

runner = Runner("jobs.db")
app = Quart(__name__)


@app.while_serving
async def jobs() -> AsyncGenerator[None, None]:
    """Run jobs from the start of the server to its end."""
    async with runner:
        yield


@runner.task
async def double(number: int) -> int:
    """Stands for work that must not block a request."""
    await asyncio.sleep(0.05)
    return number * 2


@app.post("/double/<int:number>")
async def start(number: int) -> tuple[dict[str, str], int]:
    """Accept the work: it is on disk before the answer leaves."""
    handle = await double.enqueue(number)
    return {"job": handle.id}, 202


@app.get("/jobs/<job_id>")
async def result(job_id: str) -> dict[str, int]:
    """Wait for it, at most 20 seconds."""
    return {"result": await double.handle(job_id).result(timeout=20)}
