"""The worker in Python: worker.py URL HISTORY SEED TTL_MS.

Takes, holds, checks and gives back locks and terms, and watches elections, until its input ends. What it writes down is
told in tests/faults/src/history.rs.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import threading
import time
from pathlib import Path

import coord

LOCKS = 3
ELECTIONS = 2

Having = coord.Held | coord.Term


class Log:
    """A file to which lines are appended, each by one write, so that a killed process leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def note(self, event: str, lock: str, t: int | None = None, **details: object) -> None:
        line = json.dumps({"t": now() if t is None else t, "e": event, "lock": lock, **details})
        os.write(self._file, line.encode() + b"\n")


def now() -> int:
    """The host's boot-time clock, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Worker:
    """Attempts, one after the other. Its pauses end with its input; `time.sleep` fails where dates are faked."""

    def __init__(self, client: coord.Client, history: Path, seed: int, ttl: float, ended: threading.Event) -> None:
        self._client = client
        self._log = Log(history)
        self._folder = history.parent
        self._random = random.Random(seed)
        self._ttl = ttl
        self._ended = ended
        self._attempts = 0

    def run(self) -> None:
        while not self._ended.is_set():
            self._attempt()

    def _attempt(self) -> None:
        number = self._random.randrange(LOCKS + ELECTIONS)
        name = f"l{number}" if number < LOCKS else f"e{number - LOCKS}"
        self._attempts += 1
        n = self._attempts
        wait = self._random.random() < 0.8
        patience = self._random.uniform(0.02, self._ttl * 4) if wait else None
        self._log.note("attempt", name, n=n, wait=wait, patience_ms=int((patience or 0) * 1000))
        try:
            having = self._take(name, patience)
        except coord.CoordError as error:
            self._log.note("refused", name, n=n, code=type(error).__name__)
        else:
            if having is not None:
                self._log.note("granted", name, n=n, token=having.token)
                self._hold(name, having)
                return
            self._log.note("refused", name, n=n, code="Contended")
        self._ended.wait(self._random.uniform(0.001, 0.2))

    def _take(self, name: str, patience: float | None) -> Having | None:
        if name.startswith("l"):
            lock = self._client.lock(name)
            return lock.try_acquire() if patience is None else lock.acquire(timeout=patience)
        election = self._client.election(name)
        return election.try_campaign("python") if patience is None else election.campaign("python", timeout=patience)

    def _hold(self, name: str, having: Having) -> None:
        token = having.token
        # Only holds that are comparable with the ttl can overlap.
        longest = self._ttl * 1.2 if self._random.random() < 0.6 else 0.05
        until = now() + int(self._random.uniform(0, longest) * 1e9)
        while True:
            before = now()
            try:
                having.check()
            except coord.CoordError:
                self._log.note("lost", name, token=token)
                break
            self._log.note("ok", name, before, token=token)
            if before >= until or self._ended.is_set():
                break
            if self._random.random() < 0.3:
                self._write_resource(name, token)
            self._ended.wait(self._random.uniform(0.001, 0.02))
        try:
            having.release() if isinstance(having, coord.Held) else having.resign()
            clean = True
        except coord.CoordError:
            clean = False
        self._log.note("released", name, token=token, clean=clean)

    def _write_resource(self, name: str, token: int) -> None:
        """The resource that the lock protects: a file that its own lock guards, so it is right whatever ours does."""
        with open(self._folder / f"{name}.register", "ab+", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # One that was stopped in the middle of a write must not stop the others.
                return
            file.seek(0)
            written = file.read().split()
            highest = int(written[-1]) if written else 0
            if token > highest:
                file.write(b"%d\n" % token)
        self._log.note("wrote", name, token=token, accepted=token >= highest)


def watch(client: coord.Client, name: str, log: Log, ended: threading.Event) -> None:
    """Writes down what a watch of an election is told, until the client is closed."""
    while True:
        try:
            with client.election(name).observe() as stream:
                for leader in stream:
                    log.note("watched", name, token=leader.token if leader else None)
            return
        except coord.Closed:
            return
        except coord.CoordError:
            # The store is away: not at once again.
            ended.wait(0.1)


def connect(url: str, ended: threading.Event) -> coord.Client | None:
    """Connects, however long the store is away."""
    while not ended.is_set():
        try:
            return coord.connect(url)
        except coord.CoordError as error:
            print(f"connecting again: {error}", file=sys.stderr)
        # The store is away: not at once again.
        ended.wait(0.2)
    return None


def main() -> None:
    url, path, seed, ttl = sys.argv[1:]
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    client = connect(url, ended)
    if client is None:
        return
    history = Path(path)
    # Beside its own history, whose last line says whether it holds something.
    watched = Log(history.with_suffix(".watch.jsonl"))
    watchers = [
        threading.Thread(target=watch, args=(client, f"e{n}", watched, ended), daemon=True) for n in range(ELECTIONS)
    ]
    for watcher in watchers:
        watcher.start()
    Worker(client, history, int(seed), int(ttl) / 1000, ended).run()
    try:
        client.close(timeout=20)
    except coord.CoordError as error:
        print(f"closing: {error}", file=sys.stderr)
    for watcher in watchers:
        watcher.join()


if __name__ == "__main__":
    main()
