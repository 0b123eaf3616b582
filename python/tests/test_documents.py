"""What goes into a document comes out of it, on every store; and what cannot is refused with the place named."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pickle
import re
import subprocess
import sys
import types
import typing
import uuid
from typing import Any

import pytest

import coord
from coord import _bson, bson

UTC = dt.timezone.utc


def back(client: coord.Client, value: Any) -> Any:
    """What becomes of a value in a document."""
    table = client.table("t")
    table.put("k", {"value": value})
    return table.get("k").document["value"]


EXACT = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31 - 1,
    2**31,
    -(2**31),
    -(2**31) - 1,
    2**63 - 1,
    -(2**63),
    0.0,
    1.5,
    5e-324,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    "",
    "text",
    "zero \0 in it",
    "Ärger 🎈",
    b"",
    b"\0\xff",
    [],
    {},
    [1, "a", [2.0, [None, {}]], {"b": [b"c"]}],
    {"": 1, "a": {"b": {"c": [True]}}},
    dt.datetime(2026, 2, 28, 23, 59, 59, 999000, UTC),
    dt.datetime(1, 1, 1, tzinfo=UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 1000, UTC),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    bson.ObjectId("0123456789abcdef01234567"),
    bson.Decimal128("1.10"),
    bson.Decimal128("-0E-6176"),
    bson.Decimal128("Infinity"),
    bson.Regex("^a.*b$", "im"),
    bson.Timestamp(1, 2),
    bson.Timestamp(2**32 - 1, 2**32 - 1),
    bson.Binary(b"abc", 128),
    bson.Binary(b"0123456789abcdef", 3),
    bson.Binary(b"short", 4),
    bson.Int64(5),
    bson.Code("f()"),
    bson.Code("f(x)", {"x": 1}),
    bson.MinKey(),
    bson.MaxKey(),
    bson.DatetimeMS(2**62),
    bson.DatetimeMS(-(2**63)),
    bson.Symbol("s"),
    bson.Undefined(),
    bson.DBPointer("db.c", b"0123456789ab"),
]


@pytest.mark.parametrize("value", EXACT, ids=repr)
def test_a_value_comes_out_as_it_went_in(value: Any) -> None:
    with coord.connect("memory:") as client:
        came = back(client, value)
        assert came == value
        assert type(came) is type(value)


def test_all_of_them_come_out_of_every_store(client: coord.Client) -> None:
    # A deprecated pointer cannot be in an array of MongoDB's tests; it has no other difference to the rest.
    document = {f"f{index}": value for index, value in enumerate(EXACT)}
    table = client.table("t-all")
    table.insert("k", document)
    stored = table.get("k").document
    assert stored == {"_id": "k", **document}
    assert [type(stored[name]) for name in document] == [type(value) for value in document.values()]
    # Written again as it was read, it is the same: no number has become a longer or a shorter one.
    revision = table.get("k").revision
    assert table.replace("k", stored).document == stored
    if not client.location.startswith(("memory", "sqlite")):
        assert table.get("k").revision == revision
    table.drop()


def test_numbers_that_are_none() -> None:
    with coord.connect("memory:") as client:
        assert math.isnan(back(client, math.nan))
        assert math.copysign(1, back(client, -0.0)) == -1
        assert str(back(client, bson.Decimal128("NaN"))) == "NaN"


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):
    A = "a"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 2.0


class Indexed:
    def __index__(self) -> int:
        return 7


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ((1, (2,)), [1, [2]]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(int, a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Word.A, "a"),
        (Text("a"), "a"),
        (Point(1), {"x": 1, "y": 2.0}),
        ([Point(1)], [{"x": 1, "y": 2.0}]),
        (Indexed(), 7),
        (bson.Int64(2**40), 2**40),
        (bson.Binary(b"a", 0), b"a"),
        (re.compile("^a", re.IGNORECASE), bson.Regex("^a", "i")),
        (dt.datetime(2026, 1, 1, 1, 0, 0, 1999, dt.timezone(dt.timedelta(hours=1))), dt.datetime(2026, 1, 1, 0, 0, 0, 1000, UTC)),
        (bson.DatetimeMS(1), dt.datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)),
    ],
    ids=repr,
)  # fmt: skip
def test_what_stands_for_something_else(value: Any, wanted: Any) -> None:
    with coord.connect("memory:") as client:
        came = back(client, value)
        assert came == wanted
        assert type(came) is type(wanted)


def inside_itself() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (10**5000, "64 bits"),
        (dt.datetime(2026, 1, 1), "time zone"),
        (dt.date(2026, 1, 1), "datetime"),
        (dt.timedelta(1), "timedelta"),
        (decimal.Decimal("1.1"), "Decimal128"),
        ({1, 2}, "set"),
        (object(), "object"),
        (len, "builtin_function"),
        (Point, "type"),
        (1j, "complex"),
        (re.compile(b"a"), "bytes"),
        ("\ud800", "surrogate"),
        (inside_itself(), "deep"),
        (deep(200), "deep"),
        ({1: 2}, "str"),
        ({"a\0": 2}, "zero"),
        ({"\ud800": 2}, "surrogate"),
        (bson.Regex("a\0b"), "zero"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_is_refused_with_its_place(value: Any, words: str) -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        with pytest.raises(coord.InvalidArgument, match=words) as failure:
            table.insert("k", {"a": {"b": [0, value]}})
        assert "'a.b.1" in str(failure.value)
        assert len(str(failure.value)) < 1000
        assert not table.contains("k")


def test_the_deepest_and_the_largest() -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        table.insert("deep", deep(100))
        with pytest.raises(coord.InvalidArgument, match="100"):
            table.insert("deeper", deep(102))
        most = 16 * 1024 * 1024
        # What BSON needs around a text: the document's frame, its key, and the field.
        frame = 5 + (1 + 4 + 4 + 2) + (1 + 2 + 4 + 1)
        table.put("k", {"a": "x" * (most - frame)})
        for value in ("x" * (most - frame + 1), "x" * most * 2, b"x" * most * 2, [b"x" * 2**20] * 20):
            with pytest.raises(coord.InvalidArgument, match=str(most)):
                table.put("k", {"a": value})
        # Far more than any memory holds, if it were written out.
        many: Any = "x" * 10_000
        for _ in range(50):
            many = [many, many]
        with pytest.raises(coord.InvalidArgument, match=str(most)):
            table.put("k", {"a": many})


KEYS = [
    "text",
    "",
    0,
    42,
    -(2**63),
    b"bytes",
    uuid.UUID(int=1),
    dt.datetime(2026, 1, 1, tzinfo=UTC),
    bson.ObjectId("0123456789abcdef01234567"),
    {"a": 1, "b": {"c": "x", "d": [][:0] or None}},
    {"b": 1, "a": 2},
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys(key: Any) -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        table.insert(key, {"n": 1})
        assert table.contains(key)
        [stored] = table.find()
        assert stored.key == key
        assert type(stored.key) is type(key)
        assert stored.document == {"_id": key, "n": 1}
        assert table.get(stored.key) == stored
        table.delete(key)


def test_the_order_of_a_compound_key_counts_and_the_width_of_a_number_does_not() -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        table.insert({"a": 1, "b": 2}, {})
        table.insert({"b": 2, "a": 1}, {})
        with pytest.raises(coord.AlreadyExists):
            table.insert({"a": bson.Int64(1), "b": 2}, {})
        assert table.count() == 2


@pytest.mark.parametrize(
    "key", [None, True, 1.5, [1], object(), {1}, {"$a": 1}, {"a": [1]}, {1: 2}, "x" * 2000, 2**64, dt.datetime(2026, 1, 1)]
)  # fmt: skip
def test_what_is_no_key(key: Any) -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        for call in (table.get, table.contains, table.delete):
            with pytest.raises(coord.InvalidArgument):
                call(key)
        with pytest.raises(coord.InvalidArgument):
            table.insert(key, {})


@pytest.mark.parametrize("document", [None, 1, "a", [], [1], b"a", dt.datetime(2026, 1, 1, tzinfo=UTC), Point])
def test_what_is_no_document(document: Any) -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        for call in (table.insert, table.put, table.replace, table.locate):
            with pytest.raises(coord.InvalidArgument):
                call("k", document)
        for call in (table.find, table.cursor, table.count, table.delete_many, table.watch):
            if document is not None or call == table.delete_many:
                with pytest.raises(coord.InvalidArgument):
                    call(document)
        if document != []:
            for call in (table.update, table.upsert):
                with pytest.raises(coord.InvalidArgument):
                    call("k", document)
        with pytest.raises(coord.InvalidArgument):
            table.update_many({}, None)  # type: ignore[arg-type]


def test_a_value_that_changes_what_it_is_in() -> None:
    outer: dict[str, Any] = {"a": None, "b": 1}

    class Sly(collections.UserDict[str, Any]):
        def __iter__(self) -> Any:
            outer.clear()
            return super().__iter__()

    outer["a"] = Sly(x=1)
    with coord.connect("memory:") as client:
        assert back(client, outer) == {"a": {"x": 1}, "b": 1}


def test_what_a_value_raises_comes_through() -> None:
    class Broken(collections.UserDict[str, Any]):
        def __iter__(self) -> Any:
            raise ZeroDivisionError

    with coord.connect("memory:") as client, pytest.raises(ZeroDivisionError):
        back(client, Broken(x=1))


# --- coord.bson ---------------------------------------------------------------------------------------------------

OWN = [
    _bson.ObjectId("0123456789abcdef01234567"),
    _bson.Decimal128("1.10"),
    _bson.Regex("^a.*b$", "im"),
    _bson.Timestamp(1, 2),
    _bson.Binary(b"abc", 128),
    _bson.Int64(5),
    _bson.Code("f()"),
    _bson.Code("f(x)", {"x": 1}),
    _bson.MinKey(),
    _bson.MaxKey(),
    _bson.DatetimeMS(2**62),
    _bson.Symbol("s"),
    _bson.Undefined(),
    _bson.DBPointer("db.c", b"0123456789ab"),
]


@pytest.mark.parametrize("value", OWN, ids=repr)
def test_our_own_types_are_values(value: Any) -> None:
    assert eval(repr(value), vars(_bson)) == value or isinstance(value, str)
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value
        assert type(other) is type(value)
    assert (value != copy.copy(value)) is False
    assert value != object()
    if type(value).__name__ != "Code":
        assert hash(value) == hash(copy.copy(value))
    with coord.connect("memory:") as client:
        came = back(client, value)
        assert repr(came).replace("'", "") == repr(getattr(bson, type(value).__name__)(*arguments(value))).replace(
            "'", ""
        )


def arguments(value: Any) -> tuple[Any, ...]:
    """What makes the same value of pymongo's."""
    match value:
        case _bson.ObjectId() | _bson.Decimal128():
            return (str(value),)
        case _bson.Regex():
            return value.pattern, value.flags
        case _bson.Timestamp():
            return value.time, value.inc
        case _bson.Binary():
            return bytes(value), value.subtype
        case _bson.Code():
            return str(value), value.scope
        case _bson.DatetimeMS() | _bson.Int64():
            return (int(value),)
        case _bson.DBPointer():
            return value.namespace, value.id
        case _bson.Symbol():
            return (str(value),)
        case _:
            return ()


def test_our_own_types_are_as_pymongo_s() -> None:
    ours = _bson.ObjectId()
    assert ours != _bson.ObjectId()
    assert ours < _bson.ObjectId("f" * 24)
    assert abs(ours.generation_time - dt.datetime.now(UTC)) < dt.timedelta(hours=1)
    assert _bson.ObjectId(ours.binary) == ours == _bson.ObjectId(ours)
    for wrong in ("", "0" * 23, "x" * 24, b"1"):
        with pytest.raises(ValueError, match=r"ObjectId|hexadecimal"):
            _bson.ObjectId(wrong)
    assert _bson.Decimal128(decimal.Decimal("1.10")).to_decimal() == decimal.Decimal("1.10")
    assert _bson.Decimal128("1.0") != _bson.Decimal128("1.00")
    assert _bson.Decimal128.from_bid(_bson.Decimal128(5).bid) == _bson.Decimal128("5")
    for wrong in ("x", "1" * 35, "1e9999"):
        with pytest.raises(coord.InvalidArgument):
            _bson.Decimal128(wrong)
    with pytest.raises(ValueError, match="16"):
        _bson.Decimal128.from_bid(b"")
    assert _bson.Regex("a", "i").try_compile().match("A")
    assert _bson.Timestamp(dt.datetime(1970, 1, 1, 0, 1, tzinfo=UTC), 1).as_datetime().minute == 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4294967295"):
        _bson.Timestamp(2**32, 0)
    with pytest.raises(ValueError, match="255"):
        _bson.Binary(b"", 256)
    assert _bson.Binary(b"a", 1) != b"a"
    assert int(_bson.DatetimeMS(dt.datetime(1970, 1, 2, tzinfo=UTC))) == 86_400_000  # type: ignore[arg-type]
    assert _bson.DatetimeMS(1).as_datetime() == dt.datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)
    with pytest.raises(ValueError, match="64 bits"):
        _bson.DatetimeMS(2**63)
    for value, name in ((ours, "_bytes"), (_bson.Decimal128(1), "_bid"), (_bson.Timestamp(1, 1), "time")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_without_pymongo_our_own_types_come_out() -> None:
    program = """
import sys
sys.modules["bson"] = None
import coord
from coord import _bson, bson
assert "coord.bson" in sys.modules and bson.ObjectId is _bson.ObjectId
values = [bson.ObjectId(), bson.Decimal128("1.10"), bson.Regex("a", "i"), bson.Timestamp(1, 2), bson.Binary(b"a", 128),
    bson.Int64(5), bson.Code("f", {"x": 1}), bson.MinKey(), bson.MaxKey(), bson.DatetimeMS(2**62)]
with coord.connect("memory:") as client:
    table = client.table("t")
    table.insert("k", {"values": values})
    came = table.get("k").document["values"]
    assert came == values, came
    assert [type(one) for one in came] == [type(one) for one in values]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_with_pymongo_its_types_come_out() -> None:
    bson_of_pymongo = pytest.importorskip("bson")
    assert bson.ObjectId is bson_of_pymongo.ObjectId
    assert typing.get_type_hints(_bson.Timestamp) == {"time": int, "inc": int}
    with coord.connect("memory:") as client:
        reference = bson_of_pymongo.DBRef("c", 1)
        assert back(client, reference) == {"$ref": "c", "$id": 1}
        assert back(client, bson_of_pymongo.SON([("b", 1), ("a", 2)])) == {"b": 1, "a": 2}


def test_pymongo_is_not_imported_before_a_table_needs_it() -> None:
    program = """
import sys, coord
with coord.connect("memory:") as client:
    table = client.table("t")
    table.insert("k", {"a": [1, "x", None, 1.5, b"y", {"z": True}]})
    table.get("k")
    assert "bson" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
