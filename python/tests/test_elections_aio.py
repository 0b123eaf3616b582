"""Elections for asyncio, on every store: the same stories, and cancellation."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support import PATIENCE, aeventually

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


async def until_candidates(client: aio.Client, count: int) -> None:
    async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else _forever():
        while len(await client.election("boss").candidates()) != count:
            await asyncio.sleep(0.005)


class _forever:  # noqa: N801
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


async def until_nobody_leads(client: aio.Client) -> None:
    async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else _forever():
        while await client.election("boss").leader() is not None:
            await asyncio.sleep(0.005)
    await until_candidates(client, 0)


async def test_a_term_is_won_and_resigned(one: aio.Client, two: aio.Client) -> None:
    election = one.election("boss")
    async with await election.campaign("here", timeout=PATIENCE) as term:
        term.check()
        await term.ensure(one.session.ttl / 2)
        assert election.is_leader()
        leader = await two.election("boss").leader()
        assert leader is not None
        assert (leader.name, leader.value, leader.token) == ("one", "here", term.token)
        await term.proclaim("there")
        assert term.value == "there"
        assert await two.election("boss").try_campaign() is None
        with pytest.raises(coord.Contended):
            await two.election("boss").campaign(timeout=0)
        with pytest.raises(TimeoutError):
            await two.election("boss").campaign(timeout=0.05)
    assert term.resigned
    assert await term.lost is coord.LossReason.RESIGNED
    with pytest.raises(coord.NotHeld):
        await term.resign()
    later = await two.election("boss").try_campaign()
    assert later is not None
    assert later.token > term.token
    await later.resign()


async def test_hand_over_and_priorities(one: aio.Client, two: aio.Client) -> None:
    term = await one.election("boss").campaign()
    high = asyncio.create_task(two.election("boss").campaign("high", priority=5))
    await until_candidates(one, 1)
    third = await two.open_session()
    low = asyncio.create_task(third.election("boss").campaign("low"))
    await until_candidates(one, 2)
    waiting = await one.election("boss").candidates()
    assert [candidate.priority for candidate in waiting] == [5, 0]
    await term.transfer_to(waiting[1])
    won = await asyncio.wait_for(low, PATIENCE)
    assert not high.done()
    await won.resign()
    await (await asyncio.wait_for(high, PATIENCE)).resign()
    await third.close()


async def test_an_observer_hears_of_everything_in_order(one: aio.Client, two: aio.Client) -> None:
    async with await two.election("boss").observe() as watch:
        assert await watch.next(PATIENCE) is None
        term = await one.election("boss").campaign("a")
        leader = await watch.next(PATIENCE)
        while leader is None or leader.value is None:
            leader = await watch.next(PATIENCE)
        assert (leader.value, leader.token) == ("a", term.token)
        # A cancelled wait loses nothing.
        for turns in range(4):
            wait = asyncio.create_task(watch.next())
            for _ in range(turns):
                await asyncio.sleep(0)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
        with pytest.raises(coord.Timeout):
            await watch.next(timeout=0.01)
        await term.proclaim("b")
        changed = await watch.next(PATIENCE)
        assert changed is not None
        assert changed.value == "b"
        wait = asyncio.create_task(watch.next())
        resigning = asyncio.create_task(term.resign())
        await asyncio.sleep(0)
        wait.cancel()
        await resigning
        try:
            assert await wait is None
        except asyncio.CancelledError:
            assert await watch.next(PATIENCE) is None
    assert [leader async for leader in watch] == []


async def test_a_watch_ends_with_its_client(one: aio.Client) -> None:
    second = await one.open_session()
    watch = await second.election("boss").observe()

    async def read() -> list[coord.Leader | None]:
        return [leader async for leader in watch]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await second.close()
    assert (await asyncio.wait_for(reading, PATIENCE))[1:] == []


async def test_a_function_is_called_at_each_win(one: aio.Client, two: aio.Client) -> None:
    terms: asyncio.Queue[aio.Term] = asyncio.Queue()
    failures = 2

    @one.election("boss").when_elected(value="v", backoff=(0, 0.01))
    async def lead(term: aio.Term) -> None:
        nonlocal failures
        await terms.put(term)
        if failures:
            failures -= 1
            raise KeyError("mine")
        await term.lost

    seen = [await asyncio.wait_for(terms.get(), PATIENCE) for _ in range(3)]
    assert lead.running
    assert one.election("boss").is_leader()
    await seen[-1].resign()
    seen.append(await asyncio.wait_for(terms.get(), PATIENCE))
    tokens = [term.token for term in seen]
    assert tokens == sorted(set(tokens))
    await lead.close(PATIENCE)
    await aeventually(lambda: lead.closed, "it is closed")
    await until_nobody_leads(two)


async def test_a_plain_function_will_do(one: aio.Client, two: aio.Client) -> None:
    called: list[int] = []
    async with one.election("boss").when_elected(lambda term: called.append(term.token)):
        await aeventually(lambda: called, "it is called")
        assert one.election("boss").is_leader()
    await until_nobody_leads(two)


async def test_closing_waits_for_the_function(one: aio.Client) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def lead(term: aio.Term) -> None:
        entered.set()
        await leave.wait()

    candidacy = one.election("boss").when_elected(lead)
    await asyncio.wait_for(entered.wait(), PATIENCE)
    with pytest.raises(coord.Timeout):
        await candidacy.close(timeout=0.05)
    leave.set()
    await candidacy.close(PATIENCE)

    async def leave_at_once(term: aio.Term) -> None:
        await second.close()
        left.set()

    left = asyncio.Event()
    second = one.election("boss").when_elected(leave_at_once)
    await asyncio.wait_for(left.wait(), PATIENCE)
    await second.close(PATIENCE)


async def cancelled_by_others() -> None:
    worker = asyncio.create_task(asyncio.Event().wait())
    worker.cancel()
    await worker


async def test_a_function_that_others_cancel_has_failed(one: aio.Client, caplog: pytest.LogCaptureFixture) -> None:
    tokens: list[int] = []
    again = asyncio.Event()

    async def lead(term: aio.Term) -> None:
        tokens.append(term.token)
        if len(tokens) == 1:
            await cancelled_by_others()
        again.set()
        await term.lost

    async with one.election("boss").when_elected(lead, backoff=(0, 0.01)) as candidacy:
        await asyncio.wait_for(again.wait(), PATIENCE)
        assert tokens == sorted(set(tokens))
        assert candidacy.running
    assert any("has failed" in record.getMessage() and record.exc_info for record in caplog.records)


async def test_a_log_that_fails_ends_no_candidacy(one: aio.Client, broken_log: None) -> None:
    tokens: list[int] = []

    async def lead(term: aio.Term) -> None:
        tokens.append(term.token)
        if len(tokens) == 1:
            raise KeyError("mine")
        await term.lost

    async with one.election("boss").when_elected(lead, backoff=(0, 0.01)) as candidacy:
        await aeventually(lambda: len(tokens) == 2, "it is called again")
        assert candidacy.running


async def test_a_candidacy_whose_task_is_cancelled_ends_with_its_function(one: aio.Client, two: aio.Client) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def lead(term: aio.Term) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await leave.wait()

    candidacy = one.election("boss").when_elected(lead)
    await asyncio.wait_for(entered.wait(), PATIENCE)
    candidacy._task.cancel()
    with pytest.raises(coord.Timeout):
        await candidacy.close(timeout=0.05)
    assert await two.election("boss").try_campaign() is None
    leave.set()
    await candidacy.close(PATIENCE)
    assert candidacy.closed
    assert candidacy._task.cancelled()
    await until_nobody_leads(two)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not tell who was cancelled")
async def test_a_campaign_that_others_cancel_says_so(one: aio.Client, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(asyncio.CancelledError):
        await one.election("boss").run(lambda term: cancelled_by_others())
    assert any("was cancelled" in record.getMessage() for record in caplog.records)


async def test_functions_end_with_client_and_loop(url: str, one: aio.Client) -> None:
    entered = asyncio.Event()
    reasons: list[coord.LossReason] = []

    async def lead(term: aio.Term) -> None:
        entered.set()
        reasons.append(await term.lost)

    second = await one.open_session()
    candidacy = second.election("boss").when_elected(lead)
    await asyncio.wait_for(entered.wait(), PATIENCE)
    await second.close()
    await aeventually(lambda: candidacy.closed, "it is closed")
    assert reasons == [coord.LossReason.CLOSED]

    def in_another_loop() -> None:
        async def main() -> aio.Client:
            client = await aio.connect(url)
            called = asyncio.Event()

            async def wait_for_ever(term: aio.Term) -> None:
                called.set()
                await asyncio.Event().wait()

            client.election("boss").when_elected(wait_for_ever)
            gc.collect()
            await asyncio.wait_for(called.wait(), PATIENCE)
            return client

        client = asyncio.run(main())
        # Its loop has ended, and with it the function.
        asyncio.run(client.close())

    await asyncio.get_running_loop().run_in_executor(None, in_another_loop)
    await until_nobody_leads(one)


async def test_run(one: aio.Client, two: aio.Client) -> None:
    failed = False

    async def lead(term: aio.Term) -> str:
        nonlocal failed
        if not failed:
            failed = True
            raise KeyError("mine")
        assert await two.election("boss").try_campaign() is None
        return "done"

    assert await one.election("boss").run(lead, backoff=(0, 0)) == "done"
    await until_nobody_leads(two)

    async def wait(term: aio.Term) -> None:
        entered.set()
        await asyncio.Event().wait()

    entered = asyncio.Event()
    running = asyncio.create_task(one.election("boss").run(wait))
    await asyncio.wait_for(entered.wait(), PATIENCE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_nobody_leads(two)


async def test_a_cancelled_candidate_leaves_the_line(one: aio.Client, two: aio.Client) -> None:
    async with await one.election("boss").campaign():
        waiting = asyncio.create_task(two.election("boss").campaign())
        await until_candidates(one, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until_candidates(one, 0)


async def test_a_win_in_the_turn_of_the_cancellation_is_given_back(one: aio.Client) -> None:
    """The term is in the future already, and the task is cancelled before it sees it."""
    for _ in range(20):
        term = await one.election("boss").campaign()
        waiting = asyncio.create_task(one.election("boss").campaign())
        await until_candidates(one, 1)
        resigning = asyncio.create_task(term.resign())
        while not resigning.done():
            await asyncio.sleep(0)
        waiting.cancel()
        try:
            await (await waiting).resign()
        except asyncio.CancelledError:
            pass
        await until_nobody_leads(one)


async def test_a_cancelled_resignation_goes_on(one: aio.Client, two: aio.Client) -> None:
    async def body() -> None:
        async with await one.election("boss").campaign():
            await asyncio.Event().wait()

    for turns in range(4):
        task = asyncio.create_task(body())
        await aeventually(one.election("boss").is_leader, "it leads")
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_nobody_leads(two)


async def test_a_forgotten_term_warns_and_is_resigned(one: aio.Client, two: aio.Client) -> None:
    with pytest.warns(ResourceWarning, match=r"coord\.aio\.Term"):
        await one.election("boss").campaign()
        gc.collect()
    await until_nobody_leads(two)
