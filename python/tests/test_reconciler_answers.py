"""Answers of a reconciler's function that are none, and workers that end by themselves: no key is lost by either."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE, aeventually, eventually

import coord
from coord import _native, aio
from coord._work import Run, Work

MANUAL = coord.Source.manual()
QUICK = (0.001, 0.02)


@pytest.fixture
def memory() -> Iterator[coord.Client]:
    with coord.connect("memory:") as client:
        yield client


class Unchecked(coord.RequeueAfter):
    """An answer that checks nothing."""

    def __post_init__(self) -> None:
        pass


class Unset(coord.RetryAfter):
    """An answer that has forgotten its base."""

    def __init__(self) -> None:
        pass


class Deceitful:
    """An object that says nothing of itself."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise ValueError("mine")


def returning(answer: Callable[[], object]) -> Callable[[object], Any]:
    return lambda _: answer()


def raising(error: BaseException) -> Callable[..., Any]:
    def f(*_: object) -> None:
        raise error

    return f


def replaced() -> coord.RequeueAfter:
    answer = coord.requeue_after(1)
    object.__setattr__(answer, "seconds", float("nan"))
    return answer


WRONG: dict[str, Callable[[object], Any]] = {
    "negative": returning(lambda: coord.RequeueAfter(-1)),
    "no number": returning(lambda: coord.RequeueAfter("x")),  # type: ignore[arg-type]
    "unchecked": returning(lambda: Unchecked(-1)),
    "unchecked, no number": returning(lambda: Unchecked("x")),  # type: ignore[arg-type]
    "replaced": returning(replaced),
    "deceitful": returning(Deceitful),
    "unset": raising(Unset()),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_that_is_none_is_an_error_of_its_run(memory: coord.Client, wrong: str) -> None:
    attempts: list[int] = []

    def f(work: coord.Work) -> Any:
        attempts.append(work.attempt)
        return WRONG[wrong](work) if len(attempts) == 1 else None

    with memory.reconcile("r", MANUAL, f, backoff=QUICK) as reconciler:
        reconciler.add("k")
        reconciler.wait_until_reconciled("k", timeout=PATIENCE)
        assert attempts == [1, 2]
        stats = reconciler.stats()
        assert (stats.errors, stats.dropped) == (1, 0)
        assert not reconciler.closed
        assert reconciler.failure is None


@pytest.mark.parametrize("wrong", WRONG)
async def test_so_it_is_in_a_loop(wrong: str) -> None:
    attempts: list[int] = []

    async def f(work: aio.Work) -> Any:
        attempts.append(work.attempt)
        return WRONG[wrong](work) if len(attempts) == 1 else None

    async with await aio.connect("memory:") as client:
        async with await client.reconcile("r", MANUAL, f, backoff=QUICK) as reconciler:
            reconciler.add("k")
            await reconciler.wait_until_reconciled("k", timeout=PATIENCE)
            assert attempts == [1, 2]
            stats = reconciler.stats()
            assert (stats.errors, stats.dropped) == (1, 0)
            assert reconciler.failure is None


@pytest.mark.parametrize("wrong", [-1, float("nan"), 10**400, "x", None, True], ids=repr)
def test_a_time_is_checked_where_it_is_said(wrong: Any) -> None:
    with pytest.raises((TypeError, coord.InvalidArgument)):
        coord.RequeueAfter(wrong)
    with pytest.raises((TypeError, coord.InvalidArgument)):
        dataclasses.replace(coord.RequeueAfter(1), seconds=wrong)


def test_a_worker_that_ends_by_itself_is_no_close(memory: coord.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    met = MemoryError("there is none")
    monkeypatch.setattr("coord._reconciler.Work", raising(met))
    # It is told as the end of a thread is.
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    reconciler = memory.reconcile("r", MANUAL, lambda _: None, workers=2)
    assert reconciler.failure is None
    reconciler.add("k")
    eventually(lambda: reconciler.closed, "it has ended")
    failure = reconciler.failure
    assert failure is not None
    assert "MemoryError: there is none" in str(failure)
    assert failure.__cause__ is met
    assert "state=failed" in repr(reconciler)
    # The traceback keeps the run; its key was given back all the same.
    assert reconciler.stats().in_flight == 0
    reconciler.close(PATIENCE)
    met.__traceback__ = None


async def test_nor_is_it_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    met = MemoryError("there is none")
    monkeypatch.setattr("coord.aio.Reconciler._next", raising(met))
    async with await aio.connect("memory:") as client:
        reconciler = await client.reconcile("r", MANUAL, lambda _: None)
        await aeventually(lambda: reconciler.closed, "it has ended")
        assert reconciler.failure is not None
        assert reconciler.failure.__cause__ is met
        assert "state=failed" in repr(reconciler)
        # The task tells of it, unless it is asked.
        assert reconciler._task.exception() is met
        await reconciler.close(PATIENCE)


async def test_a_run_in_a_loop_that_cannot_begin_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[BaseException] = []
    made: list[object] = []

    def make(*arguments: Any) -> aio.Work:
        made.append(arguments)
        if len(made) == 1:
            raise MemoryError("there is none")
        return aio.Work(*arguments)

    monkeypatch.setattr("coord.aio._reconciler.Work", make)
    # As a loop that logs the traceback: the run's frame stays.
    asyncio.get_running_loop().set_exception_handler(lambda _, context: kept.append(context["exception"]))
    async with await aio.connect("memory:") as client:
        async with await client.reconcile("r", MANUAL, lambda _: None, backoff=QUICK) as reconciler:
            reconciler.add("k")
            await reconciler.wait_until_reconciled("k", timeout=PATIENCE)
            assert reconciler.stats().dropped == 1
    assert len(kept) == 1
    assert len(made) == 2


def test_a_run_that_can_take_no_answer_comes_again(memory: coord.Client) -> None:
    """Neither the answer nor the error: what an error of the runtime's leads to."""

    class Mute:
        def __init__(self, request: _native.Request) -> None:
            self._request = request
            self.drop = request.drop

        def done(self) -> None:
            raise MemoryError("no answer")

        def failed(self, *_: object) -> None:
            raise MemoryError("no error")

    options: dict[str, Any] = dict.fromkeys(("shards", "rate", "resync", "move_grace"))
    call = _native.reconcile(memory._native, "r", MANUAL._native, workers=1, mode="all", backoff=QUICK, **options)
    reconciler = call.wait(PATIENCE)
    requests = reconciler.requests()
    reconciler.add("k")
    requests.ready().wait(PATIENCE)
    [request] = requests.take()
    Run(Mute(request), Work(request.work()), "r").returned(None)  # type: ignore[arg-type]
    assert reconciler.stats().dropped == 1
    reconciler.close(PATIENCE).wait()


def test_a_worker_that_waits_keeps_nothing_of_its_last_run(
    memory: coord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is logged keeps the traceback, and so the run, for as long as the log is kept.
    monkeypatch.setattr(logging.getLogger("coord"), "disabled", True)
    ran: list[weakref.ref[coord.Work]] = []

    def f(work: coord.Work) -> None:
        ran.append(weakref.ref(work))
        if work.key == "wrong":
            raise coord.Terminal("wrong")

    with memory.reconcile("r", MANUAL, f) as reconciler:
        for key in ("right", "wrong"):
            reconciler.add(key)
            eventually(lambda: ran and reconciler.stats().in_flight == 0, "it has run")
            eventually(lambda: gc.collect() is not None and ran[-1]() is None, "its work is gone")
            ran.clear()
