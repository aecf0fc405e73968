"""An application whose work runs in workers: ``uvicorn tests.embedding.burning_app:app``."""

from __future__ import annotations

import os
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncjobs import Runner

GRACE_SECONDS = 1.0

runner = Runner("jobs.db", processes=1, grace=GRACE_SECONDS)


@runner.task(executor="process")
def meet(path: str, first: bool) -> list[int]:
    """Two of these end only if they run at once: each end of a pipe waits for the other."""
    with open(path, "r" if first else "w"):
        return [os.getppid(), os.getpid()]


@runner.task(executor="isolated")
def meet_alone(path: str, first: bool) -> list[int]:
    """The same, in a process of its own."""
    return meet(path, first)


@runner.task(executor="process")
def burn(seconds: float) -> int:
    """Compute."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1000))
    return os.getpid()


@runner.task(executor="isolated")
def burn_for_ever(path: str) -> None:
    """Say that it runs, and never end."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        sum(range(1000))


async def start(request: Request) -> JSONResponse:
    """Enqueue the task with these arguments."""
    tasks: dict[str, Any] = {
        "meet": meet, "meet_alone": meet_alone, "burn": burn, "burn_for_ever": burn_for_ever
    }  # fmt: skip
    handle = await tasks[request.path_params["task"]].enqueue(*await request.json())
    return JSONResponse({"job": handle.id}, status_code=202)


async def result(request: Request) -> JSONResponse:
    """Wait for it, at most 20 seconds."""
    return JSONResponse({"result": await runner.handle(request.path_params["job"]).result(20)})


app = Starlette(
    lifespan=runner.lifespan,
    routes=[Route("/start/{task}", start, methods=["POST"]), Route("/jobs/{job}", result)],
)
