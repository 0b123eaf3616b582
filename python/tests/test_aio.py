"""The asyncio API, on every store: the same stories, and cancellation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support import PATIENCE, aeventually, is_free, waiters

import coord
from coord import aio


@pytest_asyncio.fixture
async def one(url: str) -> AsyncIterator[aio.Client]:
    async with await aio.connect(url, name="one") as client:
        yield client


@pytest_asyncio.fixture
async def two(url: str) -> AsyncIterator[aio.Client]:
    async with await aio.connect(url, name="two") as client:
        yield client


async def test_a_lock_is_held_and_released(one: aio.Client, two: aio.Client) -> None:
    async with await one.lock("a").acquire(timeout=PATIENCE) as held:
        held.check()
        await held.ensure(one.session.ttl / 2)
        assert held.remaining > 0
        assert await two.lock("a").try_acquire() is None
        assert one.held() == [held]
        info = await two.lock_info("a")
        assert info is not None
        assert info.holder is not None
        assert (info.holder.name, info.holder.token) == ("one", held.token)
        own = await one.lock("a").info()
        assert own is not None
        assert own.holder is not None
        assert own.holder.is_self
        assert [lock.name for lock in await one.locks()] == [held.name]
    assert held.released
    with pytest.raises(coord.NotHeld):
        await held.release()
    later = await two.lock("a").try_acquire()
    assert later is not None
    assert later.token > held.token
    await later.release()
    await one.health()


async def test_contention_and_timeout(one: aio.Client, two: aio.Client) -> None:
    async with await one.lock("a").acquire():
        with pytest.raises(coord.Contended) as caught:
            await two.lock("a").acquire(timeout=0)
        assert caught.value.holder is not None
        assert caught.value.holder.name == "one"
        with pytest.raises(TimeoutError):
            await two.lock("a").acquire(timeout=0.05)


async def test_a_loss_can_be_awaited(one: aio.Client, two: aio.Client) -> None:
    held = await one.lock("a").acquire()
    assert not await held.lost.wait(0.01)

    async def reason() -> coord.LossReason:
        return await held.lost

    waits = [asyncio.create_task(reason()), asyncio.create_task(held.lost.wait())]
    await asyncio.sleep(0)
    breaking = asyncio.create_task(two.break_lock("a", held.token))
    assert await asyncio.wait_for(waits[0], PATIENCE) is coord.LossReason.BROKEN
    assert await asyncio.wait_for(waits[1], PATIENCE)
    assert held.lost.is_set()
    with pytest.raises(coord.Lost):
        await held.release()
    await breaking


async def test_the_end_of_a_block_tells_of_the_loss_but_masks_nothing(one: aio.Client, two: aio.Client) -> None:
    with pytest.raises(coord.Lost):
        async with await one.lock("a").acquire() as held:
            breaking = asyncio.create_task(two.break_lock("a", held.token))
            assert await held.lost is coord.LossReason.BROKEN
    await breaking
    with pytest.raises(KeyError):
        async with await one.lock("a").acquire() as held:
            breaking = asyncio.create_task(two.break_lock("a", held.token))
            assert await held.lost is coord.LossReason.BROKEN
            raise KeyError
    await breaking


async def test_waiting_for_a_loss_ends_with_the_release(one: aio.Client) -> None:
    held = await one.lock("a").acquire()
    wait = asyncio.create_task(held.lost.wait())
    await asyncio.sleep(0)
    await held.release()
    with pytest.raises(coord.NotHeld):
        await asyncio.wait_for(wait, PATIENCE)


async def test_run(one: aio.Client, two: aio.Client) -> None:
    async def f(held: aio.Held, number: int, *, more: int) -> int:
        held.check()
        assert await two.lock("a").try_acquire() is None
        return number + more

    assert await one.lock("a").run(f, 40, more=2) == 42
    async with await two.lock("a").acquire(timeout=PATIENCE):
        pass


async def test_a_session_of_its_own_and_closing(one: aio.Client) -> None:
    async with await one.open_session() as second:
        held = await second.lock("a").acquire()
        wait = asyncio.create_task(second.lock("a").acquire())
        await asyncio.sleep(0)
    assert second.closed
    with pytest.raises(coord.Closed):
        await asyncio.wait_for(wait, PATIENCE)
    assert held.lost.reason is coord.LossReason.CLOSED
    with pytest.raises(coord.Closed):
        await second.lock("a").acquire()


async def test_changes_end_with_the_client(one: aio.Client) -> None:
    second = await one.open_session()
    heard: list[coord.Session] = []
    second.on_session_change(heard.append)
    listening = list(second._tasks)
    changes = second.session_changes()
    await second.close()
    assert [session async for session in changes] == []
    await asyncio.wait_for(asyncio.gather(*listening), PATIENCE)


async def test_a_cancelled_waiter_leaves_the_line(url: str, one: aio.Client, two: aio.Client) -> None:
    watcher = coord.connect(url)
    async with await one.lock("a").acquire():
        task = asyncio.create_task(two.lock("a").acquire())
        await aeventually(lambda: waiters(watcher, "a") == 1, "it waits")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await aeventually(lambda: waiters(watcher, "a") == 0, "it waits no more")
    await aeventually(lambda: is_free(watcher, "a"), "the lock is free")
    with pytest.raises(asyncio.TimeoutError):
        async with await one.lock("a").acquire():
            await asyncio.wait_for(two.lock("a").acquire(), 0.02)
    await aeventually(lambda: is_free(watcher, "a"), "the lock is free")
    watcher.close()


async def test_a_grant_in_the_turn_of_the_cancellation_is_given_back(url: str, one: aio.Client) -> None:
    """The result is in the future already, and the task is cancelled before it sees it."""
    watcher = coord.connect(url)
    for _ in range(20):
        held = await one.lock("a").acquire()
        task = asyncio.create_task(one.lock("a").acquire())
        await aeventually(lambda: waiters(watcher, "a") == 1, "it waits")
        releasing = asyncio.create_task(held.release())
        while not releasing.done():
            await asyncio.sleep(0)
        task.cancel()
        try:
            await (await task).release()
        except asyncio.CancelledError:
            pass
        await aeventually(lambda: is_free(watcher, "a"), "the lock is free")
    watcher.close()


async def test_a_cancelled_release_goes_on(url: str, one: aio.Client) -> None:
    watcher = coord.connect(url)

    async def body() -> None:
        async with await one.lock("a").acquire():
            await asyncio.Event().wait()

    for turns in range(4):
        task = asyncio.create_task(body())
        await aeventually(lambda: not is_free(watcher, "a"), "it is held")
        task.cancel()
        for _ in range(turns):
            # The second cancellation hits the release.
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await aeventually(lambda: is_free(watcher, "a"), "the lock is free")
    watcher.close()


async def test_cancelled_connects_leave_nothing(url: str) -> None:
    before = coord._native.thread_count()
    for turns in range(10):
        task = asyncio.create_task(aio.connect(url))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await (await task).close()
        except asyncio.CancelledError:
            pass
    await aeventually(lambda: coord._native.thread_count() <= max(before, 2), "no threads are left")


@pytest.mark.timeout(600)
async def test_cancels_that_race_grants_leave_every_lock_free(url: str) -> None:
    total = {"memory": 10_000, "sqlite": 1_000}.get(url.split(":")[0], 300)
    names = [f"l{number}" for number in range(20)]
    granted = cancelled = 0
    chance = random.Random(7)
    async with await aio.connect(url) as one, await aio.connect(url) as two:

        async def race(name: str, rounds: int) -> None:
            nonlocal granted, cancelled
            for _ in range(rounds):
                held = await one.lock(name).acquire(timeout=PATIENCE)
                task = asyncio.create_task(two.lock(name).acquire())
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                releasing = asyncio.create_task(held.release())
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    won = await task
                except asyncio.CancelledError:
                    cancelled += 1
                else:
                    granted += 1
                    await won.release()
                await releasing

        await asyncio.gather(*(race(name, total // len(names)) for name in names))
        assert granted + cancelled == total
        assert cancelled > total // 20, "the cancels were too late to race anything"
        with coord.connect(url) as watcher:
            for name in names:
                await aeventually(lambda name=name: is_free(watcher, name), f"{name} is free")
        assert one.stats().held + two.stats().held == 0
        assert one.stats().waiting + two.stats().waiting == 0
