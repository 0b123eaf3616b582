"""Locks, holds and their loss: what the synchronous API and asyncio's share, and the synchronous classes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

from coord import _native
from coord._errors import CoordError, LossReason, Lost, Timeout, _note
from coord._native import Queue, forked
from coord._types import LockInfo

if TYPE_CHECKING:
    from coord._client import Client, ClientBase
    from coord._native import Fence as NativeFence
    from coord._native import Held as NativeHeld
    from coord._native import Term as NativeTerm

_P = ParamSpec("_P")
_R = TypeVar("_R")

_logger = logging.getLogger("coord")


class ProcessBound:
    """What cannot leave its process."""

    def __reduce__(self) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(f"a {kind} belongs to its process and cannot be pickled; connect in each process")


class LossBase(ProcessBound):
    """Whether and why a hold is lost. Does not keep the lock held."""

    def __init__(self, native: _native.Loss) -> None:
        self._native = native

    @property
    def reason(self) -> LossReason | None:
        """Why the hold is lost; None if it is not, or was released before. No I/O."""
        reason = self._native.reason()
        return None if reason is None else LossReason(reason)

    def is_set(self) -> bool:
        """Whether the hold is lost. No I/O."""
        return self._native.reason() is not None

    def __repr__(self) -> str:
        reason = self.reason
        return f"<{type(self).__name__} {'not lost' if reason is None else reason.name}>"


class GrantBase(ProcessBound):
    """What was granted and is held, a lock or a term: what needs no waiting."""

    _native: NativeHeld | NativeTerm

    def __init__(self, native: NativeHeld | NativeTerm, client: ClientBase) -> None:
        self._native = native
        self._client = client
        self._name = native.name()
        self._token = native.token()

    @property
    def remaining(self) -> float:
        """How many seconds it stays valid without another renewal; 0 when it is lost or given back. No I/O."""
        return self._native.remaining()

    def check(self) -> None:
        """Checks that it is valid now. Reads a clock, no I/O: call it before each effect.

        Raises:
            Lost: It is not; `reason` says why.
            NotHeld: It was given back.
        """
        self._native.check()

    def _fence(self) -> NativeFence:
        """The right to write to a table under this grant."""
        return self._native.fence()

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {self._name!r} token={self._token} {self._state()}>"

    def _state(self) -> str:
        if self._native.released():
            return self._ended
        reason = self._native.lost().reason()
        return f"remaining={self.remaining:.1f}s" if reason is None else f"lost: {LossReason(reason).name}"

    _ended = "released"

    def _is_open(self) -> bool:
        """Whether somebody should still give it back."""
        return not self._native.released() and self._native.lost().reason() is None

    def __del__(self, _forked: Callable[[], bool] = forked) -> None:
        # A forked child owns nothing; and when the interpreter ends, nothing is left to be released.
        if hasattr(self, "_token") and not _forked() and self._is_open():
            text = f"{self!r} was never {self._ended}; it is {self._ended} now"
            # Before the warning, which may be an error, and is kept together with this by whoever collects warnings.
            Queue().start(0, self._native.give_back())
            warnings.warn(text, ResourceWarning, stacklevel=1, source=self)


class HeldBase(GrantBase):
    """A lock that is held: what needs no waiting."""

    _native: NativeHeld

    def __init__(self, native: NativeHeld, client: ClientBase) -> None:
        super().__init__(native, client)
        client._track(self)

    @property
    def name(self) -> str:
        """The lock's full name, `namespace/scope/name`."""
        return self._name

    @property
    def token(self) -> int:
        """The fencing token: grows with every grant of this lock, and never falls.

        Give it to the resource that the lock protects, so that it can refuse a holder from before. Tokens of
        different locks cannot be compared.
        """
        return self._token

    @property
    def released(self) -> bool:
        """Whether it was released, or is being released."""
        return self._native.released()


class LockBase(ProcessBound):
    """A lock by its name: what needs no waiting."""

    def __init__(self, native: _native.Lock, client: ClientBase) -> None:
        self._native = native
        self._client = client
        self._name = native.name()

    @property
    def name(self) -> str:
        """The lock's full name, `namespace/scope/name`."""
        return self._name

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {self._name!r}>"


class Loss(LossBase):
    """Whether and why a hold is lost, as an event like `threading.Event`. Does not keep the lock held."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the hold is lost.

        Args:
            timeout: How many seconds to wait at most; None: for ever.

        Returns:
            Whether it is lost; False after the timeout.

        Raises:
            NotHeld: It was released before it was lost.
        """
        try:
            self._native.wait().wait(timeout)
        except Timeout:
            return False
        return True


class Held(HeldBase):
    """A lock that is held, until `release` or the end of a `with` block.

    A hold that is garbage-collected without either is released in the background, with a `ResourceWarning`.

    >>> import coord
    >>> with coord.connect("memory:") as client:
    ...     with client.lock("a").acquire() as held:
    ...         held.check()
    ...         print(held.name, held.remaining > 5, held.lost.is_set())
    default/default/a True False
    """

    def __init__(self, native: _native.Held, client: Client) -> None:
        super().__init__(native, client)
        self._lost = Loss(native.lost())

    @property
    def lost(self) -> Loss:
        """An event that is set when the hold is lost, with the reason."""
        return self._lost

    def ensure(self, seconds: float) -> None:
        """Makes sure that the hold stays valid for so long, by a renewal if that is needed.

        Args:
            seconds: How long from now; at most the ttl, less the stop margin.

        Raises:
            InvalidArgument: That is more than a renewal can give.
            Lost: The hold is lost.
            NotHeld: It was released.
            Unavailable: The store could not be reached in time.
        """
        self._native.ensure(seconds).wait()

    def release(self) -> None:
        """Releases the lock and hands it to the next waiter.

        While the store cannot be reached this waits, at most until the session has ended; an interrupted release goes
        on in the background.

        Raises:
            Lost: The hold was lost before. Nothing of a later holder is touched.
            NotHeld: It was released before.
        """
        self._native.release().wait()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.released:
            return
        try:
            self.release()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"releasing lock {self._name!r}", failure)


class Lock(LockBase):
    """A lock by its name. Nothing is held or asked for before it is acquired.

    It is not re-entrant: a second acquire by the same client waits like anyone's.
    """

    _client: Client

    def acquire(self, timeout: float | None = None) -> Held:
        """Acquires the lock; waits in line, also through outages of the store. Ctrl-C ends the wait.

        Args:
            timeout: How many seconds to wait at most; None: for ever; 0: not at all.

        Returns:
            The hold, a context manager that releases it.

        Raises:
            Timeout: It was not granted in time.
            Contended: Somebody else holds it, with a timeout of 0; `holder` says who.
            QueueFull: As many wait as may.
            Lost: The session died while waiting; the next call uses a new one.
            Closed: The client is closed.

        >>> import coord
        >>> with coord.connect("memory:") as client, client.lock("a").acquire(timeout=5) as held:
        ...     try:
        ...         client.lock("a").acquire(timeout=0)
        ...     except coord.Contended as error:
        ...         print(error.holder.is_self)
        True
        """
        return Held(self._native.acquire(timeout).wait(), self._client)

    def try_acquire(self) -> Held | None:
        """Acquires the lock if it is free and nobody waits for it.

        Returns:
            The hold, or None if somebody else is in the way.

        Raises:
            Unavailable: The store cannot be reached.
            Closed: The client is closed.

        >>> import coord
        >>> with coord.connect("memory:") as client, client.lock("a").acquire():
        ...     print(client.lock("a").try_acquire())
        None
        """
        native = self._native.try_acquire().wait()
        return None if native is None else Held(native, self._client)

    def run(self, f: Callable[Concatenate[Held, _P], _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Acquires the lock, calls `f(held, *args, **kwargs)`, releases the lock and returns the result.

        When the hold is lost, `held.lost` tells f to stop, and f is waited for: as long as its session lives, the
        store gives the lock to nobody before f has returned. Closing the client waits for f, too.

        Raises:
            Lost: The hold was lost before f had ended.

        >>> import coord
        >>> with coord.connect("memory:") as client:
        ...     client.lock("a").run(lambda held, n: n + 1, 41)
        42
        """
        with self.acquire() as held:
            held._native.manage()
            return f(held, *args, **kwargs)

    def info(self) -> LockInfo | None:
        """Who holds this lock and who waits for it; None if it was never used.

        A free lock that was granted more than a day ago is forgotten; its tokens go on all the same.
        """
        return info_of(self._native.info().wait())


def info_of(answer: Any) -> LockInfo | None:
    """The answer of the native module, as what it is."""
    assert answer is None or isinstance(answer, LockInfo)
    return answer


def also_failed(error: BaseException, what: str, failure: CoordError) -> None:
    """Tells of a failure that must not hide the error which came before it."""
    _note(error, f"{what} failed, too: {failure}")
    # The loss itself has been logged, and is what the error is about as often as not.
    level = logging.DEBUG if isinstance(failure, Lost) else logging.WARNING
    _logger.log(level, "%s failed: %s", what, failure)


def _qualified(thing: object) -> str:
    module = "coord.aio" if type(thing).__module__.startswith("coord.aio") else "coord"
    return f"{module}.{type(thing).__name__}"
