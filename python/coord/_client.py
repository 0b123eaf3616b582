"""Connecting, and clients: what the synchronous API and asyncio's share, and the synchronous class."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import coord
from coord import _lifetime, _native
from coord._election import Election
from coord._errors import CoordError, Forked, InvalidArgument
from coord._lock import Held, HeldBase, Lock, ProcessBound, _qualified, also_failed, info_of
from coord._observer import Observer
from coord._owner import Owners, OwnerWatch
from coord._provider import Provider
from coord._reconciler import Keys, Mode, Reconciler, check_sync, native_reconcile
from coord._table import CachedTable, Table
from coord._table_base import Document, cached_call, check_uncached
from coord._types import LockInfo, Locks, Session, Stats, _html_table
from coord._watch import Watch
from coord._work import RequeueAfter, Work, log

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_Listener = TypeVar("_Listener", bound=Callable[[Session], object])
_V = TypeVar("_V")


def connect(
    url: str | None = None,
    *,
    name: str | None = None,
    ttl: float | str | None = None,
    labels: Mapping[str, str] | None = None,
    namespace: str | None = None,
    scope: str | None = None,
    **options: float | str,
) -> Client:
    """Connects to a store, and opens a session there that carries everything which the client holds.

    Args:
        url: `memory:`, `memory:name` (shared inside this process), `sqlite:///relative.db`,
            `sqlite:////absolute.db`, `mongodb://...` or `mongodb+srv://...`. Without one, the variable COORD_URL
            or, if it is not set, a file in the user's state directory.
        name: The owner's name, for people.
        ttl: How long others wait before they may declare this client dead: seconds, or a text like "30s". By default
            30 s on MongoDB, else 10 s.
        labels: Further facts about the owner, for people; at most 32 of 256 bytes.
        namespace: First part of names that are given without; "default" if not set.
        scope: Second part of names that are given without; "default" if not set.
        **options: Any other option of a URL, without its prefix `coord.`: stop_margin, max_queue, host_liveness,
            durability, prefix, pool, close_timeout; and clock, for tests (`coord.testing`).

    Returns:
        The client, a context manager that closes it.

    Raises:
        InvalidArgument: The URL or an option; the message says what is wrong.
        Unavailable: The store cannot be reached.
        Unauthorized: The store does not accept the credentials.
        Forbidden: The credentials lack a right.
        Forked: This process was forked from one that had connected. Fork before the first client of the process is
            created.

    >>> import coord
    >>> with coord.connect("memory:", name="example", ttl=2) as client:
    ...     print(client.session.name, client.session.ttl)
    example 2.0
    """
    return Client(native_connect(url, name, ttl, labels, namespace, scope, options).wait())


def native_connect(
    url: str | None,
    name: str | None,
    ttl: float | str | None,
    labels: Mapping[str, str] | None,
    namespace: str | None,
    scope: str | None,
    options: Mapping[str, float | str],
) -> _native.Call:
    """Describes a connection to the native module, which checks what is text."""
    texts: list[tuple[str, str]] = []
    texts += [(key, _option(key, value)) for key, value in options.items()]
    if ttl is not None:
        texts.append(("ttl", _option("ttl", ttl)))
    for key, text in (("name", name), ("namespace", namespace), ("scope", scope)):
        if text is not None:
            texts.append((key, text))
    if labels is not None:
        if not isinstance(labels, Mapping):
            raise TypeError(f"labels is a mapping of str to str, not {type(labels).__name__}")
        for key, text in labels.items():
            if not isinstance(key, str):
                raise TypeError(f"the key of a label is a str, not {type(key).__name__}")
            texts.append((f"label.{key}", text))
    _lifetime.start_log()
    return _native.connect(url, texts)


def _option(key: str, value: object) -> str:
    """The value of an option as in a URL."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} is a number or a str, not {type(value).__name__}")
    try:
        return repr(float(value)) if isinstance(value, float) else str(int(value))
    except ValueError:
        raise InvalidArgument(f"{key} has too many digits") from None


class ClientBase(ProcessBound):
    """A client: what needs no waiting."""

    def __init__(self, native: _native.Client) -> None:
        self._native = native
        self._holds: weakref.WeakSet[HeldBase] = weakref.WeakSet()
        _lifetime.opened(self)

    @property
    def location(self) -> str:
        """Where the store is, without credentials."""
        return self._native.location()

    @property
    def session(self) -> Session:
        """The client's session as it is now. No I/O."""
        return self._native.session()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.is_closed()

    def stats(self) -> Stats:
        """What this client has done, and how near it came to losing its session. No I/O.

        >>> import coord
        >>> with coord.connect("memory:") as client:
        ...     client.lock("a").acquire().release()
        ...     print(client.stats().grants, client.stats().store.claim_steps)
        1 2
        """
        return self._native.stats()

    def _track(self, held: HeldBase) -> None:
        self._holds.add(held)

    def _unreleased(self) -> list[Any]:
        holds = [held for held in _lifetime.snapshot(self._holds) if not held.released]
        return sorted(holds, key=lambda held: (held.name, held.token))

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {' '.join(f'{key}={value}' for key, value in self._facts())}>"

    def _repr_html_(self) -> str:
        holds = ", ".join(f"{held.name} (token {held.token})" for held in self._unreleased())
        return _html_table(("client", self._facts()[0][1]), [*self._facts()[1:], ("holds", holds or "nothing")])

    def _facts(self) -> list[tuple[str, object]]:
        try:
            session, waiting = self.session, self.stats().waiting
        except Forked:
            return [("store", "none"), ("state", "forked")]
        return [
            ("store", self.location),
            ("name", session.name or "''"),
            ("session", session.id[:8]),
            ("state", "closed" if self.closed else session.state),
            ("remaining", f"{session.remaining:.1f}s"),
            ("waiting", waiting),
        ]

    def __del__(self, _forked: Callable[[], bool] = _native.forked) -> None:
        # A forked child owns nothing; and when the interpreter ends, nothing is left to be closed.
        if hasattr(self, "_holds") and not _forked() and not self._native.is_closed():
            text = f"{self!r} was never closed; it is closed now"
            # Before the warning, which may be an error; and explicitly, since a listener may keep the native client.
            _lifetime.forgotten(self._native.close(None), self._native)
            warnings.warn(text, ResourceWarning, stacklevel=1, source=self)


class SessionWatch(Watch[Session]):
    """The states of a client's session, one after the other."""


class Client(ClientBase):
    """A connection to a store, with a session that carries everything which is held through it.

    Any thread may use it. It is a context manager that closes it; at the exit of the process, clients that are open
    are closed within their `close_timeout`.
    """

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

        >>> import coord
        >>> with coord.connect("memory:") as client:
        ...     with client.election("boss").campaign("10.0.0.1:80") as term:
        ...         print(client.election("boss").is_leader())
        True
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
    ) -> CachedTable[dict[str, Any]]: ...
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
    ) -> CachedTable[_V]: ...
    def table(
        self,
        name: str,
        model: type[Any] | None = None,
        *,
        cached: bool = False,
        filter: Document | None = None,
        max_bytes: int | None = None,
        read_your_writes: bool | None = None,
    ) -> Table[Any]:
        """The table of this name. No I/O, unless it is to be cached.

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

        >>> import coord, dataclasses
        >>> @dataclasses.dataclass
        ... class Order:
        ...     customer: str
        ...     total: float
        >>> with coord.connect("memory:") as client:
        ...     orders = client.table("orders", Order)
        ...     _ = orders.insert("a1", Order("ann", 12.5))
        ...     orders.get("a1").value
        Order(customer='ann', total=12.5)
        """
        native = self._native.table(name)
        if cached:
            return CachedTable(cached_call(native, filter, max_bytes, read_your_writes, model).wait(), self, model)
        check_uncached(model, filter=filter, max_bytes=max_bytes, read_your_writes=read_your_writes)
        return Table(native, self, model)

    def mailer(self, url: str = "smtp://", **options: float | str | coord.mail.Address) -> coord.Mailer:
        """A mailer for the server at this URL; see `coord.mailer`. No I/O. It outlives the client.

        Raises:
            InvalidArgument: The URL or an option.
            Closed: The client is closed.
        """
        from coord import mail

        return mail.Mailer(mail.native_mailer(self, url, options))

    def outbox(self, name: str, mailer: coord.Mailer, **options: float | str) -> coord.Outbox:
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
        from coord import mail

        return mail.Outbox(mail.native_outbox(self, name, mailer, options), self, mailer)

    def locks(self, prefix: str = "") -> Locks:
        """Every lock whose full name begins with `prefix`, with holders and waiters.

        Without a prefix, all of this client's namespace. A notebook shows the result as a table.

        >>> import coord
        >>> with coord.connect("memory:", name="me") as client, client.lock("a").acquire():
        ...     [(info.name, info.holder.name) for info in client.locks()]
        [('default/default/a', 'me')]
        """
        return Locks(self._native.locks(prefix).wait())

    def lock_info(self, name: str) -> LockInfo | None:
        """Who holds this lock and who waits for it; None if it was never used.

        A free lock that was granted more than a day ago is forgotten; its tokens go on all the same.
        """
        return info_of(self._native.lock(name).info().wait())

    def break_lock(self, name: str, token: int, force: bool = False) -> None:
        """Ends somebody's hold, if it is still the one with this token. For operators.

        The holder is asked, and its hold is lost at once; this waits until the lock has left it, for up to two of its
        ttls. So nobody ever holds while the old holder still believes.

        Args:
            name: The lock's name.
            token: The token of the hold to end, as `lock_info` shows it.
            force: Remove the holder right away. Until it learns of that (a third of its ttl as a rule, all of it when
                it is cut off), it may believe in its hold beside the next one, and only its token tells them apart.

        Raises:
            Conflict: The token is not that of the present hold. Nothing is broken then.
            Timeout: The holder was asked and has not gone in time, as a rule because it is alive.
        """
        self._native.break_lock(name, token, force).wait()

    def held(self) -> list[Held]:
        """The holds of this client that were not released."""
        return self._unreleased()

    def provide(
        self, service: str, metadata: str = "", *, instance_id: str | None = None, reregister: bool = True
    ) -> Provider:
        """Says that this process provides a service. Returns when observers can see it.

        Args:
            service: Its name: `name`, `scope/name` or `namespace/scope/name`.
            metadata: What those want to know who look for it, an address for example; at most 4 KiB.
            instance_id: Tells the providers of one service in this client apart; random if not given.
            reregister: Whether it is registered again under the next session after one was lost.

        Returns:
            The provider, a context manager that withdraws it. It must be kept.

        Raises:
            InvalidArgument: The name, the metadata or the instance id.
            AlreadyExists: This client provides the service under this instance id.
            QueueFull: More than 1,000 providers or 1 MiB of metadata in one session.
            Unavailable: The store cannot be reached.
            Closed: The client is closed.

        >>> import coord
        >>> with coord.connect("memory:") as client, client.observe("web") as web:
        ...     with client.provide("web", "10.0.0.1:80"):
        ...         web.wait_available(timeout=5)
        ...         print([provider.metadata for provider in web.providers()])
        ['10.0.0.1:80']
        """
        return Provider(self._native.provide(service, metadata, instance_id, reregister).wait(), self)

    def observe(self, pattern: str, *, down_grace: float = 0) -> Observer:
        """Observes a service, or all services of a scope. Returns when the first view is complete.

        However many observers a client has, they share one stream of changes from the store.

        Args:
            pattern: `name`, `scope/name`, `namespace/scope/name`; or `*`, `scope/*`, `namespace/scope/*`.
            down_grace: For how many seconds a `LAST_DOWN` is held back. It is dropped when a provider is back in time.

        Returns:
            The observer, an iterator of `ObserverEvent` and a context manager that closes it.

        Raises:
            InvalidArgument: The pattern or the time.
            Unavailable: The store cannot be reached.
            Closed: The client is closed.

        >>> import coord
        >>> with coord.connect("memory:") as client, client.observe("*") as services:
        ...     with client.provide("web"):
        ...         kinds = [services.next(timeout=30).kind.value for _ in range(4)]
        ...     print(kinds)
        ['snapshot_start', 'snapshot_end', 'first_up', 'joined']
        """
        return Observer(self._native.observe(pattern, down_grace).wait(), self)

    def owners(self) -> Owners:
        """The sessions that are alive, and what each holds and provides. A notebook shows the result as a table.

        >>> import coord
        >>> with coord.connect("memory:", name="me") as client, client.lock("a").acquire():
        ...     [(owner.name, owner.holds) for owner in client.owners()]
        [('me', ('lock/default/default/a',))]
        """
        return Owners(self._native.owners().wait())

    def watch_owners(self) -> OwnerWatch:
        """Watches sessions come and go.

        In its events `holds` is what the session held when the watch read it: nothing, for one that has just joined.

        >>> import coord
        >>> with coord.connect("memory:", name="one") as client, client.watch_owners() as watch:
        ...     [watch.next(timeout=30).kind.value for _ in range(3)]
        ['snapshot_start', 'joined', 'snapshot_end']
        """
        return OwnerWatch(self._native.watch_owners().wait(), "owners", self)

    @overload
    def reconcile(
        self,
        name: str,
        source: Keys,
        f: Callable[[Work], RequeueAfter | None],
        *,
        workers: int = 1,
        mode: Mode = "all",
        shards: int | None = None,
        backoff: tuple[float, float] | None = None,
        rate: float | tuple[float, int] | None = None,
        resync: float | None = None,
        move_grace: float | None = None,
        timeout: float | None = None,
    ) -> Reconciler: ...

    @overload
    def reconcile(
        self,
        name: str,
        source: Keys,
        f: None = None,
        *,
        workers: int = 1,
        mode: Mode = "all",
        shards: int | None = None,
        backoff: tuple[float, float] | None = None,
        rate: float | tuple[float, int] | None = None,
        resync: float | None = None,
        move_grace: float | None = None,
        timeout: float | None = None,
    ) -> Callable[[Callable[[Work], RequeueAfter | None]], Reconciler]: ...

    def reconcile(
        self,
        name: str,
        source: Keys,
        f: Callable[[Work], RequeueAfter | None] | None = None,
        *,
        workers: int = 1,
        mode: Mode = "all",
        shards: int | None = None,
        backoff: tuple[float, float] | None = None,
        rate: float | tuple[float, int] | None = None,
        resync: float | None = None,
        move_grace: float | None = None,
        timeout: float | None = None,
    ) -> Reconciler | Callable[[Callable[[Work], RequeueAfter | None]], Reconciler]:
        """Calls `f(work)` for every key of a source, and again for every key that changes, on threads of its own.

        Within one reconciler a key is never run twice at once, and changes during a run lead to exactly one more.
        Returns when the source is followed; docs/reconciler.md tells the rest, and what is not promised.

        Args:
            name: Its name: `name`, `scope/name` or `namespace/scope/name`. It tells the replicas of one reconciler, and
                matters only in the modes "leader" and "sharded".
            source: Where the keys come from: a table, a pair of a table and a filter, or a `coord.Source`.
            f: The function. It returns None when it is done with the key, or `coord.requeue_after(seconds)`; what it
                raises is an error, after which the key is tried again: `coord.Terminal` parks it, `coord.RetryAfter`
                says when. Without one this is a decorator, which puts the reconciler in the function's place.
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
            The reconciler, a context manager that closes it.

        Raises:
            InvalidArgument: The name or an option; another number of shards than this reconciler began with; a source
                of keys that are added by hand in another mode than "all", since nobody else knows them.
            Unsupported: The store cannot watch.
            Timeout: The source could not be followed in time.
            Closed: The client is closed.

        >>> import coord
        >>> with coord.connect("memory:") as client:
        ...     orders = client.table("orders")
        ...     written = orders.insert("a1", {"total": 12.5})
        ...     with client.reconcile("r", orders, lambda work: print(work.document["total"])) as reconciler:
        ...         reconciler.wait_until_reconciled("a1", written.position, timeout=30)
        12.5
        """

        def begin(f: Callable[[Work], RequeueAfter | None]) -> Reconciler:
            check_sync(f)
            options = (workers, mode, shards, backoff, rate, resync, move_grace)
            call, model = native_reconcile(self, name, source, *options)
            return Reconciler(call.wait(timeout), self, f, model, workers)

        return begin if f is None else begin(f)

    def health(self) -> None:
        """Asks the store whether it could be written to now.

        Raises:
            Unavailable: It cannot be reached.
            Closed: The client is closed.
        """
        self._native.health().wait()

    def open_session(self) -> Client:
        """Opens another session on the same store: a client whose holds live and die independently of this one's."""
        return Client(self._native.open_session().wait())

    def session_changes(self) -> SessionWatch:
        """The session's states from now on, each when it comes; ends when the client is closed.

        A session that was lost and replaced by a new one is a change, too. States that follow each other faster than
        they are fetched are left out, but never the last. Unlike other watches, this does not keep the client open.
        """
        # The thread of a listener has it, and must not keep the client.
        return SessionWatch(self._native.changes(), "the session")

    def on_session_change(self, f: _Listener) -> _Listener:
        """Calls `f(session)` at each change of the session, on a thread of its own, until the client is closed.

        What f raises is logged. Returns f, so that this is a decorator, too.
        """
        changes = self.session_changes()
        threading.Thread(target=_listen, args=(changes, f), name="coord-session", daemon=True).start()
        return f

    def close(self, timeout: float | None = None) -> None:
        """Ends every wait with `Closed`, releases what is held, and waits for functions that run under a lock.

        Closing twice is no error.

        Args:
            timeout: How many seconds that may take; None: the option `close_timeout`.

        Raises:
            Timeout: It takes longer; it goes on in the background.
        """
        self._native.close(timeout).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, "closing the client", failure)


def _listen(changes: SessionWatch, f: Callable[[Session], object]) -> None:
    for session in changes:
        try:
            f(session)
        except Exception as error:
            log(logging.ERROR, "a listener for changes of the session failed", error=error)
