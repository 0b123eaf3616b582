"""How values that Python has not built in cross between documents and Python. Called by the native module alone.

What is written is lowered: to a pair of a kind and of what the kind needs. What is read is lifted: by a function for
each kind. Both know the types of `coord.bson`; lowering knows pymongo's beside our own, whichever is read.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from coord import _bson, bson
from coord._types import EPOCH, MILLISECOND

# In the order in which MongoDB wants them.
_LETTERS = {
    "i": re.IGNORECASE,
    "l": re.LOCALE,
    "m": re.MULTILINE,
    "s": re.DOTALL,
    "u": re.UNICODE,
    "x": re.VERBOSE,
}

_Lower = TypeVar("_Lower", bound=Callable[[Any], tuple[str, object]])


@functools.singledispatch
def lower(value: Any) -> tuple[str, object]:
    """What a value stands for in a document."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "plain", {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        # A model of pydantic, by the names that it is also read with.
        return "plain", dump(value, by_alias=True)
    try:
        return "plain", operator.index(value)
    except TypeError:
        kind = type(value)
        return "refused", f"a {kind.__module__}.{kind.__qualname__} is nothing that a document can hold"


def _lowers(name: str) -> Callable[[_Lower], _Lower]:
    """Registers a function for our own type of this name, and for pymongo's."""

    def register(f: _Lower) -> _Lower:
        for kind in {getattr(_bson, name), getattr(bson, name)}:
            lower.register(kind, f)
        return f

    return register


# Subclasses of what is built in.
lower.register(str, lambda value: ("plain", str.__str__(value)))
lower.register(int, lambda value: ("plain", int.__int__(value)))
lower.register(float, lambda value: ("plain", float.__float__(value)))
lower.register(bytes, lambda value: ("plain", bytes(memoryview(value))))
lower.register(list, lambda value: ("plain", list(value)))
lower.register(tuple, lambda value: ("plain", tuple(value)))
lower.register(Mapping, lambda value: ("plain", dict(value)))
lower.register(enum.Enum, lambda value: ("plain", value.value))
# Other forms of them.
lower.register(bytearray, lambda value: ("plain", bytes(value)))
lower.register(memoryview, lambda value: ("plain", bytes(value)))
lower.register(uuid.UUID, lambda value: ("binary", (value.bytes, 4)))
# What is near to something, but not the same.
lower.register(Decimal, lambda _: ("refused", "a decimal.Decimal is to be a coord.bson.Decimal128"))
lower.register(date, lambda _: ("refused", "a date is to be a datetime with a time zone"))


@lower.register
def _(value: datetime) -> tuple[str, object]:
    if value.utcoffset() is None:
        return "refused", "a datetime without a time zone could mean two moments; give it one, timezone.utc for example"
    return "date", (value - EPOCH) // MILLISECOND


@lower.register(re.Pattern)
def _(value: re.Pattern[Any]) -> tuple[str, object]:
    if not isinstance(value.pattern, str):
        return "refused", "a pattern of bytes is nothing that a document can hold"
    # Every pattern of text is of Unicode, here as there.
    return "regex", (value.pattern, _options(value.flags & ~re.UNICODE))


def _options(flags: int) -> str:
    return "".join(letter for letter, flag in _LETTERS.items() if flags & flag)


_lowers("Int64")(lambda value: ("int64", int.__int__(value)))
_lowers("ObjectId")(lambda value: ("object_id", value.binary))
_lowers("Decimal128")(lambda value: ("decimal128", value.bid))
_lowers("Timestamp")(lambda value: ("timestamp", (value.time, value.inc)))
_lowers("DatetimeMS")(lambda value: ("date", int(value)))
_lowers("Binary")(lambda value: ("binary", (bytes(memoryview(value)), value.subtype)))
_lowers("MinKey")(lambda _: ("min_key", None))
_lowers("MaxKey")(lambda _: ("max_key", None))
lower.register(_bson.Symbol, lambda value: ("symbol", str.__str__(value)))
lower.register(_bson.Undefined, lambda _: ("undefined", None))
lower.register(_bson.DBPointer, lambda value: ("db_pointer", (value.namespace, value.id)))


@_lowers("Regex")
def _(value: Any) -> tuple[str, object]:
    if not isinstance(value.pattern, str):
        return "refused", "a pattern of bytes is nothing that a document can hold"
    return "regex", (value.pattern, _options(value.flags))


@_lowers("Code")
def _(value: Any) -> tuple[str, object]:
    code = str.__str__(value)
    return ("code", code) if value.scope is None else ("code_with_scope", (code, dict(value.scope)))


try:
    from bson.dbref import DBRef
except ImportError:
    pass
else:
    lower.register(DBRef, lambda value: ("plain", dict(value.as_doc())))


def _date(milliseconds: int) -> object:
    try:
        return EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return bson.DatetimeMS(milliseconds)


def _binary(data: bytes, subtype: int) -> object:
    if subtype == 4 and len(data) == 16:
        return uuid.UUID(bytes=data)
    return bson.Binary(data, subtype)


def _regex(pattern: str, options: str) -> object:
    flags = 0
    for letter in options:
        flags |= _LETTERS.get(letter, 0)
    return bson.Regex(pattern, int(flags))


LIFTED: dict[str, Callable[..., object]] = {
    "binary": _binary,
    "code": bson.Code,
    "date": _date,
    "db_pointer": bson.DBPointer,
    "decimal128": bson.Decimal128.from_bid,
    "int64": bson.Int64,
    "max_key": bson.MaxKey,
    "min_key": bson.MinKey,
    "object_id": bson.ObjectId,
    "regex": _regex,
    "symbol": bson.Symbol,
    "timestamp": bson.Timestamp,
    "undefined": bson.Undefined,
}
