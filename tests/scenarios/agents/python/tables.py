"""Commands about tables. Documents cross as Extended JSON, which pymongo reads and writes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import coord
import coord.aio
from background import BOUND, settle
from bson import json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from words import CannotError, Words

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


class Tables:
    """What an agent can do with tables. The clients, holds and what was begun are the agent's."""

    _clients: dict[str, Any]
    _holds: dict[str, Any]
    _things: dict[str, Any]
    _kept: dict[str, Any]

    def _table(self, words: Words) -> Any:
        return self._clients[words["client"]].table(words["table"])

    async def do_table(self, words: Words) -> dict[str, Any] | None:
        table = self._table(words)
        match words["op"]:
            case "aggregate":
                return documents(await every(await settle(table.aggregate(value(words, "document")))))
            case "ensure_indexes":
                indexes = [coord.Index(**description) for description in value(words, "document")]
                await settle(table.ensure_indexes(*indexes))
                return None
            case "drop":
                await settle(table.drop())
                return None
        return await self._operate(table, words)

    async def do_cached(self, words: Words) -> dict[str, Any] | None:
        copy = self._things[words["hold"]]
        match words["op"]:
            case "get_fresh":
                return stored_values(await settle(copy.get(value(words, "key"), fresh=True)))
            case "wait_until":
                await settle(copy.wait_until(int(words["position"]), BOUND))
                return None
        return await self._operate(copy, words)

    async def _operate(self, table: Any, words: Words) -> dict[str, Any]:
        """An operation that a table and a copy of it have."""
        rights = {"fence": self._fence(words), "strict": words.get("strict") == "true"}
        operation = words["op"]
        match operation:
            case "insert" | "put" | "locate" | "update" | "upsert":
                call = getattr(table, operation)(value(words, "key"), value(words, "document"), **rights)
                return written_values(await settle(call))
            case "replace":
                call = table.replace(value(words, "key"), value(words, "document"), *revision(words), **rights)
                return written_values(await settle(call))
            case "delete":
                return written_values(await settle(table.delete(value(words, "key"), *revision(words), **rights)))
            case "update_many":
                call = table.update_many(value(words, "filter", {}), value(words, "document"), **rights)
                return many_values(await settle(call))
            case "delete_many":
                return many_values(await settle(table.delete_many(value(words, "filter", {}), **rights)))
            case "get":
                return stored_values(await settle(table.get(value(words, "key"))))
            case "contains":
                return {"contains": await settle(table.contains(value(words, "key")))}
            case "find":
                limits = {name: int(words[name]) for name in ("skip", "limit") if name in words}
                how = {name: value(words, name) for name in ("sort", "projection")}
                found = await settle(table.find(value(words, "filter"), **how, **limits))
                return documents([stored.document for stored in found])
            case "count":
                return {"count": await settle(table.count(value(words, "filter")))}
        raise CannotError(f"there is no operation '{operation}'")

    def _fence(self, words: Words) -> Any:
        return self._holds[words["fence"]] if "fence" in words else None

    async def do_watch_table(self, words: Words) -> None:
        position = int(words["from"]) if "from" in words else None
        table, previous = self._table(words), words.get("previous") == "true"
        self._things[words["as"]] = table.watch(value(words, "filter"), from_position=position, previous=previous)

    async def do_done(self, words: Words) -> None:
        delivery = self._kept.pop(words["hold"])
        if "failure" in words:
            delivery.failed(words["failure"])
        else:
            delivery.done()

    async def do_log(self, words: Words) -> None:
        after = int(words["after"]) if "after" in words else None
        since = EPOCH + timedelta(milliseconds=int(words["since_ms"])) if "since_ms" in words else None
        self._things[words["as"]] = await settle(self._table(words).log(from_position=after, from_time=since))

    async def do_cache(self, words: Words) -> None:
        copy = self._clients[words["client"]].table(
            words["table"],
            cached=True,
            filter=value(words, "filter"),
            max_bytes=int(words["max_bytes"]) if "max_bytes" in words else None,
            read_your_writes=words.get("read_your_writes") != "false",
        )
        self._things[words["as"]] = await settle(copy)

    def _delivered(self, delivery: Any, words: Words) -> dict[str, Any]:
        """What `next` says of a delivery; acknowledged, unless it is kept."""
        if words.get("keep") == "true":
            self._kept[words["hold"]] = delivery
        else:
            delivery.done()
        values = {"event": delivery.kind, "position": delivery.position, "failures": delivery.failures}
        parts = {"key": delivery.key, "document": delivery.document, "previous": delivery.previous}
        values |= {name: text(part) for name, part in parts.items() if part is not None}
        return values if delivery.revision is None else {**values, "revision": delivery.revision}


def value(words: Words, name: str, otherwise: Any = None) -> Any:
    """What an argument in Extended JSON stands for."""
    return json_util.loads(words[name], json_options=JSON) if name in words else otherwise


def text(value: Any) -> str:
    """The other way round."""
    return json_util.dumps(value, json_options=JSON)


def revision(words: Words) -> list[int]:
    """The revision, if there is one."""
    return [int(words["revision"])] if "revision" in words else []


async def every(cursor: Any) -> list[Any]:
    """All that a cursor brings."""
    return [one async for one in cursor] if isinstance(cursor, coord.aio.Cursor) else list(cursor)


def documents(found: list[Any]) -> dict[str, Any]:
    """What is said of documents that were found."""
    return {"count": len(found), "documents": text(found)}


def written_values(written: coord.Written[Any]) -> dict[str, Any]:
    """What is said of a write."""
    values = {"document": text(written.document), "position": written.position, "created": written.created}
    return values if written.revision is None else {**values, "revision": written.revision}


def many_values(written: coord.ManyWritten) -> dict[str, Any]:
    """What is said of a write to many documents."""
    return {"count": written.count, "position": written.position}


def stored_values(stored: coord.Stored[Any]) -> dict[str, Any]:
    """What is said of a document that was read."""
    values = {"key": text(stored.key), "document": text(stored.document)}
    return values if stored.revision is None else {**values, "revision": stored.revision}


def entry_values(entry: coord.LogEntry) -> dict[str, Any]:
    """What is said of an entry of a log."""
    values = {
        "operation": entry.operation,
        "at_ms": (entry.at - EPOCH) // timedelta(milliseconds=1),
        "key": text(entry.key),
        "changed": ",".join(entry.changed_fields),
        "position": entry.position,
        "source": entry.source,
        "revision": entry.revision,
    }
    return {name: value for name, value in values.items() if value is not None}
