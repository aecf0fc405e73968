"""Django. Run it: ``uvicorn examples.embed_django:application``.

Django answers no lifespan, so the wrapper does; in a project it stands in ``asgi.py``.
"""

import asyncio
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from asyncjobs import AsyncJobsError, Runner

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])
runner = Runner("jobs.db")
django = get_asgi_application()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Django for requests, the runner for start and stop."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await django(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    """Start and stop with the server."""
    await receive()  # lifespan.startup
    try:
        await runner.start()
    except AsyncJobsError as error:
        # Raised on, it would be taken for "no lifespan here", and the server would run without.
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await runner.stop()
    await send({"type": "lifespan.shutdown.complete"})


@runner.task
async def double(number: int) -> int:
    """Stands for work that must not block a request."""
    await asyncio.sleep(0.05)
    return number * 2


async def start(request: HttpRequest, number: int) -> JsonResponse:
    """Accept the work: it is on disk before the answer leaves."""
    handle = await double.enqueue(number)
    return JsonResponse({"job": handle.id}, status=202)


async def result(request: HttpRequest, job_id: str) -> JsonResponse:
    """Wait for it, at most 20 seconds."""
    return JsonResponse({"result": await double.handle(job_id).result(timeout=20)})


urlpatterns = [path("double/<int:number>", start), path("jobs/<str:job_id>", result)]
