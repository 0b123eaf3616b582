"""Watches: what is told one after the other, for as long as somebody asks.

What was not asked for stays for the next time: a wait that ends by Ctrl-C, a timeout or a cancelled task loses nothing.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import coord
from coord import _native
from coord._errors import Closed
from coord._lock import ProcessBound, _qualified

if TYPE_CHECKING:
    from typing_extensions import Self

    import coord._client
else:
    # For whoever evaluates annotations.
    Self = Any

_T = TypeVar("_T")


class WatchBase(ProcessBound, Generic[_T]):
    """A watch: what needs no waiting.

    It keeps its client open, if it is given that. What a client or a provider tells of itself ends with it.
    """

    def __init__(self, feed: _native.Feed, of: str, client: coord._client.ClientBase | None = None) -> None:
        self._feed = feed
        self._of = of
        self._client = client

    @property
    def closed(self) -> bool:
        """Whether it was closed. It also ends with its client."""
        return self._feed.is_closed()

    def close(self) -> None:
        """Ends it, and every wait for its next item. No I/O."""
        self._feed.close()

    def _take(self) -> tuple[_T] | None:
        """The next item in a tuple, if somebody has waited for it and nobody has taken it."""
        taken: tuple[Any] | None = self._feed.take()
        return taken

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<{_qualified(self)} of {self._of}{state}>"


class Waiting(WatchBase[_T]):
    """A watch whose next item can be waited for. It is a context manager that closes it."""

    def next(self, timeout: float | None = None) -> _T:
        """Waits for the next item.

        Args:
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: Nothing came in time. Nothing is lost by that.
            Closed: The watch or its client is closed.
        """
        begin, left = time.monotonic(), timeout
        while True:
            self._feed.ready().wait(left)
            taken = self._take()
            if taken is not None:
                return taken[0]
            # Another thread was faster.
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begin))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class Watch(Waiting[_T]):
    """An iterator that waits for the next item, and ends when it or its client is closed.

    It is a context manager that closes it. Several threads may share one: each item goes to one of them.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        try:
            return self.next()
        except Closed:
            raise StopIteration from None
