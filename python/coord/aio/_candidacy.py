"""Functions that run while this client leads, for asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import coord
from coord import _native
from coord._bridge import bridge
from coord._candidacy import CandidacyBase, ended_early, failed, put_away, tell_trouble
from coord._errors import Closed, CoordError, Forked
from coord._work import log
from coord.aio._calls import called, ended, ends_loop

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_R = TypeVar("_R")


class Candidacy(CandidacyBase):
    """A function that is called in every term of this client, in a task of the loop, until `close`.

    It is an asynchronous context manager that closes it. It ends with its loop, too, where that is ended by
    `asyncio.run` or a runner, which cancel its task; close it before a bare `loop.close()`.
    """

    def __init__(
        self, native: _native.Candidacy, election: coord.aio.Election, f: Callable[[coord.aio.Term], object]
    ) -> None:
        super().__init__(native, election, f)
        self._call: asyncio.Task[object] | None = None
        self._task = election._client._keep(self._serve(election, f))

    async def close(self, timeout: float | None = None) -> None:
        """Ends it: no call begins any more, and the function is told by `term.lost` that its term is over.

        Waits until the function has returned, and until the term is given back if nobody else of this client is a
        candidate; in the function itself it does not wait. Closing twice is no error.

        Args:
            timeout: How many seconds to wait at most; None: as long as the function needs.

        Raises:
            Timeout: The function runs on.
        """
        self._native.close()
        if asyncio.current_task() is not self._call:
            await bridge().run(self._native.closed(), timeout)
            if self._task.get_loop() is asyncio.get_running_loop():
                # It has no more calls to wait for.
                await asyncio.wait([self._task])

    async def _serve(self, election: coord.aio.Election, f: Callable[[coord.aio.Term], object]) -> None:
        try:
            while (elected := await next_call(self._calls, self._name)) is not None:
                self._running = True
                try:
                    error = await ended(asyncio.create_task(self._lead(f, _term(elected, election))))
                    if error is None:
                        elected.complete(None)
                    elif ends_loop(error):
                        self._native.close()
                        elected.complete(None)
                    else:
                        failed(elected, error, self._name)
                except BaseException:
                    # The task is cancelled: no failure of the function's, and its last call.
                    self._native.close()
                    elected.complete(None)
                    raise
                finally:
                    self._running = False
        finally:
            self._native.close()
            put_away(self._calls)
            self._ended = True

    async def _lead(self, f: Callable[[coord.aio.Term], object], term: coord.aio.Term) -> object:
        self._call = asyncio.current_task()
        try:
            return await called(f, term)
        finally:
            self._call = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()


async def run_as_leader(
    native: _native.Candidacy, election: coord.aio.Election, f: Callable[[coord.aio.Term], Awaitable[_R]]
) -> _R:
    """Awaits a function in every term, until it returns during one."""
    calls = native.calls()
    try:
        while (elected := await next_call(calls, election.name)) is not None:
            term = _term(elected, election)
            try:
                result = await f(term)
            except Exception as error:
                failed(elected, error, election.name)
                continue
            except BaseException as error:
                # The task is cancelled: no failure of the function's, and its last call.
                native.close()
                elected.complete(None)
                _tell_cancellation(error, election.name)
                raise
            done = not ended_early(term.lost.reason)
            if done:
                native.close()
            elected.complete(None)
            if done:
                await bridge().run(native.closed())
                return result
        raise Closed("the client was closed")
    finally:
        native.close()
        put_away(calls)


def _tell_cancellation(error: BaseException, name: str) -> None:
    """Logs a cancellation that is not that of the task, but ends it all the same. Python 3.10 knows no difference."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    if isinstance(error, asyncio.CancelledError) and cancelling is not None and not cancelling():
        log(logging.WARNING, "what a function awaited as leader of election %r was cancelled: its campaign ends", name)


def _term(elected: _native.Elected, election: coord.aio.Election) -> coord.aio.Term:
    from coord.aio._election import Term

    return Term(elected.term(), election._client, owned=False)


async def next_call(calls: _native.Feed, name: str) -> _native.Elected | None:
    """Waits for the next call; None when there are no more."""
    while True:
        try:
            await bridge().run(calls.ready())
        except (Closed, Forked):
            return None
        except CoordError as error:
            tell_trouble(error, name)
            continue
        taken: tuple[_native.Elected] | None = calls.take()
        if taken is not None:
            return taken[0]
