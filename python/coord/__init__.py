"""Coordination between processes: who holds a lock.

>>> import coord
>>> with coord.connect("memory:") as client, client.lock("a").acquire(timeout=5) as held:
...     print(held.name)
default/default/a

`coord.aio` is the same for asyncio.
"""

from __future__ import annotations

import atexit
import importlib

from coord import _native
from coord._errors import (
    AlreadyExists,
    Cancelled,
    Closed,
    Compacted,
    Conflict,
    Contended,
    CoordError,
    CorruptState,
    Fenced,
    Forbidden,
    Forked,
    InvalidArgument,
    LossReason,
    Lost,
    NotFound,
    NotHeld,
    OutcomeUnknown,
    Panic,
    QueueFull,
    Reentrant,
    Timeout,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from coord._native import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from coord import aio as aio
    from coord import bson as bson
    from coord import mail as mail
    from coord import testing as testing
    from coord._candidacy import Candidacy
    from coord._client import Client, SessionWatch, connect
    from coord._election import Candidate, Candidates, Election, Leader, LeaderWatch, Term
    from coord._lock import Held, Lock, Loss
    from coord._observer import Observer, ObserverEvent, ObserverEventKind, ProviderInfo, Providers
    from coord._owner import Owner, OwnerEvent, OwnerEventKind, Owners, OwnerWatch
    from coord._provider import Provider, ProviderEvent, ProviderEventKind, ProviderEvents
    from coord._reconciler import ParkedKey, ParkedKeys, Reconciler, ReconcilerStats, Source
    from coord._table import CachedTable, Table
    from coord._table_types import Found, Index, LogEntry, LogOperation, ManyWritten, Stored, TableEventKind, Written
    from coord._table_watch import Cursor, Delivery, TableLog, TableWatch
    from coord._types import Holder, HolderState, LockInfo, Locks, Session, SessionState, Stats, StoreCalls, Waiter
    from coord._watch import Watch
    from coord._work import Cancellation, RequeueAfter, RetryAfter, Terminal, Work, requeue_after
    from coord.mail import Mailer, Outbox, mailer

__all__ = [
    "AlreadyExists",
    "CachedTable",
    "Cancellation",
    "Cancelled",
    "Candidacy",
    "Candidate",
    "Candidates",
    "Client",
    "Closed",
    "Compacted",
    "Conflict",
    "Contended",
    "CoordError",
    "CorruptState",
    "Cursor",
    "Delivery",
    "Election",
    "Fenced",
    "Forbidden",
    "Forked",
    "Found",
    "Held",
    "Holder",
    "HolderState",
    "Index",
    "InvalidArgument",
    "Leader",
    "LeaderWatch",
    "Lock",
    "LockInfo",
    "Locks",
    "LogEntry",
    "LogOperation",
    "Loss",
    "LossReason",
    "Lost",
    "Mailer",
    "ManyWritten",
    "NotFound",
    "NotHeld",
    "Observer",
    "ObserverEvent",
    "ObserverEventKind",
    "Outbox",
    "OutcomeUnknown",
    "Owner",
    "OwnerEvent",
    "OwnerEventKind",
    "OwnerWatch",
    "Owners",
    "Panic",
    "ParkedKey",
    "ParkedKeys",
    "Provider",
    "ProviderEvent",
    "ProviderEventKind",
    "ProviderEvents",
    "ProviderInfo",
    "Providers",
    "QueueFull",
    "Reconciler",
    "ReconcilerStats",
    "Reentrant",
    "RequeueAfter",
    "RetryAfter",
    "Session",
    "SessionState",
    "SessionWatch",
    "Source",
    "Stats",
    "StoreCalls",
    "Stored",
    "Table",
    "TableEventKind",
    "TableLog",
    "TableWatch",
    "Term",
    "Terminal",
    "Timeout",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "Waiter",
    "Watch",
    "Work",
    "Written",
    "__version__",
    "aio",
    "bson",
    "connect",
    "mailer",
    "requeue_after",
    "sanitize",
    "testing",
]


def sanitize(text: str) -> str:
    """Makes a valid part of a name from any text; different texts stay different.

    >>> import coord
    >>> coord.sanitize("nightly-import")
    'nightly-import'
    >>> coord.sanitize("Ärger im Büro")
    'x-rger-im-B-ro-d58570e7e5723bde'
    """
    return _native.sanitize(text)


# Handlers run last come, first served: all that are registered from now on run before it, and may wait for threads that
# use coord.
atexit.register(_native.finish)

_MODULES = ("aio", "bson", "mail", "testing")
# What annotations of other modules name: whoever evaluates them need not have imported these.
_ANNOTATED = ("_client", "_election")

# Where the rest is. It is imported when it is asked for, with what it needs of the standard library: who imports this
# package to catch its errors, or for later, does not wait for that (Scientific Python's SPEC 1). A connect imports all
# that a client has, but mail: a method that imports could be interrupted in the middle of it.
_WHERE = {
    name: module
    for module, names in {
        "coord._candidacy": ("Candidacy",),
        "coord._client": (
            "Client",
            "SessionWatch",
            "connect",
        ),
        "coord._election": (
            "Candidate",
            "Candidates",
            "Election",
            "Leader",
            "LeaderWatch",
            "Term",
        ),
        "coord._lock": (
            "Held",
            "Lock",
            "Loss",
        ),
        "coord._observer": (
            "Observer",
            "ObserverEvent",
            "ObserverEventKind",
            "ProviderInfo",
            "Providers",
        ),
        "coord._owner": (
            "Owner",
            "OwnerEvent",
            "OwnerEventKind",
            "Owners",
            "OwnerWatch",
        ),
        "coord._provider": (
            "Provider",
            "ProviderEvent",
            "ProviderEventKind",
            "ProviderEvents",
        ),
        "coord._reconciler": (
            "ParkedKey",
            "ParkedKeys",
            "Reconciler",
            "ReconcilerStats",
            "Source",
        ),
        "coord._table": (
            "CachedTable",
            "Table",
        ),
        "coord._table_types": (
            "Found",
            "Index",
            "LogEntry",
            "LogOperation",
            "ManyWritten",
            "Stored",
            "TableEventKind",
            "Written",
        ),
        "coord._table_watch": (
            "Cursor",
            "Delivery",
            "TableLog",
            "TableWatch",
        ),
        "coord._types": (
            "Holder",
            "HolderState",
            "LockInfo",
            "Locks",
            "Session",
            "SessionState",
            "Stats",
            "StoreCalls",
            "Waiter",
        ),
        "coord._watch": ("Watch",),
        "coord._work": (
            "Cancellation",
            "RequeueAfter",
            "RetryAfter",
            "Terminal",
            "Work",
            "requeue_after",
        ),
        "coord.mail": (
            "Mailer",
            "Outbox",
            "mailer",
        ),
    }.items()
    for name in names
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _MODULES or name in _ANNOTATED:
            return importlib.import_module(f"coord.{name}")
        if name not in _WHERE:
            raise AttributeError(f"module 'coord' has no attribute {name!r}")
        found = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_WHERE})
