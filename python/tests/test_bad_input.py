"""Bad input through every entry point: an exception that says what was wrong; never a crash or a hang."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import coord
from coord import aio

NO_NUMBERS = ["1", b"1", [], {}, object(), True, False, 1j]
NO_LENGTHS = [math.nan, math.inf, -math.inf, -1, -1e-9, 1e300, 10**400, -(10**400), Decimal("NaN")]
NO_TEXTS = [b"a", 1, 1.5, True, [], object()]
NO_NAMES = ["", "a" * 10_000, "a/b/c/d", "-a", "a b", "a\0b", "☺", "\ud800", "a//b"]


@pytest.fixture
def client() -> Any:
    with coord.connect("memory:") as client:
        yield client


def refuses(call: Callable[[], object], expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        call()
    assert str(caught.value)


def times(client: coord.Client, held: coord.Held) -> list[Callable[[Any], object]]:
    """Every call that takes seconds."""
    return [
        client.lock("free").acquire,
        held.ensure,
        held.lost.wait,
        client.close,
        lambda seconds: client.election("free").campaign(timeout=seconds),
        lambda seconds: client.election("boss").when_elected(print, backoff=(seconds, seconds)),
        lambda seconds: client.election("boss").observe().next(seconds),
        lambda seconds: client.observe("a", down_grace=seconds),
        lambda seconds: client.observe("a").wait_available(timeout=seconds),
        lambda seconds: client.observe("a").wait_unavailable(timeout=seconds),
        lambda seconds: client.watch_owners().next(seconds),
    ]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_no_time(client: coord.Client, value: object) -> None:
    with client.lock("a").acquire() as held:
        for call in times(client, held):
            refuses(lambda call=call: call(value), TypeError)
    assert not client.closed


@pytest.mark.parametrize("value", NO_LENGTHS, ids=lambda value: str(value)[:9])
def test_numbers_that_are_no_time(client: coord.Client, value: Any) -> None:
    with client.lock("a").acquire() as held:
        for call in times(client, held):
            refuses(lambda call=call: call(value), coord.InvalidArgument)
            refuses(lambda call=call: call(value), ValueError)
    assert not client.closed
    assert [info.name for info in client.locks()] == ["default/default/a"]


def test_none_is_no_time_to_ensure(client: coord.Client) -> None:
    with client.lock("a").acquire() as held:
        refuses(lambda: held.ensure(None), TypeError)  # type: ignore[arg-type]
        refuses(lambda: held.ensure(3600), coord.InvalidArgument)


@pytest.mark.parametrize("value", [0.5, 1, Decimal("0.5")], ids=repr)
def test_what_is_a_time(client: coord.Client, value: Any) -> None:
    client.lock("a").acquire(timeout=value).release()


@pytest.mark.parametrize("name", NO_TEXTS, ids=repr)
def test_what_is_no_text_is_no_name(client: coord.Client, name: Any) -> None:
    refuses(lambda: client.lock(name), TypeError)
    refuses(lambda: client.lock_info(name), TypeError)
    refuses(lambda: client.locks(name), TypeError)
    refuses(lambda: client.break_lock(name, 1), TypeError)
    refuses(lambda: client.election(name), TypeError)
    refuses(lambda: client.election("a").try_campaign(name), TypeError)
    refuses(lambda: client.election("a").when_elected(print, value=name), TypeError)
    refuses(lambda: client.provide(name), TypeError)
    refuses(lambda: client.provide("a", name), TypeError)
    refuses(lambda: client.provide("a", instance_id=name), TypeError)
    refuses(lambda: client.observe(name), TypeError)
    refuses(lambda: coord.sanitize(name), TypeError)
    refuses(lambda: coord.connect(name), TypeError)


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_texts_that_are_no_names(client: coord.Client, name: str) -> None:
    refuses(lambda: client.lock(name), coord.InvalidArgument)
    refuses(lambda: client.lock_info(name), coord.InvalidArgument)
    refuses(lambda: client.break_lock(name, 1), coord.InvalidArgument)
    refuses(lambda: client.election(name), coord.InvalidArgument)
    refuses(lambda: client.provide(name), coord.InvalidArgument)
    refuses(lambda: client.observe(name), coord.InvalidArgument)
    if name != "\ud800":
        assert client.lock(coord.sanitize(name)).name
    assert client.locks() == []


@pytest.mark.parametrize("token", ["1", 1.0, None, True, b"1"], ids=repr)
def test_what_is_no_token(client: coord.Client, token: Any) -> None:
    refuses(lambda: client.break_lock("a", token), TypeError)


@pytest.mark.parametrize(
    "token", [0, -1, 2**63, -(2**80), 10**5000], ids=lambda token: f"{token.bit_length()}bits{token % 1000}"
)
def test_tokens_that_were_never_issued(client: coord.Client, token: int) -> None:
    with client.lock("a").acquire() as held:
        refuses(lambda: client.break_lock("a", token), coord.CoordError)
        held.check()
    refuses(lambda: client.break_lock("a", 1, force="yes"), TypeError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": True},
        {"ttl": []},
        {"name": 5},
        {"name": b"a"},
        {"labels": [1]},
        {"labels": {1: "a"}},
        {"labels": {"a": 1}},
        {"namespace": 1},
        {"scope": b"a"},
        {"max_queue": None},
        {"close_timeout": object()},
    ],
    ids=repr,
)
def test_options_of_the_wrong_type(options: dict[str, Any]) -> None:
    refuses(lambda: coord.connect("memory:", **options), TypeError)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": math.nan},
        {"ttl": 0.5},
        {"ttl": -1},
        {"ttl": 1e300},
        {"ttl": "soon"},
        {"ttl": 10**5000},
        {"name": "a" * 1000},
        {"name": "\ud800"},
        {"labels": {"": "a"}},
        {"labels": {"a": "b" * 1000}},
        {"labels": {str(number): "a" for number in range(33)}},
        {"namespace": "a/b"},
        {"scope": ""},
        {"max_queue": 0},
        {"max_queue": 1.5},
        {"close_timeout": math.inf},
        {"durability": "maybe"},
        {"colour": "red"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    refuses(lambda: coord.connect("memory:", **options), coord.InvalidArgument)


@pytest.mark.parametrize("text", ["", "redis://h", "sqlite:t.db", "sqlite:///", "memory:a b", "\ud800", "memory:?x=1"])
def test_urls_that_are_none(text: str) -> None:
    refuses(lambda: coord.connect(text), coord.InvalidArgument)


def test_a_password_is_never_told() -> None:
    with pytest.raises(coord.InvalidArgument) as caught:
        coord.connect("mongo://user:s3cret@h/db")
    assert "s3cret" not in str(caught.value)


def test_a_store_that_cannot_be_opened_is_told() -> None:
    with pytest.raises(coord.CoordError) as caught:
        coord.connect("sqlite:////proc/nowhere/t.db")
    assert "nowhere" in str(caught.value)


@pytest.mark.parametrize("priority", [1.0, "1", None, True, b"1"], ids=repr)
def test_what_is_no_priority(client: coord.Client, priority: Any) -> None:
    election = client.election("a")
    refuses(lambda: election.campaign(priority=priority), TypeError)
    refuses(lambda: election.when_elected(print, priority=priority), TypeError)


@pytest.mark.parametrize("priority", [2048, -2049, 2**40, -(10**400)], ids=lambda number: f"{number.bit_length()}bits")
def test_priorities_out_of_range(client: coord.Client, priority: int) -> None:
    election = client.election("a")
    refuses(lambda: election.campaign(priority=priority), coord.InvalidArgument)
    refuses(lambda: election.when_elected(print, priority=priority), coord.InvalidArgument)
    assert election.leader() is None


def test_what_an_election_cannot_do(client: coord.Client) -> None:
    election = client.election("a")
    refuses(lambda: election.campaign("v" * 65_537), coord.InvalidArgument)
    refuses(lambda: election.when_elected(print, backoff=(2, 1)), coord.InvalidArgument)
    for pauses in (1, (1,), (1, 2, 3), object()):
        refuses(lambda pauses=pauses: election.when_elected(print, backoff=pauses), TypeError)
    refuses(lambda: election.when_elected(print, keep_on_error=1), TypeError)  # type: ignore[call-overload]
    for f in (5, "f", object()):
        refuses(lambda f=f: election.when_elected(f), TypeError)
        refuses(lambda f=f: election.when_elected()(f), TypeError)
        refuses(lambda f=f: election.run(f), TypeError)
    with election.campaign() as term:
        for seconds in (*NO_NUMBERS, None):
            refuses(lambda seconds=seconds: term.ensure(seconds), TypeError)
        for seconds in (*NO_LENGTHS, 3600):
            refuses(lambda seconds=seconds: term.ensure(seconds), coord.InvalidArgument)
        for candidate in (1, None, b"", object()):
            refuses(lambda candidate=candidate: term.transfer_to(candidate), TypeError)
        refuses(lambda: term.transfer_to(client.session.id), coord.InvalidArgument)
        refuses(lambda: term.proclaim("v" * 65_537), coord.InvalidArgument)
        refuses(lambda: term.proclaim(5), TypeError)  # type: ignore[arg-type]
        term.check()


def test_what_nobody_can_provide(client: coord.Client) -> None:
    refuses(lambda: client.provide("a", "m" * 4097), coord.InvalidArgument)
    refuses(lambda: client.provide("a", instance_id="i" * 254), coord.InvalidArgument)
    refuses(lambda: client.provide("a", reregister="no"), TypeError)  # type: ignore[arg-type]
    with client.provide("a") as provider:
        refuses(lambda: provider.update("m" * 4097), coord.InvalidArgument)
        refuses(lambda: provider.update(b"m"), TypeError)  # type: ignore[arg-type]
    with client.observe("*") as watch:
        assert watch.services() == []


def test_functions_that_are_none(client: coord.Client) -> None:
    refuses(lambda: client.lock("a").run(None), TypeError)  # type: ignore[arg-type]
    refuses(lambda: client.lock("a").run(lambda: None), TypeError)  # type: ignore[arg-type,misc]
    client.lock("a").acquire(timeout=5).release()


async def test_asyncio_refuses_the_same() -> None:
    async with await aio.connect("memory:") as client:
        async with await client.lock("a").acquire() as held:
            for call in (client.lock("b").acquire, held.ensure, held.lost.wait, client.close):
                for number in NO_NUMBERS:
                    with pytest.raises(TypeError):
                        await call(number)  # type: ignore[operator]
                for number in NO_LENGTHS:
                    with pytest.raises(coord.InvalidArgument):
                        await call(number)  # type: ignore[operator]
        for name in NO_NAMES:
            refuses(lambda name=name: client.lock(name), coord.InvalidArgument)
            with pytest.raises(coord.InvalidArgument):
                await client.lock_info(name)
        for text in NO_TEXTS:
            refuses(lambda text=text: client.lock(text), TypeError)
            with pytest.raises(TypeError):
                await client.locks(text)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await aio.connect(text)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await client.break_lock("a", "1")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await client.lock("a").run(lambda held: None)  # type: ignore[arg-type,return-value]
        await (await client.lock("a").acquire(timeout=5)).release()
    with pytest.raises(coord.InvalidArgument):
        await aio.connect("memory:", ttl=math.nan)


def test_without_a_loop_asyncio_s_calls_say_so(client: coord.Client) -> None:
    call = aio.connect("memory:")
    with pytest.raises(RuntimeError):
        call.send(None)


def test_what_belongs_to_the_process_is_not_pickled(client: coord.Client) -> None:
    with client.lock("a").acquire() as held:
        election = client.election("a")
        with election.campaign() as term, client.provide("a") as provider, client.observe("a") as watch:
            for thing in (election, term, term.lost, election.observe(), provider, provider.events, watch):
                with pytest.raises(TypeError, match="cannot be pickled"):
                    pickle.dumps(thing)
        for thing in (client, client.lock("a"), held, held.lost):
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(thing)


def test_native_calls_are_begun_once() -> None:
    call = coord._native.connect("memory:", [])
    coord.Client(call.wait()).close()
    refuses(call.wait, coord.InvalidArgument)
    queue = coord._native.Queue()
    refuses(lambda: queue.start(1, call), coord.InvalidArgument)
    for tag in (-1, 2**64, "a"):
        refuses(lambda tag=tag: queue.start(tag, call), (OverflowError, TypeError))  # type: ignore[arg-type]
    queue.close()
    assert queue.take(0.01) == []
