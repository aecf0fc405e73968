"""FastAPI. Run it: ``uvicorn examples.embed_fastapi:app``. ``fastapi_app.py`` is a whole one."""

import asyncio

from fastapi import FastAPI

from asyncjobs import Runner

runner = Runner("jobs.db")
app = FastAPI(lifespan=runner.lifespan)


@runner.task
async def double(number: int) -> int:
    """Stands for work that must not block a request."""
    await asyncio.sleep(0.05)
    return number * 2


@app.post("/double/{number}", status_code=202)
async def start(number: int) -> dict[str, str]:
    """Accept the work: it is on disk before the answer leaves."""
    handle = await double.enqueue(number)
    return {"job": handle.id}


@app.get("/jobs/{job_id}")
async def result(job_id: str) -> dict[str, int]:
    """Wait for it, at most 20 seconds."""
    return {"result": await double.handle(job_id).result(timeout=20)}
