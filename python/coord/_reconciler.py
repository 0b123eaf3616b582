"""Reconcilers: what the synchronous API and asyncio's share, and the synchronous class.

The core keeps the queue of keys, and says which is to be run; here the function is called, and its end is told.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import coord
from coord import _lifetime, _native
from coord._errors import Closed, CoordError, Forked, Timeout
from coord._lock import ProcessBound, _qualified, also_failed
from coord._model import Model
from coord._table_base import Document, Key, TableBase
from coord._types import _html_table
from coord._work import RequeueAfter, Run, Work, _text

if TYPE_CHECKING:
    import coord._client

Mode: TypeAlias = Literal["all", "leader", "sharded"]


class Source(ProcessBound):
    """Where a reconciler's keys come from, where that is not a table.

    >>> import coord
    >>> coord.Source.observer("web/*")
    <coord.Source the services 'web/*'>
    """

    def __init__(self, native: _native.Source, what: str) -> None:
        self._native = native
        self._what = what

    @staticmethod
    def observer(pattern: str) -> Source:
        """The services that an observer sees: their full names.

        At the start those that somebody provides, and then each when a provider comes, goes or changes.

        Args:
            pattern: `name`, `scope/name`, `namespace/scope/name`; or `*`, `scope/*`, `namespace/scope/*`.
        """
        return Source(_native.Source.observer(pattern), f"the services {pattern!r}")

    @staticmethod
    def released_locks(prefix: str = "") -> Source:
        """The locks that became free: their full names.

        At the start every free lock that the store remembers, and again after an interruption. One that goes from a
        holder to a waiter was not free.

        Args:
            prefix: What their names begin with, of which the client fills in namespace and scope as of every name:
                `order-`, `scope/`, `scope/order-`, `namespace/scope/`. Empty for all of the client's namespace. One
                that no name begins with is refused by `Client.reconcile`.
        """
        return Source(_native.Source.released_locks(prefix), f"the released locks {prefix!r}")

    @staticmethod
    def manual() -> Source:
        """Keys that are added by hand, with `Reconciler.add`."""
        return Source(_native.Source.manual(), "keys that are added")

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {self._what}>"


Keys: TypeAlias = TableBase[Any] | tuple[TableBase[Any], Document | None] | Source
"""Where keys come from: the documents of a table, those of it that match a filter, or something else."""


@dataclass(frozen=True)
class ReconcilerStats:
    """A reconciler at one moment. Times are in seconds.

    Attributes:
        ready: Keys that wait for a worker.
        delayed: Keys that are due later: after an error, or planned.
        in_flight: Keys that are being run.
        parked: Keys that are parked.
        oldest: How long the first of the ready keys has been ready.
        longest_run: How long the longest of the present runs has been going on.
        runs: Runs that have ended.
        errors: Those that ended with an error, terminal ones included.
        retries: Runs that began after an error of their key.
        terminal: Runs that ended with a terminal error.
        requeued: Runs that asked for another one later.
        fenced: Runs whose result did not count, because their shard or the leadership was lost.
        dropped: Runs that were given up without a result.
        run_time: How long all runs that have ended took together.
        longest_ended_run: How long the longest of them took.
        queue_time: How long all keys together were ready before they were run.
        shards: The shards that this replica holds; `(0,)` for the leadership; empty in mode "all".
        synced: Whether every key of the source has been seen.
        paused: Whether it is paused.
    """

    ready: int
    delayed: int
    in_flight: int
    parked: int
    runs: int
    errors: int
    retries: int
    terminal: int
    requeued: int
    fenced: int
    dropped: int
    oldest: float
    longest_run: float
    run_time: float
    longest_ended_run: float
    queue_time: float
    shards: tuple[int, ...]
    synced: bool
    paused: bool


@dataclass(frozen=True)
class ParkedKey:
    """A key that is not run before it changes or is added by hand.

    Attributes:
        key: The key.
        reason: What the function said.
        parked_for: For how many seconds it has been parked.
    """

    key: Any = field(hash=False)
    reason: str
    parked_for: float


class ParkedKeys(list[ParkedKey]):
    """A list of parked keys, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [(repr(parked.key), parked.reason, f"{parked.parked_for:.0f} s") for parked in self]
        return _html_table(("key", "reason", "parked for"), rows)


class ReconcilerBase(ProcessBound):
    """Calls for every key that changes: what needs no waiting."""

    def __init__(
        self, native: _native.Reconciler, client: coord._client.ClientBase, f: Callable[..., object], model: Model
    ) -> None:
        self._native = native
        self._client = client
        self._model = model
        self._requests = native.requests()
        self._name = native.name()
        self._function = getattr(f, "__qualname__", repr(f))
        self._failure: CoordError | None = None

    @property
    def name(self) -> str:
        """Its full name, `namespace/scope/name`."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether it has ended, and no function of it runs: it was closed or drained, its client was, or it failed."""
        raise NotImplementedError

    @property
    def failure(self) -> CoordError | None:
        """What has ended it without `close`, `drain` or the end of its client; None if nothing did.

        The end of its source, or of one of its workers: then the `__cause__` is what the worker met.
        """
        return self._failure

    def add(self, key: Key) -> bool:
        """Runs a key as soon as a worker is free, as if it had changed; also a parked one. No I/O.

        Returns:
            Whether that was news: False if it waits for a worker already.

        Raises:
            InvalidArgument: The key is not valid.
            NotHeld: Another replica runs it.
            Closed: The reconciler or the client is closed.
        """
        return self._native.add(key)

    def add_after(self, key: Key, seconds: float) -> bool:
        """Runs a key after this time, or earlier if that is planned already. No I/O.

        Returns:
            Whether that was news: False if it is to be run earlier already.

        Raises:
            InvalidArgument: The key or the time is not valid.
            NotHeld: Another replica runs it.
            Closed: The reconciler or the client is closed.
        """
        return self._native.add_after(key, seconds)

    def cancel(self, key: Key) -> bool:
        """Forgets what is planned for a key, its errors included, and asks its run to stop. No I/O.

        The key is run again when it changes; until then `wait_until_reconciled` says that it was cancelled.

        Returns:
            Whether there was anything.

        Raises:
            InvalidArgument: The key is not valid.
            Closed: The client is closed.
        """
        return self._native.cancel(key)

    def pause(self) -> None:
        """Begins no run until `resume`; keys are still taken in, and shards and leadership kept. No I/O."""
        self._native.pause()

    def resume(self) -> None:
        """Ends a pause. No I/O."""
        self._native.resume()

    def stats(self) -> ReconcilerStats:
        """What it is doing and has done. No I/O."""
        return self._native.stats()

    def parked(self) -> ParkedKeys:
        """The keys whose function said that they cannot be reconciled. No I/O. A notebook shows them as a table."""
        return ParkedKeys(self._native.parked())

    def __repr__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self._facts())
        return f"<{_qualified(self)} {self._name!r} of {self._function} {facts}>"

    def _repr_html_(self) -> str:
        return _html_table(("reconciler", self._name), [("function", self._function), *self._facts()])

    def _facts(self) -> list[tuple[str, object]]:
        try:
            stats = self.stats()
        except Forked:
            return [("state", "forked")]
        counts = ("ready", "delayed", "in_flight", "parked", "runs", "errors")
        state = "failed" if self._failure else "closed" if self.closed else "paused" if stats.paused else "open"
        facts: list[tuple[str, object]] = [("state", state), *((name, getattr(stats, name)) for name in counts)]
        return facts + ([("shards", len(stats.shards))] if stats.shards else [])

    def _worker_failed(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = CoordError(f"a worker has ended by itself: {type(error).__name__}: {_text(error)}")
            self._failure.__cause__ = error

    def _begin_close(self) -> None:
        """Begins no more runs and asks those that go on to stop, without waiting for them."""
        # In a forked child there is nothing to be ended.
        with contextlib.suppress(Timeout, Forked):
            self._native.close(0).wait()


class Reconciler(ReconcilerBase):
    """Calls a function for every key of a source, and again for every key that changes, until `close`.

    It is a context manager that closes it. It goes on until it or its client is closed, whether somebody keeps it or
    not.

    >>> import coord
    >>> with coord.connect("memory:") as client:
    ...     @client.reconcile("greetings", coord.Source.manual())
    ...     def greet(work):
    ...         print("hello,", work.key)
    ...     added = greet.add("ann")
    ...     greet.wait_until_reconciled("ann", timeout=30)
    ...     greet.close()
    hello, ann
    """

    def __init__(
        self,
        native: _native.Reconciler,
        client: coord._client.ClientBase,
        f: Callable[[Work], RequeueAfter | None],
        model: Model,
        workers: int,
    ) -> None:
        super().__init__(native, client, f, model)
        _lifetime.reconciling(self)
        self._threads = [
            threading.Thread(target=self._serve, args=(f,), name=f"coord-reconcile-{worker}", daemon=True)
            for worker in range(workers)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            # Out of threads, or Ctrl-C: those that were started end.
            self._begin_close()
            raise

    @property
    def closed(self) -> bool:
        """Whether it has ended, and no function of it runs: it was closed or drained, its client was, or it failed."""
        return not any(thread.is_alive() for thread in self._threads)

    def drain(self, timeout: float | None = None) -> None:
        """Takes in no more keys, runs those that are ready, and waits until they have ended.

        What is due later is not waited for. It ends then, as by `close`. In the function itself it does not wait.

        Args:
            timeout: How many seconds to wait at most; None: as long as it takes.

        Raises:
            Timeout: It takes longer; it goes on.
        """
        self._end(self._native.drain, timeout)

    def close(self, timeout: float | None = None) -> None:
        """Ends it: begins no more runs, and asks those that go on to stop, by `work.cancelled`.

        Waits until they have ended, and gives up shards and leadership. In the function itself it does not wait.
        Closing twice is no error.

        Args:
            timeout: How many seconds to wait at most; None: as long as the functions need.

        Raises:
            Timeout: It takes longer; it goes on in the background.
        """
        self._end(self._native.close, timeout)

    def _end(self, end: Callable[[float | None], _native.Call], timeout: float | None) -> None:
        if threading.current_thread() in self._threads:
            with contextlib.suppress(Timeout):
                end(0).wait()
            return
        end(timeout).wait()
        # They have no more keys to wait for.
        for thread in self._threads:
            thread.join()

    def wait_until_reconciled(self, key: Key, position: int = 0, timeout: float | None = None) -> None:
        """Waits until every change of a key up to this position has been run, the last time without an error.

        Args:
            key: The key.
            position: The `position` of a write to the source; 0: what the reconciler knows of now.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: That is not so in time.
            Conflict: The key is parked; or it was cancelled before that, and has neither changed nor been added since.
            NotHeld: Another replica runs it.
            Closed: The reconciler or the client is closed; or the change came after a drain had begun.
        """
        self._native.wait_until_reconciled(key, position, timeout).wait()

    def _serve(self, f: Callable[[Work], RequeueAfter | None]) -> None:
        try:
            while self._run_next(f):
                pass
        except BaseException as error:
            self._worker_failed(error)
            raise
        finally:
            # For all of them: it has ended, or this is a worker's unforeseen end.
            self._begin_close()
            self._requests.close()

    def _run_next(self, f: Callable[[Work], RequeueAfter | None]) -> bool:
        """Waits for the next key and runs it; whether there was one. Afterwards the worker has nothing of the run."""
        request = self._next()
        if request is None:
            return False
        try:
            work = Work(request.work(), self._model)
            run = Run(request, work, self._name)
            try:
                run.returned(f(work))
            except BaseException as error:
                run.raised(error)
        finally:
            # Nothing if it was answered; else its key comes again, although a traceback may keep the request.
            request.drop()
        return True

    def _next(self) -> _native.Request | None:
        """Waits for the next key to be run; None when there are no more."""
        while True:
            try:
                self._requests.ready().wait()
            except (Closed, Forked):
                return None
            except CoordError as error:
                self._failure = error
                return None
            taken: tuple[_native.Request] | None = self._requests.take()
            if taken is not None:
                return taken[0]

    def __enter__(self) -> Reconciler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"closing the reconciler {self._name!r}", failure)


def check_sync(f: Callable[..., object]) -> None:
    """A coroutine function would never be run."""
    if inspect.iscoroutinefunction(f):
        raise TypeError("a function that is asynchronous is for coord.aio")


def native_reconcile(
    client: coord._client.ClientBase,
    name: str,
    source: Keys,
    workers: int,
    mode: Mode,
    shards: int | None,
    backoff: tuple[float, float] | None,
    rate: float | tuple[float, int] | None,
    resync: float | None,
    move_grace: float | None,
) -> tuple[_native.Call, Model]:
    """Describes the start of a reconciler to the native module, which checks the options; and its table's model."""
    native, model = _native_source(source)
    call = _native.reconcile(
        client._native,
        name,
        native,
        workers=workers,
        mode=mode,
        shards=shards,
        backoff=backoff,
        rate=rate if rate is None or isinstance(rate, tuple) else (rate, 1),
        resync=resync,
        move_grace=move_grace,
    )
    return call, model


def _native_source(source: Keys) -> tuple[_native.Source, Model]:
    if isinstance(source, Source):
        return source._native, None
    table, filter_ = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if not isinstance(table, TableBase):
        kind = type(source).__name__
        raise TypeError(f"a source is a Table, a pair of a Table and a filter, or a coord.Source, not {kind}")
    return _native.Source.table(table._native, filter_), table.model


# What the native module calls.


def _stats(
    counts: list[tuple[str, int]], seconds: list[tuple[str, float]], shards: list[int], synced: bool, paused: bool
) -> ReconcilerStats:
    facts: dict[str, Any] = {**dict(counts), **dict(seconds)}
    return ReconcilerStats(**facts, shards=tuple(shards), synced=synced, paused=paused)
