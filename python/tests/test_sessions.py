"""A process that stands still for longer than its ttl: it loses everything, is told, and goes on with a new session."""

from __future__ import annotations

import os
import signal

import pytest
from support import PATIENCE, eventually, script

import coord

SYNC = """
client = coord.connect(URL, name="script", ttl=4, host_liveness="off")
states = []
@client.on_session_change
def listen(session):
    states.append(session)
    raise ValueError("logged, and no more")
first = client.session.id
held = client.lock("a").acquire()
say(held.token)
assert held.lost.wait(60)
say(held.lost.reason.name)
try:
    held.check()
except coord.Lost as error:
    say("lost", error.reason.name)
until(lambda: client.session.state == "live" and client.session.id != first)
until(lambda: states and (states[-1].id, states[-1].state) == (client.session.id, 'live'))
assert len({session.id for session in states} - {first}) == 1
say(client.stats().losses)
del held
client.close()
"""

AIO = """
async def main():
    client = await coord.aio.connect(URL, name="script", ttl=4, host_liveness="off")
    states = []
    @client.on_session_change
    async def listen(session):
        states.append(session)
        raise ValueError("logged, and no more")
    first = client.session.id
    held = await client.lock("a").acquire()
    say(held.token)
    say((await held.lost).name)
    try:
        held.check()
    except coord.Lost as error:
        say("lost", error.reason.name)
    while client.session.state != "live" or client.session.id == first:
        await asyncio.sleep(0.005)
    while not states or (states[-1].id, states[-1].state) != (client.session.id, 'live'):
        await asyncio.sleep(0.005)
    assert len({session.id for session in states} - {first}) == 1
    say(client.stats().losses)
    await client.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("text", [SYNC, AIO], ids=["sync", "aio"])
def test_a_paused_process_learns_of_its_loss(shared_url: str, text: str) -> None:
    text = "import logging; logging.basicConfig(stream=open(os.devnull, 'w'))\n" + text
    with coord.connect(shared_url, host_liveness="off") as client, script(text, shared_url) as process:
        token = int(process.hear())
        info = client.lock_info("a")
        assert info is not None
        assert info.token == token
        os.kill(process.process.pid, signal.SIGSTOP)
        with client.lock("a").acquire(timeout=PATIENCE) as held:
            assert held.token > token
            os.kill(process.process.pid, signal.SIGCONT)
            reason = process.hear()
            assert reason in ("EXPIRED", "KILLED")
            assert process.hear().startswith("lost ")
            held.check()
        assert process.hear() == "1"
        process.end()
    eventually(lambda: client.closed, "it is closed")
