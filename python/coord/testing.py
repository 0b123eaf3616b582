"""For tests of users' code, on the memory store: who leads, whose session dies, and what time it is.

>>> import coord, coord.testing
>>> with coord.connect("memory:", clock="manual") as client:
...     control = coord.testing.Control(client)
...     term = client.election("boss").campaign()
...     control.advance(3600)  # its session is renewed all the while
...     term.check()
...     control.jump(3600)  # as if the machine had slept
...     print(term.lost.reason.name)
EXPIRED

It is part of every build: a test of a program runs against the library that the program runs with. It reaches clients
of this process only, which are all that a store in memory has.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import coord
from coord._lock import ProcessBound
from coord._types import _utc

if TYPE_CHECKING:
    import coord._client

__all__ = ["Control"]


class ControlBase(ProcessBound):
    """Power over a store in memory: what needs no waiting.

    Args:
        client: A client of the store. One that was connected with `clock="manual"` has a clock that can be moved.

    Raises:
        Unsupported: It is no store in memory.
    """

    def __init__(self, client: coord._client.ClientBase) -> None:
        self._native = client._native.control()

    def jump(self, seconds: float) -> None:
        """Moves the clock at once, as if the machine had slept: nothing happened in between, and what is due is late.

        Raises:
            Unsupported: The store was not opened with `clock="manual"`.
        """
        self._native.jump(seconds)

    @property
    def date(self) -> datetime:
        """The date that the store's manual clock shows.

        Raises:
            Unsupported: The store was not opened with `clock="manual"`.
        """
        return _utc(self._native.date())


class Control(ControlBase):
    """Power over a store in memory and its clients."""

    def force_leader(self, election: str, session: str) -> int:
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
        token: int = self._native.force_leader(election, session).wait()
        return token

    def expire_session(self, session: str) -> None:
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
        self._native.expire_session(session).wait()

    def advance(self, seconds: float) -> None:
        """Lets time pass for every client of the store: what is due on the way is done, and sessions are renewed.

        Returns when the clock shows the new time.

        Raises:
            Unsupported: The store was not opened with `clock="manual"`.
        """
        self._native.advance(seconds).wait()
