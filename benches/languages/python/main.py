"""What calls without I/O, and a reconciler's queue, cost a program in Python. The lines are those of rust/main.rs."""

import itertools
import queue
import sys
import time

import coord

WORKERS = 8


class Program:
    """A client of the memory store, and a reconciler whose function only counts."""

    def __init__(self):
        self.client = coord.connect("memory:")
        self.lock = self.client.lock("bench")
        # Of an iterator no two threads get the same number.
        self.calls = itertools.count(1)
        self.last = 0
        self.called = queue.SimpleQueue()
        self.reconciler = self.client.reconcile("bench", coord.Source.manual(), self.call, workers=WORKERS)

    def call(self, _work):
        """Is called for every key."""
        if next(self.calls) == self.last:
            self.called.put(time.monotonic_ns())

    def run(self, count):
        """How long it takes from before the first of so many keys is added until the last is run."""
        self.last += count
        begun = time.monotonic_ns()
        for key in range(count):
            self.reconciler.add(key)
        return self.called.get() - begun

    def obey(self, what, *numbers):
        """The times that are the answer to a line."""
        match what, numbers:
            case "checks", (batches, calls):
                with self.lock.acquire() as held:
                    return batched(batches, calls, held.check)
            case "pairs", (batches, calls):
                return batched(batches, calls, lambda: self.lock.acquire().release())
            case "keys", (count,):
                return [self.run(count)]
            case "idle", (count, micros):
                times = []
                for _ in range(count):
                    time.sleep(micros / 1e6)
                    times.append(self.run(1))
                return times
        raise ValueError(f"{what!r} is nothing that this program does")


def batched(batches, calls, call):
    """How long each batch of so many calls took."""
    times = []
    for _ in range(batches):
        begun = time.monotonic_ns()
        for _ in range(calls):
            call()
        times.append(time.monotonic_ns() - begun)
    return times


def main():
    """Answers until its input ends."""
    program = Program()
    print("ready", flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        try:
            print(what, *program.obey(what, *map(int, numbers)), flush=True)
        except Exception as error:
            print("error", repr(error).replace("\n", " "), flush=True)
    program.reconciler.close()
    program.client.close()


if __name__ == "__main__":
    main()
