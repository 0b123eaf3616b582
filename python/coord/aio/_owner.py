"""Owners for asyncio."""

from __future__ import annotations

from coord._owner import OwnerEvent
from coord.aio._watch import Watch


class OwnerWatch(Watch[OwnerEvent]):
    """The sessions of a store as they come and go: an asynchronous iterator of `OwnerEvent`.

    The first events are a snapshot: `SNAPSHOT_START`, a `JOINED` for each that is there, `SNAPSHOT_END`. After an
    interruption another one tells the difference.
    """
