"""Owners: the sessions of a store, who they are, what they hold and what they provide."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from coord._types import HolderState, _html_table, _utc, _who
from coord._watch import Watch


@dataclass(frozen=True)
class Owner:
    """A session that is alive, or was.

    Attributes:
        session: Its id, new at every start of a client and after every loss.
        name: The name that its client was given, or an empty text.
        host: The name of its host.
        pid: Its process id on that host.
        labels: The labels that its client was given.
        since: When it was opened, by the store's clock. For people, never for decisions.
        last_renewal: When it was renewed last, as far as this client has read, by the store's clock.
        state: What this client has observed of it.
        holds: The full keys of what it holds, `kind/namespace/scope/name`.
        provides: The full names of the services that it provides.
    """

    session: str
    name: str
    host: str
    pid: int
    labels: dict[str, str] = field(hash=False)
    since: datetime
    last_renewal: datetime
    state: HolderState
    holds: tuple[str, ...]
    provides: tuple[str, ...]

    def __str__(self) -> str:
        return _who(self.name, self.session, self.host, self.pid)


class Owners(list[Owner]):
    """A list of owners, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (
                owner,
                owner.session[:8],
                owner.state.name.lower(),
                f"{owner.since:%Y-%m-%d %H:%M:%S} UTC",
                ", ".join(owner.holds),
                ", ".join(owner.provides),
            )
            for owner in self
        ]
        return _html_table(("owner", "session", "state", "since", "holds", "provides"), rows)


class OwnerEventKind(str, enum.Enum):
    """What a watch of owners tells."""

    SNAPSHOT_START = "snapshot_start"
    """What follows, up to `SNAPSHOT_END`, leads from what was known to what is true now."""
    SNAPSHOT_END = "snapshot_end"
    """The view is complete and up to date."""
    JOINED = "joined"
    """A session is there."""
    LEFT = "left"
    """A session was closed by its owner."""
    EXPIRED = "expired"
    """A session is dead: another one had seen it silent for its ttl, or knew that its process had ended."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class OwnerEvent:
    """What a watch of owners tells.

    Attributes:
        kind: What has happened.
        owner: To whom; None for the ends of a snapshot.
    """

    kind: OwnerEventKind
    owner: Owner | None = None


class OwnerWatch(Watch[OwnerEvent]):
    """The sessions of a store as they come and go: an iterator of `OwnerEvent`.

    The first events are a snapshot: `SNAPSHOT_START`, a `JOINED` for each that is there, `SNAPSHOT_END`. After an
    interruption another one tells the difference.
    """


# What the native module calls.


def _owner(
    session: str,
    name: str,
    host: str,
    pid: int,
    labels: dict[str, str],
    since_ms: int,
    last_renewal_ms: int,
    state: int,
    holds: Iterable[str],
    provides: Iterable[str],
) -> Owner:
    times = _utc(since_ms), _utc(last_renewal_ms)
    return Owner(session, name, host, pid, labels, *times, HolderState(state), tuple(holds), tuple(provides))


def _owner_event(kind: str, owner: Owner | None) -> OwnerEvent:
    return OwnerEvent(OwnerEventKind(kind), owner)
