"""Tables for asyncio, on every store."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support import PATIENCE

import coord
from coord import TableEventKind as Kind

Document = dict[str, Any]


@pytest.fixture
async def aclient(url: str) -> AsyncIterator[coord.aio.Client]:
    """A client of an empty store."""
    async with await coord.aio.connect(url, name="one") as client:
        yield client


@pytest.fixture
async def table(aclient: coord.aio.Client) -> AsyncIterator[coord.aio.Table[Document]]:
    """An empty table."""
    table = aclient.table(f"t{uuid.uuid4().hex}")
    yield table
    await table.drop()


@dataclasses.dataclass
class Order:
    customer: str
    total: float = 0.0


async def test_writes_and_reads(aclient: coord.aio.Client, table: coord.aio.Table[Document]) -> None:
    made = await table.insert("a", {"n": 1})
    assert made.created
    with pytest.raises(coord.AlreadyExists):
        await table.insert("a", {})
    assert (await table.update("a", {"$inc": {"n": 1}})).document["n"] == 2
    await table.upsert("b", {"$set": {"n": 5}})
    await table.locate("b", {"m": 6})
    await table.put("c", {"n": 7})
    stored = await table.get("b")
    await table.replace("b", {"n": 8}, stored.revision)
    with pytest.raises(coord.Conflict):
        await table.delete("b", stored.revision)
    assert await table.contains("c")
    assert await table.count({"n": {"$gt": 2}}) == 2
    assert [one.key for one in await table.find(sort={"n": -1}, limit=2)] == ["b", "c"]
    assert (await table.update_many({}, {"$set": {"all": True}})).count == 3
    assert (await table.delete_many({"n": {"$gt": 2}})).count == 2
    assert (await table.delete("a")).document["n"] == 2
    with pytest.raises(coord.NotFound):
        await table.get("a")
    await table.ensure_indexes(coord.Index("email", unique=True, sparse=True))
    await table.health()
    await table.configure(previous=True)
    orders = aclient.table(table.name, Order)
    await orders.insert("o", Order("ann"))
    assert (await orders.get("o")).value == Order("ann")
    if not aclient.location.startswith("mongodb"):
        with pytest.raises(coord.Unsupported):
            await table.aggregate([])
    else:
        assert [one async for one in await table.aggregate([{"$count": "n"}])] == [{"n": 1}]


async def test_a_cursor(table: coord.aio.Table[Document]) -> None:
    for n in range(100):
        await table.insert(n, {})
    async with await table.cursor(sort="_id") as cursor:
        assert [stored.key async for stored in cursor] == list(range(100))
    with pytest.raises(coord.Closed):
        await anext(cursor)


async def test_fences(aclient: coord.aio.Client, table: coord.aio.Table[Document]) -> None:
    stale = await aclient.lock("fence").acquire()
    await table.insert("a", {}, fence=stale)
    await aclient.break_lock("fence", stale.token, force=True)
    async with await aclient.lock("fence").acquire() as held:
        await table.put("a", {"n": 1}, fence=held, strict=True)
        with pytest.raises(coord.Fenced):
            await table.put("a", {"n": 2}, fence=stale)
    with pytest.raises(coord.NotHeld):
        await table.put("a", {"n": 3}, fence=held)
    async with await aclient.election("boss").campaign() as term:
        await table.put("b", {}, fence=term)


async def test_a_watch_and_its_loop(table: coord.aio.Table[Document]) -> None:
    await table.insert("a", {"n": 1})
    async with table.watch() as watch:
        seen: list[Any] = []

        async def work() -> None:
            async for delivery in watch:
                seen.append((delivery.kind, delivery.key, delivery.failures))
                if delivery.key == "a" and delivery.failures == 0:
                    raise ZeroDivisionError
                if delivery.kind is Kind.INIT_DONE:
                    return

        with pytest.raises(ZeroDivisionError):
            await work()
        await work()
        assert seen == [
            (Kind.INIT, None, 0),
            (Kind.INIT_APPLY, "a", 0),
            (Kind.INIT_APPLY, "a", 1),
            (Kind.INIT_DONE, None, 0),
        ]
        # A loop that is cancelled in its body has not come to its end.
        (await watch.next(PATIENCE)).done()
        await table.insert("b", {})
        reached = asyncio.Event()

        async def wait() -> None:
            async for delivery in watch:
                assert delivery.key == "b"
                reached.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.wait_for(reached.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        delivery = await watch.next(PATIENCE)
        assert (delivery.key, delivery.failures) == ("b", 1)
        delivery.failed(ValueError())
        delivery = await watch.next(PATIENCE)
        assert delivery.failures == 2
        delivery.done()
        # One that is cancelled while it waits loses nothing.
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await table.insert("c", {})
        assert (await watch.next(PATIENCE)).key == "c"
    assert [one async for one in watch] == []


async def test_the_log(table: coord.aio.Table[Document]) -> None:
    async with await table.log() as log:
        await table.insert("a", {})
        entry = await log.next(PATIENCE)
        assert (entry.source, entry.key, entry.operation) == ("one", "a", coord.LogOperation.INSERT)
        with pytest.raises(coord.Timeout):
            await log.next(0.01)


async def test_a_copy(aclient: coord.aio.Client, table: coord.aio.Table[Document]) -> None:
    async with await aclient.table(table.name, cached=True, max_bytes=100_000) as copy:
        written = await copy.insert("a", {"n": 1})
        assert (await copy.get("a")).revision == written.revision
        assert await copy.get("a", fresh=True) == await copy.get("a")
        assert await copy.contains("a")
        assert await copy.count() == len(await copy.find()) == 1
        await copy.wait_until(written.position, PATIENCE)
        with pytest.raises(coord.Timeout):
            await copy.wait_until(2**63, 0.01)
        assert copy.synced()
    assert copy.closed
    with pytest.raises(coord.Closed):
        await copy.find()


async def test_a_look_at_a_copy_holds_up_no_loop(aclient: coord.aio.Client, table: coord.aio.Table[Document]) -> None:
    for key in range(10):
        await table.insert(key, {"numbers": list(range(1000))})
    # It matches one, and takes long to find that out.
    slow = {"$or": [{"_id": 1}, *({"numbers": -number} for number in range(1, 100))]}
    async with await aclient.table(table.name, cached=True) as copy:
        for look, result in ((copy.count, 1), (copy.find, [await copy.get(1)])):
            turns: list[bool] = []
            asyncio.get_running_loop().call_soon(turns.append, True)
            assert await look(slow) == result
            # The loop had its turn before there was a result.
            assert turns == [True]


async def test_bad_input(aclient: coord.aio.Client, table: coord.aio.Table[Document]) -> None:
    with pytest.raises(coord.InvalidArgument):
        await table.insert("a", {"n": object()})
    with pytest.raises(coord.InvalidArgument):
        await table.find("a")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await table.insert("a", {}, fence=5)  # type: ignore[arg-type]
    with pytest.raises(coord.InvalidArgument):
        await table.update_many({}, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        aclient.table("t", int)
