"""Elections, terms and their leaders: what the synchronous API and asyncio's share, and the synchronous classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, overload

import coord
from coord import _native
from coord._candidacy import Candidacy, run_as_leader
from coord._errors import CoordError
from coord._lock import GrantBase, Loss, ProcessBound, _qualified, also_failed
from coord._native import Term as NativeTerm
from coord._types import _html_table, _utc, _who
from coord._watch import Watch

if TYPE_CHECKING:
    import coord._client

_R = TypeVar("_R")


@dataclass(frozen=True)
class Leader:
    """Who leads, as the store knows it.

    Attributes:
        session: The id of its session.
        name: The name that its client was given, or an empty text.
        host: The name of its host.
        pid: Its process id on that host.
        labels: The labels that its client was given.
        value: What it says of itself; None if it has not said anything yet.
        token: The fencing token of its term.
        since: When the term began, by the store's clock. For people, never for decisions.
        is_self: Whether it is this very client.
    """

    session: str
    name: str
    host: str
    pid: int
    labels: dict[str, str] = field(hash=False)
    value: str | None
    token: int
    since: datetime
    is_self: bool

    def __str__(self) -> str:
        return _who(self.name, self.session, self.host, self.pid)


@dataclass(frozen=True)
class Candidate:
    """Who waits to lead.

    Attributes:
        session: The id of its session: what `Term.transfer_to` takes.
        name: The name that its client was given, or an empty text.
        host: The name of its host.
        pid: Its process id on that host.
        priority: The highest one wins the next term.
        is_self: Whether it is this very client.
    """

    session: str
    name: str
    host: str
    pid: int
    priority: int
    is_self: bool

    def __str__(self) -> str:
        return _who(self.name, self.session, self.host, self.pid)


class Candidates(list[Candidate]):
    """A list of candidates, the next leader first, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [(candidate, candidate.session[:8], candidate.priority) for candidate in self]
        return _html_table(("candidate", "session", "priority"), rows)


class TermBase(GrantBase):
    """A time of leadership: what needs no waiting."""

    _native: NativeTerm
    _ended = "resigned"

    def __init__(self, native: NativeTerm, client: coord._client.ClientBase, owned: bool = True) -> None:
        super().__init__(native, client)
        # A term with which a function is called is given back by the candidacy, not with the last reference to this.
        self._owned = owned

    @property
    def name(self) -> str:
        """The election's full name, `namespace/scope/name`."""
        return self._name

    @property
    def token(self) -> int:
        """The fencing token: grows with every term of this election, and never falls.

        Give it to the resource that only the leader may change, so that it can refuse a leader from before.
        """
        return self._token

    @property
    def value(self) -> str:
        """What was proclaimed last."""
        return self._native.value()

    @property
    def resigned(self) -> bool:
        """Whether it was resigned, or is being resigned."""
        return self._native.released()

    def _is_open(self) -> bool:
        return self._owned and super()._is_open()


class Term(TermBase):
    """A time of leadership, until `resign` or the end of a `with` block.

    A term that is garbage-collected without either is resigned in the background, with a `ResourceWarning`.

    >>> import coord
    >>> with coord.connect("memory:") as client:
    ...     with client.election("boss").campaign("10.0.0.1:80") as term:
    ...         term.check()
    ...         print(term.name, term.value, term.lost.is_set())
    default/default/boss 10.0.0.1:80 False
    """

    def __init__(self, native: NativeTerm, client: coord._client.ClientBase, owned: bool = True) -> None:
        super().__init__(native, client, owned)
        self._lost = Loss(native.lost())

    @property
    def lost(self) -> Loss:
        """An event that is set when the term is over for any reason, before anybody else can lead."""
        return self._lost

    def ensure(self, seconds: float) -> None:
        """Makes sure that the term stays valid for so long, by a renewal if that is needed.

        Args:
            seconds: How long from now; at most the ttl, less the stop margin.

        Raises:
            InvalidArgument: That is more than a renewal can give.
            Lost: The term is lost.
            NotHeld: It was resigned.
            Unavailable: The store could not be reached in time.
        """
        self._native.ensure(seconds).wait()

    def proclaim(self, value: str) -> None:
        """Says something else of this leader. Returns when others can see it.

        Raises:
            InvalidArgument: It is longer than 64 KiB.
            Lost: The term is lost.
            NotHeld: It was resigned.
        """
        self._native.proclaim(value).wait()

    def resign(self) -> None:
        """Ends the term, here at once, then in the store, where the next candidate wins it.

        In a function of `Election.when_elected` the store hears of it when the function has returned. While the store
        cannot be reached this waits, at most until the session has ended; an interrupted one goes on in the background.

        Raises:
            Lost: The term was lost before. Nothing of a later leader is touched.
            NotHeld: It was resigned before.
        """
        self._native.resign().wait()

    def transfer_to(self, candidate: Candidate | str) -> None:
        """Ends the term and hands it over to a candidate that waits, whatever its priority.

        The candidate must be seen to renew its session, so that it is not given to one that has died: that takes up to
        a sixth of its ttl, and at most a third.

        Args:
            candidate: One of `Election.candidates()`, or the id of its session.

        Raises:
            NotFound: It does not wait. This client leads on, unless the candidate left in the very moment.
            Unavailable: It was not seen to renew its session, or the store cannot be reached. This client leads on.
            InvalidArgument: That is no id of a session, or this client's own.
            Lost: The term was lost before.
            NotHeld: It was resigned before.
        """
        self._native.transfer_to(_session_of(candidate)).wait()

    def __enter__(self) -> Term:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.resigned:
            return
        try:
            self.resign()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"resigning from {self._name!r}", failure)


class LeaderWatch(Watch["Leader | None"]):
    """Who leads, as it changes: an iterator of `Leader`, and of None when nobody leads.

    The first item is the present state. Between two terms there is always None, whatever ended the first one; what a
    leader proclaims is an item, too. After an interruption, the state at its end.
    """


class ElectionBase(ProcessBound):
    """An election by its name: what needs no waiting."""

    def __init__(self, native: _native.Election, client: coord._client.ClientBase) -> None:
        self._native = native
        self._client = client
        self._name = native.name()

    @property
    def name(self) -> str:
        """The election's full name, `namespace/scope/name`."""
        return self._name

    def is_leader(self) -> bool:
        """Whether this client has a valid term now. No I/O."""
        return self._native.is_leader()

    def _when_elected(
        self, f: object, value: str, priority: int, keep_on_error: bool, backoff: tuple[float, float] | None
    ) -> _native.Candidacy:
        if not callable(f):
            raise TypeError(f"f is a function, not {type(f).__name__}")
        return self._native.when_elected(value, priority, keep_on_error, backoff)

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {self._name!r}>"


class Election(ElectionBase):
    """An election by its name. Nobody is a candidate before it campaigns."""

    _client: coord.Client

    def campaign(self, value: str = "", *, priority: int = 0, timeout: float | None = None) -> Term:
        """Waits until this client leads. Ctrl-C ends the wait.

        Args:
            value: What others are told of this leader, an address for example.
            priority: From -2048 to 2047: the highest waiting one wins the next term; among equals, who waits longest.
                A leader is not pushed out by a higher one.
            timeout: How many seconds to wait at most; None: for ever; 0: not at all.

        Returns:
            The term, a context manager that resigns it.

        Raises:
            Timeout: It was not elected in time.
            Contended: Somebody else leads, with a timeout of 0; `holder` says who.
            InvalidArgument: The value or the priority.
            QueueFull: As many wait as may.
            Lost: The session died while waiting; the next call uses a new one.
            Closed: The client is closed.
        """
        return Term(self._native.campaign(value, priority, timeout).wait(), self._client)

    def try_campaign(self, value: str = "") -> Term | None:
        """Leads, if nobody does and nobody waits for it.

        Returns:
            The term, or None if somebody else is in the way.

        Raises:
            Unavailable: The store cannot be reached.
            Closed: The client is closed.
        """
        native = self._native.try_campaign(value).wait()
        return None if native is None else Term(native, self._client)

    def leader(self) -> Leader | None:
        """Who leads; None if nobody does.

        >>> import coord
        >>> with coord.connect("memory:", name="me") as client, client.election("boss").campaign("hello"):
        ...     leader = client.election("boss").leader()
        ...     print(leader.name, leader.value, leader.is_self)
        me hello True
        """
        leader: Leader | None = self._native.leader().wait()
        return leader

    def candidates(self) -> Candidates:
        """Who waits to lead, in the order in which they would. A notebook shows the result as a table."""
        return Candidates(self._native.candidates().wait())

    def observe(self) -> LeaderWatch:
        """Watches who leads.

        >>> import coord
        >>> with coord.connect("memory:", name="me") as client, client.election("boss").observe() as watch:
        ...     print(watch.next(timeout=30))
        ...     with client.election("boss").campaign("here"):
        ...         print(next(leader.value for leader in watch if leader and leader.value))
        ...     print(watch.next(timeout=30))
        None
        here
        None
        """
        return LeaderWatch(self._native.observe().wait(), f"the leader of {self._name!r}", self._client)

    @overload
    def when_elected(
        self,
        f: Callable[[Term], object],
        /,
        *,
        value: str = "",
        priority: int = 0,
        keep_on_error: bool = False,
        backoff: tuple[float, float] | None = None,
    ) -> Candidacy: ...

    @overload
    def when_elected(
        self,
        f: None = None,
        /,
        *,
        value: str = "",
        priority: int = 0,
        keep_on_error: bool = False,
        backoff: tuple[float, float] | None = None,
    ) -> Callable[[Callable[[Term], object]], Candidacy]: ...

    def when_elected(
        self,
        f: Callable[[Term], object] | None = None,
        /,
        *,
        value: str = "",
        priority: int = 0,
        keep_on_error: bool = False,
        backoff: tuple[float, float] | None = None,
    ) -> Candidacy | Callable[[Callable[[Term], object]], Candidacy]:
        """Calls `f(term)` each time that this client is elected, on a thread of its own, until it is closed.

        It campaigns by itself, again and again, through lost sessions and outages of the store. When the term is over
        for any reason, `term.lost` tells f to stop, and f is waited for: it is never called again before it has
        returned. When f returns while the term is valid, this client leads on; a function that is done with the term
        resigns it (`term.resign()`).

        Several functions may be given: they share one campaign, and one that is given while this client leads is
        called at once.

        An exception in f is logged with its traceback, resigns the term, and is followed by a pause before the next
        campaign.

        Args:
            f: The function. Without one this is a decorator, which puts the candidacy in the function's place.
            value: What others are told of this leader.
            priority: The highest waiting one wins the next term.
            keep_on_error: Whether an exception in f leaves the term as it is.
            backoff: The first and the longest pause after an exception, in seconds; they double in between. By default
                from 1 s to 1 min.

        Returns:
            The candidacy, which goes on until it is closed, or its client is.

        Raises:
            InvalidArgument: The value, the priority, or a pause.
            Closed: The client is closed.

        >>> import coord, threading
        >>> called = threading.Event()
        >>> with coord.connect("memory:") as client:
        ...     @client.election("boss").when_elected()
        ...     def lead(term):
        ...         called.set()
        ...         term.lost.wait()
        ...     print(called.wait(30))
        ...     lead.close()
        True
        """

        def begin(f: Callable[[Term], object]) -> Candidacy:
            native = self._when_elected(f, value, priority, keep_on_error, backoff)
            return Candidacy(native, self, f)

        return begin if f is None else begin(f)

    def run(
        self,
        f: Callable[[Term], _R],
        /,
        *,
        value: str = "",
        priority: int = 0,
        keep_on_error: bool = False,
        backoff: tuple[float, float] | None = None,
    ) -> _R:
        """Campaigns, and calls `f(term)` in each term, until f returns during one; then resigns and returns the result.

        f runs on this thread. When its term is over, `term.lost` tells f to stop, and it is called again in the next
        term. An exception in f is logged, ends the term, and is followed by a growing pause; Ctrl-C ends it all.

        Args:
            f: The function.
            value: As for `when_elected`, and so are the others.
            priority: The highest waiting one wins the next term.
            keep_on_error: Whether an exception in f leaves the term as it is.
            backoff: The first and the longest pause after an exception, in seconds.

        Raises:
            Closed: The client was closed.

        >>> import coord
        >>> with coord.connect("memory:") as client:
        ...     client.election("boss").run(lambda term: term.name)
        'default/default/boss'
        """
        native = self._when_elected(f, value, priority, keep_on_error, backoff)
        return run_as_leader(native, self, f)


def _session_of(candidate: Candidate | str) -> str:
    """The id of its session."""
    return candidate.session if isinstance(candidate, Candidate) else candidate


# What the native module calls.


def _leader(
    session: str,
    name: str,
    host: str,
    pid: int,
    labels: dict[str, str],
    value: str | None,
    token: int,
    since_ms: int,
    is_self: bool,
) -> Leader:
    return Leader(session, name, host, pid, labels, value, token, _utc(since_ms), is_self)
