"""What can go wrong, as exceptions.

Every exception of this package is a `CoordError`, and also of the built-in class that fits: `except TimeoutError`
catches a `Timeout`. What an exception is can be told by its class, by `code` (a number that C and Go know, too) or by
`name`; the message is for people and may change. All can be pickled.
"""

from __future__ import annotations

import enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from coord._types import Holder


class LossReason(enum.IntEnum):
    """Why a hold, or the session that carried it, is lost."""

    EXPIRED = 1
    """The session could not be renewed in time. Others may take over from now on."""
    KILLED = 2
    """Another process declared the session dead, or a copy of this process renewed in its place."""
    BROKEN = 3
    """An operator broke the lock."""
    STORE_REPLACED = 4
    """The store was replaced or lost what it had acknowledged."""
    FORKED = 5
    """The process was forked, and this is the child."""
    CLOSED = 6
    """The client was closed while the hold was still in use."""
    RESIGNED = 7
    """The leader resigned, or handed its term over, by its own wish."""


class CoordError(Exception):
    """A failure of coord; the base of all others.

    Attributes:
        code: The number of the kind of failure, the same in all languages.
        name: The name of the kind of failure.
        retryable: Whether trying again can help. It does not say that nothing was done: after `Unavailable` and
            `OutcomeUnknown`, and after the `Timeout` of a write, it may have been. After `Lost` acquire anew, after
            `Conflict` read anew. A mail whose outcome is unknown may be sent twice.
    """

    code: int = 901
    name: str = "Unknown"
    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class InvalidArgument(CoordError, ValueError):
    """An argument is malformed or out of its documented range."""

    code = 100
    name = "InvalidArgument"


class Reentrant(CoordError, RuntimeError):
    """The call would wait for itself."""

    code = 103
    name = "Reentrant"


class Lost(CoordError):
    """The hold, or the session that carried it, is lost.

    Attributes:
        reason: Why.
    """

    code = 301
    name = "Lost"
    retryable = True
    reason: LossReason | None = None


class Forked(CoordError, RuntimeError):
    """The process was forked from one that had a client. Fork before the first client of the process is created."""

    code = 104
    name = "Forked"
    reason: LossReason | None = LossReason.FORKED


class Closed(CoordError, RuntimeError):
    """The client was closed."""

    code = 105
    name = "Closed"


class Unsupported(CoordError, NotImplementedError):
    """The store, or this build, cannot do this."""

    code = 106
    name = "Unsupported"


class Timeout(CoordError, TimeoutError):
    """The time that the caller gave has passed.

    Attributes:
        holder: Who holds it, where that is known.
    """

    code = 200
    name = "Timeout"
    retryable = True
    holder: Holder | None = None


class Cancelled(CoordError):
    """The operation was cancelled."""

    code = 201
    name = "Cancelled"


class Contended(CoordError):
    """Somebody else holds it.

    Attributes:
        holder: Who.
    """

    code = 202
    name = "Contended"
    retryable = True
    holder: Holder | None = None


class QueueFull(CoordError):
    """As many wait as may."""

    code = 203
    name = "QueueFull"
    retryable = True


class NotFound(CoordError, LookupError):
    """There is no such thing."""

    code = 204
    name = "NotFound"


class AlreadyExists(CoordError):
    """There is such a thing already."""

    code = 205
    name = "AlreadyExists"


class NotHeld(CoordError, RuntimeError):
    """The caller does not hold what the operation needs: it was released before."""

    code = 300
    name = "NotHeld"


class Fenced(CoordError):
    """A later holder has written already: the caller's fencing token is too old."""

    code = 302
    name = "Fenced"


class Conflict(CoordError):
    """What the write was conditional on has changed in the meantime."""

    code = 303
    name = "Conflict"
    retryable = True


class Compacted(CoordError):
    """The store no longer has the history that was asked for."""

    code = 304
    name = "Compacted"
    retryable = True


class Unavailable(CoordError, ConnectionError):
    """The store cannot be reached, or does not answer in time."""

    code = 400
    name = "Unavailable"
    retryable = True


class OutcomeUnknown(CoordError, ConnectionError):
    """The request may or may not have been applied, and could not be read back in time."""

    code = 401
    name = "OutcomeUnknown"
    retryable = True


class Unauthorized(CoordError, PermissionError):
    """The store does not accept the credentials."""

    code = 402
    name = "Unauthorized"


class Forbidden(CoordError, PermissionError):
    """The credentials are good, but lack a right."""

    code = 403
    name = "Forbidden"


class CorruptState(CoordError):
    """The store holds something that this library cannot have written."""

    code = 404
    name = "CorruptState"


class Panic(CoordError):
    """A defect of this library, caught at its boundary. Please report it."""

    code = 900
    name = "Panic"


class _ByCode:
    """The class of each code; the codes that only C can meet have none of their own."""

    classes: ClassVar[dict[int, type[CoordError]]] = {
        cls.code: cls
        for cls in (
            *(InvalidArgument, Reentrant, Forked, Closed, Unsupported),
            *(Timeout, Cancelled, Contended, QueueFull, NotFound, AlreadyExists),
            *(NotHeld, Lost, Fenced, Conflict, Compacted),
            *(Unavailable, OutcomeUnknown, Unauthorized, Forbidden, CorruptState),
            *(Panic, CoordError),
        )
    }


def _from_core(code: int, message: str, holder: Holder | None, reason: int | None, cause: str | None) -> CoordError:
    """The exception for an error of the core."""
    error = _ByCode.classes.get(code, CoordError)(message)
    if type(error).code != code:
        error.code = code
    if isinstance(error, (Timeout, Contended)):
        error.holder = holder
    if isinstance(error, (Lost, Forked)) and reason is not None:
        error.reason = LossReason(reason)
    if cause:
        _note(error, f"cause: {cause}")
    return error


def _note(error: BaseException, text: str) -> None:
    """Adds a line to what a traceback shows, where Python can (since 3.11)."""
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(text)
