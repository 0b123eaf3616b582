"""`coord.testing`: a store in memory does what a test says."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support import PATIENCE, eventually

import coord
import coord.testing
from coord import aio


def test_a_leader_is_forced() -> None:
    with coord.connect("memory:t-force") as one, coord.connect("memory:t-force") as two:
        control = coord.testing.Control(one)
        called = threading.Event()

        def lead(term: coord.Term) -> None:
            called.set()
            term.lost.wait()

        term = one.election("boss").campaign()
        with two.election("boss").when_elected(lead):
            token = control.force_leader("boss", two.session.id)
            assert token > term.token
            assert term.lost.reason is coord.LossReason.BROKEN
            assert called.wait(PATIENCE)
            assert two.election("boss").is_leader()


def test_a_session_is_expired() -> None:
    with coord.connect("memory:t-expire") as client, coord.connect("memory:t-expire") as other:
        before = client.session.id
        held = client.lock("a").acquire()
        coord.testing.Control(other).expire_session(before)
        assert held.lost.reason is coord.LossReason.EXPIRED
        eventually(lambda: client.session.state == "live" and client.session.id != before, "a new session")
        with pytest.raises(coord.NotFound):
            coord.testing.Control(other).expire_session(before)


def test_a_clock_is_moved() -> None:
    with coord.connect("memory:", clock="manual") as client:
        control = coord.testing.Control(client)
        begin = control.date
        held = client.lock("a").acquire()
        control.advance(3600)
        held.check()
        # It is the keeper by now, which is no hold of the user's.
        assert client.stats().held == 1
        assert 3600 <= (control.date - begin).total_seconds() < 7200
        control.jump(3600)
        assert held.lost.is_set()


async def test_asyncio_controls_it_too() -> None:
    async with await aio.connect("memory:", clock="manual") as client:
        control = aio.testing.Control(client)
        term = await client.election("boss").campaign()
        await control.advance(60)
        term.check()
        assert await control.force_leader("boss", client.session.id) == term.token
        await control.expire_session(client.session.id)
        assert await term.lost is coord.LossReason.EXPIRED
        control.jump(0)


async def test_a_listener_that_others_cancel_has_failed_and_hears_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async with await aio.connect("memory:") as client:
        control = aio.testing.Control(client)
        heard: asyncio.Queue[coord.Session] = asyncio.Queue()

        @client.on_session_change
        async def listen(session: coord.Session) -> None:
            await heard.put(session)
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled

        for _ in range(2):
            before = client.session.id
            await control.expire_session(before)
            while (await asyncio.wait_for(heard.get(), PATIENCE)).id == before:
                pass
    assert any("a listener" in record.getMessage() and record.exc_info for record in caplog.records)


def test_only_a_store_in_memory_is_controlled(shared_url: str) -> None:
    with coord.connect(shared_url) as client, pytest.raises(coord.Unsupported):
        coord.testing.Control(client)
    with coord.connect("memory:") as client:
        control = coord.testing.Control(client)
        for call in (lambda: control.advance(1), lambda: control.jump(1), lambda: control.date):
            with pytest.raises(coord.Unsupported):
                call()
        with pytest.raises(coord.InvalidArgument):
            control.expire_session("nobody")
        with pytest.raises(coord.InvalidArgument):
            control.force_leader("boss", "nobody")
        for wrong in (1, None, b""):
            with pytest.raises(TypeError):
                control.expire_session(wrong)  # type: ignore[arg-type]
