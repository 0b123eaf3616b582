"""Reconcilers of tables, and several replicas of one: what is run, where, and by which right."""

from __future__ import annotations

import dataclasses
import logging
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, eventually

import coord
import coord.testing

QUICK = (0.001, 0.02)


@pytest.fixture
def name(client: coord.Client) -> Iterator[str]:
    """Of a table of the test's own: a namespace has none."""
    name = f"t{uuid.uuid4().hex}"
    yield name
    client.table(name).drop()


class Notes:
    """A function that notes which document it has seen last of each key, and with which token."""

    def __init__(self) -> None:
        self.last: dict[Any, dict[str, Any] | None] = {}
        self.runs: list[Any] = []
        self.tokens: dict[Any, int | None] = {}
        self._lock = threading.Lock()

    def __call__(self, work: coord.Work) -> None:
        with self._lock:
            self.runs.append(work.key)
            # A compound key is a dict.
            key = tuple(work.key.items()) if isinstance(work.key, dict) else work.key
            self.last[key] = work.document
            self.tokens[key] = work.token


@dataclasses.dataclass
class Job:
    state: str
    tries: int = 0


def test_every_change_is_run_and_deletions_too(client: coord.Client, other: coord.Client, name: str) -> None:
    table, theirs = client.table(name), other.table(name)
    there = theirs.insert(1, {"on": True, "n": 0})
    notes = Notes()
    with client.reconcile("r", (table, {"on": True}), notes, workers=2) as reconciler:
        reconciler.wait_until_reconciled(1, there.position, PATIENCE)
        assert notes.last == {1: {"_id": 1, "on": True, "n": 0}}
        for n in range(20):
            last = theirs.update(1, {"$set": {"n": n}})
        reconciler.wait_until_reconciled(1, last.position, PATIENCE)
        assert notes.last[1] == {"_id": 1, "on": True, "n": 19}
        # It matches no more.
        off = theirs.update(1, {"$set": {"on": False}})
        reconciler.wait_until_reconciled(1, off.position, PATIENCE)
        assert notes.last[1] is None
        # A text, and a key of several fields, in their order.
        theirs.insert("k", {"on": True})
        compound = theirs.insert({"b": 1, "a": "x"}, {"on": True})
        reconciler.wait_until_reconciled({"b": 1, "a": "x"}, compound.position, PATIENCE)
        deleted = theirs.delete("k")
        reconciler.wait_until_reconciled("k", deleted.position, PATIENCE)
        assert notes.last["k"] is None
        reconciler.drain(PATIENCE)
    assert {"b": 1, "a": "x"} in notes.runs


def test_a_key_is_run_again_when_it_asks_for_it_or_fails(client: coord.Client, name: str) -> None:
    table = client.table(name)
    written = table.insert("k", {"n": 5})
    seen: list[tuple[Any, int, int | None]] = []

    def f(work: coord.Work) -> coord.RequeueAfter | None:
        assert work.document is not None
        seen.append((work.document["n"], work.attempt, work.revision))
        if len(seen) == 1:
            return coord.requeue_after(0.02)
        if len(seen) == 2:
            raise ValueError("once")
        return None

    with client.reconcile("r", table, f) as reconciler:
        eventually(lambda: reconciler.stats().runs == 3, "three runs")
        reconciler.wait_until_reconciled("k", written.position, PATIENCE)
        stats = reconciler.stats()
        assert (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0)
        assert (stats.runs, stats.errors, stats.retries, stats.requeued) == (3, 1, 1, 1)
    assert seen == [(5, 1, written.revision), (5, 1, written.revision), (5, 2, written.revision)]


def test_documents_are_values_of_the_table_s_model(client: coord.Client, name: str) -> None:
    jobs = client.table(name, model=Job)
    written = jobs.insert("a", Job("new"))
    values: list[Any] = []

    @client.reconcile("r", jobs)
    def work(work: coord.Work) -> None:
        values.append(work.value)
        if work.value is not None and work.value.state == "new":
            jobs.replace(work.key, Job("done", work.value.tries + 1), revision=work.revision)

    with work:
        eventually(lambda: values[-1:] == [Job("done", 1)], "the function's own change is run")
        work.wait_until_reconciled("a", written.position, PATIENCE)
        deleted = jobs.delete("a")
        work.wait_until_reconciled("a", deleted.position, PATIENCE)
        assert values[-1] is None


def test_terminal_errors_are_parked_until_the_key_changes(client: coord.Client, name: str) -> None:
    table = client.table(name)
    written = table.insert("k", {"good": False})

    def f(work: coord.Work) -> None:
        if not work.value["good"]:
            raise coord.Terminal("not good")

    with client.reconcile("r", table, f) as reconciler:
        with pytest.raises(coord.Conflict, match="not good"):
            reconciler.wait_until_reconciled("k", written.position, PATIENCE)
        changed = table.update("k", {"$set": {"good": True}})
        reconciler.wait_until_reconciled("k", changed.position, PATIENCE)
        assert reconciler.parked() == []


def test_a_resync_brings_every_key_again() -> None:
    with coord.connect("memory:", clock="manual") as client:
        control = coord.testing.Control(client)
        table = client.table("t")
        table.insert("k", {})
        with client.reconcile("r", table, Notes(), resync=10) as reconciler:
            eventually(lambda: reconciler.stats().runs == 1, "the first run")
            for runs in (2, 3):
                control.advance(15)
                eventually(lambda runs=runs: reconciler.stats().runs >= runs, "it is run again")


def test_several_reconcilers_have_each_their_own_queue(client: coord.Client, name: str) -> None:
    table = client.table(name)
    one, two = Notes(), Notes()
    with client.reconcile("one", table, one) as first, client.reconcile("two", table, two) as second:
        first.pause()
        written = table.insert("k", {})
        second.wait_until_reconciled("k", written.position, PATIENCE)
        assert (one.runs, two.runs) == ([], ["k"])
        first.resume()
        first.wait_until_reconciled("k", written.position, PATIENCE)
        assert one.runs == ["k"]


def test_only_the_leader_runs_keys_and_hands_over(client: coord.Client, other: coord.Client, name: str) -> None:
    table = client.table(name)
    table.insert("k", {})
    begun, may_return = threading.Semaphore(0), threading.Semaphore(0)
    works: list[coord.Work] = []

    def f(work: coord.Work) -> None:
        works.append(work)
        begun.release()
        assert may_return.acquire(timeout=PATIENCE)

    first = client.reconcile("r", table, f, mode="leader")
    assert begun.acquire(timeout=PATIENCE)
    work = works[0]
    work.check()
    assert work.token is not None
    assert f"token={work.token}" in repr(work)
    assert client.election("reconcile:r").is_leader()
    assert first.stats().shards == (0,)
    assert "shards=1" in repr(first)

    notes = Notes()
    second = other.reconcile("r", other.table(name), notes, mode="leader")
    with pytest.raises(coord.NotHeld):
        second.add("k")
    # The hand-over waits for what runs.
    with pytest.raises(coord.Timeout):
        first.close(0.02)
    assert work.cancelled.wait(PATIENCE)
    assert notes.runs == []
    table.put("k", {"by": "first"}, fence=work, strict=True)
    may_return.release()
    first.close(PATIENCE)
    eventually(lambda: notes.runs, "the next leader runs every key")
    token = notes.tokens["k"]
    assert token is not None
    assert token > work.token

    def write(work: coord.Work) -> None:
        other.table(name).put(work.key, {"by": "second"}, fence=work)

    second.close()
    with other.reconcile("r", other.table(name), write, mode="leader"):
        eventually(lambda: table.get("k").document["by"] == "second", "it writes")
        with pytest.raises(coord.Fenced):
            table.put("k", {"by": "late"}, fence=work)


def test_without_a_token_there_is_no_fence(client: coord.Client, name: str) -> None:
    table = client.table(name)
    caught: list[Exception] = []

    def f(work: coord.Work) -> None:
        assert work.token is None
        try:
            table.put("x", {}, fence=work)
        except coord.InvalidArgument as error:
            caught.append(error)

    with client.reconcile("r", coord.Source.manual(), f) as reconciler:
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
    assert len(caught) == 1
    assert not table.contains("x")


def test_a_result_does_not_count_after_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coord")
    with coord.connect("memory:") as client:
        table = client.table("t")
        table.insert("k", {})
        works: list[coord.Work] = []
        may_return = threading.Event()

        def f(work: coord.Work) -> None:
            works.append(work)
            if len(works) == 1:
                assert may_return.wait(PATIENCE)

        with client.reconcile("r", table, f, mode="leader") as reconciler:
            eventually(lambda: works, "it runs")
            coord.testing.Control(client).expire_session(client.session.id)
            assert works[0].cancelled.wait(PATIENCE)
            with pytest.raises(coord.Fenced):
                works[0].check()
            may_return.set()
            # It leads again under its next session, and runs the key again.
            eventually(lambda: len(works) >= 2, "it is run again")
            reconciler.wait_until_reconciled("k", timeout=PATIENCE)
            stats = reconciler.stats()
            assert (stats.fenced, stats.errors) == (1, 0)
            assert {work.attempt for work in works} == {1}
        told = [record.getMessage() for record in caplog.records if record.name == "coord"]
        assert any("does not count" in text for text in told), told


def test_a_function_that_stops_after_a_loss_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    with coord.connect("memory:") as client:
        table = client.table("t")
        table.insert("k", {})
        works: list[coord.Work] = []

        def f(work: coord.Work) -> None:
            works.append(work)
            if len(works) == 1:
                assert work.cancelled.wait(PATIENCE)
                work.check()

        with client.reconcile("r", table, f, mode="leader", backoff=QUICK) as reconciler:
            eventually(lambda: works, "it runs")
            coord.testing.Control(client).expire_session(client.session.id)
            eventually(lambda: len(works) >= 2, "it is run again")
            reconciler.wait_until_reconciled("k", timeout=PATIENCE)
            assert reconciler.stats().errors == 0
    assert not [record for record in caplog.records if record.name == "coord" and record.levelno >= logging.ERROR]


@pytest.fixture
def pair() -> Iterator[tuple[coord.Client, coord.Client, coord.testing.Control]]:
    """Two clients of a store whose time stands still."""
    with (
        coord.connect("memory:py-shards", clock="manual") as one,
        coord.connect("memory:py-shards", clock="manual") as two,
    ):
        yield one, two, coord.testing.Control(one)


def test_shards_are_shared_and_a_key_is_run_by_one(
    pair: tuple[coord.Client, coord.Client, coord.testing.Control],
) -> None:
    one, two, control = pair
    keys = list(range(60))
    table = one.table("t")
    for key in keys:
        table.insert(key, {"n": 0})
    first, second = Notes(), Notes()
    left = one.reconcile("r", table, first, mode="sharded", shards=12, workers=2)
    eventually(lambda: sorted(first.last) == keys, "the only replica runs every key")
    assert None not in first.tokens.values()
    right = two.reconcile("r", two.table("t"), second, mode="sharded", shards=12, workers=2)

    def shared() -> bool:
        control.advance(1)
        shards = [set(reconciler.stats().shards) for reconciler in (left, right)]
        return all(shards) and shards[0] | shards[1] == set(range(12)) and not shards[0] & shards[1] and still(shards)

    before: list[list[set[int]]] = []

    def still(shards: list[set[int]]) -> bool:
        before.append(shards)
        return before[-5:] == [shards] * 5

    eventually(shared, "each has some of the shards")
    first.last.clear()
    second.last.clear()
    for key in keys:
        written = table.update(key, {"$set": {"n": 1}})
    eventually(lambda: len(first.last) + len(second.last) == len(keys), "each key is run by one")
    assert not first.last.keys() & second.last.keys()
    ours = next(iter(first.last))
    left.wait_until_reconciled(ours, written.position, PATIENCE)
    with pytest.raises(coord.NotHeld):
        right.wait_until_reconciled(ours, written.position, PATIENCE)
    # The one takes over what the other had, with greater tokens.
    tokens = dict(first.tokens)
    left.close(PATIENCE)

    def taken() -> bool:
        control.advance(1)
        return set(right.stats().shards) == set(range(12)) and sorted(second.last) == keys

    eventually(taken, "the other runs every key")
    assert all((second.tokens[key] or 0) >= (tokens[key] or 0) for key in keys)
    with pytest.raises(coord.InvalidArgument, match="12 shards"):
        one.reconcile("r", table, first, mode="sharded", shards=13)
    right.close(PATIENCE)


def test_a_table_of_another_client_is_refused(client: coord.Client, other: coord.Client, name: str) -> None:
    for source in (other.table(name), (other.table(name), {"a": 1})):
        with pytest.raises(coord.InvalidArgument):
            client.reconcile("r", source, Notes())
    for wrong in ((client.table(name), 1), (client.table(name),), [client.table(name)]):
        with pytest.raises((coord.InvalidArgument, TypeError)):
            client.reconcile("r", wrong, Notes())  # type: ignore[arg-type]


def test_a_filter_that_the_store_cannot_do_is_refused() -> None:
    with coord.connect("memory:") as client, pytest.raises(coord.Unsupported):
        client.reconcile("r", (client.table("t"), {"$where": "true"}), Notes())


def test_it_ends_with_its_client() -> None:
    client = coord.connect("memory:")
    reconciler = client.reconcile("r", client.table("t"), Notes())
    client.close()
    eventually(lambda: reconciler.closed, "it ends with its client")
    assert reconciler.failure is None
