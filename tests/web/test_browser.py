"""The page of ``examples/upload.py`` in a real browser, while its server is killed and comes back.

Without a browser it is not run, and says so. ``ASYNCJOBS_BROWSER=required``, as where the project
is built, makes that a failure; otherwise the variable may hold the path of a Chromium.
"""

from __future__ import annotations

import asyncio
import contextlib
import lzma
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest
from playwright.async_api import Page, async_playwright

from tests.embedding.servers import PATIENCE_SECONDS, Server, serving

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
BLOCK = 256 * 1024
"""What the job compresses at a time."""
HOSTILE = '<img src=x onerror="window.hacked=1">\'\u202egnp.exe'
BAR = "document.getElementById('bar').value"


def browser_path() -> str:
    wanted = os.environ.get("ASYNCJOBS_BROWSER", "")
    found = shutil.which("chromium") if wanted in ("", "required") else wanted
    if found is None and wanted == "required":
        pytest.fail("a browser is required here, and there is no chromium")
    if found is None:
        pytest.skip("not run: there is no chromium; ASYNCJOBS_BROWSER may name one")
    return found


@contextlib.contextmanager
def server_of(folder: Path, port: int) -> Iterator[Server]:
    command = f"uvicorn examples.upload:app --port {port} --no-access-log"
    with serving(folder, port, *command.split()) as server:
        yield server


@contextlib.asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Page]:
    path = browser_path()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=FLAGS, downloads_path=folder
        )
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield page
        await browser.close()


def text_file(folder: Path, name: str, size: int) -> Path:
    """Words that take their time to compress, the same at each run."""
    random = Random(5)
    words = ["".join(random.choices("abcdefgh", k=random.randint(3, 9))) for _ in range(3_000)]
    path = folder / name
    path.write_text(" ".join(random.choices(words, k=size // 6))[:size])
    return path


async def until(page: Page, condition: str) -> None:
    """Ask again and again: to wait inside the page would take an eval, which it forbids."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition}: {await page.text_content('body')}"
        await asyncio.sleep(0.02)


async def shows(page: Page, state: str) -> None:
    await until(page, f"document.getElementById('state').textContent === '{state}'")


def test_missing_browser_fails_where_it_is_required_and_is_not_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ASYNCJOBS_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="there is no chromium"):
        browser_path()
    monkeypatch.delenv("ASYNCJOBS_BROWSER")
    with pytest.raises(pytest.skip.Exception, match="not run"):
        browser_path()


@pytest.mark.timed
async def test_page_works_in_a_browser_and_through_the_death_of_its_server(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    """One test for all of it: browsers and servers take their time to start."""
    async with browsing(tmp_path) as page:
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        with server_of(tmp_path, unused_tcp_port) as server:
            await page.goto(server.url)
            await failure_is_shown_as_text(page, tmp_path)
            await job_is_cancelled(page, tmp_path)

            upload = text_file(tmp_path, "words of may.txt", 10 * BLOCK)
            await page.evaluate("window.bars = []")  # lost by a reload
            await page.set_input_files("#file", upload)
            await until(page, "document.getElementById('state').textContent === 'running'")
            await page.evaluate(f"setInterval(() => window.bars.push({BAR}), 20)")
            await until(page, f"{BAR} > {BLOCK}")
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            reached = await page.evaluate(BAR)
        with server_of(tmp_path, unused_tcp_port) as server:
            await until(page, f"{BAR} > {reached}")
            said = await page.text_content("#state"), await page.text_content("#error")
            await shows(page, "completed")
            await until(page, f"{BAR} === {upload.stat().st_size}")
            await until(page, f"window.bars.at(-1) === {BAR}")
            bars = await page.evaluate("window.bars")
            name, content = await downloaded(page)
            await page.goto("about:blank")
            server.until(lambda: not uploads(tmp_path))  # they go once there is an outcome
            server.stop()

    size = upload.stat().st_size
    assert BLOCK < reached < size  # it died in the middle
    assert said == ("running", "")  # nothing of the run that died
    assert bars == sorted(bars)
    assert bars[-1] == size
    assert name == "words of may.txt.xz"
    assert lzma.decompress(content) == upload.read_bytes()
    assert problems == []


def uploads(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob("upload-data/*/upload")]


async def failure_is_shown_as_text(page: Page, folder: Path) -> None:
    empty = folder / HOSTILE
    empty.touch()
    await page.set_input_files("#file", empty)
    await shows(page, "failed")

    name = HOSTILE.replace("\u202e", "_")
    assert await page.text_content("#error") == f"{name} is empty: there is nothing to compress"
    assert await page.locator("img").count() == 0
    assert await page.evaluate("window.hacked") is None
    assert not await page.is_visible("#download")
    assert not await page.is_visible("#cancel")


async def job_is_cancelled(page: Page, folder: Path) -> None:
    await page.set_input_files("#file", text_file(folder, "large.txt", 20 * BLOCK))
    await until(page, f"{BAR} > 0")
    await page.click("#cancel")
    await shows(page, "cancelled")
    assert not await page.is_visible("#download")


async def downloaded(page: Page) -> tuple[str, bytes]:
    async with page.expect_download() as downloading:
        await page.click("#download")
    download = await downloading.value
    return download.suggested_filename, (await download.path()).read_bytes()
