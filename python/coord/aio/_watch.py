"""Watches for asyncio."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from coord._bridge import bridge
from coord._errors import Closed
from coord._watch import WatchBase

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_T = TypeVar("_T")


class Waiting(WatchBase[_T]):
    """A watch whose next item can be waited for. It is an asynchronous context manager that closes it."""

    async def next(self, timeout: float | None = None) -> _T:
        """Waits for the next item.

        Args:
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: Nothing came in time. Nothing is lost by that, nor by cancelling the task.
            Closed: The watch or its client is closed.
        """
        begin, left = time.monotonic(), timeout
        while True:
            await bridge().run(self._feed.ready(), left)
            taken = self._take()
            if taken is not None:
                return taken[0]
            # Another task was faster.
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begin))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


class Watch(Waiting[_T]):
    """An asynchronous iterator that waits for the next item, and ends when it or its client is closed.

    It is an asynchronous context manager that closes it. Several tasks may share one: each item goes to one of them.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        try:
            return await self.next()
        except Closed:
            raise StopAsyncIteration from None
