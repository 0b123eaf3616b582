"""What tables answer: documents as they were read, writes, changes, entries of the log."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from coord._model import Model, value_of
from coord._types import _html_table

_V = TypeVar("_V")


class _OfModel(Generic[_V]):
    """A document, and what its table's model makes of it."""

    __slots__ = ("_document", "_model", "_value")

    def __init__(self, document: dict[str, Any], model: Model) -> None:
        self._document = document
        self._model = model
        # As long as nobody has asked for it, nothing: one that is no value must not keep the others from being found.
        self._value: tuple[_V] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The document, with its key as `_id` unless a projection left that out."""
        return self._document

    @property
    def value(self) -> _V:
        """The document as a value of the table's model; without a model, the document itself.

        Raises:
            CorruptState: The document is no such value, or a projection left out what the model needs.
        """
        if self._value is None:
            self._value = (cast(_V, value_of(self._document, self._model)),)
        return self._value[0]


class Stored(_OfModel[_V]):
    """A document as it was read. A notebook shows it as a table."""

    __slots__ = ("_key", "_revision")

    def __init__(self, key: Any, document: dict[str, Any], revision: int | None, model: Model = None) -> None:
        super().__init__(document, model)
        self._key = key
        self._revision = revision

    @property
    def key(self) -> Any:
        """Its key: a str, an int, a dict, or what other programs have chosen."""
        return self._key

    @property
    def revision(self) -> int | None:
        """Which state this is, for `replace` and `delete`; only to be compared. None on MongoDB after a projection."""
        return self._revision

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stored):
            return NotImplemented
        return (self._key, self._document, self._revision) == (other._key, other._document, other._revision)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Stored(key={self._key!r}, document={_without_key(self._document)!r})"

    def _repr_html_(self) -> str:
        rows = [(name, _cell(value)) for name, value in _without_key(self._document).items()]
        return _html_table(("key", _cell(self._key)), rows)


class Found(list[Stored[_V]]):
    """Documents that were found, which a notebook shows as a table with a column for each field."""

    @property
    def values(self) -> list[_V]:
        """Each as a value of the table's model."""
        return [stored.value for stored in self]

    def _repr_html_(self) -> str:
        shown = self[:_SHOWN_ROWS]
        names = list(dict.fromkeys(name for stored in shown for name in stored.document if name != "_id"))
        more = len(names) > _SHOWN_COLUMNS
        names = names[:_SHOWN_COLUMNS]
        tail = ("…",) if more else ()
        rows = [
            (_cell(stored.key), *(_cell(stored.document.get(name, "")) for name in names), *tail) for stored in shown
        ]
        table = _html_table(("key", *names, *tail), rows)
        hidden = len(self) - len(shown)
        return table + (f"<p>… and {hidden} more</p>" if hidden else "")


_SHOWN_ROWS = 100
_SHOWN_COLUMNS = 20
_SHOWN_CHARACTERS = 200


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _without_key(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "_id"}


class Written(_OfModel[_V]):
    """What a write has done."""

    __slots__ = ("_created", "_position", "_revision")

    def __init__(
        self, document: dict[str, Any], revision: int | None, position: int, created: bool, model: Model = None
    ) -> None:
        super().__init__(document, model)
        self._revision = revision
        self._position = position
        self._created = created

    @property
    def revision(self) -> int | None:
        """The state of the document now, for the next `replace` or `delete`; None after a deletion."""
        return self._revision

    @property
    def position(self) -> int:
        """The change's place in the store's history; a watch that has come to it has shown the change."""
        return self._position

    @property
    def created(self) -> bool:
        """Whether there was no document before."""
        return self._created

    def __repr__(self) -> str:
        return f"Written(document={self._document!r}, position={self._position}, created={self._created})"


@dataclass(frozen=True)
class ManyWritten:
    """What a write to many documents has done.

    Attributes:
        count: How many documents were written.
        position: The place of the last change in the store's history.
    """

    count: int
    position: int


class TableEventKind(str, enum.Enum):
    """What a watch of a table tells."""

    INIT = "init"
    """A snapshot begins: what does not come before `INIT_DONE` is not there any more."""
    INIT_APPLY = "init_apply"
    """A document of the snapshot."""
    INIT_DONE = "init_done"
    """The snapshot is complete."""
    APPLY = "apply"
    """A document was made or has changed, or matches the filter now."""
    DELETE = "delete"
    """A document was removed, or matches the filter no more."""

    def __str__(self) -> str:
        return self.value


class LogOperation(str, enum.Enum):
    """What a change did to a document."""

    INSERT = "insert"
    """It was made."""
    UPDATE = "update"
    """Some of its fields were changed."""
    REPLACE = "replace"
    """It was replaced by another one."""
    DELETE = "delete"
    """It was removed."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class LogEntry:
    """One change of a document.

    Attributes:
        source: The name of the client that wrote; None if that is not known: another program, a client without a name,
            and any deletion on MongoDB.
        operation: What was done.
        at: When, by the store's clock, to the millisecond.
        key: Whose document.
        changed_fields: The paths that an update has changed or removed; empty for other operations.
        revision: The state of the document after it; None after a deletion. On MongoDB of an update perhaps a later
            state, and None if the document was gone when the log was read.
        position: Up to where everything has been told with it: a later log may begin after it, and misses nothing. Its
            place in the store's history, or the one before while other changes of its place may follow: the changes of
            one transaction on MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then.
    """

    source: str | None
    operation: LogOperation
    at: datetime
    key: Any
    changed_fields: tuple[str, ...]
    revision: int | None
    position: int


@dataclass(frozen=True)
class Index:
    """An index to be there.

    Attributes:
        fields: A field; or several, each with 1 or -1 for descending, as a mapping or as pairs.
        name: Its name; made of the fields if it is empty.
        unique: No two documents have the same values in it.
        sparse: Documents without its fields are not in it.
        expire_after: A document is removed so many seconds after the date in the index's only field: on MongoDB within
            a minute or two, elsewhere within a minute. None: never.
    """

    fields: str | Mapping[str, int] | Sequence[tuple[str, int]]
    name: str = ""
    unique: bool = False
    sparse: bool = False
    expire_after: float | None = None

    def _parts(self) -> tuple[str, list[tuple[str, bool]], bool, bool, float | None]:
        fields = {self.fields: 1} if isinstance(self.fields, str) else dict(self.fields)
        for field, direction in fields.items():
            if direction not in (1, -1):
                raise ValueError(f"the direction of {field!r} in an index is 1 or -1, not {direction!r}")
        descending = [(field, direction == -1) for field, direction in fields.items()]
        return self.name, descending, self.unique, self.sparse, self.expire_after
