"""Watches, logs and cursors of tables: what the synchronous API and asyncio's share, and the synchronous classes."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import coord
from coord import _native
from coord._errors import Closed, NotHeld
from coord._lock import ProcessBound
from coord._model import Model, value_of
from coord._table_types import LogEntry, LogOperation, TableEventKind
from coord._types import _utc
from coord._watch import Waiting, Watch, WatchBase
from coord._work import _text

if TYPE_CHECKING:
    from typing_extensions import Self

    import coord._client
else:
    # For whoever evaluates annotations.
    Self = Any

_T = TypeVar("_T")
_V = TypeVar("_V")


class Delivery(ProcessBound, Generic[_V]):
    """One thing that a watch of a table tells, to be acknowledged by `done` or `failed`.

    Until it is, nothing else comes. One that failed, or that is garbage-collected without having been acknowledged,
    comes again: after 5 ms at first, and after up to 1000 s when it fails again and again.
    """

    def __init__(
        self, native: _native.Delivery, told: tuple[Any, ...], position: int, failures: int, model: Model
    ) -> None:
        self._native = native
        kind, self._key, self._document, self._previous, self._revision = told
        self._kind = TableEventKind(kind)
        self._position = position
        self._failures = failures
        self._model = model

    @property
    def kind(self) -> TableEventKind:
        """What has happened."""
        return self._kind

    @property
    def key(self) -> Any:
        """The document's key; None for the ends of a snapshot."""
        return self._key

    @property
    def document(self) -> dict[str, Any] | None:
        """The document as of this change, or on MongoDB perhaps as of a later one; None where there is none."""
        return cast("dict[str, Any] | None", self._document)

    @property
    def value(self) -> _V | None:
        """The document as a value of the table's model; None where there is none.

        Raises:
            CorruptState: The document is no such value.
        """
        return None if self._document is None else cast(_V, value_of(self._document, self._model))

    @property
    def previous(self) -> dict[str, Any] | None:
        """What the document was before, where that was asked for and is known."""
        return cast("dict[str, Any] | None", self._previous)

    @property
    def revision(self) -> int | None:
        """The state of the document, for `replace` and `delete`."""
        return cast("int | None", self._revision)

    @property
    def position(self) -> int:
        """Up to where everything has been told, with this: a later watch may begin here, and misses nothing.

        That is its own place, or the one before while other changes of its place may follow: those of one transaction
        on MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then. 0 within a snapshot.
        """
        return self._position

    @property
    def failures(self) -> int:
        """How often this was delivered before."""
        return self._failures

    def done(self) -> None:
        """Says that it went well, so that the next may come.

        Raises:
            NotHeld: It was acknowledged before.
        """
        self._say(None)

    def failed(self, error: BaseException | str) -> None:
        """Says that it did not go well, and why, for the log: it comes again.

        Raises:
            NotHeld: It was acknowledged before.
        """
        named = not isinstance(error, str)
        text = f"{type(error).__name__}: {_text(error)}" if named else _text(error)
        self._say(text or "no reason was given")

    def _say(self, error: str | None) -> None:
        if not self._native.done(error):
            raise NotHeld("the delivery was acknowledged before")

    def __repr__(self) -> str:
        key = "" if self._key is None else f" {self._key!r}"
        return f"<coord.Delivery {self._kind}{key}{' acknowledged' if self._native.settled() else ''}>"


class TableWatchBase(WatchBase[Delivery[_V]]):
    """A watch of a table: what needs no waiting."""

    def __init__(self, native: _native.TableWatch, table: str, model: Model, client: coord._client.ClientBase) -> None:
        super().__init__(native.events(), f"table {table!r}", client)
        self._model = model

    def _take(self) -> tuple[Delivery[_V]] | None:
        taken = self._feed.take()
        if taken is None:
            return None
        native, told, position, failures = taken[0]
        return (Delivery(native, told, position, failures, self._model),)


class Round(Generic[_V]):
    """A loop over a watch. What its body has come to the end of is acknowledged, when the loop asks for the next."""

    def __init__(self) -> None:
        self._out: Delivery[_V] | None = None

    def begun(self, delivery: Delivery[_V]) -> Delivery[_V]:
        """The body begins with this one."""
        self._out = delivery
        return delivery

    def ended(self) -> None:
        """The body came to its end."""
        out, self._out = self._out, None
        if out is not None:
            out._native.done()  # unless the body has said so

    def __del__(self) -> None:
        # The loop was left, by an exception or by a break; the delivery comes again even if somebody keeps it.
        if self._out is not None:
            self._out._native.back()


class TableWatch(TableWatchBase[_V], Waiting[Delivery[_V]]):
    """What happens to the documents of a table, as deliveries: first a snapshot, then changes.

    `for delivery in watch` acknowledges each delivery when the body of the loop has come to its end. When the body
    raises, or leaves the loop by `break` or `return`, the delivery comes again to the next one who asks, unless the
    body has called `delivery.done()`. With `next` each is to be acknowledged by hand. The loop ends when the watch or
    its client is closed; interruptions of the store are waited out, and after one that was too long for the store's
    history comes another snapshot.
    """

    def __iter__(self) -> Iterator[Delivery[_V]]:
        return _Deliveries(self)


class _Deliveries(Iterator[Delivery[_V]]):
    def __init__(self, watch: TableWatch[_V]) -> None:
        self._watch = watch
        self._round: Round[_V] = Round()

    def __next__(self) -> Delivery[_V]:
        self._round.ended()
        try:
            return self._round.begun(self._watch.next())
        except Closed:
            raise StopIteration from None


class TableLogBase(WatchBase[LogEntry]):
    """The change log of a table: what needs no waiting."""

    def _take(self) -> tuple[LogEntry] | None:
        taken = self._feed.take()
        if taken is None:
            return None
        (source, operation, at_ms, key, changed_fields, revision), position = taken[0]
        at, fields = _utc(at_ms), tuple(changed_fields)
        return (LogEntry(source, LogOperation(operation), at, key, fields, revision, position),)


class TableLog(TableLogBase, Watch[LogEntry]):
    """The change log of a table, as an iterator that waits for the next entry, through interruptions of the store.

    It raises `Compacted` when changes are missing; whoever asks again goes on after those.
    """


class CursorBase(ProcessBound, Generic[_T]):
    """What a read finds: what needs no waiting. It keeps its client open."""

    def __init__(self, native: _native.Cursor, make: Callable[[Any], _T], client: coord._client.ClientBase) -> None:
        self._native = native
        self._make = make
        self._client = client
        self._page: collections.deque[Any] = collections.deque()
        # One that finds itself again in a finalizer of an object that is being made goes on.
        self._turning = threading.RLock()

    def close(self) -> None:
        """Ends it. No I/O. Closing twice is no error."""
        self._native.close()
        self._page.clear()

    def _turn_page(self) -> bool:
        """Takes the page that is ready, unless another thread has; False at the end."""
        with self._turning:
            return bool(self._page) or not self._native.take(self._page)


class Cursor(CursorBase[_T]):
    """What a read finds, as an iterator that fetches some documents at a time; a context manager that closes it."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        while True:
            try:
                read = self._page.popleft()
            except IndexError:
                pass
            else:
                return self._make(read)
            self._native.ready().wait()
            if not self._turn_page():
                raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
