"""What several tests need: waiting for what must come, and other processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import coord

PATIENCE = 30.0
"""How long anything may take that must come. The machine may be busy."""


def eventually(condition: Callable[[], object], what: str) -> None:
    """Waits until the condition holds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)


def is_free(client: coord.Client, name: str) -> bool:
    """Whether nobody holds or wants the lock, in the store's opinion."""
    info = client.lock_info(name)
    return info is None or (info.holder is None and not info.waiters)


def waiters(client: coord.Client, name: str) -> int:
    """How many wait for the lock."""
    info = client.lock_info(name)
    return 0 if info is None else len(info.waiters)


async def aeventually(condition: Callable[[], object], what: str) -> None:
    """The same in an event loop, which goes on meanwhile. The condition may use the synchronous API."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.005)


PRELUDE = """
import asyncio, gc, os, signal, sys, threading, time
import coord
# A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
def say(*words):
    print(*words, flush=True)
def hear():
    return sys.stdin.readline().strip()
def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the script waited in vain"
        time.sleep(0.005)
URL = sys.argv[1] if len(sys.argv) > 1 else None
"""


class Script:
    """A Python process that says and hears lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the script ended: {self.process.wait(PATIENCE)}\n{self.errors()}"
        return line.strip()

    def say(self, line: str = "go") -> None:
        """Gives it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Waits for its end, which must be a good one without complaints; returns what it said until then."""
        out, errors = self.process.communicate(timeout=PATIENCE * 2)
        assert self.process.returncode == 0, f"it ended with {self.process.returncode}\n{errors}"
        assert errors == "", errors
        return out

    def errors(self) -> str:
        """What it complained about."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def script(text: str, *arguments: str, options: tuple[str, ...] = ()) -> Iterator[Script]:
    """Runs a Python script beside this process; it is killed at the end if it has not ended."""
    command = [sys.executable, "-W", "always::ResourceWarning", *options, "-c", PRELUDE + textwrap.dedent(text)]
    process = subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Script(process)
        finally:
            process.kill()
