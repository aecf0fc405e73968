"""Snapshot, result, cancel: what they show, and what bad requests get."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Router
from starlette.types import ASGIApp

from asyncjobs import Fail, File, InvalidOption, Runner, current_job
from asyncjobs.testing import ManualClock, run_until_idle
from asyncjobs.web import status_openapi, status_routes

from .support import SAME_ORIGIN, SECRET, Stream, application, client, error_of

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"
PATHS = ["/jobs/{}", "/jobs/{}/events", "/jobs/{}/result", "/jobs/{}/cancel", "/jobs/openapi.json"]
SAFE_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def anybody(request: Request, job_id: str, action: str) -> bool:
    return True


async def ask(app: ASGIApp, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    async with client(app) as asking:
        return await asking.request(method, path, **options)


def assert_safe(answer: httpx.Response) -> None:
    for name, value in SAFE_HEADERS.items():
        assert answer.headers[name] == value
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.fixture
def app(runner: Runner) -> Starlette:
    return application(runner, authorize=anybody)


def add_tasks(runner: Runner) -> None:
    @runner.task(name="double")
    async def double(number: int) -> int:
        current_job().progress(1, 2, "half <way>")
        return 2 * number

    @runner.task(name="broken")
    async def broken(secret: str) -> None:
        raise ValueError("no such <customer>")

    @runner.task(name="say")
    async def say(what: Any) -> Any:
        return what


async def finished(runner: Runner, task: str, *arguments: Any) -> str:
    handle = await runner.tasks[task].enqueue(*arguments)
    await handle.wait()
    return handle.id


# What is shown


async def test_snapshot_shows_where_a_job_stands(runner: Runner, app: Starlette) -> None:
    add_tasks(runner)
    job_id = await finished(runner, "double", 21)

    answer = await ask(app, f"/jobs/{job_id}")

    assert answer.status_code == 200
    assert answer.json() == {
        "id": job_id,
        "task": "double",
        "state": "completed",
        "status": "completed",
        "reason": None,
        "attempt": 1,
        "crashes": 0,
        "created_at": "2030-01-01T00:00:00.000000Z",
        "run_at": "2030-01-01T00:00:00.000000Z",
        "started_at": "2030-01-01T00:00:00.000000Z",
        "finished_at": "2030-01-01T00:00:00.000000Z",
        "progress": {
            "done": 1,
            "total": 2,
            "note": "half <way>",
            "at": "2030-01-01T00:00:00.000000Z",
        },
        "error": None,
        "file": None,
    }
    assert_safe(answer)


async def test_snapshot_of_a_waiting_job_has_the_derived_state(
    runner: Runner, app: Starlette
) -> None:
    add_tasks(runner)
    handle = await runner.tasks["double"].options(delay=60).enqueue(1)

    shown = (await ask(app, f"/jobs/{handle.id}")).json()

    assert (shown["state"], shown["status"]) == ("queued", "scheduled")
    assert shown["run_at"] == "2030-01-01T00:01:00.000000Z"
    assert (shown["started_at"], shown["finished_at"], shown["progress"]) == (None, None, None)


async def test_failure_is_shown_without_traceback_and_arguments(
    runner: Runner, app: Starlette
) -> None:
    add_tasks(runner)
    job_id = await finished(runner, "broken", "canary-of-the-arguments")

    answer = await ask(app, f"/jobs/{job_id}")

    shown = answer.json()
    assert (shown["state"], shown["reason"]) == ("failed", "error")
    assert shown["error"] == {"type": "ValueError", "message": "no such <customer>"}
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert "test_routes.py" not in answer.text


async def test_error_of_an_earlier_attempt_is_shown_until_the_job_completes(
    runner: Runner, app: Starlette, clock: ManualClock
) -> None:
    from asyncjobs import Retry

    @runner.task(retry=Retry(attempts=2, jitter=False))
    async def second_time() -> str:
        if current_job().attempt == 1:
            raise ValueError("not yet")
        return "now"

    handle = await second_time.enqueue()
    await run_until_idle(runner)
    shown = (await ask(app, f"/jobs/{handle.id}")).json()
    assert (shown["status"], shown["error"]["message"]) == ("retrying", "not yet")

    clock.advance(10)
    await handle
    shown = (await ask(app, f"/jobs/{handle.id}")).json()
    assert (shown["status"], shown["attempt"], shown["error"]) == ("completed", 2, None)


async def test_glance_leaves_out_arguments_result_and_traceback(runner: Runner) -> None:
    """What many streams ask for must not grow with what the jobs carry."""
    add_tasks(runner)
    said = await finished(runner, "say", "a canary " * 1_000)
    failed = await finished(runner, "broken", "canary")
    store = runner.engine().store

    for job_id in (said, failed):
        job = await store.glance(job_id)
        assert job is not None
        assert (job.arguments, job.result, job.meta) == (None, None, {})
        assert job.error is None or (job.error.type, job.error.traceback) == ("ValueError", "")
    assert await store.glance(UNKNOWN) is None


# Results


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        2**63,
        1.5,
        "text",
        ["a", {"b": None}],
        {"<b>": "</script>\u202e\u2028é\x7f\U0001f600"},
    ],
)
async def test_result_is_json_in_harmless_characters(
    runner: Runner, app: Starlette, value: Any
) -> None:
    add_tasks(runner)
    answer = await ask(app, f"/jobs/{await finished(runner, 'say', value)}/result")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == value
    assert answer.text.isascii()
    assert not set("<>&\x7f") & set(answer.text)
    assert_safe(answer)


async def test_long_result_is_the_same_in_pieces(runner: Runner, app: Starlette) -> None:
    add_tasks(runner)
    value = '<é\U0001f600\\"' * 20_000
    answer = await ask(app, f"/jobs/{await finished(runner, 'say', value)}/result")
    assert answer.json() == value
    assert answer.text.isascii()


async def test_result_of_a_job_without_one_is_a_conflict_that_says_why(
    runner: Runner, app: Starlette
) -> None:
    add_tasks(runner)
    later = runner.tasks["double"].options(delay=60)
    waiting, cancelled = await later.enqueue(1), await later.enqueue(1)
    await cancelled.cancel()
    failed = await finished(runner, "broken", "x")

    codes = [
        error_of(await ask(app, f"/jobs/{job_id}/result"))
        for job_id in (waiting.id, failed, cancelled.id)
    ]
    assert codes == [(409, "not_finished"), (409, "job_failed"), (409, "job_cancelled")]


async def test_result_that_was_not_kept_is_gone(runner: Runner, app: Starlette) -> None:
    add_tasks(runner)
    handle = await runner.tasks["double"].options(keep_result=False).enqueue(1)
    await handle

    assert (await ask(app, f"/jobs/{handle.id}")).json()["reason"] == "result_not_kept"
    result = await ask(app, f"/jobs/{handle.id}/result")
    assert error_of(result) == (410, "result_not_kept")


@pytest.fixture
def exporting(runner: Runner, tmp_path: Path) -> Any:
    @runner.task
    async def export(name: str, media_type: str) -> File:
        path = tmp_path / "out"
        path.write_bytes(b"0123456789")
        return File(path, name, media_type)

    return export


async def test_file_is_shown_and_downloaded(runner: Runner, app: Starlette, exporting: Any) -> None:
    handle = await exporting.enqueue("rows of may.csv", "text/csv")
    await handle

    shown = (await ask(app, f"/jobs/{handle.id}")).json()
    answer = await ask(app, f"/jobs/{handle.id}/result")
    part = await ask(app, f"/jobs/{handle.id}/result", headers={"range": "bytes=2-4"})

    assert shown["file"] == {"name": "rows of may.csv", "media_type": "text/csv", "size": 10}
    assert (answer.status_code, answer.content) == (200, b"0123456789")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == (
        "attachment; filename*=utf-8''rows%20of%20may.csv"
    )
    assert (part.status_code, part.content) == (206, b"234")
    assert_safe(answer)


async def test_download_is_sent_in_pieces(runner: Runner, app: Starlette, tmp_path: Path) -> None:
    size = 4 * 1024 * 1024

    @runner.task
    async def export() -> File:
        path = tmp_path / "large"
        path.write_bytes(b"x" * size)
        return File(path)

    handle = await export.enqueue()
    await handle
    async with Stream(app, f"/jobs/{handle.id}/result") as download:
        pieces = [len(piece) async for piece in download.pieces()]

    assert sum(pieces) == size
    assert max(pieces) <= 256 * 1024


async def test_file_that_is_gone_from_the_disk_is_not_found(
    runner: Runner, app: Starlette, exporting: Any, tmp_path: Path
) -> None:
    handle = await exporting.enqueue("a.csv", "text/csv")
    os.unlink((await handle).path)
    assert error_of(await ask(app, f"/jobs/{handle.id}/result")) == (404, "unknown_job")


# Cancelling


async def test_cancel_answers_as_the_handle_does(runner: Runner, app: Starlette) -> None:
    started = asyncio.Event()

    @runner.task
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    add_tasks(runner)
    waiting = await runner.tasks["double"].options(delay=60).enqueue(1)
    running = await endless.enqueue()
    await started.wait()

    answers = [
        (await ask(app, f"/jobs/{job_id}/cancel", "POST", headers=SAME_ORIGIN)).json()
        for job_id in (waiting.id, running.id, waiting.id)
    ]

    assert [answer["answer"] for answer in answers] == ["cancelled", "requested", "finished"]
    assert (await running.wait()).state == "cancelled"
    assert (await waiting.job()).reason == "user"


# What bad requests get


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{}, {"secret": SECRET}], ids=["nothing", "secret"])
async def test_without_authorize_and_a_token_everything_is_forbidden(
    runner: Runner, path: str, options: dict[str, Any]
) -> None:
    add_tasks(runner)
    app = application(runner, **options)
    for job_id in (await finished(runner, "double", 1), UNKNOWN, "%00"):
        for method in ("GET", "POST"):
            answer = await ask(app, path.format(job_id), method, headers=SAME_ORIGIN)
            assert error_of(answer) == (403, "forbidden")
            assert_safe(answer)


@pytest.mark.parametrize("path", PATHS[:-1])
@pytest.mark.parametrize("job_id", [UNKNOWN, "%00", "%ff", "x" * 300, "<b>", "%0d%0aset-cookie:a"])
async def test_unknown_and_impossible_ids_are_not_found(
    app: Starlette, path: str, job_id: str
) -> None:
    method = "POST" if path.endswith("cancel") else "GET"
    answer = await ask(app, path.format(job_id), method, headers=SAME_ORIGIN)
    assert error_of(answer) == (404, "unknown_job")
    assert_safe(answer)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(("path", "method"), [(PATHS[0], "POST"), (PATHS[3], "GET")])
async def test_wrong_method_is_named(app: Starlette, path: str, method: str) -> None:
    answer = await ask(app, path.format(UNKNOWN), method, headers=SAME_ORIGIN)
    assert error_of(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == {"POST": "GET, HEAD", "GET": "POST"}[method]


async def test_runner_that_does_not_run_is_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(tmp_path / "jobs.db")
    app = application(runner, authorize=anybody)
    answers = [await ask(app, f"/jobs/{UNKNOWN}")]
    async with runner:
        assert error_of(await ask(app, f"/jobs/{UNKNOWN}")) == (404, "unknown_job")
    answers.append(await ask(app, f"/jobs/{UNKNOWN}/events"))

    for answer in answers:
        assert error_of(answer) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"
    assert "is not running; use it inside 'async with runner:'" in caplog.messages[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secret": None}, "secret must be a str, bytes or a sequence of them, got NoneType"),
        ({"secret": ""}, "a secret has 0 bytes; it needs 32"),
        ({"secret": b"x" * 31}, "a secret has 31 bytes; it needs 32"),
        ({"secret": ["x" * 32, "short"]}, "a secret has 5 bytes; it needs 32"),
        ({"secret": []}, r"secret=\[\] signs nothing"),
        ({"secret": [None]}, "secret must be a str or bytes, got NoneType"),
        ({"authorize": True}, "authorize must be callable, got bool"),
        ({"prefix": "jobs"}, "prefix='jobs' must begin with /"),
        ({"prefix": "/jobs/"}, "prefix='/jobs/' must begin with /"),
        ({"prefix": "/{x}"}, "must begin with /"),
        ({"stream_seconds": 31}, "stream_seconds=31 is out of range"),
        ({"stream_seconds": 0}, "stream_seconds=0 is out of range"),
        ({"origins": "https://a"}, "origins must be a sequence of str, got str"),
        ({"origins": ["a.example"]}, "origins='a.example' is none"),
        ({"origins": ["https://a.example/"]}, "is none; such as https://app.example.com"),
    ],
)
def test_wrong_options_are_named_when_the_routes_are_made(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        status_routes(Runner(tmp_path / "jobs.db"), **options)


def test_routes_of_something_else_than_a_runner_are_refused() -> None:
    with pytest.raises(InvalidOption, match="status_routes takes a Runner, got str"):
        status_routes("jobs.db")  # type: ignore[arg-type]


# Where they may be


async def test_routes_work_wherever_they_are_mounted(runner: Runner) -> None:
    add_tasks(runner)
    job_id = await finished(runner, "double", 4)

    def routes(**options: Any) -> Any:
        return status_routes(runner, authorize=anybody, **options)

    fastapi = FastAPI(routes=routes())
    mounted = FastAPI()
    mounted.mount("/api", Starlette(routes=routes()))
    places: list[tuple[ASGIApp, str, str]] = [
        (Router(routes()), "/jobs", "/"),
        (Starlette(routes=[Mount("/a/b", routes=routes(prefix=""))]), "/a/b", "/a/b"),
        (Starlette(routes=routes(prefix="/tasks/v1")), "/tasks/v1", "/"),
        (fastapi, "/jobs", "/"),
        (mounted, "/api/jobs", "/api"),
    ]
    for app, base, server in places:
        answer = await ask(app, f"{base}/{job_id}/result")
        assert (answer.status_code, answer.json()) == (200, 8), base
        assert error_of(await ask(app, f"{base}/{UNKNOWN}")) == (404, "unknown_job")
        document = (await ask(app, f"{base}/openapi.json")).json()
        assert document["servers"] == [{"url": server}]
        assert server.rstrip("/") + next(iter(document["paths"])) == f"{base}/{{job_id}}"


async def test_openapi_describes_every_route_and_what_is_shown(
    runner: Runner, app: Starlette
) -> None:
    add_tasks(runner)
    job_id = await finished(runner, "double", 1)
    document = (await ask(app, "/jobs/openapi.json")).json()

    described = {
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }
    made = {
        (route.path, "POST" if route.path.endswith("/cancel") else "GET")
        for route in status_routes(runner)
        if not route.path.endswith("openapi.json")
    }
    assert described == made
    shown = (await ask(app, f"/jobs/{job_id}")).json()
    schemas = document["components"]["schemas"]
    assert list(shown) == schemas["Status"]["required"]
    assert list(shown["progress"]) == schemas["Progress"]["required"]
    assert document["servers"] == [{"url": "/"}]
    result = document["paths"]["/jobs/{job_id}/result"]["get"]["responses"]["200"]
    assert set(result["content"]) == {"application/json", "*/*"}, "a file has a type of its own"
    references = [
        part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]
    ]
    assert set(references) == set(schemas)
    assert status_openapi("/x")["paths"].keys() == {
        path.replace("/jobs", "/x", 1) for path in document["paths"]
    }


async def test_openapi_is_asked_for_like_the_rest(runner: Runner) -> None:
    asked = []

    async def authorize(request: Request, job_id: str, action: str) -> bool:
        asked.append((job_id, action))
        return False

    app = application(runner, authorize=authorize)
    assert error_of(await ask(app, "/jobs/openapi.json")) == (403, "forbidden")
    assert asked == [("", "openapi")]


# Without Starlette


def test_without_starlette_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['starlette'] = None\n"
        "import asyncjobs\n"
        "try:\n    import asyncjobs.web\n"
        "except asyncjobs.MissingExtra as error:\n"
        "    print(isinstance(error, ImportError), error)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("True asyncjobs.web needs Starlette")
    assert "pip install 'asyncjobs[web]'" in printed


def test_a_runner_loads_no_starlette() -> None:
    program = (
        "import asyncio, sys\nfrom asyncjobs import Runner\n"
        "async def main():\n    async with Runner(':memory:'): pass\n"
        "asyncio.run(main())\nprint('starlette' in sys.modules)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "False\n"


async def test_failure_text_keeps_its_meaning(runner: Runner, app: Starlette) -> None:
    @runner.task
    async def refuse() -> None:
        raise Fail("line 3: </script>")

    handle = await refuse.enqueue()
    await handle.wait()
    answer = await ask(app, f"/jobs/{handle.id}")
    assert answer.json()["error"]["message"] == "line 3: </script>"
    assert "<" not in answer.text
