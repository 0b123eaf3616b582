"""Observers for asyncio."""

from __future__ import annotations

from coord._bridge import bridge
from coord._observer import ObserverBase, ObserverEvent
from coord.aio._watch import Watch


class Observer(ObserverBase, Watch[ObserverEvent]):
    """The providers of some services, and an asynchronous iterator of what changes; see `coord.Observer`."""

    async def wait_available(self, service: str = "", timeout: float | None = None) -> None:
        """Waits until the service has a provider.

        Args:
            service: Its name; it can be left out where one service is observed.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: There was none in time.
            InvalidArgument: The name is not valid, or is not observed.
            Closed: The observer or the client is closed.
        """
        await bridge().run(self._native.wait_available(service, timeout))

    async def wait_unavailable(self, service: str = "", timeout: float | None = None) -> None:
        """Waits until the service has no provider.

        Args:
            service: Its name; it can be left out where one service is observed.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: There was always one.
            InvalidArgument: The name is not valid, or is not observed.
            Closed: The observer or the client is closed.
        """
        await bridge().run(self._native.wait_unavailable(service, timeout))
