"""Commands about owners, providers and observers."""

from __future__ import annotations

from typing import Any

import coord
import coord.aio
from background import BOUND, settle
from words import Words, reason_name, timeout_of


class Services:
    """What an agent can do with services. The clients and what was begun are the agent's."""

    _clients: dict[str, Any]
    _things: dict[str, Any]

    async def do_owners(self, words: Words) -> dict[str, Any]:
        owners = await settle(self._clients[words["client"]].owners())
        return {"owners": ",".join(sorted(owner.name for owner in owners)), "count": len(owners)}

    async def do_owner(self, words: Words) -> dict[str, Any]:
        client = self._clients[words["client"]]
        found = [owner for owner in await settle(client.owners()) if owner.session == words["session"]]
        if not found:
            return {"exists": False}
        [owner] = found
        return {
            "exists": True,
            "session": owner.session,
            "name": owner.name,
            "pid": owner.pid,
            "state": owner.state.name.lower(),
            "is_self": owner.session == client.session.id,
            **{f"label.{name}": value for name, value in owner.labels.items()},
            "holds": ",".join(sorted(owner.holds)),
            "provides": ",".join(sorted(owner.provides)),
        }

    async def do_watch_owners(self, words: Words) -> None:
        self._things[words["as"]] = await settle(self._clients[words["client"]].watch_owners())

    async def do_provide(self, words: Words) -> dict[str, Any]:
        client = self._clients[words["client"]]
        provider = await settle(
            client.provide(
                words["service"],
                words.get("metadata", ""),
                instance_id=words.get("instance"),
                reregister=words.get("reregister") != "false",
            )
        )
        self._things[words["as"]] = provider
        return provider_values(provider)

    async def do_provider(self, words: Words) -> dict[str, Any]:
        provider = self._things[words["hold"]]
        return {**provider_values(provider), "registered": provider.is_registered()}

    async def do_update(self, words: Words) -> None:
        await settle(self._things[words["hold"]].update(words["metadata"]))

    async def do_watch(self, words: Words) -> None:
        grace = float(words.get("down_grace_ms", "0")) / 1000
        observer = await settle(self._clients[words["client"]].observe(words["service"], down_grace=grace))
        self._things[words["as"]] = observer

    async def do_available(self, words: Words) -> dict[str, Any]:
        return {"available": self._things[words["hold"]].is_available(words["service"])}

    async def do_services(self, words: Words) -> dict[str, Any]:
        return {"services": ",".join(sorted(self._things[words["hold"]].services()))}

    async def do_providers(self, words: Words) -> dict[str, Any]:
        providers = self._things[words["hold"]].providers(words["service"])
        providers = sorted(providers, key=lambda provider: provider.instance_id)
        return {
            "count": len(providers),
            "instances": ",".join(provider.instance_id for provider in providers),
            "metadata": ",".join(provider.metadata for provider in providers),
            "owners": ",".join(provider.name for provider in providers),
        }

    async def do_await_available(self, words: Words) -> None:
        timeout = timeout_of(words, BOUND)
        await settle(self._things[words["hold"]].wait_available(words["service"], timeout))

    async def do_await_unavailable(self, words: Words) -> None:
        timeout = timeout_of(words, BOUND)
        await settle(self._things[words["hold"]].wait_unavailable(words["service"], timeout))

    async def do_synced(self, words: Words) -> dict[str, Any]:
        thing = self._things[words["hold"]]
        values: dict[str, Any] = {"synced": thing.synced()}
        if isinstance(thing, coord.CachedTable | coord.aio.CachedTable):
            values |= {"position": thing.position, "bytes": thing.bytes}
        return values


def provider_values(provider: Any) -> dict[str, Any]:
    """What is said of a provider of one's own."""
    return {"service": provider.service, "instance": provider.instance_id, "metadata": provider.metadata}


def event_values(event: Any) -> dict[str, Any]:
    """What is said of an event about an owner, a provider of one's own, or a service."""
    values: dict[str, Any] = {"event": event.kind}
    owner, provider = getattr(event, "owner", None), getattr(event, "provider", None)
    if getattr(event, "reason", None) is not None:
        values["reason"] = reason_name(event.reason)
    if getattr(event, "service", ""):
        values["service"] = event.service
    if owner is not None:
        values |= {"name": owner.name, "session": owner.session}
    if provider is not None:
        values |= {"instance": provider.instance_id, "metadata": provider.metadata}
        values |= {"owner": provider.name, "session": provider.session}
    return values
