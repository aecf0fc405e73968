"""Litestar. Run it: ``uvicorn examples.embed_litestar:app``."""

import asyncio

from litestar import Litestar, get, post

from asyncjobs import Runner

runner = Runner("jobs.db")


@runner.task
async def double(number: int) -> int:
    """Stands for work that must not block a request."""
    await asyncio.sleep(0.05)
    return number * 2


@post("/double/{number:int}", status_code=202)
async def start(number: int) -> dict[str, str]:
    """Accept the work: it is on disk before the answer leaves."""
    handle = await double.enqueue(number)
    return {"job": handle.id}


@get("/jobs/{job_id:str}")
async def result(job_id: str) -> dict[str, int]:
    """Wait for it, at most 20 seconds."""
    return {"result": await double.handle(job_id).result(timeout=20)}


app = Litestar([start, result], lifespan=[runner.lifespan])
