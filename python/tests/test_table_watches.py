"""Watches, logs and copies of tables on every store."""

from __future__ import annotations

import datetime as dt
import gc
import itertools
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, eventually

import coord
from coord import TableEventKind as Kind

UTC = dt.timezone.utc
Document = dict[str, Any]


@pytest.fixture
def table(client: coord.Client) -> Iterator[coord.Table[Document]]:
    """An empty table."""
    table = client.table(f"t{uuid.uuid4().hex}")
    yield table
    table.drop()


def take(watch: coord.TableWatch[Document]) -> coord.Delivery[Document]:
    """The next delivery, acknowledged."""
    delivery = watch.next(PATIENCE)
    delivery.done()
    with pytest.raises(coord.NotHeld):
        delivery.failed("twice")
    return delivery


def told(watch: coord.TableWatch[Document], count: int) -> list[tuple[Kind, Any]]:
    """So many deliveries, acknowledged."""
    return [(delivery.kind, delivery.key) for delivery in (take(watch) for _ in range(count))]


def test_a_snapshot_and_changes(table: coord.Table[Document]) -> None:
    first = table.insert("a", {"n": 1})
    with table.watch() as watch:
        start, apply, end = (take(watch) for _ in range(3))
        assert [start.kind, apply.kind, end.kind] == [Kind.INIT, Kind.INIT_APPLY, Kind.INIT_DONE]
        assert (start.key, start.document, start.value, start.position) == (None, None, None, 0)
        assert (apply.key, apply.document, apply.value) == ("a", {"_id": "a", "n": 1}, {"_id": "a", "n": 1})
        assert apply.revision == first.revision
        assert end.position > 0
        changed = table.update("a", {"$set": {"n": 2}})
        delivery = take(watch)
        assert (delivery.kind, delivery.key, delivery.failures) == (Kind.APPLY, "a", 0)
        assert delivery.document == {"_id": "a", "n": 2}
        assert delivery.revision == changed.revision
        assert delivery.position >= changed.position
        table.delete("a")
        delivery = take(watch)
        assert (delivery.kind, delivery.key, delivery.document, delivery.previous) == (Kind.DELETE, "a", None, None)
        with pytest.raises(coord.Timeout):
            watch.next(0.01)
    assert watch.closed
    with pytest.raises(coord.Closed):
        watch.next()
    assert list(watch) == []
    assert table.name in repr(watch)


def test_a_watch_of_some_documents_and_of_what_they_were(table: coord.Table[Document]) -> None:
    table.configure(previous=True)
    with table.watch({"n": {"$gt": 1}}, previous=True) as watch:
        assert told(watch, 2) == [(Kind.INIT, None), (Kind.INIT_DONE, None)]
        table.insert("a", {"n": 1})
        table.insert("b", {"n": 2})
        assert take(watch).key == "b"
        table.update("b", {"$inc": {"n": 1}})
        assert take(watch).previous == {"_id": "b", "n": 2}
        table.update("b", {"$set": {"n": 0}})
        delivery = take(watch)
        assert (delivery.kind, delivery.key) == (Kind.DELETE, "b")


def test_a_watch_goes_on_from_a_position(table: coord.Table[Document]) -> None:
    table.insert("a", {})
    with table.watch() as watch:
        position = [take(watch) for _ in range(3)][-1].position
    table.insert("b", {})
    with table.watch(from_position=position) as watch:
        delivery = take(watch)
        assert (delivery.kind, delivery.key) == (Kind.APPLY, "b")
    for wrong in (-1, 2**64):
        with pytest.raises(coord.InvalidArgument):
            table.watch(from_position=wrong)
    with pytest.raises(TypeError):
        table.watch(from_position="1")  # type: ignore[arg-type]


def test_what_is_not_acknowledged_comes_again(table: coord.Table[Document]) -> None:
    with table.watch() as watch:
        assert told(watch, 2) == [(Kind.INIT, None), (Kind.INIT_DONE, None)]
        table.insert("a", {})
        delivery = watch.next(PATIENCE)
        # Nothing comes beside it.
        with pytest.raises(coord.Timeout):
            watch.next(0.01)
        delivery.failed(ValueError("not today"))
        assert "acknowledged" in repr(delivery)
        again = watch.next(PATIENCE)
        assert (again.key, again.failures) == ("a", 1)
        # One that is gone was not acknowledged.
        del again
        gc.collect()
        third = watch.next(PATIENCE)
        assert (third.key, third.failures) == ("a", 2)
        third.failed("")
        # The first word counts.
        for late in (third, delivery):
            with pytest.raises(coord.NotHeld):
                late.done()
        fourth = watch.next(PATIENCE)
        assert fourth.failures == 3
        fourth.done()
        table.insert("b", {})
        assert take(watch).key == "b"


def test_a_loop_acknowledges_what_its_body_has_come_to_the_end_of(table: coord.Table[Document]) -> None:
    for key in "abc":
        table.insert(key, {})
    with table.watch() as watch:
        seen: list[Any] = []
        kept = []

        def work() -> None:
            for delivery in watch:
                kept.append(delivery)
                seen.append((delivery.key, delivery.failures))
                if delivery.key == "b" and delivery.failures == 0:
                    raise ZeroDivisionError
                if delivery.key == "b" and delivery.failures == 1:
                    return
                if delivery.key == "c":
                    # The loop is left, but what it was for is done.
                    delivery.done()
                    break

        with pytest.raises(ZeroDivisionError):
            work()
        work()
        work()
        assert seen == [(None, 0), ("a", 0), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]
        assert take(watch).kind is Kind.INIT_DONE
        # A body that says itself that it failed is believed, though it came to its end.
        table.insert("d", {})
        failures = []
        for delivery in watch:
            failures.append(delivery.failures)
            if delivery.failures == 2:
                delivery.done()
                break
            delivery.failed("not yet")
        assert failures == [0, 1, 2]


def test_a_loop_ends_with_its_watch_and_its_client(url: str) -> None:
    client = coord.connect(url)
    table = client.table(f"t{uuid.uuid4().hex}")
    ended = []

    def loop(watch: coord.TableWatch[Document]) -> None:
        for _ in watch:
            pass
        ended.append(watch)

    watches = [table.watch(), table.watch()]
    threads = [threading.Thread(target=loop, args=(watch,)) for watch in watches]
    for thread in threads:
        thread.start()
    watches[0].close()
    threads[0].join(PATIENCE)
    assert ended == watches[:1]
    table.drop()
    client.close()
    threads[1].join(PATIENCE)
    assert ended == watches


def test_a_watch_by_what_only_mongodb_knows(client: coord.Client, table: coord.Table[Document]) -> None:
    table.insert("a", {"n": 2})
    table.insert("b", {"n": 1})
    with table.watch({"n": {"$mod": [2, 0]}}) as watch:
        if client.location.startswith("mongodb"):
            assert told(watch, 3) == [(Kind.INIT, None), (Kind.INIT_APPLY, "a"), (Kind.INIT_DONE, None)]
        else:
            with pytest.raises(coord.Unsupported):
                told(watch, 3)


def test_the_log_tells_who_has_changed_what(
    client: coord.Client, other: coord.Client, table: coord.Table[Document]
) -> None:
    # Not long before: a server that was busy remembers little.
    begun = dt.datetime.now(UTC) - dt.timedelta(seconds=1)
    begin = table.insert("a", {"n": 1})
    with table.log(from_position=begin.position) as log:
        other.table(table.name).update("a", {"$set": {"n": 2, "m.x": 1}, "$unset": {"o": 1}})
        entry = log.next(PATIENCE)
        assert (entry.source, entry.operation, entry.key) == ("two", coord.LogOperation.UPDATE, "a")
        assert entry.changed_fields
        assert entry.changed_fields[0] in ("m", "m.x")
        assert entry.at.tzinfo is UTC
        assert abs(entry.at - dt.datetime.now(UTC)) < dt.timedelta(hours=1)
        assert entry.position > begin.position
        assert entry.revision == table.get("a").revision
        table.put("a", {})
        table.delete("a")
        operations = [log.next(PATIENCE) for _ in range(2)]
        assert [one.operation for one in operations] == [coord.LogOperation.REPLACE, coord.LogOperation.DELETE]
        assert operations[1].revision is None
        with pytest.raises(coord.Timeout):
            log.next(0.01)
    assert list(log) == []
    with table.log(from_time=begun) as log:
        assert next(log).operation is coord.LogOperation.INSERT
    with table.log() as log:
        table.insert("b", {})
        assert log.next(PATIENCE).key == "b"
    for wrong in ({"from_time": dt.datetime(2026, 1, 1)}, {"from_time": dt.datetime.now(UTC), "from_position": 1}):
        with pytest.raises(coord.InvalidArgument):
            table.log(**wrong)


# --- copies -------------------------------------------------------------------------------------------------------


def test_a_copy_shows_what_is_written(client: coord.Client, other: coord.Client, table: coord.Table[Document]) -> None:
    table.insert("a", {"n": 1})
    with client.table(table.name, cached=True) as copy:
        assert copy.synced()
        assert copy.get("a").document == {"_id": "a", "n": 1}
        assert copy.get("a", fresh=True) == copy.get("a")
        written = copy.insert("b", {"n": 2})
        assert copy.position >= written.position
        assert copy.get("b").revision == written.revision
        assert copy.update("b", {"$inc": {"n": 1}}).document["n"] == copy.get("b").document["n"] == 3
        copy.replace("b", {"n": 4}, copy.get("b").revision)
        copy.locate("c", {"n": 5})
        copy.put("d", {"n": 6})
        copy.upsert("d", {"$inc": {"n": 1}})
        assert copy.update_many({"n": {"$gte": 5}}, {"$set": {"big": True}}).count == 2
        assert [one.key for one in copy.find({"big": True}, sort={"n": -1})] == ["d", "c"]
        assert copy.find({"big": True}, sort="n", skip=1, limit=1, projection=["n"])[0].document == {"_id": "d", "n": 7}
        assert copy.count() == 4
        assert [one.key for one in copy.cursor(sort="n")] == ["a", "b", "c", "d"]
        assert copy.delete_many({"big": True}).count == 2
        copy.delete("b", copy.get("b").revision)
        assert not copy.contains("b")
        assert copy.contains("a")
        with pytest.raises(coord.NotFound):
            copy.get("b")
        with pytest.raises(coord.NotFound):
            copy.get("b", fresh=True)
        with pytest.raises(coord.Conflict):
            copy.replace("a", {}, written.revision)
        seen = other.table(table.name).insert("z", {})
        copy.wait_until(seen.position, PATIENCE)
        assert copy.contains("z")
        with pytest.raises(coord.Timeout):
            copy.wait_until(2**63, 0.01)
        assert copy.bytes > 0
        assert "cached" in repr(copy)
        assert "follows" in copy._repr_html_()
    assert copy.closed
    for call in (copy.find, copy.count, lambda: copy.get("a"), lambda: copy.bytes, lambda: copy.insert("x", {})):
        with pytest.raises(coord.Closed):
            call()
    assert not copy.synced()
    assert "closed" in copy._repr_html_()
    copy.close()


def test_a_copy_of_some_documents_that_does_not_wait(client: coord.Client, table: coord.Table[Document]) -> None:
    for n in range(5):
        table.insert(n, {"n": n})
    with client.table(table.name, cached=True, filter={"n": {"$gt": 2}}, read_your_writes=False) as copy:
        assert sorted(one.key for one in copy.find()) == [3, 4]
        written = copy.insert(9, {"n": 9})
        copy.wait_until(written.position, PATIENCE)
        assert copy.contains(9)
        table.update(3, {"$set": {"n": 0}})
        eventually(lambda: not copy.contains(3), "it does not match any more")


def test_a_copy_that_becomes_too_large_says_so(client: coord.Client, table: coord.Table[Document]) -> None:
    table.insert("a", {"text": "x" * 1000})
    with pytest.raises(coord.InvalidArgument, match="max_bytes"):
        client.table(table.name, cached=True, max_bytes=100)
    with client.table(table.name, cached=True, max_bytes=2000) as copy:
        assert copy.get("a").document["text"].startswith("x")
        table.insert("b", {"text": "x" * 1000})

        def is_over() -> bool:
            try:
                copy.get("a")
            except coord.InvalidArgument:
                return True
            return False

        eventually(is_over, "the copy ends")
        with pytest.raises(coord.InvalidArgument, match="max_bytes"):
            copy.find()
        # With what its writes have done it is not concerned.
        assert copy.update("b", {"$inc": {"n": 1}}).document["n"] == 1
    with pytest.raises(coord.InvalidArgument):
        client.table(table.name, cached=True, max_bytes=-1)
    with pytest.raises(coord.InvalidArgument):
        client.table(table.name, cached=True, filter=5)  # type: ignore[call-overload]


def test_a_copy_that_nobody_has_ends(client: coord.Client, table: coord.Table[Document]) -> None:
    for _ in itertools.repeat(None, 20):
        copy = client.table(table.name, cached=True)
        assert copy.count() == 0
        del copy
    gc.collect()
    table.insert("a", {})
    assert client.table(table.name, cached=True).count() == 1


def test_threads_read_a_copy_while_one_waits_for_a_change(client: coord.Client, table: coord.Table[Document]) -> None:
    with client.table(table.name, cached=True) as copy, table.watch() as watch:
        found: list[Any] = []

        def wait() -> None:
            found.extend(delivery.key for delivery in itertools.takewhile(lambda one: one.key != "end", watch))

        thread = threading.Thread(target=wait)
        thread.start()
        for n in range(20):
            copy.insert(n, {"n": n})
            assert copy.count() == n + 1
        copy.insert("end", {})
        thread.join(PATIENCE)
        # Those of the snapshot come in no order, and one may come both in it and as a change.
        assert {key for key in found if key is not None} == set(range(20))
