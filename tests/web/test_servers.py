"""Streams under a real server: what many of them take, and that it can still stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.embedding.servers import PATIENCE_SECONDS, Server, serving

STREAMS = 500
JOBS = 50
MEMORY_MAX = 30 * 1024 * 1024
GRACE_SECONDS = 1


def rss_of(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def streaming(folder: Path, port: int, *more: str) -> Iterator[Server]:
    command = f"uvicorn tests.web.streaming_app:app --port {port} --no-access-log"
    with serving(folder, port, *command.split(), *more) as server:
        yield server


async def start_jobs(server: Server, count: int) -> list[str]:
    async with server.client() as client:
        return [(await client.post("/start")).json()["job"] for _ in range(count)]


@contextlib.asynccontextmanager
async def open_streams(
    server: Server, jobs: list[str], count: int
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that have read their snapshot, and have caught up with what happens."""
    port = httpx.URL(server.url).port
    opened = []
    for number in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        path = f"/jobs/{jobs[number % len(jobs)]}/events"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        opened.append((reader, writer))
    try:
        for reader, _ in opened:
            await reader.readuntil(b"event: snapshot\n")
        await until_listening(server, count)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def until_listening(server: Server, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    async with server.client() as client:
        while (found := (await client.get("/listeners")).json()["listeners"]) != count:
            assert time.monotonic() < deadline, f"{found} of {count}"
            await asyncio.sleep(0.02)


@pytest.mark.timed
async def test_five_hundred_streams_take_little_memory_and_hold_up_no_stop(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    grace = ("--timeout-graceful-shutdown", str(GRACE_SECONDS))
    with streaming(tmp_path, unused_tcp_port, *grace) as server:
        jobs = await start_jobs(server, JOBS)
        async with open_streams(server, jobs, 5):
            pass
        await until_listening(server, 0)  # who goes frees what he had
        before = rss_of(server.process.pid)
        async with open_streams(server, jobs, STREAMS):
            taken = rss_of(server.process.pid) - before
            begin = time.monotonic()
            await asyncio.to_thread(server.terminate)
            stopped = time.monotonic() - begin
    print(f"{STREAMS} streams: {taken / 2**20:.1f} MB, stopped in {stopped:.1f} s")
    assert taken <= MEMORY_MAX
    # The runner's own grace time is half a second.
    assert GRACE_SECONDS <= stopped <= GRACE_SECONDS + 5, server.log()


async def test_server_without_a_grace_of_its_own_waits_for_the_time_of_a_stream(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_SECONDS", "1")
    with streaming(tmp_path, unused_tcp_port) as server:
        jobs = await start_jobs(server, JOBS)
        async with open_streams(server, jobs, 20) as readers:
            await asyncio.to_thread(server.stop)  # in order, with nothing in its log
            ends = [await reader.read() for reader in readers]
    assert all(end.endswith(b"0\r\n\r\n") for end in ends)  # each was ended, none cut off
