"""What users may filter jobs by, once for all of the registry, and the checks of it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, TypedDict

import msgspec
from msgspec.structs import replace

from .clock import to_datetime, to_instant
from .errors import InvalidOption
from .rules.fingerprint import FINGERPRINT_LENGTH
from .rules.limits import KEY_MAX, TAGS_MAX, check_choice, check_text
from .states import DERIVED_STATES, FINISHED, State
from .store.base import Cancel, Change, Delete, Filter, Requeue
from .store.walks import states_of

_STATES = (*State.__members__.values(), *sorted(DERIVED_STATES))
_TEXTS = ("task", "queue", "key", "trigger", "error")
_TIMES = ("created", "started", "finished", "run")
_BOUNDS = ("after", "before")
ARGUMENTS_MAX = 8
COUNT_MAX = 10_000
"""Up to where jobs are counted that no counter knows."""
_COUNTED = {"states", "queue", "task"}
_FINGERPRINT = re.compile(f"[0-9a-f]{{{FINGERPRINT_LENGTH}}}")
_WAITING = frozenset({State.BLOCKED, State.QUEUED}) | DERIVED_STATES
# Change -> what the user calls it, and the states in which it can be made.
_POSSIBLE: dict[type, tuple[str, frozenset[str]]] = {
    Cancel: ("cancel_all", _WAITING | {State.RUNNING}),
    Requeue: ("retry_all", FINISHED),
    Delete: ("delete_all", FINISHED | _WAITING),
}


class JobFilter(TypedDict, total=False):
    """Which jobs. All that is given must hold; ``None`` is as good as not given.

    The keywords of ``registry.list``, ``iterate``, ``count`` and the bulk operations. Instants are
    aware datetimes; each ``_after`` is inclusive, each ``_before`` exclusive.
    """

    state: str | Collection[str] | None
    """One of the six, ``scheduled`` or ``retrying``; or several of these."""
    task: str | None
    queue: str | None
    tag: str | None
    tags_all: Collection[str] | None
    """It has each of these."""
    tags_any: Collection[str] | None
    """It has one of these at least."""
    key: str | None
    trigger: str | None
    error: str | None
    """In the type or the message of its last attempt that failed; capitals count."""
    fingerprint: str | None
    """As ``registry.failures`` shows it: jobs that failed alike and are failed still."""
    arguments: Mapping[str, str | int | float | bool | None] | None
    """Values by name, or by path as in ``{"address.city": "Berlin"}``."""
    created_after: datetime | None
    created_before: datetime | None
    started_after: datetime | None
    started_before: datetime | None
    finished_after: datetime | None
    finished_before: datetime | None
    run_after: datetime | None
    """By when it is due."""
    run_before: datetime | None


def to_filter(given: Mapping[str, Any]) -> Filter:
    """The filter for the keywords that a user gave.

    Raises:
        InvalidOption: naming the keyword that is unknown, or has a value that cannot be.
    """
    unknown = sorted(set(given) - JobFilter.__optional_keys__)
    if unknown:
        raise InvalidOption(
            f"{unknown[0]!a} is no filter; they are {', '.join(JobFilter.__annotations__)}"
        )
    wanted = {name: value for name, value in given.items() if value is not None}
    fields: dict[str, Any] = {
        name: check_text(wanted[name], name, longest=KEY_MAX) for name in _TEXTS if name in wanted
    }
    if "fingerprint" in wanted:
        fields["fingerprint"] = check_fingerprint(wanted["fingerprint"])
    if "state" in wanted:
        fields["states"] = _check_states(wanted["state"])
    for name in ("tags_all", "tags_any"):
        if name in wanted:
            fields[name] = _check_tags(wanted[name], name)
    if "tag" in wanted:
        tag = check_text(wanted["tag"], "tag", longest=KEY_MAX)
        fields["tags_all"] = tuple(sorted({tag, *fields.get("tags_all", ())}))
    if "arguments" in wanted:
        fields["arguments"] = _check_arguments(wanted["arguments"])
    for name in _TIMES:
        fields |= _check_range(wanted, name)
    return Filter(**fields)


def applicable(what: Filter, change: Change) -> Filter:
    """The filter for those jobs alone that the change can be made to.

    Raises:
        InvalidOption: it asks for states that the change cannot be made to.
    """
    verb, possible = _POSSIBLE[type(change)]
    asked = states_of(what)
    wrong = sorted(set(asked) - possible)
    if wrong:
        raise InvalidOption(
            f"{verb} cannot change jobs that are {', '.join(wrong)}; its filter may be for "
            f"{', '.join(sorted(possible))}"
        )
    if what.states:
        return what
    match change:
        case Cancel():
            return replace(what, states=(State.BLOCKED, State.QUEUED, State.RUNNING))
        case Requeue():
            return replace(what, states=(State.FAILED,))
        case Delete():
            return replace(what, state_not=State.RUNNING)


def is_counted(what: Filter) -> bool:
    """Whether counters know how many jobs pass."""
    return set(what.given()) <= _COUNTED and not DERIVED_STATES.intersection(what.states)


def as_json(what: Filter) -> str:
    """A filter for the audit. Of arguments only the paths: values go when their job goes."""
    kept = {name: getattr(what, name) for name in what.given()}
    for name in kept.keys() & {f"{time}_{bound}" for time in _TIMES for bound in _BOUNDS}:
        kept[name] = to_datetime(kept[name])
    if what.arguments:
        kept["arguments"] = sorted(path for path, _ in what.arguments)
    if what.states:
        kept["state"] = kept.pop("states")
    return msgspec.json.encode(kept).decode()


def check_fingerprint(value: object) -> str:
    """What ``registry.failures`` gives out.

    Raises:
        InvalidOption: it is nothing of the kind.
    """
    text = check_text(value, "fingerprint")
    if not _FINGERPRINT.fullmatch(text):
        raise InvalidOption(
            f"fingerprint={text!a} is none: they are {FINGERPRINT_LENGTH} hexadecimal digits, as "
            "registry.failures() gives them"
        )
    return text


def _check_states(value: object) -> tuple[str, ...]:
    states = [value] if isinstance(value, str) else _check_some(value, "state")
    return tuple(sorted({check_choice(state, "state", _STATES) for state in states}))


def _check_tags(value: object, name: str) -> tuple[str, ...]:
    # Sorted, so that the same tags in another order take the same cursor.
    some = _check_some(value, name)
    tags = tuple(sorted({check_text(tag, name, longest=KEY_MAX) for tag in some}))
    if len(tags) > TAGS_MAX:
        raise InvalidOption(f"{name} has {len(tags)} tags; at most {TAGS_MAX} fit")
    return tags


def _check_some(value: object, name: str) -> Collection[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
        raise InvalidOption(f"{name} must be a list, tuple or set, got {type(value).__name__}")
    if not value:
        raise InvalidOption(f"{name} is empty, so no job could pass; leave it out for any")
    return value


def _check_arguments(value: object) -> tuple[tuple[str, Any], ...]:
    """Paths and values. No message repeats a value: it may be a job's argument."""
    if not isinstance(value, Mapping):
        raise InvalidOption(f"arguments must be a mapping, got {type(value).__name__}")
    if not 0 < len(value) <= ARGUMENTS_MAX:
        raise InvalidOption(f"arguments has {len(value)} paths; from 1 to {ARGUMENTS_MAX} fit")
    return tuple((_check_path(path), _check_value(path, wanted)) for path, wanted in value.items())


def _check_path(path: object) -> str:
    text = check_text(path, "a path in arguments", longest=KEY_MAX)
    if '"' in text or "\\" in text or not all(text.split(".")):
        raise InvalidOption(
            f"arguments has the path {text!a}: names joined by dots, without quotes or backslashes"
        )
    return text


def _check_value(path: str, value: object) -> object:
    match value:
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case str() if value.encode("utf-8", "ignore").decode() == value:
            return str(value)
    raise InvalidOption(
        f"arguments[{path!a}] must be a str, bool, None, 64-bit int or finite float that is there "
        f"in the job's JSON; got {type(value).__name__}"
    )


def _check_range(wanted: Mapping[str, Any], name: str) -> dict[str, int]:
    bounds = {
        bound: to_instant(wanted[bound], bound)
        for bound in (f"{name}_{end}" for end in _BOUNDS)
        if bound in wanted
    }
    if len(bounds) == 2 and bounds[f"{name}_after"] >= bounds[f"{name}_before"]:
        raise InvalidOption(
            f"{name}_after={wanted[f'{name}_after'].isoformat()} is not before {name}_before="
            f"{wanted[f'{name}_before'].isoformat()}, so no job could pass"
        )
    return bounds
