"""Reconcilers for asyncio."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from support import PATIENCE, aeventually, script

import coord
from coord import aio

MANUAL = coord.Source.manual()
QUICK = (0.001, 0.02)


@pytest_asyncio.fixture
async def aclient(url: str) -> AsyncIterator[aio.Client]:
    async with await aio.connect(url, name="one") as client:
        yield client


@pytest_asyncio.fixture
async def memory() -> AsyncIterator[aio.Client]:
    async with await aio.connect("memory:") as client:
        yield client


async def test_a_key_is_run_again_when_it_asks_for_it_or_fails(aclient: aio.Client) -> None:
    table = aclient.table(f"t{uuid.uuid4().hex}")
    written = await table.insert("k", {"n": 5})
    seen: list[tuple[Any, int]] = []

    async def f(work: aio.Work) -> coord.RequeueAfter | None:
        await asyncio.sleep(0)
        seen.append((work.value["n"], work.attempt))
        if len(seen) == 1:
            return coord.requeue_after(0.02)
        if len(seen) == 2:
            raise ValueError("once")
        return None

    async with await aclient.reconcile("r", table, f) as reconciler:
        await aeventually(lambda: reconciler.stats().runs == 3, "three runs")
        await reconciler.wait_until_reconciled("k", written.position, PATIENCE)
        stats = reconciler.stats()
        assert (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0)
        assert (stats.runs, stats.errors, stats.retries, stats.requeued) == (3, 1, 1, 1)
        deleted = await table.delete("k")
    assert deleted is not None
    await table.drop()
    assert seen == [(5, 1), (5, 1), (5, 2)]


async def test_runs_are_side_by_side_but_never_of_one_key(memory: aio.Client) -> None:
    running: set[str] = set()
    most = 0

    async def f(work: aio.Work) -> None:
        nonlocal most
        assert work.key not in running
        running.add(work.key)
        most = max(most, len(running))
        await asyncio.sleep(0.001)
        running.remove(work.key)

    async with await memory.reconcile("r", MANUAL, f, workers=3) as reconciler:
        for _ in range(20):
            for n in range(6):
                reconciler.add(f"k{n}")
            await asyncio.sleep(0)
        for n in range(6):
            await reconciler.wait_until_reconciled(f"k{n}", timeout=PATIENCE)
        assert reconciler.stats().errors == 0
    assert most == 3


async def test_a_plain_function_will_do(memory: aio.Client) -> None:
    seen: list[str] = []
    async with await memory.reconcile("r", MANUAL, lambda work: seen.append(work.key)) as reconciler:
        reconciler.add("k")
        await reconciler.wait_until_reconciled("k", timeout=PATIENCE)
    assert seen == ["k"]


async def test_exceptions_are_errors_with_their_traceback(memory: aio.Client, caplog: pytest.LogCaptureFixture) -> None:
    async def f(work: aio.Work) -> object:
        if work.attempt == 1:
            raise KeyError("mine")
        if work.attempt == 2:
            return 3
        if work.attempt == 3:
            raise coord.RetryAfter(0.001, "not yet")
        raise coord.Terminal("never")

    async with await memory.reconcile("r", MANUAL, f, backoff=QUICK) as reconciler:  # type: ignore[arg-type]
        reconciler.add("k")
        with pytest.raises(coord.Conflict, match="never"):
            await reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert [parked.key for parked in reconciler.parked()] == ["k"]
        assert reconciler.stats().errors == 4
        assert "parked=1" in repr(reconciler)
        assert "parked" in reconciler._repr_html_()
    errors = [record for record in caplog.records if record.name == "coord" and record.levelno == logging.ERROR]
    kinds = [type(record.exc_info[1]) for record in errors if record.exc_info is not None]
    assert kinds == [KeyError, TypeError, coord.RetryAfter, coord.Terminal]


async def test_a_run_that_is_asked_to_stop_is_cancelled(memory: aio.Client, caplog: pytest.LogCaptureFixture) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def f(work: aio.Work) -> None:
        assert not work.cancelled
        assert not await work.cancelled.wait(0.001)
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            assert work.cancelled
            assert await work.cancelled
            ended.set()
            raise

    async with await memory.reconcile("r", MANUAL, f, workers=2) as reconciler:
        reconciler.add("k")
        await asyncio.wait_for(begun.wait(), PATIENCE)
        assert reconciler.cancel("k")
        await asyncio.wait_for(ended.wait(), PATIENCE)
        await aeventually(lambda: reconciler.stats().in_flight == 0, "it has ended")
        stats = reconciler.stats()
        assert (stats.ready, stats.delayed, stats.errors) == (0, 0, 0)
        begun.clear()
        reconciler.add("k")
        await asyncio.wait_for(begun.wait(), PATIENCE)
        # So does closing.
        await reconciler.close(PATIENCE)
        assert reconciler.closed
        await reconciler.close()
    assert not [record for record in caplog.records if record.name == "coord" and record.levelno >= logging.WARNING]


async def test_a_run_may_go_on_and_its_result_counts(memory: aio.Client) -> None:
    begun = asyncio.Event()
    may_return = asyncio.Event()

    async def f(_: aio.Work) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await may_return.wait()

    reconciler = await memory.reconcile("r", MANUAL, f)
    reconciler.add("k")
    await asyncio.wait_for(begun.wait(), PATIENCE)
    with pytest.raises(coord.Timeout):
        await reconciler.close(0.02)
    assert not reconciler.closed
    may_return.set()
    await reconciler.close(PATIENCE)
    assert reconciler.closed
    assert reconciler.stats().dropped == 0


async def test_a_run_that_others_cancel_comes_again(memory: aio.Client, caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []

    async def f(work: aio.Work) -> None:
        attempts.append(work.attempt)
        if len(attempts) == 1:
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled

    async with await memory.reconcile("r", MANUAL, f, backoff=QUICK) as reconciler:
        reconciler.add("k")
        await reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert attempts == [1, 2]
        assert reconciler.stats().dropped == 1
    assert any("cancelled by others" in record.getMessage() for record in caplog.records)


async def test_a_start_that_is_cancelled_leaves_nothing(memory: aio.Client) -> None:
    seen: list[str] = []
    for turns in range(6):
        start = asyncio.ensure_future(
            memory.reconcile("r", coord.Source.released_locks(), lambda work: seen.append(work.key))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait([start])
        if not start.cancelled():
            await start.result().close(PATIENCE)
    seen.clear()
    async with await memory.lock("a").acquire():
        pass
    async with await memory.reconcile("r", coord.Source.released_locks(), lambda _: None) as reconciler:
        await reconciler.wait_until_reconciled("default/default/a", timeout=PATIENCE)
    assert seen == []


async def test_a_drain_runs_what_is_ready(memory: aio.Client) -> None:
    seen: list[str] = []
    may_return = asyncio.Event()

    async def f(work: aio.Work) -> None:
        seen.append(work.key)
        await may_return.wait()

    reconciler = await memory.reconcile("r", MANUAL, f)
    reconciler.add("a")
    reconciler.add("b")
    reconciler.add_after("later", 3600)
    with pytest.raises(coord.Timeout):
        await reconciler.drain(0.02)
    may_return.set()
    await reconciler.drain(PATIENCE)
    assert seen == ["a", "b"]
    assert reconciler.closed


async def test_a_function_may_end_its_own_reconciler(memory: aio.Client) -> None:
    ended: list[aio.Reconciler] = []

    async def f(work: aio.Work) -> None:
        if work.key == "close":
            await ended[0].close()
        else:
            await ended[0].drain()

    for key in ("close", "drain"):
        ended[:] = [await memory.reconcile("r", MANUAL, f)]
        ended[0].add(key)
        await aeventually(lambda: ended[0].closed, "it has ended")


async def test_it_ends_with_its_client() -> None:
    client = await aio.connect("memory:")
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def f(_: aio.Work) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    reconciler = await client.reconcile("r", MANUAL, f)
    reconciler.add("k")
    await asyncio.wait_for(begun.wait(), PATIENCE)
    await client.close()
    await asyncio.wait_for(cancelled.wait(), PATIENCE)
    await aeventually(lambda: reconciler.closed, "it has ended")
    assert reconciler.failure is None


def test_it_ends_with_its_loop(url: str) -> None:
    outcomes: list[str] = []

    async def main(client: aio.Client) -> None:
        begun = asyncio.Event()

        async def f(_: aio.Work) -> None:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                outcomes.append("stopped")

        reconciler = await client.reconcile("r", MANUAL, f, workers=2)
        reconciler.add("k")
        await asyncio.wait_for(begun.wait(), PATIENCE)
        native.append(reconciler._native)

    native: list[Any] = []
    client = asyncio.run(aio.connect(url))
    asyncio.run(main(client))
    assert outcomes == ["stopped"]
    with pytest.raises(coord.Closed):
        native[0].add("k")
    native[0].close(None).wait(PATIENCE)
    # Another loop can go on with the client.

    async def again() -> None:
        seen = asyncio.Event()
        async with await client.reconcile("r", MANUAL, lambda _: seen.set()) as reconciler:
            reconciler.add("k")
            await asyncio.wait_for(seen.wait(), PATIENCE)
        await client.close()

    asyncio.run(again())


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(0)"])
def test_what_ends_the_loop_ends_the_reconciler(shared_url: str, error: str) -> None:
    text = f"""
        async def main():
            async with await coord.aio.connect(URL) as client:
                async def f(work):
                    say("begun")
                    raise {error}
                globals()["r"] = await client.reconcile("r", coord.Source.manual(), f)
                r.add("k")
                await asyncio.sleep(3600)
        try:
            asyncio.run(main())
        except {error.removesuffix("(0)")}:
            say("ended", r.closed)
    """
    with script(text, shared_url) as process:
        assert process.end() == "begun\nended True\n"


async def test_the_leader_hands_over(aclient: aio.Client, url: str) -> None:
    table = aclient.table(f"t{uuid.uuid4().hex}")
    await table.insert("k", {})
    tokens: list[int | None] = []

    async def f(work: aio.Work) -> None:
        tokens.append(work.token)
        work.check()
        await table.put("k", {"token": work.token}, fence=work, strict=True)

    first = await aclient.reconcile("r", table, f, mode="leader")
    await aeventually(lambda: first.stats().runs >= 2, "it runs its own change, too")
    async with await aio.connect(url) as other:
        late: list[int | None] = []
        second = await other.reconcile(
            "r", other.table(table.name), lambda work: late.append(work.token), mode="leader"
        )
        with pytest.raises(coord.NotHeld):
            second.add("k")
        await first.close(PATIENCE)
        await aeventually(lambda: late, "the other runs it")
        await table.drop()
        assert tokens[0] is not None
        assert late[0] is not None
        assert tokens[0] < late[0]


async def test_the_same_is_refused(memory: aio.Client) -> None:
    for options, expected in (
        ({"workers": 0}, coord.InvalidArgument),
        ({"mode": "leader"}, coord.InvalidArgument),
        ({"source": None}, TypeError),
        ({"workers": "1"}, TypeError),
    ):
        with pytest.raises(expected):
            await memory.reconcile(**{"name": "r", "source": MANUAL, "f": print, **options})  # type: ignore[dict-item]
