"""When a cron expression fires in a time zone, and what it says in English.

The fields are read and matched by cronsim, against wall times without any zone. From wall times to
instants it is our own way: cronsim's own goes back in time when it starts inside the second pass of
an hour that is repeated, and loses half an hour where clocks move by half an hour (Lord Howe).

The rule is that of Debian's cron. An expression whose minute and hour are both given (neither
begins with a star) names appointments: each wall time comes once, the first time where the clock
shows it twice, and right after the jump where the clock jumps over it. Any other follows the hands
of the clock: what they show twice fires twice, what they jump over does not fire.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from ..errors import InvalidOption
from .limits import check_text
from .zones import change_between, first_change, offset_at

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_PLACES = (("second", 60), ("minute", 60), ("hour", 24), ("day", 31), ("month", 12), ("weekday", 7))
"""What each field counts, and how many of them there are."""
_ALLOWED = {
    "bad second": "from 0 to 59",
    "bad minute": "from 0 to 59",
    "bad hour": "from 0 to 23",
    "bad day-of-month": "from 1 to 31, L or LW",
    "bad month": "from 1 to 12, or jan to dec",
    "bad day-of-week": "from 0 to 7, where Sunday is 0 and 7, or mon to sun",
}
_SOME_DAY = datetime(2000, 1, 1)
_SECOND = timedelta(seconds=1)


def check_expression(expression: object, *, seconds: bool) -> str:
    """An expression that fires, in small letters and with single spaces.

    Raises:
        InvalidOption: it means nothing, has another number of fields, or can never fire.
    """
    text = " ".join(check_text(expression, "Cron(expression)").split()).lower()
    plain = spelled_out(text)
    if plain is None:
        raise InvalidOption(f"Cron({text!r}) is not known; it is one of {', '.join(ALIASES)}")
    wanted, found = 6 if seconds else 5, len(plain.split())
    if found != wanted:
        names = "second " * seconds + "minute hour day month weekday"
        hint = "; seconds=True takes six, seconds first" if found == 6 else ""
        hint = "; leave seconds out with it" if text in ALIASES else hint
        raise InvalidOption(f"Cron({text!r}) has {found} fields, not {wanted}: {names}{hint}")
    _check_fires(text, plain)
    _check_steps(text, plain)
    return text


def _check_fires(text: str, plain: str) -> None:
    from cronsim import CronSim, CronSimError

    try:
        first = next(CronSim(plain, _SOME_DAY), None)
    except CronSimError as error:
        if "day-of-month" in str(error) and _fires_in_other_months(plain):
            raise _never(text, "no month that it names has that day") from None
        wrong = str(error).lower()
        allowed = _ALLOWED.get(wrong, "see Cron")
        raise InvalidOption(f"Cron({text!r}) has a {wrong}: {allowed}; ranges go upwards") from None
    if first is None:
        raise _never(text, "no such day comes within fifty years")


def _check_steps(text: str, plain: str) -> None:
    """Refuse a step that no second time of its field is far enough for: it means something else."""
    fields = plain.split()
    for field, (name, there_are) in zip(fields, _PLACES[-len(fields) :], strict=True):
        for part in field.split(","):
            step = part.partition("/")[2]
            if step and int(step) > there_are:
                raise InvalidOption(
                    f"Cron({text!r}) has a step of {step} {name}s, and there are {there_are}: it "
                    "would fire at the first of them alone; for other spans there is Every(...)"
                )


def _fires_in_other_months(plain: str) -> bool:
    from cronsim import CronSim, CronSimError

    fields = plain.split()
    fields[-2] = "*"
    try:
        CronSim(" ".join(fields), _SOME_DAY)
    except CronSimError:
        return False
    return True


def _never(text: str, why: str) -> InvalidOption:
    return InvalidOption(f"Cron({text!r}) never fires: {why}")


def spelled_out(text: str) -> str | None:
    """The fields of an expression or of an alias; ``None`` for an alias that is none."""
    return ALIASES.get(text) if text.startswith("@") else text


def sentence(expression: str, zone: str) -> str:
    """The expression in English."""
    from cronsim import CronSim

    said: str = CronSim(spelled_out(expression) or "", _SOME_DAY).explain()
    return f"{said} ({zone})"


def times(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """The instants in UTC, each later than the one before, at which it fires ``after`` one."""
    plain = spelled_out(expression) or ""
    after = after.replace(microsecond=0)  # no time has any
    minute, hour = plain.split()[-5:-3]
    if minute.startswith("*") or hour.startswith("*"):
        return _by_the_hands(plain, zone, after)
    return _by_appointment(plain, zone, after)


def _by_appointment(plain: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Each wall time once."""
    from cronsim import CronSim

    last = after
    for wall in CronSim(plain, after.astimezone(zone).replace(tzinfo=None)):
        instant = _first_at(wall, zone)
        # Several may wait for the end of one jump; and in the second pass of an hour that is
        # repeated, its times are over.
        if instant > last:
            yield instant
            last = instant


def _first_at(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which clocks show this time, or a later one if none shows it."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return change_between(zone, before, instant)


def _by_the_hands(plain: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Whatever the clock shows. Between two of its changes it simply runs along with UTC."""
    from cronsim import CronSim

    offset = offset_at(zone, after)
    while True:
        changed = None
        for wall in CronSim(plain, (after + offset).replace(tzinfo=None)):
            instant = wall.replace(tzinfo=UTC) - offset
            changed = first_change(zone, after, instant, offset)
            if changed is not None:
                break
            yield instant
            after = instant
        if changed is None:
            return
        # On from the change, by the clock as it goes from there.
        offset, after = offset_at(zone, changed), changed - _SECOND
