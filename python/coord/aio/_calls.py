"""Functions of users, each called in a task of its own.

So a cancellation inside one, of what it awaits, is told from a cancellation of whoever called it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def called(f: Callable[[_T], object], argument: _T) -> object:
    """Calls a function, and awaits its answer if it is asynchronous."""
    answer = f(argument)
    return await answer if inspect.isawaitable(answer) else answer


async def ended(call: asyncio.Task[object]) -> BaseException | None:
    """Waits for the end of a call; what it has failed with, which may be a cancellation, or None.

    When the awaiter is cancelled, the call is, too, and its end is waited for.
    """
    try:
        await asyncio.wait([call])
    except asyncio.CancelledError:
        while not call.done():
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([call])
        _failure(call)
        raise
    return _failure(call)


def ends_loop(failure: BaseException) -> bool:
    """Whether it is none of the function's, but what ends the loop: Ctrl-C, SystemExit."""
    return not isinstance(failure, (Exception, asyncio.CancelledError))


def _failure(call: asyncio.Task[object]) -> BaseException | None:
    try:
        call.result()
    except BaseException as error:
        return error
    return None
