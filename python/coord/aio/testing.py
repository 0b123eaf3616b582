"""For tests of users' code, for asyncio, on the memory store: who leads, whose session dies, and what time it is.

It is part of every build: a test of a program runs against the library that the program runs with. It reaches clients
of this process only, which are all that a store in memory has.
"""

from __future__ import annotations

from coord._bridge import bridge
from coord.testing import ControlBase

__all__ = ["Control"]


class Control(ControlBase):
    """Power over a store in memory and its clients."""

    async def force_leader(self, election: str, session: str) -> int:
        """Makes a candidate the leader, whatever its priority. Who led before loses its term, with the reason `BROKEN`.

        Waits for the candidate to campaign, for 30 s of real time at most. One that leads already goes on to.

        Args:
            election: The election's name.
            session: The id of the candidate's session.

        Returns:
            The token of its term.

        Raises:
            InvalidArgument: The name or the id.
            NotFound: It does not campaign.
            Closed: The client is closed.
        """
        token: int = await bridge().run(self._native.force_leader(election, session))
        return token

    async def expire_session(self, session: str) -> None:
        """Ends a session as if its process had given no sign of life for its whole ttl.

        Everything that it held is lost, with the reason `EXPIRED`, and goes to whoever is next; its client opens a new
        session.

        Args:
            session: Its id.

        Raises:
            InvalidArgument: The id.
            NotFound: This store has no such live session.
            Closed: The client is closed.
        """
        await bridge().run(self._native.expire_session(session))

    async def advance(self, seconds: float) -> None:
        """Lets time pass for every client of the store: what is due on the way is done, and sessions are renewed.

        Returns when the clock shows the new time.

        Raises:
            Unsupported: The store was not opened with `clock="manual"`.
        """
        await bridge().run(self._native.advance(seconds))
