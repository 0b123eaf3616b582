"""What outlives a call: what is open, the thread that carries the log to `logging`, exit and fork.

At exit every open client is closed within its `close_timeout`, so that nothing stays locked; half of that time is for
reconcilers' functions to end in, as long as their clients still work. What was forgotten before, and is closed in the
background, has the same time. A child of `multiprocessing` does all of that when its function has returned. A forked
child forgets what was there at the fork: it belongs to the parent.

Threads go on after that, and handlers of `atexit` that run later may wait for them. The last of those that were
registered since `import coord` is the package's own `_native.finish`: from then on a thread that uses coord never comes
back. A handler that was registered before the import runs after it, and must neither wait for such a thread nor for a
lock that it may have.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterable
from typing import Protocol, TypeVar

from coord import _native

_Item = TypeVar("_Item")


class _HasNative(Protocol):
    _native: _native.Client

    def __hash__(self) -> int: ...


class _Reconciler(Protocol):
    _native: _native.Reconciler

    def __hash__(self) -> int: ...


_open: weakref.WeakSet[_HasNative] = weakref.WeakSet()
_reconcilers: weakref.WeakSet[_Reconciler] = weakref.WeakSet()
_log_thread: threading.Thread | None = None
_log_starting = threading.Lock()
_exiting = False
# Under None, what was forgotten in this process, if anything was: an entry is set at once for all threads.
_forgotten: dict[None, _Endings] = {}
_child_ends = False


def opened(client: _HasNative) -> None:
    """A client was connected: it is closed at exit."""
    _open.add(client)
    _close_at_the_end_of_a_child()


def forgotten(closing: _native.Call, client: _native.Client) -> None:
    """Nobody has closed what is of this client: it is closed in the background, which the exit waits for."""
    endings = _forgotten.get(None) or _forgotten.setdefault(None, _Endings())
    endings.begin(closing, client.close_timeout())


def reconciling(reconciler: _Reconciler) -> None:
    """A reconciler has functions on threads: at exit they are asked to stop, and waited for."""
    _reconcilers.add(reconciler)


def snapshot(items: Iterable[_Item]) -> list[_Item]:
    """The items of a weak collection, which others may change meanwhile. No lock that a fork could leave locked."""
    while True:
        try:
            return list(items)
        except RuntimeError:
            continue


def start_log() -> None:
    """From now on the library's log is carried on. Before a client is connected, which is logged, too.

    Not in a forked child, where nothing is logged, and a wait for the log ends at once.
    """
    global _log_thread
    with _log_starting:
        if _log_thread is not None or _exiting or _native.forked():
            return
        _native.log_start()
        thread = threading.Thread(target=_carry_log, name="coord-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending and starts no threads any more.
            return
        _log_thread = thread


def _carry_log() -> None:
    while not _exiting:
        _hand_over(_native.log_take(wait=True))
    # What came while the one before was handed over.
    _hand_over(_native.log_take(wait=False))


def _hand_over(lines: list[tuple[int, str, str]]) -> None:
    for level, name, text in lines:
        try:
            logging.getLogger(name).log(level, "%s", text)
        except Exception:
            # A filter of the user's that fails must not end the log.
            traceback.print_exc()


class _Endings:
    """Operations that close things and go on by themselves."""

    def __init__(self) -> None:
        self._queue = _native.Queue()
        self._tags = itertools.count()
        # How long the end of each may be waited for at exit.
        self._going_on: dict[int, float] = {}

    def begin(self, closing: _native.Call, patience: float = 0.0) -> None:
        tag = next(self._tags)
        self._going_on[tag] = patience
        try:
            self._queue.start(tag, closing)
        except BaseException:
            self._going_on.pop(tag, None)
            raise
        self._take(0.0)

    def patience(self) -> list[float]:
        return snapshot(self._going_on.values())

    def wait(self, until: float) -> None:
        while self._going_on and time.monotonic() < until:
            self._take(0.05)

    def _take(self, seconds: float) -> None:
        for tag, _, _ in self._queue.take(seconds):
            self._going_on.pop(tag, None)


def _at_exit() -> None:
    global _exiting
    try:
        _close_all()
    finally:
        _exiting = True
        _native.log_wake()
        if _log_thread is not None:
            _log_thread.join(1.0)


def _close_at_the_end_of_a_child() -> None:
    """A child of `multiprocessing` ends without `atexit`, or without what was registered there before its start."""
    global _child_ends
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    if _child_ends or parent is None or parent() is None:
        return
    from multiprocessing import util

    _child_ends = True
    # A priority of 0 or more: before the children that it has itself are ended and waited for.
    util.Finalize(None, _close_all, exitpriority=10)


def _close_all() -> None:
    """Closes all clients at once and waits, but no longer than the most patient of them."""
    clients, reconcilers = (
        [client._native for client in snapshot(_open)],
        [one._native for one in snapshot(_reconcilers)],
    )
    in_background = _forgotten.get(None)
    patience = [client.close_timeout() for client in clients]
    if in_background is not None:
        patience += in_background.patience()
    if not patience:
        return
    longest = max(patience)
    until = time.monotonic() + longest
    _end_all([reconciler.close(longest) for reconciler in reconcilers], until - longest / 2)
    _end_all([client.close(None) for client in clients], until)
    if in_background is not None:
        in_background.wait(until)


def _end_all(closings: list[_native.Call], until: float) -> None:
    endings = _Endings()
    for closing in closings:
        endings.begin(closing)
    endings.wait(until)


def _in_child() -> None:
    global _open, _reconcilers, _log_thread, _log_starting, _forgotten, _child_ends
    _native.in_child()
    _open = weakref.WeakSet()
    _reconcilers = weakref.WeakSet()
    _log_thread = None
    _log_starting = threading.Lock()
    _forgotten = {}
    _child_ends = False


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
