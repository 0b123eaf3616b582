"""A reconciler of every key of a table, for the campaign: README.md says what it does.

Arguments: witness URI TABLE FILE.
"""

import sys
import threading

import coord

WORKERS = 16


def main():
    _, uri, table, out = sys.argv[1:]
    seen = {}
    lock = threading.Lock()

    def show(work):
        n = None if work.document is None else work.document["n"]
        with lock:
            if n is None:
                seen.pop(work.key, None)
            else:
                seen[work.key] = n
        if work.attempt == 1 and n is not None and n % 50 == 7:
            raise RuntimeError("planted")

    with coord.connect(uri) as client:
        with client.reconcile("witness", client.table(table), show, workers=WORKERS) as reconciler:
            for line in sys.stdin:
                if line.strip() != "dump":
                    continue
                with lock:
                    lines = [f"{key} {n}\n" for key, n in sorted(seen.items())]
                with open(out, "w", encoding="ascii") as file:
                    file.writelines(lines)
                print("ok", reconciler.stats().runs, flush=True)


main()
