"""Commands about reconcilers. The story is the function: a run lasts until it is told what comes of it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import Any

import coord
import coord.aio
from background import BOUND, settle
from bson import json_util
from words import CannotError, Words, timeout_of

OPTIONS = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=True)


class Run:
    """One run, until its end is told."""

    def __init__(self, runner: Runner, work: Any, on_loop: bool) -> None:
        self.runner = runner
        self.work = work
        self.ended: Any = asyncio.Event() if on_loop else threading.Event()
        self.answer: Any = None
        self.error: Exception | None = None

    def end(self, answer: Any = None, error: Exception | None = None) -> None:
        """Lets the function end."""
        self.answer, self.error = answer, error
        self.ended.set()

    def check(self) -> None:
        """Whether the key is still this process's to work on."""
        self.work.check()

    def _fence(self) -> Any:
        # What a write asks of whatever is given to it as its fence.
        return self.work._fence()

    def result(self) -> Any:
        """What the function does at its end."""
        if self.error is not None:
            raise self.error
        return self.answer


class Runner:
    """A reconciler, and its runs as they come."""

    def __init__(self, on_loop: bool, serve: bool) -> None:
        self.reconciler: Any = None
        self.runs: Any = asyncio.Queue() if on_loop else queue.Queue()
        self.open: set[Run] = set()
        self.ran: list[Any] | None = [] if serve else None
        self.over = False
        self._on_loop = on_loop

    def function(self, work: Any) -> Any:
        """What the reconciler calls."""
        if self.ran is not None:
            self.ran.append(work.key)
        if self.ran is not None or self.over:
            return None
        run = Run(self, work, self._on_loop)
        self.open.add(run)
        self.runs.put_nowait(run)
        if self._on_loop:
            return self._end_later(run)
        run.ended.wait()
        return run.result()

    async def _end_later(self, run: Run) -> Any:
        while not run.ended.is_set():
            try:
                await run.ended.wait()
            except asyncio.CancelledError:
                # Asked to stop it would end by itself; here the story says when.
                continue
        return run.result()

    async def next(self) -> Run:
        """Waits for the next run."""
        until = time.monotonic() + BOUND
        while time.monotonic() < until:
            try:
                if self._on_loop:
                    return await asyncio.wait_for(self.runs.get(), 0.05)
                return self.runs.get(timeout=0.05)
            except (queue.Empty, asyncio.TimeoutError):
                if self.reconciler.closed:
                    raise self.reconciler.failure or coord.Closed("the reconciler has ended") from None
        raise CannotError("nothing was run within 30 s")

    async def end(self, run: Run, answer: Any = None, error: Exception | None = None) -> None:
        """Lets a run end, and waits until the reconciler knows."""
        before = self.reconciler.stats().runs
        self.open.discard(run)
        run.end(answer, error)
        until = time.monotonic() + BOUND
        while self.reconciler.stats().runs == before:
            if time.monotonic() > until:
                raise CannotError("the run did not end within 30 s")
            await settle(asyncio.sleep(0.002) if self._on_loop else time.sleep(0.002))


class Reconcilers:
    """What an agent can do with reconcilers. The clients and what was begun are the agent's."""

    _clients: dict[str, Any]
    _things: dict[str, Any]
    _holds: dict[str, Any]
    _runners: dict[str, Runner]
    asyncio: bool

    async def do_reconcile(self, words: Words) -> None:
        client, runner = self._clients[words["client"]], Runner(self.asyncio, words.get("serve") == "true")
        kind, _, name = words["source"].partition(":")
        sources = {"observer": coord.Source.observer, "locks": coord.Source.released_locks}
        source: Any = coord.Source.manual()
        if kind == "table":
            source = (client.table(name), json_util.loads(words["filter"], json_options=OPTIONS) if "filter" in words else None)
        elif kind in sources:
            source = sources[kind](name)
        options: dict[str, Any] = {name: int(words[name]) for name in ("workers", "shards") if name in words}
        options |= {name: int(words[f"{name}_ms"]) / 1000 for name in ("resync", "move_grace") if f"{name}_ms" in words}
        if "backoff_ms" in words:
            options["backoff"] = (int(words["backoff_ms"]) / 1000,) * 2
        if "mode" in words:
            options["mode"] = words["mode"]
        call = client.reconcile(words["name"], source, runner.function, **options)
        runner.reconciler = await settle(call)
        self._things[words["as"]], self._runners[words["as"]] = runner.reconciler, runner

    async def do_work(self, words: Words) -> dict[str, Any]:
        run = await self._runners[words["hold"]].next()
        self._holds[words["as"]] = run
        work = run.work
        values = {"key": text_of(work.key), "attempt": work.attempt}
        for name, value in (("document", work.document), ("revision", work.revision), ("token", work.token)):
            if value is not None:
                values[name] = text_of(value) if name == "document" else value
        return values

    async def do_complete(self, words: Words) -> None:
        after = int(words["after_ms"]) / 1000 if "after_ms" in words else None
        message, outcome = words.get("message", "failed"), words.get("outcome", "done")
        answer: Any = None
        error: Exception | None = None
        if outcome == "requeue":
            answer = coord.requeue_after(after or 0)
        elif outcome == "terminal":
            error = coord.Terminal(message)
        elif outcome == "error":
            error = RuntimeError(message) if after is None else coord.RetryAfter(after, message)
        run = self._holds.pop(words["hold"])
        await run.runner.end(run, answer, error)

    async def do_cancelled(self, words: Words) -> None:
        if not await settle(self._holds[words["hold"]].work.cancelled.wait(BOUND)):
            raise CannotError("it was not asked to stop within 30 s")

    async def do_ran(self, words: Words) -> dict[str, Any]:
        ran = list(self._runners[words["hold"]].ran or [])
        keys = sorted({text_of(key): key for key in ran}.values(), key=lambda key: (str(type(key)), key))
        return {"count": len(keys), "keys": text_of(keys), "runs": len(ran)}

    async def do_reconciler(self, words: Words) -> dict[str, Any]:
        reconciler = self._runners[words["hold"]].reconciler
        # What has happened before this command has had no turn yet.
        await settle(asyncio.sleep(0) if self.asyncio else None)
        stats = reconciler.stats()
        counts = ("ready", "delayed", "in_flight", "parked", "runs", "errors", "retries", "terminal", "requeued")
        values = {name: getattr(stats, name) for name in (*counts, "fenced", "dropped", "synced", "paused")}
        shards = ",".join(str(shard) for shard in stats.shards)
        return {**values, "name": reconciler.name, "shards": shards, "holds": len(stats.shards)}

    async def do_add(self, words: Words) -> dict[str, Any]:
        reconciler, key = self._runners[words["hold"]].reconciler, key_of(words)
        if "after_ms" in words:
            return {"news": reconciler.add_after(key, int(words["after_ms"]) / 1000)}
        return {"news": reconciler.add(key)}

    async def do_cancel_key(self, words: Words) -> dict[str, Any]:
        return {"news": self._runners[words["hold"]].reconciler.cancel(key_of(words))}

    async def do_pause(self, words: Words) -> None:
        self._runners[words["hold"]].reconciler.pause()

    async def do_resume(self, words: Words) -> None:
        self._runners[words["hold"]].reconciler.resume()

    async def do_drain(self, words: Words) -> None:
        await settle(self._runners[words["hold"]].reconciler.drain(timeout_of(words, BOUND)))

    async def do_parked(self, words: Words) -> dict[str, Any]:
        parked = sorted(self._runners[words["hold"]].reconciler.parked(), key=lambda one: (str(type(one.key)), one.key))
        keys, reasons = [one.key for one in parked], [one.reason for one in parked]
        return {"count": len(parked), "keys": text_of(keys), "reasons": ",".join(reasons)}

    async def do_reconciled(self, words: Words) -> None:
        reconciler, position = self._runners[words["hold"]].reconciler, int(words.get("position", "0"))
        await settle(reconciler.wait_until_reconciled(key_of(words), position, timeout_of(words, BOUND)))

    async def _drop_run(self, name: str) -> bool:
        """Lets a run end without a result, if there is one of this name."""
        run = self._holds.get(name)
        if not isinstance(run, Run):
            return False
        del self._holds[name]
        await run.runner.end(run, error=RuntimeError("dropped"))
        return True

    def _end_runs(self) -> None:
        """Lets every run end: nobody waits for what comes of them."""
        for runner in self._runners.values():
            runner.over = True
            for run in list(runner.open):
                run.end()


def key_of(words: Words) -> Any:
    """The key of a command."""
    return json_util.loads(words["key"], json_options=OPTIONS)


def text_of(value: Any) -> str:
    """A key, several of them, or a document, as JSON."""
    return json_util.dumps(value, json_options=OPTIONS)
