"""Functions that run while this client leads: what the synchronous API and asyncio's share, and the synchronous class.

The core says when a call begins and waits for its end; here the function is called, and what it raises is told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import coord
from coord import _native
from coord._errors import Closed, CoordError, Forked, LossReason
from coord._lock import ProcessBound, _qualified
from coord._work import _text, log

if TYPE_CHECKING:
    import coord._election

_R = TypeVar("_R")


class CandidacyBase(ProcessBound):
    """A function that is called in every term: what needs no waiting."""

    def __init__(
        self, native: _native.Candidacy, election: coord._election.ElectionBase, f: Callable[..., object]
    ) -> None:
        self._native = native
        self._calls = native.calls()
        self._name = election.name
        self._function = getattr(f, "__qualname__", repr(f))
        self._running = False
        self._ended = False

    @property
    def name(self) -> str:
        """The election's full name, `namespace/scope/name`."""
        return self._name

    @property
    def running(self) -> bool:
        """Whether the function runs now."""
        return self._running

    @property
    def closed(self) -> bool:
        """Whether it has ended: it was closed, or its client was, and the function has returned."""
        return self._ended

    def __repr__(self) -> str:
        state = "closed" if self._ended else "running" if self._running else "waiting"
        return f"<{_qualified(self)} of {self._function} in {self._name!r} {state}>"


class Candidacy(CandidacyBase):
    """A function that is called in every term of this client, until `close`.

    It is a context manager that closes it.
    """

    def __init__(self, native: _native.Candidacy, election: coord.Election, f: Callable[[coord.Term], object]) -> None:
        super().__init__(native, election, f)
        self._thread = threading.Thread(target=self._serve, args=(election, f), name="coord-elected", daemon=True)
        self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """Ends it: no call begins any more, and the function is told by `term.lost` that its term is over.

        Waits until the function has returned, and until the term is given back if nobody else of this client is a
        candidate; in the function itself it does not wait. Closing twice is no error.

        Args:
            timeout: How many seconds to wait at most; None: as long as the function needs.

        Raises:
            Timeout: The function runs on.
        """
        self._native.close()
        if threading.current_thread() is not self._thread:
            self._native.closed().wait(timeout)
            # It has no more calls to wait for.
            self._thread.join()

    def _serve(self, election: coord.Election, f: Callable[[coord.Term], object]) -> None:
        try:
            while (elected := next_call(self._calls, self._name)) is not None:
                self._running = True
                try:
                    f(_term(elected, election))
                except BaseException as error:
                    failed(elected, error, self._name)
                else:
                    elected.complete(None)
                finally:
                    self._running = False
        finally:
            self._native.close()
            put_away(self._calls)
            self._ended = True

    def __enter__(self) -> Candidacy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def run_as_leader(native: _native.Candidacy, election: coord.Election, f: Callable[[coord.Term], _R]) -> _R:
    """Calls a function in every term, until it returns during one."""
    calls = native.calls()
    try:
        while (elected := next_call(calls, election.name)) is not None:
            term = _term(elected, election)
            try:
                result = f(term)
            except Exception as error:
                failed(elected, error, election.name)
                continue
            except BaseException:
                # Ctrl-C: no failure of the function's, and its last call.
                native.close()
                elected.complete(None)
                raise
            done = not ended_early(term.lost.reason)
            if done:
                native.close()
            elected.complete(None)
            if done:
                native.closed().wait()
                return result
        raise Closed("the client was closed")
    finally:
        native.close()
        put_away(calls)


def _term(elected: _native.Elected, election: coord.Election) -> coord.Term:
    from coord._election import Term

    return Term(elected.term(), election._client, owned=False)


def ended_early(reason: LossReason | None) -> bool:
    """Whether a term ended while its function ran, and not by the function's own wish."""
    return reason is not None and reason is not LossReason.RESIGNED


def next_call(calls: _native.Feed, name: str) -> _native.Elected | None:
    """Waits for the next call; None when there are no more."""
    while True:
        try:
            calls.ready().wait()
        except (Closed, Forked):
            return None
        except CoordError as error:
            tell_trouble(error, name)
            continue
        taken: tuple[_native.Elected] | None = calls.take()
        if taken is not None:
            return taken[0]


def put_away(calls: _native.Feed) -> None:
    """Ends the calls; one that has begun and never got to the function has not failed."""
    taken: tuple[_native.Elected] | None = None if _native.forked() else calls.take()
    if taken is not None:
        taken[0].complete(None)
    calls.close()


def tell_trouble(error: CoordError, name: str) -> None:
    """Logs what the store said no to; the campaign goes on."""
    log(logging.ERROR, "the campaign for election %r goes on after an error", name, error=error)


def failed(elected: _native.Elected, error: BaseException, name: str) -> None:
    """Answers that the function has failed, and logs the traceback."""
    log(logging.ERROR, "a function that ran as leader of election %r has failed", name, error=error)
    elected.complete(f"{type(error).__name__}: {_text(error)}")
