#!/usr/bin/env python3
"""The Python agent: takes one command a line from the conductor, and answers with one line.

README.md of the scenarios has the words. The commands are written once, as coroutines: with `--asyncio` they run on a
loop over `coord.aio`; without, over `coord`, where nothing in them ever has to be awaited. Then the commands are read
by a thread, so that what is started can run on the main thread, where Ctrl-C cancels it as it does for a user.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import queue
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import coord
import coord.aio

BOUND = 30.0
CLOSE = 20.0

Words = dict[str, str]


class CannotError(Exception):
    """The command makes no sense here, or an event has not come."""


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


# --- answers -----------------------------------------------------------------------------------------------------


def line(head: str, values: dict[str, Any]) -> str:
    """An answer."""
    words = [head]
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words.append(f"{name}={quote(text, safe='._-/:@,+')}")
    return " ".join(words)


def reason_name(reason: coord.LossReason) -> str:
    """The name that all languages share."""
    return "".join(part.capitalize() for part in reason.name.split("_"))


def holder_values(holder: coord.Holder) -> dict[str, Any]:
    """What is said of a holder."""
    return {
        "holder.name": holder.name,
        "holder.session": holder.session,
        "holder.pid": holder.pid,
        "holder.token": holder.token,
        "holder.state": holder.state.name.lower(),
        "holder.is_self": holder.is_self,
    }


def error_line(error: coord.CoordError) -> str:
    """An error of the library."""
    values: dict[str, Any] = {"message": str(error), "retryable": error.retryable}
    if isinstance(error, coord.Lost) and error.reason is not None:
        values["reason"] = reason_name(error.reason)
    if isinstance(error, coord.Contended | coord.Timeout) and error.holder is not None:
        values |= holder_values(error.holder)
    return line(f"error {error.name}", values)


def granted(held: Any) -> dict[str, Any]:
    """What is said of a grant."""
    return {"lock": held.name, "token": held.token}


# --- what runs in the background ---------------------------------------------------------------------------------


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


# --- many grants -------------------------------------------------------------------------------------------------


async def rounds(lock: Any, count: int, file: Path, pause: Callable[[], Any]) -> None:
    """Counts up in a file under the lock, in two steps that another one between them would spoil."""
    for _ in range(count):
        held = await settle(lock.acquire())
        try:
            text = file.read_text() if file.exists() else "0 0"
            before, last = (int(number) for number in text.split())
            await settle(pause())
            if last >= held.token:
                raise CannotError(f"token {last} has written before token {held.token}")
            held.check()
            file.write_text(f"{before + 1} {held.token}\n")
        finally:
            await settle(held.release())


async def race_tasks(lock: Any) -> bool:
    """A cancel that meets the grant. Whether the lock was granted."""
    held = await lock.acquire()
    waiter = asyncio.ensure_future(lock.acquire())
    while not (await lock.info()).waiters:
        await asyncio.sleep(0)
    release = asyncio.ensure_future(held.release())
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)
    waiter.cancel()
    second = None
    with contextlib.suppress(asyncio.CancelledError):
        second = await waiter
    await release
    if second is not None:
        await second.release()
    return second is not None


def race_threads(lock: Any) -> bool:
    """A timeout that meets the grant: a blocking call on another thread cannot be cancelled."""
    held = lock.acquire()
    wait = random.uniform(0.0005, 0.002)

    def release() -> None:
        time.sleep(wait * random.uniform(0.5, 1.5))
        held.release()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        lock.acquire(timeout=wait).release()
    except coord.Timeout:
        return False
    else:
        return True
    finally:
        thread.join()


# --- commands ----------------------------------------------------------------------------------------------------


class Agent:
    """The clients, holds and running operations, and what can be done with them."""

    def __init__(self, main: MainThread | None) -> None:
        self.asyncio = main is None
        self._main = main
        self._connect: Any = coord.aio.connect if self.asyncio else coord.connect
        self._clients: dict[str, Any] = {}
        self._holds: dict[str, Any] = {}
        self._operations: dict[str, Operation] = {}
        self._functions: dict[str, Function] = {}

    async def answer(self, text: str) -> str:
        """Carries a command out."""
        verb, *pairs = text.split()
        words = {name: unquote(value) for name, value in (pair.split("=", 1) for pair in pairs)}
        command = getattr(self, f"do_{verb}", None)
        try:
            if command is None:
                raise CannotError(f"there is no command '{verb}'")
            return line("ok", await command(words) or {})
        except coord.CoordError as error:
            return error_line(error)
        except WasCancelledError:
            return line("error Cancelled", {"message": "cancelled"})
        except KeyError as error:
            return line("fail", {"message": f"there is no {error} here"})
        except Exception as error:
            return line("fail", {"message": f"{type(error).__name__}: {error}"})

    async def end(self) -> None:
        """Ends what the story has left open."""
        for client in self._clients.values():
            await settle(client.close(CLOSE))

    def _start(self, name: str, work: Coroutine[Any, Any, Any], interruptible: bool = False) -> None:
        if self.asyncio:
            self._operations[name] = TaskOperation(work)
        else:
            self._operations[name] = ThreadOperation(work, self._main if interruptible else None)

    def _lock(self, words: Words) -> Any:
        return self._clients[words["client"]].lock(words["lock"])

    def _keep(self, name: str, held: Any) -> dict[str, Any]:
        self._holds[name] = held
        return granted(held)

    async def do_connect(self, words: Words) -> dict[str, Any]:
        options = {name.removeprefix("option."): value for name, value in words.items() if name.startswith("option.")}
        client = await settle(self._connect(words["url"], **options))
        self._clients[words["client"]] = client
        return await self.do_session(words)

    async def do_close(self, words: Words) -> None:
        timeout = float(words["timeout_ms"]) / 1000 if "timeout_ms" in words else CLOSE
        await settle(self._clients[words["client"]].close(timeout))

    async def do_session(self, words: Words) -> dict[str, Any]:
        session = self._clients[words["client"]].session
        return {"session": session.id, "state": session.state, "remaining_ms": int(session.remaining * 1000)}

    async def do_info(self, words: Words) -> dict[str, Any]:
        info = await settle(self._lock(words).info())
        if info is None:
            return {"exists": False}
        return {
            "exists": True,
            "lock": info.name,
            "token": info.token,
            "breaking": info.breaking,
            "held": info.holder is not None,
            "waiting": len(info.waiters),
            "waiters": ",".join(waiter.name for waiter in info.waiters),
            **({} if info.holder is None else holder_values(info.holder)),
        }

    async def do_locks(self, words: Words) -> dict[str, Any]:
        locks = await settle(self._clients[words["client"]].locks(words.get("prefix", "")))
        return {"locks": ",".join(info.name for info in locks)}

    async def do_break(self, words: Words) -> None:
        client, force = self._clients[words["client"]], words.get("force") == "true"
        await settle(client.break_lock(words["lock"], int(words["token"]), force=force))

    async def do_sanitize(self, words: Words) -> dict[str, Any]:
        return {"name": coord.sanitize(words["text"])}

    async def do_acquire(self, words: Words) -> dict[str, Any]:
        return self._keep(words["as"], await settle(self._lock(words).acquire(timeout_of(words))))

    async def do_try(self, words: Words) -> dict[str, Any]:
        lock = self._lock(words)
        held = await settle(lock.try_acquire())
        if held is None:
            # Nothing is how Python says no; who holds it is told by a timeout of zero.
            held = await settle(lock.acquire(0))
        return self._keep(words["as"], held)

    async def do_start(self, words: Words) -> None:
        lock, timeout = self._lock(words), timeout_of(words)

        async def work() -> Any:
            return await settle(lock.acquire(timeout))

        self._start(words["as"], work(), interruptible=True)

    async def do_run(self, words: Words) -> None:
        lock, function = self._lock(words), Function(self)

        async def work() -> None:
            await settle(lock.run(function.call))

        self._functions[words["as"]] = function
        self._start(words["as"], work())

    async def do_rounds(self, words: Words) -> None:
        pause: Callable[[], Any] = (lambda: asyncio.sleep(0)) if self.asyncio else (lambda: time.sleep(0))
        self._start(words["as"], rounds(self._lock(words), int(words["rounds"]), Path(words["file"]), pause))

    async def do_races(self, words: Words) -> dict[str, Any]:
        lock, count = self._lock(words), int(words["rounds"])
        race: Callable[[Any], Any] = race_tasks if self.asyncio else race_threads
        won = 0
        for _ in range(count):
            won += await settle(race(lock))
        return {"granted": won, "cancelled": count - won}

    async def do_await(self, words: Words) -> dict[str, Any]:
        name = words["hold"]
        result = await self._operations.pop(name).wait()
        return {} if result is None else self._keep(name, result)

    async def do_pending(self, words: Words) -> dict[str, Any]:
        # What has happened before this command has had no turn yet.
        await settle(asyncio.sleep(0) if self.asyncio else None)
        return {"pending": not self._operations[words["hold"]].is_done()}

    async def do_cancel(self, words: Words) -> None:
        self._operations[words["hold"]].cancel()

    async def do_entered(self, words: Words) -> dict[str, Any]:
        return self._keep(words["hold"], await self._functions[words["hold"]].entered())

    async def do_finish(self, words: Words) -> None:
        self._functions[words["hold"]].finish()

    async def do_held(self, words: Words) -> dict[str, Any]:
        held = self._holds[words["hold"]]
        return {**granted(held), "remaining_ms": int(held.remaining * 1000)}

    async def do_check(self, words: Words) -> None:
        self._holds[words["hold"]].check()

    async def do_ensure(self, words: Words) -> None:
        await settle(self._holds[words["hold"]].ensure(int(words["ms"]) / 1000))

    async def do_lost(self, words: Words) -> dict[str, Any]:
        lost = self._holds[words["hold"]].lost
        if not await settle(lost.wait(BOUND)):
            raise CannotError("it was not lost within 30 s")
        return {"reason": reason_name(lost.reason)}

    async def do_release(self, words: Words) -> None:
        await settle(self._holds[words["hold"]].release())

    async def do_drop(self, words: Words) -> None:
        if words.get("if_held") != "true" or words["hold"] in self._holds:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                warned_of = self._holds[words["hold"]].released
                del self._holds[words["hold"]]
            if not warned_of and not any(warning.category is ResourceWarning for warning in caught):
                raise CannotError("a hold went without a warning")


def timeout_of(words: Words) -> float | None:
    """The timeout in seconds, if there is one."""
    return float(words["timeout_ms"]) / 1000 if "timeout_ms" in words else None


def say(answer: str) -> None:
    """Sends an answer."""
    sys.stdout.write(answer + "\n")
    sys.stdout.flush()


async def play_on_loop() -> None:
    """Plays with `coord.aio`."""
    agent = Agent(None)
    loop = asyncio.get_running_loop()
    while command := await loop.run_in_executor(None, sys.stdin.readline):
        say(await agent.answer(command))
    await agent.end()


def play_on_threads() -> None:
    """Plays with `coord`."""
    main = MainThread()
    agent = Agent(main)
    failure: list[BaseException] = []

    def read() -> None:
        try:
            while command := sys.stdin.readline():
                say(drive(agent.answer(command)))
            drive(agent.end())
        except BaseException as error:
            failure.append(error)
        finally:
            main.end()

    threading.Thread(target=read, daemon=True).start()
    main.loop()
    if failure:
        raise failure[0]


if __name__ == "__main__":
    if "--asyncio" in sys.argv[1:]:
        asyncio.run(play_on_loop())
    else:
        play_on_threads()
