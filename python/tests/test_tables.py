"""Tables on every store: writes, reads, fences, indexes."""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE, script

import coord
import coord._document

UTC = dt.timezone.utc


@pytest.fixture
def table(client: coord.Client) -> Iterator[coord.Table[dict[str, Any]]]:
    """An empty table."""
    table = client.table(f"t{uuid.uuid4().hex}")
    yield table
    table.drop()


def test_writes_to_one_document(table: coord.Table[dict[str, Any]]) -> None:
    made = table.insert("a", {"n": 1, "tags": ["x"]})
    assert made.document == made.value == {"_id": "a", "n": 1, "tags": ["x"]}
    assert made.created
    assert made.revision is not None
    with pytest.raises(coord.AlreadyExists):
        table.insert("a", {})
    changed = table.update("a", {"$inc": {"n": 2}, "$set": {"sub.b": True}})
    assert changed.document == {"_id": "a", "n": 3, "tags": ["x"], "sub": {"b": True}}
    assert not changed.created
    assert changed.revision != made.revision
    assert changed.position > made.position
    assert table.locate("a", {"n": 4}).document["sub"] == {"b": True}
    assert table.locate("b", {"n": 1}).created
    assert table.upsert("c", {"$set": {"n": 1}}).created
    assert not table.upsert("c", {"$inc": {"n": 1}}).created
    assert table.put("c", {"m": 1}).document == {"_id": "c", "m": 1}
    assert table.put("d", {"m": 1}).created
    assert table.replace("d", {"m": 2}).document == {"_id": "d", "m": 2}
    gone = table.delete("d")
    assert gone.document == {"_id": "d", "m": 2}
    assert gone.revision is None
    for call in (table.get, table.delete):
        with pytest.raises(coord.NotFound):
            call("d")
    with pytest.raises(coord.NotFound):
        table.update("d", {"$set": {"n": 1}})
    with pytest.raises(coord.NotFound):
        table.replace("d", {})
    assert [table.contains(key) for key in "abcd"] == [True, True, True, False]
    with pytest.raises(coord.InvalidArgument):
        table.insert("e", {"_id": "f"})
    with pytest.raises(coord.InvalidArgument):
        table.insert("e", {"$set": 1})
    with pytest.raises(coord.InvalidArgument):
        table.update("a", {"n": 1})
    with pytest.raises(coord.InvalidArgument):
        table.update("a", {"$inc": {"tags": 1}})


def test_writes_that_depend_on_the_revision(table: coord.Table[dict[str, Any]]) -> None:
    first = table.insert("a", {"n": 1})
    read = table.get("a")
    assert read.revision == first.revision
    second = table.replace("a", {"n": 2}, read.revision)
    for call in (lambda: table.replace("a", {"n": 3}, read.revision), lambda: table.delete("a", read.revision)):
        with pytest.raises(coord.Conflict):
            call()
    assert table.get("a").document["n"] == 2
    # A document that was read in part has no revision on MongoDB. That must not mean: whatever is there.
    for call in (lambda: table.replace("a", {"n": 3}, None), lambda: table.delete("a", None)):
        with pytest.raises(coord.InvalidArgument, match="projection"):
            call()
    for wrong in (-1, 2**64):
        with pytest.raises(coord.InvalidArgument):
            table.replace("a", {}, wrong)
    for wrong in ("1", 1.0, True, read):
        with pytest.raises(TypeError):
            table.replace("a", {}, wrong)  # type: ignore[arg-type]
    table.delete("a", second.revision)
    with pytest.raises(coord.NotFound):
        table.replace("a", {}, second.revision)


def test_reads(table: coord.Table[dict[str, Any]]) -> None:
    for n in range(150):
        table.insert(n, {"n": n, "even": n % 2 == 0, "word": f"w{n:03}", "sub": {"n": -n}})
    assert len(table.find()) == table.count() == 150
    assert [stored.key for stored in table.find({"n": {"$lt": 4}}, sort="n")] == [0, 1, 2, 3]
    found = table.find({"even": True}, sort={"n": -1}, skip=1, limit=2)
    assert [stored.document["n"] for stored in found] == [146, 144]
    assert found.values == [stored.document for stored in found]
    assert [one.key for one in table.find({}, sort=[("even", -1), ("n", 1)], limit=3)] == [0, 2, 4]
    assert table.find({"word": {"$regex": "^w00"}}, sort="sub.n", projection=["sub.n"])[0].document == {
        "_id": 9,
        "sub": {"n": -9},
    }
    assert table.find({"n": 1}, projection={"_id": 0, "n": 1})[0].document == {"n": 1}
    assert table.find({"n": 1}, projection={"_id": 0, "n": 1})[0].key == 1
    assert table.count({"$or": [{"n": 1}, {"word": "w002"}]}) == 2
    with table.cursor({"n": {"$gte": 10}}, sort="n") as cursor:
        assert [stored.key for stored in cursor] == list(range(10, 150))
        assert list(cursor) == []
    cursor = table.cursor(sort="n", limit=130)
    assert next(cursor).key == 0
    cursor.close()
    cursor.close()
    with pytest.raises(coord.Closed):
        next(cursor)
    for wrong in ({"$nothing": 1}, {"a": {"$nothing": 1}}):
        with pytest.raises((coord.InvalidArgument, coord.Unsupported)):
            table.find(wrong)
    for sort in ({"n": 2}, [1], [("n",)], {}, 5):
        with pytest.raises(coord.InvalidArgument):
            table.find(sort=sort)  # type: ignore[arg-type]
    for projection in ("n", 5, {"n": 1, "m": 0}):
        with pytest.raises(coord.InvalidArgument):
            table.find(projection=projection)  # type: ignore[arg-type]
    for limits in ({"skip": -1}, {"limit": -1}, {"limit": 2**64}):
        with pytest.raises(coord.InvalidArgument):
            table.find(**limits)  # type: ignore[arg-type]
    assert table.find(limit=2**40, skip=149)


class Between:
    """A cursor's native part, which lets something happen after a wait for a page, before it is taken; once."""

    def __init__(self, cursor: coord.Cursor[Any], happens: Callable[[], None]) -> None:
        self._cursor, self._native, self._happens = cursor, cursor._native, happens
        cursor._native = self  # type: ignore[assignment]

    def ready(self) -> Any:
        return self

    def wait(self) -> None:
        self._native.ready().wait(PATIENCE)
        self._cursor._native = self._native
        other = threading.Thread(target=self._happens)
        other.start()
        other.join(PATIENCE)


@pytest.mark.parametrize("taken", [1, 64])
def test_a_page_that_another_thread_took_is_not_the_end(table: coord.Table[dict[str, Any]], taken: int) -> None:
    for n in range(100):
        table.insert(n, {})
    cursor = table.cursor(sort="_id")
    others: list[int] = []
    Between(cursor, lambda: others.extend(next(cursor).key for _ in range(taken)))
    mine = [stored.key for stored in cursor]
    assert others == list(range(taken))
    assert mine == list(range(taken, 100))
    assert list(cursor) == []


def test_an_exception_on_the_way_loses_nothing(
    table: coord.Table[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(70):
        table.insert(n, {"at": dt.datetime(2026, 1, 1, tzinfo=UTC)})
    cursor = table.cursor(sort="_id")

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(coord._document.LIFTED, "date", fail)
        next(cursor)
    assert [stored.key for stored in cursor] == list(range(70))


def test_a_page_of_large_documents_has_few(table: coord.Table[dict[str, Any]]) -> None:
    for n in range(10):
        table.insert(n, {"text": ["x" * 100_000] * 3})
    cursor = table.cursor(sort="_id")
    assert next(cursor).key == 0
    assert len(cursor._page) == 3
    assert [stored.key for stored in cursor] == list(range(1, 10))


def test_writes_to_many_documents(table: coord.Table[dict[str, Any]]) -> None:
    for n in range(10):
        table.insert(n, {"n": n})
    written = table.update_many({"n": {"$gte": 5}}, {"$set": {"big": True}})
    assert written.count == 5
    assert written.position > 0
    assert table.count({"big": True}) == 5
    assert table.delete_many({"big": True}).count == 5
    assert table.delete_many({}).count == 5
    assert table.count() == 0


def test_what_only_mongodb_knows(client: coord.Client, table: coord.Table[dict[str, Any]]) -> None:
    table.insert(1, {"n": 1})
    table.insert(2, {"n": 2})
    pipeline = [{"$match": {"n": {"$gt": 1}}}, {"$project": {"double": {"$multiply": ["$n", 2]}}}]
    if client.location.startswith("mongodb"):
        assert list(table.aggregate(pipeline)) == [{"_id": 2, "double": 4}]
        assert table.find({"n": {"$mod": [2, 0]}})[0].key == 2
        assert table.update(1, [{"$set": {"n": {"$add": ["$n", 10]}}}]).document["n"] == 11
        with pytest.raises(coord.InvalidArgument):
            table.aggregate([{"$out": "elsewhere"}])
    else:
        for call in (
            lambda: table.aggregate(pipeline),
            lambda: table.find({"n": {"$mod": [2, 0]}}),
            lambda: table.update(1, [{"$set": {"n": {"$add": ["$n", 10]}}}]),
        ):
            with pytest.raises(coord.Unsupported):
                call()
    for wrong in (None, {}, "a", [1], [{}, None]):
        with pytest.raises(coord.InvalidArgument):
            table.aggregate(wrong)  # type: ignore[arg-type]


def test_indexes(table: coord.Table[dict[str, Any]]) -> None:
    table.ensure_indexes(coord.Index("email", unique=True, sparse=True), coord.Index({"a": 1, "b": -1}, name="ab"))
    table.ensure_indexes(coord.Index("email", unique=True, sparse=True), coord.Index([("c", -1)], expire_after=3600))
    table.insert(1, {"email": "a@b"})
    with pytest.raises(coord.AlreadyExists):
        table.insert(2, {"email": "a@b"})
    table.insert(3, {})
    table.insert(4, {})
    with pytest.raises(coord.AlreadyExists):
        table.ensure_indexes(coord.Index("missing", unique=True))
    with pytest.raises(coord.InvalidArgument):
        table.ensure_indexes(coord.Index("other", name="ab"))
    with pytest.raises(ValueError, match="direction"):
        table.ensure_indexes(coord.Index({"a": 2}))
    with pytest.raises(coord.InvalidArgument):
        table.ensure_indexes(coord.Index({}))
    with pytest.raises(coord.InvalidArgument):
        table.ensure_indexes(coord.Index("d", expire_after=-1))
    with pytest.raises(TypeError):
        table.ensure_indexes(coord.Index("d", expire_after="1"))  # type: ignore[arg-type]


def test_a_table_can_be_dropped_and_is_healthy(table: coord.Table[dict[str, Any]]) -> None:
    table.health()
    table.configure(previous=True)
    table.insert(1, {})
    table.drop()
    table.drop()
    assert table.count() == 0


# --- fences -------------------------------------------------------------------------------------------------------


def test_a_stale_holder_is_fenced(
    client: coord.Client, other: coord.Client, table: coord.Table[dict[str, Any]]
) -> None:
    beside = other.table(table.name)
    stale = client.lock("fence").acquire()
    table.insert("a", {"n": 1}, fence=stale)
    table.update("a", {"$inc": {"n": 1}}, fence=stale, strict=True)
    client.break_lock("fence", stale.token, force=True)
    with other.lock("fence").acquire(timeout=PATIENCE) as held:
        beside.update("a", {"$set": {"by": "other"}}, fence=held)
        for strict in (False, True):
            for call in (
                lambda strict=strict: table.update("a", {"$inc": {"n": 1}}, fence=stale, strict=strict),
                lambda strict=strict: table.put("a", {}, fence=stale, strict=strict),
                lambda strict=strict: table.replace("a", {}, fence=stale, strict=strict),
                lambda strict=strict: table.locate("a", {"n": 1}, fence=stale, strict=strict),
                lambda strict=strict: table.upsert("a", {"$inc": {"n": 1}}, fence=stale, strict=strict),
                lambda strict=strict: table.delete("a", fence=stale, strict=strict),
                lambda strict=strict: table.update_many({}, {"$inc": {"n": 1}}, fence=stale, strict=strict),
                lambda strict=strict: table.delete_many({}, fence=stale, strict=strict),
            ):
                with pytest.raises(coord.Fenced):
                    call()
        assert beside.get("a").document == {"_id": "a", "n": 2, "by": "other"}
        # What was deleted stays fenced.
        beside.delete("a", fence=held)
        with pytest.raises(coord.Fenced):
            table.insert("a", {}, fence=stale)
        # Nobody has written this one since, which only a strict write asks the lock about.
        with pytest.raises(coord.Fenced):
            table.insert("b", {}, fence=stale, strict=True)
    with pytest.raises(coord.Lost):
        stale.release()


def test_a_term_fences_as_well(client: coord.Client, table: coord.Table[dict[str, Any]]) -> None:
    first = client.election("boss").campaign()
    table.put("a", {"n": 1}, fence=first)
    first.resign()
    with client.election("boss").campaign() as term:
        table.put("a", {"n": 2}, fence=term, strict=True)
        with pytest.raises(coord.NotHeld):
            table.put("a", {"n": 3}, fence=first)
    assert table.get("a").document["n"] == 2


def test_what_is_no_fence(client: coord.Client, table: coord.Table[dict[str, Any]]) -> None:
    for wrong in (1, "lock", client.lock("a"), client):
        with pytest.raises(TypeError, match="fence"):
            table.insert("a", {}, fence=wrong)  # type: ignore[arg-type]
    with pytest.raises(coord.InvalidArgument, match="strict"):
        table.insert("a", {}, strict=True)
    assert not table.contains("a")


def test_a_look_at_a_copy_holds_up_no_change_of_it(client: coord.Client, table: coord.Table[dict[str, Any]]) -> None:
    for key in range(50):
        table.insert(key, {"numbers": list(range(1000))})
    # It matches nothing, and takes long to find that out.
    slow = {"$or": [{"numbers": -number} for number in range(1, 300)]}
    with client.table(table.name, cached=True) as copy:
        copy.insert("n", {"n": 0})
        looking = threading.Thread(target=copy.count, args=(slow,))
        looking.start()
        taken = []
        while looking.is_alive():
            begun = time.monotonic()
            # It returns when the copy shows it.
            copy.update("n", {"$inc": {"n": 1}})
            taken.append(time.monotonic() - begun)
        looking.join()
        # None of them has waited for the look to end.
        assert max(taken) < sum(taken) / 2


def test_an_operation_that_is_started_lets_other_threads_run(table: coord.Table[dict[str, Any]]) -> None:
    queue, go, ran = coord._native.Queue(), threading.Lock(), threading.Event()

    def run() -> None:
        with go:
            ran.set()

    go.acquire()
    other = threading.Thread(target=run)
    other.start()
    interval = sys.getswitchinterval()
    # From now on a thread has the interpreter for as long as it does not give it away.
    sys.setswitchinterval(3600)
    try:
        go.release()
        for tag in range(10_000):
            queue.start(tag, table._native.write("put", "a", {"n": tag}, None, None, False))
            queue.take()
            if ran.is_set():
                break
        else:
            pytest.fail("no other thread has run")
    finally:
        sys.setswitchinterval(interval)
        other.join()
        queue.close()


# --- bad input, other threads, processes --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 200, ".a", "a.", "admin.x", "Ä", "a\0"])
def test_names_that_are_none(name: str) -> None:
    with coord.connect("memory:") as client, pytest.raises(coord.InvalidArgument):
        client.table(name)


def test_options_that_are_none() -> None:
    with coord.connect("memory:") as client:
        with pytest.raises(TypeError):
            client.table(5)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="model"):
            client.table("t", int)
        for options in ({"filter": {}}, {"max_bytes": 1}, {"read_your_writes": False}):
            with pytest.raises(coord.InvalidArgument, match="cached"):
                client.table("t", **options)  # type: ignore[call-overload]


def test_a_closed_client_s_table() -> None:
    client = coord.connect("memory:")
    table = client.table("t")
    watch, closed = table.watch(), table.watch()
    closed.close()
    with pytest.raises(coord.Closed, match="the watch"):
        closed.next()
    client.close()
    with pytest.raises(coord.Closed):
        client.table("t")
    for call in (table.find, table.count, table.health, table.drop, table.log, watch.next, table.watch):
        with pytest.raises(coord.Closed):
            call()
    assert "t" in repr(table)
    assert list(watch) == []


def test_threads_write_at_once(table: coord.Table[dict[str, Any]]) -> None:
    table.insert("a", {"n": 0})

    def count() -> None:
        for _ in range(20):
            while True:
                read = table.get("a")
                try:
                    table.replace("a", {"n": read.document["n"] + 1}, read.revision)
                except coord.Conflict:
                    continue
                break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
    assert table.get("a").document["n"] == 80


def test_ctrl_c_ends_a_wait_for_a_change() -> None:
    program = """
    with coord.connect("memory:") as client:
        table = client.table("t")
        watch = table.watch()
        assert [delivery.kind.value for _, delivery in zip(range(2), watch)] == ["init", "init_done"]
        # What the loop had not acknowledged comes again, and is done now.
        watch.next(30).done()
        try:
            say("ready")
            watch.next()
        except KeyboardInterrupt:
            say("interrupted")
        table.insert("a", {})
        say(watch.next(30).key)
    """
    with script(program) as process:
        assert process.hear() == "ready"
        process.process.send_signal(2)
        assert process.hear() == "interrupted"
        assert process.hear() == "a"
        assert process.end() == ""


def test_a_forked_child_has_no_table(shared_url: str) -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore")
    client = coord.connect(URL)
    table = client.table("t-fork")
    cached = client.table("t-fork", cached=True)
    watch, cursor = table.watch(), table.cursor()
    delivery = watch.next(30)
    child = os.fork()
    if child == 0:
        calls = [table.find, cached.find, cached.count, watch.next, delivery.done, lambda: next(cursor), table.log]
        for call in calls:
            try:
                call()
            except coord.Forked:
                continue
            os._exit(1)
        del delivery, watch, cursor, cached, table
        os._exit(0)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    delivery.done()
    say(watch.next(30).kind)
    table.drop()
    client.close()
    """
    with script(program, shared_url) as process:
        assert process.hear() == "0"
        assert process.hear() == "init_done"
        assert process.end() == ""
