"""Owners, providers and observers for asyncio, on every store: the same stories, and cancellation."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support import PATIENCE, aeventually

import coord
from coord import ObserverEventKind as Kind
from coord import OwnerEventKind, ProviderEventKind, aio


@pytest_asyncio.fixture
async def one(url: str) -> AsyncIterator[aio.Client]:
    async with await aio.connect(url, name="one") as client:
        yield client


@pytest_asyncio.fixture
async def two(url: str) -> AsyncIterator[aio.Client]:
    async with await aio.connect(url, name="two") as client:
        yield client


async def test_a_provider_comes_and_goes(one: aio.Client, two: aio.Client) -> None:
    async with await two.observe("web") as web:
        assert not web.is_available()
        async with await one.provide("web", "10.0.0.1:80", instance_id="a") as provider:
            assert provider.is_registered()
            assert (await provider.events.next(PATIENCE)).kind is ProviderEventKind.REGISTERED
            await web.wait_available(timeout=PATIENCE)
            [info] = web.providers()
            assert (info.name, info.instance_id, info.metadata) == ("one", "a", "10.0.0.1:80")
            await provider.update("10.0.0.2:80")
            await aeventually(lambda: web.providers()[0].metadata == "10.0.0.2:80", "the update is seen")
        await web.wait_unavailable("web", PATIENCE)
        assert [event.kind async for event in provider.events] == [ProviderEventKind.CLOSED]
        with pytest.raises(coord.Timeout):
            await web.wait_available(timeout=0.01)
    with pytest.raises(coord.Closed):
        await web.wait_available()


async def test_an_observer_is_told_of_edges_and_changes(one: aio.Client, two: aio.Client) -> None:
    async with await two.observe("*") as watch:
        first = await one.provide("a")
        await first.close()
        seen = []
        async for event in watch:
            seen.append(event.kind)
            if event.kind is Kind.LAST_DOWN:
                break
    brackets = [Kind.SNAPSHOT_START, Kind.SNAPSHOT_END]
    assert seen == [*brackets, Kind.FIRST_UP, Kind.JOINED, Kind.LEFT, Kind.LAST_DOWN]


async def test_a_cancelled_wait_loses_no_event(one: aio.Client, two: aio.Client) -> None:
    async with await two.observe("a") as watch:
        for _ in range(2):
            await watch.next(PATIENCE)
        for turns in range(20):
            waiting = asyncio.create_task(watch.next())
            await asyncio.sleep(0)
            providing = asyncio.create_task(one.provide("a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            events = []
            try:
                events.append(await waiting)
            except asyncio.CancelledError:
                pass
            await (await providing).close()
            while len(events) < 4:
                events.append(await watch.next(PATIENCE))
            assert [event.kind for event in events] == [Kind.FIRST_UP, Kind.JOINED, Kind.LEFT, Kind.LAST_DOWN]


async def test_owners_come_and_go(url: str, one: aio.Client) -> None:
    async with await one.watch_owners() as watch:
        third = await aio.connect(url, name="three")
        session = third.session.id
        assert session in [owner.session for owner in await one.owners()]
        await third.close()
        kinds = []
        async for event in watch:
            if event.owner is not None and event.owner.session == session:
                kinds.append(event.kind)
                if event.kind is not OwnerEventKind.JOINED:
                    break
        assert kinds == [OwnerEventKind.JOINED, OwnerEventKind.LEFT]


async def test_cancelled_calls_leave_nothing(one: aio.Client, two: aio.Client) -> None:
    async with await two.observe("a") as watch:
        for turns in range(10):
            providing = asyncio.create_task(one.provide("a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            providing.cancel()
            try:
                await (await providing).close()
            except asyncio.CancelledError:
                pass
            await watch.wait_unavailable(timeout=PATIENCE)
            observing = asyncio.create_task(one.observe("a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            observing.cancel()
            try:
                (await observing).close()
            except asyncio.CancelledError:
                pass
        # A provider that was given up is withdrawn, also when that comes after it was seen.
        await aeventually(lambda: not watch.providers(), "nobody provides it")


async def test_a_forgotten_provider_warns_and_is_withdrawn(one: aio.Client, two: aio.Client) -> None:
    async with await two.observe("web") as web:
        with pytest.warns(ResourceWarning, match=r"coord\.aio\.Provider"):
            await one.provide("web")
            gc.collect()
        await web.wait_unavailable(timeout=PATIENCE)
