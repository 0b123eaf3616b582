"""What outlives a call: what is open, the thread that carries the log to `logging`, exit and fork.

At exit every open client is closed within its `close_timeout`, so that nothing stays locked; half of that time is for
reconcilers' functions to end in, as long as their clients still work. A forked child forgets all of this: it belongs to
the parent.

Threads go on after that, and handlers of `atexit` that run later may wait for them. The last of those that were
registered since `import coord` is the package's own `_native.finish`: from then on a thread that uses coord never comes
back. A handler that was registered before the import runs after it, and must neither wait for such a thread nor for a
lock that it may have.
"""

from __future__ import annotations

import atexit
import logging
import os
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


def opened(client: _HasNative) -> None:
    """A client was connected: it is closed at exit."""
    _open.add(client)


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
    """From now on the library's log is carried on. Before a client is connected, which is logged, too."""
    global _log_thread
    with _log_starting:
        if _log_thread is not None or _exiting:
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


def _at_exit() -> None:
    global _exiting
    try:
        _close_all([client._native for client in snapshot(_open)], [one._native for one in snapshot(_reconcilers)])
    finally:
        _exiting = True
        _native.log_wake()
        if _log_thread is not None:
            _log_thread.join(1.0)


def _close_all(clients: list[_native.Client], reconcilers: list[_native.Reconciler]) -> None:
    """Closes them all at once and waits, but no longer than the most patient of the clients."""
    if not clients:
        return
    patience = max(client.close_timeout() for client in clients)
    until = time.monotonic() + patience
    _end_all([reconciler.close(patience) for reconciler in reconcilers], until - patience / 2)
    _end_all([client.close(None) for client in clients], until)


def _end_all(closings: list[_native.Call], until: float) -> None:
    queue = _native.Queue()
    for tag, closing in enumerate(closings):
        queue.start(tag, closing)
    unfinished = len(closings)
    while unfinished > 0 and time.monotonic() < until:
        unfinished -= len(queue.take(0.05))


def _in_child() -> None:
    global _open, _reconcilers, _log_thread, _log_starting
    _native.in_child()
    _open = weakref.WeakSet()
    _reconcilers = weakref.WeakSet()
    _log_thread = None
    _log_starting = threading.Lock()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
