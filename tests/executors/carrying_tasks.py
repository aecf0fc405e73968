"""A module that makes its runner, so that workers know which context variables travel."""

from __future__ import annotations

from contextvars import ContextVar

from asyncjobs import Runner

request_id: ContextVar[str] = ContextVar("request_id", default="none")
runner = Runner("never-opened.db", carry=[request_id])


@runner.task(executor="process")
def tell_request() -> str:
    return request_id.get()


@runner.task(executor="process")
async def tell_request_of_a_child() -> str:
    return await (await tell_request.enqueue())
