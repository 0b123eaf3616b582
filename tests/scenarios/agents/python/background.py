"""What runs in the background, on threads or as tasks, until somebody asks for it."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import signal
import threading
from collections.abc import Coroutine
from typing import Any

from words import CannotError

BOUND = 30.0
"""How long anything may take that must come."""


class WasCancelledError(Exception):
    """The operation was cancelled, in the way of the language."""


async def settle(value: Any) -> Any:
    """The value itself, or what it comes to if it has to be awaited."""
    return await value if inspect.isawaitable(value) else value


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine in which nothing has to be awaited."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise CannotError("a blocking call had to be awaited")


class MainThread:
    """Runs one piece of work at a time on the main thread, where Ctrl-C can end it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[ThreadOperation | None] = queue.SimpleQueue()
        self._current: ThreadOperation | None = None
        self._free = True
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        # Runs on the main thread: a signal that comes too late finds nothing to interrupt.
        if self._current is not None and self._current.cancelled:
            raise KeyboardInterrupt

    def take(self, operation: ThreadOperation) -> bool:
        """Runs it, unless something else runs."""
        if not self._free:
            return False
        self._free = False
        self._work.put(operation)
        return True

    def end(self) -> None:
        """Lets the main thread go."""
        self._work.put(None)

    def loop(self) -> None:
        """Belongs to the main thread."""
        while (operation := self._work.get()) is not None:
            self._run(operation)
            self._free = True
            operation.done.set()

    def _run(self, operation: ThreadOperation) -> None:
        try:
            self._current = operation
            operation.run()
            self._current = None
        except KeyboardInterrupt:
            self._current = None
            operation.error = WasCancelledError()


class ThreadOperation:
    """Work on a thread: the main one if it is free and Ctrl-C may be wanted."""

    def __init__(self, work: Coroutine[Any, Any, Any], main: MainThread | None) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self._work = work
        self._on_main = main is not None and main.take(self)
        if not self._on_main:
            threading.Thread(target=self._run_here, daemon=True).start()

    def run(self) -> None:
        """Works."""
        try:
            self.result = drive(self._work)
        except Exception as error:
            self.error = error

    def _run_here(self) -> None:
        self.run()
        self.done.set()

    def cancel(self) -> None:
        """Ctrl-C."""
        if not self._on_main:
            raise CannotError("only what runs on the main thread can be cancelled")
        self.cancelled = True
        os.kill(os.getpid(), signal.SIGINT)

    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.done.is_set()

    async def wait(self) -> Any:
        """Waits for its result."""
        if not self.done.wait(BOUND):
            raise CannotError("it has not happened within 30 s")
        if self.error is not None:
            raise self.error
        # Not kept here: a hold must go with its last owner.
        result, self.result = self.result, None
        return result


class TaskOperation:
    """Work as a task."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.ensure_future(work)

    def cancel(self) -> None:
        """Cancels the task."""
        self._task.cancel()

    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    async def wait(self) -> Any:
        """Waits for its result."""
        done, _ = await asyncio.wait([self._task], timeout=BOUND)
        if not done:
            raise CannotError("it has not happened within 30 s")
        if self._task.cancelled():
            raise WasCancelledError
        return self._task.result()


Operation = ThreadOperation | TaskOperation


class Function:
    """A function that runs under a lock until it is told to end."""

    def __init__(self, agent: Agent) -> None:
        self._asyncio = agent.asyncio
        kind = asyncio.Event if agent.asyncio else threading.Event
        self._entered: Any = kind()
        self._finished: Any = kind()
        self.held: Any = None

    def call(self, held: Any) -> Any:
        """What runs under the lock."""
        self.held = held
        self._entered.set()
        return self._finished.wait()

    def finish(self) -> None:
        """Lets it end."""
        self._finished.set()

    async def entered(self) -> Any:
        """Waits until it is called."""
        if self._asyncio:
            await asyncio.wait_for(self._entered.wait(), BOUND)
        elif not self._entered.wait(BOUND):
            raise CannotError("the function was not called")
        return self.held
