"""Connecting, and clients for asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from coord import _native
from coord._bridge import bridge
from coord._client import ClientBase, native_connect
from coord._errors import CoordError
from coord._lock import also_failed, info_of
from coord._owner import Owners
from coord._reconciler import Keys, Mode, native_reconcile
from coord._table_base import Document, cached_call, check_uncached
from coord._types import LockInfo, Locks, Session
from coord._work import RequeueAfter, log
from coord.aio._calls import called, ended, ends_loop
from coord.aio._election import Election
from coord.aio._lock import Held, Lock
from coord.aio._observer import Observer
from coord.aio._owner import OwnerWatch
from coord.aio._provider import Provider
from coord.aio._reconciler import Reconciler, Work
from coord.aio._table import CachedTable, Table
from coord.aio._watch import Watch
from coord.aio.mail import Mailer, Outbox
from coord.mail import Address, native_mailer, native_outbox

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_Listener = TypeVar("_Listener", bound=Callable[[Session], object])
_V = TypeVar("_V")


async def connect(
    url: str | None = None,
    *,
    name: str | None = None,
    ttl: float | str | None = None,
    labels: Mapping[str, str] | None = None,
    namespace: str | None = None,
    scope: str | None = None,
    **options: float | str,
) -> Client:
    """Connects to a store, and opens a session there; arguments and errors as those of `coord.connect`.

    Returns:
        The client, an asynchronous context manager that closes it.
    """
    call = native_connect(url, name, ttl, labels, namespace, scope, options)
    return Client(await bridge().run(call))


class SessionWatch(Watch[Session]):
    """The states of a client's session, one after the other."""


class Client(ClientBase):
    """A connection to a store, with a session that carries everything which is held through it.

    It is an asynchronous context manager that closes it; at the exit of the process, clients that are open are closed
    within their `close_timeout`.
    """

    def __init__(self, native: _native.Client) -> None:
        super().__init__(native)
        self._tasks: set[asyncio.Task[None]] = set()

    def lock(self, name: str) -> Lock:
        """The lock of this name: `name`, `scope/name` or `namespace/scope/name`. No I/O.

        Raises:
            InvalidArgument: The name is not valid; `coord.sanitize` makes a name of any text.
        """
        return Lock(self._native.lock(name), self)

    def election(self, name: str) -> Election:
        """The election of this name: `name`, `scope/name` or `namespace/scope/name`. No I/O.

        Raises:
            InvalidArgument: The name is not valid; `coord.sanitize` makes a name of any text.
        """
        return Election(self._native.election(name), self)

    @overload
    def table(self, name: str, model: None = None) -> Table[dict[str, Any]]: ...
    @overload
    def table(self, name: str, model: type[_V]) -> Table[_V]: ...
    @overload
    def table(
        self,
        name: str,
        model: None = None,
        *,
        cached: Literal[True],
        filter: Document | None = None,
        max_bytes: int | None = None,
        read_your_writes: bool | None = None,
    ) -> Coroutine[Any, Any, CachedTable[dict[str, Any]]]: ...
    @overload
    def table(
        self,
        name: str,
        model: type[_V],
        *,
        cached: Literal[True],
        filter: Document | None = None,
        max_bytes: int | None = None,
        read_your_writes: bool | None = None,
    ) -> Coroutine[Any, Any, CachedTable[_V]]: ...
    def table(
        self,
        name: str,
        model: type[Any] | None = None,
        *,
        cached: bool = False,
        filter: Document | None = None,
        max_bytes: int | None = None,
        read_your_writes: bool | None = None,
    ) -> Table[Any] | Coroutine[Any, Any, CachedTable[Any]]:
        """The table of this name. No I/O, unless it is to be cached: then it is to be awaited.

        Args:
            name: `name`, or `database.collection` for any collection of a MongoDB server. A plain name does not depend
                on namespace and scope.
            model: A dataclass or a model of pydantic that documents are values of; None: they are dicts.
            cached: Keep a copy in memory. Waits until it is complete.
            filter: Of a copy: those that match only; None: all.
            max_bytes: Of a copy: the most that the documents may take, in bytes of BSON; None: 256 MiB. While a
                snapshot is read anew there may be as much again.
            read_your_writes: Of a copy: whether a write returns only when the copy shows it, as it does by default.

        Raises:
            InvalidArgument: The name, or an option; or the copy would take more than `max_bytes`.
            Unsupported: The store cannot be watched, or not by this filter.
            Closed: The client is closed.
        """
        native = self._native.table(name)
        if cached:
            call = cached_call(native, filter, max_bytes, read_your_writes, model)
            return self._cached_table(call, model)
        check_uncached(model, filter=filter, max_bytes=max_bytes, read_your_writes=read_your_writes)
        return Table(native, self, model)

    async def _cached_table(self, call: _native.Call, model: type[Any] | None) -> CachedTable[Any]:
        return CachedTable(await bridge().run(call), self, model)

    def mailer(self, url: str = "smtp://", **options: float | str | Address) -> Mailer:
        """A mailer for the server at this URL; see `coord.mailer`. No I/O. It outlives the client.

        Raises:
            InvalidArgument: The URL or an option.
            Closed: The client is closed.
        """
        return Mailer(native_mailer(self, url, options))

    def outbox(self, name: str, mailer: Mailer, **options: float | str) -> Outbox:
        """The outbox of this name, whose mails go through this mailer. No I/O; nothing is sent before `Outbox.start`.

        Args:
            name: Its name: `name`, `scope/name` or `namespace/scope/name`.
            mailer: What sends.
            **options: on_doubt ("send" or "park"), rate and per_domain_rate ("100/m"), attempts, retry_min, retry_max,
                poll; see docs/mail.md.

        Raises:
            InvalidArgument: The name or an option.
            Closed: The client is closed.
        """
        return Outbox(native_outbox(self, name, mailer, options), self, mailer)

    async def locks(self, prefix: str = "") -> Locks:
        """Every lock whose full name begins with `prefix`, with holders and waiters.

        Without a prefix, all of this client's namespace. A notebook shows the result as a table.
        """
        return Locks(await bridge().run(self._native.locks(prefix)))

    async def lock_info(self, name: str) -> LockInfo | None:
        """Who holds this lock and who waits for it; None if it was never used.

        A free lock that was granted more than a day ago is forgotten; its tokens go on all the same.
        """
        return info_of(await bridge().run(self._native.lock(name).info()))

    async def break_lock(self, name: str, token: int, force: bool = False) -> None:
        """Ends somebody's hold, if it is still the one with this token; see `coord.Client.break_lock`.

        Raises:
            Conflict: The token is not that of the present hold. Nothing is broken then.
            Timeout: The holder was asked and has not gone in time, as a rule because it is alive.
        """
        await bridge().run(self._native.break_lock(name, token, force))

    def held(self) -> list[Held]:
        """The holds of this client that were not released."""
        return self._unreleased()

    async def provide(
        self, service: str, metadata: str = "", *, instance_id: str | None = None, reregister: bool = True
    ) -> Provider:
        """Says that this process provides a service. Returns when observers can see it.

        Args:
            service: Its name: `name`, `scope/name` or `namespace/scope/name`.
            metadata: What those want to know who look for it, an address for example; at most 4 KiB.
            instance_id: Tells the providers of one service in this client apart; random if not given.
            reregister: Whether it is registered again under the next session after one was lost.

        Returns:
            The provider, an asynchronous context manager that withdraws it. It must be kept.

        Raises:
            InvalidArgument: The name, the metadata or the instance id.
            AlreadyExists: This client provides the service under this instance id.
            QueueFull: More than 1,000 providers or 1 MiB of metadata in one session.
            Unavailable: The store cannot be reached.
            Closed: The client is closed.
        """
        return Provider(await bridge().run(self._native.provide(service, metadata, instance_id, reregister)), self)

    async def observe(self, pattern: str, *, down_grace: float = 0) -> Observer:
        """Observes a service, or all services of a scope. Returns when the first view is complete.

        However many observers a client has, they share one stream of changes from the store.

        Args:
            pattern: `name`, `scope/name`, `namespace/scope/name`; or `*`, `scope/*`, `namespace/scope/*`.
            down_grace: For how many seconds a `LAST_DOWN` is held back. It is dropped when a provider is back in time.

        Returns:
            The observer, an asynchronous iterator of `ObserverEvent` and context manager that closes it.

        Raises:
            InvalidArgument: The pattern or the time.
            Unavailable: The store cannot be reached.
            Closed: The client is closed.
        """
        return Observer(await bridge().run(self._native.observe(pattern, down_grace)), self)

    async def owners(self) -> Owners:
        """The sessions that are alive, and what each holds and provides. A notebook shows the result as a table."""
        return Owners(await bridge().run(self._native.owners()))

    async def watch_owners(self) -> OwnerWatch:
        """Watches sessions come and go.

        In its events `holds` is what the session held when the watch read it: nothing, for one that has just joined.
        """
        return OwnerWatch(await bridge().run(self._native.watch_owners()), "owners", self)

    async def reconcile(
        self,
        name: str,
        source: Keys,
        f: Callable[[Work], Awaitable[RequeueAfter | None] | RequeueAfter | None],
        *,
        workers: int = 1,
        mode: Mode = "all",
        shards: int | None = None,
        backoff: tuple[float, float] | None = None,
        rate: float | tuple[float, int] | None = None,
        resync: float | None = None,
        move_grace: float | None = None,
        timeout: float | None = None,
    ) -> Reconciler:
        """Calls `f(work)` for every key of a source, and again for every key that changes, in tasks of this loop.

        Within one reconciler a key is never run twice at once, and changes during a run lead to exactly one more. A run
        that is asked to stop has its task cancelled. Returns when the source is followed; docs/reconciler.md tells the
        rest, and what is not promised.

        Args:
            name: Its name: `name`, `scope/name` or `namespace/scope/name`. It tells the replicas of one reconciler, and
                matters only in the modes "leader" and "sharded".
            source: Where the keys come from: a table, a pair of a table and a filter, or a `coord.Source`.
            f: The function. It returns None when it is done with the key, or `coord.requeue_after(seconds)`; what it
                raises is an error, after which the key is tried again: `coord.Terminal` parks it, `coord.RetryAfter`
                says when. If it is asynchronous it is awaited.
            workers: How many keys are run at once.
            mode: Which of several replicas, reconcilers of one name, run a key: "all", every one; "leader", the
                elected one; "sharded", each key by the one that holds its shard.
            shards: How many shards there are in mode "sharded", the same for all replicas, for ever; None: 64.
            backoff: The first and the longest pause after an error, in seconds; they double in between. By default from
                5 ms to 1000 s.
            rate: How many runs may begin in a second, evenly; or a pair of that and how many may begin at once. None:
                as many as can.
            resync: After how many seconds every key is run although nothing has changed, again and again; at least 1.
                None: never.
            move_grace: For how many seconds a run may go on when its shard is to move to another replica, before it is
                asked to stop; None: 10. However long it takes, the shard moves after its end.
            timeout: How many seconds the start may take; None: as long as it takes.

        Returns:
            The reconciler, an asynchronous context manager that closes it.

        Raises:
            InvalidArgument: The name or an option; another number of shards than this reconciler began with; a source
                of keys that are added by hand in another mode than "all", since nobody else knows them.
            Unsupported: The store cannot watch.
            Timeout: The source could not be followed in time.
            Closed: The client is closed.
        """
        options = (workers, mode, shards, backoff, rate, resync, move_grace)
        call, model = native_reconcile(self, name, source, *options)
        return Reconciler(await bridge().run(call, timeout), self, f, model)

    async def health(self) -> None:
        """Asks the store whether it could be written to now.

        Raises:
            Unavailable: It cannot be reached.
            Closed: The client is closed.
        """
        await bridge().run(self._native.health())

    async def open_session(self) -> Client:
        """Opens another session on the same store: a client whose holds live and die independently of this one's."""
        return Client(await bridge().run(self._native.open_session()))

    def session_changes(self) -> SessionWatch:
        """The session's states from now on, each when it comes; ends when the client is closed.

        A session that was lost and replaced by a new one is a change, too. States that follow each other faster than
        they are fetched are left out, but never the last. Unlike other watches, this does not keep the client open.
        """
        # The task of a listener has it, and must not keep the client.
        return SessionWatch(self._native.changes(), "the session")

    def on_session_change(self, f: _Listener) -> _Listener:
        """Calls `f(session)` at each change of the session, in a task of this loop, until the client is closed.

        If f is asynchronous it is awaited. What it raises is logged. Returns f, so that this is a decorator, too.
        """
        self._keep(_listen(self.session_changes(), f))
        return f

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begins a task and keeps it until it has ended: a loop does not."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, timeout: float | None = None) -> None:
        """Ends every wait with `Closed`, releases what is held, and waits for functions that run under a lock.

        Closing twice is no error. Once begun, it goes on when the task is cancelled.

        Args:
            timeout: How many seconds that may take; None: the option `close_timeout`.

        Raises:
            Timeout: It takes longer; it goes on in the background.
        """
        await bridge().finish(self._native.close(timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, "closing the client", failure)


async def _listen(changes: SessionWatch, f: Callable[[Session], object]) -> None:
    async for session in changes:
        failure = await ended(asyncio.create_task(called(f, session)))
        if failure is None:
            continue
        if ends_loop(failure):
            return
        log(logging.ERROR, "a listener for changes of the session failed", error=failure)
