"""Ctrl-C in a blocking call: KeyboardInterrupt at once, and nothing is left behind."""

from __future__ import annotations

import re
import signal

import pytest
from support import PATIENCE, eventually, script, waiters

import coord

WAITING = """
client = coord.connect(URL, name="script")
say("ready")
try:
    {call}
except KeyboardInterrupt:
    say("interrupted", time.time())
else:
    say("not interrupted")
say(client.stats().held)
hear()
client.close()
"""


def test_ctrl_c_ends_an_acquire_and_leaves_no_waiter(shared_url: str) -> None:
    with coord.connect(shared_url) as client, client.lock("a").acquire():
        with script(WAITING.format(call='client.lock("a").acquire()'), shared_url) as process:
            assert process.hear() == "ready"
            eventually(lambda: waiters(client, "a") == 1, "the script waits")
            process.process.send_signal(signal.SIGINT)
            assert re.fullmatch(r"interrupted \d+\.\d+", process.hear())
            # Before the client is closed, so it was the interrupt that took the waiter out of the line.
            eventually(lambda: waiters(client, "a") == 0, "nobody waits")
            assert process.hear() == "0"
            process.say()
            process.end()


@pytest.mark.parametrize(
    "call",
    [
        '(held := client.lock("free").acquire()).lost.wait()',
        "next(client.session_changes())",
        'client.lock("a").run(lambda held: held.lost.wait())',
        'client.election("a").run(lambda term: term.lost.wait())',
        'list(client.election("a").observe())',
        'client.observe("a").wait_available()',
        "list(client.watch_owners())",
        "(r := client.reconcile('r', coord.Source.manual(), lambda w: w.cancelled.wait() and None)).add('k') and r.drain()",
        "(r := client.reconcile('r', coord.Source.manual(), print)).pause() or r.add('k') and r.wait_until_reconciled('k')",
    ],
)
def test_ctrl_c_ends_every_wait(shared_url: str, call: str) -> None:
    call = f"client.on_session_change(print); say('waiting'); {call}"
    with script(WAITING.format(call=call), shared_url, options=("-W", "ignore")) as process:
        assert process.hear() == "ready"
        assert process.hear() == "waiting"
        process.process.send_signal(signal.SIGINT)
        assert process.hear().startswith("interrupted")
        process.hear()
        process.say()
        process.end()


def test_ctrl_c_ends_a_campaign_and_leaves_no_candidate(shared_url: str) -> None:
    with coord.connect(shared_url) as client, client.election("a").campaign():
        for call in ('client.election("a").campaign()', 'client.election("a").run(print)'):
            with script(WAITING.format(call=call), shared_url) as process:
                assert process.hear() == "ready"
                eventually(lambda: len(client.election("a").candidates()) == 1, "the script waits")
                process.process.send_signal(signal.SIGINT)
                assert process.hear().startswith("interrupted")
                eventually(lambda: client.election("a").candidates() == [], "nobody waits")
                assert process.hear() == "0"
                process.say()
                process.end()


def test_ctrl_c_while_others_hold_up_the_interpreter(shared_url: str) -> None:
    call = """
    for _ in range(2):
        threading.Thread(target=lambda: [client.lock("b").acquire().release() for _ in range(10**9)], daemon=True).start()
    client.lock("a").acquire()"""
    with coord.connect(shared_url) as client, client.lock("a").acquire():
        with script(WAITING.format(call=call), shared_url, options=("-W", "ignore")) as process:
            assert process.hear() == "ready"
            eventually(lambda: waiters(client, "a") == 1, "the script waits")
            process.process.send_signal(signal.SIGINT)
            assert process.hear().startswith("interrupted")
            eventually(lambda: waiters(client, "a") == 0, "nobody waits")


def test_a_signal_handler_may_use_the_client(shared_url: str) -> None:
    text = """
    client = coord.connect(URL)
    def on_alarm(*_):
        held.release()
        say("released")
    signal.signal(signal.SIGALRM, on_alarm)
    held = client.lock("a").acquire()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with client.lock("a").acquire(timeout=30):
        say("again")
    client.close()
    """
    with script(text, shared_url) as process:
        assert process.end().split() == ["released", "again"]


async def test_asyncio_ends_by_ctrl_c_too(shared_url: str) -> None:
    text = """
    async def main():
        async with await coord.aio.connect(URL) as client:
            say("ready")
            await client.lock("a").acquire()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        say("interrupted")
    """
    with coord.connect(shared_url) as client, client.lock("a").acquire(timeout=PATIENCE):
        with script(text, shared_url) as process:
            assert process.hear() == "ready"
            eventually(lambda: waiters(client, "a") == 1, "the script waits")
            process.process.send_signal(signal.SIGINT)
            assert process.hear() == "interrupted"
            process.end()
        eventually(lambda: waiters(client, "a") == 0, "nobody waits")
