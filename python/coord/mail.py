"""Mail: messages, a mailer, and an outbox that loses nothing.

>>> from coord.mail import Message
>>> Message(to=["Ann <ann@example.org>"], subject="Hello", text="Hello, Ann.").subject
'Hello'

`coord.mailer(url)` and `client.mailer(url)` give a `Mailer`, `client.outbox(name, mailer)` an `Outbox`; `coord.aio`
has the same with `await`.
"""

from __future__ import annotations

import base64
import builtins
import enum
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import coord

# _lifetime: for what a process does at its forks and its end, also where there is no client.
from coord import _lifetime, _native
from coord._errors import CoordError, InvalidArgument
from coord._types import EPOCH, MILLISECOND, _utc
from coord._watch import Watch

if TYPE_CHECKING:
    from typing_extensions import Self

    import coord._client
else:
    # For whoever evaluates annotations.
    Self = Any

__all__ = [
    "Address",
    "Attachment",
    "Enqueued",
    "Mail",
    "MailState",
    "Mailer",
    "Message",
    "Outbox",
    "OutboxEvent",
    "OutboxWatch",
    "Recipient",
    "RecipientStatus",
    "Report",
    "Senders",
    "Sent",
    "mailer",
]


@dataclass(frozen=True)
class Address:
    """A mailbox: a name for people, and an address.

    Attributes:
        address: The address; a domain in another script becomes ASCII.
        name: The name; may have any characters, on one line.
    """

    address: str
    name: str = ""

    def _json(self) -> object:
        return {"name": self.name, "address": self.address}


@dataclass(frozen=True)
class Attachment:
    """A file that goes with a message: the one at `path`, or `content` under `name`.

    Attributes:
        path: A file, which is read when the message is sent or enqueued.
        content: What it has, where there is no path.
        name: What it is called; None: as the file at `path`.
        type: A media type such as `application/pdf`; None: guessed from the name.
        cid: Makes it a file that the HTML shows: `<img src="cid:...">`.
    """

    path: str | os.PathLike[str] | None = None
    content: bytes | None = None
    name: str | None = None
    type: str | None = None
    cid: str | None = None

    def _json(self) -> object:
        fields: dict[str, object] = {"name": self.name, "type": self.type, "cid": self.cid}
        if self.path is not None:
            fields["path"] = os.fsdecode(self.path)
        if self.content is not None:
            fields["base64"] = base64.b64encode(self.content).decode()
        return fields


@dataclass
class Message:
    """A mail. Nothing of it is checked before it is sent or enqueued.

    An address is a text such as `ann@example.org` or `Ann <ann@example.org>`, or an `Address`.

    Attributes:
        to: Who gets it.
        subject: Any characters, on one line.
        text: The plain text.
        html: The HTML. With a text too, readers show the one that they can.
        sender: Who it is from; None: the mailer's `sender`.
        cc: Who gets a copy, and is seen.
        bcc: Who gets a copy, and is not seen.
        reply_to: Where replies go; none: the mailer's `reply_to`, or the sender.
        attachments: Files that go with it, or that the HTML shows.
        headers: Further headers: a mapping, or pairs to keep an order or repeat a name.
        message_id: `<left@right>`; None: its own, the same in every attempt.
        date: Its date, with a time zone; None: when it is sent first, or enqueued.
    """

    to: Sequence[str | Address] | str | Address = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    sender: str | Address | None = None
    cc: Sequence[str | Address] | str | Address = ()
    bcc: Sequence[str | Address] | str | Address = ()
    reply_to: Sequence[str | Address] | str | Address = ()
    attachments: Sequence[Attachment] = ()
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = field(default_factory=dict)
    message_id: str | None = None
    date: datetime | None = None

    def __post_init__(self) -> None:
        # It may be sent more than once.
        for name in ("to", "cc", "bcc", "reply_to", "attachments", "headers"):
            if isinstance(given := getattr(self, name), Iterator):
                setattr(self, name, list(given))

    def to_json(self) -> str:
        """The message in the one JSON form of all languages."""
        fields = self._fields()
        return f"{{{', '.join(f'{json.dumps(name)}: {_json_of(name, value)}' for name, value in fields.items())}}}"

    def _fields(self) -> dict[str, object]:
        headers = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        return {
            "from": None if self.sender is None else _address(self.sender),
            "to": _addresses(self.to),
            "cc": _addresses(self.cc),
            "bcc": _addresses(self.bcc),
            "reply_to": _addresses(self.reply_to),
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "attachments": [_attachment(attachment) for attachment in self.attachments],
            "headers": [list(pair) for pair in headers],
            "message_id": self.message_id,
            "date": _millis("date", self.date),
        }


def _json_of(field: str, value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"{field}: it has a lone surrogate, so it is not UTF-8") from None
    return text


def _attachment(attachment: object) -> object:
    if not isinstance(attachment, Attachment):
        raise TypeError(f"attachments are coord.mail.Attachment, not {type(attachment).__name__}")
    return attachment._json()


def _address(address: object) -> object:
    return address._json() if isinstance(address, Address) else address


def _addresses(addresses: object) -> list[object]:
    if isinstance(addresses, (str, Address)):
        return [_address(addresses)]
    if not isinstance(addresses, Iterable):
        raise TypeError(f"addresses are str or Address, or a list of them, not {type(addresses).__name__}")
    return [_address(address) for address in addresses]


def _millis(name: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} is a datetime, not {type(moment).__name__}")
    if moment.utcoffset() is None:
        raise InvalidArgument(f"{name}: it has no time zone, so it could mean two moments; timezone.utc is one")
    return (moment - EPOCH) // MILLISECOND


def _moment(millis: int | None) -> datetime | None:
    return None if millis is None else _utc(millis)


def _text_of(message: Message) -> str:
    if not isinstance(message, Message):
        raise TypeError(f"a message is a coord.mail.Message, not {type(message).__name__}")
    return message.to_json()


class RecipientStatus(str, enum.Enum):
    """Whether a server has taken a message for a recipient."""

    ACCEPTED = "accepted"
    """It has: from now on the message is the server's."""
    REJECTED = "rejected"
    """It has not."""
    UNKNOWN = "unknown"
    """The connection broke between all of the message and the server's answer."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Recipient:
    """What became of a message for one address.

    Attributes:
        address: The address, its domain in ASCII.
        status: Whether the server has taken the message for it.
        code: The server's code; 0 where it gave none.
        text: The server's text, or what went wrong.
        permanent: Whether it is useless to try again.
    """

    address: str
    status: RecipientStatus
    code: int
    text: str
    permanent: bool


def _recipients(values: list[dict[str, Any]]) -> tuple[Recipient, ...]:
    return tuple(Recipient(**{**value, "status": RecipientStatus(value["status"])}) for value in values)


@dataclass(frozen=True)
class Report:
    """What a server said about each recipient of a message.

    Attributes:
        message_id: The message's id, the same in every attempt.
        attempts: How often it was tried.
        recipients: Everybody who was to get it, once each.
    """

    message_id: str
    attempts: int
    recipients: tuple[Recipient, ...]

    @property
    def all_accepted(self) -> bool:
        """Whether the server has taken the message for everybody."""
        return all(recipient.status == RecipientStatus.ACCEPTED for recipient in self.recipients)


def _report(text: str) -> Report:
    value = json.loads(text)
    return Report(value["message_id"], value["attempts"], _recipients(value["recipients"]))


@dataclass(frozen=True)
class Sent:
    """What became of one message of `send_many`.

    Attributes:
        index: Its place in the list.
        report: What the server said; None if there was an error.
        error: Why there is no report.
    """

    index: int
    report: Report | None
    error: CoordError | None


def _sent(value: tuple[int, str | None, CoordError | None]) -> Sent:
    index, report, error = value
    return Sent(index, None if report is None else _report(report), error)


class MailState(str, enum.Enum):
    """Where a mail is on its way."""

    QUEUED = "queued"
    """It waits for its time, or for a sender."""
    SENDING = "sending"
    """A sender is about to send it, or does."""
    SENT = "sent"
    """The server has taken it for everybody who can have it."""
    FAILED = "failed"
    """Nobody can have it."""
    PARKED = "parked"
    """Whether it was sent is not known, and a person decides."""
    EXPIRED = "expired"
    """Its time was over before it could be sent."""
    CANCELLED = "cancelled"
    """A person took it back."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Mail:
    """A mail of an outbox, at one moment.

    Attributes:
        id: Its id in the outbox, made of its key.
        key: The key that it was enqueued with.
        state: Where it is on its way.
        attempts: How often it was begun to be sent.
        message_id: Its Message-ID, the same in every copy.
        created: When it was enqueued.
        due: When it may be sent, or tried again.
        expires: When it is not to be sent any more.
        finished: When it came to its last state.
        maybe_sent: Whether a copy may have been sent without anybody knowing.
        recipients: What is known of each recipient; empty before the first attempt.
        last: What happened last, in words.
        late: What senders have found out about it when it was no longer theirs.
        sender: The session that sends it now; empty if none does.
    """

    id: str
    key: str
    state: MailState
    attempts: int
    message_id: str
    created: datetime
    due: datetime
    expires: datetime | None
    finished: datetime | None
    maybe_sent: bool
    recipients: tuple[Recipient, ...]
    last: str
    late: tuple[str, ...]
    sender: str


def _mail(value: dict[str, Any]) -> Mail:
    moments = {name: _moment(value[name]) for name in ("created", "due", "expires", "finished")}
    more = {
        "state": MailState(value["state"]),
        "recipients": _recipients(value["recipients"]),
        "late": tuple(value["late"]),
    }
    return Mail(**{**value, **moments, **more})


@dataclass(frozen=True)
class Enqueued:
    """A mail that is in the outbox.

    Attributes:
        id: The mail's id.
        new: False if there was one with this key.
    """

    id: str
    new: bool


@dataclass(frozen=True)
class OutboxEvent:
    """A change in an outbox.

    Attributes:
        event: `gap` (changes may be missing: list what is there; the first of every watch), `mail` or `purged`.
        mail: The mail that is new or has changed.
        id: The id of a mail that was purged.
    """

    event: str
    mail: Mail | None = None
    id: str | None = None


def _event(text: str) -> OutboxEvent:
    value = json.loads(text)
    mail = value.get("mail")
    return OutboxEvent(value["event"], None if mail is None else _mail(mail), value.get("id"))


def _options(options: Mapping[str, object]) -> list[tuple[str, str]]:
    def text(key: str, value: object) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Address):
            return json.dumps(value.name, ensure_ascii=False) + f" <{value.address}>" if value.name else value.address
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{key} is a number or a str, not {type(value).__name__}")
        return repr(value)

    return [(key, text(key, value)) for key, value in options.items()]


def mailer(url: str = "smtp://", **options: float | str | Address) -> Mailer:
    """A mailer for the server at this URL, without a store. No I/O: `Mailer.health` asks the server.

    It starts the library's threads, as a connect does. Where processes are forked, each makes its own after the fork:
    one that was made before, at the level of a module for example, has each of them refused everything with `Forked`.

    Args:
        url: `smtp://user:password@host` (with STARTTLS), `smtps://...` (with TLS from the first byte), or
            `smtp://host?tls=none` (in clear).
        **options: Options of the URL's query by their names, which win over it: host, port, user, password, sender,
            sender_name, reply_to, ca, auth, timeout, retries and others; see docs/mail.md.

    Raises:
        InvalidArgument: The URL or an option. The message never contains a password.

    >>> import coord
    >>> coord.mailer("smtp://shop:secret@mail.example.org", sender="shop@example.org")
    <coord.mail.Mailer smtp://mail.example.org:587>
    >>> coord.mailer(host="mail.example.org", tls="implicit", user="shop", password="secret")
    <coord.mail.Mailer smtps://mail.example.org:465>
    """
    return Mailer(native_mailer(None, url, options))


def native_mailer(client: coord._client.ClientBase | None, url: str, options: Mapping[str, object]) -> _native.Mailer:
    """Makes a mailer of the native module."""
    texts = _options(options)
    if client is None:
        _lifetime.start_log()
    return _native.mailer(None if client is None else client._native, url, texts)


def native_outbox(
    client: coord._client.ClientBase, name: str, mailer: MailerBase, options: Mapping[str, object]
) -> _native.Outbox:
    """Makes an outbox of the native module."""
    return _native.outbox(client._native, name, mailer._native, _options(options))


class MailerBase:
    """A mailer: what needs no waiting."""

    def __init__(self, native: _native.Mailer) -> None:
        self._native = native

    @property
    def location(self) -> str:
        """Where the server is, without user and password."""
        return self._native.location()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.location}>"

    def _call(self, message: Message) -> _native.Call:
        return self._native.send(_text_of(message))

    def _batch(self, messages: Iterable[Message]) -> _native.Batch:
        return self._native.send_many(f"[{','.join(_text_of(message) for message in messages)}]")


class Mailer(MailerBase):
    """A mail server to send through. Any thread may use it. It is a context manager that closes it."""

    def send(self, message: Message) -> Report:
        """Sends a message, with what is temporary tried again, within the mailer's `timeout`.

        Nothing is sent twice: once all of a message has left, a connection that breaks before the server has answered
        makes its outcome unknown.

        Returns:
            What the server said about each recipient, also where it refused all of them: see `Report.all_accepted`.

        Raises:
            InvalidArgument: The message; the error names the field, and nothing was sent.
            Unavailable: The server cannot be reached, or breaks off. Nothing was sent; as with the next three.
            Timeout: It took longer than the mailer's `timeout`.
            Unauthorized: The login, or the server's certificate.
            Unsupported: The server offers no encryption, no login that is wanted, or no SMTPUTF8.
            OutcomeUnknown: All of the message was sent, and the server's answer did not come.
            Closed: The mailer is closed.
        """
        return _report(self._call(message).wait())

    def send_many(self, messages: Iterable[Message]) -> Iterator[Sent]:
        """Sends messages, as many at a time as the mailer has connections; tells of each as it ends.

        Begins at once. Ending the iteration ends it: what has not begun is not sent.
        """
        return _batch(self._batch(messages))

    def health(self) -> None:
        """Connects, logs in, and asks the server whether it answers.

        Raises:
            Unavailable: It does not.
            Unauthorized: The login, or the server's certificate.
            Unsupported: It offers no encryption, or no login that is wanted.
            Closed: The mailer is closed.
        """
        self._native.health().wait()

    def close(self) -> None:
        """Refuses new messages, waits for those that are being sent, and says goodbye. Closing twice is no error."""
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def _batch(batch: _native.Batch) -> Iterator[Sent]:
    while True:
        value = batch.next().wait()
        if value is None:
            return
        yield _sent(value)


class OutboxBase:
    """An outbox: what needs no waiting."""

    def __init__(self, native: _native.Outbox, client: coord._client.ClientBase, mailer: MailerBase) -> None:
        self._native = native
        self._client = client
        self._mailer = mailer

    @property
    def name(self) -> str:
        """The outbox's full name, `namespace/scope/name`."""
        return self._native.name()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.name}>"

    def _enqueue(
        self, message: Message, key: str | None, not_before: datetime | None, expires: datetime | None
    ) -> _native.Call:
        return self._native.enqueue(
            _text_of(message), key, _millis("not_before", not_before), _millis("expires", expires)
        )

    def _list(self, state: MailState | str | None, limit: int) -> _native.Call:
        return self._native.list(None if state is None else str(state), limit)


def _mail_or_none(text: str | None) -> Mail | None:
    return None if text is None else _mail(json.loads(text))


def _counts(text: str) -> dict[MailState, int]:
    return {MailState(state): count for state, count in json.loads(text).items()}


class Outbox(OutboxBase):
    """Mails in the store, which any process sends. Any thread may use it."""

    def enqueue(
        self,
        message: Message,
        *,
        key: str | None = None,
        not_before: datetime | None = None,
        expires: datetime | None = None,
    ) -> Enqueued:
        """Puts a mail into the outbox, in one write, if there is none with its key.

        Args:
            message: The message. It is checked, its files are read, and it gets its date and Message-ID.
            key: What makes it the same mail; None: each is another.
            not_before: When it may be sent, with a time zone; None: at once.
            expires: When it is not to be sent any more, with a time zone; None: never.

        Raises:
            InvalidArgument: The message, or a time; the error names the field.
            OutcomeUnknown: The store went away; enqueue it again with the same key.
        """
        return Enqueued(*self._enqueue(message, key, not_before, expires).wait())

    def get(self, mail_id: str) -> Mail | None:
        """The mail with this id; None if there is none."""
        return _mail_or_none(self._native.get_mail(mail_id).wait())

    def list(self, state: MailState | str | None = None, limit: int = 100) -> builtins.list[Mail]:
        """Mails in this state (None: in any), oldest first, at most so many.

        Raises:
            InvalidArgument: The state, or a limit below 0.
        """
        return [_mail(json.loads(text)) for text in self._list(state, limit).wait()]

    def stats(self) -> dict[MailState, int]:
        """How many mails are in each state."""
        return _counts(self._native.stats().wait())

    def retry(self, mail_id: str) -> None:
        """Sends a mail (again) that has failed, is parked or waits for its time, at once.

        A second copy can come of it.

        Raises:
            NotFound: There is no such mail.
            Conflict: It is in another state.
        """
        self._native.retry(mail_id).wait()

    def cancel(self, mail_id: str) -> None:
        """Takes back a mail that is queued or parked. It stays, so that its key stays used, until it is purged.

        Raises:
            NotFound: There is no such mail.
            Conflict: It is in another state.
        """
        self._native.cancel(mail_id).wait()

    def purge(self, older_than: float) -> int:
        """Removes mails that came to their end so many seconds ago, and returns how many.

        After that their keys are accepted again.
        """
        count: int = self._native.purge(older_than).wait()
        return count

    def watch(self) -> OutboxWatch:
        """Every change of every mail, by whatever process; the first event is a gap."""
        return OutboxWatch(self._native.watch(), f"outbox {self.name!r}", self._client)

    def start(self, senders: int = 1) -> Senders:
        """Starts to send, up to so many mails at a time, from 1 to 32.

        Other processes may do the same: each mail is sent by one of them.

        Returns:
            The senders, a context manager that stops them. They must be kept.

        Raises:
            InvalidArgument: The number.
            Closed: The client or the mailer is closed.
        """
        return Senders(self._native.start(senders), self)


class OutboxWatch(Watch[OutboxEvent]):
    """The mails of an outbox as they come and change: an iterator of `OutboxEvent`, of which the first is a gap.

    After an error of the store it goes on, with another gap.
    """


class Senders:
    """What sends the mails of an outbox in this process, until `stop`."""

    def __init__(self, native: _native.Senders, outbox: Outbox) -> None:
        self._native = native
        self._outbox = outbox

    def stop(self) -> None:
        """Begins nothing new, and waits until what has begun is finished and recorded.

        Raises:
            Closed: The mailer or the client was closed before: then they had ended without it, and the mails wait in
                the outbox for other senders.
        """
        self._native.stop().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()
