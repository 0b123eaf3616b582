"""Bad input through every entry point of reconcilers: an exception that says what was wrong, and nothing begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import coord

MANUAL = coord.Source.manual()


@pytest.fixture
def memory() -> Iterator[coord.Client]:
    with coord.connect("memory:") as client:
        yield client


def nothing(_: coord.Work) -> None:
    pass


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": 100_000},
        {"workers": 2**40},
        {"workers": -1},
        {"backoff": (0, 1)},
        {"backoff": (2, 1)},
        {"backoff": (-1, 1)},
        {"rate": 0},
        {"rate": float("nan")},
        {"rate": (1, 0)},
        {"rate": 10**400},
        {"resync": 0},
        {"resync": 0.5},
        {"move_grace": -1},
        {"mode": "leader"},
        {"mode": "sharded"},
        {"mode": "sharded", "shards": 0},
        {"mode": "all", "shards": 3},
        {"mode": "some"},
        {"name": "bad name"},
        {"source": coord.Source.observer("a/b/c/d")},
    ],
    ids=str,
)
def test_options_out_of_range(memory: coord.Client, options: dict[str, Any]) -> None:
    with pytest.raises(coord.InvalidArgument) as caught:
        memory.reconcile(**{"name": "r", "source": MANUAL, "f": nothing, **options})
    assert str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": "1"},
        {"workers": True},
        {"workers": None},
        {"backoff": 1},
        {"backoff": ("a", "b")},
        {"rate": "10/s"},
        {"rate": (1, 2, 3)},
        {"rate": True},
        {"resync": "1"},
        {"move_grace": b""},
        {"mode": None},
        {"mode": "sharded", "shards": 1.5},
        {"name": 1},
        {"source": None},
        {"source": "manual"},
        {"timeout": "1"},
    ],
    ids=str,
)
def test_options_of_the_wrong_type(memory: coord.Client, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as caught:
        memory.reconcile(**{"name": "r", "source": MANUAL, "f": nothing, **options})
    assert str(caught.value)


async def coroutine(_: coord.Work) -> None:
    raise AssertionError("never")


def test_arguments_that_are_none(memory: coord.Client) -> None:
    with memory.reconcile("r", MANUAL, nothing) as reconciler:
        calls: list[tuple[Callable[[], object], type[Exception]]] = [
            (lambda: reconciler.add(1.5), Exception),
            (lambda: reconciler.add("\ud800"), coord.InvalidArgument),
            (lambda: reconciler.add_after("k", -1), coord.InvalidArgument),
            (lambda: reconciler.add_after("k", "1"), TypeError),  # type: ignore[arg-type]
            (lambda: reconciler.cancel(None), Exception),
            (lambda: reconciler.close(-1), coord.InvalidArgument),
            (lambda: reconciler.drain("1"), TypeError),  # type: ignore[arg-type]
            (lambda: reconciler.wait_until_reconciled("k", -1), coord.InvalidArgument),
            (lambda: reconciler.wait_until_reconciled("k", 2**64), coord.InvalidArgument),
            (lambda: reconciler.wait_until_reconciled("k", "1"), TypeError),  # type: ignore[arg-type]
            (lambda: reconciler.wait_until_reconciled("k", 0, "1"), TypeError),  # type: ignore[arg-type]
            (lambda: coord.requeue_after(-1), coord.InvalidArgument),
            (lambda: coord.requeue_after("1"), TypeError),  # type: ignore[arg-type]
            (lambda: coord.RetryAfter(None), TypeError),  # type: ignore[arg-type]
            (lambda: coord.Source.observer(1), TypeError),  # type: ignore[arg-type]
            (lambda: coord.Source.released_locks(None), TypeError),  # type: ignore[arg-type]
            (lambda: memory.reconcile("r", coord.Source.released_locks("a b"), print), coord.InvalidArgument),
            (lambda: memory.reconcile("r", coord.Source.released_locks("*"), print), coord.InvalidArgument),
            (lambda: memory.reconcile("r", MANUAL, coroutine), TypeError),  # type: ignore[arg-type]
        ]
        for call, expected in calls:
            with pytest.raises(expected) as caught:
                call()
            assert str(caught.value)
        stats = reconciler.stats()
        assert (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0)
    assert "r" in repr(reconciler)
