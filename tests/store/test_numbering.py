"""Statements keep their meaning without the numbers of their placeholders."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing

import pytest

from asyncjobs.store.sqlite.numbering import NUMBERS_ARE_NAMES, Unnumbered, without_numbers
from asyncjobs.store.sqlite.transaction import STATEMENTS


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.mark.parametrize("sql", [
    "SELECT ?",
    "SELECT ?2, ?1",
    "SELECT ?1, ?1, ?2",
    "SELECT ?, ?1, ?",
    "SELECT ?2, ?, ?1",
    "SELECT '?1', ?1, 'it''s ?2', ? -- ?4",
    "SELECT 1",
])  # fmt: skip
def test_values_go_where_the_numbers_say(connection: sqlite3.Connection, sql: str) -> None:
    values = ("a", "b", "c")[: max((*without_numbers(sql)[1], -1)) + 1]
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        said = connection.execute(sql, values).fetchall()
    assert Unnumbered(connection).execute(sql, values).fetchall() == said


def test_no_statement_keeps_a_number() -> None:
    texts = [STATEMENTS.rows(name, 3) for name in STATEMENTS.text]
    numbered = [text for text in texts if "?1" in text]
    assert len(numbered) > 20
    assert [text for text in texts if "?1" in without_numbers(text)[0]] == []


def test_pythons_that_take_numbers_for_names_are_those_that_are_known(
    connection: sqlite3.Connection,
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        connection.execute("SELECT ?1", (1,))
    assert bool(caught) == NUMBERS_ARE_NAMES
