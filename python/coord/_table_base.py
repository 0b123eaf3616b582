"""Tables: what the synchronous API and asyncio's share."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import coord
from coord import _native
from coord._errors import CoordError, InvalidArgument
from coord._lock import ProcessBound, _qualified
from coord._model import Model, check_model, check_value
from coord._table_types import Found, Stored, Written
from coord._types import EPOCH, MILLISECOND, _html_table

if TYPE_CHECKING:
    import coord._client

_V = TypeVar("_V")


class _ObjectId(Protocol):
    @property
    def binary(self) -> bytes: ...
    @property
    def generation_time(self) -> datetime: ...


class Fencing(Protocol):
    """What a write can be done under: a held lock, a term of leadership, or a piece of a reconciler's work."""

    def _fence(self) -> _native.Fence: ...


Key: TypeAlias = str | int | bytes | datetime | uuid.UUID | Mapping[str, Any] | _ObjectId
"""What can be a key. A mapping is a compound key, in which the order of the fields counts."""

Document: TypeAlias = Mapping[str, Any]
Update: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Sort: TypeAlias = str | Mapping[str, int] | Sequence[tuple[str, int]]
Projection: TypeAlias = Mapping[str, Any] | Iterable[str]


def _unconditional() -> Any:
    """No revision at all: None is that of a document which was read without."""
    return ...


ANY_REVISION: Any = _unconditional()


class TableBase(ProcessBound, Generic[_V]):
    """A table: what needs no waiting, and what the calls ask of the native module."""

    def __init__(self, native: _native.Table, client: coord._client.ClientBase, model: Model) -> None:
        self._native = native
        self._writer: _native.Table | _native.CachedTable = native
        self._client = client
        self._model = model
        self._name = native.name()

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def model(self) -> type[_V] | None:
        """What documents are values of; None if they are dicts."""
        return self._model

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {self._name!r}{self._state()}>"

    def _repr_html_(self) -> str:
        return _html_table(("table", self._name), self._facts())

    def _state(self) -> str:
        return "" if self._model is None else f" of {self._model.__name__}"

    def _facts(self) -> list[tuple[str, object]]:
        try:
            location = self._client.location
        except CoordError:
            location = "none"
        return [("store", location), ("model", "dict" if self._model is None else self._model.__qualname__)]

    def _write(
        self,
        action: str,
        key: Key,
        value: object,
        fence: Fencing | None,
        strict: bool,
        revision: int | None = ANY_REVISION,
    ) -> _native.Call:
        if revision is None:
            raise InvalidArgument("this is no revision: the document was read without, by a projection on MongoDB")
        if value is not None:
            check_value(value, self._model, self._name)
        wanted = None if revision is ANY_REVISION else revision
        return self._writer.write(action, key, value, wanted, _fence_of(fence), strict)

    def _write_many(
        self, filter: object, update: tuple[object] | None, fence: Fencing | None, strict: bool
    ) -> _native.Call:
        return self._writer.write_many(filter, update, _fence_of(fence), strict)

    def _stored(self, read: tuple[Any, dict[str, Any], int | None]) -> Stored[_V]:
        return Stored(*read, self._model)

    def _found(self, read: Iterable[tuple[Any, dict[str, Any], int | None]]) -> Found[_V]:
        return Found([self._stored(one) for one in read])

    def _written(self, answer: tuple[dict[str, Any], int | None, int, bool]) -> Written[_V]:
        return Written(*answer, self._model)

    def _log(self, from_position: int | None, from_time: datetime | None) -> _native.Call:
        if from_position is not None and from_time is not None:
            raise InvalidArgument("a log begins at a position or at a time, not at both")
        if from_position is not None:
            return self._native.log(("position", from_position))
        if from_time is None:
            return self._native.log(None)
        if from_time.utcoffset() is None:
            raise InvalidArgument("from_time has no time zone, so it could mean two moments")
        return self._native.log(("time", (from_time - EPOCH) // MILLISECOND))


class CachedBase(TableBase[_V]):
    """A table with a copy in memory: what needs no waiting."""

    def __init__(self, native: _native.CachedTable, client: coord._client.ClientBase, model: Model) -> None:
        super().__init__(native.table(), client, model)
        self._writer = self._cached = native

    @property
    def position(self) -> int:
        """Up to which place in the store's history the copy shows everything. No I/O."""
        return self._cached.position()

    @property
    def bytes(self) -> int:
        """How many bytes of BSON the copy takes. No I/O."""
        return self._cached.bytes()

    def synced(self) -> bool:
        """Whether the copy follows the store at this moment. No I/O.

        During an interruption it does not: then it shows what was true before.
        """
        return self._cached.synced()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._cached.is_closed()

    def close(self) -> None:
        """Ends the copy and frees its memory. No I/O. Closing twice is no error; it also ends when nobody has it."""
        self._cached.close()

    def _state(self) -> str:
        state = "closed" if self.closed else "cached" if self.synced() else "cached, interrupted"
        return f"{super()._state()} {state}"

    def _facts(self) -> list[tuple[str, object]]:
        facts = super()._facts()
        try:
            return [*facts, ("copy", "follows" if self.synced() else "is behind"), ("bytes", f"{self.bytes:,}")]
        except CoordError:
            return [*facts, ("copy", "closed")]


def cached_call(
    native: _native.Table, filter: object, max_bytes: int | None, read_your_writes: bool | None, model: Model
) -> _native.Call:
    """Describes the making of a copy."""
    check_model(model)
    return native.cached(filter, max_bytes, True if read_your_writes is None else read_your_writes)


def check_uncached(model: Model, **options: object) -> None:
    """Checks the arguments of a table without a copy."""
    check_model(model)
    for name, value in options.items():
        if value is not None:
            raise InvalidArgument(f"{name} is an option of a table with cached=True")


def _fence_of(fence: Fencing | None) -> _native.Fence | None:
    if fence is None:
        return None
    give = getattr(fence, "_fence", None)
    if give is None:
        raise TypeError(f"fence is a hold, a term or a piece of work, not {type(fence).__name__}")
    made = give()
    assert isinstance(made, _native.Fence)
    return made


def sort_of(sort: Sort | None) -> object:
    if isinstance(sort, str):
        return {sort: 1}
    if sort is None or isinstance(sort, Mapping):
        return sort
    try:
        return dict(sort)
    except (TypeError, ValueError):
        raise InvalidArgument("sort is a field, a mapping of fields to 1 or -1, or pairs of those") from None


def projection_of(projection: Projection | None) -> object:
    if projection is None or isinstance(projection, Mapping):
        return projection
    if isinstance(projection, str):
        raise InvalidArgument("projection is a list of fields or a mapping, not a str")
    try:
        return dict.fromkeys(projection, 1)
    except TypeError:
        raise InvalidArgument("projection is a list of fields or a mapping") from None
