"""Mail for asyncio: the same names as in `coord.mail`, with `await` where something is waited for."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from coord import _native
from coord._bridge import bridge
from coord.aio._watch import Watch
from coord.mail import (
    Address,
    Enqueued,
    Mail,
    MailerBase,
    MailState,
    Message,
    OutboxBase,
    OutboxEvent,
    Report,
    Sent,
    _counts,
    _mail,
    _mail_or_none,
    _report,
    _sent,
    native_mailer,
)

if TYPE_CHECKING:
    from typing_extensions import Self
else:
    # For whoever evaluates annotations.
    Self = Any

__all__ = ["Mailer", "Outbox", "OutboxWatch", "Senders", "mailer"]


def mailer(url: str = "smtp://", **options: float | str | Address) -> Mailer:
    """A mailer for the server at this URL, without a store; see `coord.mailer`, also for forks. No I/O."""
    return Mailer(native_mailer(None, url, options))


class Mailer(MailerBase):
    """A mail server to send through; an asynchronous context manager that closes it."""

    async def send(self, message: Message) -> Report:
        """Sends a message; see `coord.mail.Mailer.send`.

        When the task is cancelled, the connection is dropped; whether the message was sent is then not known.
        """
        return _report(await bridge().run(self._call(message)))

    def send_many(self, messages: Iterable[Message]) -> AsyncIterator[Sent]:
        """Sends messages, and tells of each as it ends; see `coord.mail.Mailer.send_many`."""
        return _batch(self._batch(messages))

    async def health(self) -> None:
        """Connects, logs in, and asks the server whether it answers; see `coord.mail.Mailer.health`."""
        await bridge().run(self._native.health())

    async def close(self) -> None:
        """Refuses new messages, waits for those that are being sent, and says goodbye."""
        await bridge().run(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()


async def _batch(batch: _native.Batch) -> AsyncIterator[Sent]:
    while True:
        value = await bridge().run(batch.next())
        if value is None:
            return
        yield _sent(value)


class Outbox(OutboxBase):
    """Mails in the store, which any process sends."""

    async def enqueue(
        self,
        message: Message,
        *,
        key: str | None = None,
        not_before: datetime | None = None,
        expires: datetime | None = None,
    ) -> Enqueued:
        """Puts a mail into the outbox, if there is none with its key; see `coord.mail.Outbox.enqueue`."""
        return Enqueued(*await bridge().run(self._enqueue(message, key, not_before, expires)))

    async def get(self, mail_id: str) -> Mail | None:
        """The mail with this id; None if there is none."""
        return _mail_or_none(await bridge().run(self._native.get_mail(mail_id)))

    async def list(self, state: MailState | str | None = None, limit: int = 100) -> builtins.list[Mail]:
        """Mails in this state (None: in any), oldest first, at most so many; see `coord.mail.Outbox.list`."""
        return [_mail(json.loads(text)) for text in await bridge().run(self._list(state, limit))]

    async def stats(self) -> dict[MailState, int]:
        """How many mails are in each state."""
        return _counts(await bridge().run(self._native.stats()))

    async def retry(self, mail_id: str) -> None:
        """Sends a mail (again); see `coord.mail.Outbox.retry`."""
        await bridge().run(self._native.retry(mail_id))

    async def cancel(self, mail_id: str) -> None:
        """Takes a mail back; see `coord.mail.Outbox.cancel`."""
        await bridge().run(self._native.cancel(mail_id))

    async def purge(self, older_than: float) -> int:
        """Removes mails that came to their end so many seconds ago; returns how many."""
        count: int = await bridge().run(self._native.purge(older_than))
        return count

    def watch(self) -> OutboxWatch:
        """Every change of every mail, by whatever process; the first event is a gap."""
        return OutboxWatch(self._native.watch(), f"outbox {self.name!r}", self._client)

    def start(self, senders: int = 1) -> Senders:
        """Starts to send; see `coord.mail.Outbox.start`."""
        return Senders(self._native.start(senders), self)


class OutboxWatch(Watch[OutboxEvent]):
    """The mails of an outbox as they come and change: an asynchronous iterator of `OutboxEvent`, the first a gap.

    After an error of the store it goes on, with another gap.
    """


class Senders:
    """What sends the mails of an outbox in this process, until `stop`; an asynchronous context manager."""

    def __init__(self, native: _native.Senders, outbox: Outbox) -> None:
        self._native = native
        self._outbox = outbox

    async def stop(self) -> None:
        """Begins nothing new, and waits until what has begun is finished and recorded.

        Raises:
            Closed: The mailer or the client was closed before: then they had ended without it, and the mails wait in
                the outbox for other senders.
        """
        await bridge().run(self._native.stop())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()
