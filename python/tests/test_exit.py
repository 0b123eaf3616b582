"""The end of the interpreter, of holds, clients and event loops, in every state."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sqlite3
import subprocess
import threading
import uuid
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, aeventually, eventually, is_free, script, waiters

import coord
from coord import aio

# Nothing but a release frees these locks in the time of a test.
SLOW = 'coord.connect(URL, host_liveness="off", ttl=3600)'


@pytest.mark.parametrize(
    "text",
    [
        f'client = {SLOW}; held = client.lock("a").acquire()',
        f'lock = {SLOW}.lock("a"); held = lock.acquire(); del lock',
        f'client = {SLOW}; held = client.lock("a").acquire(); raise SystemExit(0)',
        f'client = {SLOW}; globals()["cycle"] = [client.lock("a").acquire()]; cycle.append(cycle)',
        f"""
client = {SLOW}
held = client.lock("a").acquire()
for _ in range(4):
    threading.Thread(target=client.lock("a").acquire, daemon=True).start()
until(lambda: client.stats().waiting == 4)
threading.excepthook = lambda _: None
""",
        f"""
client = {SLOW}
def hold(held):
    say("in")
    held.lost.wait()
threading.Thread(target=lambda: client.lock("a").run(hold), daemon=True).start()
threading.excepthook = lambda _: None
hear()
""",
        """
async def main():
    client = await coord.aio.connect(URL, host_liveness="off", ttl=3600)
    globals()["held"] = await client.lock("a").acquire()
    globals()["waits"] = asyncio.ensure_future(client.lock("a").acquire())
    await asyncio.sleep(0)
asyncio.run(main())
""",
        """
loop = asyncio.new_event_loop()
client = loop.run_until_complete(coord.aio.connect(URL, host_liveness="off", ttl=3600))
held = loop.run_until_complete(client.lock("a").acquire())
""",
    ],
    ids=["held", "lock-only", "system-exit", "cycle", "waiting-threads", "run", "asyncio-run", "open-loop"],
)
def test_exit_releases(shared_url: str, text: str) -> None:
    with coord.connect(shared_url) as client:
        with script(text, shared_url, options=("-W", "ignore::ResourceWarning")) as process:
            if "hear()" in text:
                assert process.hear() == "in"
                process.say()
            process.end()
        # The process has ended, and so has its hold.
        assert is_free(client, "a")


@pytest.mark.parametrize(
    "text",
    [
        f'client = {SLOW}; term = client.election("a").campaign()',
        f"""
client = {SLOW}
def lead(term):
    say("in")
    term.lost.wait()
client.election("a").when_elected(lead)
hear()
""",
        """
async def lead(term):
    say("in")
    await term.lost
async def main():
    global client
    client = await coord.aio.connect(URL, host_liveness="off", ttl=3600)
    client.election("a").when_elected(lead)
    await asyncio.get_running_loop().run_in_executor(None, hear)
asyncio.run(main())
""",
    ],
    ids=["term", "function", "asyncio"],
)
def test_exit_resigns(shared_url: str, text: str) -> None:
    with coord.connect(shared_url) as client:
        with script(text, shared_url, options=("-W", "ignore::ResourceWarning")) as process:
            if "hear" in text:
                assert process.hear() == "in"
                assert client.election("a").leader() is not None
                process.say()
            process.end()
        assert client.election("a").leader() is None
        assert client.election("a").candidates() == []


def test_exit_waits_for_what_was_forgotten_just_before(tmp_path: Path) -> None:
    """Somebody else writes to the database until this process is at its exit."""
    url = f"sqlite:///{tmp_path}/t.db"
    text = f"""
    import atexit
    def main():
        client = {SLOW}
        held = client.lock("a").acquire()
        say("in")
        hear()
    main()
    atexit.register(say, "exiting")
    """
    with coord.connect(url) as client:
        with script(text, url, options=("-W", "ignore::ResourceWarning")) as process:
            assert process.hear() == "in"
            with closing(sqlite3.connect(tmp_path / "t.db")) as database:
                database.execute("BEGIN IMMEDIATE")
                process.say()
                assert process.hear() == "exiting"
                with pytest.raises(subprocess.TimeoutExpired):
                    process.process.wait(0.5)
                database.rollback()
            process.end()
        assert is_free(client, "a")


def test_exit_withdraws(shared_url: str) -> None:
    text = f'provider = {SLOW}.provide("a"); say("in"); hear()'
    with coord.connect(shared_url) as client, client.observe("a") as watch:
        with script(text, shared_url, options=("-W", "ignore::ResourceWarning")) as process:
            assert process.hear() == "in"
            watch.wait_available(timeout=PATIENCE)
            process.say()
            process.end()
        watch.wait_unavailable(timeout=PATIENCE)


def test_exit_amid_busy_threads_never_crashes(shared_url: str) -> None:
    text = """
    import logging
    logging.basicConfig(level=logging.DEBUG, filename=os.devnull)
    threading.excepthook = lambda _: None
    client = coord.connect(URL)
    running = threading.Semaphore(0)
    def work(number):
        running.release()
        while True:
            try:
                client.lock(f"l{number % 2}").acquire(timeout=0.001).release()
            except (coord.Timeout, coord.Closed):
                pass
    for number in range(6):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    client.on_session_change(print)
    for _ in range(6):
        running.acquire()
    """
    for _ in range(8):
        with script(text, shared_url, options=("-W", "ignore")) as process:
            process.end()


def test_exit_is_bounded(shared_url: str) -> None:
    """A function that never ends under its lock holds the exit up for no longer than `close_timeout`."""
    text = """
    client = coord.connect(URL, close_timeout=0.2)
    def hold(held):
        say("in")
        threading.Event().wait()
    threading.Thread(target=lambda: client.lock("a").run(hold), daemon=True).start()
    hear()
    """
    with script(text, shared_url) as process:
        assert process.hear() == "in"
        process.say()
        process.end()


def test_exit_handlers_that_come_later_may_use_the_client(shared_url: str) -> None:
    text = """
    import atexit
    def last():
        with coord.connect(URL) as client, client.lock("a").acquire(timeout=30):
            say("last")
    # Before coord's own, which was registered first.
    atexit.register(last)
    coord.connect(URL).close()
    """
    with script(text, shared_url) as process:
        assert process.end().split() == ["last"]


@pytest.mark.parametrize("use", ["client", "candidacy"])
def test_exit_handlers_that_come_later_may_wait_for_threads_of_coord(shared_url: str, use: str) -> None:
    text = """
    import atexit
    stop, begun = threading.Event(), threading.Event()
    def client():
        try:
            with coord.connect(URL) as client:
                begun.set()
                while not stop.wait(0.01):
                    client.session
        except coord.Closed:
            pass
    def candidacy():
        with coord.connect(URL, close_timeout=0.2) as client:
            done = threading.Event()
            def lead(term):
                begun.set()
                stop.wait()
                done.set()
            client.election("a").when_elected(lead)
            done.wait()
    thread = threading.Thread(target=globals()[sys.argv[2]], daemon=True)
    def last():
        stop.set()
        thread.join(30)
        say("alive" if thread.is_alive() else "done")
    # Before the first connect, so that it runs when the clients are closed.
    atexit.register(last)
    thread.start()
    begun.wait()
    """
    with script(text, shared_url, use) as process:
        assert process.end().split() == ["done"]


def test_a_forgotten_hold_warns_and_is_released(client: coord.Client, other: coord.Client) -> None:
    held = client.lock("a").acquire()
    lost = held.lost
    assert not is_free(other, "a")
    with pytest.warns(ResourceWarning, match="default/a"):
        del held
        gc.collect()
    eventually(lambda: is_free(other, "a"), "it is released")
    assert not lost.is_set()
    with pytest.raises(coord.NotHeld):
        lost.wait(PATIENCE)


def test_a_hold_that_ended_well_does_not_warn(client: coord.Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = client.lock("a").acquire()
        held.release()
        del held
        held = client.lock("a").acquire()
        client.close()
        del held
        gc.collect()


def test_a_forgotten_client_warns_and_is_closed(url: str) -> None:
    with coord.connect(url) as watcher:
        client = coord.connect(url, host_liveness="off", ttl=3600)
        client.on_session_change(lambda session: None)
        with pytest.warns(ResourceWarning, match="Held"):
            client.lock("a").acquire()
            gc.collect()
        with pytest.warns(ResourceWarning, match="Client"):
            del client
            gc.collect()
        eventually(lambda: is_free(watcher, "a"), "it is released")


# Of a client and a table's name; of asyncio's client some are to be awaited.
WATCHES: dict[str, Callable[[Any, str], Any]] = {
    "observer": lambda client, table: client.observe("*"),
    "owners": lambda client, table: client.watch_owners(),
    "leader": lambda client, table: client.election("a").observe(),
    "table": lambda client, table: client.table(table).watch(),
    "log": lambda client, table: client.table(table).log(),
    "outbox": lambda client, table: client.outbox("a", client.mailer(host="localhost")).watch(),
}


def is_there(other: coord.Client) -> bool:
    """Whether the client that is to be forgotten has a session."""
    return "forgotten" in [owner.name for owner in other.owners()]


@pytest.mark.parametrize("watch_of", WATCHES.values(), ids=WATCHES)
def test_a_watch_keeps_its_client_open(
    client: coord.Client, url: str, watch_of: Callable[[coord.Client, str], coord.Watch[object]]
) -> None:
    table = client.table(f"t{uuid.uuid4().hex}")
    watch = watch_of(coord.connect(url, name="forgotten"), table.name)
    gc.collect()
    table.insert("a", {})
    watch.next(PATIENCE)
    assert is_there(client)
    with pytest.warns(ResourceWarning, match="name=forgotten .* was never closed"):
        del watch
        gc.collect()
    eventually(lambda: not is_there(client), "it is closed")
    table.drop()


@pytest.mark.parametrize("watch_of", WATCHES.values(), ids=WATCHES)
async def test_asyncio_s_watch_keeps_its_client_open_too(
    client: coord.Client, url: str, watch_of: Callable[[aio.Client, str], Any]
) -> None:
    table = client.table(f"t{uuid.uuid4().hex}")
    watch = watch_of(await aio.connect(url, name="forgotten"), table.name)
    if inspect.isawaitable(watch):
        watch = await watch
    gc.collect()
    table.insert("a", {})
    await watch.next(PATIENCE)
    assert is_there(client)
    with pytest.warns(ResourceWarning, match="name=forgotten .* was never closed"):
        del watch
        gc.collect()
    await aeventually(lambda: not is_there(client), "it is closed")
    table.drop()


async def test_a_cursor_keeps_its_client_open(client: coord.Client, url: str) -> None:
    """While it reads on: more documents than cross at once."""
    table = client.table(f"t{uuid.uuid4().hex}")
    for n in range(200):
        table.insert(n, {})

    def forgetful() -> coord.Cursor[Any]:
        mine = coord.connect(url, name="forgotten").table(table.name)
        return mine.aggregate([]) if client.location.startswith("mongodb") else mine.cursor()

    async def forgetful_too() -> aio.Cursor[Any]:
        mine = (await aio.connect(url, name="forgotten")).table(table.name)
        return await (mine.aggregate([]) if client.location.startswith("mongodb") else mine.cursor())

    cursor, other = forgetful(), await forgetful_too()
    gc.collect()
    assert len(list(cursor)) == len([found async for found in other]) == 200
    assert is_there(client)
    with pytest.warns(ResourceWarning, match="name=forgotten .* was never closed"):
        del cursor, other
        gc.collect()
    await aeventually(lambda: not is_there(client), "they are closed")
    table.drop()


async def test_asyncio_s_forgotten_hold_warns_too(url: str) -> None:
    async with await aio.connect(url) as client:
        with pytest.warns(ResourceWarning, match=r"coord\.aio\.Held"):
            await client.lock("a").acquire()
            gc.collect()
            # Also while somebody keeps the warning, and with it the hold.
            await (await client.lock("a").acquire(timeout=PATIENCE)).release()
        await (await client.lock("a").acquire(timeout=PATIENCE)).release()


def test_a_client_serves_several_loops(url: str) -> None:
    client = asyncio.run(aio.connect(url))

    async def use() -> int:
        async with await client.lock("a").acquire(timeout=PATIENCE) as held:
            return held.token

    tokens = [asyncio.run(use()) for _ in range(5)]
    assert tokens == sorted(set(tokens))
    held = asyncio.run(client.lock("a").acquire())
    asyncio.run(held.release())
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(use()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(results)) == 4
    asyncio.run(client.close())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "gone"])
def test_a_grant_for_a_loop_that_was_closed_is_given_back(url: str, keep: bool) -> None:
    with coord.connect(url) as watcher, coord.connect(url) as holder:
        held = holder.lock("a").acquire()
        client, kept = abandon_a_wait(url, lambda: waiters(watcher, "a") == 1)
        assert waiters(watcher, "a") == 1
        held.release()
        # A new loop ends what an old one has left, also when somebody keeps that.
        if not keep:
            kept.clear()
            gc.collect()
        asyncio.run(use_a_loop())
        eventually(lambda: is_free(watcher, "a"), "it is free")
        asyncio.run(client.close())
        kept.clear()
        gc.collect()


def abandon_a_wait(url: str, waits: Callable[[], bool]) -> tuple[aio.Client, list[object]]:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    client = loop.run_until_complete(aio.connect(url))
    task = loop.create_task(client.lock("a").acquire())

    async def begun() -> None:
        while not waits():
            await asyncio.sleep(0.005)

    loop.run_until_complete(begun())
    loop.close()
    return client, [task, loop]


async def use_a_loop() -> None:
    async with await aio.connect("memory:"):
        pass


def test_threads_and_descriptors_return_to_none(url: str) -> None:
    import os

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with coord.connect(url):
        pass
    # What earlier tests have caught keeps their clients in cycles.
    gc.collect()
    eventually(lambda: coord._native.thread_count() == 0, "no threads of earlier tests")
    before = descriptors()

    async def use() -> None:
        async with await aio.connect(url) as client, await client.lock("a").acquire():
            pass

    for _ in range(3):
        with coord.connect(url) as client, client.lock("a").acquire():
            pass
        del client
        asyncio.run(use())
    gc.collect()
    eventually(lambda: coord._native.thread_count() == 0, "no threads")
    eventually(lambda: descriptors() <= before, "no more descriptors than before")
