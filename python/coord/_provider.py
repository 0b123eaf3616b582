"""Providers: this process offers a service. What the synchronous API and asyncio's share, and the synchronous class."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import coord
from coord import _lifetime, _native
from coord._errors import CoordError, LossReason
from coord._lock import ProcessBound, _qualified, also_failed
from coord._watch import Watch

if TYPE_CHECKING:
    import coord._client


class ProviderEventKind(str, enum.Enum):
    """What happens to a provider."""

    REGISTERED = "registered"
    """It is registered: observers see it."""
    LOST = "lost"
    """Its session is lost: observers see, or will see, it leave."""
    REREGISTERED = "reregistered"
    """It is registered again, under a new session."""
    CLOSED = "closed"
    """It was closed, or its client was, or it is not to be registered again. The last event."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ProviderEvent:
    """What has happened to a provider.

    Attributes:
        kind: What.
        reason: Why its session is lost, for `LOST`.
    """

    kind: ProviderEventKind
    reason: LossReason | None = None


class ProviderBase(ProcessBound):
    """A service that this client provides: what needs no waiting."""

    def __init__(self, native: _native.Provider, client: coord._client.ClientBase) -> None:
        self._native = native
        self._client = client
        self._service = native.service()
        self._instance_id = native.instance_id()

    @property
    def service(self) -> str:
        """The service's full name, `namespace/scope/name`."""
        return self._service

    @property
    def instance_id(self) -> str:
        """What tells it apart from other providers of the service in the same session."""
        return self._instance_id

    @property
    def metadata(self) -> str:
        """The metadata that was given last."""
        return self._native.metadata()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._native.closed()

    def is_registered(self) -> bool:
        """Whether it is registered under a session that is not lost. No I/O."""
        return self._native.is_registered()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "registered" if self.is_registered() else "not registered"
        return f"<{_qualified(self)} {self._service!r} instance_id={self._instance_id!r} {state}>"

    def __del__(self, _forked: Callable[[], bool] = _native.forked) -> None:
        # A forked child owns nothing; and when the interpreter ends, nothing is left to be closed.
        if hasattr(self, "_instance_id") and not _forked() and not self.closed and not self._client.closed:
            text = f"{self!r} was never closed; it is withdrawn now"
            # Before the warning, which may be an error, and is kept together with this by whoever collects warnings.
            _lifetime.forgotten(self._native.close(), self._client._native)
            warnings.warn(text, ResourceWarning, stacklevel=1, source=self)


class Provider(ProviderBase):
    """A service that this client provides, until `close` or the end of a `with` block.

    It must be kept: one that is garbage-collected is withdrawn in the background, with a `ResourceWarning`.
    """

    def __init__(self, native: _native.Provider, client: coord.Client) -> None:
        super().__init__(native, client)
        self._events = ProviderEvents(native.events(), self._service)

    @property
    def events(self) -> ProviderEvents:
        """What happens to it, as an iterator: that it is registered, lost, registered again, and at last closed."""
        return self._events

    def update(self, metadata: str) -> None:
        """Replaces the metadata. Returns when observers can see it.

        Raises:
            InvalidArgument: It is longer than 4 KiB.
            QueueFull: This session has more than 1 MiB of metadata.
            Closed: The provider or the client is closed.
            Unavailable: The store cannot be reached.
        """
        self._native.update(metadata).wait()

    def close(self) -> None:
        """Withdraws it. Returns when observers can see that. Closing twice is no error.

        Raises:
            Unavailable: The store cannot be reached; it is tried on in the background, until the session ends.
        """
        self._native.close().wait()

    def __enter__(self) -> Provider:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"withdrawing the provider of {self._service!r}", failure)


class ProviderEvents(Watch[ProviderEvent]):
    """What happens to a provider, one event after the other. It ends with the event `CLOSED`."""


# What the native module calls.


def _provider_event(kind: str, reason: int | None) -> ProviderEvent:
    return ProviderEvent(ProviderEventKind(kind), None if reason is None else LossReason(reason))
