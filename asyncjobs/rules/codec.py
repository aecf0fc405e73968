"""Arguments and results as JSON that comes back equal, checked against the task's types.

What JSON would change in silence (NaN into null, tuples into lists, keys into strings) is found by
decoding what was encoded and comparing. That costs about a microsecond and is the only test that
holds for every type. Messages name the argument and its types, never a value.
"""

from __future__ import annotations

import math
import numbers
import re
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any, get_args

import msgspec
from msgspec import UNSET

from ..errors import ArgumentsTooLarge, InvalidArguments, InvalidOption, InvalidResult
from .files import MARK
from .limits import ARGUMENTS_MAX, LEVELS_MAX, RESULT_MAX
from .nesting import too_deep
from .signature import Signature

_FILE_MARK = MARK.encode()
_UNENCODABLE = (TypeError, ValueError, RecursionError, OverflowError)
_SHALLOW_BYTES = 2 * LEVELS_MAX
"""Up to here JSON cannot be nested too deeply, as each level opens and closes. Most is shorter."""

# The parts of a msgspec message that speak of types and places alone. Anything else, such as
# "Invalid enum value 'x'", may hold a value and is not repeated.
_WITHOUT_VALUES = re.compile(
    r"^(Expected `[^`]*`, got `[^`]*`|Object missing required field `\w+`)"
)
_PLACE = re.compile(r"at `(?:key in )?\$\.?(\w+)")


class TaskCodec:
    """One task's arguments and results, to JSON and back."""

    def __init__(self, function: Callable[..., Any], task: str) -> None:
        self._task = task
        self.signature = Signature(function, task)
        self._strict = self._arguments_decoder(forbid_unknown_fields=True)
        self._stored = self._arguments_decoder(forbid_unknown_fields=False)
        self._names = tuple(self.signature.types)
        self._needs_nothing = not self._names
        self._result = _decoder(self.signature.returns, task, "the return annotation")
        self._takes_none = _allows_none(self._result)

    def _arguments_decoder(self, *, forbid_unknown_fields: bool) -> msgspec.json.Decoder[Any]:
        fields = [(name, kind | msgspec.UnsetType if _can_union(kind) else kind, UNSET)
                  for name, kind in self.signature.types.items()]  # fmt: skip
        try:
            model = msgspec.defstruct(
                "Arguments", fields, forbid_unknown_fields=forbid_unknown_fields, kw_only=True
            )
            return msgspec.json.Decoder(model, dec_hook=_from_plain)
        except TypeError as error:
            raise InvalidOption(
                f"the parameters of task {self._task!r} cannot be checked: {error}"
            ) from error

    def encode_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, deterministic: bool = False
    ) -> str:
        """The call's arguments as a JSON object by parameter name.

        ``deterministic`` orders sets and keys, so that equal arguments are equal text.

        Raises:
            InvalidArguments: they do not fit the signature or would not come back equal.
            ArgumentsTooLarge: over 1 MiB.
        """
        given = self.signature.bind(args, kwargs)
        if not given:
            return "{}"
        try:
            encoded = _encode(given, _ORDERED if deterministic else _ENCODER, LEVELS_MAX + 1)
        except _UNENCODABLE:
            raise self._unencodable(given) from None
        if len(encoded) > ARGUMENTS_MAX:
            self._check_size(encoded)
        decoded = self._decode_strictly(given, encoded)
        for name, value in given.items():
            if not _equal(getattr(decoded, name), value):
                raise self._changed(name, value, getattr(decoded, name))
        return encoded.decode()

    def edit_arguments(self, stored: Mapping[str, Any], changes: object) -> str:
        """Stored arguments with other values for some of them, checked like those of a call.

        What is stored and the task no longer has is left out.

        Raises:
            InvalidArguments: naming the argument.
            ArgumentsTooLarge: over 1 MiB.
        """
        if not isinstance(changes, Mapping):
            raise InvalidArguments(
                f"arguments must be a mapping of names to values, got {_type_name(changes)}"
            )
        given = dict(changes)
        for name in given:
            if name not in self.signature.types:
                raise InvalidArguments(f"task {self._task!r} has no argument {name!a}")
        kept = {name: value for name, value in stored.items() if name in self.signature.types}
        try:
            whole = kept | msgspec.json.decode(_encode(given, levels=LEVELS_MAX + 1))
            encoded = _encode(whole, levels=LEVELS_MAX + 1)
        except _UNENCODABLE:
            raise self._unencodable(kept | given) from None
        self._check_size(encoded)
        decoded = self._decode_strictly(whole, encoded)
        for name, value in given.items():
            if not _equal(getattr(decoded, name), value):
                raise self._changed(name, value, getattr(decoded, name))
        self.signature.call_arguments({name: getattr(decoded, name) for name in whole})
        return encoded.decode()

    def _check_size(self, encoded: bytes) -> None:
        if len(encoded) > ARGUMENTS_MAX:
            raise ArgumentsTooLarge(
                f"the arguments of task {self._task!r} take {len(encoded)} bytes as JSON; at most "
                f"{ARGUMENTS_MAX} fit: store the data elsewhere and pass a reference"
            )

    def _decode_strictly(self, given: dict[str, Any], encoded: bytes) -> Any:
        try:
            return self._strict.decode(encoded)
        except (msgspec.ValidationError, RecursionError) as error:
            # ``from None``: msgspec's own message may hold a value.
            raise self._unfitting(given, str(error)) from None

    def decode_arguments(self, stored: str | None) -> tuple[list[Any], dict[str, Any]]:
        """Stored arguments as ``(args, kwargs)``, typed.

        Raises:
            InvalidArguments: the task's signature has changed since and they no longer fit.
        """
        if stored is None:
            return ([], {}) if self._needs_nothing else self.signature.call_arguments({})
        try:
            model = self._stored.decode(stored)
        except (msgspec.ValidationError, RecursionError) as error:
            place = _PLACE.search(str(error))
            known = place is not None and place[1] in self._names  # else it may be part of a value
            raise InvalidArguments(
                f"the stored arguments no longer fit task {self._task!r}"
                + (f": argument {place[1]!r}" if place and known else "")
            ) from None
        values = {}
        for name in self._names:
            value = getattr(model, name)
            if value is not UNSET:
                values[name] = value
        return self.signature.call_arguments(values)

    def encode_result(self, value: Any) -> str | None:
        """A job's result as JSON; ``None`` for None.

        Raises:
            InvalidResult: it does not fit the return annotation, would not come back equal, or
                is over 16 MiB.
        """
        if value is None:
            if self._takes_none:
                return None
            encoded = b"null"
        else:
            try:
                encoded = _encode(value)
            except _UNENCODABLE as error:
                raise InvalidResult(
                    f"task {self._task!r} returned {_one(value)}, which cannot be stored "
                    f"as JSON{_why_unencodable(error)}; return plain values, dataclasses or "
                    f"msgspec Structs{_instead(value)}"
                ) from None
        if encoded.startswith(_FILE_MARK):
            raise InvalidResult(
                f"task {self._task!r} returned a mapping that looks like a stored file; return a "
                "File, or give its first key another name"
            )
        if len(encoded) > RESULT_MAX:
            raise InvalidResult(
                f"task {self._task!r} returned {len(encoded)} bytes as JSON; at most {RESULT_MAX} "
                "fit: write a file and return its path"
            )
        try:
            decoded = self._result.decode(encoded)
        except (msgspec.ValidationError, RecursionError) as error:
            why = f"what its annotation does not allow{_without_values(error)}"
            if isinstance(value, float) and not math.isfinite(value):
                why = "NaN or infinity, which cannot be stored as JSON"
            raise InvalidResult(f"task {self._task!r} returned {why}") from None
        if not _equal(decoded, value):
            why = _why_changed(value, decoded, self.signature.returns, "annotate the return type")
            raise InvalidResult(f"task {self._task!r} returned what cannot be kept: {why}")
        return encoded.decode()

    def decode_result(self, stored: str | None) -> Any:
        """A stored result, typed; plain JSON values where the annotation no longer fits it."""
        if stored is None:
            return None
        try:
            return self._result.decode(stored)
        except msgspec.ValidationError:
            return msgspec.json.decode(stored)

    def _unencodable(self, given: dict[str, Any]) -> InvalidArguments:
        for name, value in given.items():
            try:
                _encode(value)
            except _UNENCODABLE as error:
                why = _why_unencodable(error) + _instead(value)
                return self._argument(name, f"{_one(value)} cannot be stored as JSON{why}")
        return InvalidArguments(f"the arguments of task {self._task!r} cannot be stored as JSON")

    def _unfitting(self, given: dict[str, Any], message: str) -> InvalidArguments:
        place = _PLACE.search(message)
        if place is None or place[1] not in given:
            return InvalidArguments(f"the arguments of task {self._task!r} do not fit its types")
        name = place[1]
        value = given[name]
        if isinstance(value, float) and not math.isfinite(value):
            return self._argument(name, "NaN and infinity cannot be stored as JSON")
        why = _without_values(message)
        return self._argument(name, f"expected {_show(self.signature.types[name])}{why}")

    def _changed(self, name: str, value: Any, decoded: Any) -> InvalidArguments:
        kind = self.signature.types[name]
        why = _why_changed(value, decoded, kind, "annotate the parameter with its type")
        return self._argument(name, why)

    def _argument(self, name: str, what: str) -> InvalidArguments:
        return InvalidArguments(f"argument {name!r} of task {self._task!r}: {what}")


def decode_plain(stored: str | None) -> Any:
    """Stored JSON as plain values; ``None`` for nothing stored."""
    return None if stored is None else msgspec.json.decode(stored)


def _to_plain(value: Any) -> Any:
    """What msgspec cannot encode by itself, as something that it can."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, str):  # a subclass of str
        return str.__str__(value)
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, int):  # msgspec asks only about those it cannot hold
        raise OverflowError("an integer beyond 64 bits")
    if isinstance(value, numbers.Integral):  # numpy's integers, among others
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def _from_plain(kind: type, value: Any) -> Any:
    """The other way, for annotations that msgspec does not know."""
    origin = getattr(kind, "__origin__", kind)
    if isinstance(origin, type):
        if issubclass(origin, (PurePath, str)) and isinstance(value, str):
            return origin(value)
        if issubclass(origin, deque) and isinstance(value, list):
            (item,) = get_args(kind) or (Any,)
            return origin(
                msgspec.convert(value, list[item], dec_hook=_from_plain, str_keys=True)  # type: ignore[valid-type]
            )
        if issubclass(origin, numbers.Integral) and isinstance(value, int):
            return origin(value)  # type: ignore[call-arg]
        if issubclass(origin, numbers.Real) and isinstance(value, (int, float)):
            return origin(value)  # type: ignore[call-arg]
    raise TypeError(f"{_show(kind)} cannot be read from JSON")


def _encode(
    value: Any, encoder: msgspec.json.Encoder | None = None, levels: int = LEVELS_MAX
) -> bytes:
    """``value`` as JSON, nested at most so deep.

    As msgpack too, 0.1 µs, which refuses what JSON holds but neither the pipes of workers nor the
    JSON functions of SQLite: integers beyond 64 bits.
    """
    _NARROW.encode(value)
    encoded = (encoder or _ENCODER).encode(value)
    if len(encoded) > _SHALLOW_BYTES and too_deep(encoded, levels):
        raise RecursionError  # what the encoder raises far deeper
    return encoded


def ordered_json(value: Any) -> bytes:
    """``value`` as in arguments that are encoded deterministically."""
    return _encode(value, _ORDERED)


_NARROW = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_ENCODER = msgspec.json.Encoder(enc_hook=_to_plain)
_ORDERED = msgspec.json.Encoder(enc_hook=_to_plain, order="deterministic")


def _decoder(kind: Any, task: str, what: str) -> msgspec.json.Decoder[Any]:
    try:
        return msgspec.json.Decoder(kind, dec_hook=_from_plain)
    except TypeError as error:
        raise InvalidOption(f"{what} of task {task!r} cannot be checked: {error}") from error


def _allows_none(decoder: msgspec.json.Decoder[Any]) -> bool:
    try:
        return decoder.decode(b"null") is None
    except msgspec.ValidationError:
        return False


def _can_union(kind: Any) -> bool:
    try:
        return bool(kind | msgspec.UnsetType)  # asks whether the operator exists
    except TypeError:
        return False


def _equal(decoded: Any, given: Any) -> bool:
    try:
        return bool(decoded == given) or _alike(decoded, given)
    except Exception:  # a user's __eq__ may raise anything; an array's truth is ambiguous
        return False


def _alike(decoded: Any, given: Any) -> bool:
    """Equality part by part, where datetimes are equal that are the same instant.

    In the hours when its clocks change, Python calls a zone's datetime unequal to every one of
    another zone (PEP 495), and from JSON it comes back with a fixed offset.
    """
    if type(decoded) is not type(given):
        return False
    if isinstance(given, datetime):
        return bool(decoded - given == timedelta(0))
    if isinstance(given, (list, tuple, deque)):
        return len(decoded) == len(given) and all(map(_alike, decoded, given))
    if isinstance(given, dict):
        return decoded.keys() == given.keys() and all(_alike(decoded[k], given[k]) for k in given)
    fields = getattr(given, "__struct_fields__", None) or getattr(
        given, "__dataclass_fields__", None
    )
    if fields:
        return all(_alike(getattr(decoded, name), getattr(given, name)) for name in fields)
    return bool(decoded == given)


def _why_changed(given: Any, decoded: Any, kind: Any, cure: str) -> str:
    if kind is not Any and type(decoded) is not type(given):
        return f"expected {_show(kind)}, got {_type_name(given)}"
    if kind is not Any:
        cure = "give values of the very types that it names"
    return (
        f"{_one(given)} would not come back equal from JSON as {_show(kind)}; {cure}, "
        "and no NaN and no keys other than str"
    )


def _type_name(value: Any) -> str:
    return type(value).__name__


def _one(value: Any) -> str:
    name = _type_name(value)
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _instead(value: Any) -> str:
    """What to store in place of a Pydantic model."""
    if not hasattr(type(value), "model_dump"):
        return ""
    return "; of a Pydantic model store .model_dump(mode='json'), annotated as a dict"


def _show(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _without_values(error: object) -> str:
    found = _WITHOUT_VALUES.match(str(error))
    return f" ({found[0]})".replace("`", "") if found else ""


def _why_unencodable(error: BaseException) -> str:
    if isinstance(error, UnicodeError):
        return " (unpaired surrogates)"
    if isinstance(error, OverflowError):
        return " (an integer beyond 64 bits)"
    if isinstance(error, RecursionError):
        return f" (nested too deeply: at most {LEVELS_MAX} levels fit)"
    return ""
