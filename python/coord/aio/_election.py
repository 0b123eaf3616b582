"""Elections, terms and their leaders for asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import coord
from coord import _native
from coord._bridge import bridge
from coord._election import Candidate, Candidates, ElectionBase, Leader, TermBase, _session_of
from coord._errors import CoordError
from coord._lock import also_failed
from coord.aio._candidacy import Candidacy, run_as_leader
from coord.aio._lock import Loss
from coord.aio._watch import Watch

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_R = TypeVar("_R")


class Term(TermBase):
    """A time of leadership, until `resign` or the end of a `async with` block.

    A term that is garbage-collected without either is resigned in the background, with a `ResourceWarning`.
    """

    def __init__(self, native: _native.Term, client: coord.aio.Client, owned: bool = True) -> None:
        super().__init__(native, client, owned)
        self._lost = Loss(native.lost())

    @property
    def lost(self) -> Loss:
        """An event that is set when the term is over for any reason, before anybody else can lead."""
        return self._lost

    async def ensure(self, seconds: float) -> None:
        """Makes sure that the term stays valid for so long, by a renewal if that is needed.

        Args:
            seconds: How long from now; at most the ttl, less the stop margin.

        Raises:
            InvalidArgument: That is more than a renewal can give.
            Lost: The term is lost.
            NotHeld: It was resigned.
            Unavailable: The store could not be reached in time.
        """
        await bridge().run(self._native.ensure(seconds))

    async def proclaim(self, value: str) -> None:
        """Says something else of this leader. Returns when others can see it.

        Raises:
            InvalidArgument: It is longer than 64 KiB.
            Lost: The term is lost.
            NotHeld: It was resigned.
        """
        await bridge().run(self._native.proclaim(value))

    async def resign(self) -> None:
        """Ends the term, here at once, then in the store, where the next candidate wins it.

        In a function of `Election.when_elected` the store hears of it when the function has returned. While the store
        cannot be reached this waits, at most until the session has ended; an interrupted one goes on in the background.

        Raises:
            Lost: The term was lost before. Nothing of a later leader is touched.
            NotHeld: It was resigned before.
        """
        await bridge().finish(self._native.resign())

    async def transfer_to(self, candidate: Candidate | str) -> None:
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
        await bridge().run(self._native.transfer_to(_session_of(candidate)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.resigned:
            return
        try:
            await self.resign()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"resigning from {self._name!r}", failure)


class LeaderWatch(Watch["Leader | None"]):
    """Who leads, as it changes: an asynchronous iterator of `Leader`, and of None when nobody leads.

    The first item is the present state. Between two terms there is always None, whatever ended the first one; what a
    leader proclaims is an item, too. After an interruption, the state at its end.
    """


class Election(ElectionBase):
    """An election by its name. Nobody is a candidate before it campaigns."""

    _client: coord.aio.Client

    async def campaign(self, value: str = "", *, priority: int = 0, timeout: float | None = None) -> Term:
        """Waits until this client leads.

        Args:
            value: What others are told of this leader, an address for example.
            priority: From -2048 to 2047: the highest waiting one wins the next term; among equals, who waits longest.
                A leader is not pushed out by a higher one.
            timeout: How many seconds to wait at most; None: for ever; 0: not at all.

        Returns:
            The term, an asynchronous context manager that resigns it.

        Raises:
            Timeout: It was not elected in time.
            Contended: Somebody else leads, with a timeout of 0; `holder` says who.
            InvalidArgument: The value or the priority.
            QueueFull: As many wait as may.
            Lost: The session died while waiting; the next call uses a new one.
            Closed: The client is closed.
        """
        return Term(await bridge().run(self._native.campaign(value, priority, timeout)), self._client)

    async def try_campaign(self, value: str = "") -> Term | None:
        """Leads, if nobody does and nobody waits for it.

        Returns:
            The term, or None if somebody else is in the way.

        Raises:
            Unavailable: The store cannot be reached.
            Closed: The client is closed.
        """
        native = await bridge().run(self._native.try_campaign(value))
        return None if native is None else Term(native, self._client)

    async def leader(self) -> Leader | None:
        """Who leads; None if nobody does."""
        leader: Leader | None = await bridge().run(self._native.leader())
        return leader

    async def candidates(self) -> Candidates:
        """Who waits to lead, in the order in which they would. A notebook shows the result as a table."""
        return Candidates(await bridge().run(self._native.candidates()))

    async def observe(self) -> LeaderWatch:
        """Watches who leads."""
        return LeaderWatch(await bridge().run(self._native.observe()), f"the leader of {self._name!r}", self._client)

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
        """Calls `f(term)` each time that this client is elected, in a task of this loop, until it is closed.

        If f is asynchronous it is awaited.

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
        """

        def begin(f: Callable[[Term], object]) -> Candidacy:
            native = self._when_elected(f, value, priority, keep_on_error, backoff)
            return Candidacy(native, self, f)

        return begin if f is None else begin(f)

    async def run(
        self,
        f: Callable[[Term], Awaitable[_R]],
        /,
        *,
        value: str = "",
        priority: int = 0,
        keep_on_error: bool = False,
        backoff: tuple[float, float] | None = None,
    ) -> _R:
        """Campaigns, and awaits `f(term)` in each term, until f returns during one; then resigns; returns the result.

        f runs in this task. When its term is over, `term.lost` tells f to stop, and it is called again in the next
        term. An exception in f is logged, ends the term, and is followed by a growing pause. Cancelling the task ends
        it all, and so does a cancellation of something that f awaits, when f lets it out.

        Args:
            f: The function.
            value: As for `when_elected`, and so are the others.
            priority: The highest waiting one wins the next term.
            keep_on_error: Whether an exception in f leaves the term as it is.
            backoff: The first and the longest pause after an exception, in seconds.

        Raises:
            Closed: The client was closed.
        """
        native = self._when_elected(f, value, priority, keep_on_error, backoff)
        return await run_as_leader(native, self, f)
