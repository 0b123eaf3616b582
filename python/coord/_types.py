"""What the library tells, as plain immutable data: sessions, holders, locks, statistics."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from coord._errors import LossReason

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MILLISECOND = timedelta(milliseconds=1)


class SessionState(str, enum.Enum):
    """Whether what a session holds is valid."""

    OPENING = "opening"
    """Not acknowledged yet; nothing can be held."""
    LIVE = "live"
    """Holds are valid."""
    SUSPENDED = "suspended"
    """It could not be renewed in time: every hold is lost, places in queues are kept, and it may come back."""
    LOST = "lost"
    """It is over. The client opens a new one by itself, unless it is closed."""

    def __str__(self) -> str:
        return self.value


class HolderState(enum.IntEnum):
    """Whether the holder of a lock still gives signs of life."""

    LIVE = 0
    """It renewed its session while this client looked."""
    SILENT = 1
    """No renewal was seen since this client began to look."""
    DEAD = 2
    """Its session is dead; the next waiter takes over."""


@dataclass(frozen=True)
class Session:
    """A client's session at one moment.

    Attributes:
        id: New at every start of a client, and after every loss.
        state: Whether holds are valid.
        reason: Why it was lost, if it was.
        remaining: How many seconds holds stay valid without another renewal; 0 unless live.
        ttl: How many seconds others must see no renewal before they may declare it dead.
        renew_every: How many seconds lie between two renewals.
        name: The name that the client was given.
        labels: The labels that the client was given.
        host: The host's name.
        pid: The process id.
    """

    id: str
    state: SessionState
    reason: LossReason | None
    remaining: float
    ttl: float
    renew_every: float
    name: str
    labels: dict[str, str] = field(hash=False)
    host: str
    pid: int


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as the store and this client's observation know it.

    Attributes:
        name: The name that its client was given, or an empty text.
        session: The id of its session.
        host: The name of its host.
        pid: Its process id on that host.
        token: The fencing token of the hold.
        since: When it was granted, by the store's clock. For people, never for decisions.
        state: What this client has observed of its session.
        silent_for: For how many seconds this client has seen no renewal.
        is_self: Whether it is this very client: locks are not re-entrant.
    """

    name: str
    session: str
    host: str
    pid: int
    token: int
    since: datetime
    state: HolderState
    silent_for: float
    is_self: bool

    def __str__(self) -> str:
        return _who(self.name, self.session, self.host, self.pid)


@dataclass(frozen=True)
class Waiter:
    """Who waits for a lock.

    Attributes:
        name: The name that its client was given, or an empty text.
        session: The id of its session.
        host: The name of its host.
        pid: Its process id on that host.
    """

    name: str
    session: str
    host: str
    pid: int

    def __str__(self) -> str:
        return _who(self.name, self.session, self.host, self.pid)


@dataclass(frozen=True)
class LockInfo:
    """Who holds a lock and who waits for it, at one moment.

    Attributes:
        name: The lock's full name.
        token: The token of the latest grant; 0 if there was none.
        holder: Who holds it, or None if it is free.
        waiters: Who waits for it, next first.
        breaking: Whether an operator has asked the holder to go.
    """

    name: str
    token: int
    holder: Holder | None
    waiters: tuple[Waiter, ...]
    breaking: bool


class Locks(list[LockInfo]):
    """A list of locks, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (
                info.name,
                info.token,
                info.holder or "free",
                f"{info.holder.since:%Y-%m-%d %H:%M:%S} UTC" if info.holder else "",
                ", ".join(map(str, info.waiters)),
            )
            for info in self
        ]
        return _html_table(("lock", "token", "holder", "since", "waiters"), rows)


@dataclass(frozen=True)
class StoreCalls:
    """How many operations a client has asked of its store.

    Attributes:
        session_steps: Steps on sessions: openings, renewals, kills, closings.
        claim_steps: Steps on locks: acquires, releases, cancels, takeovers.
        reads: Reads.
    """

    session_steps: int
    claim_steps: int
    reads: int


@dataclass(frozen=True)
class Stats:
    """What a client has done since it was connected, and how near it came to losing its session.

    Attributes:
        renewals: Renewals of the session that were acknowledged.
        failed_renewals: Renewals that failed or were not answered in time.
        last_slack: Seconds of validity that were left at the latest renewal.
        least_slack: The least that was ever left.
        suspensions: How often the session was suspended.
        losses: How many sessions were lost and replaced.
        grants: Holds that were granted.
        unknown_grants: Grants that nobody asked for any more and that were given back.
        timeouts: Acquires that ended at their time limit.
        notice_gaps: How often the store's stream of notices was opened or had a gap.
        kills: Sessions of others that this client declared dead.
        held: Holds at this moment.
        waiting: Waiting acquires at this moment.
        store: Operations asked of the store.
    """

    renewals: int
    failed_renewals: int
    suspensions: int
    losses: int
    grants: int
    unknown_grants: int
    timeouts: int
    notice_gaps: int
    kills: int
    held: int
    waiting: int
    store: StoreCalls
    last_slack: float | None
    least_slack: float | None


# What the native module calls: one factory for each, which takes what Rust can give.


def _session(
    id: str,  # noqa: A002
    state: str,
    reason: int | None,
    remaining: float,
    ttl: float,
    renew_every: float,
    name: str,
    labels: dict[str, str],
    host: str,
    pid: int,
) -> Session:
    lost = None if reason is None else LossReason(reason)
    return Session(id, SessionState(state), lost, remaining, ttl, renew_every, name, labels, host, pid)


def _holder(
    name: str,
    session: str,
    host: str,
    pid: int,
    token: int,
    since_ms: int,
    state: int,
    silent_for: float,
    is_self: bool,
) -> Holder:
    return Holder(name, session, host, pid, token, _utc(since_ms), HolderState(state), silent_for, is_self)


def _lock_info(
    name: str, token: int, holder: Holder | None, waiters: list[tuple[str, str, str, int]], breaking: bool
) -> LockInfo:
    return LockInfo(name, token, holder, tuple(Waiter(*waiter) for waiter in waiters), breaking)


def _stats(
    counts: list[tuple[str, int]], calls: list[tuple[str, int]], slack: tuple[float | None, float | None]
) -> Stats:
    return Stats(**dict(counts), store=StoreCalls(**dict(calls)), last_slack=slack[0], least_slack=slack[1])


def _utc(milliseconds: int) -> datetime:
    """A store's date. One that no calendar has stays at the epoch: it decides nothing."""
    moment = EPOCH
    with contextlib.suppress(OverflowError):
        moment += timedelta(milliseconds=milliseconds)
    return moment


def _who(name: str, session: str, host: str, pid: int) -> str:
    who = name or f"session {session[:8]}"
    return f"{who} on {host} (pid {pid})" if host else who


def _html_table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    # For notebooks alone.
    import html

    def line(tag: str, cells: Iterable[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"
