"""Forked, spawned and served processes: a forked child can use nothing of its parent's, and harms nothing."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, is_free, script

import coord

# Since Python 3.12 a fork beside threads is warned of: here it is the point.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

inherited: dict[str, Any] = {}


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except coord.Forked as error:
        assert error.reason is coord.LossReason.FORKED
        return "Forked"
    except Exception as error:
        return repr(error)
    return "no error"


def use_what_was_inherited(answer: multiprocessing.connection.Connection) -> None:
    """Runs in a forked child."""
    answers = ask_everything()
    inherited.clear()
    gc.collect()
    answer.send(answers)


def ask_everything() -> tuple[dict[str, str], tuple[Any, ...]]:
    """What each call answers in a forked child."""
    client, held, lock = inherited["client"], inherited["held"], inherited["lock"]
    calls: dict[str, Callable[[], object]] = {
        "acquire": lock.acquire,
        "acquire with a timeout": lambda: lock.acquire(timeout=1),
        "try_acquire": lock.try_acquire,
        "info": lock.info,
        "lock": lambda: client.lock("b"),
        "locks": client.locks,
        "break_lock": lambda: client.break_lock("a", held.token, force=True),
        "session": lambda: client.session,
        "changes": client.session_changes,
        "stats": client.stats,
        "health": client.health,
        "open_session": client.open_session,
        "check": held.check,
        "ensure": lambda: held.ensure(1),
        "release": held.release,
        "lost": lambda: held.lost.wait(1),
        "election": lambda: client.election("b"),
        "campaign": inherited["election"].campaign,
        "leader": inherited["election"].leader,
        "observe": inherited["election"].observe,
        "when_elected": lambda: inherited["election"].when_elected(print),
        "term.check": inherited["term"].check,
        "term.resign": inherited["term"].resign,
        "term.proclaim": lambda: inherited["term"].proclaim("child"),
        "provide": lambda: client.provide("b"),
        "update": lambda: inherited["provider"].update("child"),
        "provider.close": inherited["provider"].close,
        "is_available": inherited["observer"].is_available,
        "observer.next": inherited["observer"].next,
        "owners": client.owners,
        "close": client.close,
        "connect": lambda: coord.connect("memory:"),
        "aio.connect": lambda: asyncio.run(coord.aio.connect("memory:")),
    }
    answers = {name: refused(call) for name, call in calls.items()}
    term, election = inherited["term"], inherited["election"]
    assert (term.remaining, term.lost.reason, election.is_leader()) == (0, coord.LossReason.FORKED, False)
    assert not inherited["provider"].is_registered()
    assert not inherited["observer"].synced()
    facts = (held.remaining, held.lost.is_set(), held.lost.reason, held.token, "forked" in repr(client))
    return answers, facts


def connect_anew(url: str, answer: multiprocessing.connection.Connection) -> None:
    """Runs in a process of its own."""
    with coord.connect(url, name="child") as client, client.lock("a").acquire(timeout=PATIENCE) as held:
        answer.send(held.token)


def test_a_forked_child_is_refused_and_the_parent_works_on(shared_url: str) -> None:
    context = multiprocessing.get_context("fork")
    with coord.connect(shared_url, host_liveness="off", ttl=60) as client:
        held = client.lock("a").acquire()
        inherited.update(client=client, held=held, lock=client.lock("a"), election=client.election("boss"))
        inherited.update(term=client.election("boss").campaign(), provider=client.provide("web", "parent"))
        inherited.update(observer=client.observe("web"))
        term, provider, observer = inherited["term"], inherited["provider"], inherited["observer"]
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=use_what_was_inherited, args=(sender,))
        child.start()
        assert receiver.poll(PATIENCE), "the child hangs"
        answers, facts = receiver.recv()
        child.join(PATIENCE)
        assert child.exitcode == 0
        assert set(answers.values()) == {"Forked"}, answers
        assert facts == (0.0, True, coord.LossReason.FORKED, held.token, True)
        inherited.clear()

        term.check()
        assert term.value == ""
        assert [one.metadata for one in observer.providers()] == ["parent"]
        term.resign()
        provider.close()
        held.check()
        held.ensure(30)
        with coord.connect(shared_url) as watcher:
            assert watcher.lock("a").try_acquire() is None
            held.release()
            assert is_free(watcher, "a")
        client.lock("a").acquire(timeout=PATIENCE).release()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_processes_work(shared_url: str, method: str) -> None:
    context = multiprocessing.get_context(method)
    with coord.connect(shared_url) as client:
        held = client.lock("a").acquire()
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=connect_anew, args=(shared_url, sender))
        child.start()
        held.release()
        assert receiver.poll(PATIENCE * 2), "the child hangs"
        assert receiver.recv() > held.token
        child.join(PATIENCE)
        assert child.exitcode == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_at_the_end_of_a_child_what_it_holds_is_released(shared_url: str, method: str) -> None:
    text = """
    import multiprocessing
    _, url, method, text = sys.argv
    # The child keeps what it holds in the dict, until it has ended.
    child = multiprocessing.get_context(method).Process(target=exec, args=(text, {"URL": url}))
    child.start()
    child.join(30)
    say(child.exitcode)
    """
    child = (
        'import coord; client = coord.connect(URL, host_liveness="off", ttl=3600); held = client.lock("a").acquire()'
    )
    with coord.connect(shared_url) as client:
        with script(text, shared_url, method, child, options=("-W", "ignore::ResourceWarning")) as process:
            assert process.end().split() == ["0"]
        assert client.lock_info("a") is not None, "it was never held"
        assert is_free(client, "a")


def test_a_fork_before_the_first_connect_is_harmless(shared_url: str) -> None:
    text = """
    child = os.fork()
    with coord.connect(URL) as client, client.lock("a").acquire(timeout=30):
        say("held")
    if child:
        assert os.waitpid(child, 0)[1] == 0
    """
    with script(text, shared_url) as process:
        assert process.end().split() == ["held", "held"]


def test_a_forked_child_ends_like_any_process(shared_url: str) -> None:
    """With what it inherited still there, through exit handlers and the end of the interpreter."""
    text = """
    import logging
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    client = coord.connect(URL, host_liveness="off", ttl=60)
    held = client.lock("a").acquire()
    async def hold():
        inner = await coord.aio.connect(URL)
        kept = await inner.lock("b").acquire()
        child = os.fork()
        if not child:
            try:
                await inner.lock("b").acquire()
            except coord.Forked:
                sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        await kept.release()
        await inner.close()
    asyncio.run(hold())
    if not os.fork():
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 5
    held.check()
    held.release()
    client.close()
    say("parent is fine")
    """
    with script(text, shared_url, options=("-W", "ignore::DeprecationWarning")) as process:
        assert "parent is fine" in process.end()


def test_a_fork_beside_busy_threads(shared_url: str) -> None:
    """Whatever the other threads had locked in the moment of the fork, the child does not wait for it."""
    text = """
    client = coord.connect(URL)
    stop = threading.Event()
    def work(name):
        while not stop.is_set():
            client.lock(name).acquire().release()
            client.session, client.stats(), client.held()
    threads = [threading.Thread(target=work, args=(f"l{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        child = os.fork()
        if not child:
            for call in (client.stats, client.health, lambda: client.lock("x"), client.close):
                try:
                    call()
                except coord.Forked:
                    continue
                os._exit(1)
            client.held(), repr(client)
            os._exit(0)
        pid, status = os.waitpid(child, 0)
        assert status == 0, status
    stop.set()
    for thread in threads:
        thread.join(30)
    client.close()
    say("done")
    """
    with script(text, shared_url, options=("-W", "ignore")) as process:
        assert process.end().split() == ["done"]


@pytest.mark.parametrize("before", ['coord.connect("memory:")', 'coord.mailer(host="localhost")'])
def test_a_refused_child_has_no_thread_for_the_log(before: str) -> None:
    """There is no log in it: the thread would find that out again and again."""
    text = f"""
    kept = {before}
    calls = (
        lambda: coord.connect("memory:"),
        lambda: asyncio.run(coord.aio.connect("memory:")),
        lambda: coord.mailer(host="localhost"),
        lambda: coord.aio.mail.mailer(host="localhost"),
    )
    child = os.fork()
    if not child:
        refused = 0
        for call in calls:
            try:
                call()
            except coord.Forked:
                refused += 1
        say(refused, *(thread.name for thread in threading.enumerate()))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    with script(text, options=("-W", "ignore")) as process:
        assert process.end().split() == ["4", "MainThread"]


@pytest.mark.parametrize("before", ["os.getpid()", "coord.connect('nonsense:')"], ids=["nothing", "a mistake"])
def test_a_child_that_may_connect_has_a_log_of_its_own(before: str) -> None:
    text = f"""
    import contextlib, logging
    with contextlib.suppress(coord.InvalidArgument):
        {before}
    child = os.fork()
    if not child:
        opened = []
        logger = logging.getLogger("coord")
        logger.setLevel(logging.DEBUG)
        handler = logging.Handler()
        handler.emit = lambda record: opened.append(record) if "session opened" in record.getMessage() else None
        logger.addHandler(handler)
        coord.connect("memory:").close()
        until(lambda: opened)
        os._exit(0)
    say(os.waitpid(child, 0)[1])
    """
    with script(text, options=("-W", "ignore")) as process:
        assert process.end().split() == ["0"]


def test_forked_is_what_the_native_module_says() -> None:
    assert not coord._native.forked()
    assert os.getpid() > 0
