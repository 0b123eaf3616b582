"""One lock, shared by every process of this machine that runs this."""

import coord

with coord.connect("sqlite:///t.db") as client:
    with client.lock("a").acquire(timeout=5) as held:
        print(held.token)  # give it to what the lock protects: a later holder has a higher one
        held.check()  # raises coord.Lost if somebody else may hold it by now
