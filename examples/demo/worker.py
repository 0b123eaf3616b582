"""The Python worker of the demo: worker.py URL LEDGER UNTIL_NS [STUCK_NS].

Appends entries to the ledger, each under the lock, until that moment. From STUCK_NS on, it stops in the middle of its
next entry and says so: there it is killed. src/ledger.rs says what an entry looks like.
"""

import os
import signal
import sys
import time

import coord


def mend(ledger: int) -> None:
    """Closes the entry of a holder that died in the middle of it."""
    size = os.lseek(ledger, 0, os.SEEK_END)
    if size > 0 and os.pread(ledger, 1, size - 1) != b"\n":
        os.write(ledger, b" torn\n")


def append(ledger: int, held: coord.Held, stuck: bool) -> None:
    """Writes two halves with a pause between them: another writer in the pause would be seen in the ledger."""
    mend(ledger)
    os.write(ledger, f"entry {held.token} Python {os.getpid()} {time.monotonic_ns()}".encode())
    if stuck:
        print("stuck", flush=True)
        signal.pause()
    time.sleep(0.0003)
    held.check()
    os.write(ledger, f" {time.monotonic_ns()} end\n".encode())


def main(url: str, path: str, until: str, stuck: str = "") -> None:
    """Works until the time is up."""
    stuck_from = float(stuck or "inf")
    ledger = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    with coord.connect(url) as client:
        lock = client.lock("demo/ledger")
        while time.monotonic_ns() < int(until):
            with lock.acquire() as held:
                append(ledger, held, time.monotonic_ns() >= stuck_from)


main(*sys.argv[1:])
