"""aiohttp. Run it: ``python -m aiohttp.web -P 8000 examples.embed_aiohttp:make_app``."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from asyncjobs import Runner

runner = Runner("jobs.db")


@runner.task
async def double(number: int) -> int:
    """Stands for work that must not block a request."""
    await asyncio.sleep(0.05)
    return number * 2


async def start(request: web.Request) -> web.Response:
    """Accept the work: it is on disk before the answer leaves."""
    handle = await double.enqueue(int(request.match_info["number"]))
    return web.json_response({"job": handle.id}, status=202)


async def result(request: web.Request) -> web.Response:
    """Wait for it, at most 20 seconds."""
    handle = double.handle(request.match_info["job_id"])
    return web.json_response({"result": await handle.result(timeout=20)})


async def jobs(app: web.Application) -> AsyncIterator[None]:
    """Run jobs from the start of the server to its end."""
    async with runner:
        yield


def make_app(arguments: list[str]) -> web.Application:
    """What ``python -m aiohttp.web`` asks for."""
    app = web.Application()
    app.cleanup_ctx.append(jobs)
    app.add_routes([web.post(r"/double/{number:\d+}", start), web.get("/jobs/{job_id}", result)])
    return app
