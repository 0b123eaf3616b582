#!/usr/bin/env python3
"""A reconciler that keeps the last state which it has seen of each key: what every change must have come to.

    worker.py URL TABLE [NAME=VALUE ...]

URL and TABLE say what is followed; `workers`, `mode`, `shards` and `name` (of the reconciler) may follow. It says `ready`
when it follows the table, and then takes one command a line:

    dump FILE    writes what it has seen into FILE, a line of JSON for each document that there is, in the order of the
                 keys' texts: {"key": ..., "document": ...} in relaxed Extended JSON; says `dumped COUNT`
    stats        says one line of JSON: the reconciler's statistics, and under "keys" how many documents there are
    end          closes the reconciler and the client, and says `ended`; so does the end of the input

Killed and started again it sees every key anew, so that what it dumps is to equal the table whatever has happened, once
nothing is ready or running any more. In the modes `leader` and `sharded` it has seen the keys that were its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from typing import Any

import coord
from bson import json_util

OPTIONS = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=True)


class Seen:
    """The last state of each key, as text."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._tokens: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, work: coord.Work) -> None:
        """Is called for every key that changes."""
        key = text(work.key)
        state = None if work.document is None else text(work.document)
        with self._lock:
            token = work.token or 0
            if token < self._tokens.get(key, 0):
                # An exception would only be an error of the run.
                print(f"the key {key} was run with token {token} after {self._tokens[key]}", file=sys.stderr)
                os._exit(3)
            self._tokens[key] = token
            if state is None:
                self._states.pop(key, None)
            else:
                self._states[key] = state

    def dump(self, path: str) -> int:
        """Writes all of it, at once or not at all."""
        with self._lock:
            states = sorted(self._states.items())
        with open(path + ".new", "w") as file:
            for key, state in states:
                file.write(f'{{"key": {key}, "document": {state}}}\n')
        os.replace(path + ".new", path)
        return len(states)

    def __len__(self) -> int:
        return len(self._states)


def text(value: Any) -> str:
    """A key or a document as JSON, on one line."""
    return json_util.dumps(value, json_options=OPTIONS)


def say(*words: object) -> None:
    """Says a line."""
    print(*words, flush=True)


def main(url: str, table: str, *settings: str) -> None:
    """Follows the table until it is told to end."""
    options: dict[str, Any] = {"workers": 4, **dict(setting.split("=", 1) for setting in settings)}
    name = options.pop("name", "last-states")
    options |= {key: int(options[key]) for key in ("workers", "shards") if key in options}
    seen = Seen()
    with coord.connect(url, name=f"worker-{os.getpid()}") as client:
        with client.reconcile(name, client.table(table), seen, **options) as reconciler:
            say("ready")
            for line in sys.stdin:
                command, *rest = line.split()
                if command == "dump":
                    say("dumped", seen.dump(rest[0]))
                elif command == "stats":
                    say(json.dumps({**dataclasses.asdict(reconciler.stats()), "keys": len(seen)}))
                elif command == "end":
                    break
                else:
                    sys.exit(f"there is no command '{command}'")
            if reconciler.failure is not None:
                raise reconciler.failure
    say("ended")


if __name__ == "__main__":
    main(*sys.argv[1:])
