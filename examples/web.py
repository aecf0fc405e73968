"""A Starlette application: answer at once, work in the background, report the status.

Run it: ``uvicorn examples.web:app``, then
``curl -X POST localhost:8000/reports/may`` and ``curl localhost:8000/jobs/ID``.
"""

from __future__ import annotations

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncjobs import Runner, UnknownJob

runner = Runner(os.environ.get("JOBS_DB", "web.db"))


@runner.task(timeout=60)
async def report(month: str) -> dict[str, int]:
    """The heavy work."""
    await asyncio.sleep(0.01)
    return {"pages": len(month)}


async def start(request: Request) -> JSONResponse:
    """Accept the work: it is on disk before the answer leaves."""
    month = request.path_params["month"]
    # The same month twice is one report, also when the browser sends the request again.
    handle = await report.options(key=month, trigger="web").enqueue(month)
    return JSONResponse({"job": handle.id, "existing": handle.existing}, status_code=202)


async def status(request: Request) -> JSONResponse:
    """How far it is."""
    try:
        job = await runner.registry.get(request.path_params["job"])
    except UnknownJob:
        return JSONResponse({"error": "no such job"}, status_code=404)
    error = None if job.error is None else job.error.summary
    return JSONResponse({"status": job.status, "result": job.result, "error": error})


app = Starlette(
    lifespan=runner.lifespan,
    routes=[
        Route("/reports/{month}", start, methods=["POST"]),
        Route("/jobs/{job}", status),
    ],
)
