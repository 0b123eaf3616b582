"""Commands about elections, and about a store under control."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import coord.aio.testing
import coord.testing
from background import BOUND, settle
from words import CannotError, Words, timeout_of


class Calls:
    """A function that is called at each win, and whose calls end when they are told to."""

    def __init__(self, on_loop: bool) -> None:
        self._entered: Any = asyncio.Queue() if on_loop else queue.Queue()
        self._on_loop = on_loop
        self._current: Call | None = None
        self.begun = 0
        self.running = 0

    def function(self, term: Any) -> Any:
        """What is called at each win."""
        call = Call(term, self._on_loop)
        self.begun += 1
        self.running += 1
        self._entered.put_nowait(call)
        return self._end_later(call) if self._on_loop else self._end(call, call.finished.wait())

    async def _end_later(self, call: Call) -> None:
        self._end(call, await call.finished.wait())

    def _end(self, call: Call, _: Any) -> None:
        self.running -= 1
        if call.error is not None:
            raise RuntimeError(call.error)

    async def entered(self) -> Any:
        """Waits for the next call, and gives its term."""
        try:
            waiting = self._entered.get() if self._on_loop else None
            call = self._entered.get(timeout=BOUND) if waiting is None else await asyncio.wait_for(waiting, BOUND)
        except (queue.Empty, asyncio.TimeoutError):
            raise CannotError("the function was not called") from None
        self._current = call
        return call.term

    async def finish(self, error: str | None) -> None:
        """Lets the call end that runs."""
        if self._current is None:
            await self.entered()
        assert self._current is not None
        self._current.error = error
        self._current.finished.set()
        self._current = None


class Call:
    """One call."""

    def __init__(self, term: Any, on_loop: bool) -> None:
        self.term = term
        self.error: str | None = None
        self.finished: Any = asyncio.Event() if on_loop else threading.Event()


class Elections:
    """What an agent can do with elections. The clients and what was begun are the agent's."""

    _clients: dict[str, Any]
    _things: dict[str, Any]
    _calls: dict[str, Calls]
    asyncio: bool

    def _election(self, words: Words) -> Any:
        return self._clients[words["client"]].election(words["election"])

    def _campaign(self, words: Words) -> Any:
        priority, timeout = int(words.get("priority", "0")), timeout_of(words)
        return self._election(words).campaign(words.get("value", ""), priority=priority, timeout=timeout)

    async def do_leading(self, words: Words) -> dict[str, Any]:
        return {"leading": self._election(words).is_leader()}

    async def do_leader(self, words: Words) -> dict[str, Any]:
        leader = await settle(self._election(words).leader())
        return {"exists": False} if leader is None else {"exists": True, **leader_values(leader)}

    async def do_candidates(self, words: Words) -> dict[str, Any]:
        candidates = await settle(self._election(words).candidates())
        return {
            "candidates": ",".join(candidate.name for candidate in candidates),
            "sessions": ",".join(candidate.session for candidate in candidates),
            "priorities": ",".join(str(candidate.priority) for candidate in candidates),
            "waiting": len(candidates),
        }

    async def do_observe(self, words: Words) -> None:
        self._things[words["as"]] = await settle(self._election(words).observe())

    async def do_elect(self, words: Words) -> None:
        calls = Calls(self.asyncio)
        options: dict[str, Any] = {"value": words.get("value", ""), "priority": int(words.get("priority", "0"))}
        if "backoff_ms" in words:
            options["backoff"] = (int(words["backoff_ms"]) / 1000,) * 2
        keep = words.get("keep_on_error") == "true"
        candidacy = self._election(words).when_elected(calls.function, keep_on_error=keep, **options)
        self._things[words["as"]], self._calls[words["as"]] = await settle(candidacy), calls

    async def do_calls(self, words: Words) -> dict[str, Any]:
        calls = self._calls[words["hold"]]
        return {"calls": calls.begun, "running": calls.running > 0}

    async def do_retire(self, words: Words) -> None:
        await settle(self._things[words["hold"]].close())

    def _control(self, words: Words) -> Any:
        kind: Any = coord.aio.testing.Control if self.asyncio else coord.testing.Control
        return kind(self._clients[words["client"]])

    async def do_force_leader(self, words: Words) -> None:
        await settle(self._control(words).force_leader(words["election"], words["session"]))

    async def do_expire(self, words: Words) -> None:
        await settle(self._control(words).expire_session(words["session"]))

    async def do_advance(self, words: Words) -> None:
        await settle(self._control(words).advance(int(words["ms"]) / 1000))


def leader_values(leader: Any) -> dict[str, Any]:
    """What is said of a leader."""
    values = {
        "leader.name": leader.name,
        "leader.session": leader.session,
        "leader.pid": leader.pid,
        "leader.token": leader.token,
        "leader.is_self": leader.is_self,
    }
    return values if leader.value is None else {**values, "leader.value": leader.value}
