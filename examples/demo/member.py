"""The Python member of the demo: member URL NAME

Provides the service demo/member and wants to lead. Says `leads TOKEN NS` when it does, and then stands there until it
is killed.
"""

import sys
import time

import coord


def main(url: str, name: str) -> None:
    """Leads until the end."""
    with coord.connect(url, name=name) as client, client.provide("demo/member", name):
        with client.election("demo/leader").campaign(name) as term:
            print("leads", term.token, time.monotonic_ns(), flush=True)
            term.lost.wait()
            term.check()


main(*sys.argv[1:])
