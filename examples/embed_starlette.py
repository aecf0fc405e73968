"""Starlette. Run it: ``uvicorn examples.embed_starlette:app``."""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncjobs import Runner

runner = Runner("jobs.db")


@runner.task
async def double(number: int) -> int:
    """Stands for work that must not block a request."""
    await asyncio.sleep(0.05)
    return number * 2


async def start(request: Request) -> JSONResponse:
    """Accept the work: it is on disk before the answer leaves."""
    handle = await double.enqueue(request.path_params["number"])
    return JSONResponse({"job": handle.id}, status_code=202)


async def result(request: Request) -> JSONResponse:
    """Wait for it, at most 20 seconds."""
    job_id = request.path_params["job_id"]
    return JSONResponse({"result": await double.handle(job_id).result(timeout=20)})


app = Starlette(
    lifespan=runner.lifespan,
    routes=[
        Route("/double/{number:int}", start, methods=["POST"]),
        Route("/jobs/{job_id}", result),
    ],
)
