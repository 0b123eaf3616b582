"""Watches, logs and cursors of tables for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from coord._bridge import bridge
from coord._errors import Closed
from coord._table_types import LogEntry
from coord._table_watch import CursorBase, Delivery, Round, TableLogBase, TableWatchBase
from coord.aio._watch import Waiting, Watch

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_T = TypeVar("_T")
_V = TypeVar("_V")


class TableWatch(TableWatchBase[_V], Waiting[Delivery[_V]]):
    """What happens to the documents of a table, as deliveries: first a snapshot, then changes.

    `async for delivery in watch` acknowledges each delivery when the body of the loop has come to its end, and not when
    the body raises, is cancelled, or leaves the loop; see `coord.TableWatch`.
    """

    def __aiter__(self) -> AsyncIterator[Delivery[_V]]:
        return _Deliveries(self)


class _Deliveries(AsyncIterator[Delivery[_V]]):
    def __init__(self, watch: TableWatch[_V]) -> None:
        self._watch = watch
        self._round: Round[_V] = Round()

    async def __anext__(self) -> Delivery[_V]:
        self._round.ended()
        try:
            return self._round.begun(await self._watch.next())
        except Closed:
            raise StopAsyncIteration from None


class TableLog(TableLogBase, Watch[LogEntry]):
    """The change log of a table, as an asynchronous iterator that waits for the next entry; see `coord.TableLog`."""


class Cursor(CursorBase[_T]):
    """What a read finds, as an asynchronous iterator. It is an asynchronous context manager that closes it."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        while True:
            try:
                read = self._page.popleft()
            except IndexError:
                pass
            else:
                return self._make(read)
            await bridge().run(self._native.ready())
            if not self._turn_page():
                raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
