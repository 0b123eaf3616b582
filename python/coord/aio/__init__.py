"""coord for asyncio: the same names as in `coord`, with `await` where something is waited for.

>>> import asyncio, coord
>>> async def main():
...     async with await coord.aio.connect("memory:") as client:
...         async with await client.lock("a").acquire(timeout=5) as held:
...             print(held.name, held.remaining > 5)
>>> asyncio.run(main())
default/default/a True

Cancelling a task that waits leaves nothing held and no place in a queue. A release that has begun goes on when its
task is cancelled. Renewals do not need the event loop: a loop that is busy loses nothing. A client may be used from
several loops.
"""

from __future__ import annotations

from coord.aio import testing
from coord.aio._candidacy import Candidacy
from coord.aio._client import Client, SessionWatch, connect
from coord.aio._election import Election, LeaderWatch, Term
from coord.aio._lock import Held, Lock, Loss
from coord.aio._observer import Observer
from coord.aio._owner import OwnerWatch
from coord.aio._provider import Provider, ProviderEvents
from coord.aio._reconciler import Cancellation, Reconciler, Work
from coord.aio._table import CachedTable, Table
from coord.aio._table_watch import Cursor, TableLog, TableWatch
from coord.aio._watch import Watch
from coord.aio.mail import Mailer, Outbox, Senders, mailer

__all__ = [
    "CachedTable",
    "Cancellation",
    "Candidacy",
    "Client",
    "Cursor",
    "Election",
    "Held",
    "LeaderWatch",
    "Lock",
    "Loss",
    "Mailer",
    "Observer",
    "Outbox",
    "OwnerWatch",
    "Provider",
    "ProviderEvents",
    "Reconciler",
    "Senders",
    "SessionWatch",
    "Table",
    "TableLog",
    "TableWatch",
    "Term",
    "Watch",
    "Work",
    "connect",
    "mailer",
    "testing",
]
