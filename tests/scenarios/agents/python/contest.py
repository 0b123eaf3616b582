"""Many grants of one lock: counting in a file, and cancels that meet grants."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coord
from background import settle
from words import CannotError


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
