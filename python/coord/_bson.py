"""The types of `coord.bson` for those who have no pymongo, and those that pymongo has not."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from coord import _native
from coord._types import EPOCH, MILLISECOND

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any


class Int64(int):
    """An int that a document keeps in 64 bits, also where 32 would do."""

    __slots__ = ()


class Symbol(str):
    """A symbol: a deprecated kind of text."""

    __slots__ = ()


@dataclass(frozen=True)
class Undefined:
    """The deprecated value `undefined`."""


@dataclass(frozen=True)
class DBPointer:
    """A deprecated pointer to a document of another collection.

    Attributes:
        namespace: The collection, as `database.collection`.
        id: The document's key, 12 bytes.
    """

    namespace: str
    id: bytes


class ObjectId:
    """An id of 12 bytes: a date in seconds, and what makes it unique. Without an argument, a new one."""

    __slots__ = ("_bytes",)
    _bytes: bytes

    def __init__(self, oid: str | bytes | ObjectId | None = None) -> None:
        if oid is None:
            value = int(time.time()).to_bytes(4, "big") + os.urandom(8)
        elif isinstance(oid, ObjectId):
            value = oid._bytes
        elif isinstance(oid, bytes):
            value = oid
        else:
            value = bytes.fromhex(oid)
        if len(value) != 12:
            raise ValueError(f"an ObjectId has 12 bytes, or 24 hexadecimal digits, not {oid!r}")
        object.__setattr__(self, "_bytes", value)

    @property
    def binary(self) -> bytes:
        """Its 12 bytes."""
        return self._bytes

    @property
    def generation_time(self) -> datetime:
        """When it was made, by the clock of who made it."""
        return EPOCH + timedelta(seconds=int.from_bytes(self._bytes[:4], "big"))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an ObjectId cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectId) and self._bytes == other._bytes

    def __lt__(self, other: ObjectId) -> bool:
        return self._bytes < other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __str__(self) -> str:
        return self._bytes.hex()

    def __repr__(self) -> str:
        return f"ObjectId('{self}')"


class Decimal128:
    """A decimal number of up to 34 digits, as IEEE 754 has it; 1.0 and 1.00 are different ones.

    Args:
        value: A text, an int or a `decimal.Decimal` that needs no more digits.
    """

    __slots__ = ("_bid",)
    _bid: bytes

    def __init__(self, value: str | int | Decimal) -> None:
        object.__setattr__(self, "_bid", _native.decimal128(str(value)))

    @classmethod
    def from_bid(cls, value: bytes) -> Self:
        """The number of these 16 bytes, in BSON's form."""
        if len(value) != 16:
            raise ValueError(f"a Decimal128 has 16 bytes, not {len(value)}")
        made = object.__new__(cls)
        object.__setattr__(made, "_bid", bytes(value))
        return made

    @property
    def bid(self) -> bytes:
        """Its 16 bytes, in BSON's form."""
        return self._bid

    def to_decimal(self) -> Decimal:
        """The same as a `decimal.Decimal`."""
        return Decimal(str(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Decimal128 cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bid, (self._bid,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decimal128) and self._bid == other._bid

    def __hash__(self) -> int:
        return hash(self._bid)

    def __str__(self) -> str:
        return _native.decimal128_text(self._bid)

    def __repr__(self) -> str:
        return f"Decimal128('{self}')"


class Binary(bytes):
    """Bytes with a subtype: 0 to 255; those from 128 on are free for users.

    Attributes:
        subtype: The subtype.
    """

    _subtype: int

    def __new__(cls, data: bytes, subtype: int = 0) -> Self:
        if not 0 <= subtype <= 255:
            raise ValueError(f"a subtype is from 0 to 255, not {subtype}")
        made = super().__new__(cls, data)
        made._subtype = subtype
        return made

    @property
    def subtype(self) -> int:
        """The subtype."""
        return self._subtype

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (bytes(self), self._subtype)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Binary):
            return self._subtype == other._subtype and bytes(self) == bytes(other)
        # As different from bytes as it is in the store.
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((bytes(self), self._subtype))

    def __repr__(self) -> str:
        return f"Binary({bytes(self)!r}, {self._subtype})"


_FLAGS = {"i": re.IGNORECASE, "l": re.LOCALE, "m": re.MULTILINE, "s": re.DOTALL, "u": re.UNICODE, "x": re.VERBOSE}


@dataclass(frozen=True)
class Regex:
    """A regular expression as data; it may be one that Python does not know.

    Attributes:
        pattern: The pattern.
        flags: Those of `re`, as a number; they may be given as letters.
    """

    pattern: str
    flags: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.flags, str):
            flags = 0
            for letter in self.flags:
                flags |= _FLAGS.get(letter, 0)
            object.__setattr__(self, "flags", int(flags))

    def try_compile(self) -> re.Pattern[str]:
        """The same for `re`; raises `re.error` if that does not know it."""
        return re.compile(self.pattern, self.flags)

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r}, {self.flags!r})"


@dataclass(frozen=True, order=True)
class Timestamp:
    """A date of the server's own: seconds since 1970, and a number that grows within a second.

    Attributes:
        time: The seconds.
        inc: The number.
    """

    time: int
    inc: int

    def __post_init__(self) -> None:
        if isinstance(self.time, datetime):
            object.__setattr__(self, "time", (self.time - EPOCH) // timedelta(seconds=1))
        if not (0 <= self.time < 2**32 and 0 <= self.inc < 2**32):
            raise ValueError("each part of a Timestamp is a number from 0 to 4294967295")

    def as_datetime(self) -> datetime:
        """Its second as a date in UTC."""
        return EPOCH + timedelta(seconds=self.time)

    def __repr__(self) -> str:
        return f"Timestamp({self.time}, {self.inc})"


@dataclass(frozen=True, order=True)
class DatetimeMS:
    """A date as a number of milliseconds since 1970, for those that no `datetime` can be."""

    _value: int

    def __post_init__(self) -> None:
        if isinstance(self._value, datetime):
            object.__setattr__(self, "_value", (self._value - EPOCH) // MILLISECOND)
        if not -(2**63) <= self._value < 2**63:
            raise ValueError("a date has at most 64 bits")

    def as_datetime(self) -> datetime:
        """The same as a `datetime` in UTC; raises `OverflowError` if there is none."""
        return EPOCH + self._value * MILLISECOND

    def __int__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"DatetimeMS({self._value})"


class Code(str):
    """JavaScript code, with the variables that it sees.

    Attributes:
        scope: The variables; None if there is no place for any.
    """

    _scope: dict[str, Any] | None

    def __new__(cls, code: str, scope: dict[str, Any] | None = None) -> Self:
        made = super().__new__(cls, code)
        made._scope = None if scope is None else dict(scope)
        return made

    @property
    def scope(self) -> dict[str, Any] | None:
        """The variables; None if there is no place for any."""
        return self._scope

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self._scope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and str.__eq__(self, other) and self._scope == other._scope

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Code({str(self)!r}, {self._scope!r})"


@dataclass(frozen=True)
class MinKey:
    """What is less than every other value."""


@dataclass(frozen=True)
class MaxKey:
    """What is greater than every other value."""
