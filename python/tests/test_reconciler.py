"""Reconcilers of keys that are added, of services and of locks: what is run, how often, and when again."""

from __future__ import annotations

import gc
import logging
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, eventually

import coord
import coord.testing
from coord import _native

MANUAL = coord.Source.manual()
QUICK = (0.001, 0.02)


class Seen:
    """A function that notes what it is called with, and does what it is told."""

    def __init__(self, *answers: object) -> None:
        self.calls: list[tuple[Any, int]] = []
        self.works: list[coord.Work] = []
        self._answers = iter(answers)

    def __call__(self, work: coord.Work) -> Any:
        self.works.append(work)
        self.calls.append((work.key, work.attempt))
        answer = next(self._answers, None)
        if isinstance(answer, BaseException):
            raise answer
        return answer(work) if callable(answer) else answer

    def keys(self) -> list[Any]:
        return [key for key, _ in self.calls]


class Gate:
    """A function that says when it has begun and does not return before it may."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_return = threading.Semaphore(0)
        self.works: list[coord.Work] = []

    def __call__(self, work: coord.Work) -> None:
        self.works.append(work)
        self.begun.release()
        assert self.may_return.acquire(timeout=PATIENCE)

    def next(self) -> coord.Work:
        """Waits until it has begun once more."""
        assert self.begun.acquire(timeout=PATIENCE)
        return self.works[-1]


@pytest.fixture
def clock() -> Iterator[tuple[coord.Client, coord.testing.Control]]:
    """A client whose time stands still."""
    with coord.connect("memory:", clock="manual") as client:
        yield client, coord.testing.Control(client)


@pytest.fixture
def memory() -> Iterator[coord.Client]:
    with coord.connect("memory:") as client:
        yield client


def assert_idle(reconciler: coord.Reconciler) -> None:
    stats = reconciler.stats()
    assert (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0), stats


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged of functions that have failed."""
    return [record for record in caplog.records if record.name == "coord" and record.levelno == logging.ERROR]


def test_a_key_is_run_again_when_it_asks_for_it_or_fails(client: coord.Client) -> None:
    seen = Seen(coord.requeue_after(0.02), KeyError("once"))
    with client.reconcile("r", MANUAL, seen) as reconciler:
        assert reconciler.add("k")
        eventually(lambda: reconciler.stats().runs == 3, "three runs")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert_idle(reconciler)
        stats = reconciler.stats()
        assert (stats.runs, stats.errors, stats.retries, stats.requeued) == (3, 1, 1, 1)
        assert stats.synced
        assert 0 < stats.longest_ended_run <= stats.run_time
    assert seen.calls == [("k", 1), ("k", 1), ("k", 2)]


def test_changes_during_a_run_lead_to_exactly_one_more(memory: coord.Client) -> None:
    gate = Gate()
    with memory.reconcile("r", MANUAL, gate, workers=4) as reconciler:
        reconciler.add("k")
        gate.next()
        assert [reconciler.add("k") for _ in range(5)] == [True, False, False, False, False]
        gate.may_return.release()
        gate.next()
        gate.may_return.release()
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert_idle(reconciler)
        assert reconciler.stats().runs == 2


def test_a_key_is_never_run_twice_at_once(memory: coord.Client) -> None:
    running: dict[str, threading.Lock] = {f"k{n}": threading.Lock() for n in range(8)}
    both: list[str] = []
    most = Most()

    def f(work: coord.Work) -> None:
        with most:
            if not running[work.key].acquire(blocking=False):
                both.append(work.key)
                return
            threading.Event().wait(0.0005)
            running[work.key].release()

    with memory.reconcile("r", MANUAL, f, workers=4) as reconciler:
        for _ in range(40):
            for key in running:
                reconciler.add(key)
        for key in running:
            reconciler.wait_until_reconciled(key, timeout=PATIENCE)
    assert not both
    assert 1 < most.most <= 4


class Most:
    """How many were within at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_whatever_is_raised_is_an_error_with_its_traceback(
    memory: coord.Client, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    seen = Seen(error)
    with memory.reconcile("r", MANUAL, seen, backoff=QUICK) as reconciler:
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert reconciler.stats().errors == 1
    assert seen.calls == [("k", 1), ("k", 2)]
    [record] = failures(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    # It outlives the test, and what its frames have must not.
    error.__traceback__ = None
    assert "'k'" in record.getMessage()
    assert "default/default/r" in record.getMessage()


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "answer",
    [1, True, "k", object(), [], lambda _: 2, Unspeakable(), ValueError("\ud800")],
    ids=lambda answer: type(answer).__name__,
)
def test_what_is_no_answer_is_an_error(memory: coord.Client, answer: object) -> None:
    seen = Seen(answer)
    with memory.reconcile("r", MANUAL, seen, backoff=QUICK) as reconciler:
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert reconciler.stats().errors == 1
    assert seen.calls == [("k", 1), ("k", 2)]
    if isinstance(answer, Exception):
        answer.__traceback__ = None


def test_a_log_that_fails_ends_no_worker(memory: coord.Client, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: logging.LogRecord) -> bool:
        raise KeyError("a mistake of the user's")

    logging.getLogger("coord").addFilter(fail)
    try:
        with memory.reconcile("r", MANUAL, Seen(ValueError()), backoff=QUICK) as reconciler:
            reconciler.add("k")
            reconciler.wait_until_reconciled("k", timeout=PATIENCE)
    finally:
        logging.getLogger("coord").removeFilter(fail)
    assert "a mistake of the user's" in capsys.readouterr().err


def test_terminal_errors_are_parked(memory: coord.Client) -> None:
    seen = Seen(coord.Terminal("no such thing"))
    with memory.reconcile("r", MANUAL, seen) as reconciler:
        reconciler.add("k")
        with pytest.raises(coord.Conflict, match="no such thing"):
            reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        parked = reconciler.parked()
        assert [(one.key, one.reason) for one in parked] == [("k", "no such thing")]
        assert parked[0].parked_for >= 0
        assert "no such thing" in parked._repr_html_()
        assert reconciler.stats().parked == 1
        assert reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert reconciler.parked() == []
        assert reconciler.stats().terminal == 1


def test_what_fails_does_not_spin(clock: tuple[coord.Client, coord.testing.Control]) -> None:
    client, control = clock

    def f(work: coord.Work) -> None:
        if work.key == "k":
            raise ValueError("always")

    with client.reconcile("r", MANUAL, f) as reconciler:

        def failed(times: int) -> bool:
            stats = reconciler.stats()
            return stats.errors == times and stats.delayed == 1

        reconciler.add("k")
        passed = 0.0
        for times in range(1, 12):
            eventually(lambda times=times: failed(times), f"failure {times}")
            wait = 0.005 * 2 ** (times - 1)
            control.jump(wait - 0.001)
            # Keys are run in the order in which they are due, so that the failing one would be run before this one.
            reconciler.add("mark")
            reconciler.wait_until_reconciled("mark", timeout=PATIENCE)
            assert failed(times), "it is not run before the back-off's time"
            # Chance adds up to a quarter.
            control.jump(wait * 0.25 + 0.002)
            passed += wait
        eventually(lambda: failed(12), "the last failure")
        # 12 calls take at least this long, so there are at most 11 in 10 s.
        assert passed > 10


def test_a_policy_of_one_s_own(clock: tuple[coord.Client, coord.testing.Control]) -> None:
    client, control = clock
    seen = Seen(coord.RetryAfter(50, "busy"))
    with client.reconcile("r", MANUAL, seen) as reconciler:
        reconciler.add("k")
        eventually(lambda: reconciler.stats().delayed == 1, "it has failed")
        control.jump(49.999)
        reconciler.add("mark")
        reconciler.wait_until_reconciled("mark", timeout=PATIENCE)
        assert seen.keys() == ["k", "mark"]
        control.jump(0.001)
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert seen.calls == [("k", 1), ("mark", 1), ("k", 2)]
        # The success has reset it.
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert seen.calls[-1] == ("k", 1)


def test_the_earlier_time_counts(clock: tuple[coord.Client, coord.testing.Control]) -> None:
    client, control = clock
    seen = Seen()
    with client.reconcile("r", MANUAL, seen) as reconciler:
        assert reconciler.add_after("k", 20)
        assert not reconciler.add_after("k", 30)
        assert reconciler.add_after("k", 10)
        control.jump(9.999)
        reconciler.add("mark")
        reconciler.wait_until_reconciled("mark", timeout=PATIENCE)
        control.jump(0.001)
        eventually(lambda: reconciler.stats().runs == 2, "it is run at the earlier time")
        control.jump(100)
        reconciler.add("mark")
        reconciler.wait_until_reconciled("mark", timeout=PATIENCE)
        assert seen.keys() == ["mark", "k", "mark"]
        reconciler.add_after("later", 10)
        assert reconciler.cancel("later")
        assert not reconciler.cancel("later")
        assert_idle(reconciler)


def test_a_rate_holds_for_all_keys(clock: tuple[coord.Client, coord.testing.Control]) -> None:
    client, control = clock
    with client.reconcile("r", MANUAL, Seen(), workers=4, rate=(10, 5)) as reconciler:
        for n in range(40):
            reconciler.add(f"k{n}")
        for runs in range(5, 15):
            eventually(lambda runs=runs: reconciler.stats().runs == runs, f"{runs} runs")
            stats = reconciler.stats()
            assert (stats.runs, stats.in_flight, stats.ready) == (runs, 0, 40 - runs)
            control.jump(0.1)
    with client.reconcile("even", MANUAL, Seen(), rate=2) as reconciler:
        reconciler.add("a")
        reconciler.add("b")
        eventually(lambda: reconciler.stats().runs == 1, "one at once")
        assert reconciler.stats().ready == 1


def test_a_resync_brings_nothing_that_was_added_by_hand(clock: tuple[coord.Client, coord.testing.Control]) -> None:
    client, control = clock
    with client.reconcile("r", MANUAL, Seen(), resync=1) as reconciler:
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        control.advance(10)
        assert_idle(reconciler)
        assert reconciler.stats().runs == 1


def test_a_cancelled_run_is_told_and_leads_to_nothing(memory: coord.Client, caplog: pytest.LogCaptureFixture) -> None:
    told: list[object] = []

    def f(work: coord.Work) -> None:
        work.check()
        assert not work.cancelled
        told.append(work.cancelled.wait(0.001))
        told.append(work.cancelled.wait(PATIENCE))
        assert work.cancelled
        try:
            work.check()
        except coord.Cancelled as error:
            told.append(type(error))
            raise

    with memory.reconcile("r", MANUAL, f, backoff=QUICK) as reconciler:
        reconciler.add("k")
        eventually(lambda: told, "it runs")
        assert reconciler.cancel("k")
        eventually(lambda: reconciler.stats().in_flight == 0, "it has ended")
        assert_idle(reconciler)
        assert told == [False, True, coord.Cancelled]
        assert reconciler.stats().errors == 0
        with pytest.raises(coord.Conflict, match="cancelled"):
            reconciler.wait_until_reconciled("k", timeout=PATIENCE)
    assert not failures(caplog)


def test_paused_it_takes_keys_in(memory: coord.Client) -> None:
    seen = Seen()
    with memory.reconcile("r", MANUAL, seen) as reconciler:
        reconciler.pause()
        reconciler.add("k")
        assert reconciler.stats().paused
        assert "paused" in repr(reconciler)
        with pytest.raises(coord.Timeout):
            reconciler.wait_until_reconciled("k", timeout=0.05)
        assert seen.calls == []
        reconciler.resume()
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert seen.calls == [("k", 1)]


def test_a_drain_runs_what_is_ready(memory: coord.Client) -> None:
    gate = Gate()
    reconciler = memory.reconcile("r", MANUAL, gate)
    for key in ("a", "b"):
        reconciler.add(key)
    reconciler.add_after("later", 3600)
    gate.next()
    with pytest.raises(coord.Timeout):
        reconciler.drain(0.02)
    gate.may_return.release(2)
    reconciler.drain(PATIENCE)
    assert [work.key for work in gate.works] == ["a", "b"]
    assert reconciler.closed
    reconciler.close()


def test_closing_asks_what_runs_to_stop_and_waits_within_a_bound(memory: coord.Client) -> None:
    gate = Gate()
    reconciler = memory.reconcile("r", MANUAL, gate)
    reconciler.add("k")
    work = gate.next()
    with pytest.raises(coord.Timeout):
        reconciler.close(0.02)
    assert work.cancelled.wait(PATIENCE)
    assert not reconciler.closed
    gate.may_return.release()
    reconciler.close(PATIENCE)
    reconciler.close()
    assert reconciler.closed
    assert reconciler.failure is None
    assert "closed" in repr(reconciler)
    for call in (lambda: reconciler.add("k"), lambda: reconciler.wait_until_reconciled("k")):
        with pytest.raises(coord.Closed):
            call()


def test_a_function_may_end_its_own_reconciler(memory: coord.Client) -> None:
    ended: list[coord.Reconciler] = []

    def close(_: coord.Work) -> None:
        ended[0].close()

    def drain(_: coord.Work) -> None:
        ended[0].drain()

    for f in (close, drain):
        ended[:] = [memory.reconcile("r", MANUAL, f, workers=2)]
        ended[0].add("k")
        eventually(lambda: ended[0].closed, "it has ended")


def test_it_ends_with_its_client() -> None:
    client = coord.connect("memory:")
    gate = Gate()
    reconciler = client.reconcile("r", MANUAL, gate, workers=2)
    reconciler.add("k")
    work = gate.next()
    client.close()
    assert work.cancelled.wait(PATIENCE)
    gate.may_return.release()
    eventually(lambda: reconciler.closed, "its threads have ended")
    with pytest.raises(coord.Closed):
        reconciler.add("k")
    with pytest.raises(coord.Closed):
        client.reconcile("r", MANUAL, gate)


def test_one_that_nobody_keeps_goes_on(memory: coord.Client) -> None:
    freed = threading.Semaphore(0)
    memory.reconcile("r", coord.Source.released_locks(), lambda _: freed.release())
    gc.collect()
    memory.lock("a").acquire().release()
    assert freed.acquire(timeout=PATIENCE)


def test_what_was_not_answered_comes_again(memory: coord.Client) -> None:
    options: dict[str, Any] = dict.fromkeys(("shards", "rate", "resync", "move_grace"))
    call = _native.reconcile(memory._native, "r", MANUAL._native, workers=1, mode="all", backoff=QUICK, **options)
    reconciler = call.wait(PATIENCE)
    requests = reconciler.requests()

    def next_request() -> Any:
        requests.ready().wait(PATIENCE)
        [request] = requests.take()
        return request

    reconciler.add("k")
    request = next_request()
    assert request.work().attempt() == 1
    del request
    request = next_request()
    assert request.work().attempt() == 2
    request.drop()
    request.drop()
    with pytest.raises(coord.NotHeld):
        request.done()
    request = next_request()
    assert request.work().attempt() == 3
    # Wrong numbers answer nothing.
    for wrong in (lambda: request.requeue_after(-1), lambda: request.failed("e", "1")):
        with pytest.raises((TypeError, coord.InvalidArgument)):
            wrong()
    request.done()
    reconciler.wait_until_reconciled("k", 0, PATIENCE).wait()
    assert reconciler.stats().dropped == 2
    # One that nobody has taken does not hold up the end.
    reconciler.add("k")
    requests.ready().wait(PATIENCE)
    requests.close()
    reconciler.close(PATIENCE).wait()


def test_locks_that_become_free_are_keys(client: coord.Client, other: coord.Client) -> None:
    name = client.lock("x").name
    prefix = name[: name.rindex("/") + 1]
    other.lock("early").acquire().release()
    held = other.lock("held").acquire()
    elsewhere = other.lock("elsewhere/ignored").acquire()
    seen = Seen()
    with client.reconcile("r", coord.Source.released_locks(prefix), seen) as reconciler:
        eventually(lambda: seen.keys() == [prefix + "early"], "what was free is run")
        elsewhere.release()
        held.release()
        eventually(lambda: seen.keys()[1:] == [prefix + "held"], "what became free is run")
        assert seen.works[0].document is None
        assert seen.works[0].token is None
        assert_idle(reconciler)


def test_services_that_come_and_go_are_keys(client: coord.Client, other: coord.Client) -> None:
    states: list[tuple[str, list[str] | None]] = []

    def f(work: coord.Work) -> None:
        document = work.document
        states.append((work.key, None if document is None else [one["metadata"] for one in document["providers"]]))

    there = other.provide("svc/there", "v1")
    with client.reconcile("r", coord.Source.observer("svc/*"), f):
        eventually(lambda: states[-1:] == [(there.service, ["v1"])], "what is there is run")
        there.update("v2")
        eventually(lambda: states[-1:] == [(there.service, ["v2"])], "a change is run")
        there.close()
        eventually(lambda: states[-1:] == [(there.service, None)], "what has gone is run")


def test_a_decorator_puts_the_reconciler_in_the_function_s_place(memory: coord.Client) -> None:
    seen: list[str] = []

    @memory.reconcile("r", MANUAL, workers=2)
    def send(work: coord.Work) -> None:
        seen.append(work.key)

    assert isinstance(send, coord.Reconciler)
    assert send.name == "default/default/r"
    send.add("k")
    send.wait_until_reconciled("k", timeout=PATIENCE)
    assert seen == ["k"]
    for text in (repr(send), send._repr_html_()):
        assert "default/default/r" in text
        assert "send" in text
    assert "runs" in send._repr_html_()
    send.close()


def test_reprs_say_what_it_is(memory: coord.Client) -> None:
    seen = Seen()
    with memory.reconcile("r", MANUAL, seen) as reconciler:
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
    [work] = seen.works
    assert repr(work) == "<coord.Work 'k' attempt=1>"
    assert "set" in repr(work.cancelled)
    assert "web/*" in repr(coord.Source.observer("web/*"))
    assert "'x'" in repr(coord.Source.released_locks("x"))
    for thing in (work, reconciler, MANUAL, work.cancelled):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    for error in (coord.Terminal("a"), coord.RetryAfter(3, "b")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
    assert str(coord.RetryAfter(1.5)) == "to be tried again after 1.5 s"
