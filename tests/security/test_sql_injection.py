"""Text of users is bound to statements, never part of them."""

from __future__ import annotations

import ast
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    AsyncJobsError,
    Fail,
    InvalidOption,
    Job,
    JobFilter,
    Runner,
    Tasks,
    UnknownJob,
)
from asyncjobs.testing import run_until_idle
from tests.sources import tree_of

PACKAGE = Path(__file__).resolve().parent.parent.parent / "asyncjobs"

INJECTIONS = [
    "'; DROP TABLE asyncjobs_jobs; --",
    "' OR '1'='1",
    "x' OR 1=1 --",
    '" OR ""="',
    "') OR 1=1 --",
    "1); DELETE FROM asyncjobs_jobs; --",
    "' UNION SELECT name FROM sqlite_master --",
    "?",
    "?1",
    ":name",
    "{where}",
    "{columns}",
    "{rows:3}",
    "%",
    "_",
    "*",
    "\\",
    "\\'",
    "[a-z]*",
    '["a"]',
    "$.a",
    "null",
    "0x41",
    "1e9",
]

SAFE = str.maketrans('."\\', "___")

tasks = Tasks()


@tasks.task
async def echo(text: str) -> str:
    return text


def names_of(jobs: list[Job], option: str) -> list[Any]:
    return [job.tags[0] if option == "tag" else getattr(job, option) for job in jobs]


@pytest.mark.parametrize("option", ["queue", "tag", "key", "trigger"])
async def test_each_filter_finds_exactly_the_text_it_was_given(runner: Runner, option: str) -> None:
    runner.include(tasks)
    for text in INJECTIONS:
        options: dict[str, Any] = {"tags": [text]} if option == "tag" else {option: text}
        await echo.options(**options).enqueue(text)
    await run_until_idle(runner)
    for text in INJECTIONS:
        filters: dict[str, Any] = {option: text}
        page = await runner.registry.list(**filters)
        assert names_of(page.jobs, option) == [text]
        found = [job async for job in runner.registry.iterate(**filters)]
        assert names_of(found, option) == [text]
        assert [job.arguments for job in found] == [{"text": text}]
        assert [job.result for job in [await runner.registry.get(found[0].id)]] == [text]
    assert await runner.registry.count() == len(INJECTIONS)
    assert await runner.registry.check() == []


async def test_task_names_are_bound(runner: Runner) -> None:
    async def returns_its_name(name: str) -> str:
        return name

    for text in INJECTIONS:
        task = runner.task(name=text)(returns_its_name)
        assert await (await task.options(queue=text, key=text).enqueue(text)) == text
    for text in INJECTIONS:
        assert [job.task for job in (await runner.registry.list(task=text)).jobs] == [text]
        assert await runner.registry.count(task=text) == 1
        assert await runner.registry.count(queue=text, state="completed") == 1
    assert await runner.registry.check() == []


async def test_filters_together_are_bound(runner: Runner) -> None:
    runner.include(tasks)
    for text in INJECTIONS:
        await echo.options(tags=[text], key=text, queue=text, trigger=text).enqueue(text)
    for text in INJECTIONS:
        page = await runner.registry.list(tag=text, key=text, queue=text, trigger=text)
        assert [job.key for job in page.jobs] == [text]
        mixed = await runner.registry.list(tag=text, key=INJECTIONS[0], trigger=text)
        assert len(mixed.jobs) == (text == INJECTIONS[0])


async def test_tags_errors_and_arguments_are_bound(runner: Runner) -> None:
    runner.include(tasks)
    library = Tasks()

    @library.task
    async def refuse(text: str, more: dict[str, str]) -> None:
        raise Fail(text)

    runner.include(library)
    for text in INJECTIONS:
        await refuse.options(tags=[text, "all"]).enqueue(text, {text: text})
    await run_until_idle(runner)
    for text in INJECTIONS:
        asked: list[JobFilter] = [
            {"tags_all": [text, "all"]},
            {"tags_any": [text, "none"]},
            {"task": refuse.name, "arguments": {"text": text}},
        ]
        if not set(text) & set('."\\'):  # these are refused in a path
            asked.append({"tag": "all", "arguments": {f"more.{text}": text}})
        for filters in asked:
            jobs = (await runner.registry.list(**filters)).jobs
            assert [(job.arguments or {})["text"] for job in jobs] == [text]
            assert await runner.registry.count(**filters) == 1
        found = await runner.registry.list(state="failed", error=text)
        texts = {(job.arguments or {})["text"] for job in found.jobs}
        assert texts == {other for other in INJECTIONS if text in other} | (
            set(INJECTIONS) if text in "asyncjobs.Fail" else set()
        )
    assert await runner.registry.check() == []


async def test_names_of_filters_and_paths_are_taken_from_a_list(runner: Runner) -> None:
    runner.include(tasks)
    await echo.enqueue("here")
    for text in INJECTIONS:
        unknown: dict[str, Any] = {text: 1}
        with pytest.raises(InvalidOption, match="is no filter"):
            await runner.registry.list(**unknown)
        with pytest.raises(InvalidOption, match="order="):
            await runner.registry.list(order=text)  # type: ignore[arg-type]
        page = await runner.registry.list(task=echo.name, arguments={text.translate(SAFE): "here"})
        assert page.jobs == []
    for path in ('a"', "a\\", 'text") OR ("', "a..b", "."):
        with pytest.raises(InvalidOption, match="path"):
            await runner.registry.list(task=echo.name, arguments={path: 1})


async def test_bulk_changes_and_their_audit_are_bound(runner: Runner, tmp_path: Path) -> None:
    runner.include(tasks)
    for text in INJECTIONS:
        await echo.options(tags=[text], delay=60).enqueue(text)
    for text in INJECTIONS:
        done = await runner.registry.cancel_all(text, tag=text, actor=text, dry_run=False)
        assert (done.matched, done.changed) == (1, 1)
        (entry, *_) = await runner.registry.audit(limit=1)
        assert (entry.actor, entry.what) == (
            text,
            {"tags_all": [text], "state": ["blocked", "queued", "running"]},
        )
    assert await runner.registry.count(state="cancelled") == len(INJECTIONS)
    for number, text in enumerate(("a'b.db", "x; DROP TABLE y.db", "b.db?mode=ro")):
        await runner.registry.backup(tmp_path / text)
        assert len(list(tmp_path.glob("*.db*"))) >= number + 2
    assert await runner.registry.check() == []


async def test_ids_are_bound(runner: Runner) -> None:
    runner.include(tasks)
    await echo.enqueue("here")
    await run_until_idle(runner)
    registry = runner.registry
    for text in INJECTIONS:
        assert await registry.find(text) is None
        for ask in (registry.get, registry.attempts, registry.cancel, registry.retry,
                    registry.delete):  # fmt: skip
            with pytest.raises(UnknownJob):
                await ask(text)
        with pytest.raises(AsyncJobsError):
            await runner.handle(text)
    assert await registry.count(state="completed") == 1
    assert await registry.check() == []


async def test_states_and_cursors_are_taken_from_a_list(runner: Runner) -> None:
    runner.include(tasks)
    await echo.enqueue("here")
    for text in INJECTIONS:
        with pytest.raises(InvalidOption):
            await runner.registry.list(state=text)
        with pytest.raises(InvalidOption):
            await runner.registry.count(state=text)
        with pytest.raises(InvalidOption):
            await runner.registry.list(cursor=text)


async def test_reasons_meta_and_unknown_tasks_are_bound(runner: Runner, tmp_path: Path) -> None:
    for text in INJECTIONS:
        other = Tasks()
        lost = other.task(name=f"lost {text}")(lambda: None)
        runner.include(other)
        handle = await lost.options(delay=60, meta={text: text}).enqueue()
        assert await handle.cancel(text) == "cancelled"
        job = await handle.job()
        assert (job.cancel_reason, job.meta) == (text, {text: text})
    assert await runner.registry.check() == []
    path = tmp_path / "jobs.db"
    async with Runner(path, queues=INJECTIONS) as stranger:
        assert await stranger.registry.count() == len(INJECTIONS)


async def test_a_path_is_a_path_and_no_uri(tmp_path: Path) -> None:
    for name in ("jobs.db?mode=memory", "file:jobs.db", "a'b.db", "x; DROP TABLE y.db", "100%.db"):
        path = tmp_path / name
        async with Runner(path) as runner:
            runner.include(tasks)
            assert await (await echo.enqueue(name)) == name
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM asyncjobs_jobs").fetchone() == (1,)
        connection.close()


# What may stand as the first argument of ``execute``: a statement by its name, or a text put
# together from one of those and fixed clauses, under one of these names.
COMPOSED = {"text", "query", "sql", "statement"}
NUMBERS_OF_OURS = (
    *("PRAGMA {} = {}", "PRAGMA {}", "PRAGMA wal_autocheckpoint = {}"),
    "PRAGMA busy_timeout = {}",
)


def calls_of_execute() -> list[tuple[str, ast.expr]]:
    return [
        (f"{path.name}:{node.lineno}", node.args[0])
        for path in sorted(PACKAGE.joinpath("store").rglob("*.py"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("execute", "executemany", "executescript")
        and node.args
    ]


def is_known(statement: ast.expr) -> bool:
    match statement:
        case ast.Constant(value=str()):
            return True
        case ast.JoinedStr(values=pieces):
            text = "".join(
                str(piece.value) if isinstance(piece, ast.Constant) else "{}" for piece in pieces
            )
            return text in NUMBERS_OF_OURS
        case ast.Subscript(value=ast.Name(id=name)):
            return name.isupper()
        case ast.Call(func=ast.Attribute(attr="rows")):
            return True
        case ast.Name(id=name):
            return name in COMPOSED
    return False


def test_every_statement_that_is_executed_comes_from_a_file_or_a_fixed_list() -> None:
    calls = calls_of_execute()
    assert len(calls) > 10
    assert [place for place, statement in calls if not is_known(statement)] == []


def test_texts_of_users_never_take_part_in_composing_sql() -> None:
    """Clauses are composed by ``replace`` and joined; an f-string may hold a column's name only."""
    tree = tree_of(PACKAGE / "store" / "filters.py")
    filled = [
        ast.unparse(piece.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for piece in node.values
        if isinstance(piece, ast.FormattedValue)
    ]
    assert set(filled) <= {"column", "clause"}
