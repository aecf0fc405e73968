"""What ``asyncjobs queues`` does to queues that are named."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from ..clock import to_seconds
from ..errors import InvalidOption
from ..rules.limiting import Rate
from ..rules.limits import check_text
from .asked import Asked
from .changing import change_matching, change_named
from .delete import DELETE
from .times import amount

if TYPE_CHECKING:
    from ..runner import Runner

SETTINGS = ("running", "rate", "burst", "weight", "priority_ageing")
"""Under the names that ``registry.set_queue`` and ``Rate`` give them."""
BELONGS = {**dict.fromkeys(SETTINGS, "set"), "timeout": "drain", "yes": "purge"}
"""Which action each option is for."""


def _value(text: str, kind: Callable[[str], Any], form: str) -> Any:
    if text == "none":
        return None
    try:
        return kind(text)
    except InvalidOption as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!a} is not {form}, nor none") from None


def _rate(text: str) -> Rate:
    jobs, slash, per = text.partition("/")
    return Rate(int(jobs), float(per) if slash else 1.0)


_whole = partial(_value, kind=int, form="a whole number")
_seconds = partial(_value, kind=float, form="a number of seconds")
_pace = partial(_value, kind=_rate, form="a rate, such as 100/60")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the actions take."""
    group = parser.add_argument_group("set", "What is left out stays; none takes a limit away.")
    for name, kind, metavar, what in (
        ("running", _whole, "N|none", "jobs at once; 0 lets none start"),
        ("rate", _pace, "JOBS/SECONDS|none", "starts in a period, as in 100/60"),
        ("burst", int, "N", "with --rate: starts at once after a quiet time"),
        ("weight", _whole, "N|none", "share of the starts, beside other queues with due jobs"),
        ("priority-ageing", _seconds, "SECONDS|none",
         "a waiting job counts one priority higher for each such span"),
    ):  # fmt: skip
        group.add_argument(f"--{name}", type=kind, default=UNSET, metavar=metavar, help=what)
    parser.add_argument("--timeout", type=float, default=UNSET, metavar="SECONDS",
                        help="with drain: wait so long for each at most")  # fmt: skip
    parser.add_argument("--yes", action="store_true", default=UNSET,
                        help="with purge: do it; without this jobs are only counted")  # fmt: skip


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse what belongs to another action than the one that is asked for.

    Raises:
        InvalidOption: naming the option and its action.
    """
    for option, action in BELONGS.items():
        if getattr(arguments, option) is not UNSET and arguments.action != action:
            raise InvalidOption(f"--{option.replace('_', '-')} belongs to queues {action}")


def act(asked: Asked) -> int:
    """Do what is asked; the exit code."""
    return ACTIONS[asked.arguments.action](asked)


def _named(one: Callable[[Runner, str, str], Awaitable[str]], asked: Asked) -> int:
    return change_named(asked, "queues", one)


async def _pause(runner: Runner, name: str, actor: str) -> str:
    await runner.registry.pause_queue(name, actor=actor)
    return "paused"


async def _resume(runner: Runner, name: str, actor: str) -> str:
    await runner.registry.resume_queue(name, actor=actor)
    return "resumed"


def _set(asked: Asked) -> int:
    options = {name: getattr(asked.arguments, name) for name in SETTINGS}
    given = {name: value for name, value in options.items() if value is not UNSET}
    if not given:
        raise InvalidOption(
            "there is nothing to set: give --running, --rate, --weight or --priority-ageing"
        )
    burst = given.pop("burst", None)
    if isinstance(given.get("rate"), Rate):
        given["rate"] = Rate(given["rate"].jobs, given["rate"].per, burst)
    elif burst is not None:
        raise InvalidOption("--burst is part of a rate: give --rate JOBS/SECONDS with it")
    return _named(partial(_set_one, given), asked)


async def _set_one(options: dict[str, Any], runner: Runner, name: str, actor: str) -> str:
    await runner.registry.set_queue(name, actor=actor, **options)
    return "set"


def _drain(asked: Asked) -> int:
    given = asked.arguments.timeout
    seconds = None if given is UNSET else to_seconds(given, "timeout")
    return _named(partial(_drain_one, seconds), asked)


async def _drain_one(seconds: float | None, runner: Runner, name: str, actor: str) -> str:
    import asyncio  # only here: what only looks starts in half the time

    try:
        async with asyncio.timeout(seconds):
            await runner.registry.drain_queue(name)
    except TimeoutError:
        raise TimeoutError(
            f"after {amount(seconds or 0)} jobs of queue {name!r} still run or are due"
        ) from None
    return "drained"


def _purge(asked: Asked) -> int:
    if len(asked.arguments.names) != 1:
        raise InvalidOption("name the one queue to purge")
    (name,) = asked.arguments.names
    return change_matching(
        asked, DELETE, {"queue": check_text(name, "queue"), "state": ["queued", "blocked"]}
    )


ACTIONS: dict[str, Callable[[Asked], int]] = {
    "pause": partial(_named, _pause),
    "resume": partial(_named, _resume),
    "set": _set,
    "drain": _drain,
    "purge": _purge,
}
