"""Writes random documents with pymongo alone until its input ends, then prints how often it has.

Arguments: URI DATABASE COLLECTION DOCUMENTS SEED. Each write gives its document another `n`, greater than any before.
"""

import random
import sys
import threading

from pymongo import MongoClient
from pymongo.errors import PyMongoError


def write(things, dice, keys, n):
    key = dice.randrange(keys)
    kind = dice.random()
    if kind < 0.15:
        things.delete_one({"_id": key})
    elif kind < 0.35:
        things.replace_one({"_id": key}, {"n": n}, upsert=True)
    elif kind < 0.4:
        # Several at once, in one transaction: their changes have one place in the oplog.
        with things.database.client.start_session() as session:
            others = [dice.randrange(keys) for _ in range(3)]

            def together(session):
                for other in others:
                    things.update_one({"_id": other}, {"$set": {"n": n}}, upsert=True, session=session)

            session.with_transaction(together)
    else:
        things.update_one({"_id": key}, {"$set": {"n": n}, "$inc": {"count": 1}}, upsert=True)


def main():
    uri, database, collection, documents, seed = sys.argv[1:]
    keys = int(documents) + int(documents) // 5
    things = MongoClient(uri, w="majority", tz_aware=True).get_database(database).get_collection(collection)
    ended = threading.Event()

    def listen():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    dice = random.Random(int(seed))
    n = written = 0
    while not ended.is_set():
        # Also after one that failed, which may have been done.
        n += 1
        try:
            write(things, dice, keys, n)
            written += 1
        except PyMongoError:
            # Through failovers, as any program that tries again, but not at once.
            ended.wait(0.05)
    print(written, flush=True)


main()
