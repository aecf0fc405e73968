"""The registry's filters as options, under the same names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidOption
from ..filters import JobFilter
from .times import instant

TEXTS = {
    "task": "of this task",
    "queue": "in this queue",
    "tag": "with this tag",
    "key": "with this idempotency key",
    "trigger": "triggered by this, such as api or job:ID",
    "fingerprint": "in this group of failures",
    "error": "with this text in the type or message of the last error",
}
TIMES = ("created", "started", "finished", "run")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add an option for each filter."""
    group = parser.add_argument_group(
        "filters, of which all must hold",
        "TIME is 2h, 30m or 7d (ago), +1h (from now), or a date and time, local unless it says.",
    )
    group.add_argument("--state", action="extend", type=words, metavar="STATE[,STATE]",
                       help="one of the six states, scheduled or retrying; or several")  # fmt: skip
    for name, what in TEXTS.items():
        group.add_argument(f"--{name}", help=what, metavar="TEXT")
    group.add_argument("--tags-all", action="append", metavar="TAG", help="with each of these")
    group.add_argument("--tags-any", action="append", metavar="TAG", help="with one of these")
    group.add_argument("--arguments", action="append", metavar="PATH=VALUE",
                       help="with this argument, as in id=42 or address.city=Lima")  # fmt: skip
    for name in TIMES:
        for bound in ("after", "before"):
            group.add_argument(f"--{name}-{bound}", type=instant, metavar="TIME",
                               help="by when it is due" if name == "run" else None)  # fmt: skip
    parser.add_argument("--scan", action="store_true", help="look at every job if need be")


def filters_of(arguments: argparse.Namespace) -> JobFilter:
    """The filters that were given.

    Raises:
        InvalidOption: a value of an argument that makes no sense; the rest is checked later.
    """
    given: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in JobFilter.__annotations__
        if getattr(arguments, name) is not None
    }
    if "arguments" in given:
        given["arguments"] = values_of(given["arguments"])
    filters: JobFilter = {}
    filters.update(given)  # type: ignore[typeddict-item]
    return filters


def words(text: str) -> list[str]:
    """Words with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()] or [text]


def values_of(given: Sequence[str]) -> dict[str, Any]:
    """What ``--arguments`` says, value by path.

    Raises:
        InvalidOption: it says no value, or two.
    """
    values: dict[str, Any] = {}
    for text in given:
        path, separator, value = text.partition("=")
        if not separator:
            raise InvalidOption("--arguments takes PATH=VALUE, such as user_id=42")
        if path in values:
            raise InvalidOption(f"--arguments is given twice for {path!a}")
        values[path] = _value(value)
    return values


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself, so that names need no quotes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
