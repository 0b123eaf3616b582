"""Lines and their words: what is asked, and what is said of everything that the library answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import coord
import coord.aio

Words = dict[str, str]


class CannotError(Exception):
    """The command makes no sense here, or an event has not come."""


def timeout_of(words: Words, otherwise: float | None = None) -> float | None:
    """The timeout in seconds, if there is one."""
    return float(words["timeout_ms"]) / 1000 if "timeout_ms" in words else otherwise


# --- answers -----------------------------------------------------------------------------------------------------


def line(head: str, values: dict[str, Any]) -> str:
    """An answer."""
    words = [head]
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words.append(f"{name}={quote(text, safe='._-/:@,+')}")
    return " ".join(words)


def reason_name(reason: coord.LossReason) -> str:
    """The name that all languages share."""
    return "".join(part.capitalize() for part in reason.name.split("_"))


def holder_values(holder: coord.Holder) -> dict[str, Any]:
    """What is said of a holder."""
    return {
        "holder.name": holder.name,
        "holder.session": holder.session,
        "holder.pid": holder.pid,
        "holder.token": holder.token,
        "holder.state": holder.state.name.lower(),
        "holder.is_self": holder.is_self,
    }


def error_line(error: coord.CoordError) -> str:
    """An error of the library."""
    values: dict[str, Any] = {"message": str(error), "retryable": error.retryable}
    if isinstance(error, coord.Lost) and error.reason is not None:
        values["reason"] = reason_name(error.reason)
    if isinstance(error, coord.Contended | coord.Timeout) and error.holder is not None:
        values |= holder_values(error.holder)
    return line(f"error {error.name}", values)


def granted(held: Any) -> dict[str, Any]:
    """What is said of a grant, of a lock or of a term."""
    if isinstance(held, coord.Term | coord.aio.Term):
        return {"election": held.name, "token": held.token, "value": held.value}
    return {"lock": held.name, "token": held.token}
