"""The README tells the truth: its programs run, its table leads to real places."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from asyncjobs import Retry, Runner, Task
from asyncjobs.rules.limits import keywords_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
FIRST_PROGRAM_LINES = 25

# The web application, driven through its own ASGI interface: start, poll, stop.
RUN_APP = """
import asyncio, json

async def call(method, path):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(),
             "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
             "server": ("test", 80), "client": ("test", 1), "root_path": "", "app": app}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])

async def drive():
    async with app.router.lifespan_context(app):
        status, answer = await call("POST", "/reports/may")
        assert status == 202, status
        await runner.handle(answer["job"]).wait()
        status, answer = await call("GET", f"/jobs/{answer['job']}")
        assert (status, answer) == (200, {"status": "completed", "result": "report of may"}), answer

asyncio.run(drive())
"""


def program_of(block: str) -> str:
    return block if block.endswith("asyncio.run(main())\n") else block + RUN_APP


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_program_of_the_readme_runs_and_runs_again(block: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program_of(block), "utf-8")

    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "program.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


def test_programs_of_the_readme_share_no_file() -> None:
    files = [file for block in BLOCKS for file in re.findall(r'Runner\("(.*?)"', block)]
    assert len(files) == len(set(files)) == len(BLOCKS)


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("`Runner(path, ...)`:", keywords_of(Runner.__init__)),
        ("`@runner.task(...)` and `@tasks.task(...)`:", keywords_of(Task.__init__)),
        ("`task.options(...)`, for", keywords_of(Task.options)),
        ("`Retry(...)`; ", list(Retry.__struct_fields__)),
    ],
    ids=["Runner", "task", "options", "Retry"],
)
def test_table_of_options_has_those_of_the_code(head: str, names: list[str]) -> None:
    table = README.split(head)[1].split("\n\n")[1]
    first_cells = (row.split("|")[1] for row in table.splitlines()[2:])
    assert sorted(name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)) == sorted(
        names
    )


def test_first_program_stands_within_its_lines() -> None:
    lines = README.splitlines()
    assert "asyncio.run(main())" in lines[: FIRST_PROGRAM_LINES + 1]


def test_every_step_of_a_job_leads_to_a_file() -> None:
    steps = README.split("## How a job travels")[1].split("##")[0]
    files = re.findall(r"`(asyncjobs/[\w/]+\.py)`", steps)
    assert len(files) >= 15
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_figures_and_defaults_are_those_of_the_code() -> None:
    from asyncjobs.rules import limits
    from asyncjobs.store import group_commit

    assert limits.ARGUMENTS_MAX == 1024**2
    assert "1 MiB of arguments" in README
    assert limits.RESULT_MAX == 16 * 1024**2
    assert "16 MiB of\nresult" in README
    assert group_commit.BUSY_SECONDS == 5
    assert "enqueues wait 5 s" in README
