"""The observer of the demo: observer URL

Tells who leads and who provides, one line each, with the time on the monotonic clock:
`leader NAME TOKEN NS`, `nobody NS`, `joined NAME NS`, `left NAME NS`, `first_up NS`, `last_down NS`. Ends with its input.
"""

import sys
import threading
import time

import coord


def say(*words: object) -> None:
    """One line, in one write: two threads tell."""
    sys.stdout.write(f"{' '.join(map(str, words))} {time.monotonic_ns()}\n")
    sys.stdout.flush()


def watch_leaders(leaders: coord.LeaderWatch) -> None:
    """Tells who leads, once it has said its name."""
    for leader in leaders:
        if leader is None:
            say("nobody")
        elif leader.value is not None:
            say("leader", leader.value, leader.token)


def watch_members(members: coord.Observer) -> None:
    """Tells who provides."""
    for event in members:
        if event.kind in ("joined", "left"):
            assert event.provider is not None
            say(event.kind, event.provider.metadata)
        elif event.service:
            say(event.kind)


def main(url: str) -> None:
    """Tells until nobody listens any more."""
    # At the end it is alone, and has to find out by itself that the last one is dead: after a ttl at the latest.
    with coord.connect(url, name="observer", ttl=2) as client:
        with client.election("demo/leader").observe() as leaders, client.observe("demo/member") as members:
            for target, watch in ((watch_leaders, leaders), (watch_members, members)):
                threading.Thread(target=target, args=(watch,), daemon=True).start()
            sys.stdin.read()


main(*sys.argv[1:])
