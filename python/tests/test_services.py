"""Owners, providers and observers, on every store."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest
from support import PATIENCE, eventually, script

import coord
from coord import ObserverEventKind as Kind
from coord import OwnerEventKind, ProviderEventKind


def full(client: coord.Client, name: str) -> str:
    """A service's full name."""
    return client.lock(name).name


def next_of(watch: coord.Observer, kind: Kind) -> coord.ObserverEvent:
    """The next event of a kind."""
    while True:
        event = watch.next(PATIENCE)
        if event.kind is kind:
            return event


def test_a_provider_comes_and_goes(client: coord.Client, other: coord.Client) -> None:
    with other.observe("web") as web:
        assert web.pattern == full(client, "web")
        assert not web.is_available()
        assert web.services() == []
        with client.provide("web", "10.0.0.1:80", instance_id="a") as provider:
            assert (provider.service, provider.instance_id) == (full(client, "web"), "a")
            assert (provider.metadata, provider.closed) == ("10.0.0.1:80", False)
            assert provider.is_registered()
            web.wait_available(timeout=PATIENCE)
            assert web.is_available("web")
            assert web.services() == [provider.service]
            [info] = web.providers()
            assert (info.service, info.instance_id, info.metadata) == (provider.service, "a", "10.0.0.1:80")
            assert (info.session, info.name) == (client.session.id, "one")
            assert "10.0.0.1:80" in web.providers("web")._repr_html_()
            assert full(client, "web") in web._repr_html_()
            with pytest.raises(coord.AlreadyExists):
                client.provide("web", instance_id="a")
            provider.update("10.0.0.2:80")
            eventually(lambda: [one.metadata for one in web.providers()] == ["10.0.0.2:80"], "the update is seen")
            with pytest.raises(coord.Timeout):
                web.wait_unavailable(timeout=0.01)
        assert provider.closed
        assert not provider.is_registered()
        provider.close()
        web.wait_unavailable("web", PATIENCE)
        with pytest.raises(coord.Timeout):
            web.wait_available(timeout=0.01)
        with pytest.raises(coord.Closed):
            provider.update("late")
    for call in (web.services, web.providers, web.is_available, web.wait_available, web.next):
        with pytest.raises(coord.Closed):
            call()
    assert "closed" in repr(web)
    assert "closed" in repr(provider)


def test_an_observer_is_told_of_edges_and_changes(client: coord.Client, other: coord.Client) -> None:
    first = client.provide("a", "1", instance_id="x")
    with other.observe("*") as watch:
        told = [watch.next(PATIENCE) for _ in range(4)]
        assert [event.kind for event in told] == [Kind.SNAPSHOT_START, Kind.FIRST_UP, Kind.JOINED, Kind.SNAPSHOT_END]
        assert told[0].service == ""
        assert told[1].service == first.service
        assert told[2].provider is not None
        assert told[2].provider.metadata == "1"
        second = client.provide("a", instance_id="y")
        event = watch.next(PATIENCE)
        assert (event.kind, event.provider and event.provider.instance_id) == (Kind.JOINED, "y")
        first.update("2")
        event = watch.next(PATIENCE)
        assert (event.kind, event.provider and event.provider.metadata) == (Kind.CHANGED, "2")
        first.close()
        assert watch.next(PATIENCE).kind is Kind.LEFT
        second.close()
        assert [watch.next(PATIENCE).kind for _ in range(2)] == [Kind.LEFT, Kind.LAST_DOWN]
        assert watch.synced()
        with client.provide("b"):
            assert [watch.next(PATIENCE).kind for _ in range(2)] == [Kind.FIRST_UP, Kind.JOINED]


def test_a_grace_hides_a_short_absence(client: coord.Client, other: coord.Client) -> None:
    with other.observe("a", down_grace=3600) as watch:
        client.provide("a").close()
        assert next_of(watch, Kind.LEFT).service == full(client, "a")
        with client.provide("a"):
            assert watch.next(PATIENCE).kind is Kind.JOINED


def test_owners_are_listed_with_what_they_have(client: coord.Client, other: coord.Client) -> None:
    with client.lock("a").acquire() as held, client.election("boss").campaign(), client.provide("web") as provider:
        owners = other.owners()
        assert {owner.name for owner in owners} >= {"one", "two"}
        [one] = [owner for owner in owners if owner.session == client.session.id]
        assert (one.pid, one.host) == (client.session.pid, client.session.host)
        name = held.name.rsplit("/", 1)[0]
        assert one.holds == (f"election/{name}/boss", f"lock/{name}/a")
        assert one.provides == (provider.service,)
        assert "one on " in owners._repr_html_()


def test_owners_come_and_go(url: str, client: coord.Client) -> None:
    with client.watch_owners() as watch:
        assert watch.next(PATIENCE).kind is OwnerEventKind.SNAPSHOT_START
        while (event := watch.next(PATIENCE)).kind is not OwnerEventKind.SNAPSHOT_END:
            assert event.kind is OwnerEventKind.JOINED
            assert event.owner is not None
        third = coord.connect(url, name="three")
        session = third.session.id

        def next_about_third() -> coord.OwnerEvent:
            while True:
                event = watch.next(PATIENCE)
                if event.owner is not None and event.owner.session == session:
                    return event

        assert next_about_third().kind is OwnerEventKind.JOINED
        third.close()
        assert next_about_third().kind is OwnerEventKind.LEFT
    assert list(watch) == []


def test_a_lost_session_s_provider_is_registered_again() -> None:
    with coord.connect("memory:t-again") as client, coord.connect("memory:t-again") as other:
        provider = client.provide("web")
        once = client.provide("mail", reregister=False)
        assert provider.events.next(PATIENCE).kind is ProviderEventKind.REGISTERED
        with other.observe("web") as web:
            before = client.session.id
            coord.testing.Control(other).expire_session(before)
            event = provider.events.next(PATIENCE)
            assert event.kind is ProviderEventKind.LOST
            assert event.reason in (coord.LossReason.EXPIRED, coord.LossReason.KILLED)
            assert provider.events.next(PATIENCE).kind is ProviderEventKind.REREGISTERED
            eventually(lambda: [one.session for one in web.providers()] == [client.session.id], "it is seen again")
        kinds = [event.kind for event in once.events]
        assert kinds == [ProviderEventKind.REGISTERED, ProviderEventKind.LOST, ProviderEventKind.CLOSED]
        provider.close()
        assert [event.kind for event in provider.events] == [ProviderEventKind.CLOSED]
        once.close()


def test_waits_end_with_observer_and_client(client: coord.Client, other: coord.Client) -> None:
    errors: list[BaseException] = []

    def wait(call: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            started.release()
            try:
                call()
            except coord.CoordError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    started = threading.Semaphore(0)
    observer, second = other.observe("a"), other.observe("b")
    threads = [wait(observer.wait_available), wait(second.wait_available), wait(lambda: list(second))]
    for _ in threads:
        started.acquire()
    observer.close()
    threads[0].join(PATIENCE)
    other.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [coord.Closed] * 2


def test_what_is_not_observed_is_refused(client: coord.Client) -> None:
    with client.observe("a") as watch:
        for name in ("b", "a b", "\ud800"):
            with pytest.raises(coord.InvalidArgument):
                watch.is_available(name)
    with client.observe("*") as watch, pytest.raises(coord.InvalidArgument):
        watch.providers()


def test_a_forgotten_provider_warns_and_is_withdrawn(client: coord.Client, other: coord.Client) -> None:
    provider = client.provide("web")
    with other.observe("web") as web:
        web.wait_available(timeout=PATIENCE)
        with pytest.warns(ResourceWarning, match="default/web.* was never closed"):
            del provider
            gc.collect()
        web.wait_unavailable(timeout=PATIENCE)


def test_providers_end_with_their_client(client: coord.Client, other: coord.Client) -> None:
    with other.observe("web") as web:
        provider = client.provide("web")
        web.wait_available(timeout=PATIENCE)
        client.close()
        web.wait_unavailable(timeout=PATIENCE)
        assert list(provider.events)[-1].kind is ProviderEventKind.CLOSED
        assert not provider.is_registered()


@pytest.mark.parametrize(
    "end", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "provider.close()"], ids=["exit", "kill", "close"]
)
def test_another_process_s_provider_ends_with_it(shared_url: str, end: str) -> None:
    text = f"""
    client = coord.connect(URL, name="script", ttl=2)
    provider = client.provide("web", "here")
    say("provides")
    hear()
    {end}
    hear()
    """
    # A client looks after others when it has been there for about a ttl.
    with coord.connect(shared_url, ttl=2) as client, client.observe("web") as web:
        with script(text, shared_url, options=("-W", "ignore")) as process:
            assert process.hear() == "provides"
            web.wait_available(timeout=PATIENCE)
            assert [(one.name, one.metadata) for one in web.providers()] == [("script", "here")]
            process.say()
            web.wait_unavailable(timeout=PATIENCE)
