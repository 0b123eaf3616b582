"""Collections that other programs write, here plain pymongo, on MongoDB."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE

import coord
from coord import TableEventKind as Kind

MONGODB = os.environ.get("COORD_TEST_MONGODB_URI")
pymongo = pytest.importorskip("pymongo")
bson = pytest.importorskip("bson")
pytestmark = pytest.mark.skipif(MONGODB is None, reason="COORD_TEST_MONGODB_URI is not set")

UTC = dt.timezone.utc


@pytest.fixture
def client() -> Iterator[coord.Client]:
    """A client of the replica set."""
    assert MONGODB is not None
    with coord.connect(MONGODB, name="one") as client:
        yield client


@pytest.fixture
def collection() -> Iterator[Any]:
    """An empty collection as pymongo has it."""
    with pymongo.MongoClient(MONGODB, tz_aware=True) as server:
        collection = server["coord_test_pymongo"][f"c{uuid.uuid4().hex}"]
        yield collection
        collection.drop()


@pytest.fixture
def table(client: coord.Client, collection: Any) -> coord.Table[dict[str, Any]]:
    """The same as a table."""
    return client.table(collection.full_name)


DOCUMENT = {
    "text": "x",
    "number": 5,
    "long": bson.Int64(5),
    "longer": bson.Int64(2**40),
    "double": 5.0,
    "truth": True,
    "nothing": None,
    "date": dt.datetime(2026, 1, 1, 12, 0, 0, 5000, UTC),
    "bytes": b"abc",
    "binary": bson.Binary(b"abc", 130),
    "uuid": bson.Binary.from_uuid(uuid.UUID(int=7)),
    "id": bson.ObjectId(),
    "decimal": bson.Decimal128("1.10"),
    "pattern": bson.Regex("^a", "i"),
    "timestamp": bson.Timestamp(5, 6),
    "code": bson.Code("f()"),
    "scoped": bson.Code("f(x)", {"x": 1}),
    "least": bson.MinKey(),
    "most": bson.MaxKey(),
    "array": [1, [2.5, {"a": None}]],
    "document": {"b": 1, "a": {"c": []}},
}


def test_what_pymongo_wrote_is_read_and_written_back_the_same(
    collection: Any, table: coord.Table[dict[str, Any]]
) -> None:
    raw = collection.with_options(
        codec_options=bson.codec_options.CodecOptions(document_class=bson.raw_bson.RawBSONDocument)
    )
    key = collection.insert_one(DOCUMENT.copy()).inserted_id
    before = raw.find_one({"_id": key}).raw
    stored = table.get(key)
    assert stored.key == key
    assert stored.document == {"_id": key, **DOCUMENT, "uuid": uuid.UUID(int=7)}
    assert type(stored.document["long"]) is bson.Int64
    table.replace(key, stored.document, stored.revision)
    assert raw.find_one({"_id": key}).raw == before
    # The other way round.
    table.insert("mine", stored.document | {"_id": "mine"})
    theirs = collection.find_one({"_id": "mine"})
    assert theirs == {"_id": "mine", **DOCUMENT}
    assert [type(theirs[name]) for name in DOCUMENT] == [type(value) for value in DOCUMENT.values()]


@pytest.mark.parametrize("key", [1, 1.0, 1.5, bson.Int64(2), "x", b"x", {"a": 1, "b": [1]}, True, None, bson.Decimal128("1")], ids=repr)  # fmt: skip
def test_keys_that_others_have_chosen(collection: Any, table: coord.Table[dict[str, Any]], key: Any) -> None:
    collection.insert_one({"_id": key, "n": 1})
    [stored] = table.find()
    assert stored.key == (key if not isinstance(key, float) or key != int(key) else int(key))
    assert stored.document["_id"] == key
    assert table.count({"_id": key}) == 1


def test_a_change_by_pymongo_is_a_conflict_and_a_change(collection: Any, table: coord.Table[dict[str, Any]]) -> None:
    collection.insert_one({"_id": "a", "n": 1})
    with table.watch() as watch, table.log() as log:
        for kind, document in ((Kind.INIT, None), (Kind.INIT_APPLY, {"_id": "a", "n": 1}), (Kind.INIT_DONE, None)):
            delivery = watch.next(PATIENCE)
            delivery.done()
            assert (delivery.kind, delivery.document) == (kind, document)
        stored = table.get("a")
        collection.update_one({"_id": "a"}, {"$inc": {"n": 1}})
        with pytest.raises(coord.Conflict):
            table.replace("a", {"n": 5}, stored.revision)
        delivery = watch.next(PATIENCE)
        delivery.done()
        assert (delivery.kind, delivery.document) == (Kind.APPLY, {"_id": "a", "n": 2})
        entry = log.next(PATIENCE)
        assert (entry.operation, entry.changed_fields, entry.source) == (coord.LogOperation.UPDATE, ("n",), None)
        collection.delete_one({"_id": "a"})
        delivery = watch.next(PATIENCE)
        delivery.done()
        assert (delivery.kind, delivery.key) == (Kind.DELETE, "a")


def test_what_coord_keeps_with_a_document_is_not_shown(
    client: coord.Client, collection: Any, table: coord.Table[dict[str, Any]]
) -> None:
    with client.lock(f"l{uuid.uuid4().hex}").acquire() as held:
        table.insert("a", {"n": 1}, fence=held)
        assert set(collection.find_one({"_id": "a"})) >= {"_id", "n", "_fence"}
        assert table.get("a").document == {"_id": "a", "n": 1}
        with pytest.raises(coord.InvalidArgument, match="_fence"):
            table.update("a", {"$set": {"_fence": {}}})
        with pytest.raises(coord.InvalidArgument, match="_fence"):
            table.insert("b", {"_fence": {}})


def test_a_copy_follows_pymongo(client: coord.Client, collection: Any, table: coord.Table[dict[str, Any]]) -> None:
    collection.insert_many([{"_id": n, "n": n} for n in range(100)])
    with client.table(table.name, cached=True) as copy, table.log() as log:
        assert copy.count() == 100
        collection.update_many({}, {"$inc": {"n": 1000}})
        position = [log.next(PATIENCE) for _ in range(100)][-1].position
        copy.wait_until(position, PATIENCE)
        assert sorted(stored.document["n"] for stored in copy.find()) == list(range(1000, 1100))
