"""Locks, holds and their loss for asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from coord import _native
from coord._bridge import bridge
from coord._errors import CoordError, LossReason, Timeout
from coord._lock import HeldBase, LockBase, LossBase, also_failed, info_of
from coord._types import LockInfo

if TYPE_CHECKING:
    from typing_extensions import Self

    from coord.aio._client import Client

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Loss(LossBase):
    """Whether and why a hold is lost, as an event like `asyncio.Event`. Does not keep the lock held.

    `await held.lost` waits for the loss and gives the reason.
    """

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until the hold is lost.

        Args:
            timeout: How many seconds to wait at most; None: for ever.

        Returns:
            Whether it is lost; False after the timeout.

        Raises:
            NotHeld: It was released before it was lost.
        """
        try:
            await bridge().run(self._native.wait(), timeout)
        except Timeout:
            return False
        return True

    def __await__(self) -> Generator[Any, None, LossReason]:
        return self._reason().__await__()

    async def _reason(self) -> LossReason:
        return LossReason(await bridge().run(self._native.wait()))


class Held(HeldBase):
    """A lock that is held, until `release` or the end of an `async with` block.

    A hold that is garbage-collected without either is released in the background, with a `ResourceWarning`.
    """

    def __init__(self, native: _native.Held, client: Client) -> None:
        super().__init__(native, client)
        self._lost = Loss(native.lost())

    @property
    def lost(self) -> Loss:
        """An event that is set when the hold is lost, with the reason."""
        return self._lost

    async def ensure(self, seconds: float) -> None:
        """Makes sure that the hold stays valid for so long, by a renewal if that is needed.

        Args:
            seconds: How long from now; at most the ttl, less the stop margin.

        Raises:
            InvalidArgument: That is more than a renewal can give.
            Lost: The hold is lost.
            NotHeld: It was released.
            Unavailable: The store could not be reached in time.
        """
        await bridge().run(self._native.ensure(seconds))

    async def release(self) -> None:
        """Releases the lock and hands it to the next waiter. Once begun, it goes on when the task is cancelled.

        Raises:
            Lost: The hold was lost before. Nothing of a later holder is touched.
            NotHeld: It was released before.
        """
        await bridge().finish(self._native.release())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.released:
            return
        try:
            await self.release()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"releasing lock {self._name!r}", failure)


class Lock(LockBase):
    """A lock by its name. Nothing is held or asked for before it is acquired.

    It is not re-entrant: a second acquire by the same client waits like anyone's.
    """

    _client: Client

    async def acquire(self, timeout: float | None = None) -> Held:
        """Acquires the lock; waits in line, also through outages of the store.

        Args:
            timeout: How many seconds to wait at most; None: for ever; 0: not at all.

        Returns:
            The hold, an asynchronous context manager that releases it.

        Raises:
            Timeout: It was not granted in time.
            Contended: Somebody else holds it, with a timeout of 0; `holder` says who.
            QueueFull: As many wait as may.
            Lost: The session died while waiting; the next call uses a new one.
            Closed: The client is closed.
        """
        return Held(await bridge().run(self._native.acquire(timeout)), self._client)

    async def try_acquire(self) -> Held | None:
        """Acquires the lock if it is free and nobody waits for it.

        Returns:
            The hold, or None if somebody else is in the way.
        """
        native = await bridge().run(self._native.try_acquire())
        return None if native is None else Held(native, self._client)

    async def run(
        self, f: Callable[Concatenate[Held, _P], Awaitable[_R]], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """Acquires the lock, awaits `f(held, *args, **kwargs)`, releases the lock and returns the result.

        When the hold is lost, `held.lost` tells f to stop, and f is waited for: as long as its session lives, the
        store gives the lock to nobody before f has returned. Closing the client waits for f, too.

        Raises:
            Lost: The hold was lost before f had ended.
        """
        async with await self.acquire() as held:
            held._native.manage()
            return await f(held, *args, **kwargs)

    async def info(self) -> LockInfo | None:
        """Who holds this lock and who waits for it; None if it was never used.

        A free lock that was granted more than a day ago is forgotten; its tokens go on all the same.
        """
        return info_of(await bridge().run(self._native.info()))
