"""Reconcilers for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import coord
from coord import _native
from coord._bridge import bridge
from coord._errors import Closed, CoordError, Forked, Timeout
from coord._lock import also_failed
from coord._model import Model
from coord._reconciler import ReconcilerBase
from coord._table_base import Key
from coord._work import CancellationBase, RequeueAfter, Run, WorkBase

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any


class Cancellation(CancellationBase):
    """Whether a run is asked to stop, as an event like `asyncio.Event`. True in a condition when it is.

    Most functions need not look: the task of a run that is asked to stop is cancelled.
    """

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until the run is asked to stop.

        Args:
            timeout: How many seconds to wait at most; None: for ever.

        Returns:
            Whether it is; False after the timeout.
        """
        try:
            await bridge().run(self._native.cancelled(), timeout)
        except Timeout:
            return False
        return True

    def __await__(self) -> Generator[Any, None, bool]:
        return self.wait().__await__()


class Work(WorkBase):
    """What a reconciler's function is to work on; see `coord.Work`."""

    def __init__(self, native: _native.Work, model: Model = None) -> None:
        super().__init__(native, model)
        self._cancelled = Cancellation(native)

    @property
    def cancelled(self) -> Cancellation:
        """An event that is set when the run is asked to stop."""
        return self._cancelled


_Function = Callable[[Work], "Awaitable[RequeueAfter | None] | RequeueAfter | None"]


class Reconciler(ReconcilerBase):
    """Calls a function for every key of a source, and again for every key that changes, in tasks of the loop.

    A run that is asked to stop has its task cancelled; its key comes again. It is an asynchronous context manager that
    closes it. It goes on until it or its client is closed, whether somebody keeps it or not, or `asyncio.run` or a
    runner ends its loop; close it before a bare `loop.close()`.
    """

    def __init__(self, native: _native.Reconciler, client: coord.aio.Client, f: _Function, model: Model) -> None:
        super().__init__(native, client, f, model)
        self._f = f
        self._keep = client._keep
        self._runs: set[asyncio.Task[None]] = set()
        self._watched: dict[Work, Callable[[], None]] = {}
        self._task = client._keep(self._serve())

    @property
    def closed(self) -> bool:
        """Whether it has ended, and no function of it runs: it was closed or drained, its client was, or it failed."""
        return self._task.done() and not self._runs

    async def drain(self, timeout: float | None = None) -> None:
        """Takes in no more keys, runs those that are ready, and waits until they have ended.

        What is due later is not waited for. It ends then, as by `close`. In the function itself it does not wait.

        Args:
            timeout: How many seconds to wait at most; None: as long as it takes.

        Raises:
            Timeout: It takes longer; it goes on.
        """
        await self._end(self._native.drain, timeout)

    async def close(self, timeout: float | None = None) -> None:
        """Ends it: begins no more runs, and cancels the tasks of those that go on.

        Waits until they have ended, and gives up shards and leadership. In the function itself it does not wait.
        Closing twice is no error.

        Args:
            timeout: How many seconds to wait at most; None: as long as the functions need.

        Raises:
            Timeout: It takes longer; it goes on in the background.
        """
        await self._end(self._native.close, timeout)

    async def _end(self, end: Callable[[float | None], _native.Call], timeout: float | None) -> None:
        if asyncio.current_task() in self._runs:
            with contextlib.suppress(Timeout):
                await bridge().run(end(0))
            return
        await bridge().run(end(timeout))
        if self._task.get_loop() is asyncio.get_running_loop():
            # It has no more keys to wait for.
            await asyncio.wait([self._task, *self._runs])

    async def wait_until_reconciled(self, key: Key, position: int = 0, timeout: float | None = None) -> None:
        """Waits until every change of a key up to this position has been run, the last time without an error.

        Args:
            key: The key.
            position: The `position` of a write to the source; 0: what the reconciler knows of now.
            timeout: How many seconds to wait at most; None: for ever.

        Raises:
            Timeout: That is not so in time.
            Conflict: The key is parked; or it was cancelled before that, and has neither changed nor been added since.
            NotHeld: Another replica runs it.
            Closed: The reconciler or the client is closed; or the change came after a drain had begun.
        """
        await bridge().run(self._native.wait_until_reconciled(key, position, timeout))

    async def _serve(self) -> None:
        try:
            while await self._begin_next():
                pass
        except Exception as error:
            self._worker_failed(error)
            raise
        finally:
            self._begin_close()
            self._requests.close()

    async def _begin_next(self) -> bool:
        """Waits for the next key and begins its run; whether there was one."""
        request = await self._next()
        if request is None:
            return False
        task = self._keep(self._run(request))
        self._runs.add(task)
        task.add_done_callback(self._run_ended)
        return True

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        self._runs.discard(task)
        # What ends the loop comes out of that, and is not to be complained about for a second time.
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            context = {"message": f"a run of {self!r} has ended by itself", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)

    async def _next(self) -> _native.Request | None:
        """Waits for the next key to be run; None when there are no more."""
        while True:
            try:
                await bridge().run(self._requests.ready())
            except (Closed, Forked):
                return None
            except CoordError as error:
                self._failure = error
                return None
            taken: tuple[_native.Request] | None = self._requests.take()
            if taken is not None:
                return taken[0]

    async def _run(self, request: _native.Request) -> None:
        try:
            await self._call(request)
        finally:
            # Nothing if it was answered; else its key comes again, although a traceback may keep the request.
            request.drop()

    async def _call(self, request: _native.Request) -> None:
        work = Work(request.work(), self._model)
        run = Run(request, work, self._name)
        task = asyncio.current_task()
        assert task is not None
        stop = asyncio.get_running_loop().call_soon(self._stop_when_asked, work, task)
        try:
            answer = self._f(work)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            run.raised(error)
        except asyncio.CancelledError:
            if not (work.cancelled or self._task.done()):
                run.stopped()
            run.given_up()
            raise
        except BaseException:
            # It ends the loop, and so the reconciler.
            run.given_up()
            self._begin_close()
            raise
        else:
            run.returned(answer)
        finally:
            stop.cancel()
            unwatch = self._watched.pop(work, None)
            if unwatch is not None:
                unwatch()

    def _stop_when_asked(self, work: Work, task: asyncio.Task[None]) -> None:
        """Cancels the task of a run that is asked to stop. Only for one that takes more than a turn of the loop."""
        self._watched[work] = bridge().watch(work._native.cancelled(), task.cancel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except CoordError as failure:
            if error is None:
                raise
            also_failed(error, f"closing the reconciler {self._name!r}", failure)
