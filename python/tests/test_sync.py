"""The synchronous API, on every store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support import PATIENCE, eventually, is_free, waiters

import coord


def test_a_lock_is_held_and_released(client: coord.Client, other: coord.Client) -> None:
    with client.lock("a").acquire(timeout=PATIENCE) as held:
        assert held.name == client.lock("a").name
        assert held.token > 0
        assert 0 < held.remaining <= client.session.ttl
        held.check()
        held.ensure(client.session.ttl / 2)
        assert other.lock("a").try_acquire() is None
        assert client.held() == [held]
    assert held.released
    assert held.remaining == 0
    assert client.held() == []
    with pytest.raises(coord.NotHeld):
        held.check()
    with pytest.raises(coord.NotHeld):
        held.release()
    with other.lock("a").acquire(timeout=PATIENCE) as later:
        assert later.token > held.token
    assert later.released


def test_contention_tells_who_holds(client: coord.Client, other: coord.Client) -> None:
    with client.lock("a").acquire() as held:
        with pytest.raises(coord.Contended) as caught:
            other.lock("a").acquire(timeout=0)
        holder = caught.value.holder
        assert holder is not None
        assert (holder.name, holder.token, holder.is_self) == ("one", held.token, False)
        assert holder.session == client.session.id
        with pytest.raises(coord.Contended) as caught:
            client.lock("a").acquire(timeout=0)
        assert caught.value.holder is not None
        assert caught.value.holder.is_self
        with pytest.raises(TimeoutError) as timeout:
            other.lock("a").acquire(timeout=0.05)
        assert isinstance(timeout.value, coord.Timeout)
    assert other.stats().timeouts == 1


def test_waiters_are_listed_and_served_in_order(client: coord.Client, other: coord.Client) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        with other.lock("a").acquire(timeout=PATIENCE):
            served.append(number)

    held = client.lock("a").acquire()
    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        eventually(lambda n=number: waiters(client, "a") == n + 1, "the waiter is in the store")
    info = client.lock_info("a")
    assert info is not None
    assert info == client.lock("a").info()
    assert info.holder is not None
    assert info.holder.name == "one"
    assert [waiter.name for waiter in info.waiters] == ["two"] * 3
    assert client.stats().held == 1
    assert other.stats().waiting == 3
    held.release()
    for thread in threads:
        thread.join(PATIENCE)
    assert served == [0, 1, 2]


def test_locks_lists_this_namespace(client: coord.Client) -> None:
    assert client.lock_info("a") is None
    assert client.locks() == []
    with client.lock("a").acquire(), client.lock("s/b").acquire():
        names = [info.name for info in client.locks()]
        namespace = names[0].split("/")[0]
        assert names == [f"{namespace}/default/a", f"{namespace}/s/b"]
        assert [info.name for info in client.locks(f"{namespace}/s/")] == [f"{namespace}/s/b"]
        html = client.locks()._repr_html_()
        assert html.count("<tr>") == 3
        assert "one on" in html


@contextmanager
def breaking(operator: coord.Client, held: coord.Held) -> Iterator[None]:
    """Breaks the lock; in the block it is lost, at the end nobody has it any more."""
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(operator.break_lock, "a", held.token)
        assert held.lost.wait(PATIENCE)
        yield
        broken.result(PATIENCE)


def test_a_broken_lock_is_lost(client: coord.Client, other: coord.Client) -> None:
    held = client.lock("a").acquire()
    assert not held.lost.wait(0)
    assert not held.lost.wait(0.01)
    with pytest.raises(coord.Conflict):
        other.break_lock("a", held.token + 1)
    assert not held.lost.is_set()
    with breaking(other, held):
        assert held.lost.reason is coord.LossReason.BROKEN
        assert held.remaining == 0
        assert "BROKEN" in repr(held)
        for call in (held.check, held.release):
            with pytest.raises(coord.Lost) as caught:
                call()
            assert caught.value.reason is coord.LossReason.BROKEN
    assert held.lost.reason is coord.LossReason.BROKEN
    assert is_free(other, "a")


def test_a_holder_can_be_removed_by_force(client: coord.Client, other: coord.Client) -> None:
    held = client.lock("a").acquire()
    other.break_lock("a", held.token, force=True)
    with other.lock("a").acquire(timeout=PATIENCE) as later:
        assert later.token > held.token
        assert held.lost.wait(PATIENCE)
        with pytest.raises(coord.Lost):
            held.release()
        later.check()


def test_the_end_of_a_block_tells_of_the_loss(client: coord.Client, other: coord.Client) -> None:
    with ExitStack() as stack, pytest.raises(coord.Lost), client.lock("a").acquire() as held:
        stack.enter_context(breaking(other, held))


def test_the_end_of_a_block_masks_nothing(client: coord.Client, other: coord.Client) -> None:
    with ExitStack() as stack, pytest.raises(KeyError) as caught, client.lock("a").acquire() as held:
        stack.enter_context(breaking(other, held))
        raise KeyError("mine")
    assert "releasing lock" in getattr(caught.value, "__notes__", ["releasing lock"])[0]


def test_a_release_inside_of_the_block_is_fine(client: coord.Client) -> None:
    with client.lock("a").acquire() as held:
        held.release()
    assert held.released


def test_waiting_for_a_loss_ends_with_the_release(client: coord.Client) -> None:
    held = client.lock("a").acquire()
    started, ended = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        with pytest.raises(coord.NotHeld):
            held.lost.wait()
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(PATIENCE)
    held.release()
    assert ended.wait(PATIENCE)
    thread.join(PATIENCE)
    assert held.lost.reason is None
    client.close()
    assert not held.lost.is_set()


def test_run_holds_the_lock_around_a_function(client: coord.Client, other: coord.Client) -> None:
    def f(held: coord.Held, number: int, *, more: int) -> int:
        held.check()
        assert other.lock("a").try_acquire() is None
        return number + more

    assert client.lock("a").run(f, 40, more=2) == 42
    assert is_free(other, "a")

    def fail(held: coord.Held) -> None:
        raise KeyError(held.token)

    with pytest.raises(KeyError):
        client.lock("a").run(fail)
    assert is_free(other, "a")
    client.lock("a").run(lambda held: held.release())


def test_run_waits_for_a_function_whose_lock_is_lost(client: coord.Client, other: coord.Client) -> None:
    running, breaking = threading.Event(), threading.Event()

    def f(held: coord.Held) -> None:
        running.set()
        assert held.lost.wait(PATIENCE)
        # Lost, but the store gives it to nobody as long as this runs.
        assert other.lock("a").try_acquire() is None
        breaking.set()

    def break_it() -> None:
        assert running.wait(PATIENCE)
        info = other.lock_info("a")
        assert info is not None
        other.break_lock("a", info.token)

    thread = threading.Thread(target=break_it)
    thread.start()
    with pytest.raises(coord.Lost):
        client.lock("a").run(f)
    assert breaking.is_set()
    thread.join(PATIENCE)
    eventually(lambda: is_free(other, "a"), "the lock is free")


def test_a_session_of_its_own(client: coord.Client) -> None:
    with client.open_session() as second:
        assert second.session.id != client.session.id
        with client.lock("a").acquire():
            assert second.lock("a").try_acquire() is None
    client.health()


def test_a_closed_client_refuses(client: coord.Client) -> None:
    lock = client.lock("a")
    held = lock.acquire()
    changes = client.session_changes()
    assert not client.closed
    client.close()
    client.close()
    assert client.closed
    assert held.lost.reason is coord.LossReason.CLOSED
    assert list(changes) == []
    for call in (lock.acquire, lock.try_acquire, lock.info, client.locks, client.health, client.open_session):
        with pytest.raises(coord.Closed):
            call()


def test_closing_ends_waits(client: coord.Client, other: coord.Client) -> None:
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            other.lock("a").acquire()
        except coord.CoordError as error:
            outcome.append(error)

    with client.lock("a").acquire():
        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: waiters(client, "a") == 1, "it waits")
        other.close()
        thread.join(PATIENCE)
    assert [type(error) for error in outcome] == [coord.Closed]
    assert is_free(client, "a") or client.closed


def test_closing_waits_for_functions_and_can_time_out(client: coord.Client) -> None:
    entered, leave = threading.Event(), threading.Event()

    def f(_: coord.Held) -> None:
        entered.set()
        assert leave.wait(PATIENCE)

    def run() -> None:
        with pytest.raises(coord.Lost):
            client.lock("a").run(f)

    thread = threading.Thread(target=run)
    thread.start()
    assert entered.wait(PATIENCE)
    with pytest.raises(coord.Timeout):
        client.close(timeout=0.05)
    leave.set()
    thread.join(PATIENCE)
    client.close(timeout=PATIENCE)


def test_options_reach_the_session(url: str) -> None:
    options = {"name": "worker", "ttl": 12.5, "labels": {"zone": "a"}, "scope": "jobs", "close_timeout": 5}
    with coord.connect(url, **options) as client:  # type: ignore[arg-type]
        session = client.session
        assert (session.name, session.ttl, session.labels) == ("worker", 12.5, {"zone": "a"})
        assert session.state is coord.SessionState.LIVE
        assert session.reason is None
        assert client.lock("x").name.endswith("/jobs/x")
        assert "secret" not in client.location


def test_without_a_url_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORD_URL", "memory:from-environment")
    with coord.connect() as client:
        assert client.location == "memory:from-environment"
    monkeypatch.delenv("COORD_URL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with coord.connect() as client:
        assert client.location.endswith("coord/coord.db")
        client.lock("a").acquire().release()


def test_threads_exclude_each_other(url: str, client: coord.Client) -> None:
    # The fixture's client keeps a store in memory from ending between two of the threads.
    inside, tokens = [0], []

    def work() -> None:
        with coord.connect(url) as own:
            for _ in range(20):
                with own.lock("a").acquire(timeout=PATIENCE) as held:
                    inside[0] += 1
                    assert inside[0] == 1
                    tokens.append(held.token)
                    inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
    assert len(tokens) == 120
    assert not client.held()
    assert tokens == sorted(set(tokens))


def test_reprs_say_what_it_is(client: coord.Client) -> None:
    lock = client.lock("a")
    assert "state=live" in repr(client)
    assert "default/a" in repr(lock)
    with lock.acquire() as held:
        assert f"token={held.token}" in repr(held)
        assert "remaining=" in repr(held)
        assert "default/a" in client._repr_html_()
        assert repr(held.lost) == "<Loss not lost>"
    assert "released" in repr(held)
    client.close()
    assert "state=closed" in repr(client)
