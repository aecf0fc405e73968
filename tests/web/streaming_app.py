"""An application for ``uvicorn`` with jobs that take as long as the server, and streams of them."""

from __future__ import annotations

import os

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncjobs import Runner
from asyncjobs.web import status_routes

runner = Runner("jobs.db", grace=0.5)


@runner.task
async def endless() -> None:
    await anyio.sleep_forever()


async def start(request: Request) -> JSONResponse:
    """Begin one job."""
    return JSONResponse({"job": (await endless.enqueue()).id})


async def listeners(request: Request) -> JSONResponse:
    """How many streams have caught up and wait for what comes."""
    feed = runner.engine().feed
    return JSONResponse({"listeners": sum(map(len, feed._by_seq.values()))})


app = Starlette(
    lifespan=runner.lifespan,
    routes=[
        Route("/start", start, methods=["POST"]),
        Route("/listeners", listeners),
        *status_routes(
            runner,
            authorize=lambda request, job_id, action: True,
            stream_seconds=float(os.environ.get("STREAM_SECONDS", "30")),
        ),
    ],
)
