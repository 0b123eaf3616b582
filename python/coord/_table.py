"""Tables: the synchronous classes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from coord._table_base import (
    ANY_REVISION,
    CachedBase,
    Document,
    Fencing,
    Key,
    Projection,
    Sort,
    TableBase,
    Update,
    projection_of,
    sort_of,
)
from coord._table_types import Found, Index, ManyWritten, Stored, Written
from coord._table_watch import Cursor, TableLog, TableWatch

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

_V = TypeVar("_V")


class Table(TableBase[_V]):
    """Documents in the store, each with a key. Nothing is asked of the store before it is used. Any thread may use it.

    Filters, updates, sorts and projections are MongoDB's; the part of them that works on every store is in
    docs/tables.md. What documents can hold, and which types come out, is in `coord.bson`.

    >>> import coord
    >>> with coord.connect("memory:") as client:
    ...     orders = client.table("orders")
    ...     orders.insert("a1", {"customer": "ann", "total": 12.5}).created
    ...     orders.update("a1", {"$inc": {"total": 1}}).document["total"]
    ...     orders.find({"total": {"$gt": 10}})
    True
    13.5
    [Stored(key='a1', document={'customer': 'ann', 'total': 13.5})]
    """

    def insert(
        self, key: Key, value: _V | Document, *, fence: Fencing | None = None, strict: bool = False
    ) -> Written[_V]:
        """Makes the document of a key.

        Args:
            key: The key: a str, an int, a mapping (a compound key), an ObjectId, a date, a UUID or bytes.
            value: The document: a mapping, a dataclass or a model of pydantic. Its key is left out, or is `key`.
            fence: The hold, term or work by whose right this is done. After it, a write with an older one of the same
                lock is refused.
            strict: Also refuse the write when that hold has ended although nobody has written since. Memory and SQLite
                always do; on MongoDB the write becomes a transaction.

        Raises:
            AlreadyExists: There is a document, or a unique index would be broken.
            InvalidArgument: The key or the document; the message names the place. A document has at most 16 MiB.
            Fenced: A later holder has written, or the hold has ended otherwise than by its release.
            NotHeld: The lock or the term was released.
            Unavailable: The store cannot be reached; whether it was written is not known.
            Closed: The client is closed.
        """
        return self._written(self._write("insert", key, value, fence, strict).wait())

    def put(self, key: Key, value: _V | Document, *, fence: Fencing | None = None, strict: bool = False) -> Written[_V]:
        """Makes the document of a key, or puts it in the place of the one that is there; else as `insert`."""
        return self._written(self._write("put", key, value, fence, strict).wait())

    def update(self, key: Key, update: Update, *, fence: Fencing | None = None, strict: bool = False) -> Written[_V]:
        """Changes the document of a key.

        Args:
            key: The key.
            update: How: `{"$set": {"a": 1}}` and the like; on MongoDB also a list of stages.
            fence: As in `insert`.
            strict: As in `insert`.

        Raises:
            NotFound: There is no document.
            InvalidArgument: The update, or that it does not fit the document.
            Unsupported: Only MongoDB knows what the update means.
            AlreadyExists: A unique index would be broken.
            Fenced: A later holder has written, or the hold has ended otherwise than by its release.
            NotHeld: The lock or the term was released.
        """
        return self._written(self._write("update", key, update, fence, strict).wait())

    def upsert(self, key: Key, update: Update, *, fence: Fencing | None = None, strict: bool = False) -> Written[_V]:
        """Changes the document of a key, or changes an empty one into it; else as `update`."""
        return self._written(self._write("upsert", key, update, fence, strict).wait())

    def locate(
        self, key: Key, fields: _V | Document, *, fence: Fencing | None = None, strict: bool = False
    ) -> Written[_V]:
        """Makes sure that the document of a key has these fields: makes it, or sets them in the one that is there."""
        return self._written(self._write("locate", key, fields, fence, strict).wait())

    def replace(
        self,
        key: Key,
        value: _V | Document,
        revision: int | None = ANY_REVISION,
        *,
        fence: Fencing | None = None,
        strict: bool = False,
    ) -> Written[_V]:
        """Puts a document in the place of the one that is there.

        Args:
            key: The key.
            value: The document, as in `insert`.
            revision: Only if the document is still as it was read, with this revision (`Stored.revision`,
                `Written.revision`). Without it, whatever is there.
            fence: As in `insert`.
            strict: As in `insert`.

        Raises:
            NotFound: There is no document.
            Conflict: It has changed since.
            InvalidArgument: The key or the document; or the revision is None, as that of a document that was read with
                a projection on MongoDB.
            Fenced: A later holder has written, or the hold has ended otherwise than by its release.
            NotHeld: The lock or the term was released.
        """
        return self._written(self._write("replace", key, value, fence, strict, revision).wait())

    def delete(
        self, key: Key, revision: int | None = ANY_REVISION, *, fence: Fencing | None = None, strict: bool = False
    ) -> Written[_V]:
        """Removes the document of a key; with a revision, only if it is still as it was read, as in `replace`.

        Returns:
            What was done, with the document as it was.

        Raises:
            NotFound: There is no document.
            Conflict: It has changed since.
            Fenced: A later holder has written, or the hold has ended otherwise than by its release.
            NotHeld: The lock or the term was released.
        """
        return self._written(self._write("delete", key, None, fence, strict, revision).wait())

    def update_many(
        self, filter: Document, update: Update, *, fence: Fencing | None = None, strict: bool = False
    ) -> ManyWritten:
        """Changes every document that matches. Each change is atomic, all together are not.

        Raises:
            Fenced: A later holder has written some of them: these were left out, the others are written.
            InvalidArgument: The filter or the update.
            Unsupported: Only MongoDB knows what they mean.
        """
        return ManyWritten(*self._write_many(filter, (update,), fence, strict).wait())

    def delete_many(self, filter: Document, *, fence: Fencing | None = None, strict: bool = False) -> ManyWritten:
        """Removes every document that matches; `{}` are all. Else as `update_many`."""
        return ManyWritten(*self._write_many(filter, None, fence, strict).wait())

    def get(self, key: Key) -> Stored[_V]:
        """The document of a key.

        Raises:
            NotFound: There is none.
            InvalidArgument: The key.
        """
        return self._stored(self._native.read(key).wait())

    def contains(self, key: Key) -> bool:
        """Whether there is a document of this key."""
        contains: bool = self._native.contains(key).wait()
        return contains

    def find(
        self,
        filter: Document | None = None,
        *,
        sort: Sort | None = None,
        skip: int = 0,
        limit: int | None = None,
        projection: Projection | None = None,
    ) -> Found[_V]:
        """The documents that match, all at once; see `cursor` for more than fit into memory, on MongoDB.

        Args:
            filter: Which: `{"total": {"$gt": 10}}` and the like; None: all.
            sort: A field; or several, each with 1 or -1 for descending, as a mapping or as pairs. Without it, and among
                equals, in no particular order.
            skip: Without the first so many.
            limit: At most so many; None: all.
            projection: With these fields only: their names, or a mapping as in MongoDB.

        Returns:
            A list, which a notebook shows as a table; `values` are those of the table's model.

        Raises:
            InvalidArgument: The filter, the sort or the projection.
            Unsupported: Only MongoDB knows what they mean.
        """
        native = self._native.find(filter, sort_of(sort), skip, limit, projection_of(projection))
        return self._found(native.wait())

    def cursor(
        self,
        filter: Document | None = None,
        *,
        sort: Sort | None = None,
        skip: int = 0,
        limit: int | None = None,
        projection: Projection | None = None,
    ) -> Cursor[Stored[_V]]:
        """The documents that match, one after the other, from the store; arguments and errors as those of `find`.

        On MongoDB some are fetched at a time. SQLite and memory read all of them first, as of one moment.
        """
        native = self._native.cursor(filter, sort_of(sort), skip, limit, projection_of(projection))
        return Cursor(native.wait(), self._stored, self._client)

    def count(self, filter: Document | None = None) -> int:
        """How many documents match; None: all."""
        count: int = self._native.count(filter).wait()
        return count

    def aggregate(self, pipeline: Sequence[Document]) -> Cursor[dict[str, Any]]:
        """Runs an aggregation pipeline. MongoDB only.

        Raises:
            Unsupported: The store is another one.
            InvalidArgument: The pipeline is none, or writes.
        """
        return Cursor(self._native.aggregate(pipeline).wait(), dict, self._client)

    def ensure_indexes(self, *indexes: Index) -> None:
        """Makes those indexes that are not there; the others stay.

        Raises:
            AlreadyExists: Documents break a unique one.
            InvalidArgument: There is another index of the same name.
        """
        self._native.ensure_indexes([index._parts() for index in indexes]).wait()

    def configure(self, *, previous: bool) -> None:
        """Sets how the table is kept.

        Args:
            previous: Whether each document's state before a change is kept, for `watch(previous=True)`. Memory
                always keeps it; on MongoDB 6.0 or later each change is written twice then.

        Raises:
            Unsupported: The server cannot.
        """
        self._native.configure(previous).wait()

    def drop(self) -> None:
        """Removes the table with its documents, indexes and options. No error if there is none."""
        self._native.drop_table().wait()

    def health(self) -> None:
        """Asks the store whether it could be written to now.

        Raises:
            Unavailable: It cannot be reached.
            Closed: The client is closed.
        """
        self._native.health().wait()

    def watch(
        self, filter: Document | None = None, *, from_position: int | None = None, previous: bool = False
    ) -> TableWatch[_V]:
        """Watches the documents that match. No I/O: the first wait begins.

        Args:
            filter: Which; None: all.
            from_position: Without a snapshot, from the change after this position on (`Delivery.position`,
                `Written.position`). If the store no longer has it, there is a snapshot after all.
            previous: Also show what a document was before a change, where the table keeps that: see `configure`.

        Returns:
            The watch, an iterable of deliveries and a context manager that closes it.

        Raises:
            InvalidArgument: The filter or the position; one that is still to come is refused by the first wait, in
                memory and on SQLite. On MongoDB the watch waits for it.
            Unsupported: The store cannot watch, or not by this filter; raised by the first wait.
            Closed: The client is closed.

        >>> import coord
        >>> with coord.connect("memory:") as client, client.table("t").watch() as watch:
        ...     _ = client.table("t").insert(1, {"n": 1})
        ...     for delivery in watch:
        ...         print(delivery.kind, delivery.key)
        ...         if delivery.kind is coord.TableEventKind.INIT_DONE:
        ...             break
        init None
        init_apply 1
        init_done None
        """
        return TableWatch(self._native.watch(filter, from_position, previous), self._name, self._model, self._client)

    def log(self, *, from_position: int | None = None, from_time: datetime | None = None) -> TableLog:
        """Reads the change log: who has changed what and when.

        Args:
            from_position: From the change after this position on.
            from_time: From the first change at this date or after it, by the store's clock. Without both, from now on.

        Returns:
            The log, an iterator of `LogEntry` and a context manager that closes it.

        Raises:
            Compacted: The store no longer has it so far back.
            Unsupported: It keeps none.
            InvalidArgument: The date has no time zone; or the position is still to come, in memory and on SQLite. On
                MongoDB the log waits for it.
        """
        return TableLog(self._log(from_position, from_time).wait(), f"the log of table {self._name!r}", self._client)


class CachedTable(CachedBase[_V], Table[_V]):
    """A table with a copy in memory, which follows the store: `get` needs no I/O.

    What it shows is what the table was at one moment, a little ago; while the store cannot be reached, what was there
    before (see `synced`). By default a write returns when the copy shows it. `get`, `contains`, `find` and `count` ask
    the copy, the last two by looking at each document; everything else asks the store. It is a context manager
    that ends the copy.

    When the documents become more than `max_bytes`, every read of the copy raises `InvalidArgument`; writes go on.

    >>> import coord
    >>> with coord.connect("memory:") as client, client.table("t", cached=True) as table:
    ...     _ = table.insert("a", {"n": 1})
    ...     print(table.get("a").document["n"], table.synced())
    1 True
    """

    def get(self, key: Key, *, fresh: bool = False) -> Stored[_V]:
        """The document of a key, from memory.

        Args:
            key: The key.
            fresh: Ask the store instead.

        Raises:
            NotFound: There is none.
            InvalidArgument: The key; or the documents have become more than `max_bytes`.
            Closed: The copy or the client is closed.
        """
        return self._stored(self._cached.read_fresh(key).wait() if fresh else self._cached.read(key))

    def contains(self, key: Key) -> bool:
        """Whether there is a document of this key, in memory."""
        return self._cached.contains(key)

    def find(
        self,
        filter: Document | None = None,
        *,
        sort: Sort | None = None,
        skip: int = 0,
        limit: int | None = None,
        projection: Projection | None = None,
    ) -> Found[_V]:
        """The documents that match, from memory: looks at each. Arguments as those of `Table.find`.

        Raises:
            Unsupported: Only MongoDB knows what the filter means, also there: ask `cursor` then.
            InvalidArgument: The filter, the sort or the projection; or the documents have become more than `max_bytes`.
            Closed: The copy or the client is closed.
        """
        native = self._cached.find(filter, sort_of(sort), skip, limit, projection_of(projection))
        return self._found(native.wait())

    def count(self, filter: Document | None = None) -> int:
        """How many documents match, in memory."""
        count: int = self._cached.count(filter).wait()
        return count

    def wait_until(self, position: int, timeout: float | None = None) -> None:
        """Waits until the copy shows everything up to this place (`Written.position`, `ManyWritten.position`).

        Args:
            position: The place in the store's history.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: It has not come so far in time.
            Closed: The copy or the client is closed.
        """
        self._cached.wait_until(position).wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
