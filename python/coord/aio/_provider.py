"""Providers for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import coord
from coord import _native
from coord._bridge import bridge
from coord._errors import CoordError
from coord._lock import also_failed
from coord._provider import ProviderBase, ProviderEvent
from coord.aio._watch import Watch

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any


class Provider(ProviderBase):
    """A service that this client provides, until `close` or the end of an `async with` block.

    It must be kept: one that is garbage-collected is withdrawn in the background, with a `ResourceWarning`.
    """

    def __init__(self, native: _native.Provider, client: coord.aio.Client) -> None:
        super().__init__(native, client)
        self._events = ProviderEvents(native.events(), self._service)

    @property
    def events(self) -> ProviderEvents:
        """What happens to it, as an iterator: that it is registered, lost, registered again, and at last closed."""
        return self._events

    async def update(self, metadata: str) -> None:
        """Replaces the metadata. Returns when observers can see it.

        Raises:
            InvalidArgument: It is longer than 4 KiB.
            QueueFull: This session has more than 1 MiB of metadata.
            Closed: The provider or the client is closed.
            Unavailable: The store cannot be reached.
        """
        await bridge().run(self._native.update(metadata))

    async def close(self) -> None:
        """Withdraws it; returns when observers can see that. Once begun, it goes on when the task is cancelled.

        Closing twice is no error.

        Raises:
            Unavailable: The store cannot be reached; it is tried on in the background, until the session ends.
        """
        await bridge().finish(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"withdrawing the provider of {self._service!r}", failure)


class ProviderEvents(Watch[ProviderEvent]):
    """What happens to a provider, one event after the other. It ends with the event `CLOSED`."""
