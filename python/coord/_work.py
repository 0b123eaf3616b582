"""One run of one key: what a reconciler's function gets and answers, for the synchronous API and asyncio's.

The core says which key is to be run and waits for the end of the run; here is what the function's end means.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coord import _native
from coord._errors import Cancelled, Closed, Fenced, Forked, NotHeld, Timeout
from coord._lock import ProcessBound, _qualified
from coord._model import Model, value_of

_logger = logging.getLogger("coord")


@dataclass(frozen=True)
class RequeueAfter:
    """What a reconciler's function returns to have its key run again later: see `requeue_after`.

    Attributes:
        seconds: How much later.

    Raises:
        TypeError: `seconds` is not a number.
        InvalidArgument: It is not a number of seconds from 0 to 100 years.
    """

    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", _native.seconds("the time to the next run", self.seconds))


def requeue_after(seconds: float) -> RequeueAfter:
    """What a reconciler's function returns to have its key run again after this time, or earlier if the key changes.

    Raises:
        TypeError: It is not a number.
        InvalidArgument: It is not a number of seconds from 0 to 100 years.

    >>> import coord
    >>> coord.requeue_after(30)
    RequeueAfter(seconds=30.0)
    """
    return RequeueAfter(seconds)


class Terminal(Exception):
    """Raised by a reconciler's function: its key will fail again, so it is parked until it changes or is added.

    >>> import coord
    >>> with coord.connect("memory:") as client:
    ...     def f(work):
    ...         raise coord.Terminal("no such customer")
    ...     with client.reconcile("bills", coord.Source.manual(), f) as reconciler:
    ...         added = reconciler.add("ann")
    ...         try:
    ...             reconciler.wait_until_reconciled("ann", timeout=30)
    ...         except coord.Conflict:
    ...             print([(parked.key, parked.reason) for parked in reconciler.parked()])
    [('ann', 'no such customer')]
    """


class RetryAfter(Exception):
    """Raised by a reconciler's function: it failed, and is to be tried again after this time instead of the back-off's.

    For a policy of one's own: `work.attempt` counts.

    Args:
        seconds: How many seconds until the next try, which comes earlier if the key changes.
        reason: What has failed, for people.

    Raises:
        TypeError: `seconds` is not a number.
        InvalidArgument: It is not a number of seconds from 0 to 100 years.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(seconds, reason)
        self.seconds = _native.seconds("the time to the next try", seconds)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or f"to be tried again after {self.seconds:g} s"


class CancellationBase(ProcessBound):
    """Whether a run is asked to stop: what needs no waiting. True in a condition when it is."""

    def __init__(self, native: _native.Work) -> None:
        self._native = native

    def is_set(self) -> bool:
        """Whether the run is asked to stop. No I/O."""
        return self._native.is_cancelled()

    def __bool__(self) -> bool:
        return self.is_set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self.is_set() else 'not set'}>"


class WorkBase(ProcessBound):
    """What a function is to work on: what needs no waiting."""

    def __init__(self, native: _native.Work, model: Model = None) -> None:
        self._native = native
        self._model = model

    @property
    def key(self) -> Any:
        """The key: of the document; the full name of the service or the lock; or what was added."""
        return self._native.key()

    @functools.cached_property
    def document(self) -> dict[str, Any] | None:
        """The document as it was when this run began.

        None if it was deleted or matches the filter no more, and for locks and keys that are added by hand. Of a
        service: `{"service": ..., "providers": [{"instance_id": ..., "session": ..., "name": ..., "host": ...,
        "pid": ..., "metadata": ...}]}`, None if nobody provides it.
        """
        return self._native.document()

    @functools.cached_property
    def value(self) -> Any:
        """The document as a value of the table's model; without a model, the document itself.

        Raises:
            CorruptState: The document is no such value.
        """
        return None if self.document is None else value_of(self.document, self._model)

    @property
    def attempt(self) -> int:
        """1, and one more for each error in a row before."""
        return self._native.attempt()

    @property
    def revision(self) -> int | None:
        """The state of the document, for `Table.replace`; None where there is no document, or the store has none."""
        return self._native.revision()

    @property
    def token(self) -> int | None:
        """The fencing token of the key's shard or of the leadership; None in mode "all".

        Tokens of one key are comparable for ever: give it to the resources that f changes.
        """
        return self._native.token()

    def check(self) -> None:
        """Checks that the key is still this process's to work on. Reads a clock, no I/O: call it before each effect.

        Raises:
            Fenced: The shard or the leadership is lost or given up.
            Cancelled: The run is asked to stop.
        """
        self._native.check()

    def _fence(self) -> _native.Fence:
        """The right to write to a table under this run's shard or leadership."""
        return self._native.fence()

    def __repr__(self) -> str:
        token = "" if self.token is None else f" token={self.token}"
        return f"<{_qualified(self)} {self.key!r} attempt={self.attempt}{token}>"


class Cancellation(CancellationBase):
    """Whether a run is asked to stop, as an event like `threading.Event`. True in a condition when it is.

    It is when the key is cancelled, when its shard or the leadership is lost or is to go to another replica, and when
    the reconciler or its client is being closed.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the run is asked to stop.

        Args:
            timeout: How many seconds to wait at most; None: for ever.

        Returns:
            Whether it is; False after the timeout.
        """
        try:
            self._native.cancelled().wait(timeout)
        except Timeout:
            return False
        return True


class Work(WorkBase):
    """What a reconciler's function is to work on.

    In the modes "leader" and "sharded" it can be given as the fence of a write to a table, `fence=work`: the write is
    refused when a later holder of the key's shard, or a later leader, has written, and as soon as this process knows
    that it has lost or given up the shard or the leadership.
    """

    def __init__(self, native: _native.Work, model: Model = None) -> None:
        super().__init__(native, model)
        self._cancelled = Cancellation(native)

    @property
    def cancelled(self) -> Cancellation:
        """An event that is set when the run is asked to stop."""
        return self._cancelled


class Run:
    """The end of one call of a reconciler's function. Whatever that is, the worker goes on.

    What the function answers with is an object of the user's, of which any part may fail: that, too, is an error of the
    run.
    """

    def __init__(self, request: _native.Request, work: WorkBase, reconciler: str) -> None:
        self._request = request
        self._work = work
        self._reconciler = reconciler

    def returned(self, answer: object) -> None:
        """The function has returned."""
        self._complete(lambda: self._answer(answer))

    def raised(self, error: BaseException) -> None:
        """The function has failed, unless it only did what it was asked: to stop."""
        if isinstance(error, (Cancelled, Fenced, Closed)) and self._native.is_cancelled():
            self.given_up()
            return
        self._log(logging.ERROR, "has failed", error)
        self._complete(lambda: self._fail(error))

    def given_up(self) -> None:
        """The function was stopped before its end: its key comes again."""
        self._request.drop()

    def stopped(self) -> None:
        """The function's task was cancelled by somebody else than the reconciler: its key comes again."""
        self._log(logging.WARNING, "was cancelled by others; its key comes again")
        self.given_up()

    @property
    def _native(self) -> _native.Work:
        return self._work._native

    def _answer(self, answer: object) -> None:
        if answer is None:
            self._request.done()
        elif isinstance(answer, RequeueAfter):
            self._request.requeue_after(answer.seconds)
        else:
            kind = type(answer).__name__
            raise TypeError(f"a reconciler's function returns None or coord.requeue_after(...), not {kind}")

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, Terminal):
            self._request.terminal(_text(error))
        elif isinstance(error, RetryAfter):
            self._request.failed(_text(error), error.seconds)
        else:
            self._request.failed(f"{type(error).__name__}: {_text(error)}", None)

    def _complete(self, answer: Callable[[], None]) -> None:
        try:
            try:
                answer()
            except _UNCOUNTED:
                raise
            except Exception as error:
                self._log(logging.ERROR, "has an answer that is none", error)
                self._request.failed(f"its answer is none: {type(error).__name__}: {_text(error)}", None)
        except _UNCOUNTED as error:
            self._log(logging.INFO, f"does not count: {error}")
        except Exception as error:
            self._log(logging.ERROR, "could not be answered; its key comes again", error)
            self.given_up()

    def _log(self, level: int, what: str, error: BaseException | None = None) -> None:
        text = "the run of %r by the reconciler %r %s (attempt %d)"
        log(level, text, self._work.key, self._reconciler, what, self._work.attempt, error=error)


_UNCOUNTED = (Fenced, NotHeld, Closed, Forked)
"""Why an answer that is one is not taken."""


def log(level: int, text: str, *arguments: object, error: BaseException | None = None) -> None:
    """Logs from what must go on: a filter of the user's that fails must not end it."""
    try:
        _logger.log(level, text, *arguments, exc_info=error)
    except Exception:
        traceback.print_exc()


def _text(error: BaseException | str) -> str:
    """What an exception or a text says, as text that is valid. One that cannot be shown is no reason to fail, too."""
    try:
        return str(error).encode("utf-8", "replace").decode()
    except Exception as failure:
        return f"(its text could not be had: {type(failure).__name__})"
