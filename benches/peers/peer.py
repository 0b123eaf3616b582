"""Locks of other projects in Python, as workers of the benchmark: `peer.py SUBJECT ADDRESS`.

Speaks the lines that `benches/worker/src/lib.rs` describes, as far as a lock can do them.
"""

import sys
import threading
import time
from pathlib import Path

MOST_SAMPLES = 20_000


class FileLock:
    def __init__(self, folder):
        import filelock

        self.new = lambda name: filelock.FileLock(str(Path(folder) / name), thread_local=False)

    def lock(self, name):
        return self.new(name)

    def acquire(self, lock):
        lock.acquire()

    def release(self, lock):
        lock.release()


class Fasteners(FileLock):
    def __init__(self, folder):
        import fasteners

        self.new = lambda name: fasteners.InterProcessLock(str(Path(folder) / name))


class Redis(FileLock):
    """redis-py's lock with its default interval of polling, 100 ms."""

    def __init__(self, address):
        import redis

        client = redis.Redis(unix_socket_path=address)
        client.ping()
        self.new = lambda name: client.lock(name, timeout=10, thread_local=False)


class Kazoo(FileLock):
    def __init__(self, address):
        import logging

        from kazoo.client import KazooClient

        logging.disable(logging.CRITICAL)
        client = KazooClient(hosts=address, timeout=10.0)
        client.start(timeout=60)
        self.client = client
        self.new = lambda name: client.Lock("/bench/" + name)


SUBJECTS = {"filelock": FileLock, "fasteners": Fasteners, "redis": Redis, "kazoo": Kazoo}


class Worker:
    def __init__(self, subject):
        self.subject = subject
        self.held = []

    def obey(self, words):
        match words:
            case ["pairs", prefix, tasks, millis]:
                return self.pairs(prefix, int(tasks), int(millis))
            case ["loop", lock, tasks, hold, until]:
                return self.turns("loop", lock, int(tasks), int(hold) / 1e6, int(until))
            case ["drain", lock, tasks]:
                return self.turns("drain", lock, int(tasks), 0, 0)
            case ["hold", name]:
                lock = self.subject.lock(name)
                asked = time.monotonic_ns()
                self.subject.acquire(lock)
                acquired = time.monotonic_ns()
                self.held.append(lock)
                return f"held {asked} {acquired}"
            case ["release"]:
                releasing = time.monotonic_ns()
                self.subject.release(self.held.pop())
                return f"released {releasing} {time.monotonic_ns()}"
        raise ValueError(f"'{' '.join(words)}' is nothing that this worker does")

    def pairs(self, prefix, tasks, millis):
        begun = time.monotonic_ns()
        until = begun + millis * 1_000_000
        each = MOST_SAMPLES // tasks

        def work(number):
            lock = self.subject.lock(f"{prefix}{number}")
            samples = []
            count = 0
            before = time.monotonic_ns()
            while before < until:
                self.subject.acquire(lock)
                self.subject.release(lock)
                after = time.monotonic_ns()
                count += 1
                if len(samples) < each:
                    samples.append(after - before)
                else:
                    samples[count % each] = after - before
                before = after
            return count, samples

        results = everyone(work, tasks)
        elapsed = time.monotonic_ns() - begun
        samples = (str(sample) for _, some in results for sample in some)
        return " ".join([f"pairs {sum(count for count, _ in results)} {elapsed}", *samples])

    def turns(self, what, name, tasks, hold, until):
        def work(_):
            lock = self.subject.lock(name)
            turns = []
            while True:
                asked = time.monotonic_ns()
                self.subject.acquire(lock)
                acquired = time.monotonic_ns()
                if hold:
                    time.sleep(hold)
                releasing = time.monotonic_ns()
                self.subject.release(lock)
                released = time.monotonic_ns()
                turns.append(f"{asked}:{acquired}:{releasing}:{released}")
                if released >= until:
                    return turns

        return " ".join([what, *(turn for turns in everyone(work, tasks) for turn in turns)])


def everyone(work, tasks):
    """Runs the tasks in threads of their own, or in this one if it is only one."""
    if tasks == 1:
        return [work(0)]
    results = [None] * tasks
    failures = []

    def run(number):
        try:
            results[number] = work(number)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def main():
    worker = Worker(SUBJECTS[sys.argv[1]](sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(worker.obey(line.split()), flush=True)
        except Exception as error:
            print("error", repr(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
