#!/usr/bin/env python3
"""The Python agent: takes one command a line from the conductor, and answers with one line.

README.md of the scenarios has the words. The commands are written once, as coroutines: with `--asyncio` they run on a
loop over `coord.aio`; without, over `coord`, where nothing in them ever has to be awaited. Then the commands are read
by a thread, so that what is started can run on the main thread, where Ctrl-C cancels it as it does for a user.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import coord
import coord.aio
from background import BOUND, Function, MainThread, Operation, TaskOperation, ThreadOperation, WasCancelledError
from background import drive, settle
from contest import race_tasks, race_threads, rounds
from elections import Calls, Elections, leader_values
from reconcilers import Reconcilers, Runner
from services import Services, event_values
from tables import Tables, entry_values
from words import CannotError, Words, error_line, granted, holder_values, line, reason_name, timeout_of

CLOSE = 20.0


class Agent(Elections, Reconcilers, Services, Tables):
    """The clients, holds and running operations, and what can be done with them."""

    def __init__(self, main: MainThread | None) -> None:
        self.asyncio = main is None
        self._main = main
        self._connect: Any = coord.aio.connect if self.asyncio else coord.connect
        self._clients: dict[str, Any] = {}
        self._holds: dict[str, Any] = {}
        self._operations: dict[str, Operation] = {}
        self._functions: dict[str, Function] = {}
        self._calls: dict[str, Calls] = {}
        self._things: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._runners: dict[str, Runner] = {}

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
        self._end_runs()
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

    async def do_campaign(self, words: Words) -> dict[str, Any]:
        return self._keep(words["as"], await settle(self._campaign(words)))

    async def do_try_campaign(self, words: Words) -> dict[str, Any]:
        election, value = self._election(words), words.get("value", "")
        term = await settle(election.try_campaign(value))
        if term is None:
            # Nothing is how Python says no; who leads is told by a timeout of zero.
            term = await settle(election.campaign(value, timeout=0))
        return self._keep(words["as"], term)

    async def do_start_campaign(self, words: Words) -> None:
        async def work() -> Any:
            return await settle(self._campaign(words))

        self._start(words["as"], work(), interruptible=True)

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
        name = words["hold"]
        function = self._calls[name] if name in self._calls else self._functions[name]
        return self._keep(name, await function.entered())

    async def do_finish(self, words: Words) -> None:
        name = words["hold"]
        if name in self._calls:
            await self._calls[name].finish(words.get("failure"))
        else:
            self._functions[name].finish()

    async def do_proclaim(self, words: Words) -> None:
        await settle(self._holds[words["hold"]].proclaim(words["value"]))

    async def do_resign(self, words: Words) -> None:
        await settle(self._holds[words["hold"]].resign())

    async def do_transfer(self, words: Words) -> None:
        await settle(self._holds[words["hold"]].transfer_to(words["to"]))

    async def do_next(self, words: Words) -> dict[str, Any]:
        thing = self._things[words["hold"]]
        events = getattr(thing, "events", thing)
        try:
            event = await settle(events.next(BOUND))
        except coord.Timeout:
            raise CannotError("nothing came within 30 s") from None
        if isinstance(event, coord.Delivery):
            return self._delivered(event, words)
        if isinstance(event, coord.LogEntry):
            return entry_values(event)
        if isinstance(events, coord.LeaderWatch | coord.aio.LeaderWatch):
            return {"event": "no_leader"} if event is None else {"event": "leader", **leader_values(event)}
        return event_values(event)

    async def do_end(self, words: Words) -> None:
        name = words["hold"]
        bound = (timeout_of(words, BOUND),) if name in self._runners else ()
        await settle(self._things[name].close(*bound))

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
        name = words["hold"]
        if await self._drop_run(name):
            return
        self._kept.pop(name, None)
        if name in self._things:
            warns, kept = hasattr(self._things[name], "instance_id"), self._things
        elif name in self._holds:
            held, kept = self._holds[name], self._holds
            warns = not (held.resigned if hasattr(held, "resigned") else held.released)
            del held
        elif words.get("if_held") == "true":
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del kept[name]
        if warns and not any(warning.category is ResourceWarning for warning in caught):
            raise CannotError("a hold went without a warning")


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
