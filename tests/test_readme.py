"""README and guides tell the truth: programs run, tables and links lead to real places."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asyncjobs import Limit, Rate, Retry, Runner, Task, Unique, Window
from asyncjobs.inventory import LimitStanding
from asyncjobs.rules.limits import keywords_of
from asyncjobs.states import FINISHED, Event
from tests.pages import PAGES, ROOT, anchors_of, blocks, section, table_after

TEXT = "\n".join(PAGES.values())
# What the README takes from a guide is one program.
BLOCKS = list({block: page for page, block in blocks("python")}.items())
TESTS = [block for _, block in blocks("python") if "def test_" in block]
FIRST_PROGRAM_LINES = 25

# The web applications, driven through their own ASGI interface: start, ask, stop.
RUN_APP = """
import asyncio, json

async def call(method, path, query=""):
    sent, asked = [], []
    async def receive():
        if asked:
            await asyncio.Event().wait()
        asked.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(),
             "query_string": query.encode(), "headers": [], "http_version": "1.1",
             "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
             "app": app}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()

async def drive():
    async with app.router.lifespan_context(app):
        status, answer = await call("POST", START)
        assert status == 202, status
        answer = json.loads(answer)
        await follow(answer["job"], answer)

asyncio.run(drive())
"""
FOLLOW_REPORT = """
START = "/reports/may"

async def follow(job, answer):
    await runner.handle(job).wait()
    status, answer = await call("GET", f"/jobs/{job}")
    assert (status, json.loads(answer)) == (200, {"status": "completed", "result": "report of may"})
"""
FOLLOW_CONVERT = """
START = "/start"

async def follow(job, answer):
    status, stream = await call("GET", f"/jobs/{job}/events", f"token={answer['token']}")
    assert status == 200, status
    assert "event: outcome" in stream, stream
    status, result = await call("GET", f"/jobs/{job}/result", f"token={answer['token']}")
    assert (status, json.loads(result)) == (200, "converted")
    assert (await call("GET", f"/jobs/{job}"))[0] == 403
"""
# Tests on the pages have no conftest.py; its one line is given here.
# Starlette's client warns of the httpx that is installed here.
RUN_TESTS = ["-m", "pytest", "-q", "-p", "asyncjobs.testing", "-p", "no:cacheprovider",
             "-W", "ignore:Using `httpx` with",
             "-o", "asyncio_default_fixture_loop_scope=function", "program.py"]  # fmt: skip
FOLLOW = {"web-jobs.db": FOLLOW_REPORT, "browser.db": FOLLOW_CONVERT}


def program_of(block: str) -> str:
    if block.endswith("asyncio.run(main())\n") or block in TESTS:
        return block
    (follow,) = (text for name, text in FOLLOW.items() if f'"{name}"' in block)
    return block + follow + RUN_APP


@pytest.mark.parametrize("block", [block for block, _ in BLOCKS], ids=[page for _, page in BLOCKS])
def test_program_of_a_page_runs_and_runs_again(block: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program_of(block), "utf-8")
    command = RUN_TESTS if block in TESTS else ["program.py"]

    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", *command],
            cwd=tmp_path,
            env={**os.environ, "APP_SECRET": "a secret of the tests, long enough"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_programs_of_the_pages_share_no_file() -> None:
    files = [file for block, _ in BLOCKS for file in re.findall(r'Runner\("(.*?)"', block)]
    assert len(files) == len(set(files)) == len(BLOCKS) - len(TESTS)


def test_status_routes_and_what_they_show_are_those_of_the_code() -> None:
    from asyncjobs.web import status_openapi, status_routes
    from asyncjobs.web.stream import STREAM_SECONDS

    told = section("Telling the browser")
    table = told.split("| path | |")[1].split("\n\n")[0]
    named = {path.replace("{id}", "{job_id}") for path in re.findall(r"`\w+ (/jobs\S+)`", table)}
    assert named == {route.path for route in status_routes(Runner("unused.db"))}
    shown = re.findall(r"`(\w+)`", table.split("a snapshot: ")[1].split("(the state")[0])
    shown += re.findall(r"`(\w+)`", table.split("`retrying`), ")[1].split("|")[0])
    assert shown == status_openapi()["components"]["schemas"]["Status"]["required"]
    assert f"lasts {STREAM_SECONDS:g} s" in told
    for option in keywords_of(status_routes):
        assert f"`{option}=" in told or f", {option}=" in told, option


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("`Runner(path, ...)`:", keywords_of(Runner.__init__)),
        ("`@runner.task(...)` and `@tasks.task(...)`:", keywords_of(Task.__init__)),
        ("`task.options(...)`, for", keywords_of(Task.options)),
        ("`Retry(...)`; ", list(Retry.__struct_fields__)),
        ("`Limit(...)`:", list(Limit.__struct_fields__)),
        ("`Rate(...)`:", list(Rate.__struct_fields__)),
        ("`Unique(...)`, see", list(Unique.__struct_fields__)),
        ("`Window(...)`, see", list(Window.__struct_fields__)),
        ("`runner.schedules.create(...)`:", keywords_of(Runner.schedule)),
    ],
    ids=["Runner", "task", "options", "Retry", "Limit", "Rate", "Unique", "Window", "schedule"],
)
def test_table_of_options_has_those_of_the_code(head: str, names: list[str]) -> None:
    first_cells = (row.split("|")[1] for row in table_after(head))
    assert sorted(name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)) == sorted(
        names
    )


def test_first_program_stands_within_its_lines() -> None:
    lines = PAGES["README.md"].splitlines()
    assert "asyncio.run(main())" in lines[: FIRST_PROGRAM_LINES + 1]


def test_every_step_of_a_job_leads_to_a_file() -> None:
    steps = section("How a job travels")
    files = re.findall(r"`(asyncjobs/[\w/]+\.py)`", steps)
    assert len(files) >= 15
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_links_lead_to_files_and_headings() -> None:
    broken = []
    for page, text in PAGES.items():
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\((?!https://)([^)]*)\)", prose):
            place, _, anchor = link.partition("#")
            file = (ROOT / page).parent / place if place else ROOT / page
            if not file.exists() or (anchor and anchor not in anchors_of(file.read_text("utf-8"))):
                broken.append(f"{page}: {link}")
    assert broken == []


def test_readme_leads_to_every_guide() -> None:
    linked = re.findall(r"\]\((docs/[\w-]+\.md)", PAGES["README.md"])
    assert {"README.md", *linked} == set(PAGES)


def test_headings_of_a_page_have_anchors_of_their_own() -> None:
    for page, text in PAGES.items():
        anchors = anchors_of(text)
        assert len(anchors) == len(set(anchors)), page


def test_codes_of_explanations_are_those_of_the_code() -> None:
    source = (ROOT / "asyncjobs/rules/explaining.py").read_text("utf-8")
    codes = re.findall(r'(?:code=|return )"(\w+)"', source)
    outcomes = [state.value for state in FINISHED]
    first_cells = (row.split("|")[1] for row in table_after("Its `code` is for programs"))
    told = [code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted({*codes, *outcomes})


def test_kinds_of_events_are_those_of_the_code() -> None:
    first_cells = [row.split("|")[1] for row in table_after("The kinds of events:")]
    told = [kind for cell in first_cells for kind in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(Event)


def test_fields_of_a_standing_in_line_are_those_of_the_code() -> None:
    first_cells = [row.split("|")[1] for row in table_after("What `limit_of` gives")]
    told = [field for cell in first_cells for field in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(LimitStanding.__struct_fields__)


def test_reasons_that_the_guide_names_are_written_somewhere_in_the_code() -> None:
    source = "".join(
        path.read_text("utf-8")
        for path in (ROOT / "asyncjobs").rglob("*")
        if path.suffix in (".py", ".sql")
    )
    first_cells = [row.split("|")[1] for row in table_after("A job's `reason` says")]
    told = [reason for cell in first_cells for reason in re.findall(r"`(\w+)`", cell)]
    assert len(told) > 15
    assert [reason for reason in told if not re.search(rf"['\"]{reason}['\"]", source)] == []


def test_every_error_has_its_place_among_those_of_the_guide() -> None:
    from asyncjobs import errors

    told = re.findall(r"^\| `(\w+)` \|", PAGES["docs/errors.md"], re.MULTILINE)
    signals = {
        error for error in errors.__all__ if issubclass(getattr(errors, error), errors.JobSignal)
    }
    assert sorted(told) == sorted({*errors.__all__} - signals - {"AsyncJobsError"})
    assert all(f"`{signal}" in PAGES["docs/errors.md"] for signal in signals)


def test_figures_and_defaults_are_those_of_the_code() -> None:
    from asyncjobs.rules import limits
    from asyncjobs.store import group_commit

    assert limits.ARGUMENTS_MAX == 1024**2
    assert "1 MiB of arguments" in TEXT
    assert limits.RESULT_MAX == 16 * 1024**2
    assert re.search(r"16 MiB of\s+result", TEXT)
    assert group_commit.BUSY_SECONDS == 5
    assert "enqueues wait 5 s" in TEXT
