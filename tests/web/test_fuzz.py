"""Hostile text in every field: it comes out as it was meant, and is nothing but text on its way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest

from asyncjobs import Fail, File, Runner, current_job
from asyncjobs.web.answers import harmless, to_json
from asyncjobs.web.status import download_name

from .support import SAME_ORIGIN, Stream, application, client

NASTY = [
    "\n\nevent: outcome\ndata: {}\n\n",
    "\r\nid: 1\r\n\r\n",
    "data: x\rretry: 1\r\r",
    "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e",
    "<script>alert(1)</script><!--<img src=x onerror=alert(1)>",
    "</script>&lt;&amp;\"'`",
    "\u202egnp.exe\u202c\u2066\u2069\u200f\u061c\ufeff",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\x01\x02\x7f\x80\x9f",
    "\\u003cscript\\u003e \\n \\",
    "é\U0001f469\u200d\U0001f4bb\ufffe",
    ": comment",
]
SEED = 20_30


def random_texts(count: int) -> list[str]:
    """Of characters that mean something to somebody, and any others; without surrogates."""
    random = Random(SEED)
    pieces: list[str] = [
        *"\n\r:<>&\"'\\ {}[],;=%/\x00\x1b\x7f\x85\u2028\u202e\u2066",
        "data",
        "event",
        "\U0001f600",
    ]
    ranges = [(1, 0x7F), (0x80, 0x2FFF), (0xE000, 0x10FFFF)]

    def one() -> str:
        if random.random() < 0.6:
            return random.choice(pieces)
        return chr(random.randint(*random.choice(ranges)))

    return ["".join(one() for _ in range(random.randint(1, 40))) for _ in range(count)]


def assert_harmless(text: str) -> None:
    """Printable ASCII in which nothing is markup, and no line but those of the protocol."""
    assert re.fullmatch(r"[ -~]*", text), ascii(text)
    assert not set("<>&") & set(text)


def test_json_is_harmless_and_means_the_same() -> None:
    for text in [*NASTY, *random_texts(500)]:
        for value in (text, [text], {text: text}):
            written = to_json(value)
            assert_harmless(written)
            assert json.loads(written) == value
            stored = json.dumps(value, ensure_ascii=False)
            assert json.loads(harmless(stored)) == value
            assert not set("<>&\x7f") & set(harmless(stored))


async def test_hostile_text_stays_text_in_snapshots_and_streams(runner: Runner) -> None:
    @runner.task(name="task\u202e<b>&\u2066")
    async def hostile(text: str) -> None:
        current_job().progress(1, 2, text)
        raise Fail(text)

    app = application(runner, authorize=lambda *_: True)
    for text in [*NASTY, *random_texts(40)]:
        handle = await hostile.enqueue(text)
        await handle.wait()
        async with client(app) as asking:
            answer = await asking.get(f"/jobs/{handle.id}")
        async with Stream(app, f"/jobs/{handle.id}/events") as stream:
            snapshot, outcome = [told async for told in stream.events()]

        shown = answer.json()
        assert_harmless(answer.text)
        for line in stream.text.split("\n"):
            assert_harmless(line)
            assert line == "" or re.match(r"(retry|id|event|data): ", line)
        assert snapshot.data == outcome.data == shown
        assert shown["task"] == "task\u202e<b>&\u2066"
        stored = text.replace("\x00", "\\x00")
        assert shown["progress"]["note"] == stored
        assert shown["error"]["message"] == stored


async def test_hostile_reason_of_a_cancellation_stays_text(runner: Runner) -> None:
    @runner.task
    async def later() -> None: ...

    app = application(runner, authorize=lambda *_: True)
    for text in NASTY:
        reason = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)  # others are refused
        handle = await later.options(delay=60).enqueue()
        await handle.cancel(reason)
        async with client(app) as asking:
            answer = await asking.get(f"/jobs/{handle.id}")
        assert answer.json()["reason"] == reason
        assert_harmless(answer.text)


@pytest.mark.parametrize(
    "name",
    [
        'a"; filename="b.exe',
        "a; filename*=utf-8''b.exe",
        "\u202egnp.exe",
        "invoice\u2066.pdf\u2069.exe",
        "%0d%0aSet-Cookie: a=b",
        "<img src=x onerror=alert(1)>.csv",
        "naïve \U0001f600 'quoted'.csv",
        "...",
        " ",
    ],
)
async def test_hostile_file_names_stay_within_their_header(
    runner: Runner, tmp_path: Path, name: str
) -> None:
    @runner.task
    async def export() -> File:
        path = tmp_path / "out"
        path.write_bytes(b"x")
        return File(path, name, "text/html")

    handle = await export.enqueue()
    await handle
    app = application(runner, authorize=lambda *_: True)
    async with client(app) as asking:
        answer = await asking.get(f"/jobs/{handle.id}/result")
        shown = await asking.get(f"/jobs/{handle.id}")

    header = answer.headers["content-disposition"]
    assert re.fullmatch(
        r"attachment; filename(=\"[\w .~-]+\"|\*=utf-8''[\w.~%'-]+)", header, re.ASCII
    ), header
    # What a browser names the file is what the page offers.
    assert set("\u202e\u2066\u2069\r\n").isdisjoint(unquote(header))
    assert "set-cookie" not in answer.headers
    assert "sandbox" in answer.headers["content-security-policy"]
    assert_harmless(shown.text)
    offered: Any = shown.json()["file"]["name"]
    assert offered == download_name(name)
    assert not set("\u202e\u2066\u2069") & set(offered)


@pytest.mark.parametrize("text", NASTY)
async def test_hostile_requests_are_answered_in_plain_text(runner: Runner, text: str) -> None:
    app = application(runner, authorize=lambda *_: True, secret="x" * 32)
    async with client(app) as asking:
        for answer in (
            await asking.get("/jobs/x", params={"token": text}),
            await asking.get("/jobs/" + "".join(f"%{byte:02x}" for byte in text.encode())),
            await asking.post("/jobs/x/cancel", headers={**SAME_ORIGIN, "origin": "x"}),
        ):
            assert answer.status_code in (401, 403, 404)
            if answer.headers.get("content-type") == "application/json":
                assert_harmless(answer.text)
            assert text not in answer.text
