"""Size caps and ranges, and the checks of options. Every bound of the public face stands here."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

import msgspec

from ..errors import InvalidOption, shown
from .nesting import too_deep

# Bytes of JSON, or of UTF-8.
ARGUMENTS_MAX = 1024 * 1024
RESULT_MAX = 16 * 1024 * 1024
META_MAX = 64 * 1024
OPTIONS_MAX = 64 * 1024
MESSAGE_MAX = 8 * 1024
ERROR_MAX = 64 * 1024
MEMORY_LIMIT_MIN = 16 * 1024 * 1024
MEMORY_LIMIT_MAX = 2**50
LOG_LINE_MAX = 16 * 1024
LOG_BYTES_MAX = 256 * 1024
FLUSH_BYTES_MAX = 4 * 1024 * 1024
# Characters.
NAME_MAX = 255
KEY_MAX = 1024
NOTE_MAX = 1024
# Numbers of things.
LEVELS_MAX = 200
"""How deep arrays and objects may stand in each other in a value that is kept as JSON."""
TAGS_MAX = 32
BULK_MAX = 10_000
PAGE_MAX = 1_000
FLUSH_ROWS_MAX = 1_000
PRIORITY_MAX = 100
ATTEMPTS_MAX = 10_000
CRASHES_MAX = 1_000
CONCURRENCY_MAX = 100_000
PROCESSES_MAX = 1_000
AMOUNT_MAX = 2**63 - 1
LOG_LINES_MAX = 1_000
"""Lines kept a job, and :data:`LOG_BYTES_MAX`: the newest."""
ATTEMPT_ROWS_MAX = 100
"""Rows of history kept a job: the newest. A job that crashes for ever must not fill the disk."""

_CUT = "\n[... cut ...]\n"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def check_text(value: object, option: str, *, longest: int = NAME_MAX) -> str:
    """A name, key or tag: not empty, at most ``longest`` characters, no control characters."""
    if not isinstance(value, str):
        raise InvalidOption(f"{option} must be a str, got {shown(value)}")
    if not value:
        raise InvalidOption(f"{option} must not be empty")
    if len(value) > longest:
        raise InvalidOption(f"{option} is {len(value)} characters long; at most {longest} fit")
    if _UNPRINTABLE.search(value):
        raise InvalidOption(f"{option}={value!a} has control characters or unpaired surrogates")
    return str(value)


def check_integer(value: object, option: str, *, least: int, most: int) -> int:
    """A whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"{option} must be an int, got {shown(value)}")
    if not least <= value <= most:
        number = value if abs(value) < 10**20 else "an integer of many digits"
        raise InvalidOption(f"{option}={number} is out of range: from {least} to {most}")
    return int(value)


def check_flag(value: object, option: str) -> bool:
    """True or False, and nothing that only looks like one: ``bool("no")`` is true."""
    if not isinstance(value, bool):
        raise InvalidOption(f"{option} must be True or False, got {shown(value)}")
    return value


def check_priority(value: object) -> int:
    """From -100 to 100; larger is sooner."""
    return check_integer(value, "priority", least=-PRIORITY_MAX, most=PRIORITY_MAX)


def check_amount(value: object, option: str) -> int | float:
    """A number from 0 that SQLite can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidOption(f"{option} must be a number, got {type(value).__name__}")
    if not 0 <= value <= AMOUNT_MAX:
        raise InvalidOption(f"{option} is out of range: from 0 to 2**63 - 1")
    return value


def check_choice(value: object, option: str, choices: Iterable[str]) -> str:
    """One of a few words."""
    names = tuple(choices)
    if value not in names:
        raise InvalidOption(f"{option}={value!r} is not known; it is one of {', '.join(names)}")
    return str(value)


def unknown_option(
    given: Mapping[str, Any],
    function: Callable[..., Any],
    what: str,
    *,
    elsewhere: Callable[..., Any] | None = None,
    hint: str = "",
) -> InvalidOption:
    """What to raise for keywords that ``function`` does not have; it names those that it has.

    ``hint`` says where a keyword of ``elsewhere`` is given.
    """
    name = next(iter(given))
    where = f"; {hint.format(name)}" if elsewhere and name in keywords_of(elsewhere) else ""
    return InvalidOption(
        f"{what} has no option {name!a}{where}; it has {', '.join(keywords_of(function))}"
    )


def keywords_of(function: Callable[..., Any]) -> list[str]:
    """The names of its keyword-only parameters, in their order."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]


def check_memory_limit(limit: object, executor: str) -> int | None:
    """Bytes that a job may have, where it has a process that can be limited."""
    if limit is None:
        return None
    if executor not in ("process", "isolated"):
        raise InvalidOption(
            "memory_limit needs a process that can be limited: executor='process' or 'isolated', "
            f"not {executor!r}"
        )
    return check_integer(limit, "memory_limit", least=MEMORY_LIMIT_MIN, most=MEMORY_LIMIT_MAX)


def check_crashes(on_crash: str, max_crashes: int | None) -> int:
    """Crashes after which a job fails, from what both options say."""
    check_choice(on_crash, "on_crash", ("retry", "fail"))
    if on_crash == "fail":
        if max_crashes not in (None, 1):
            raise InvalidOption(f"on_crash='fail' and max_crashes={max_crashes} contradict")
        return 1
    if max_crashes is None:
        return 3
    return check_integer(max_crashes, "max_crashes", least=1, most=CRASHES_MAX)


def check_log_level(value: object) -> int:
    """A level of the logging module, by name or number."""
    if isinstance(value, str):
        return logging.getLevelNamesMapping()[
            check_choice(value, "log_level", logging.getLevelNamesMapping())
        ]
    return check_integer(value, "log_level", least=0, most=1_000)


def check_tags(value: object) -> tuple[str, ...]:
    """At most 32 distinct tags, in the order given."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidOption(f"tags must be a sequence of str, got {shown(value)}")
    tags = tuple(dict.fromkeys(check_text(tag, "tags") for tag in value))
    if len(tags) > TAGS_MAX:
        raise InvalidOption(f"{len(tags)} tags; at most {TAGS_MAX} a job")
    return tags


def check_meta(value: object) -> str | None:
    """A mapping of str to plain JSON values, as JSON; ``None`` when empty."""
    if not isinstance(value, Mapping):
        raise InvalidOption(f"meta must be a mapping, got {type(value).__name__}")
    if not value:
        return None
    try:
        encoded = msgspec.json.encode(value)
        if too_deep(encoded, LEVELS_MAX):
            raise RecursionError  # what the encoder raises far deeper
        same = msgspec.json.decode(encoded) == value
    except RecursionError:
        raise InvalidOption(f"meta is nested too deeply: at most {LEVELS_MAX} levels fit") from None
    except (TypeError, ValueError, OverflowError):
        encoded, same = b"", False
    if not same:
        raise InvalidOption("meta must hold plain JSON values under str keys")
    if len(encoded) > META_MAX:
        raise InvalidOption(f"meta takes {len(encoded)} bytes as JSON; at most {META_MAX} fit")
    return encoded.decode()


def check_random(random: object) -> Random:
    """A source of random numbers."""
    if not isinstance(random, Random):
        raise InvalidOption(f"random must be a random.Random, got {type(random).__name__}")
    return random


def check_queues(queues: object) -> tuple[str, ...] | None:
    """Names of queues, each once; ``None`` for all."""
    if queues is None:
        return None
    if isinstance(queues, str) or not isinstance(queues, Iterable):
        raise InvalidOption(f"queues must be a sequence of str, got {shown(queues)}")
    names = tuple(dict.fromkeys(check_text(queue, "queues") for queue in queues))
    if not names:
        raise InvalidOption("queues=[] would take no job at all; leave it out for all queues")
    return names


def check_url(url: object) -> str:
    """The path of a database: a path as it is, or that of a ``sqlite:///`` URL."""
    if not isinstance(url, (str, os.PathLike)):
        raise InvalidOption(f"the database must be a path or a URL, got {shown(url)}")
    path = os.fspath(url)
    if not isinstance(path, str):
        raise InvalidOption("the path of the database must be text, not bytes")
    scheme, separator, rest = path.partition("://")
    if separator and scheme != "sqlite":
        raise InvalidOption(
            f"a database at {scheme!r} is not known: this version runs on SQLite only; give a "
            "path or sqlite:///path"
        )
    path = rest.removeprefix("/") if separator else path
    if not path or "\x00" in path:
        raise InvalidOption(f"the database {url!r} names no file")
    if path.startswith("file:"):
        raise InvalidOption(
            f"the database {url!r} is a file: URI, which is not understood; give a path or "
            "sqlite:///path"
        )
    if path.endswith("/"):
        raise InvalidOption(f"the database {url!r} is a directory; give the path of a file in it")
    return path


def storable(text: str, most: int) -> str:
    """UTF-8 that SQLite takes, of at most ``most`` bytes: the beginning and the end are kept."""
    if len(text) <= most and text.isascii() and "\x00" not in text:
        return text
    encoded = text.encode("utf-8", "backslashreplace").replace(b"\x00", b"\\x00")
    if len(encoded) > most:
        half = (most - len(_CUT)) // 2
        encoded = encoded[:half] + _CUT.encode() + encoded[-half:]
    return encoded.decode("utf-8", "ignore")
