"""Types of BSON that Python has nothing for: what documents hold beside str, int, float, bool, bytes, dates and lists.

What comes out of a table is of these classes, and they are pymongo's where pymongo is installed: `coord.bson.ObjectId`
is `bson.ObjectId` then. Else they are the classes that are defined here, with those names, arguments and attributes of
pymongo's that are used most. All can be written to a table, also where both are there.

| in a document | in Python |
|---|---|
| text, truth value, null, double, array, document | `str`, `bool`, `None`, `float`, `list`, `dict` |
| integer of 32 or 64 bits | `int`; one of 64 bits that needs no more than 32 is an `Int64`, which is an int |
| binary | `bytes`; with a subtype `Binary`; a UUID (subtype 4) is a `uuid.UUID` |
| date | `datetime` in UTC; beyond the years 1 to 9999 `DatetimeMS` |
| object id, decimal, regular expression, timestamp, code, least and greatest key | the classes of this module |
| the deprecated symbol, undefined, pointer | `Symbol`, `Undefined`, `DBPointer`, which pymongo has not |

Beside those, a table takes subclasses of them, tuples (as arrays), any `Mapping`, enumerations (their values), integers
of numpy, `re.Pattern`, dataclasses and pydantic models (as documents). A date has milliseconds: what is finer is cut
off. A date without a time zone is refused, since it could mean two moments, and so is an int of more than 64 bits and
a `decimal.Decimal` (see `Decimal128`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord._bson import DBPointer, Symbol, Undefined

if TYPE_CHECKING:
    from coord._bson import (
        Binary,
        Code,
        DatetimeMS,
        Decimal128,
        Int64,
        MaxKey,
        MinKey,
        ObjectId,
        Regex,
        Timestamp,
    )
else:
    try:
        from bson.binary import Binary
        from bson.code import Code
        from bson.datetime_ms import DatetimeMS
        from bson.decimal128 import Decimal128
        from bson.int64 import Int64
        from bson.max_key import MaxKey
        from bson.min_key import MinKey
        from bson.objectid import ObjectId
        from bson.regex import Regex
        from bson.timestamp import Timestamp
    except ImportError:
        # Not there, or another package of that name.
        from coord._bson import (
            Binary,
            Code,
            DatetimeMS,
            Decimal128,
            Int64,
            MaxKey,
            MinKey,
            ObjectId,
            Regex,
            Timestamp,
        )

__all__ = [
    "Binary",
    "Code",
    "DBPointer",
    "DatetimeMS",
    "Decimal128",
    "Int64",
    "MaxKey",
    "MinKey",
    "ObjectId",
    "Regex",
    "Symbol",
    "Timestamp",
    "Undefined",
]
