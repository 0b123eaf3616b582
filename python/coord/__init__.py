"""Coordination between processes: who holds a lock.

>>> import coord
>>> with coord.connect("memory:") as client, client.lock("a").acquire(timeout=5) as held:
...     print(held.name)
default/default/a

`coord.aio` is the same for asyncio.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from coord._candidacy import Candidacy
from coord._client import Client, SessionWatch, connect
from coord._election import Candidate, Candidates, Election, Leader, LeaderWatch, Term
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
from coord._lock import Held, Lock, Loss
from coord._native import __version__
from coord._observer import Observer, ObserverEvent, ObserverEventKind, ProviderInfo, Providers
from coord._owner import Owner, OwnerEvent, OwnerEventKind, Owners, OwnerWatch
from coord._provider import Provider, ProviderEvent, ProviderEventKind, ProviderEvents
from coord._reconciler import ParkedKey, ParkedKeys, Reconciler, ReconcilerStats, Source
from coord._types import (
    Holder,
    HolderState,
    LockInfo,
    Locks,
    Session,
    SessionState,
    Stats,
    StoreCalls,
    Waiter,
)
from coord._watch import Watch
from coord._work import Cancellation, RequeueAfter, RetryAfter, Terminal, Work, requeue_after
from coord.mail import Mailer, Outbox, mailer

if TYPE_CHECKING:
    from coord import aio as aio
    from coord import testing as testing

__all__ = [
    "AlreadyExists",
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
    "Election",
    "Fenced",
    "Forbidden",
    "Forked",
    "Held",
    "Holder",
    "HolderState",
    "InvalidArgument",
    "Leader",
    "LeaderWatch",
    "Lock",
    "LockInfo",
    "Locks",
    "Loss",
    "LossReason",
    "Lost",
    "Mailer",
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
    "Term",
    "Terminal",
    "Timeout",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "Waiter",
    "Watch",
    "Work",
    "__version__",
    "aio",
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
    from coord import _native

    return _native.sanitize(text)


def __getattr__(name: str) -> ModuleType:
    # asyncio is not imported for those who do not use it.
    if name in ("aio", "testing"):
        return importlib.import_module(f"coord.{name}")
    raise AttributeError(f"module 'coord' has no attribute {name!r}")
