"""How operations of the native module become awaitable: one native queue per event loop, watched by its descriptor.

Invariants: no thread of the library calls the loop; an operation whose awaiter is gone is ended, and what it had
brought is given back; the queue of a loop that is gone gives back what was in it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

from coord import _native
from coord._lifetime import snapshot


class Bridge:
    """The queue of one loop. It does not keep the loop, so that it ends with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._queue = _native.Queue()
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._tags = itertools.count()
        loop.add_reader(self._queue.fd(), self._drain)

    async def run(self, call: _native.Call, timeout: float | None = None) -> Any:
        """Runs an operation. When the awaiter is cancelled it is ended, and its result given back."""
        tag, op, future = self._start(call, timeout)
        try:
            return await future
        except BaseException:
            op.cancel()
            self._give_back(future)
            raise
        finally:
            self._futures.pop(tag, None)

    async def finish(self, call: _native.Call) -> None:
        """Runs an operation to its end, also when the awaiter is cancelled. It is begun before the first await."""
        tag, _, future = self._start(call, None)
        try:
            await future
        finally:
            self._futures.pop(tag, None)
            _retrieve(future)

    def watch(self, call: _native.Call, f: Callable[[], object]) -> Callable[[], None]:
        """Calls f, in a turn of the loop, when an operation has succeeded. Returns what gives that up."""
        tag, op, future = self._start(call, None)

        def ended(future: asyncio.Future[Any]) -> None:
            if not future.cancelled() and future.exception() is None:
                f()

        def give_up() -> None:
            op.cancel()
            future.remove_done_callback(ended)
            self._futures.pop(tag, None)

        future.add_done_callback(ended)
        return give_up

    def close(self) -> None:
        """Gives back what nobody took."""
        self._queue.close()
        self._futures.clear()

    def _start(self, call: _native.Call, timeout: float | None) -> tuple[int, _native.Op, asyncio.Future[Any]]:
        tag, future = next(self._tags), asyncio.get_running_loop().create_future()
        self._futures[tag] = future
        try:
            op = self._queue.start(tag, call, timeout)
        except BaseException:
            del self._futures[tag]
            raise
        # What needed no I/O has ended already, and needs no turn of the loop either.
        self._drain()
        return tag, op, future

    def _drain(self) -> None:
        for tag, succeeded, result in self._queue.take():
            future = self._futures.pop(tag, None)
            if future is None or future.done():
                # Nobody waits any more; a hold or a client ends with its last reference, which is here.
                continue
            if succeeded:
                future.set_result(result)
            else:
                future.set_exception(result)

    def _give_back(self, future: asyncio.Future[Any]) -> None:
        """Releases a result that came in the same turn as the cancellation: tracebacks may keep the future."""
        give_back = getattr(_retrieve(future), "give_back", None)
        if give_back is not None:
            self._queue.start(next(self._tags), give_back())


_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def bridge() -> Bridge:
    """The bridge of the loop that runs."""
    loop = asyncio.get_running_loop()
    found = _bridges.get(loop)
    if found is None:
        _sweep()
        found = _bridges[loop] = Bridge(loop)
    return found


def _sweep() -> None:
    """Ends the bridges of loops that were closed with work pending and are kept by somebody."""
    for loop, old in snapshot(_bridges.items()):
        if loop.is_closed():
            _bridges.pop(loop, None)
            old.close()


def _retrieve(future: asyncio.Future[Any]) -> Any:
    """The result, if there is one. An exception that nobody asks for is not to be complained about."""
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    return None


def _in_child() -> None:
    # Only forgotten: the loop's selector, from which a reader would be removed, is shared with the parent.
    global _bridges
    _bridges = weakref.WeakKeyDictionary()


os.register_at_fork(after_in_child=_in_child)
