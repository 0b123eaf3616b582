"""Observers: who provides a service. What the synchronous API and asyncio's share, and the synchronous class."""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import coord
from coord import _native
from coord._errors import Closed, CoordError, Forked
from coord._lock import _qualified
from coord._types import _html_table, _who
from coord._watch import Watch, WatchBase

if TYPE_CHECKING:
    import coord._client


@dataclass(frozen=True)
class ProviderInfo:
    """A provider as an observer sees it.

    Attributes:
        service: The service's full name.
        instance_id: What tells it apart from others of the service in the same session.
        session: The id of its session, new at every start of a client.
        name: The name that its client was given, or an empty text.
        host: The name of its host.
        pid: Its process id on that host.
        labels: The labels that its client was given.
        metadata: What it says of itself.
    """

    service: str
    instance_id: str
    session: str
    name: str
    host: str
    pid: int
    labels: dict[str, str] = field(hash=False)
    metadata: str

    def __str__(self) -> str:
        return _who(self.name, self.session, self.host, self.pid)


class Providers(list[ProviderInfo]):
    """A list of providers, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [(info.service, info, info.instance_id, info.metadata) for info in self]
        return _html_table(("service", "provider", "instance", "metadata"), rows)


class ObserverEventKind(str, enum.Enum):
    """What an observer is told."""

    SNAPSHOT_START = "snapshot_start"
    """What follows, up to `SNAPSHOT_END`, leads from what was known to what is true now."""
    SNAPSHOT_END = "snapshot_end"
    """The view is complete and up to date."""
    FIRST_UP = "first_up"
    """A service has a provider, this one, that had none. Comes before its `JOINED`."""
    LAST_DOWN = "last_down"
    """A service has no provider any more. Comes after the last `LEFT`, or `down_grace` later."""
    JOINED = "joined"
    """A provider has come."""
    LEFT = "left"
    """A provider has gone: withdrawn, or its session has ended."""
    CHANGED = "changed"
    """A provider has other metadata."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ObserverEvent:
    """What an observer is told.

    Attributes:
        kind: What has happened.
        service: The full name of the service to which it has happened; empty for the ends of a snapshot.
        provider: The provider; None for the ends of a snapshot and for `LAST_DOWN`.
    """

    kind: ObserverEventKind
    service: str = ""
    provider: ProviderInfo | None = None


class ObserverBase(WatchBase[ObserverEvent]):
    """The providers of some services: what needs no waiting."""

    def __init__(self, native: _native.Observer, client: coord._client.ClientBase) -> None:
        self._native = native
        self._pattern = native.pattern()
        super().__init__(native.events(), self._pattern, client)

    @property
    def pattern(self) -> str:
        """What is observed, in full: `namespace/scope/name` or `namespace/scope/*`."""
        return self._pattern

    def is_available(self, service: str = "") -> bool:
        """Whether the service has a provider now, by the latest view; `down_grace` is not waited for. No I/O.

        Args:
            service: Its name; it can be left out where one service is observed.

        Raises:
            InvalidArgument: The name is not valid, or is not observed.
            Closed: The observer or the client is closed.
        """
        return self._native.is_available(service)

    def services(self) -> list[str]:
        """The full names of the services that have a provider now, in order. No I/O.

        Raises:
            Closed: The observer or the client is closed.
        """
        return self._native.services()

    def providers(self, service: str = "") -> Providers:
        """The providers of a service now. No I/O. A notebook shows the result as a table.

        Args:
            service: Its name; it can be left out where one service is observed.

        Raises:
            InvalidArgument: The name is not valid, or is not observed.
            Closed: The observer or the client is closed.
        """
        return Providers(self._native.providers(service))

    def synced(self) -> bool:
        """Whether the view follows the store at this moment. No I/O.

        During an interruption it does not: then it shows what was true before.
        """
        return self._native.synced()

    def close(self) -> None:
        """Ends it: every wait, here and in other threads or tasks, ends with `Closed`. No I/O."""
        self._native.close()
        super().close()

    def __repr__(self) -> str:
        return f"<{_qualified(self)} {self._pattern!r} {self._state()}>"

    def _repr_html_(self) -> str:
        rows: list[tuple[object, object]] = [("state", self._state())]
        # A closed one has nothing to show.
        with contextlib.suppress(CoordError):
            rows += [(service, ", ".join(map(str, self.providers(service)))) for service in self.services()]
        return _html_table(("observer", self._pattern), rows)

    def _state(self) -> str:
        try:
            services = len(self.services())
        except Closed:
            return "closed"
        except Forked:
            return "forked"
        return f"services={services}{'' if self.synced() else ' interrupted'}"


class Observer(ObserverBase, Watch[ObserverEvent]):
    """The providers of some services, as the store has them, and an iterator of what changes (`ObserverEvent`).

    The first events are a snapshot: `SNAPSHOT_START`, a `FIRST_UP` for each service and a `JOINED` for each provider
    that is there, `SNAPSHOT_END`. After an interruption another one tells the difference. One who is slow is told
    less: of each service what is true now, and where thousands of events wait, a snapshot in the place of all; but
    never two `FIRST_UP` or two `LAST_DOWN` of one service in a row.
    """

    def wait_available(self, service: str = "", timeout: float | None = None) -> None:
        """Waits until the service has a provider.

        Args:
            service: Its name; it can be left out where one service is observed.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: There was none in time.
            InvalidArgument: The name is not valid, or is not observed.
            Closed: The observer or the client is closed.
        """
        self._native.wait_available(service, timeout).wait()

    def wait_unavailable(self, service: str = "", timeout: float | None = None) -> None:
        """Waits until the service has no provider.

        Args:
            service: Its name; it can be left out where one service is observed.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: There was always one.
            InvalidArgument: The name is not valid, or is not observed.
            Closed: The observer or the client is closed.
        """
        self._native.wait_unavailable(service, timeout).wait()


# What the native module calls.


def _observer_event(kind: str, service: str | None, provider: ProviderInfo | None) -> ObserverEvent:
    return ObserverEvent(ObserverEventKind(kind), service or "", provider)
