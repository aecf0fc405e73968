"""What is printed shows as itself: no text of a job moves a cursor, whatever it is."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncjobs.cli.screen import Screen, clean, clean_lines, cut, width
from asyncjobs.cli.terminal import Terminal
from asyncjobs.clock import MICROSECONDS
from asyncjobs.records import ErrorRecord, LogEntry, Note, ProgressValue, RunUsage
from asyncjobs.rules.files import FileRecord, encode_file
from asyncjobs.states import Event
from asyncjobs.store.base import Join
from asyncjobs.store.journal import Annotate
from tests.security.test_log_lines import HOSTILE, hostile_texts
from tests.store.kit import Desk

from .kit import Shell

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DECADES = 50 * 365 * 86_400 * MICROSECONDS
# What the database takes: texts without half characters.
TEXTS = [text for text in dict.fromkeys(hostile_texts(31, 10)) if "\ud800" not in text]
MARKUP = ["[red]x[/red]", "[link=https://example.org]x[/link]", "[/]", ":smile:", "[bold", "\\[x]"]


def assert_harmless(text: str) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)


@settings(max_examples=30, deadline=None)
@given(st.text())
def test_a_cleaned_text_is_printable_and_printable_text_stays(text: str) -> None:
    cleaned = clean(text)

    assert cleaned.isprintable()
    assert clean(cleaned) == cleaned
    assert text.isprintable() == (cleaned == text)
    assert len(clean_lines(text)) == text.replace("\r\n", "\n").count("\n") + 1
    assert all(line.isprintable() for line in clean_lines(text))
    assert len(cut(text, 10)) <= 10


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202eevil", "\\u202eevil"),
        ("\x9b", "\\x9b"),
        ("\ud800", "\\ud800"),
        ("Zoë 日本 👍 [red]", "Zoë 日本 👍 [red]"),
    ],
)
def test_what_does_not_show_as_itself_is_spelled(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_columns_are_aligned_by_the_width_of_their_characters() -> None:
    out = io.StringIO()
    Screen(out, io.StringIO()).table(("A", "B"), [("日本", "x"), ("a\u0308", "x"), ("abc", "x")])

    lines = out.getvalue().splitlines()
    assert {width(line[:-1]) for line in lines} == {6}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text() | st.integers()) | st.dictionaries(st.text(), st.text()))
def test_json_is_one_line_of_ascii_and_comes_back_equal(value: Any) -> None:
    out = io.StringIO()
    Screen(out, io.StringIO()).document(value)

    line, end = out.getvalue().split("\n")
    assert end == ""
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == value


def as_shown(text: str) -> str:
    """What a terminal of rich shows of a text in every place of a screen."""
    out = io.StringIO()
    screen = Terminal(out, io.StringIO())
    screen.fields({"name": text})
    screen.row("failed", text)
    screen.title(text)
    screen.text(text)
    screen.table(("ID",), [(text,)])
    return out.getvalue()


@pytest.mark.parametrize("text", [*HOSTILE, *MARKUP])
def test_a_terminal_shows_texts_as_they_are_cleaned(text: str) -> None:
    shown = as_shown(text)

    assert_harmless(COLOURS.sub("", shown))
    assert shown.count(clean(text)) >= (5 if "\n" not in text else 4)


def test_a_terminal_has_colours_only_for_words_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    Terminal(out, io.StringIO()).row("failed   ", "[red]failed[/red]", "\x1b[31m")

    assert out.getvalue() == "\x1b[31mfailed   \x1b[0m  [red]failed[/red]  \\x1b[31m\n"


async def hostile_jobs(desk: Desk) -> list[str]:
    """Jobs with hostile text wherever the database takes it; their ids."""
    ids: list[str] = []
    for text in TEXTS:
        await desk.do(Join(f"instance {len(ids)}", 1, text))
        encoded = json.dumps({"a": text, text: 1})
        run = await desk.start(
            task="read", queue=f"q{text}", key=f"k{text}", tags=(f"t{text}",), meta=encoded,
            arguments=encoded, trigger=f"by {text}",
        )  # fmt: skip
        line = LogEntry(1, desk.clock.now(), "INFO", f"l{text}", text)
        note = Note(run.seq, run.claim, 1, ProgressValue(1, 1, None, text), [line])
        await desk.do(Annotate("here", [note]))
        error = ErrorRecord(f"E{text}", text, f"Traceback\n{text}")
        usage = RunUsage(1.0, 1, output=f"out {text}")
        match len(ids) % 3:
            case 0:
                await desk.end(run, Event.FAILED, error=error, reason=f"r {text}", usage=usage)
            case 1:
                later = desk.clock.now() + DECADES
                await desk.end(run, Event.RETRYING, error=error, usage=usage, run_at=later)
            case _:
                file = encode_file(FileRecord("1-1", f"f{text}", text, 1))
                await desk.end(run, result=file)
        ids.append(run.id)
    waiting = await desk.add(task="\u202eevil\u2066")
    await desk.cancel(waiting, reason="\x1b[2J\u202e")
    return [*ids, waiting]


async def test_no_text_of_a_job_reaches_a_terminal_as_it_is(desk: Desk, shell: Shell) -> None:
    ids = await hostile_jobs(desk)
    calls = [["ls", "--limit", "1000"], ["tail", "--since", "2026-01-01", "--no-follow"]]
    calls += [["doctor"], *(["show", job_id] for job_id in ids)]
    calls += [[*words, "--json"] for words in calls[:6]]
    calls += [["tail", job_id, "--no-follow"] for job_id in ids[::4]]

    for words in calls:
        ran = shell(*words)
        assert ran.out or ran.err
        assert_harmless(ran.out)
        assert_harmless(ran.err)


# Of half characters a shell hands over only those that stand for bytes.
@pytest.mark.parametrize("text", [*(text for text in HOSTILE if text != "\ud800"), "\udcff"])
async def test_nor_does_what_was_typed(desk: Desk, shell: Shell, text: str) -> None:
    for words in (
        ["ls", "--state", text], ["ls", "--task", text], ["ls", "--cursor", text],
        ["ls", "--created-after", text], ["ls", "--arguments", text], ["show", f"x{text}"],
        ["tail", "--kinds", text], ["tail", "--after", text], ["cancel", f"x{text}"],
        ["cancel", "--state", "queued", "--reason", text], ["ls", "--db", f"no{text}"],
        ["ls", f"--{text}"], ["ls", "--limit", text], [f"x{text}"], ["ls", "--order", text],
    ):  # fmt: skip
        ran = shell(*words)
        assert ran.code in (0, 1, 2, 3)
        assert_harmless(ran.out)
        assert_harmless(ran.err)
