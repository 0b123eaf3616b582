"""Sends an outbox's mails until it is killed: sender.py STORE MAILSERVER OUTBOX. Says "ready" when it does."""

import signal
import sys

import coord

store, server, name = sys.argv[1:]
with coord.connect(store) as client:
    outbox = client.outbox(name, client.mailer(server), poll="50ms")
    senders = outbox.start(2)
    print("ready", flush=True)
    signal.pause()
